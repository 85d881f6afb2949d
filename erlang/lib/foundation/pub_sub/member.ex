defmodule Foundation.PubSub.Member do
  @moduledoc false
  # This node's member of the group that Phoenix.PubSub nodes send to, under the name by which they address it directly.

  use GenServer
  require Logger

  @scope Phoenix.PubSub
  @name Foundation.PubSub.Adapter

  def start_link(_opts), do: GenServer.start_link(__MODULE__, [], name: @name)

  @impl true
  def init(_opts) do
    :ok = :pg.join(@scope, @name, self())
    {:ok, []}
  end

  @impl true
  def handle_info({:forward_to_local, topic, message, dispatcher}, state) when is_binary(topic) do
    forward(topic, message, dispatcher)
    {:noreply, state}
  end

  def handle_info(_message, state), do: {:noreply, state}

  defp forward(topic, message, Phoenix.PubSub),
    do: Foundation.PubSub.local_broadcast(topic, message)

  # Phoenix channels and others bring a dispatcher of their own, which this node may not have.
  defp forward(topic, message, dispatcher) when is_atom(dispatcher) do
    if Code.ensure_loaded?(dispatcher) and function_exported?(dispatcher, :dispatch, 3) do
      Registry.dispatch(Foundation.PubSub, topic, {dispatcher, :dispatch, [:none, message]})
    else
      Logger.warning(
        "Foundation.PubSub: no dispatcher #{inspect(dispatcher)} for #{inspect(topic)}"
      )
    end
  catch
    kind, reason ->
      Logger.error(
        "Foundation.PubSub: dispatcher #{inspect(dispatcher)} failed: " <>
          Exception.format_banner(kind, reason)
      )
  end

  defp forward(_topic, _message, _no_module), do: :ok
end

defmodule Foundation.Events.Subscriber do
  @moduledoc false
  # Runs a handler for events of the :events channel.

  use GenServer

  alias Foundation.Channels
  alias Foundation.Types.Event
  require Logger

  def start_link(subscription), do: GenServer.start_link(__MODULE__, subscription)

  @impl true
  def init(subscription) do
    case Channels.subscribe(:events) do
      :ok -> {:ok, subscription}
      {:error, error} -> {:stop, error}
    end
  end

  @impl true
  def handle_info(%Event{event_type: type} = event, {types, handler} = subscription) do
    if type in types, do: run(handler, event)
    {:noreply, subscription}
  end

  def handle_info(_message, subscription), do: {:noreply, subscription}

  defp run(handler, event) do
    handler.(event)
  catch
    kind, reason ->
      Logger.error(
        "Foundation.Events: handler failed: " <> Exception.format(kind, reason, __STACKTRACE__)
      )
  end
end

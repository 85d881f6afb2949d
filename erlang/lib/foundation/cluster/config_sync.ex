defmodule Foundation.Cluster.ConfigSync do
  @moduledoc false
  # Applies what other nodes set with Foundation.Config.set_cluster_wide/2.

  use GenServer

  alias Foundation.{Channels, Config}
  require Logger

  def start_link(_opts), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc false
  @spec message(Config.config_path(), term()) :: tuple()
  def message(path, value), do: {:foundation_config, :set, path, value, node()}

  @impl true
  def init(_opts) do
    with :ok <- Channels.subscribe(:control), do: {:ok, []}
  end

  @impl true
  def handle_info({:foundation_config, :set, path, value, origin}, state)
      when origin != node() and is_list(path) do
    with {:error, error} <- Config.update(path, value) do
      Logger.warning(
        "Foundation.Config: #{inspect(path)} set by #{origin} is refused here: #{error.message}"
      )
    end

    {:noreply, state}
  end

  def handle_info(_message, state), do: {:noreply, state}
end

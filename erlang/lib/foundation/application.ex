defmodule Foundation.Application do
  @moduledoc false
  use Application
  require Logger

  @impl true
  def start(_type, _args) do
    with {:error, message} <- Foundation.Native.load(), do: Logger.warning(message)
    Supervisor.start_link([], strategy: :one_for_one, name: Foundation.Supervisor)
  end
end

defmodule Foundation.Registry.Supervisor do
  @moduledoc false
  # Owns the tables that readers look into, so that they outlive the process that writes them.

  use Supervisor

  def start_link({name, _options, _told} = registry),
    do: Supervisor.start_link(__MODULE__, registry, name: Module.concat(name, Supervisor))

  @impl true
  def init({name, options, told}) do
    ^name = :ets.new(name, [:named_table, :public, :set, read_concurrency: true])
    registry = {name, options, told, Foundation.Registry.Pieces.new()}
    Supervisor.init([{Foundation.Registry.Server, registry}], strategy: :one_for_one)
  end
end

defmodule Foundation.ProcessManager.Engine do
  @moduledoc false
  # The processes behind Foundation.ProcessManager on this node. It owns the table of entries, so that a keeper that restarts knows
  # what it knew.

  use Supervisor

  alias Foundation.Host
  alias Foundation.ProcessManager.{Entries, HordeEngine, Keeper, Shared}

  def start_link(_opts), do: Supervisor.start_link(__MODULE__, [], name: __MODULE__)

  @impl true
  def init(_opts) do
    replicas = [
      Supervisor.child_spec(
        {DynamicSupervisor, name: Foundation.ReplicaSupervisor, max_restarts: 100},
        id: Foundation.ReplicaSupervisor
      )
    ]

    if Host.module(:horde) do
      Supervisor.init(replicas ++ HordeEngine.children(), strategy: :one_for_one)
    else
      Entries.create()

      # A supervisor that restarted has lost its children: the keeper then looks at all of them afresh.
      children =
        replicas ++
          [
            {DynamicSupervisor, name: Foundation.DistributedSupervisor},
            {Shared, Keeper},
            Keeper
          ]

      Supervisor.init(children, strategy: :rest_for_one)
    end
  end
end

defmodule Foundation.HostLibrariesTest do
  # 000 §1 with the libraries that it names in the application: the four registered processes are theirs.
  use ExUnit.Case
  @moduletag :integration
  @moduletag :cluster
  @moduletag :host_libraries
  @moduletag timeout: 120_000

  @paths Foundation.HostLibraries.paths([
           :telemetry,
           :telemetry_poller,
           :merkle_map,
           :delta_crdt,
           :libring,
           :jason,
           :phoenix_pubsub,
           :libcluster,
           :horde
         ])
  @moduletag skip: @paths == []

  import Foundation.Eventually
  alias Foundation.{Channels, ProcessManager, TestCluster, Worker}

  setup do
    cluster = TestCluster.start(2, foundation: [cluster: :local_epmd], paths: @paths)
    on_exit(fn -> TestCluster.stop(cluster) end)
    nodes = TestCluster.nodes(cluster)
    call = &TestCluster.call(cluster, &1, &2, &3, &4)

    eventually(fn ->
      Enum.all?(nodes, &(call.(&1, ProcessManager, :nodes, []) |> length() == 2))
    end)

    %{nodes: nodes, call: call}
  end

  test "ProcessManager.start_singleton creates child and registers", %{nodes: [a, b], call: call} do
    assert {:ok, pid} = call.(a, ProcessManager, :start_singleton, [Worker, [], [name: :test]])

    for node <- [a, b] do
      eventually(fn ->
        call.(node, ProcessManager, :lookup_singleton, [:test]) == {:ok, pid} and
          match?(
            [{^pid, _}],
            call.(node, Horde.Registry, :lookup, [Foundation.ProcessRegistry, :test])
          )
      end)
    end

    eventually(fn ->
      call.(b, Horde.DynamicSupervisor, :count_children, [Foundation.DistributedSupervisor])[
        :active
      ] == 1
    end)
  end

  test "channels are topics of Phoenix.PubSub", %{nodes: [a, b], call: call} do
    # A subscriber of ours hears what Phoenix.PubSub broadcasts, and the other way round.
    counter = call.(b, Foundation.Relay, :count, [:events])

    :ok =
      call.(a, Phoenix.PubSub, :broadcast, [Foundation.PubSub, "foundation:events", :of_theirs])

    :ok = call.(a, Channels, :broadcast, [:events, :of_ours])
    eventually(fn -> call.(b, Foundation.Relay, :counted, [counter]) == 2 end)
  end

  test "the nodes are found by libcluster", %{nodes: [a, _b], call: call} do
    assert [{:foundation, _strategy, :worker, [Cluster.Strategy.LocalEpmd]}] =
             call.(a, Supervisor, :which_children, [Foundation.ClusterSupervisor])
  end
end

defmodule Foundation.Cluster.MonitorTest do
  # 000 §5: the telemetry of nodes that come and go, and the line that says that the cluster has formed.
  use ExUnit.Case
  @moduletag :integration
  @moduletag :cluster
  @moduletag timeout: 120_000

  import Foundation.Eventually
  alias Foundation.{Host, LogCollector, Relay, TestCluster}

  # Of a node: what its telemetry and its log say.
  defp collect(cluster, node) do
    call = &TestCluster.call(cluster, node, &1, &2, &3)
    {:ok, agent} = call.(Agent, :start, [Function, :identity, [[]]])
    relay = call.(Relay, :start, [agent])
    events = for name <- [:node_joined, :node_left], do: [:foundation, :cluster, name]
    :ok = call.(Host.Telemetry, :attach_many, [agent, events, &Relay.telemetry/4, agent])
    call.(Logger, :configure, [[level: :info]])
    handler = %{level: :info, config: %{pid: relay}}
    :ok = call.(:logger, :add_handler, [:collector, LogCollector, handler])
    fn -> call.(Agent, :get, [agent, Enum, :reverse, []]) end
  end

  defp formed(collected) do
    for {:logged, :info, "Foundation cluster formed", metadata} <- collected, do: metadata
  end

  for connected_before <- [false, true] do
    @connected_before connected_before
    test "who joins and leaves is told, connected before: #{connected_before}" do
      cluster = TestCluster.start(2)
      on_exit(fn -> TestCluster.stop(cluster) end)
      [a, b] = TestCluster.nodes(cluster)
      collected = collect(cluster, a)
      if @connected_before, do: assert(TestCluster.call(cluster, a, Node, :connect, [b]))

      for node <- [a, b] do
        assert {:ok, _supervisor} =
                 TestCluster.call(cluster, node, Foundation, :start_cluster, [
                   [cluster: :local_epmd]
                 ])
      end

      joined = {[:foundation, :cluster, :node_joined], %{count: 2}, %{node: b}}
      eventually(fn -> joined in collected.() and length(formed(collected.())) == 1 end)

      assert [%{cluster_id: :foundation, node_count: 2, strategy: :local_epmd} = metadata] =
               formed(collected.())

      assert metadata.formation_time_ms >= 0

      cluster = TestCluster.kill(cluster, b)
      on_exit(fn -> TestCluster.stop(cluster) end)

      left? = fn
        {[:foundation, :cluster, :node_left], %{count: 1}, %{node: ^b, reason: reason}} ->
          reason != nil

        _other ->
          false
      end

      eventually(fn -> Enum.any?(collected.(), left?) end)
      assert Enum.count(collected.(), &(&1 == joined)) == 1
    end
  end
end

defmodule Foundation.ClusterTest do
  # Real nodes, on an epmd of their own.
  use ExUnit.Case
  @moduletag :integration
  @moduletag :cluster
  @moduletag timeout: 120_000

  import Foundation.Eventually
  alias Foundation.{Channels, TestCluster}

  setup do
    cluster = TestCluster.start(3, foundation: [cluster: :local_epmd, app_namespaces: [:sample]])
    on_exit(fn -> TestCluster.stop(cluster) end)
    nodes = TestCluster.nodes(cluster)

    eventually(fn ->
      Enum.all?(nodes, &(TestCluster.call(cluster, &1, Foundation.Cluster, :size, []) == 3))
    end)

    %{cluster: cluster, nodes: nodes}
  end

  # A process on a node that collects what it gets.
  defp collector(cluster, node, channel) do
    {:ok, agent} = TestCluster.call(cluster, node, Agent, :start, [Function, :identity, [[]]])
    relay = TestCluster.call(cluster, node, Foundation.Relay, :start, [agent])
    :ok = TestCluster.call(cluster, node, Channels, :subscribe, [channel, relay])
    fn -> TestCluster.call(cluster, node, Agent, :get, [agent, Enum, :reverse, []]) end
  end

  # What a node's telemetry says.
  defp telemetry(cluster, node, event) do
    {:ok, agent} = TestCluster.call(cluster, node, Agent, :start, [Function, :identity, [[]]])

    :ok =
      TestCluster.call(cluster, node, Foundation.Host.Telemetry, :attach, [
        agent,
        event,
        &Foundation.Relay.telemetry/4,
        agent
      ])

    fn -> TestCluster.call(cluster, node, Agent, :get, [agent, Enum, :reverse, []]) end
  end

  test "nodes find each other, talk, agree on settings, and notice who leaves", %{
    cluster: cluster,
    nodes: [a, b, c]
  } do
    for node <- [a, b, c] do
      assert TestCluster.call(cluster, node, Node, :list, []) |> Enum.sort() ==
               Enum.sort([a, b, c] -- [node])
    end

    received = for node <- [a, b, c], do: collector(cluster, node, :events)
    arrivals = telemetry(cluster, b, [:foundation, :message, :received])
    other = collector(cluster, b, :data)
    assert :ok = TestCluster.call(cluster, a, Channels, :broadcast, [:events, {:hello, 1}])
    assert :ok = TestCluster.call(cluster, b, Channels, :route_message, [{:hello, 2}, []])
    eventually(fn -> Enum.all?(received, &(Enum.sort(&1.()) == [{:hello, 1}, {:hello, 2}])) end)
    assert other.() == []

    eventually(fn ->
      Enum.any?(arrivals.(), fn {_event, %{latency: latency}, metadata} ->
        is_integer(latency) and latency >= 0 and metadata == %{channel: :events, latency: latency}
      end)
    end)

    large = {:large, String.duplicate("x", 20_000)}
    assert :ok = TestCluster.call(cluster, c, Channels, :route_message, [large, []])
    eventually(fn -> other.() == [large] end)

    # Compressed on its way, the same on arrival; and what has only a PubSub on its way gets it, too.
    assert :ok =
             TestCluster.call(cluster, c, Channels, :broadcast, [
               :data,
               large,
               [compression: true]
             ])

    eventually(fn -> other.() == [large, large] end)

    assert :ok =
             TestCluster.call(cluster, c, Foundation.PubSub, :broadcast, [
               "foundation:data",
               large
             ])

    eventually(fn -> other.() == [large, large, large] end)

    # Order within a channel.
    for n <- 1..200, do: :ok = TestCluster.call(cluster, a, Channels, :broadcast, [:data, n])
    eventually(fn -> other.() == [large, large, large | Enum.to_list(1..200)] end)

    assert :ok =
             TestCluster.call(cluster, a, Foundation.Config, :set_cluster_wide, [
               [:dev, :debug_mode],
               true
             ])

    assert :ok =
             TestCluster.call(cluster, b, Foundation.Config, :set_cluster_wide, [
               [:sample, :flag],
               "on"
             ])

    eventually(fn ->
      Enum.all?([a, b, c], fn node ->
        TestCluster.call(cluster, node, Foundation.Config, :get, [[:dev, :debug_mode]]) ==
          {:ok, true} and
          TestCluster.call(cluster, node, Foundation.Config, :get, [[:sample, :flag]]) ==
            {:ok, "on"}
      end)
    end)

    assert {:error, %{error_type: :config_update_forbidden}} =
             TestCluster.call(cluster, a, Foundation.Config, :set_cluster_wide, [
               [:ai, :provider],
               :openai
             ])

    assert {:ok, id} =
             TestCluster.call(cluster, c, Foundation.Events, :emit_distributed, [
               :thing,
               %{x: 1},
               [correlation: :global]
             ])

    eventually(fn ->
      Enum.all?(received, fn get ->
        Enum.any?(get.(), &match?(%{event_type: :thing, correlation_id: ^id}, &1))
      end)
    end)

    services =
      for node <- [a, b, c] do
        {:ok, agent} =
          TestCluster.call(cluster, node, Agent, :start, [Function, :identity, [node]])

        :ok =
          TestCluster.call(cluster, node, Foundation.ServiceMesh, :register_service, [
            :test_service,
            agent,
            [:capability_a]
          ])

        agent
      end

    found = fn node ->
      TestCluster.call(cluster, node, Foundation.ServiceMesh, :discover_services, [
        [name: :test_service]
      ])
    end

    eventually(fn -> Enum.all?([a, b, c], &(length(found.(&1)) == 3)) end)
    assert found.(b) |> Enum.map(& &1.node) |> Enum.sort() == Enum.sort([a, b, c])
    :ok = TestCluster.call(cluster, a, Agent, :stop, [hd(services)])
    eventually(fn -> length(found.(c)) == 2 end)

    for {node, value} <- [{a, 1}, {b, 2}, {c, 6}] do
      :ok =
        TestCluster.call(cluster, node, Foundation.Telemetry, :emit_gauge, [
          [:load, :now],
          value,
          %{}
        ])

      :ok =
        TestCluster.call(cluster, node, Foundation.Telemetry, :emit_counter, [
          [:load, :count],
          %{}
        ])
    end

    assert {:ok, sums} =
             TestCluster.call(cluster, a, Foundation.Telemetry, :get_cluster_metrics, [[]])

    assert %{
             load: %{
               now: %{measurements: %{gauge: 9}, count: 3, nodes: 3},
               count: %{measurements: %{counter: 3}}
             }
           } = sums

    assert Enum.sort(sums.cluster.nodes) == Enum.sort([a, b, c])

    assert {:ok, averages} =
             TestCluster.call(cluster, a, Foundation.Telemetry, :get_cluster_metrics, [
               [aggregation: :average, time_window: :last_hour]
             ])

    assert averages.load.now.measurements == %{gauge: 3.0}

    assert %{status: :healthy, nodes: reports, services: services} =
             TestCluster.call(cluster, a, Foundation.HealthMonitor, :cluster_health, [])

    assert for({node, :healthy, %{memory: memory}} when memory > 0 <- reports, do: node) ==
             Enum.sort([a, b, c])

    assert {:config_server, :healthy, 3} in services
    assert {:test_service, :healthy, 2} in services

    assert %{node_count: 3, services: 2, registry_churn_rate: :low, unknown: []} =
             TestCluster.call(cluster, a, Foundation.HealthMonitor, :cluster_metrics, [])

    # A node that stays connected without Foundation has no figures.
    :ok = TestCluster.call(cluster, c, Application, :stop, [:foundation])

    assert %{status: :degraded, nodes: reports} =
             TestCluster.call(cluster, a, Foundation.HealthMonitor, :cluster_health, [])

    assert {^c, :unknown, %{}} = List.keyfind(reports, c, 0)

    assert {:ok, %{cluster: %{unknown: [^c]}}} =
             TestCluster.call(cluster, a, Foundation.Telemetry, :get_cluster_metrics, [[]])

    cluster = TestCluster.kill(cluster, c)
    eventually(fn -> TestCluster.call(cluster, a, Foundation.Cluster, :size, []) == 2 end)
    assert TestCluster.call(cluster, a, Foundation, :available?, [])

    assert [%{node: ^b}] =
             TestCluster.call(cluster, a, Foundation.ServiceMesh, :discover_services, [
               [name: :test_service]
             ])
  end
end

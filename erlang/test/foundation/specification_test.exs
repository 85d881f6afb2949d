defmodule Foundation.SpecificationTest do
  # The tests of the technical specification (000 §3) under their own titles. What else they could show is in the tests of each module.
  use ExUnit.Case
  @moduletag :integration
  @moduletag :cluster
  @moduletag timeout: 180_000

  import Foundation.Eventually
  alias Foundation.{Channels, ProcessManager, ServiceMesh, TestCluster, Worker}

  # mix test gives the cluster back when the test ends.
  defp start_cluster(count) do
    cluster = TestCluster.start(count, foundation: [cluster: :local_epmd])
    on_exit(fn -> TestCluster.stop(cluster) end)
    cluster
  end

  defp call(cluster, node, module, function, args \\ []),
    do: TestCluster.call(cluster, node, module, function, args)

  defp cluster_fully_converged?(cluster) do
    nodes = TestCluster.nodes(cluster)

    Enum.all?(nodes, fn node ->
      call(cluster, node, Foundation.Cluster, :size) == length(nodes) and
        length(call(cluster, node, ProcessManager, :nodes)) == length(nodes)
    end)
  end

  defp formed(count) do
    cluster = start_cluster(count)
    eventually(fn -> cluster_fully_converged?(cluster) end)
    {cluster, TestCluster.nodes(cluster)}
  end

  test "ProcessManager.start_singleton creates child and registers" do
    {cluster, [a]} = formed(1)

    assert {:ok, pid} =
             call(cluster, a, ProcessManager, :start_singleton, [Worker, [], [name: :test]])

    assert {:ok, ^pid} = call(cluster, a, ProcessManager, :lookup_singleton, [:test])

    assert [{_, ^pid, :worker, _}] =
             call(cluster, a, DynamicSupervisor, :which_children, [
               Foundation.DistributedSupervisor
             ])
  end

  test "the four registered processes are there for direct access" do
    {cluster, [a]} = formed(1)

    for name <- [
          Foundation.PubSub,
          Foundation.ProcessRegistry,
          Foundation.DistributedSupervisor,
          Foundation.ClusterSupervisor
        ] do
      assert call(cluster, a, Process, :whereis, [name]) |> is_pid()
    end

    assert [{_, pid, :worker, _}] =
             call(cluster, a, Supervisor, :which_children, [Foundation.ClusterSupervisor])

    assert is_pid(pid)
  end

  test "ClusterConfig translates :kubernetes to libcluster topology" do
    topology = Foundation.ClusterConfig.translate_kubernetes_config(app_name: "test-app")
    assert topology[:strategy] == Cluster.Strategy.Kubernetes
    assert topology[:config][:kubernetes_selector] == "app=test-app"
  end

  test "services registered on one node are discoverable from another" do
    {cluster, [node1, node2]} = formed(2)
    {:ok, service} = call(cluster, node1, Agent, :start, [Function, :identity, [1]])

    :ok =
      call(cluster, node1, ServiceMesh, :register_service, [
        :test_service,
        service,
        [:capability_a]
      ])

    eventually(fn ->
      length(call(cluster, node2, ServiceMesh, :discover_services, [[name: :test_service]])) == 1
    end)
  end

  test "cluster heals after network partition" do
    {cluster, nodes} = formed(5)
    {left, right} = Enum.split(nodes, 2)

    {:ok, pid} =
      call(cluster, hd(nodes), ProcessManager, :start_singleton, [Worker, [], [name: :one]])

    cookie = call(cluster, hd(nodes), Node, :get_cookie)

    # [node1, node2] vs [node3, node4, node5]: each side takes the other for one with another cookie.
    for a <- left, b <- right do
      call(cluster, a, Node, :set_cookie, [b, :apart])
      call(cluster, b, Node, :set_cookie, [a, :another])
      call(cluster, a, Node, :disconnect, [b])
    end

    # Each side goes on: it is a cluster, has the singleton, and its messages arrive.
    for side <- [left, right], node <- side do
      eventually(fn ->
        here =
          case call(cluster, node, ProcessManager, :lookup_singleton, [:one]) do
            {:ok, pid} -> node(pid) in side
            :not_found -> false
          end

        here and call(cluster, node, Foundation.Cluster, :size) == length(side)
      end)

      assert :ok = call(cluster, node, Channels, :broadcast, [:events, :still_here])
    end

    for a <- left, b <- right do
      call(cluster, a, Node, :set_cookie, [b, cookie])
      call(cluster, b, Node, :set_cookie, [a, cookie])
    end

    eventually(fn -> cluster_fully_converged?(cluster) end)
    assert node(pid) in nodes

    eventually(fn ->
      answers =
        for node <- nodes,
            uniq: true,
            do: call(cluster, node, ProcessManager, :lookup_singleton, [:one])

      match?([{:ok, _}], answers)
    end)
  end

  test "services migrate when nodes fail" do
    {cluster, nodes} = formed(3)
    {:ok, service_pid} = call(cluster, hd(nodes), ProcessManager, :start_singleton, [Worker, []])
    original_node = node(service_pid)
    cluster = TestCluster.kill(cluster, original_node)
    [other | _] = nodes -- [original_node]

    eventually(fn ->
      case call(cluster, other, ProcessManager, :lookup_singleton, [Worker]) do
        {:ok, new_pid} -> node(new_pid) != original_node
        :not_found -> false
      end
    end)
  end

  @tag :benchmark
  test "cluster formation completes within SLA" do
    start_time = System.monotonic_time(:millisecond)
    {_cluster, _nodes} = formed(5)
    formation_time = System.monotonic_time(:millisecond) - start_time
    IO.puts("5 nodes started and formed in #{formation_time} ms")
    assert formation_time < 30_000
  end

  @tag :benchmark
  test "channel messaging meets throughput requirements" do
    {cluster, [sender | receivers]} = formed(3)

    for {channel, least} <- [control: 1_000, events: 5_000, data: 10_000] do
      counters =
        for node <- receivers, do: call(cluster, node, Foundation.Relay, :count, [channel])

      sent = call(cluster, sender, Foundation.Relay, :flood, [channel, 3_000])

      arrived = fn ->
        for {node, counter} <- Enum.zip(receivers, counters),
            do: call(cluster, node, Foundation.Relay, :counted, [counter])
      end

      eventually(fn -> arrived.() == [sent, sent] end)
      rate = sent / 3
      IO.puts("#{channel}: #{round(rate)} messages/s to each of two other nodes")
      assert rate > least
    end
  end
end

defmodule Foundation.ProcessManagerTest do
  # Real nodes, on an epmd of their own, by our engine and by the host's Horde where its beams are.
  use ExUnit.Case
  @moduletag :integration
  @moduletag :cluster
  @moduletag timeout: 120_000
  @shared Foundation.ProcessManager.Shared

  import Foundation.Eventually
  alias Foundation.{ProcessManager, TestCluster, Worker}

  @horde Foundation.HostLibraries.paths([
           :horde,
           :delta_crdt,
           :merkle_map,
           :libring,
           :telemetry,
           :telemetry_poller
         ])

  defp cluster(count, opts \\ []) do
    cluster = TestCluster.start(count, [foundation: [cluster: :local_epmd]] ++ opts)
    on_exit(fn -> TestCluster.stop(cluster) end)
    nodes = TestCluster.nodes(cluster)

    eventually(fn ->
      Enum.all?(nodes, &(TestCluster.call(cluster, &1, Foundation.Cluster, :size, []) == count))
    end)

    {cluster, nodes}
  end

  defp start(cluster, node, args),
    do: TestCluster.call(cluster, node, ProcessManager, :start_singleton, args)

  defp lookup(cluster, node, name),
    do: TestCluster.call(cluster, node, ProcessManager, :lookup_singleton, [name])

  defp all_know(cluster, nodes, name, pid),
    do: eventually(fn -> Enum.all?(nodes, &(lookup(cluster, &1, name) == {:ok, pid})) end)

  test "without clustering, errors name the facade and the tool" do
    assert {:error, %{error_type: :process_manager_unavailable, message: message}} =
             ProcessManager.start_singleton(Worker, [])

    assert message =~
             "Foundation.ProcessManager.start_singleton/3: Foundation.DistributedSupervisor"

    assert [{:error, %{message: _}}] = ProcessManager.start_replicated(Worker, [])
    assert ProcessManager.lookup_singleton(Worker) == :not_found
    assert ProcessManager.list_singletons() == %{}
    assert {:error, %{}} = ProcessManager.stop_singleton(Worker)
  end

  # 000 §3, "services migrate when nodes fail", and what goes with it.
  for {engine, paths} <- [own: [], horde: @horde], engine == :own or paths != [] do
    @tag host_libraries: engine == :horde
    test "services migrate when nodes fail (#{engine})" do
      {cluster, nodes} = cluster(3, paths: unquote(paths))
      [a | _] = nodes

      # Every node asks at once, all for the same one.
      answers =
        nodes
        |> Enum.map(&Task.async(fn -> start(cluster, &1, [Worker, [x: 1], [name: :one]]) end))
        |> Task.await_many(60_000)

      assert [{:ok, pid}] = Enum.uniq(answers)
      all_know(cluster, nodes, :one, pid)
      assert TestCluster.call(cluster, node(pid), GenServer, :call, [pid, :args]) == [x: 1]
      assert start(cluster, a, [Worker, [x: 2], [name: :one]]) == {:ok, pid}
      assert {:ok, other} = start(cluster, a, [Worker])

      assert TestCluster.call(cluster, a, ProcessManager, :list_singletons, []) == %{
               Worker => other,
               one: pid
             }

      # It crashes: it runs again.
      TestCluster.call(cluster, node(pid), Process, :exit, [pid, :kill])

      eventually(fn ->
        match?({:ok, new} when new != pid, lookup(cluster, a, :one))
      end)

      # Its node goes: it runs elsewhere, with what it was started with.
      {:ok, pid} = lookup(cluster, a, :one)
      cluster = TestCluster.kill(cluster, node(pid))
      [b | _] = rest = nodes -- [node(pid)]

      eventually(fn ->
        match?({:ok, new} when node(new) != node(pid), lookup(cluster, b, :one))
      end)

      {:ok, pid} = lookup(cluster, b, :one)
      all_know(cluster, rest, :one, pid)
      assert TestCluster.call(cluster, node(pid), GenServer, :call, [pid, :args]) == [x: 1]

      # One that ends for good is forgotten everywhere.
      assert {:ok, brief} = start(cluster, b, [Worker, [], [name: :brief, restart: :transient]])
      all_know(cluster, rest, :brief, brief)
      :ok = TestCluster.call(cluster, node(brief), GenServer, :call, [brief, :stop])
      eventually(fn -> Enum.all?(rest, &(lookup(cluster, &1, :brief) == :not_found)) end)
      assert :ok = TestCluster.call(cluster, b, ProcessManager, :stop_singleton, [:one])
      eventually(fn -> Enum.all?(rest, &(lookup(cluster, &1, :one) == :not_found)) end)

      assert {:error, :not_found} =
               TestCluster.call(cluster, b, ProcessManager, :stop_singleton, [:one])

      assert {:ok, _again} = start(cluster, b, [Worker, [], [name: :one]])

      # What cannot start says so and stays unknown.
      assert {:error, :no} = start(cluster, b, [Worker, [fail: :no], [name: :failing]])
      assert lookup(cluster, b, :failing) == :not_found

      assert [{:ok, p1}, {:ok, p2}] =
               TestCluster.call(cluster, b, ProcessManager, :start_replicated, [Worker, [y: 1]])

      assert Enum.sort([node(p1), node(p2)]) == Enum.sort(rest)

      assert [{:ok, ^p1}, {:ok, ^p2}] =
               TestCluster.call(cluster, b, ProcessManager, :start_replicated, [Worker, [y: 1]])

      assert TestCluster.call(cluster, b, ProcessManager, :lookup_replicated, [Worker, node(p2)]) ==
               {:ok, p2}

      for name <- [
            Foundation.PubSub,
            Foundation.ProcessRegistry,
            Foundation.DistributedSupervisor,
            Foundation.ClusterSupervisor
          ] do
        assert is_pid(TestCluster.call(cluster, b, Process, :whereis, [name])), inspect(name)
      end

      # 1.x goes on as it was, and its names are the cluster's.
      [c, d] = rest

      registry = fn node, function, args ->
        TestCluster.call(cluster, node, Foundation.ServiceRegistry, function, args)
      end

      {:ok, agent} = TestCluster.call(cluster, c, Agent, :start, [Function, :identity, [:of_c]])
      assert registry.(c, :register, [:production, :pay, agent]) == :ok
      eventually(fn -> registry.(d, :lookup, [:production, :pay]) == {:ok, agent} end)
      {:ok, another} = TestCluster.call(cluster, d, Agent, :start, [Function, :identity, [:of_d]])

      assert registry.(d, :register, [:production, :pay, another]) ==
               {:error, {:already_registered, agent}}

      assert registry.(d, :register, [:production, :config_server, another]) == :ok
      assert :pay in registry.(d, :list_services, [:production])

      assert %{services: %{pay: %{pid: ^agent, alive: true}}} =
               registry.(d, :get_service_info, [:production])

      via = registry.(d, :via_tuple, [:my_app, {:worker, 1}])

      assert {:ok, named} =
               TestCluster.call(cluster, d, Agent, :start, [Function, :identity, [7], [name: via]])

      eventually(fn -> registry.(c, :lookup, [:my_app, {:worker, 1}]) == {:ok, named} end)
      assert TestCluster.call(cluster, c, Agent, :get, [via, Function, :identity, []]) == 7

      assert {:error, {:already_started, ^named}} =
               TestCluster.call(cluster, c, Agent, :start, [Function, :identity, [8], [name: via]])

      assert registry.(c, :unregister, [:production, :pay]) == :ok

      eventually(fn ->
        match?({:error, %{code: 5001}}, registry.(d, :lookup, [:production, :pay]))
      end)

      TestCluster.call(cluster, d, Agent, :stop, [named])

      eventually(fn ->
        match?({:error, %{code: 5001}}, registry.(c, :lookup, [:my_app, {:worker, 1}]))
      end)

      assert {_, :healthy, 2} =
               TestCluster.call(cluster, c, Foundation.HealthMonitor, :cluster_health, []).services
               |> List.keyfind(:event_store, 0)

      assert {:ok, _} =
               TestCluster.call(cluster, b, Foundation.ServiceRegistry, :lookup, [
                 :production,
                 :config_server
               ])
    end
  end

  test "the two sides of a partition keep one process when they meet" do
    {cluster, [a, b]} = cluster(2)
    assert {:ok, pid} = start(cluster, a, [Worker, [], [name: :one]])
    all_know(cluster, [a, b], :one, pid)

    # Different cookies keep the sides apart.
    TestCluster.call(cluster, a, Node, :set_cookie, [b, :apart])
    TestCluster.call(cluster, b, Node, :set_cookie, [a, :another])
    TestCluster.call(cluster, a, Node, :disconnect, [b])

    for {here, there} <- [{a, b}, {b, a}] do
      eventually(fn ->
        match?({:ok, p} when node(p) == here, lookup(cluster, here, :one)) and
          there not in TestCluster.call(cluster, here, Node, :list, [])
      end)
    end

    assert {:ok, only_a} = start(cluster, a, [Worker, [], [name: :of_a]])
    assert {:ok, only_b} = start(cluster, b, [Worker, [], [name: :of_b]])

    # And each a name of its own that the other gives to another program's process, the singleton first and last.
    [agent_a, agent_b] = for node <- [a, b], do: agent(cluster, node)
    :ok = give(cluster, a, :theirs, agent_a)
    later(cluster, [a, b])
    assert {:ok, taken} = start(cluster, b, [Worker, [], [name: :theirs]])
    later(cluster, [a, b])
    :ok = give(cluster, b, :of_a, agent_b)
    {:ok, one_a} = lookup(cluster, a, :one)
    {:ok, one_b} = lookup(cluster, b, :one)
    cookie = TestCluster.call(cluster, a, Node, :get_cookie, [])
    TestCluster.call(cluster, b, Node, :set_cookie, [a, cookie])
    TestCluster.call(cluster, a, Node, :set_cookie, [b, cookie])
    all_know(cluster, [a, b], :of_a, only_a)
    all_know(cluster, [a, b], :of_b, only_b)

    eventually(fn ->
      answers = for node <- [a, b], do: lookup(cluster, node, :one)

      living =
        for pid <- [one_a, one_b],
            TestCluster.call(cluster, node(pid), Process, :alive?, [pid]),
            do: {:ok, pid}

      # Rust nodes find the same.
      shared = for node <- [a, b], {pid, :singleton} <- found(cluster, node, :one), do: {:ok, pid}
      length(living) == 1 and Enum.uniq(answers) == living and shared == living ++ living
    end)

    all_know(cluster, [a, b], :theirs, agent_a)

    eventually(fn ->
      not TestCluster.call(cluster, b, Process, :alive?, [taken]) and
        not TestCluster.call(cluster, b, Process, :alive?, [agent_b]) and
        found(cluster, b, :of_a) == [{only_a, :singleton}]
    end)

    assert lookup(cluster, b, :of_a) == {:ok, only_a}
  end

  defp agent(cluster, node) do
    {:ok, agent} =
      TestCluster.call(cluster, node, Agent, :start, [Function, :identity, [:theirs]])

    agent
  end

  # As another program gives a process a name.
  defp give(cluster, node, name, pid) do
    {:ok, _} =
      TestCluster.call(cluster, node, Foundation.Registry, :register, [@shared, name, nil, pid])

    :ok
  end

  defp found(cluster, node, name),
    do: TestCluster.call(cluster, node, Foundation.Registry, :lookup, [@shared, name])

  # Claims are milliseconds.
  defp later(cluster, nodes) do
    now = fn ->
      for node <- nodes, do: TestCluster.call(cluster, node, System, :system_time, [:millisecond])
    end

    latest = Enum.max(now.())
    eventually(fn -> Enum.min(now.()) > latest + 1 end)
  end

  test "a process that another program has registered is the one of its name" do
    {cluster, [a, b]} = cluster(2)
    agent = agent(cluster, b)
    :ok = give(cluster, b, :theirs, agent)
    all_know(cluster, [a, b], :theirs, agent)
    assert start(cluster, a, [Worker, [], [name: :theirs]]) == {:ok, agent}
    assert TestCluster.call(cluster, a, ProcessManager, :list_singletons, []) == %{theirs: agent}

    assert {:error, %{error_type: :process_manager_unavailable, message: message}} =
             TestCluster.call(cluster, a, ProcessManager, :stop_singleton, [:theirs])

    assert message =~ "Keeper: :theirs is #PID<"
    TestCluster.call(cluster, b, Agent, :stop, [agent])
    eventually(fn -> lookup(cluster, a, :theirs) == :not_found end)
    assert {:ok, pid} = start(cluster, a, [Worker, [], [name: :theirs]])
    all_know(cluster, [a, b], :theirs, pid)
    eventually(fn -> found(cluster, a, :theirs) == [{pid, :singleton}] end)
    :ok = TestCluster.call(cluster, a, ProcessManager, :stop_singleton, [:theirs])
    eventually(fn -> found(cluster, b, :theirs) == [] end)
  end

  test "one that cannot stay up harms no other" do
    {cluster, [a]} = cluster(1)
    {:ok, steady} = start(cluster, a, [Worker, [], [name: :steady]])
    {:ok, _} = start(cluster, a, [Worker, [], [name: :shaky]])

    for _n <- 1..6 do
      eventually(fn -> match?({:ok, _}, lookup(cluster, a, :shaky)) end)
      {:ok, pid} = lookup(cluster, a, :shaky)
      TestCluster.call(cluster, a, Process, :exit, [pid, :kill])
    end

    eventually(fn -> match?({:ok, _}, lookup(cluster, a, :shaky)) end)
    assert lookup(cluster, a, :steady) == {:ok, steady}
    keeper = TestCluster.call(cluster, a, Process, :whereis, [Foundation.ProcessManager.Keeper])
    TestCluster.call(cluster, a, Process, :exit, [keeper, :kill])

    eventually(fn ->
      TestCluster.call(cluster, a, Process, :whereis, [Foundation.ProcessManager.Keeper]) not in [
        nil,
        keeper
      ]
    end)

    assert lookup(cluster, a, :steady) == {:ok, steady}
    assert start(cluster, a, [Worker, [], [name: :steady]]) == {:ok, steady}
  end
end

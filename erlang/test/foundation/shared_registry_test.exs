defmodule Foundation.SharedRegistryTest do
  use ExUnit.Case

  import Foundation.Eventually
  alias Foundation.Native.Loader
  alias Foundation.{ProcessRegistry, Registry, TestCluster}
  alias Foundation.Registry.{Alone, Native}

  defp start(opts \\ []) do
    name = :"names_#{System.unique_integer([:positive])}"
    start_supervised!({Registry, [name: name] ++ opts}, id: name)
    name
  end

  defp process do
    pid = spawn(fn -> Process.sleep(:infinity) end)
    on_exit(fn -> Process.exit(pid, :kill) end)
    pid
  end

  defp kill(pid) do
    ref = Process.monitor(pid)
    Process.exit(pid, :kill)
    assert_receive {:DOWN, ^ref, :process, ^pid, _reason}
  end

  describe "on one node" do
    @describetag :unit

    test "a unique key has one process until it ends" do
      names = start()
      assert {:ok, server} = Registry.register(names, "a", 1)
      assert server == Process.whereis(names)
      assert Registry.lookup(names, "a") == [{self(), 1}]
      pid = process()
      assert Registry.register(names, "a", 2, pid) == {:error, {:already_registered, self()}}
      assert {:ok, _} = Registry.register(names, 1, :v, pid)
      assert Registry.lookup(names, 1.0) == []
      assert Registry.keys(names, pid) == [1]
      assert Registry.count(names) == 2
      assert Enum.sort(Registry.to_list(names)) == [{1, pid, :v}, {"a", self(), 1}]
      assert Registry.update_value(names, "a", 3) == :ok
      assert Registry.update_value(names, "b", 3) == {:error, :not_registered}
      assert Registry.lookup(names, "a") == [{self(), 3}]
      assert Registry.wait_until_all(names, "a") == :ok
      assert Registry.wait_until_all(names, "b") == {:error, :not_registered}
      assert Registry.members(names) == [node()]
      assert %{behind: 0, conflicts: 0} = Registry.stats(names)
      assert Registry.unregister(names, "a") == :ok
      assert Registry.unregister(names, "a") == :ok
      assert Registry.lookup(names, "a") == []
      kill(pid)
      assert Registry.lookup(names, 1) == []
      eventually(fn -> Registry.count(names) == 0 end)
      assert :ets.tab2list(names) == []
    end

    test "duplicate keys, listeners, via tuples" do
      Process.register(self(), :listens)
      many = start(keys: :duplicate, listeners: [:listens, :nobody])
      pid = process()
      {:ok, _} = Registry.register(many, :a, 1)
      {:ok, _} = Registry.register(many, :a, 2, pid)
      assert Registry.register(many, :a, 2, pid) == {:error, {:already_registered, pid}}
      assert Enum.sort(Registry.lookup(many, :a)) == Enum.sort([{self(), 1}, {pid, 2}])
      me = self()
      assert_receive {:added, ^many, :a, ^me, 1}
      kill(pid)
      assert_receive {:removed, ^many, :a, ^pid, 2}

      names = start()
      name = {:via, Registry, {names, {:agent, 1}}}
      {:ok, agent} = Agent.start(fn -> 7 end, name: name)
      assert Agent.start(fn -> 8 end, name: name) == {:error, {:already_started, agent}}
      assert Agent.get(name, & &1) == 7
      assert GenServer.whereis({:via, Registry, {names, {:agent, 1}, :value}}) == agent
      Agent.stop(name)
      assert GenServer.whereis(name) == nil
      assert_raise ArgumentError, fn -> Registry.send({names, :nobody}, :hello) end
    end

    test "limits and wrong arguments are errors, and cost nobody else" do
      names = start(max_names: 2, max_bytes: 100)
      assert Registry.register(names, :a, String.duplicate("x", 200)) == {:error, :too_large}
      {:ok, _} = Registry.register(names, :a, 1)
      {:ok, _} = Registry.register(names, :b, 1)
      assert Registry.register(names, :c, 1) == {:error, :system_limit}
      assert GenServer.call(names, {:nonsense}) == {:error, :badarg}
      deep = Enum.reduce(1..20_000, [], fn _n, list -> [list] end)
      assert {:error, _reason} = GenServer.call(names, {:register, deep, 1, self()})
      # Whatever a peer sends: nothing comes of it.
      for message <- [
            {:hello},
            {:writes, 1, 2},
            {:have, deep},
            :text,
            {:"$gen_cast", 1},
            {:"$gen_call", :nobody, deep},
            {:"$gen_call", {1, 2}, :count},
            {:"$gen_call", [], {:lookup, :a}}
          ],
          do: send(names, message)

      assert Registry.count(names) == 2
      assert Registry.lookup(names, :a) == [{self(), 1}]

      for opts <- [[name: nil], [name: :x, keys: :some], [name: :x, colour: 1], [name: "x"]],
          do: assert_raise(ArgumentError, fn -> Registry.start_link(opts) end)
    end

    test "a process of a node that is not connected has no name" do
      names = start()
      # NEW_PID_EXT of a@b
      far = :erlang.binary_to_term(<<131, 88, 119, 3, "a@b", 7::32, 0::32, 1::32>>)
      assert {:ok, _} = Registry.register(names, :far, 1, far)
      eventually(fn -> Registry.to_list(names) == [] end)
      assert {:ok, _} = Registry.register(names, :far, 1)
    end

    test "a restart keeps the names of living processes" do
      names = start()
      [dies, lives] = [process(), process()]
      {:ok, server} = Registry.register(names, :lives, 1, lives)
      {:ok, _} = Registry.register(names, :dies, 2, dies)
      :sys.suspend(server)
      kill(dies)
      kill(server)
      eventually(fn -> Process.whereis(names) not in [nil, server] end)
      eventually(fn -> Registry.count(names) == 1 end)
      assert Registry.to_list(names) == [{:lives, lives, 1}]
      kill(lives)
      eventually(fn -> Registry.count(names) == 0 end)
    end

    test "a panic ends the registry's process, which begins anew with what it had" do
      names = start()
      {:ok, server} = Registry.register(names, :a, 1)
      {Native, machine} = {:sys.get_state(server).module, :sys.get_state(server).machine}
      assert Native.handle(machine, 0, [:nonsense]) == {:error, :badarg}
      assert_raise ArgumentError, fn -> Loader.machine_handle(1, 2, 3) end
      {resource, 0} = machine
      assert Loader.machine_handle(resource, 0, "no term") == {:error, :badarg}
      assert_raise ErlangError, ~r/nif_panicked/, fn -> Loader.machine_panic(resource) end
      # What it was doing is half done, so it is not asked again.
      assert {{:case_clause, {:error, :panicked}}, _call} =
               catch_exit(Registry.register(names, :b, 1))
               |> then(fn {{reason, _stack}, call} -> {reason, call} end)

      eventually(fn -> Process.whereis(names) not in [nil, server] end)
      assert Registry.lookup(names, :a) == [{self(), 1}]
    end
  end

  test "after all of a key of many processes the next calls are on a dirty scheduler" do
    {:ok, machine} = Native.new(:names, self(), %{keys: :duplicate})
    call = fn request -> [{:message, {:"$gen_call", {self(), :tag}, request}, 0}] end
    handle = fn events, machine -> machine |> Native.handle(0, events) |> elem(1) end
    register = fn key, pid, machine -> handle.(call.({:register, key, 1, pid}), machine) end
    # One more is a piece of the key, whatever it has.
    many =
      Enum.reduce(1..300, machine, fn _n, machine -> register.(:many, process(), machine) end)

    assert {_resource, 0} = many
    assert {_resource, 100} = many = handle.(call.({:lookup, :many}), many)
    assert {_resource, 99} = register.(:one, self(), many)
  end

  test "a key of many processes is kept in pieces, and read as of one moment" do
    many = start(keys: :duplicate)
    pids = for _n <- 1..500, do: process()
    for {pid, n} <- Enum.with_index(pids), do: {:ok, _} = Registry.register(many, :k, n, pid)
    {:ok, _} = Registry.register(many, :few, 0)
    assert [{:k, {_table, _life, numbers}}] = :ets.lookup(many, :k)
    assert length(numbers) in 10..100

    all = MapSet.new(pids)
    found = fn -> many |> Registry.lookup(:k) |> MapSet.new(&elem(&1, 0)) end
    assert found.() == all
    assert Registry.lookup(many, :k) == GenServer.call(many, {:lookup, :k})
    assert length(Registry.to_list(many)) == 501
    assert Registry.whereis_name({many, :k}) in pids

    # One goes and comes; readers find all others, once each, and it or not.
    changing = hd(pids)
    others = MapSet.delete(all, changing)

    writer =
      Task.async(fn ->
        for _n <- 1..500 do
          Registry.unregister(many, :k, changing)
          Registry.register(many, :k, 0, changing)
        end
      end)

    Stream.repeatedly(fn ->
      entries = Registry.lookup(many, :k)
      seen = MapSet.new(entries, &elem(&1, 0))
      assert length(entries) == MapSet.size(seen)
      assert MapSet.delete(seen, changing) == others
    end)
    |> Enum.find(fn _checked -> not Process.alive?(writer.pid) end)

    Task.await(writer)
    assert found.() == all
    assert Registry.update_value(many, :k, :new, changing) == :ok
    assert {changing, :new} in Registry.lookup(many, :k)

    # Another process of the registry has them again, and what the one before has written is gone.
    [{:k, {table, life, _numbers}}] = :ets.lookup(many, :k)
    server = Process.whereis(many)
    kill(server)
    eventually(fn -> Process.whereis(many) not in [nil, server] end)
    eventually(fn -> Registry.count(many) == 501 end)
    assert found.() == all
    assert :ets.match(table, {{life, :_}, :_}) == []

    {few, most} = Enum.split(pids, 5)
    for pid <- most, do: :ok = Registry.unregister(many, :k, pid)
    assert [{:k, [_, _, _, _, _]}] = :ets.lookup(many, :k)
    assert found.() == MapSet.new(few)
    # What is kept for readers has a bound.
    assert :ets.info(table, :size) < 1000
  end

  # What one node decides alone is the same in Rust and in Elixir.
  @tag :property
  test "the machine without native functions does what the native one does" do
    pids = for _n <- 1..4, do: process()

    for seed <- 1..400 do
      :rand.seed(:exsss, {4, 7, seed})
      options = Enum.random([%{}, %{keys: :duplicate}, %{max_names: 3}, %{max_bytes: 40}])
      {:ok, native} = Native.new(:names, self(), options)

      Enum.reduce(1..60, Alone.new(self(), options), fn step, alone ->
        events = for _n <- 1..:rand.uniform(3), do: event(pids, step)

        {:ok, _native, actions, nil} = Native.handle(native, step, events)
        {:ok, alone, expected, nil} = Alone.handle(alone, step, events)
        assert actions == expected, "seed #{seed}, step #{step}: #{inspect(events)}"
        alone
      end)
    end
  end

  defp event(pids, wall) do
    pid = Enum.random(pids)
    key = Enum.random([1, :a, "b", {:c, "text", [1]}])
    value = Enum.random([1, :v, String.duplicate("x", 30)])

    request =
      case :rand.uniform(13) do
        n when n <= 4 -> {:register, key, value, pid}
        5 -> {:unregister, key, pid}
        6 -> {:update_value, key, value, pid}
        7 -> {:lookup, key}
        8 -> {:keys, pid}
        9 -> Enum.random([:count, :members, :stats, :nonsense])
        10 -> {:whereis_name, key}
        11 -> {:select, Enum.random([:first, {:after, key}, :last]), :rand.uniform(4) - 1}
        12 -> {:wait_until_all, key, Enum.random([0, -1, :x])}
        13 -> nil
      end

    if request,
      do: {:message, {:"$gen_call", {self(), :tag}, request}, wall},
      else: {:down, :rand.uniform(12)}
  end

  describe "on several nodes" do
    @describetag :cluster
    @describetag :integration
    @describetag timeout: 120_000

    defp on(cluster, node, module, function, args),
      do: TestCluster.call(cluster, node, module, function, args)

    # A process there that does nothing and has a name.
    defp named(cluster, node, key) do
      {:ok, agent} = on(cluster, node, Agent, :start, [Function, :identity, [key]])
      {:ok, _} = on(cluster, node, Registry, :register, [:names, key, node, agent])
      agent
    end

    defp cluster(count, foundation \\ []) do
      cluster = TestCluster.start(count, foundation: foundation)
      on_exit(fn -> TestCluster.stop(cluster) end)
      for node <- TestCluster.nodes(cluster), do: start_there(cluster, node)
      cluster
    end

    defp start_there(cluster, node) do
      {:ok, _pid} =
        on(cluster, node, Supervisor, :start_child, [
          Foundation.Supervisor,
          {Registry, name: :names}
        ])
    end

    defp seen(cluster, node, key, expected) do
      eventually(fn ->
        on(cluster, node, Registry, :whereis_name, [{:names, key}]) == expected
      end)
    end

    test "names are found everywhere, go with their node, and come back with it" do
      cluster = cluster(3)
      [a, b, c] = TestCluster.nodes(cluster)
      early = named(cluster, a, :early)
      true = on(cluster, a, Node, :connect, [b])
      true = on(cluster, a, Node, :connect, [c])
      true = on(cluster, b, Node, :connect, [c])
      seen(cluster, b, :early, early)
      seen(cluster, c, :early, early)
      # It waits for those that it knows.
      members = fn -> Enum.sort(on(cluster, b, Registry, :members, [:names])) end
      eventually(fn -> members.() == Enum.sort([a, b, c]) end)

      late = named(cluster, b, "late")
      assert on(cluster, b, Registry, :wait_until_all, [:names, "late", 30_000]) == :ok
      assert on(cluster, c, Registry, :lookup, [:names, "late"]) == [{late, b}]
      assert on(cluster, a, Registry, :keys, [:names, late]) == ["late"]
      assert Enum.sort(on(cluster, a, Registry, :members, [:names])) == Enum.sort([a, b, c])

      assert on(cluster, c, Registry, :register, [:names, "late", 1, early]) ==
               {:error, {:already_registered, late}}

      # A part of the cluster is cut off, and comes back with what it has by then.
      true = on(cluster, b, Node, :disconnect, [a])
      true = on(cluster, b, Node, :disconnect, [c])
      seen(cluster, a, "late", :undefined)
      seen(cluster, b, :early, :undefined)
      meanwhile = named(cluster, b, :meanwhile)
      true = on(cluster, b, Node, :connect, [a])
      seen(cluster, a, "late", late)
      seen(cluster, a, :meanwhile, meanwhile)
      seen(cluster, b, :early, early)

      # The registry's process restarts: its processes keep their names.
      server = on(cluster, a, Process, :whereis, [:names])
      true = on(cluster, a, Process, :exit, [server, :kill])
      eventually(fn -> on(cluster, a, Process, :whereis, [:names]) not in [nil, server] end)
      seen(cluster, b, :early, early)
      seen(cluster, a, "late", late)

      true = on(cluster, b, Node, :connect, [c])
      seen(cluster, c, :meanwhile, meanwhile)
      cluster = TestCluster.kill(cluster, b)
      seen(cluster, a, "late", :undefined)
      seen(cluster, c, :meanwhile, :undefined)
    end

    test "the earlier of two processes with one key keeps it" do
      cluster = cluster(2)
      [a, b] = TestCluster.nodes(cluster)
      first = named(cluster, a, :one)
      # Claims are milliseconds of the wall clock.
      begin = System.system_time(:millisecond)
      eventually(fn -> System.system_time(:millisecond) > begin + 2 end)
      second = named(cluster, b, :one)
      true = on(cluster, a, Node, :connect, [b])
      seen(cluster, b, :one, first)
      eventually(fn -> not on(cluster, b, Process, :alive?, [second]) end)
      seen(cluster, a, :one, first)
      assert %{conflicts: 1} = on(cluster, b, Registry, :stats, [:names])
    end

    test "with clustering on, the names of 1.x are in a registry that Rust nodes share" do
      cluster = TestCluster.start(2, foundation: [cluster: :local_epmd])
      on_exit(fn -> TestCluster.stop(cluster) end)
      [a, b] = TestCluster.nodes(cluster)
      shared = Foundation.ProcessRegistry.Shared

      lookup = fn node, name ->
        on(cluster, node, ProcessRegistry, :lookup, [:production, name])
      end

      agent = fn node ->
        on(cluster, node, Agent, :start, [Function, :identity, [1]]) |> elem(1)
      end

      eventually(fn -> on(cluster, a, Registry, :members, [shared]) == Enum.sort([a, b]) end)

      one = agent.(a)
      assert on(cluster, a, ProcessRegistry, :register, [:production, :one, one]) == :ok
      eventually(fn -> lookup.(b, :one) == {:ok, one} end)

      eventually(fn ->
        on(cluster, b, Registry, :lookup, [shared, {:production, :one}]) == [{one, nil}]
      end)

      via = on(cluster, a, ProcessRegistry, :via_tuple, [:production, :two])
      {:ok, two} = on(cluster, a, Agent, :start, [Function, :identity, [2], [name: via]])

      eventually(fn ->
        on(cluster, b, Registry, :lookup, [shared, {:production, :two}]) == [{two, nil}]
      end)

      # What is there alone, as of a Rust node, is found all the same; what is no name is passed over.
      three = agent.(b)
      {:ok, _} = on(cluster, b, Registry, :register, [shared, {:production, :three}, 3, three])
      {:ok, _} = on(cluster, b, Registry, :register, [shared, "no name", 3, three])
      eventually(fn -> lookup.(a, :three) == {:ok, three} end)
      services = on(cluster, a, ProcessRegistry, :list_services, [:production])

      assert Enum.sort(services -- [:config_server, :event_store, :telemetry_service]) == [
               :one,
               :three,
               :two
             ]

      assert on(cluster, a, ProcessRegistry, :register, [:production, :three, one]) ==
               {:error, {:already_registered, three}}

      assert on(cluster, a, ProcessRegistry, :unregister, [:production, :one]) == :ok
      eventually(fn -> lookup.(b, :one) == :error end)
      :ok = on(cluster, a, Agent, :stop, [two])
      eventually(fn -> lookup.(b, :two) == :error end)
      assert on(cluster, b, Registry, :count, [shared]) == 2
    end

    test "without the native functions a node has its own names, and says so" do
      cluster = cluster(1, native: false)
      [a] = TestCluster.nodes(cluster)
      agent = named(cluster, a, :own)
      assert on(cluster, a, Registry, :lookup, [:names, :own]) == [{agent, a}]

      assert %{status: :degraded, nodes: [{^a, :degraded, %{problems: [:nif_missing]}}]} =
               on(cluster, a, Foundation.HealthMonitor, :cluster_health, [])
    end
  end
end

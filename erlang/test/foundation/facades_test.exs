defmodule Foundation.FacadesTest do
  use ExUnit.Case
  @moduletag :integration

  import Foundation.Eventually

  alias Foundation.{
    Cluster,
    Config,
    Events,
    LoadBalancer,
    Messaging,
    PubSub,
    ServiceMesh,
    ServiceRegistry,
    TestCluster,
    Worker
  }

  alias Foundation.Distributed.Discovery

  describe "here, without clustering" do
    test "messages find what 1.x registered" do
      :ok = ServiceRegistry.register(:production, :me, self())
      on_exit(fn -> ServiceRegistry.unregister(:production, :me) end)
      assert Foundation.send(:me, :hello) == :ok
      assert_received :hello

      assert {:error, %{error_type: :service_not_found, code: 5001}} =
               Foundation.send(:nobody, :hello)

      assert Messaging.instances(:nobody) == []
    end

    test "processes are started here" do
      assert {:ok, pid} = Foundation.start_process(Worker, x: 1)
      assert GenServer.call(pid, :args) == [x: 1]

      assert {:error, %{error_type: :process_manager_unavailable}} =
               Foundation.start_process(Worker, [], distribute: true)

      DynamicSupervisor.terminate_child(Foundation.LocalSupervisor, pid)

      assert {:error, %{error_type: :not_managed}} =
               Foundation.Process.migrate(self(), to_node: node())
    end

    test "figures and agreement of one" do
      assert %{
               nodes: 1,
               strategy: nil,
               health: :healthy,
               processes: processes,
               message_rate: "0.0/sec"
             } = Foundation.cluster_info()

      assert processes > 10
      assert Config.get_with_consensus([:dev, :debug_mode]) == Config.get([:dev, :debug_mode])

      assert {:error, %{error_type: :no_consensus, context: %{required_nodes: 2}}} =
               Config.get_with_consensus([:dev, :debug_mode], required_nodes: 2)

      assert {:error, %{error_type: :config_path_not_found}} =
               Config.get_with_consensus([:no, :path])

      assert Cluster.ai_nodes() == []
      assert {:error, _} = Cluster.send_to_cluster(:ai, :x, 1)
    end

    test "an ecosystem is supervised here" do
      assert {:ok, supervisor} =
               Foundation.ProcessEcosystem.start_distributed_ecosystem(:e, %{
                 children: [{Worker, []}]
               })

      assert [{_, pid, :worker, _}] = Supervisor.which_children(supervisor)
      assert is_pid(pid)
      Supervisor.stop(supervisor)
    end
  end

  describe "with a mesh on one node" do
    setup do
      start_supervised!(PubSub)
      start_supervised!(ServiceMesh.Registrar)
      agents = for n <- 1..3, do: start_supervised!({Worker, [n: n]}, id: n)

      for agent <- agents,
          do: :ok = ServiceRegistry.register_mesh_service(:api, agent, capabilities: [:v1])

      %{agents: agents}
    end

    test "calls are spread", %{agents: agents} do
      for strategy <- [:round_robin, :least_connections, :random] do
        replies = for _n <- 1..30, do: LoadBalancer.route(:api, :args, strategy: strategy)
        assert Enum.all?(replies, &match?({:ok, [n: _]}, &1))

        if strategy == :round_robin,
          do: assert(Enum.frequencies(replies) == Map.new(1..3, &{{:ok, [n: &1]}, 10}))
      end

      # Two are busy with calls that do not end: the third gets all others.
      [a, b, c] = agents
      for pid <- [a, b], do: :ok = ServiceMesh.register_service(:slow, pid)
      for pid <- [a, b], do: :sys.suspend(pid)

      hung =
        for _n <- 1..2,
            do:
              Task.async(fn ->
                LoadBalancer.route(:slow, :args, strategy: :round_robin, timeout: 60_000)
              end)

      busy = fn ->
        length(for {{:calls, pid}, 1} <- :ets.tab2list(LoadBalancer), pid in agents, do: pid)
      end

      eventually(fn -> busy.() == 2 end)
      for _n <- 1..10, do: assert({:ok, %{pid: ^c}} = LoadBalancer.pick(:api))
      for pid <- [a, b], do: :sys.resume(pid)
      Task.await_many(hung, 60_000)
      assert busy.() == 0

      assert {:error, %{error_type: :no_instance}} =
               LoadBalancer.route(:api, 1, constraints: [capabilities: [:v2]])

      assert {:ok, _} =
               LoadBalancer.route(:api, :args,
                 constraints: [capabilities: [:v1], cpu_usage: :under_100_percent]
               )

      assert {:error, %{error_type: :call_failed, message: message}} =
               LoadBalancer.route(:api, :unknown)

      assert message =~ "Foundation.LoadBalancer.route/3: GenServer.call"

      assert_raise ArgumentError, ~r/under_1_percent/, fn ->
        LoadBalancer.pick(:api, constraints: [cpu_usage: :low])
      end

      assert_raise ArgumentError, ~r/round_robin/, fn ->
        LoadBalancer.pick(:api, strategy: :best)
      end
    end

    test "the other names of the mesh", %{agents: agents} do
      assert {:ok, [_, _, _]} = ServiceRegistry.discover_services(capability: :v1)
      assert {:ok, []} = ServiceRegistry.discover_services(capability: :v2)

      assert {:ok, pid} =
               ServiceRegistry.route_to_best_instance(:api, %{strategy: :random, user: 1})

      assert pid in agents
      assert {:ok, [_, _, _]} = Discovery.discover_services(name: :api)
      assert Discovery.register_service(:me, [:x]) == :ok
      assert Discovery.get_service_health(:me) == {:ok, :healthy}
      ServiceMesh.Registrar.mark(:me, self(), :unhealthy)
      assert Discovery.get_service_health(:me) == {:ok, :unhealthy}
      assert {:error, %{error_type: :no_instance}} = LoadBalancer.pick(:me)
      assert Discovery.get_service_health(:nobody) == {:error, :service_not_found}
      assert Foundation.send(:me, :still) == :ok
      assert_received :still
    end

    test "handlers of events of the whole cluster" do
      test = self()

      assert {:ok, id} =
               Events.subscribe_cluster_wide([:wanted, :bad],
                 handler: fn event ->
                   if event.event_type == :bad, do: raise("bad"), else: send(test, event.data)
                 end
               )

      for type <- [:bad, :other, :wanted],
          do: Foundation.Channels.broadcast(:events, Events.debug_new_event(type, type))

      assert_receive :wanted
      refute_received :other
      assert Events.unsubscribe_cluster_wide(id) == :ok

      assert {:ok, _} =
               Events.subscribe_cluster_wide(event_type: :wanted, handler: &send(test, &1))

      assert_raise ArgumentError, fn -> Events.subscribe_cluster_wide([:x]) end
    end
  end

  describe "on several nodes" do
    @describetag :cluster
    @describetag timeout: 120_000

    defp cluster(count, foundation, opts \\ []) do
      cluster = TestCluster.start(count, [foundation: foundation] ++ opts)
      on_exit(fn -> TestCluster.stop(cluster) end)
      {cluster, TestCluster.nodes(cluster), &TestCluster.call(cluster, &1, &2, &3, &4)}
    end

    test "a process moves with its state; roles; agreement; {Foundation, opts} in a supervisor" do
      {_cluster, [a, b], call} =
        cluster(2, app_namespaces: [:sample], sample: [x: 1], roles: [:ai])

      # Off by configuration, on under a supervisor of the application on one, by a call on the other.
      assert call.(a, Cluster, :enabled?, []) == false
      {:ok, _} = call.(a, Agent, :start, [Function, :identity, [0]])

      assert {:ok, supervisor} =
               call.(a, Foundation.Starter, :start, [[{Foundation, cluster: :local_epmd}]])

      assert call.(a, Foundation, :start_cluster, []) ==
               {:ok, call.(a, Process, :whereis, [Cluster])}

      assert {:error, text} = call.(b, Foundation, :start_cluster, [[cluster: :nonsense]])
      assert text =~ "nonsense"
      assert {:ok, _} = call.(b, Foundation, :start_cluster, [[cluster: :local_epmd]])

      for node <- [a, b],
          do:
            eventually(fn -> length(call.(node, Foundation.ProcessManager, :nodes, [])) == 2 end)

      assert %{nodes: 2, strategy: :local_epmd, health: :healthy, message_rate: rate} =
               call.(a, Foundation, :cluster_info, [])

      assert rate =~ ~r/^\d+\.\d+k?\/sec$/
      eventually(fn -> call.(a, Cluster, :ai_nodes, []) == Enum.sort([a, b]) end)

      {:ok, pid} =
        call.(a, Foundation, :start_process, [Worker, [y: 1], [distribute: true, name: :mover]])

      [target] = [a, b] -- [node(pid)]
      :ok = call.(node(pid), GenServer, :call, [pid, {:put, :more, 2}])
      assert {:ok, moved} = call.(a, Foundation.Process, :migrate, [pid, [to_node: target]])
      assert node(moved) == target
      assert call.(a, GenServer, :call, [moved, :args]) == [more: 2, y: 1]

      for node <- [a, b],
          do:
            eventually(fn ->
              call.(node, Foundation.ProcessManager, :lookup_singleton, [:mover]) == {:ok, moved}
            end)

      eventually(fn -> call.(node(pid), Process, :alive?, [pid]) == false end)
      assert {:ok, ^moved} = call.(a, Foundation.Process, :migrate, [moved, [to_node: target]])

      assert {:error, %{error_type: :node_not_available}} =
               call.(a, Foundation.Process, :migrate, [moved, [to_node: :no@where]])

      assert {:error, %{error_type: :not_managed}} =
               call.(a, Foundation.Process, :migrate, [supervisor, [to_node: b]])

      assert call.(a, Config, :get_with_consensus, [[:sample, :x]]) == {:ok, 1}
      :ok = call.(b, Config, :update, [[:sample, :x], 2])

      assert {:error, %{error_type: :no_consensus}} =
               call.(a, Config, :get_with_consensus, [[:sample, :x]])

      assert {:ok, _} =
               call.(a, Config, :get_with_consensus, [[:sample, :x], [required_nodes: 1]])

      {:ok, eco} =
        call.(a, Foundation.ProcessEcosystem, :start_distributed_ecosystem, [
          :eco,
          %{children: [{Worker, []}, {Worker, []}]}
        ])

      assert map_size(eco) == 2

      # The application's supervisor takes the cluster with it.
      :ok = call.(a, Supervisor, :stop, [supervisor])
      assert call.(a, Cluster, :enabled?, []) == false
      assert call.(a, Foundation, :available?, [])
    end

    # Two nodes that watch directories of their own, as two developers' machines do.
    test "a recompiled module is loaded on every development node" do
      name = Foundation.ReloadSample

      {_cluster, [a, b, c], call} = cluster(3, cluster: :local_epmd, reload_interval: 50)

      # Not one of them.
      for node <- [a, b] do
        call.(node, Application, :stop, [:foundation])
        call.(node, Application, :put_env, [:foundation, :profile, :development])
        call.(node, Application, :ensure_all_started, [:foundation])
      end

      for node <- [a, b, c], do: eventually(fn -> call.(node, Cluster, :size, []) == 3 end)

      directory =
        Path.join(System.tmp_dir!(), "foundation_reload_#{System.unique_integer([:positive])}")

      File.mkdir_p!(directory)
      on_exit(fn -> File.rm_rf!(directory) end)
      call.(a, :code, :add_patha, [String.to_charlist(directory)])

      for version <- [1, 2, 3] do
        {:module, ^name, beam, _} = compile(name, version)
        File.write!(Path.join(directory, "#{name}.beam"), beam)

        for node <- [a, b] do
          eventually(fn ->
            match?({:file, _}, call.(node, :code, :is_loaded, [name])) and
              call.(node, name, :version, []) == version
          end)
        end
      end

      assert call.(c, :code, :is_loaded, [name]) == false
      assert call.(a, Process, :whereis, [Foundation.Development.Reloader]) != nil
    end

    defp compile(name, version) do
      Code.compiler_options(ignore_module_conflict: true)

      Module.create(
        name,
        quote(do: def(version, do: unquote(version))),
        Macro.Env.location(__ENV__)
      )
    after
      Code.compiler_options(ignore_module_conflict: false)
      :code.purge(name)
      :code.delete(name)
    end
  end
end

defmodule Foundation.Cluster.CompanionTest do
  # The program foundation as the discovery of Elixir nodes. `cargo test` builds it.
  use ExUnit.Case
  import ExUnit.CaptureLog
  import Foundation.Eventually

  alias Foundation.Cluster.Companion
  alias Foundation.{CompanionHooks, Host, LogCollector, Relay, TestCluster, TestHosts}

  @program CompanionHooks.program()
  @moduletag timeout: 240_000

  defp caller(cluster), do: &TestCluster.call(cluster, &1, &2, &3, &4)

  defp start(count, foundation) do
    cluster = TestCluster.start(count, foundation: foundation)
    on_exit(fn -> TestCluster.stop(cluster) end)
    {cluster, caller(cluster), TestCluster.nodes(cluster)}
  end

  # What a node's log and its events of discovery say.
  defp collect(call, node) do
    {:ok, agent} = call.(node, Agent, :start, [Function, :identity, [[]]])
    relay = call.(node, Relay, :start, [agent])

    events =
      for event <- [:connect_node, :disconnect_node],
          result <- [:ok, :error],
          do: [:libcluster, event, result]

    :ok = call.(node, Host.Telemetry, :attach_many, [agent, events, &Relay.telemetry/4, agent])
    call.(node, Logger, :configure, [[level: :info]])
    handler = %{level: :info, config: %{pid: relay}}
    :ok = call.(node, :logger, :add_handler, [agent_name(), LogCollector, handler])
    fn -> call.(node, Agent, :get, [agent, Enum, :reverse, []]) end
  end

  defp agent_name, do: :"collector#{System.unique_integer([:positive])}"

  defp logged?(collected, text),
    do: Enum.any?(collected.(), &match?({:logged, _level, ^text, _metadata}, &1))

  describe "with the program" do
    @describetag :integration
    @describetag :cluster
    @describetag skip: @program == nil && "the program foundation is not built: cargo build"

    test "nodes find each other; a killed companion is started again, and nodes stay connected" do
      {cluster, call, [a, b]} = start(2, cluster: :local_epmd, binary: @program)

      for node <- [a, b],
          do: eventually(fn -> length(call.(node, CompanionHooks, :pids, [])) == 1 end)

      eventually(fn -> call.(a, Foundation.Cluster, :size, []) == 2 end)

      collected = collect(call, b)
      [old] = call.(b, CompanionHooks, :pids, [])
      {_output, 0} = System.cmd("kill", ["-9", "#{old}"])

      eventually(fn -> match?([pid] when pid != old, call.(b, CompanionHooks, :pids, [])) end)
      assert a in call.(b, Node, :list, [])
      # A connection that was lost would have been made again.
      refute Enum.any?(collected.(), &match?({[:libcluster, _what, _result], _m, _d}, &1))

      # The new one works: it makes up for what the other side ended.
      assert call.(a, :erlang, :disconnect_node, [b])

      eventually(fn ->
        Enum.any?(collected.(), fn
          {[:libcluster, :connect_node, :ok], %{duration: duration}, metadata} ->
            duration > 0 and metadata == %{node: a, topology: :foundation}

          _other ->
            false
        end)
      end)

      assert logged?(collected, "[libcluster:foundation] connected to #{inspect(a)}")
      [pid] = call.(a, CompanionHooks, :pids, [])
      TestCluster.kill(cluster, a)
      # It ends with its node.
      eventually(fn ->
        match?({_output, 1}, System.cmd("kill", ["-0", "#{pid}"], stderr_to_stdout: true))
      end)
    end

    test "connect, disconnect and list_nodes of a topology are called" do
      {_cluster, call, [a, b]} = start(2, [])
      {:ok, agent} = call.(a, Agent, :start, [Function, :identity, [[]]])

      topology = [
        strategy: Cluster.Strategy.LocalEpmd,
        config: [polling_interval: 100],
        connect: {CompanionHooks, :connect, [agent]},
        disconnect: {CompanionHooks, :disconnect, [agent]},
        list_nodes: {CompanionHooks, :list_nodes, [agent]}
      ]

      call.(a, Application, :put_env, [:libcluster, :topologies, [mine: topology]])
      call.(a, Application, :put_env, [:foundation, :binary, @program])
      assert {:ok, _supervisor} = call.(a, Foundation, :start_cluster, [[]])
      asked = fn -> call.(a, Agent, :get, [agent, Function, :identity, []]) end
      eventually(fn -> b in call.(a, Node, :list, []) end)
      assert {:connect, b} in asked.()
      assert :list_nodes in asked.()

      # Over the same way as the program asks for it.
      assert :ok =
               call.(a, Companion, :disconnect, [
                 :mine,
                 b,
                 topology[:disconnect],
                 topology[:list_nodes]
               ])

      assert {:disconnect, b} in asked.()
      refute b in call.(a, Node, :list, [])
    end

    test "a configuration that the program refuses is logged, and the application runs" do
      {_cluster, call, [a]} = start(1, binary: @program)
      collected = collect(call, a)
      # By its module, so that the library passes on what it does not know.
      cluster = [strategy: {Cluster.Strategy.Gossip, [secret: "hush", ports: 1]}]
      assert {:ok, _supervisor} = call.(a, Foundation, :start_cluster, [[cluster: cluster]])

      eventually(fn ->
        Enum.any?(collected.(), fn
          {:logged, :error, text, _metadata} ->
            text =~ "does not take the configuration" and text =~ "ports" and not (text =~ "hush")

          _other ->
            false
        end)
      end)

      assert call.(a, Foundation, :available?, [])
      assert call.(a, Foundation.Cluster, :enabled?, [])
    end

    @tag skip: @program == nil or not TestHosts.available?()
    test "two hosts with cluster: true find each other" do
      hosts = TestHosts.start(["10.88.0.1", "10.88.0.2"])
      on_exit(fn -> TestHosts.stop(hosts) end)

      script = """
      Logger.configure(level: :warning)
      Application.put_env(:foundation, :cluster, true)
      {:ok, _} = Application.ensure_all_started(:foundation)
      IO.puts("\#{Foundation.Cluster.strategy()} \#{Foundation.TestHosts.meet()}")
      """

      ebin = Application.app_dir(:foundation, "ebin")

      outputs =
        hosts
        |> Enum.map(fn {_namespace, address} = host ->
          arguments = ["FOUNDATION_BIN=#{@program}", "elixir", "--name", "app@#{address}"]
          arguments = arguments ++ ["--cookie", "companion", "-pa", ebin, "-e", script]
          Task.async(fn -> TestHosts.run(host, "env", arguments) end)
        end)
        |> Task.await_many(200_000)

      assert [{one, 0}, {two, 0}] = outputs
      assert one =~ "gossip app@10.88.0.2 told"
      assert two =~ "gossip app@10.88.0.1 told"
    end
  end

  describe "without the program" do
    @tag :integration
    @tag :cluster
    test "a program that ends is started again, ever more rarely, and the application runs" do
      false_program = System.find_executable("false")
      {_cluster, call, [a]} = start(1, binary: false_program)
      collected = collect(call, a)
      assert {:ok, _supervisor} = call.(a, Foundation, :start_cluster, [[cluster: :local_epmd]])

      for pause <- [500, 1000] do
        text =
          "Foundation clustering: #{false_program} has ended (exit status 1) and is started again in #{pause} ms; nodes stay connected"

        eventually(fn -> logged?(collected, text) end)
      end

      assert call.(a, Foundation, :available?, [])
    end

    @tag :integration
    @tag :cluster
    test "another program in its place is said, costs no memory, and the application runs" do
      directory = Path.join(System.tmp_dir!(), "companion_#{System.unique_integer([:positive])}")
      File.mkdir_p!(directory)
      on_exit(fn -> File.rm_rf!(directory) end)

      # One writes all the time, one says what is no term, one nothing. They end with their node.
      for {script, said} <- [
            {"exec yes",
             ~r/has ended \(it said \d+ bytes at once, of at most 1048576: is it the/},
            {~S(printf '\000\000\000\003abc'; exec cat), ~r/said something that this version/},
            {"exec cat > /dev/null", ~r/has not answered for 10 s, and finds nobody: is it the/}
          ] do
        program = Path.join(directory, "program")
        File.write!(program, "#!/bin/sh\n" <> script)
        File.chmod!(program, 0o755)
        {_cluster, call, [a]} = start(1, binary: program)
        collected = collect(call, a)
        assert {:ok, _supervisor} = call.(a, Foundation, :start_cluster, [[cluster: :local_epmd]])

        eventually(fn ->
          Enum.any?(collected.(), fn
            {:logged, :warning, text, _metadata} -> text =~ said
            _other -> false
          end)
        end)

        assert call.(a, Foundation, :available?, [])
        assert call.(a, :erlang, :memory, [:total]) < 200_000_000
      end
    end

    @tag :integration
    @tag :cluster
    test "what is missing is said" do
      {_cluster, call, [a]} = start(1, binary: "/nowhere/foundation", app_name: "shop")
      collected = collect(call, a)
      assert {:ok, _supervisor} = call.(a, Foundation, :start_cluster, [[cluster: :kubernetes]])

      assert Enum.any?(collected.(), fn
               {:logged, :error, text, _metadata} ->
                 text =~ "kubernetes needs libcluster" and
                   text =~
                     ~s(config :foundation, binary: is "/nowhere/foundation", and there is no such file)

               _other ->
                 false
             end)
    end

    @tag :unit
    test "where the program is looked for" do
      before = Application.get_env(:foundation, :binary)
      on_exit(fn -> Application.put_env(:foundation, :binary, before) end)
      Application.put_env(:foundation, :binary, __ENV__.file)
      assert Companion.binary() == {:ok, __ENV__.file}
      Application.put_env(:foundation, :binary, "/nowhere")
      assert {:error, message} = Companion.binary()
      assert message =~ ~s(config :foundation, binary: is "/nowhere")
    end

    @tag :unit
    test "topologies with ways of their own to connect get a program each" do
      mine = {CompanionHooks, :connect, [:agent]}

      topologies = [
        b: [strategy: Cluster.Strategy.Gossip, config: [port: 1]],
        a: [strategy: Cluster.Strategy.Epmd, config: [hosts: []], connect: mine],
        c: [strategy: Cluster.Strategy.LocalEpmd]
      ]

      assert [{{connect, _disconnect, _list}, [b: b, c: _c]}, {{^mine, _, _}, [a: a]}] =
               Companion.groups(topologies)

      assert connect == {:net_kernel, :connect_node, []}
      assert b == topologies[:b]
      assert a == [strategy: Cluster.Strategy.Epmd, config: [hosts: []]]
    end

    @tag :unit
    test "a node that is not alive looks for nobody" do
      if not Node.alive?() do
        log = capture_log(fn -> assert Companion.init(mfas: {nil, nil, nil}) == :ignore end)
        assert log =~ "this node is not alive"
      end
    end
  end
end

defmodule Foundation.StartTest do
  # The application in VMs of its own, as a user starts them.
  use ExUnit.Case
  @moduletag :integration
  @moduletag :cluster
  @moduletag timeout: 120_000

  alias Foundation.TestCluster

  defp run(script, env) do
    ebin = Application.app_dir(:foundation, "ebin")
    script = "Logger.configure(level: :warning); #{script}"
    System.cmd("elixir", ["-pa", ebin, "-e", script], env: env, stderr_to_stdout: true)
  end

  @start "{:ok, _} = Application.ensure_all_started(:foundation);"

  test "two sessions with cluster: true find each other" do
    {_epmd, port} = TestCluster.start_epmd()

    # Each tells the other once it sees it, and ends when it has been told, or after a minute.
    script = """
    Process.register(self(), :session)
    Application.put_env(:foundation, :cluster, true)
    Application.put_env(:foundation, :app_name, "session")
    #{@start}
    :net_kernel.monitor_nodes(true)
    other =
      case Node.list() do
        [node | _] -> node
        [] -> receive do {:nodeup, node} -> node after 60_000 -> nil end
      end
    :net_kernel.monitor_nodes(false)
    wait = fn wait, left -> if Foundation.Cluster.size() == 1 and left > 0, do: (Process.sleep(100); wait.(wait, left - 1)) end
    wait.(wait, 300)
    size = Foundation.Cluster.size()
    send({:session, other}, :seen)
    told = receive do :seen -> "told" after 60_000 -> "not told" end
    IO.puts("\#{Node.alive?()} \#{node()} \#{size} nodes, \#{told}")
    """

    for {output, status} <-
          1..2
          |> Enum.map(fn _n ->
            Task.async(fn -> run(script, [{"ERL_EPMD_PORT", "#{port}"}]) end)
          end)
          |> Task.await_many(100_000) do
      assert output =~ ~r/true session_[0-9a-f]{4}@\S+ 2 nodes, told/
      assert output =~ "gossip needs libcluster" and output =~ "program foundation"
      assert status == 0
    end
  end

  test "a wrong configuration is logged, and the services run" do
    for {env, message} <- [
          {[{"FOUNDATION_CLUSTER", "kubernetis"}],
           ~s(FOUNDATION_CLUSTER is "kubernetis"; it may be aws, consul, dns)},
          {[{"FOUNDATION_CLUSTER", "kubernetes"}],
           "needs an application name (FOUNDATION_APP_NAME, or app_name:)"}
        ] do
      assert {output, 0} = run(@start <> "IO.puts(Foundation.available?())", env)
      assert output =~ "Foundation clustering is off: "
      assert output =~ message
      assert output =~ ~r/^true$/m
    end
  end

  # One VM, started anew with each: what is logged there is between the marks.
  @wrong [
    {[ai: 5], "config :foundation, ai: is 5; it may be a keyword list or a map"},
    {[capture: "x"], ~s(capture: is "x"; it may be a keyword list)},
    {[ai: [provider: :x]], "ai: provider: is :x; it may be :mock, :openai"},
    {[dev: [{:debug_mode, true} | :x]], "dev: is [{:debug_mode, true} | :x]; it may be"},
    {[auto_features: [1 | 2]], "auto_features: does nothing: it is [1 | 2]; it may be a list"},
    {[auto_features: 5], "auto_features: does nothing: it is 5"},
    {[messaging: [1 | 2]], "messaging: does nothing: it is [1 | 2]; it may be a keyword list"},
    {[messaging: [channels: [1 | 2]]], "messaging: channels: does nothing: it is [1 | 2]"},
    {[processes: "x"], ~s(processes: does nothing: it is "x")},
    {[app_namespaces: [1 | 2]], "app_namespaces: is [1 | 2]; it may be"},
    {[app_namespaces: [:ai, 5]], "app_namespaces: ignores [:ai, 5]"},
    {[app_namespaces: [:shop], shop: 5], "shop: is 5; it may be a keyword list or a map"},
    {[test_mode: 5], "test_mode: is 5; it may be true or false; false is used"},
    {[native: [1 | 2]], "native: is [1 | 2]; it may be true or false; true is used"},
    {[use_host_libraries: 5], "use_host_libraries: is 5"},
    {[clutser: true], "clutser: is not read by this library; did you mean cluster:?"},
    {[cluster: 5], "clustering is off: config :foundation, cluster: is 5; it may be true"},
    {[cluster: [:gossip | 5]], "cluster: is [:gossip | 5]; it may be true"},
    {[cluster: [strategy: {Foo, [1 | 2]}]], "cluster strategy {Foo, [1 | 2]} is not known"},
    {[cluster: [strategy: :gossip, port: "x"]], ~s(port: is "x"; it may be a number from 1)},
    {[cluster: :local_epmd, security: [1 | 2]], "security: is no keyword list; it may have"},
    {[cluster: :local_epmd, security: [erlang_cookie: String.duplicate("x", 300)]],
     "security: erlang_cookie: is longer than 255"},
    {[cluster: :local_epmd, app_name: String.duplicate("x", 300)], "cannot be started as \"xxx"},
    {[cluster: :local_epmd, app_name: "a b"], "the name of a node has letters, digits"},
    {[cluster: :local_epmd, roles: [1 | 2]], "roles: is [1 | 2]; it may be a term"},
    {[cluster: :local_epmd, local_namespaces: [1 | 2]], "local_namespaces: is [1 | 2]"},
    {[cluster: :local_epmd, health_check_interval: :x], "health_check_interval: is :x"},
    {[cluster: :local_epmd, health_check_timeout: -1], "health_check_timeout: is -1"},
    {[cluster: :local_epmd, horde: 5], "horde: is 5; it may be a keyword list or a map"},
    {[cluster: :local_epmd, profile: :development, reload_interval: 0.5],
     "reload_interval: is 0.5; it may be a number of milliseconds above 0; 1000 is used"},
    {[cluster: :mdns, binary: [1 | 2]], "binary: is [1 | 2]; it may be a string"},
    {[cluster: :mdns, discovery: 5, allow: %{}], "allow: is %{}; it may be"},
    {[cluster: :local_epmd, profile: 5], "profile: is 5; it may be :development"},
    {[clusters: [1 | 2]], "clusters: is [1 | 2]; it is a map of name"},
    {[clustering: [{:primary, 5} | 2]], "clustering: is [{:primary, 5} | 2]; it is"},
    {[clustering: %{primary: 5}], "primary is 5; it may be true"},
    {[libcluster_topologies: [1 | 2]], "not what libcluster takes: [1 | 2]; it is a keyword"},
    {[libcluster_topologies: [a: [strategy: Cluster.Strategy.Epmd, config: [hosts: [1 | 2]]]]],
     "topology :a, hosts: is [1 | 2]; it may be a list of atoms"}
  ]

  test "a wrong value of any key is logged with what it may be, and the services run" do
    {_epmd, port} = TestCluster.start_epmd()

    script = """
    Logger.configure_backend(:console, metadata: [], format: "$message\n")
    #{@start}
    own = Keyword.keys(Application.get_all_env(:foundation))
    for {settings, n} <- Enum.with_index(#{inspect(Enum.map(@wrong, &elem(&1, 0)), limit: :infinity, printable_limit: :infinity)}) do
      Application.stop(:foundation)
      Node.stop()
      for {key, _value} <- Application.get_all_env(:foundation), key not in own, do: Application.delete_env(:foundation, key)
      Application.put_all_env(foundation: settings)
      started = Application.ensure_all_started(:foundation)
      Logger.flush()
      IO.puts("# \#{n} \#{inspect(started)} \#{Foundation.available?()}")
    end
    """

    assert {output, 0} = run(script, [{"ERL_EPMD_PORT", "#{port}"}])
    parts = String.split(output, ~r/^# \d+ /m)
    assert length(parts) == length(@wrong) + 1

    for {{{settings, message}, said}, {_settings, result}} <-
          Enum.zip(Enum.zip(@wrong, parts), Enum.zip(@wrong, tl(parts))) do
      assert {settings, said =~ message, said} == {settings, true, said}
      assert {settings, result =~ ~r/\A{:ok, \[:foundation\]} true$/m} == {settings, true}
    end
  end

  test "TLS that the VM was not started for is an error that names the flags, and nothing is started plain" do
    script = """
    Application.put_env(:foundation, :cluster, :local_epmd)
    Application.put_env(:foundation, :security, tls_enabled: true)
    Application.put_env(:foundation, :auto_features, [:development_ui])
    #{@start}
    IO.inspect({Node.alive?(), Process.whereis(Foundation.Cluster), Foundation.available?()})
    """

    assert {output, 0} = run(script, [])
    assert output =~ "{false, nil, true}"
    assert output =~ "Foundation clustering is off: security: tls_enabled: is true"
    assert output =~ "-proto_dist inet_tls -ssl_dist_opt server_certfile FILE"
    assert output =~ "auto_features: :development_ui does nothing: "
  end

  test "nothing but 1.x runs by default" do
    script =
      @start <>
        "IO.inspect({Node.alive?(), Process.whereis(Foundation.Cluster), Process.whereis(Foundation.PubSub), Foundation.available?()})"

    assert {output, 0} = run(script, [])
    assert output =~ "{false, nil, nil, true}"
    refute output =~ "[error]"
  end

  test "handlers of events stay, though attached before the start by a process that has ended" do
    script = """
    alias Foundation.Host.Telemetry
    me = self()
    attach = fn -> :ok = Telemetry.attach(:early, [:a], fn event, _, _, _ -> send(me, event) end, nil) end
    {pid, ref} = spawn_monitor(attach)
    receive do: ({:DOWN, ^ref, :process, ^pid, _reason} -> :ok)
    heard = fn -> Telemetry.execute([:a], %{}, %{}); receive do [:a] -> true after 0 -> false end end
    #{@start}
    first = heard.()
    :ok = Application.stop(:foundation)
    #{@start}
    IO.inspect({:heard, first, heard.(), Telemetry.attach(:early, [:a], fn _, _, _, _ -> :ok end, nil)})
    """

    assert {output, 0} = run(script, [])
    assert output =~ "{:heard, true, true, {:error, :already_exists}}"
  end
end

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

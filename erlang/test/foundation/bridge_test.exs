defmodule Foundation.BridgeTest do
  # A message into another named cluster, through the program foundation: two cookies, and no connection between the clusters.
  use ExUnit.Case
  @moduletag :integration
  @moduletag :cluster
  @moduletag timeout: 180_000

  import Foundation.Eventually
  alias Foundation.{CompanionHooks, TestCluster, TestProgram}

  @program CompanionHooks.program()
  @moduletag skip: @program == nil && "the program foundation is not built: cargo build"

  # A node of another cluster that says what its service gets.
  @service """
  {:ok, _} = :pg.start(:pg)
  {:ok, _} = :pg.start(Foundation.ServiceMesh)
  :ok = :pg.join(Foundation.ServiceMesh, {:service, :model, [:inference], %{}, 5}, self())
  receive do
    {:question, number} -> IO.puts("got \#{number} \#{inspect(Node.list(:connected))}")
  end
  Process.sleep(:infinity)
  """

  test "send_to_cluster/3 and discover_services/2 go through a bridge" do
    cluster = TestCluster.start(1, foundation: [cluster: :local_epmd, binary: "/nowhere"])
    on_exit(fn -> TestCluster.stop(cluster) end)
    [app] = TestCluster.nodes(cluster)
    call = &TestCluster.call(cluster, app, &1, &2, &3)
    port = to_string(call.(System, :get_env, ["ERL_EPMD_PORT"]))
    cookie = Atom.to_string(call.(:erlang, :get_cookie, []))
    id = System.unique_integer([:positive])

    assert {:error, %{error_type: :bridge_unavailable}} =
             call.(Foundation.Cluster, :discover_services, [:ai])

    assert {:error, %{error_type: :service_not_found}} =
             call.(Foundation.Cluster, :send_to_cluster, [:ai, :model, 1])

    ai =
      Port.open(
        {:spawn_executable, System.find_executable("elixir")},
        [:binary, :stderr_to_stdout] ++
          [
            env: [{~c"ERL_EPMD_PORT", to_charlist(port)}],
            args: ["--name", "ai#{id}@127.0.0.1", "--cookie", "another_cookie", "-e", @service]
          ]
      )

    # It does not end with its standard input.
    {:os_pid, os_pid} = Port.info(ai, :os_pid)
    on_exit(fn -> System.cmd("kill", ["-9", "#{os_pid}"], stderr_to_stdout: true) end)

    {bridge, _log} =
      TestProgram.start(
        @program,
        """
        name = "bridge#{id}@127.0.0.1"
        epmd = "require"
        [clusters.app]
        strategy = "static"
        hosts = ["#{app}"]
        erlang_cookie = { system = "APP_COOKIE" }
        [clusters.ai]
        strategy = "static"
        hosts = ["ai#{id}@127.0.0.1"]
        erlang_cookie = { system = "AI_COOKIE" }
        """,
        ERL_EPMD_PORT: port,
        APP_COOKIE: cookie,
        AI_COOKIE: "another_cookie"
      )

    node = :"ai#{id}@127.0.0.1"

    eventually(fn ->
      match?(
        {:ok, [%{cluster: :ai, name: :model, node: ^node, capabilities: [:inference]}]},
        call.(Foundation.Cluster, :discover_services, [:ai, :model])
      )
    end)

    assert {:ok, [%{name: :model}]} = call.(Foundation.Cluster, :discover_services, [:ai])
    assert :ok = call.(Foundation.Cluster, :send_to_cluster, [:ai, :model, {:question, 42}])
    assert_receive {^ai, {:data, "got 42 " <> connected}}, 60_000
    assert connected =~ "bridge#{id}_ai" and not (connected =~ Atom.to_string(app))

    assert {:error, %{error_type: :service_not_found, code: 5001}} =
             call.(Foundation.Cluster, :send_to_cluster, [:ai, :nobody, 1])

    refute node in call.(Node, :list, [:connected])
    # Its shell ends it with the port.
    Port.close(bridge)
  end
end

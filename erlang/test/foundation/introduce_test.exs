defmodule Foundation.IntroduceTest do
  # BEAM nodes that run nothing of ours, and a Rust node beside them.
  use ExUnit.Case
  @moduletag :integration
  @moduletag :cluster
  @moduletag timeout: 240_000

  import Foundation.Eventually
  alias Foundation.{CompanionHooks, TestCluster, TestProgram}

  @program CompanionHooks.program()
  @moduletag skip: @program == nil && "the program foundation is not built: cargo build"

  setup do
    # They connect to nobody of themselves.
    cluster = TestCluster.start(3, start: false)
    on_exit(fn -> TestCluster.stop(cluster) end)
    [one | _] = nodes = TestCluster.nodes(cluster)
    call = &TestCluster.call(cluster, &1, &2, &3, &4)
    port = call.(one, System, :get_env, ["ERL_EPMD_PORT"])
    cookie = call.(one, :erlang, :get_cookie, [])
    peers = fn node, kind -> node |> call.(:erlang, :nodes, [kind]) |> Enum.sort() end

    %{
      nodes: nodes,
      peers: peers,
      call: call,
      env: [ERL_EPMD_PORT: port, FOUNDATION_COOKIE: cookie]
    }
  end

  defp alive(node), do: node |> Atom.to_string() |> String.split("@") |> hd()

  test "they are connected to each other, connected again, and told who is given up", context do
    %{nodes: [one, two, three], peers: peers, call: call, env: env} = context
    {server, port} = TestProgram.name_server()

    {_program, log} =
      TestProgram.start(
        @program,
        """
        name = "host#{System.unique_integer([:positive])}@127.0.0.1"
        epmd = "require"
        [cluster]
        strategy = ["static", "dns"]
        introduce = { disconnect = true, interval = 300 }
        [cluster.static]
        hosts = ["#{one}", "#{two}"]
        [cluster.dns]
        query = "three.internal"
        basename = "#{alive(three)}"
        polling_interval = 100
        prune = "disconnect"
        servers = ["127.0.0.1:#{port}"]
        """,
        env
      )

    all? = fn ->
      Enum.all?(
        [one, two, three],
        &(peers.(&1, :visible) == Enum.sort([one, two, three] -- [&1]))
      )
    end

    eventually(all?)
    eventually(fn -> TestProgram.logged?(log, ["introduced"]) end)
    assert call.(one, :erlang, :disconnect_node, [two])
    eventually(all?)

    # It is missing in all answers for ten seconds: it is given up here, and then by the others.
    send(server, {:code, 3})
    eventually(fn -> peers.(three, :connected) == [] end)
    eventually(fn -> peers.(one, :visible) == [two] and peers.(two, :visible) == [one] end)
    eventually(fn -> TestProgram.logged?(log, ["is told that #{three} is given up"]) end)
  end

  test "the secondary source runs when the primary is killed, and nobody is lost", context do
    %{nodes: [one, two, _three], peers: peers, env: env} = context
    {server, port} = TestProgram.name_server()
    name = "failover#{System.unique_integer([:positive])}@127.0.0.1"

    {_program, log} =
      TestProgram.start(
        @program,
        """
        name = "#{name}"
        epmd = "require"
        [cluster.primary]
        strategy = "Cluster.Strategy.DNSPoll"
        config = { query = "one.internal", node_basename = "#{alive(one)}", polling_interval = 100, servers = ["127.0.0.1:#{port}"] }
        [cluster.secondary]
        strategy = "static"
        hosts = ["#{two}"]
        """,
        env
      )

    eventually(fn -> peers.(one, :hidden) == [String.to_atom(name)] end)
    assert peers.(two, :hidden) == []
    Process.exit(server, :kill)

    eventually(fn ->
      TestProgram.logged?(log, ["failover: these sources run now", "primary, secondary"])
    end)

    eventually(fn -> peers.(two, :hidden) == [String.to_atom(name)] end)
    assert peers.(one, :hidden) == [String.to_atom(name)]
  end
end

defmodule Foundation.Strategy.MdnsLiteTest do
  use ExUnit.Case
  import ExUnit.CaptureLog
  import Foundation.Eventually

  alias Foundation.{HostLibraries, Strategy.MdnsLite, TestCluster}

  # What the strategy calls of libcluster and mdns_lite, where they are not there. Records are OTP's, as theirs are.
  @stand_ins """
  defmodule MdnsLite do
    def add_mdns_service(service), do: Agent.update(:mdns, &%{&1 | service: service})
    def remove_mdns_service(id), do: Agent.update(:mdns, fn %{service: %{id: ^id}} = state -> %{state | service: nil} end)
  end

  defmodule MdnsLite.Responder do
    def multicast_all(question), do: Agent.update(:mdns, &%{&1 | question: question})
    def query_all_caches(_question), do: Agent.get(:mdns, &%{answer: [], additional: &1.records})
  end

  defmodule Cluster.Strategy do
    def connect_nodes(topology, connect, _list_nodes, nodes),
      do: Agent.update(:mdns, &%{&1 | connected: {topology, connect, nodes}})
  end
  """

  @state %{
    topology: :dev,
    connect: {:net_kernel, :connect_node, []},
    list_nodes: {:erlang, :nodes, [:connected]},
    config: [polling_interval: 50, local: false]
  }

  defp txt(texts), do: :inet_dns.make_rr(type: :txt, class: :in, domain: ~c"x", data: texts)

  describe "with stand-ins for the libraries" do
    @describetag :unit
    @describetag :cluster

    setup do
      cluster = TestCluster.start(1)
      on_exit(fn -> TestCluster.stop(cluster) end)
      [node] = TestCluster.nodes(cluster)
      call = &TestCluster.call(cluster, node, &1, &2, &3)
      call.(Code, :eval_string, [@stand_ins])

      application = {:application, :mdns_lite, [vsn: ~c"0.9.1", applications: [:kernel]]}
      :ok = call.(:application, :load, [application])

      {:ok, _agent} =
        call.(Foundation.Starter, :start, [
          [
            %{
              id: :mdns,
              start:
                {Agent, :start_link,
                 [
                   Map,
                   :new,
                   [[service: nil, question: nil, records: [], connected: nil]],
                   [name: :mdns]
                 ]}
            }
          ]
        ])

      %{node: node, call: call, state: fn -> call.(:sys, :get_state, [:mdns]) end}
    end

    test "announces the node, asks, and connects to who answers", context do
      %{node: node, call: call, state: state} = context
      child = %{id: :strategy, start: {MdnsLite, :start_link, [[@state]]}}
      {:ok, supervisor} = call.(Foundation.Starter, :start, [[child]])
      eventually(fn -> state.().connected == {:dev, @state.connect, []} end)

      assert %{
               id: :foundation_cluster,
               protocol: "foundation",
               transport: "tcp",
               port: port,
               txt_payload: ["node=" <> name, "version=" <> _version],
               instance_name: instance
             } = state.().service

      assert name == Atom.to_string(node)
      assert instance == String.replace(name, ".", "-")
      assert port in 1..65_535 and port != 4369
      assert :inet_dns.dns_query(state.().question, :domain) == ~c"_foundation._tcp.local"
      assert :inet_dns.dns_query(state.().question, :type) == :ptr

      # Itself, what is no name, and other records are left alone.
      records = [
        txt(["node=a@10.0.0.1", ~c"version=2.0.0"]),
        txt(["node=a@10.0.0.1"]),
        txt(["node=#{node}"]),
        txt(["node=", ~c"node=b", [256], "node=b@c d", "other=x@y"]),
        txt(["node=" <> String.duplicate("x", 251) <> "@host"]),
        :inet_dns.make_rr(type: :a, class: :in, domain: ~c"h.local", data: {10, 0, 0, 1})
      ]

      call.(Agent, :update, [:mdns, Map, :put, [:records, records]])
      eventually(fn -> match?({:dev, _connect, [_]}, state.().connected) end)
      assert {:dev, @state.connect, [:"a@10.0.0.1"]} == state.().connected

      # Names become atoms, so there is an end to them.
      many = [txt(for(n <- 1..1500, do: "node=n#{n}@host"))]
      call.(Agent, :update, [:mdns, Map, :put, [:records, many]])
      eventually(fn -> match?({:dev, _connect, [_, _ | _]}, state.().connected) end)
      assert {:dev, _connect, nodes} = state.().connected
      assert length(nodes) == 998

      :ok = call.(Supervisor, :stop, [supervisor])
      assert state.().service == nil
    end
  end

  @tag :unit
  test "says what is missing" do
    log = capture_log(fn -> assert :ignore = MdnsLite.start_link([@state]) end)
    assert log =~ "this node is not alive"
  end

  # The real libraries: two hosts, which are network namespaces with a cable between them.
  @paths HostLibraries.paths([:telemetry, :jason, :libcluster, :mdns_lite])
  @moduletag timeout: 120_000

  @tag :integration
  @tag :host_libraries
  @tag skip: @paths == [] or not Foundation.TestHosts.available?()
  test "two hosts find each other by multicast DNS" do
    hosts = Foundation.TestHosts.start(["10.87.0.1", "10.87.0.2"])
    on_exit(fn -> Foundation.TestHosts.stop(hosts) end)

    script = """
    Logger.configure(level: :warning)
    Application.put_env(:mdns_lite, :if_monitor, MdnsLite.InetMonitor)
    Application.put_env(:foundation, :cluster, true)
    {:ok, _} = Application.ensure_all_started(:foundation)
    IO.puts("\#{Foundation.Cluster.strategy()} \#{Foundation.TestHosts.meet()}")
    """

    ebin = Application.app_dir(:foundation, "ebin")
    paths = Enum.flat_map([ebin | @paths], &["-pa", &1])

    outputs =
      hosts
      |> Enum.map(fn {_namespace, address} = host ->
        arguments = ["--name", "app@#{address}", "--cookie", "mdns"] ++ paths ++ ["-e", script]
        Task.async(fn -> Foundation.TestHosts.run(host, "elixir", arguments) end)
      end)
      |> Task.await_many(100_000)

    assert [{one, 0}, {two, 0}] = outputs
    assert one =~ "mdns_lite app@10.87.0.2 told"
    assert two =~ "mdns_lite app@10.87.0.1 told"
  end
end

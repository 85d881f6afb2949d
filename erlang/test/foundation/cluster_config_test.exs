defmodule Foundation.ClusterConfigTest do
  use ExUnit.Case, async: true
  @moduletag :unit

  alias Foundation.ClusterConfig

  defp resolve(foundation, opts \\ []) do
    ClusterConfig.resolve(%{
      foundation: foundation,
      libcluster: opts[:libcluster] || [],
      env: opts[:env] || %{}
    })
  end

  test "ClusterConfig translates :kubernetes to libcluster topology" do
    topology = ClusterConfig.translate_kubernetes_config(app_name: "test-app")
    assert topology[:strategy] == Cluster.Strategy.Kubernetes
    assert topology[:config][:kubernetes_selector] == "app=test-app"
    assert topology[:config][:kubernetes_node_basename] == "test-app"
  end

  test "off unless something asks for it" do
    assert {:ok, %{tier: :off, topologies: []}} = resolve([])
    assert {:ok, %{tier: :off, reason: reason}} = resolve(cluster: false)
    assert reason =~ "false"
    assert {:ok, %{tier: :off}} = ClusterConfig.resolve()
  end

  test "mortal: the evidence decides" do
    name = %{"FOUNDATION_APP_NAME" => "app"}

    for {env, strategy} <- [
          {%{}, :gossip},
          {%{"KUBERNETES_SERVICE_HOST" => "10.0.0.1", "CONSUL_HTTP_ADDR" => "c:8500"},
           :kubernetes},
          {%{"DNS_CLUSTER_QUERY" => "app.internal"}, :dns},
          {%{"CONSUL_HTTP_ADDR" => "c:8500"}, :consul}
        ] do
      assert {:ok, %{tier: :mortal, strategy: ^strategy, topologies: [foundation: topology]}} =
               resolve([cluster: true], env: Map.merge(env, name))

      assert is_atom(topology[:strategy])
    end

    assert {:ok, %{topologies: [foundation: topology]}} =
             resolve([cluster: true], env: Map.put(name, "DNS_CLUSTER_QUERY", "app.internal"))

    assert topology[:config] == [
             polling_interval: 5_000,
             query: "app.internal",
             node_basename: "app"
           ]
  end

  test "mortal: multicast DNS if the application has what it needs" do
    for {libraries, strategy} <- [
          {[:libcluster, :mdns_lite], :mdns_lite},
          {[:libcluster], :gossip},
          {[:mdns_lite], :gossip}
        ] do
      settings = %{foundation: [cluster: true], libcluster: [], env: %{}, libraries: libraries}
      assert {:ok, %{strategy: ^strategy, reason: reason}} = ClusterConfig.resolve(settings)
      assert reason =~ "no sign of Kubernetes"
    end

    assert {:ok, %{topologies: [foundation: topology]}} =
             resolve(cluster: [strategy: :mdns_lite, polling_interval: 100], app_name: "x")

    assert topology == [
             strategy: Foundation.Strategy.MdnsLite,
             config: [polling_interval: 100]
           ]

    assert {:kubernetes, _reason} =
             ClusterConfig.detect(%{"KUBERNETES_SERVICE_HOST" => "10.0.0.1"}, [
               :libcluster,
               :mdns_lite
             ])
  end

  test "apprentice: a name, or options of its own" do
    assert {:ok, %{tier: :apprentice, topologies: [foundation: consul]}} =
             resolve([cluster: :consul, app_name: :shop], env: %{"CONSUL_HTTP_ADDR" => "c:8500"})

    assert consul[:strategy] == Cluster.Strategy.Consul
    assert consul[:config][:base_url] == "http://c:8500"
    assert consul[:config][:service] == [name: "shop"]

    assert {:ok, %{topologies: [foundation: gossip]} = decision} =
             resolve(cluster: [strategy: :gossip, secret: "my-secret"])

    assert gossip == [strategy: Cluster.Strategy.Gossip, config: [secret: "my-secret"]]
    refute decision.reason =~ "my-secret"

    assert {:ok, %{topologies: [foundation: epmd]}} =
             resolve(cluster: [strategy: :epmd, hosts: [:a@b]])

    assert epmd == [strategy: Cluster.Strategy.Epmd, config: [hosts: [:a@b]]]

    assert {:ok, %{topologies: [foundation: [strategy: My.Strategy, config: [a: 1]]]}} =
             resolve(cluster: [strategy: My.Strategy, a: 1], app_name: "x")

    assert {:ok, %{topologies: [foundation: kubernetes]}} =
             resolve(
               cluster: [
                 strategy: :kubernetes,
                 kubernetes_selector: "tier=web",
                 kubernetes_namespace: "prod"
               ],
               app_name: "a"
             )

    assert kubernetes[:config][:kubernetes_selector] == "tier=web"
    assert kubernetes[:config][:kubernetes_namespace] == "prod"
  end

  test "wizard: libcluster's own topologies win" do
    topologies = [k8s: [strategy: Cluster.Strategy.Kubernetes, config: [mode: :dns]]]

    for foundation <- [[], [cluster: true], [cluster: :consul]] do
      assert {:ok, %{tier: :wizard, strategy: :libcluster, topologies: ^topologies}} =
               resolve(foundation, libcluster: [topologies: topologies])
    end

    assert {:ok, %{tier: :off}} = resolve([cluster: false], libcluster: [topologies: topologies])
    assert {:error, message} = resolve([], libcluster: [topologies: [:odd]])
    assert message =~ "config :libcluster, topologies:"
  end

  test "the environment wins over the configuration" do
    assert {:ok, %{strategy: :kubernetes, reason: reason}} =
             resolve([cluster: :gossip, app_name: "b"],
               env: %{"FOUNDATION_CLUSTER" => "kubernetes", "FOUNDATION_APP_NAME" => "a"}
             )

    assert reason =~ "FOUNDATION_CLUSTER"

    assert {:ok, %{tier: :off}} =
             resolve([cluster: true], env: %{"FOUNDATION_CLUSTER" => "false"})

    assert {:ok, %{tier: :mortal}} = resolve([], env: %{"FOUNDATION_CLUSTER" => "true"})
  end

  test "errors name the setting and what it may be" do
    for {foundation, env, parts} <- [
          {[cluster: :kubernetis], %{},
           ["config :foundation, cluster:", ":kubernetis", ":kubernetes"]},
          {[], %{"FOUNDATION_CLUSTER" => "k8s"}, ["FOUNDATION_CLUSTER", "\"k8s\"", "kubernetes"]},
          {[cluster: :kubernetes], %{}, [":kubernetes", "FOUNDATION_APP_NAME"]},
          {[cluster: :dns], %{}, ["DNS_CLUSTER_QUERY"]},
          {[cluster: :epmd], %{}, ["hosts:"]},
          {[cluster: [secret: "hidden"]], %{}, ["strategy:"]},
          {[cluster: [strategy: :gosip]], %{}, [":gosip", ":gossip"]},
          {[cluster: [1, 2]], %{}, ["[1, 2]"]},
          {[cluster: 5], %{}, ["5"]}
        ] do
      assert {:error, message} = resolve(foundation, env: env)
      for part <- parts, do: assert(message =~ part, message)
      refute message =~ "hidden"
    end
  end

  test "an option that a strategy does not take, or of a wrong type, is named with what would be right" do
    for {options, parts} <- [
          {[strategy: :gossip, secret: 5, colour: 1],
           [
             "strategy :gossip",
             "secret: is not what it must be; it may be a string",
             "there is no option colour:",
             "broadcast_only:, if_addr:"
           ]},
          {[strategy: :gossip, secret: ~c"hidden"], ["secret:"]},
          {[strategy: :gossip, port: "45892"], ["port:", "\"45892\"", "1 to 65535"]},
          {[strategy: :gossip, port: 0], ["port:"]},
          {[strategy: :gossip, if_addr: "eth0"], ["if_addr:", "\"eth0\"", "IP address"]},
          {[strategy: :gossip, broadcast_only: "yes"], ["broadcast_only:", "true or false"]},
          {[strategy: :epmd, hosts: ["a@b"]], ["hosts:", "[\"a@b\"]", ":a@host"]},
          {[strategy: :epmd, hosts: :a@b], ["hosts:", ":a@b"]},
          {[strategy: :epmd, hosts: [:a@b], timeout: -1], ["timeout:", "-1"]},
          {[strategy: :local_epmd, interval: 5], ["interval:", "polling_interval:"]},
          {[strategy: :dns, query: :a, app_name: "x"], ["query:", ":a"]},
          {[strategy: :kubernetes, polling_interval: 0, app_name: "x"], ["polling_interval:"]},
          {[strategy: :kubernetes, kubernetes_selecter: "x=y", app_name: "x"],
           ["kubernetes_selecter:", "kubernetes_selector:"]},
          {[strategy: :consul, app_name: "x", service: "shop"], ["service:", "[name: "]},
          {[strategy: :consul, app_name: "x", access_token: {"hidden"}], ["access_token:"]},
          {[strategy: :kubernetes, app_name: {1}], ["app_name:", "{1}"]}
        ] do
      assert {:error, message} = resolve(cluster: options)
      for part <- parts, do: assert(message =~ part, message)
      refute message =~ "hidden"
      assert {:error, ^message} = resolve(clusters: %{one: options})
    end

    for options <- [
          [
            strategy: :gossip,
            if_addr: {127, 0, 0, 1},
            multicast_addr: "233.252.1.32",
            port: 45_892
          ],
          [strategy: :gossip, secret: nil, prune: :never],
          [strategy: :dns, query: "a.internal", node_basename: "a", resolver: &List.wrap/1],
          [strategy: {Cluster.Strategy.Gossip, [secret: 5, colour: 1]}],
          [strategy: Cluster.Strategy.Gossip, colour: 1]
        ] do
      assert {:ok, %{topologies: [foundation: topology]}} = resolve(cluster: options)
      refute match?([secret: nil], topology[:config])
    end
  end

  test "secrets come from the environment" do
    settings = %{
      foundation: [security: [erlang_cookie: {:system, "ERLANG_COOKIE"}, tls_enabled: true]],
      libcluster: [],
      env: %{"ERLANG_COOKIE" => "c"}
    }

    assert ClusterConfig.security(settings) == {:ok, [erlang_cookie: "c", tls_enabled: true]}
    assert {:error, message} = ClusterConfig.security(%{settings | env: %{}})
    assert message =~ "ERLANG_COOKIE"
    assert ClusterConfig.security(%{settings | foundation: []}) == {:ok, []}
  end

  describe "profiles and several clusters" do
    defp decide(foundation),
      do: ClusterConfig.resolve(%{foundation: foundation, libcluster: [], env: %{}})

    test "a profile stands for what is not given" do
      for profile <- [:development, :production] do
        assert {:ok, %{tier: :mortal, strategy: :gossip}} = decide(profile: profile)
        assert {:ok, %{tier: :off}} = decide(profile: profile, cluster: false)
        assert {:ok, %{strategy: :local_epmd}} = decide(profile: profile, cluster: :local_epmd)
      end

      assert {:error, message} = decide(profile: :enterprise)
      assert message =~ "needs clusters:"
      assert {:error, message} = decide(profile: :hobby)
      assert message =~ ":development, :production, :enterprise"
    end

    test "a topology for each cluster" do
      clusters = %{app: [strategy: :kubernetes], ai: [strategy: :epmd, hosts: [:a@b]]}

      assert {:ok, %{strategy: :clusters, topologies: [ai: ai, app: app]}} =
               decide(profile: :enterprise, clusters: clusters, app_name: "x")

      assert ai[:config][:hosts] == [:a@b]
      assert app[:config][:kubernetes_selector] == "app=x"
      assert {:error, message} = decide(clusters: %{ai: [strategy: :nonsense]})
      assert message =~ ":nonsense"
      assert {:error, message} = decide(clusters: %{})
      assert message =~ "empty"
      assert {:error, _} = decide(clusters: :ai)
      assert {:error, message} = decide(clusters: [1])
      assert message =~ "has 1; it is a map"

      assert {:error, message} =
               decide(clusters: %{{:a} => [strategy: :gossip, secret: "hidden"]})

      assert message =~ "{:a}" and not (message =~ "hidden")
    end
  end
end

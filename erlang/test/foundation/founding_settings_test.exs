defmodule Foundation.FoundingSettingsTest do
  # Every example of a configuration in the documents from which this project started: each key acts, or is answered by its name.
  use ExUnit.Case, async: true
  @moduletag :unit

  alias Foundation.ClusterConfig
  alias Foundation.ClusterConfig.Settings

  @kubernetes [
    mode: :hostname,
    kubernetes_node_basename: "myapp",
    kubernetes_selector: "app=myapp"
  ]

  # Document, configuration, what is found by what, and the settings that are answered.
  @examples [
    {"000 §1", [cluster: true], [foundation: Cluster.Strategy.Gossip], []},
    {"000 §1", [cluster: :kubernetes], [foundation: Cluster.Strategy.Kubernetes], []},
    {"000 §1", [cluster: :consul], [foundation: Cluster.Strategy.Consul], []},
    {"000 §1", [cluster: :dns], [foundation: Cluster.Strategy.DNSPoll], []},
    {"000 §1", [cluster: [strategy: :gossip, secret: "my-secret"]],
     [foundation: Cluster.Strategy.Gossip], []},
    {"000 §5",
     [
       cluster: :kubernetes,
       security: [
         erlang_cookie: {:system, "ERLANG_COOKIE"},
         tls_enabled: true,
         certificate_file: "mix.exs"
       ]
     ], [foundation: Cluster.Strategy.Kubernetes], []},
    {"001 level 2", [cluster: :static, hosts: [:a@b]], {:error, "hosts:"}, []},
    {"001 level 2", [cluster: [strategy: :static, hosts: [:a@b]]],
     [foundation: Cluster.Strategy.Epmd], []},
    {"001 level 2", [cluster: :aws], [foundation: Foundation.Strategy.Aws], []},
    {"001 level 2", [cluster: :gcp], [foundation: Foundation.Strategy.Gcp], []},
    {"001 level 3",
     [
       clustering: %{
         primary: [strategy: {Cluster.Strategy.Kubernetes, @kubernetes}],
         secondary: [
           strategy: {Cluster.Strategy.Gossip, [multicast_addr: "230.1.1.251", multicast_ttl: 1]}
         ]
       },
       messaging: %{
         adapter: Phoenix.PubSub.PG2,
         channels: [:events, :coordination, :telemetry],
         compression: true
       },
       processes: %{
         registry: Horde.Registry,
         supervisor: Horde.DynamicSupervisor,
         distribution_strategy: :hash_ring
       }
     ], [primary: Cluster.Strategy.Kubernetes, secondary: Cluster.Strategy.Gossip],
     [
       "messaging: channels: :coordination",
       "messaging: compression:",
       "processes: distribution_strategy:"
     ]},
    {"001 level 4",
     [
       clusters: %{
         app: [strategy: {Cluster.Strategy.Kubernetes, @kubernetes}],
         ai: [
           strategy: {Cluster.Strategy.DNS, [query: "ai", node_basename: "ai"]},
           processes: [:ai_workers, :model_cache]
         ],
         analytics: [
           strategy: {Cluster.Strategy.Consul, [service: [name: "analytics"]]},
           processes: [:stream_processors, :aggregators]
         ]
       }
     ],
     [
       ai: Cluster.Strategy.DNS,
       analytics: Cluster.Strategy.Consul,
       app: Cluster.Strategy.Kubernetes
     ], ["clusters: ai: processes:", "clusters: analytics: processes:"]},
    {"001 development",
     [
       profile: :development,
       auto_features: [
         :service_discovery,
         :distributed_debugging,
         :hot_reload,
         :development_ui
       ]
     ], [foundation: Cluster.Strategy.Gossip],
     ["auto_features: :distributed_debugging", "auto_features: :development_ui"]},
    {"001 production",
     [
       profile: :production,
       cluster: :kubernetes,
       auto_features: [:health_checks, :metrics, :distributed_processes, :partition_healing]
     ], [foundation: Cluster.Strategy.Kubernetes], []},
    {"001 enterprise",
     [
       profile: :enterprise,
       clusters: %{
         app: [strategy: :kubernetes],
         ai: [strategy: :consul, nodes: 50],
         analytics: [strategy: :dns, nodes: 100]
       },
       auto_features: [
         :multi_cluster,
         :advanced_routing,
         :cluster_federation,
         :cross_cluster_communication,
         :global_process_registry
       ]
     ],
     [
       ai: Cluster.Strategy.Consul,
       analytics: Cluster.Strategy.DNSPoll,
       app: Cluster.Strategy.Kubernetes
     ],
     [
       "auto_features: :advanced_routing",
       "auto_features: :cluster_federation",
       "clusters: ai: nodes:",
       "clusters: analytics: nodes:"
     ]},
    {"002 migration",
     [
       libcluster_topologies: [
         k8s: [strategy: Cluster.Strategy.Kubernetes, config: [kubernetes_selector: "app=myapp"]]
       ],
       partisan_overlays: [
         control_plane: [overlay: :full_mesh, channels: [:coordination]],
         data_plane: [overlay: :hyparview, channels: [:events, :user_data]]
       ]
     ], [k8s: Cluster.Strategy.Kubernetes], ["partisan_overlays:"]},
    {"002 setup",
     [
       config_enabled: true,
       events_enabled: true,
       telemetry_enabled: true,
       service_registry_enabled: true,
       distributed_config: false,
       distributed_events: false,
       cluster_telemetry: false,
       service_mesh: false,
       beam_primitives: true,
       process_ecosystems: true,
       message_optimization: true,
       scheduler_awareness: true
     ], [],
     ["cluster_telemetry:", "distributed_config:", "distributed_events:", "service_mesh:"]},
    {"002 migration",
     [
       distributed_config: true,
       distributed_events: true,
       cluster_telemetry: true,
       service_mesh: true
     ], [], []},
    {"002 migration", [topology: :hyparview, channels: [:coordination, :data, :gossip, :events]],
     [], ["channels:", "topology:"]}
  ]

  # In a pod, say.
  @env %{"FOUNDATION_APP_NAME" => "x", "DNS_CLUSTER_QUERY" => "x.internal"}

  for {{document, foundation, found, answered}, n} <- Enum.with_index(@examples) do
    @foundation foundation
    @found found
    @answered answered
    test "#{document}, example #{n + 1}" do
      env =
        if @foundation[:cluster] == true or @foundation[:profile] == :development,
          do: %{},
          else: @env

      decision = ClusterConfig.resolve(%{foundation: @foundation, libcluster: [], env: env})

      case @found do
        {:error, part} ->
          assert {:error, message} = decision
          assert message =~ part

        strategies ->
          assert {:ok, %{topologies: topologies}} = decision

          assert Enum.sort(for {name, topology} <- topologies, do: {name, topology[:strategy]}) ==
                   Enum.sort(strategies)
      end

      answers = Settings.answers(@foundation)
      not_offered = for {path, {:not_offered, why}} <- answers, why != "", do: path
      assert Enum.sort(not_offered) == Enum.sort(@answered)

      # No key is left without an answer.
      for {key, _value} <- Keyword.delete(@foundation, :hosts) do
        assert Enum.any?(answers, fn {path, _answer} -> String.starts_with?(path, "#{key}:") end),
               "#{key} has no answer"
      end

      for line <- Settings.not_offered(@foundation), do: assert(line =~ " does nothing: ")
    end
  end

  test "what nobody has named is answered as well, and what is the application's is left alone" do
    settings = [
      auto_features: [:flying],
      messaging: %{adapter: Other, channels: [:chat], speed: 1},
      processes: %{registry: Registry},
      my_own: 1
    ]

    assert [_, _, _, _, _] = Settings.not_offered(settings)
    assert Settings.answers(my_own: 1) == []
  end

  test "primary and secondary are an order" do
    clustering = [
      primary: [strategy: :kubernetes],
      secondary: [strategy: :gossip, secret: "s"]
    ]

    decide = fn clustering ->
      ClusterConfig.resolve(%{
        foundation: [clustering: clustering],
        libcluster: [],
        env: %{"FOUNDATION_APP_NAME" => "x"}
      })
    end

    assert {:ok, %{strategy: :failover, order: [:primary, :secondary], topologies: topologies}} =
             decide.(clustering)

    assert topologies[:primary][:config][:kubernetes_selector] == "app=x"
    assert topologies[:secondary][:config] == [secret: "s"]
    assert {:error, message} = decide.(clustering ++ [third: []])
    assert message =~ "third"
    assert {:error, message} = decide.([])
    assert message =~ "empty"
    assert {:error, message} = decide.(:both)
    assert message =~ ":both"
  end

  describe "security" do
    defp security(settings, env \\ %{}),
      do: ClusterConfig.security(%{foundation: [security: settings], libcluster: [], env: env})

    test "a mistake is an error that names the key" do
      for {settings, part} <- [
            {[erlang_cookie: {:system, "ERLANG_COOKIE"}], "ERLANG_COOKIE"},
            {[erlang_cookie: 5], "erlang_cookie:"},
            {[tls_enabled: :yes], "tls_enabled: is :yes"},
            {[tls_enabled: true, certificate_file: "/nowhere.pem"], "/nowhere.pem"},
            {[tls_enabled: true, certificate_file: 5], "certificate_file: is 5"},
            {[certificate_file: "mix.exs"], "tls_enabled: is not true"},
            {[tls: true], ":tls"}
          ] do
        assert {:error, message} = security(settings)
        assert message =~ part
      end
    end

    test "values come from the environment" do
      env = %{"COOKIE" => "c", "TLS" => "true"}
      settings = [erlang_cookie: {:system, "COOKIE"}, tls_enabled: {:system, "TLS"}]
      assert security(settings, env) == {:ok, [erlang_cookie: "c", tls_enabled: true]}
    end
  end
end

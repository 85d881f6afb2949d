Logger.configure(level: :error)

# Nodes of their own need OTP 25's :peer and an epmd.
clusters? = Code.ensure_loaded?(:peer) and System.find_executable("epmd") != nil

# `mix coverage`: what runs on the nodes counts, for the modules that need other nodes.
if directory = System.get_env("FOUNDATION_COVERAGE") do
  prefixes =
    ~w(Cluster Channels Development Distributed Examples Events.Subscriber HealthMonitor Host LoadBalancer Messaging Optimizer Process PubSub ServiceMesh Strategy)

  modules =
    for module <- Application.spec(:foundation, :modules),
        Enum.any?(prefixes, &String.starts_with?(inspect(module), "Foundation." <> &1)),
        do: module

  Application.put_env(:foundation, :test_cluster, coverage: {directory, modules})
end

# The Rust collector of the event example, which the tests of the workspace build.
target = System.get_env("CARGO_TARGET_DIR") || Path.expand("../../target", __DIR__)
collector = Path.join(target, "debug/examples/collector")
Application.put_env(:foundation, :test_collector, collector)

unless File.exists?(collector),
  do: IO.puts("not run: the tests with a Rust node, because #{collector} is not there")

ExUnit.start(
  exclude:
    [:stress, :benchmark] ++
      if(clusters?, do: [], else: [:cluster]) ++
      if(File.exists?(collector), do: [], else: [:collector]),
  capture_log: true,
  # The machine may be busy; nothing waits this long when all is well.
  assert_receive_timeout: 3000
)

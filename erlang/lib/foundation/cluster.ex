defmodule Foundation.Cluster do
  @moduledoc """
  The nodes of the application: what joins them, and what is told about them.

  Runs only with clustering on (`Foundation.ClusterConfig`). The supervisor's children are `Foundation.PubSub`, the registrar of
  `Foundation.ServiceMesh`, the engine of `Foundation.ProcessManager`, the discovery under the name `Foundation.ClusterSupervisor`, and a process that watches the nodes and executes

  | event | measurements | metadata |
  |---|---|---|
  | `[:foundation, :cluster, :node_joined]` | `%{count: nodes now}` | `%{node: node}` |
  | `[:foundation, :cluster, :node_left]` | `%{count: nodes now}` | `%{node: node, reason: reason}` |

  Discovery is libcluster's when the host application has it and the strategy, else that of the program `foundation`
  (`Foundation.Cluster.Companion`); `config :foundation, discovery: :companion` prefers the program. Without both the strategies `:epmd` and
  `:local_epmd` work, the latter also in place of `:gossip`; any other logs what is missing, and the node stays alone.

  A node that is not alive is started as `<app name>_<4 hex digits>` with a short name.
  """

  # Temporary: a cluster that cannot be kept up costs the application its other nodes, not its services.
  use Supervisor, restart: :temporary

  alias Foundation.{Cluster, ClusterConfig, Host, Settings}
  alias Foundation.Settings.Type
  require Logger

  @doc false
  @spec start_link(ClusterConfig.t()) :: {:ok, pid()} | :ignore
  def start_link(%ClusterConfig{} = decision) do
    with {:error, reason} <- Supervisor.start_link(__MODULE__, decision, name: __MODULE__) do
      Logger.error("Foundation clustering is off: #{inspect(reason)}")
      :ignore
    end
  end

  @doc """
  Whether clustering is on.
  """
  @spec enabled?() :: boolean()
  def enabled?, do: Process.whereis(__MODULE__) != nil

  @doc """
  The nodes of the cluster, this one included: those that run `Foundation.PubSub`.
  """
  @spec nodes() :: [node()]
  def nodes, do: if(enabled?(), do: Foundation.PubSub.nodes(), else: [node()])

  @doc """
  How many nodes the cluster has.
  """
  @spec size() :: pos_integer()
  def size, do: length(nodes())

  @doc """
  The nodes that play a role: those with `config :foundation, roles: [role, ...]`.
  """
  @spec nodes(term()) :: [node()]
  def nodes(role), do: Cluster.Monitor.nodes(role)

  @doc """
  `nodes(:ai)`.
  """
  @spec ai_nodes() :: [node()]
  def ai_nodes, do: nodes(:ai)

  @doc """
  Sends to the instances of a service in another named cluster, through a bridge; without a bridge to a cluster of this name,
  `Foundation.Messaging.send_message/3` to the instances on the nodes that play this role.

  A bridge is a process of the program `foundation` with `[clusters.NAME]` in its configuration: it is in several clusters, whose nodes are
  not connected to each other. Pids in the message lead nowhere on the other side.

  `{:error, error}` is of type `:service_not_found`, code 5001, or `:bridge_unavailable`, code 5002.
  """
  @spec send_to_cluster(term(), term(), term()) :: :ok | {:error, Foundation.Types.Error.t()}
  def send_to_cluster(cluster, service, message) do
    case bridge(cluster) do
      nil ->
        Foundation.Messaging.send_message(service, message, nodes: nodes(cluster))

      bridge ->
        case ask(bridge, {:send_to_cluster, cluster, service, message}) do
          :ok -> :ok
          {:error, reason} -> bridge_error("send_to_cluster/3", cluster, service, reason)
        end
    end
  end

  @doc """
  The instances of a service, or of all services, in another named cluster, as a bridge knows them: as
  `Foundation.ServiceMesh.discover_services/1` without pids, each with the name of its `cluster:`.

  `{:error, error}` of type `:bridge_unavailable`, code 5002, without a bridge to it.
  """
  @spec discover_services(term(), term()) :: {:ok, [map()]} | {:error, Foundation.Types.Error.t()}
  def discover_services(cluster, service \\ :all) do
    request =
      if service == :all,
        do: {:discover_services, cluster},
        else: {:discover_services, cluster, service}

    with bridge when bridge != nil <- bridge(cluster),
         {:ok, services} <- ask(bridge, request) do
      {:ok, services}
    else
      nil -> bridge_error("discover_services/2", cluster, service, :no_bridge)
      {:error, reason} -> bridge_error("discover_services/2", cluster, service, reason)
    end
  end

  # One that leads to the cluster; which clusters it leads to are its capabilities.
  defp bridge(cluster) do
    case Foundation.ServiceMesh.discover_services(
           name: :foundation_bridge,
           capabilities: [cluster]
         ) do
      [] -> nil
      bridges -> Enum.random(bridges).pid
    end
  end

  defp ask(bridge, request) do
    GenServer.call(bridge, request)
  catch
    :exit, reason -> {:error, reason}
  end

  defp bridge_error(function, cluster, service, reason) do
    {code, type} =
      if reason == :service_not_found,
        do: {5001, :service_not_found},
        else: {5002, :bridge_unavailable}

    {:error,
     Foundation.Types.Error.new(
       code: code,
       error_type: type,
       message:
         "Foundation.Cluster.#{function}: cluster #{inspect(cluster)}, service #{inspect(service)}: #{inspect(reason)}",
       severity: :medium,
       category: :system,
       subcategory: :cluster,
       context: %{cluster: cluster, service: service}
     )}
  end

  @doc """
  How nodes are found, `nil` without clustering.
  """
  @spec strategy() :: atom()
  def strategy, do: if(enabled?(), do: :persistent_term.get({__MODULE__, :strategy}, nil))

  @doc false
  # Who holds the names and the processes of the cluster.
  @spec engine() :: :pg | :horde
  def engine, do: if(Host.module(:horde), do: :horde, else: :pg)

  @doc false
  # With clustering not on yet, by whoever calls it: a supervisor of the application, or this library's own.
  @spec start_later(keyword(), (ClusterConfig.t() -> result)) ::
          result | :ignore | {:error, String.t()}
        when result: term()
  def start_later(opts, start) do
    {:ok, _started} = Application.ensure_all_started(:foundation)
    settings = Keyword.merge(Application.get_all_env(:foundation), opts)

    environment = %{
      foundation: settings,
      libcluster: Application.get_all_env(:libcluster),
      env: System.get_env(),
      libraries: ClusterConfig.libraries()
    }

    with false <- enabled?(),
         {:ok, %{tier: tier} = decision} <- ClusterConfig.resolve(environment) do
      cond do
        tier == :off ->
          :ignore

        engine() == :horde ->
          # Foundation.ProcessRegistry has to become Horde's: the whole tree starts anew.
          Logger.info("Foundation restarts with clustering on")
          :ok = Application.stop(:foundation)
          for {key, value} <- opts, do: Application.put_env(:foundation, key, value)
          {:ok, _started} = Application.ensure_all_started(:foundation)
          :ignore

        true ->
          Foundation.ProcessRegistry.Names.choose(engine())
          start.(decision)
      end
    else
      true -> :ignore
      {:error, message} -> {:error, message}
    end
  end

  @doc false
  # For `{Foundation, opts}` in a supervisor.
  def start_child(opts) do
    with true <- Keyword.keyword?(opts),
         {:error, message} <- start_later(opts, &start_link/1) do
      Logger.error("Foundation clustering is off: #{message}")
      :ignore
    else
      false ->
        Logger.error(
          "Foundation clustering is off: {Foundation, options} has no keyword list for options"
        )

        :ignore

      started ->
        started
    end
  end

  @impl true
  def init(decision) do
    :persistent_term.put({__MODULE__, :strategy}, decision.strategy)
    Logger.info("Foundation clustering: #{decision.strategy} (#{decision.reason})")

    case start_distribution() do
      :ok ->
        Supervisor.init(children(decision),
          strategy: :one_for_one,
          max_restarts: 10,
          max_seconds: 60
        )

      {:error, message} ->
        Logger.error("Foundation clustering is off: #{message}")
        :ignore
    end
  end

  defp children(decision) do
    [
      Foundation.PubSub,
      receivers(),
      Foundation.Channels.Rate,
      {Foundation.ProcessRegistry.Names, engine()},
      Foundation.ServiceMesh.Registrar,
      Foundation.ProcessManager.Engine,
      Foundation.HealthMonitor.Checker,
      Foundation.Optimizer,
      Foundation.Cluster.ConfigSync,
      {Foundation.Cluster.Monitor, decision}
    ] ++ development() ++ discovery(decision)
  end

  defp receivers do
    children = Enum.map(Foundation.Channels.channels(), &{Foundation.Channels.Receiver, &1})

    %{
      id: Foundation.Channels,
      start: {Supervisor, :start_link, [children, [strategy: :one_for_one]]},
      type: :supervisor
    }
  end

  defp development do
    if Application.get_env(:foundation, :profile) == :development,
      do: [Foundation.Development.Reloader],
      else: []
  end

  # Each topology is libcluster's if the application has it and the strategy; else the companion's; else what this library does itself.
  defp discovery(%ClusterConfig{} = decision) do
    ordered? = decision.order != [] and match?({:ok, _binary}, Cluster.Companion.binary())
    companion? = ordered? or Settings.get(:discovery) == :companion
    libcluster = if companion?, do: nil, else: Host.module(:libcluster)

    {theirs, others} =
      Enum.split_with(decision.topologies, fn {_name, topology} ->
        libcluster != nil and Code.ensure_loaded?(topology[:strategy])
      end)

    cond do
      others == [] ->
        by_libcluster(libcluster, theirs)

      theirs == [] ->
        by_companion(others, decision, Foundation.ClusterSupervisor)

      true ->
        by_libcluster(libcluster, theirs) ++ by_companion(others, decision, Cluster.Companion)
    end
  end

  defp by_libcluster(cluster, topologies),
    do: [{cluster, [topologies, [name: Foundation.ClusterSupervisor]]}]

  defp by_companion(topologies, decision, name) do
    case Cluster.Companion.binary() do
      {:ok, binary} ->
        [
          {Cluster.Companion,
           topologies: widened(topologies, decision),
           binary: binary,
           allow: Settings.get(:allow),
           failover: decision.order,
           development: ClusterConfig.development(decision),
           name: name}
        ]

      {:error, missing} ->
        own_discovery(topologies, missing)
    end
  end

  # With nothing configured, nodes of other kinds are found too: those of this host, and those that are announced.
  defp widened(topologies, %{tier: :mortal, strategy: :gossip}) do
    topologies ++
      [
        mdns: [strategy: Foundation.Strategy.Mdns, config: []],
        local_epmd: [strategy: Elixir.Cluster.Strategy.LocalEpmd, config: []]
      ]
  end

  defp widened(topologies, _decision), do: topologies

  # What is here is found, and what is listed.
  defp own_discovery(topologies, missing) do
    {own, others} =
      Enum.split_with(topologies, fn {_name, topology} ->
        topology[:strategy] in own_strategies()
      end)

    for {_name, topology} <- others do
      Logger.error(
        "Foundation clustering: #{ClusterConfig.strategy_name(topology[:strategy])} needs libcluster with this strategy, " <>
          "which the application does not have, or the program foundation (#{missing}). Nothing is discovered by it; nodes " <>
          "that are connected by other means take part."
      )
    end

    strategies = for {_name, topology} <- own, do: topology[:strategy]

    if Elixir.Cluster.Strategy.Gossip in strategies do
      Logger.warning(
        "Foundation clustering: gossip needs libcluster, which the application does not have, or the program foundation " <>
          "(#{missing}). Only nodes on this host are found."
      )
    end

    listed = Enum.flat_map(own, &listed/1)
    here? = Enum.any?(strategies, &(&1 != Elixir.Cluster.Strategy.Epmd))

    if own == [],
      do: [],
      else: [{Cluster.Epmd, hosts: if(here?, do: {:local, listed}, else: listed)}]
  end

  # libcluster's own topologies are not looked at before.
  defp listed({name, topology}) do
    hosts = topology[:config][:hosts] || []
    hosts = if is_atom(hosts), do: [hosts], else: hosts
    type = {:such_as, {:list, :atom}, [:a@host]}

    if Type.right?(type, hosts) do
      hosts
    else
      {_level, message} = Type.wrong("topology #{inspect(name)}, hosts:", hosts, type)
      Logger.error("Foundation clustering: #{message}")
      []
    end
  end

  defp own_strategies,
    do: [
      Elixir.Cluster.Strategy.Epmd,
      Elixir.Cluster.Strategy.LocalEpmd,
      Elixir.Cluster.Strategy.Gossip
    ]

  # Nothing is ever started without the TLS that was asked for.
  defp start_distribution do
    with {:ok, security} <- security(), :ok <- check_tls(security) do
      unless Node.alive?(), do: start_node()

      # One cookie for everybody, set when there is a node to have it.
      with cookie when cookie != nil <- security[:erlang_cookie], true <- Node.alive?() do
        Node.set_cookie(String.to_atom(to_string(cookie)))
      end

      :ok
    end
  end

  defp security do
    ClusterConfig.security(%{
      foundation: Application.get_all_env(:foundation),
      libcluster: [],
      env: System.get_env()
    })
  end

  defp check_tls(security) do
    if security[:tls_enabled] == true and not tls?() do
      file = security[:certificate_file] || "FILE"

      {:error,
       "security: tls_enabled: is true, but this VM was started without TLS distribution, which can only be chosen then: " <>
         "-proto_dist inet_tls -ssl_dist_opt server_certfile #{file} (or -ssl_dist_optfile OPTIONS), " <>
         "for a release in vm.args, else in ERL_FLAGS"}
    else
      :ok
    end
  end

  defp tls? do
    case :init.get_argument(:proto_dist) do
      {:ok, values} -> [~c"inet_tls"] in values or [~c"inet6_tls"] in values
      :error -> false
    end
  end

  defp start_node do
    base = System.get_env("FOUNDATION_APP_NAME") || Settings.get(:app_name) || "foundation"
    base = to_string(base)

    # What :net_kernel takes; above 200 characters little is left for the host.
    if base =~ ~r/\A[0-9A-Za-z_\-]{1,200}\z/ do
      suffix = Base.encode16(:crypto.strong_rand_bytes(2), case: :lower)
      start_node(String.to_atom("#{base}_#{suffix}"))
    else
      Logger.error(
        "Foundation clustering: this node cannot be started as #{Type.show(base)} (FOUNDATION_APP_NAME, or config :foundation, " <>
          "app_name:): the name of a node has letters, digits, _ and -, at most 200. It is alone."
      )
    end
  end

  defp start_node(name) do
    ensure_epmd()

    case Node.start(name, :shortnames) do
      {:ok, _pid} ->
        Logger.info("Foundation clustering: this node is #{node()}")

      {:error, reason} ->
        Logger.error(
          "Foundation clustering: this node cannot be started as #{name}: #{inspect(reason)}. " <>
            "It is alone; start it with --sname or --name to see why."
        )
    end
  end

  # `erl -sname` would have started it.
  defp ensure_epmd do
    with {:error, _not_running} <- :erl_epmd.names(),
         path when is_binary(path) <- System.find_executable("epmd") do
      System.cmd(path, ["-daemon"])
    else
      nil -> Logger.error("Foundation clustering: epmd is not running and not on PATH")
      {:ok, _names} -> :ok
    end
  end
end

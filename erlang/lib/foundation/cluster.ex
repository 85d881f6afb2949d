defmodule Foundation.Cluster do
  @moduledoc """
  The nodes of the application: what joins them, and what is told about them.

  Runs only with clustering on (`Foundation.ClusterConfig`). The supervisor's children are `Foundation.PubSub`, the registrar of
  `Foundation.ServiceMesh`, the engine of `Foundation.ProcessManager`, the discovery under the name `Foundation.ClusterSupervisor`, and a process that watches the nodes and executes

  | event | measurements | metadata |
  |---|---|---|
  | `[:foundation, :cluster, :node_joined]` | `%{count: nodes now}` | `%{node: node}` |
  | `[:foundation, :cluster, :node_left]` | `%{count: nodes now}` | `%{node: node, reason: reason}` |

  Discovery is libcluster's when the host application has it. Without it the strategies `:epmd` and `:local_epmd` work, the latter
  also in place of `:gossip`; any other logs what is missing, and the node stays alone.

  A node that is not alive is started as `<app name>_<4 hex digits>` with a short name.
  """

  # Temporary: a cluster that cannot be kept up costs the application its other nodes, not its services.
  use Supervisor, restart: :temporary

  alias Foundation.{ClusterConfig, Host}
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

  @impl true
  def init(decision) do
    Logger.info("Foundation clustering: #{decision.strategy} (#{decision.reason})")
    start_distribution()

    children =
      [
        Foundation.PubSub,
        receivers(),
        Foundation.ProcessRegistry.Names,
        Foundation.ServiceMesh.Registrar,
        Foundation.ProcessManager.Engine,
        Foundation.HealthMonitor.Checker,
        Foundation.Optimizer,
        Foundation.Cluster.ConfigSync,
        {Foundation.Cluster.Monitor, decision}
      ] ++ discovery(decision)

    Supervisor.init(children, strategy: :one_for_one, max_restarts: 10, max_seconds: 60)
  end

  defp receivers do
    children = Enum.map(Foundation.Channels.channels(), &{Foundation.Channels.Receiver, &1})

    %{
      id: Foundation.Channels,
      start: {Supervisor, :start_link, [children, [strategy: :one_for_one]]},
      type: :supervisor
    }
  end

  defp discovery(%ClusterConfig{} = decision) do
    case Host.module(:libcluster) do
      nil -> own_discovery(decision)
      cluster -> [{cluster, [decision.topologies, [name: Foundation.ClusterSupervisor]]}]
    end
  end

  defp own_discovery(%{strategy: :epmd, topologies: [{_name, topology}]}),
    do: [{Foundation.Cluster.Epmd, hosts: topology[:config][:hosts]}]

  defp own_discovery(%{strategy: :local_epmd}), do: [{Foundation.Cluster.Epmd, hosts: :local}]

  defp own_discovery(%{strategy: :gossip}) do
    Logger.warning(
      "Foundation clustering: gossip needs libcluster, which the application does not have. " <>
        "Only nodes on this host are found."
    )

    [{Foundation.Cluster.Epmd, hosts: :local}]
  end

  defp own_discovery(%{strategy: strategy}) do
    Logger.error(
      "Foundation clustering: #{strategy} needs libcluster, which the application does not have. " <>
        "Add {:libcluster, \"~> 3.3\"} to its dependencies. Nothing is discovered; nodes that are " <>
        "connected by other means take part."
    )

    []
  end

  defp start_distribution do
    with {:ok, security} <- security() do
      unless Node.alive?(), do: start_node()

      # One cookie for everybody, set when there is a node to have it.
      with cookie when cookie != nil <- security[:erlang_cookie], true <- Node.alive?() do
        Node.set_cookie(String.to_atom(to_string(cookie)))
      end

      if security[:tls_enabled] == true and not tls?() do
        Logger.error(
          "Foundation clustering: security: tls_enabled: is true, but this VM was started without TLS distribution, " <>
            "which can only be chosen then: -proto_dist inet_tls -ssl_dist_optfile FILE"
        )
      end
    end
  end

  defp security do
    settings = %{
      foundation: Application.get_all_env(:foundation),
      libcluster: [],
      env: System.get_env()
    }

    with {:error, message} <- ClusterConfig.security(settings) do
      Logger.error("Foundation clustering: #{message}")
      {:ok, []}
    end
  end

  defp tls? do
    case :init.get_argument(:proto_dist) do
      {:ok, values} -> [~c"inet_tls"] in values or [~c"inet6_tls"] in values
      :error -> false
    end
  end

  defp start_node do
    base =
      System.get_env("FOUNDATION_APP_NAME") ||
        to_string(Application.get_env(:foundation, :app_name, "foundation"))

    suffix = Base.encode16(:crypto.strong_rand_bytes(2), case: :lower)
    name = String.to_atom("#{base}_#{suffix}")
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

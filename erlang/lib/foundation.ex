defmodule Foundation do
  @moduledoc """
  Infrastructure services for Elixir applications: configuration, events, metrics, registries, circuit breakers, rate
  limits and pools.

  With clustering on (`Foundation.ClusterConfig`): `Foundation.ProcessManager`, `Foundation.ServiceMesh`, `Foundation.Channels`,
  `Foundation.HealthMonitor`, `Foundation.Distributed`.

  The application starts them; nothing has to be called first. Each has its own module: `Foundation.Config`,
  `Foundation.Events`, `Foundation.Telemetry`, `Foundation.ServiceRegistry`, `Foundation.Infrastructure`. The functions here look at
  all of them together.
  """

  alias Foundation.{
    Cluster,
    Config,
    ErrorContext,
    Events,
    HealthMonitor,
    Messaging,
    ProcessManager,
    Telemetry
  }

  alias Foundation.Types.Error

  import Kernel, except: [send: 2]

  @doc """
  Starts what is not running. `config:` is given to `Foundation.Config.initialize/1`.
  """
  @spec initialize(keyword()) :: :ok | {:error, Error.t()}
  def initialize(opts \\ []) do
    with :ok <- Config.initialize(Keyword.get(opts, :config, [])),
         :ok <- Events.initialize() do
      Telemetry.initialize()
    end
  end

  @doc """
  `%{config: _, events: _, telemetry: _}` with the status of each, or the first one's error.
  """
  @spec status() :: {:ok, map()} | {:error, Error.t()}
  def status do
    with {:ok, config} <- Config.status(),
         {:ok, events} <- Events.status(),
         {:ok, telemetry} <- Telemetry.status() do
      {:ok, %{config: config, events: events, telemetry: telemetry}}
    end
  end

  @doc """
  Whether all three services are running.
  """
  @spec available?() :: boolean()
  def available?, do: Config.available?() and Events.available?() and Telemetry.available?()

  @doc """
  The version of the library.
  """
  @spec version() :: String.t()
  def version, do: :foundation |> Application.spec(:vsn) |> to_string()

  @doc """
  `initialize/1` for supervisors' callers of 1.x: `{:ok, self()}`, there is no process of its own.
  """
  @spec start_link(keyword()) :: {:ok, pid()} | {:error, Foundation.Error.t()}
  def start_link(opts \\ []) do
    context = ErrorContext.new(__MODULE__, :start_link, metadata: %{opts: opts})

    ErrorContext.with_context(context, fn ->
      :ok = initialize(opts)
      {:ok, self()}
    end)
  end

  @doc """
  Stops the supervision tree.
  """
  @spec shutdown() :: :ok
  def shutdown do
    with pid when is_pid(pid) <- Process.whereis(Foundation.Supervisor),
         do: Supervisor.stop(pid, :normal)

    :ok
  end

  @doc """
  The status of the services with versions, and `status: :healthy | :degraded`.
  """
  @spec health() :: {:ok, map()} | {:error, Error.t()}
  def health do
    with {:ok, services} <- status() do
      running? = Enum.all?(services, fn {_name, service} -> service[:status] == :running end)

      {:ok,
       %{
         status: if(running?, do: :healthy, else: :degraded),
         timestamp: System.monotonic_time(:millisecond),
         services: services,
         foundation_available: available?(),
         elixir_version: System.version(),
         otp_release: System.otp_release()
       }}
    end
  end

  ## The cluster

  @doc """
  For a supervisor of the application: `{Foundation, cluster: :kubernetes}` turns clustering on with these settings over those of `config
  :foundation` (`Foundation.ClusterConfig`), and off when that supervisor stops it.

  With clustering on by configuration it does nothing. With Horde in the host application this library's own supervisor has the
  cluster instead, and starts anew for it: events and metrics collected before are lost. A wrong setting is logged, and clustering stays
  off.
  """
  @spec child_spec(keyword()) :: Supervisor.child_spec()
  def child_spec(opts) do
    %{
      id: __MODULE__,
      start: {Cluster, :start_child, [opts]},
      type: :supervisor,
      restart: :temporary
    }
  end

  @doc """
  Turns clustering on, with `cluster: true` unless something else is given or configured. The supervisor of the cluster, or what is wrong
  with the settings as a text.
  """
  @spec start_cluster(keyword()) :: {:ok, pid()} | {:error, String.t()}
  def start_cluster(opts \\ []) do
    opts =
      if Application.get_env(:foundation, :cluster) in [nil, false],
        do: Keyword.put_new(opts, :cluster, true),
        else: opts

    start = fn decision ->
      _ = Supervisor.delete_child(Foundation.Supervisor, Cluster)
      Supervisor.start_child(Foundation.Supervisor, {Cluster, decision})
    end

    with {:error, message} when is_binary(message) <- Cluster.start_later(opts, start) do
      {:error, message}
    else
      _started ->
        case Process.whereis(Cluster) do
          nil -> {:error, "clustering is off; the log says why"}
          pid -> {:ok, pid}
        end
    end
  end

  @doc """
  `Foundation.Messaging.send_message/2`.
  """
  @spec send(term(), term()) :: :ok | {:error, Error.t()}
  def send(service, message), do: Messaging.send_message(service, message)

  @doc """
  Starts a process under supervision: `{:ok, pid}` or an error.

  With `distribute: true` on some node of the cluster, as a singleton of `Foundation.ProcessManager` (options of `start_singleton/3`); without
  `name:` under one of its own, so that each call starts another. Else on this node.
  """
  @spec start_process(module(), [term()], keyword()) :: {:ok, pid()} | {:error, term()}
  def start_process(module, args, opts \\ []) do
    {distribute?, opts} = Keyword.pop(opts, :distribute, false)
    opts = Keyword.put_new_lazy(opts, :name, fn -> {module, make_ref()} end)

    if distribute? do
      ProcessManager.start_singleton(module, args, opts)
    else
      spec = Supervisor.child_spec({module, args}, Keyword.take(opts, [:restart]))
      DynamicSupervisor.start_child(Foundation.LocalSupervisor, spec)
    end
  end

  @doc """
  The cluster in five figures: `%{nodes: count, strategy: atom, health: status, processes: count, message_rate: "1.2k/sec"}`.

  `processes` and `message_rate` (channel messages that arrive, over ten seconds) are of the nodes that answer.
  """
  @spec cluster_info() :: %{
          nodes: pos_integer(),
          strategy: atom(),
          health: HealthMonitor.status(),
          processes: non_neg_integer(),
          message_rate: String.t()
        }
  def cluster_info do
    metrics = HealthMonitor.cluster_metrics()

    %{
      nodes: metrics.node_count,
      strategy: Cluster.strategy(),
      health: HealthMonitor.cluster_health().status,
      processes: metrics.processes,
      message_rate: rate(metrics.message_rate)
    }
  end

  defp rate(rate) when rate >= 1000, do: "#{Float.round(rate / 1000, 1)}k/sec"
  defp rate(rate), do: "#{Float.round(rate, 1)}/sec"
end

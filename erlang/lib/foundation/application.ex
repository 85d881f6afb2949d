defmodule Foundation.Application do
  @moduledoc false
  # The tree, one_for_one under Foundation.Supervisor:
  #
  #     Registry (Foundation.ProcessRegistry)
  #     ConfigServer, EventStore, TelemetryService        by name in that registry, namespace :production
  #     Infrastructure.ConnectionManager
  #     Infrastructure.RateLimiter.HammerBackend
  #     Task.Supervisor (Foundation.TaskSupervisor)
  #     DynamicSupervisor (Foundation.LocalSupervisor)    what Foundation.start_process/3 starts here
  #     Infrastructure.Fuse                               only if the host application has no :fuse
  #     Cluster                                           only with clustering on
  #
  # The registry comes first because the services register there; nothing else depends on the order, so one that dies
  # restarts alone.

  use Application
  require Logger

  @impl true
  def start(_type, _args) do
    Logger.info("Starting Foundation application...")
    # Tables that belong to the application rather than to any of its services.
    Foundation.ProcessRegistry.ensure_backup()
    Foundation.Host.Telemetry.create_table()
    Foundation.LoadBalancer.create_table()
    Foundation.BEAM.Messages.create_table()
    Foundation.Host.detect()
    with {:error, message} <- Foundation.Native.load(), do: Logger.warning(message)
    settings = Application.get_all_env(:foundation)
    for {level, line} <- Foundation.Settings.mistakes(settings), do: Logger.log(level, line)

    for line <- Foundation.ClusterConfig.Settings.not_offered(settings),
        do: Logger.warning(line)

    decision = cluster()

    Foundation.ProcessRegistry.Names.choose(
      if(decision, do: Foundation.Cluster.engine(), else: :off)
    )

    children =
      [
        Foundation.ProcessRegistry,
        {Foundation.Services.ConfigServer, namespace: :production},
        {Foundation.Services.EventStore, namespace: :production},
        {Foundation.Services.TelemetryService, namespace: :production},
        Foundation.Infrastructure.ConnectionManager,
        Foundation.Infrastructure.RateLimiter.HammerBackend,
        {Task.Supervisor, name: Foundation.TaskSupervisor},
        Supervisor.child_spec({DynamicSupervisor, name: Foundation.LocalSupervisor},
          id: Foundation.LocalSupervisor
        )
      ] ++
        own_engines() ++
        if(decision, do: [{Foundation.Cluster, decision}], else: []) ++ test_children()

    case Supervisor.start_link(children, strategy: :one_for_one, name: Foundation.Supervisor) do
      {:ok, pid} ->
        Logger.info("Foundation application started successfully")
        {:ok, pid}

      {:error, reason} ->
        Logger.error("Failed to start Foundation application: #{inspect(reason)}")
        {:error, reason}
    end
  end

  @impl true
  def stop(_state) do
    Logger.info("Stopping Foundation application...")
    :ok
  end

  defp own_engines do
    if Foundation.Host.module(:fuse), do: [], else: [Foundation.Infrastructure.Fuse]
  end

  # A wrong configuration costs the cluster, not the application.
  defp cluster do
    case Foundation.ClusterConfig.resolve() do
      {:ok, %{tier: :off}} ->
        nil

      {:ok, decision} ->
        decision

      {:error, message} ->
        Logger.error("Foundation clustering is off: #{message}")
        nil
    end
  end

  # A module of the applications' test support, as in 1.x.
  defp test_children do
    supervisor = Foundation.TestSupport.TestSupervisor

    if Foundation.Settings.get(:test_mode) and
         Code.ensure_loaded?(supervisor),
       do: [supervisor],
       else: []
  end
end

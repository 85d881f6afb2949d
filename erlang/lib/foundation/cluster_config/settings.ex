defmodule Foundation.ClusterConfig.Settings do
  @moduledoc """
  What becomes of the settings that the founding documents name: each acts, or is answered by its name.

  `answers/1` is what is logged at the start for those that do nothing, so that nobody waits for what will not come.
  """

  @type answer :: :acts | {:not_offered, String.t()}

  @always "it is always on"

  # Whole settings.
  @settings %{
    cluster: :acts,
    clusters: :acts,
    clustering: :acts,
    libcluster_topologies: :acts,
    profile: :acts,
    security: :acts,
    allow: :acts,
    app_name: :acts,
    roles: :acts,
    binary: :acts,
    discovery: :acts,
    # Flags of the drafts. What they turn on is there, with clustering or as a function that is called or not.
    config_enabled: {:when_true, @always},
    events_enabled: {:when_true, @always},
    telemetry_enabled: {:when_true, @always},
    service_registry_enabled: {:when_true, @always},
    distributed_config:
      {:when_true,
       "settings are spread by Foundation.Config.set_cluster_wide/3 and by nothing else"},
    distributed_events:
      {:when_true,
       "events are spread by Foundation.Events.emit_distributed/3 and by nothing else"},
    cluster_telemetry:
      {:when_true,
       "other nodes are asked by Foundation.Telemetry.get_cluster_metrics/1 and by nothing else"},
    service_mesh:
      {:when_true, "it is there with clustering on, and does nothing until it is used"},
    beam_primitives: {:when_true, "they are functions that are called or not"},
    process_ecosystems: {:when_true, "they are functions that are called or not"},
    message_optimization: {:when_true, "Foundation.BEAM.Messages is called or not"},
    scheduler_awareness: {:when_true, "Foundation.BEAM.Schedulers is called or not"},
    topology:
      {:not_offered,
       "BEAM nodes form the mesh that distribution forms; overlays are possible between Rust nodes"},
    partisan_overlays: {:not_offered, "Partisan is not used; see topology"},
    channels:
      {:not_offered, "the channels are :control, :events, :telemetry and :data on every node"}
  }

  @features %{
    service_discovery: :acts,
    hot_reload: :acts,
    health_checks: :acts,
    metrics: :acts,
    distributed_processes: :acts,
    partition_healing: :acts,
    multi_cluster: :acts,
    global_process_registry: :acts,
    cross_cluster_communication: :acts,
    distributed_debugging:
      {:not_offered,
       "a debugger is an application of its own; Foundation.Events collects its events"},
    development_ui:
      {:not_offered, "there are no pages; Foundation.HealthMonitor has what they would show"},
    advanced_routing: {:not_offered, "Foundation.LoadBalancer.route/3 chooses for each request"},
    cluster_federation:
      {:not_offered,
       "clusters: gives each cluster a way to be found, and one node may be in several"}
  }

  @no_setting "it is no key with a value"

  @channels %{
    control: :acts,
    events: :acts,
    telemetry: :acts,
    data: :acts,
    coordination: {:not_offered, "this channel is :control"},
    gossip: {:not_offered, "this channel is :telemetry"},
    user_data: {:not_offered, "this channel is :data"}
  }

  @doc """
  The answer for every setting of the founding documents in `settings`, by its path (`"messaging: compression:"`). Other settings are the
  application's and left alone.
  """
  @spec answers(keyword()) :: [{String.t(), answer()}]
  def answers(settings) do
    for {key, value} <- settings, answer <- answer(key, value), do: answer
  end

  @doc """
  Those that do nothing, as lines for the log.
  """
  @spec not_offered(keyword()) :: [String.t()]
  def not_offered(settings) do
    for {path, {:not_offered, why}} <- answers(settings),
        do: "config :foundation, #{path} does nothing: #{why}"
  end

  defp answer(:auto_features, features) when is_list(features) do
    for feature <- features do
      {"auto_features: #{inspect(feature)}",
       Map.get(@features, feature, {:not_offered, "there is no such feature"})}
    end
  end

  defp answer(:messaging, messaging) when is_map(messaging) or is_list(messaging) do
    Enum.flat_map(messaging, fn
      {:adapter, Phoenix.PubSub.PG2} ->
        [{"messaging: adapter:", :acts}]

      {:adapter, _other} ->
        [{"messaging: adapter:", {:not_offered, "the adapter is Phoenix.PubSub.PG2"}}]

      {:channels, channels} when is_list(channels) ->
        for channel <- channels do
          {"messaging: channels: #{inspect(channel)}",
           Map.get(@channels, channel, {:not_offered, "there is no such channel"})}
        end

      {:compression, _value} ->
        why = "it is an option of Foundation.Channels.broadcast/3, message by message"
        [{"messaging: compression:", {:not_offered, why}}]

      {key, _value} ->
        [{"messaging: #{word(key)}:", {:not_offered, "there is no such setting"}}]

      other ->
        [{"messaging: #{inspect(other)}", {:not_offered, @no_setting}}]
    end)
  end

  defp answer(:processes, processes) when is_map(processes) or is_list(processes) do
    Enum.map(processes, fn
      {:registry, Horde.Registry} ->
        {"processes: registry:", :acts}

      {:supervisor, Horde.DynamicSupervisor} ->
        {"processes: supervisor:", :acts}

      {:distribution_strategy, _value} ->
        why =
          "with Horde it is Horde's; without, the node with the greatest hash of its name and the process's has it"

        {"processes: distribution_strategy:", {:not_offered, why}}

      {key, _value} ->
        {"processes: #{word(key)}:",
         {:not_offered,
          "it is Horde's where the application has Horde, and the library's own where not"}}

      other ->
        {"processes: #{inspect(other)}", {:not_offered, @no_setting}}
    end)
  end

  defp answer(:clusters, clusters) when is_map(clusters) or is_list(clusters) do
    named =
      for {name, spec} <- clusters,
          Keyword.keyword?(spec),
          {key, _value} <- spec,
          why = of_cluster(key),
          do: {"clusters: #{word(name)}: #{key}:", {:not_offered, why}}

    [{"clusters:", :acts} | named]
  end

  defp answer(key, value) do
    case Map.fetch(@settings, key) do
      {:ok, {:when_true, why}} ->
        [{"#{key}:", if(value == true, do: :acts, else: {:not_offered, why})}]

      {:ok, answer} ->
        [{"#{key}:", answer}]

      :error ->
        []
    end
  end

  defp word(key) when is_atom(key), do: Atom.to_string(key)
  defp word(key), do: inspect(key)

  defp of_cluster(:nodes), do: "how many nodes there are is up to whoever starts them"

  defp of_cluster(:processes),
    do: "which node runs what is said by config :foundation, roles: on each node"

  defp of_cluster(_key), do: nil
end

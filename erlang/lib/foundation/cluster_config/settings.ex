defmodule Foundation.ClusterConfig.Settings do
  @moduledoc """
  What becomes of the settings that the founding documents name: each acts, or is answered by its name.

  `answers/1` is what is logged at the start for those that do nothing, so that nobody waits for what will not come.
  """

  alias Foundation.Settings.Type

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

  defp answer(:auto_features, features),
    do: each_of("auto_features:", features, @features, "there is no such feature")

  defp answer(:messaging, messaging) do
    of_pairs("messaging:", messaging, fn
      {:adapter, Phoenix.PubSub.PG2} ->
        [{"messaging: adapter:", :acts}]

      {:adapter, _other} ->
        [{"messaging: adapter:", {:not_offered, "the adapter is Phoenix.PubSub.PG2"}}]

      {:channels, channels} ->
        each_of("messaging: channels:", channels, @channels, "there is no such channel")

      {:compression, _value} ->
        why = "it is an option of Foundation.Channels.broadcast/3, message by message"
        [{"messaging: compression:", {:not_offered, why}}]

      {key, _value} ->
        [{"messaging: #{Type.word(key)}", {:not_offered, "there is no such setting"}}]
    end)
  end

  defp answer(:processes, processes) do
    of_pairs("processes:", processes, fn
      {:registry, Horde.Registry} ->
        [{"processes: registry:", :acts}]

      {:supervisor, Horde.DynamicSupervisor} ->
        [{"processes: supervisor:", :acts}]

      {:distribution_strategy, _value} ->
        why =
          "with Horde it is Horde's; without, the node with the greatest hash of its name and the process's has it"

        [{"processes: distribution_strategy:", {:not_offered, why}}]

      {key, _value} ->
        why = "it is Horde's where the application has Horde, and the library's own where not"
        [{"processes: #{Type.word(key)}", {:not_offered, why}}]
    end)
  end

  # What is wrong in it is an error of `Foundation.ClusterConfig`.
  defp answer(:clusters, clusters) do
    pairs = with :error <- Type.pairs(clusters), do: {:ok, []}

    named =
      for {name, spec} <- elem(pairs, 1),
          Keyword.keyword?(spec),
          {key, _value} <- spec,
          why = of_cluster(key),
          do: {"clusters: #{Type.word(name)} #{key}:", {:not_offered, why}}

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

  # Of a list of words, what is known of each.
  defp each_of(path, words, known, unknown) do
    if Type.right?({:list, :any}, words) do
      for word <- words,
          do: {"#{path} #{Type.show(word)}", Map.get(known, word, {:not_offered, unknown})}
    else
      wrong(path, words, {:list, :atom})
    end
  end

  defp of_pairs(path, value, answer) do
    case Type.pairs(value) do
      {:ok, pairs} -> Enum.flat_map(pairs, answer)
      :error -> wrong(path, value, {:section, %{keys: %{}}})
    end
  end

  defp wrong(path, value, type) do
    why = "it is #{Type.show(value)}; it may be #{Type.describe(type)}"
    [{path, {:not_offered, why}}]
  end

  defp of_cluster(:nodes), do: "how many nodes there are is up to whoever starts them"

  defp of_cluster(:processes),
    do: "which node runs what is said by config :foundation, roles: on each node"

  defp of_cluster(_key), do: nil
end

defmodule Foundation.Settings do
  @moduledoc """
  What `config :foundation` may have, and what becomes of what it may not: nothing in it ends the application.

  A value of the wrong type is an error in the log that names the key, what it is and what it may be; the default is used instead. In the
  sections of 1.x that holds for each key of a section; a key that is not known there is a warning, and is kept as in 1.x. A wrong setting of
  the cluster costs the cluster (`Foundation.ClusterConfig`). Keys that are not listed are the application's own and left alone, but for a
  warning if one looks like a listed one that is not given.

  | key | type | default |
  |---|---|---|
  | `ai`, `capture`, `storage`, `interface`, `dev`, `infrastructure` | keyword list or map | `Foundation.Types.Config` |
  | `app_namespaces` | atoms | none |
  | `test_mode`, `debug_registry` | boolean | `false` |
  | `cluster`, `clusters`, `clustering`, `libcluster_topologies`, `profile`, `security` | see `Foundation.ClusterConfig` | |
  | `app_name` | string or atom | none |
  | `allow` | a string or a list of strings, see `Foundation.Cluster.Companion` | `[]` |
  | `discovery` | `:companion` | libcluster before the companion |
  | `binary` | path of the companion | see `Foundation.Cluster.Companion` |
  | `build_companion` | boolean | `false` |
  | `roles` | what this node is, see `Foundation.Cluster.nodes/1` | `[]` |
  | `local_namespaces` | namespaces whose names belong to each node | `[]` |
  | `health_check_interval`, `health_check_timeout` | milliseconds | 10000, 5000 |
  | `reload_interval` | milliseconds, see `Foundation.Development.Reloader` | 1000 |
  | `horde` | keyword list, see `Foundation.Optimizer` | `[]` |
  | `native`, `use_host_libraries` | boolean | `true` |
  | `test_cluster` | options for `Foundation.TestCluster` | `[]` |

  Settings of the founding documents are in `Foundation.ClusterConfig.Settings`.
  """

  alias Foundation.Settings.Type

  @typedoc "For the log."
  @type mistake :: {:error | :warning, String.t()}

  @positive {:integer, :above, 0}
  @one {:either, [:string, :atom, :charlist]}
  @limits %{scale: @positive, limit: @positive}

  # What Foundation.Validation.ConfigValidator checks.
  @sections %{
    ai: %{
      provider: {:one_of, [:mock, :openai, :anthropic, :gemini]},
      api_key: :any,
      model: :any,
      analysis:
        {:section, %{keys: %{max_file_size: @positive, timeout: @positive, cache_ttl: @positive}}},
      planning:
        {:section,
         %{
           keys: %{
             default_strategy: {:one_of, [:fast, :balanced, :thorough]},
             performance_target: {:number, 0, :infinity},
             sampling_rate: {:number, 0, 1}
           }
         }}
    },
    capture: %{
      ring_buffer:
        {:section,
         %{
           keys: %{
             size: @positive,
             max_events: @positive,
             overflow_strategy: {:one_of, [:drop_oldest, :drop_newest, :block]},
             num_buffers: :any
           }
         }},
      processing:
        {:section,
         %{keys: %{batch_size: @positive, flush_interval: @positive, max_queue_size: @positive}}},
      vm_tracing:
        {:section,
         %{
           keys: %{
             enable_spawn_trace: :boolean,
             enable_exit_trace: :boolean,
             enable_message_trace: :boolean,
             trace_children: :boolean
           }
         }}
    },
    storage: %{
      hot:
        {:section,
         %{
           keys: %{max_events: @positive, max_age_seconds: @positive, prune_interval: @positive}
         }},
      warm:
        {:section,
         %{
           switch: :enable,
           keys: %{
             enable: :boolean,
             path: :string,
             max_size_mb: @positive,
             compression: {:one_of, [:none, :gzip, :zstd]}
           }
         }},
      # There is no cold storage in 1.x, which refuses to have it turned on.
      cold: {:section, %{keys: %{enable: {:one_of, [false]}}}}
    },
    interface: %{query_timeout: @positive, max_results: @positive, enable_streaming: :boolean},
    dev: %{debug_mode: :boolean, verbose_logging: :boolean, performance_monitoring: :boolean},
    infrastructure: %{
      rate_limiting:
        {:section,
         %{
           keys: %{
             default_rules:
               {:section,
                %{
                  keys: %{
                    api_calls: {:section, %{keys: @limits}},
                    db_queries: {:section, %{keys: @limits}},
                    file_operations: {:section, %{keys: @limits}}
                  },
                  other: {:map, @limits}
                }},
             enabled: :boolean,
             cleanup_interval: @positive
           }
         }},
      circuit_breaker:
        {:section,
         %{
           keys: %{
             default_config:
               {:section,
                %{
                  keys: %{
                    failure_threshold: @positive,
                    recovery_time: @positive,
                    call_timeout: @positive
                  }
                }},
             enabled: :boolean
           }
         }},
      connection_pool:
        {:section,
         %{
           keys: %{
             default_config:
               {:section,
                %{
                  keys: %{
                    size: @positive,
                    max_overflow: {:integer, :above, -1},
                    strategy: {:one_of, [:lifo, :fifo]}
                  }
                }},
             enabled: :boolean
           }
         }}
    }
  }

  # Type and default.
  @settings %{
    app_namespaces: {{:such_as, :terms, [:my_app]}, []},
    test_mode: {:boolean, false},
    debug_registry: {:boolean, false},
    allow: {{:either, [@one, {:list, @one}]}, []},
    discovery: {{:one_of, [:companion]}, nil},
    binary: {{:either, [:string, :charlist]}, nil},
    build_companion: {:boolean, false},
    app_name: {{:either, [:string, :atom]}, nil},
    roles: {:terms, []},
    local_namespaces: {:terms, []},
    health_check_interval: {:milliseconds, 10_000},
    health_check_timeout: {:milliseconds, 5_000},
    reload_interval: {:milliseconds, 1_000},
    horde: {{:section, %{keys: %{sync_interval: :milliseconds}, other: :any}}, []},
    native: {:boolean, true},
    use_host_libraries: {:boolean, true},
    test_cluster: {:keyword, []}
  }

  # Those that say themselves what is wrong.
  @elsewhere [:cluster, :clusters, :clustering, :libcluster_topologies, :profile, :security] ++
               [:auto_features, :messaging, :processes]

  @doc false
  # Of this node: what is configured if that is right, else the default. `nil` is as if it were not given.
  @spec get(atom()) :: term()
  def get(key) do
    {type, default} = Map.fetch!(@settings, key)

    case Application.get_env(:foundation, key) do
      nil -> default
      value -> if Type.right?(type, value), do: value, else: default
    end
  end

  @doc """
  Everything that is wrong in an application's environment, in the order of the keys, but for what the cluster's settings say themselves.
  """
  @spec mistakes(keyword()) :: [mistake()]
  def mistakes(env) do
    {_sections, in_sections} = sections(env)

    others =
      for {key, value} <- Enum.sort(env), value != nil, mistake <- of_key(key, value, env) do
        mistake
      end

    in_sections ++ others
  end

  defp of_key(key, value, env) do
    declared = namespaces(env)

    cond do
      is_map_key(@settings, key) -> wrong(key, value)
      key in declared -> of_namespace(key, value)
      is_map_key(@sections, key) or key in @elsewhere -> []
      true -> misspelt(key, env)
    end
  end

  defp wrong(key, value) do
    {type, default} = Map.fetch!(@settings, key)

    instead = if default == nil, do: "it is ignored", else: "#{inspect(default)} is used"

    for {level, line} <- elem(Type.take(type, value, path(key)), 1),
        do: {level, "#{line}; #{instead}"}
  end

  # The namespaces that the application declares.
  defp namespaces(env) do
    declared = env[:app_namespaces]
    if Type.right?(:terms, declared), do: List.wrap(declared), else: []
  end

  defp of_namespace(key, value) do
    type = {:section, %{keys: %{}, other: :any}}

    if value == [] or Keyword.keyword?(value) or is_map(value),
      do: [],
      else: [Type.wrong(path(key), value, type)]
  end

  # Only what is not there under its right name: the application may well have keys of its own.
  defp misspelt(key, env) do
    known = Map.keys(@settings) ++ Map.keys(@sections) ++ @elsewhere

    case Type.similar(key, known -- Keyword.keys(env)) do
      nil ->
        []

      likely ->
        [
          {:warning,
           "config :foundation, #{Type.word(key)} is not read by this library; did you mean #{likely}:?"}
        ]
    end
  end

  @doc false
  # The sections of 1.x in an application's environment without what is wrong in them, and what is.
  @spec sections(keyword()) :: {keyword(map()), [mistake()]}
  def sections(env) do
    {kept, mistakes} =
      for {key, keys} <- Enum.sort(@sections), Keyword.has_key?(env, key) do
        {taken, mistakes} = Type.take({:section, %{keys: keys}}, env[key], path(key))
        {{key, taken}, mistakes}
      end
      |> Enum.unzip()

    {for({key, {:ok, section}} <- kept, do: {key, section}), Enum.concat(mistakes)}
  end

  defp path(key), do: "config :foundation, #{Type.word(key)}"
end

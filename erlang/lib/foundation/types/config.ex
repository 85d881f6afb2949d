defmodule Foundation.Types.Config do
  @moduledoc """
  The configuration, as plain data: six sections, each a nested map with a default for every key.

  Implements `Access`, so that `config[:ai][:provider]` and `put_in(config, path, value)` work. What may be changed while
  running is `Foundation.Config.updatable_paths/0`.
  """

  @behaviour Access

  defstruct ai: %{
              provider: :mock,
              api_key: nil,
              model: "gpt-4",
              analysis: %{max_file_size: 1_000_000, timeout: 30_000, cache_ttl: 3600},
              planning: %{
                default_strategy: :balanced,
                performance_target: 0.01,
                sampling_rate: 1.0
              }
            },
            capture: %{
              ring_buffer: %{
                size: 1024,
                max_events: 1000,
                overflow_strategy: :drop_oldest,
                num_buffers: :schedulers
              },
              processing: %{batch_size: 100, flush_interval: 50, max_queue_size: 1000},
              vm_tracing: %{
                enable_spawn_trace: true,
                enable_exit_trace: true,
                enable_message_trace: false,
                trace_children: true
              }
            },
            storage: %{
              hot: %{max_events: 100_000, max_age_seconds: 3600, prune_interval: 60_000},
              warm: %{
                enable: false,
                path: "./foundation_data",
                max_size_mb: 100,
                compression: :zstd
              },
              cold: %{enable: false}
            },
            interface: %{query_timeout: 10_000, max_results: 1000, enable_streaming: true},
            dev: %{debug_mode: false, verbose_logging: false, performance_monitoring: true},
            infrastructure: %{
              rate_limiting: %{
                default_rules: %{
                  api_calls: %{scale: 60_000, limit: 100},
                  db_queries: %{scale: 60_000, limit: 500},
                  file_operations: %{scale: 1_000, limit: 10}
                },
                enabled: true,
                cleanup_interval: 300_000
              },
              circuit_breaker: %{
                default_config: %{
                  failure_threshold: 5,
                  recovery_time: 30_000,
                  call_timeout: 5_000
                },
                enabled: true
              },
              connection_pool: %{
                default_config: %{size: 10, max_overflow: 5, strategy: :lifo},
                enabled: true
              }
            }

  @typedoc "Times are milliseconds unless the key says seconds; sizes are bytes unless the key says otherwise."
  @type t :: %__MODULE__{
          ai: map(),
          capture: map(),
          storage: map(),
          interface: map(),
          dev: map(),
          infrastructure: map()
        }

  @impl Access
  @spec fetch(t(), atom()) :: {:ok, term()} | :error
  def fetch(%__MODULE__{} = config, key), do: config |> Map.from_struct() |> Map.fetch(key)

  @impl Access
  @spec get_and_update(t(), atom(), (term() -> {term(), term()} | :pop)) :: {term(), t()}
  def get_and_update(%__MODULE__{} = config, key, fun) do
    {value, sections} = config |> Map.from_struct() |> Map.get_and_update(key, fun)
    {value, struct(__MODULE__, sections)}
  end

  @doc """
  Takes a section out; the configuration that is left has that section's default.
  """
  @impl Access
  @spec pop(t(), atom()) :: {term(), t()}
  def pop(%__MODULE__{} = config, key) do
    {value, sections} = config |> Map.from_struct() |> Map.pop(key)
    {value, struct(__MODULE__, sections)}
  end

  @doc """
  The defaults.
  """
  @spec new() :: t()
  def new, do: %__MODULE__{}

  @doc """
  The defaults with `overrides` merged in, maps deeply.

      iex> Foundation.Types.Config.new(dev: %{debug_mode: true}).dev.debug_mode
      true
  """
  @spec new(keyword()) :: t()
  def new(overrides) do
    Enum.reduce(overrides, new(), fn {key, value}, config ->
      Map.put(config, key, merge(Map.get(config, key), value))
    end)
  end

  defp merge(%{} = left, %{} = right),
    do: Map.merge(left, right, fn _key, l, r -> merge(l, r) end)

  defp merge(_left, right), do: right
end

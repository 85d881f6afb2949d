defmodule Foundation.Telemetry do
  @moduledoc """
  Emitting and reading metrics.

  Event names are lists of atoms. Emitting never fails and never waits: without the service it does nothing. Every event is
  also a `:telemetry` event of the same name, executed by the service's process
  (see `Foundation.Services.TelemetryService`).
  """

  alias Foundation.Services.TelemetryService
  alias Foundation.Types.Error

  @type event_name :: [atom()]
  @type measurements :: map()
  @type metadata :: map()
  @type metric_value :: number()

  @doc """
  Starts the service unless it runs.
  """
  @spec initialize() :: :ok | {:error, Error.t()}
  defdelegate initialize(), to: TelemetryService

  @doc """
  `%{status: :running, metrics_count: _, handlers_count: _, config: _}`.
  """
  @spec status() :: {:ok, map()} | {:error, Error.t()}
  defdelegate status(), to: TelemetryService

  @doc """
  Whether the service is running.
  """
  @spec available?() :: boolean()
  defdelegate available?(), to: TelemetryService

  @doc """
  Emits an event with any measurements.
  """
  @spec execute(event_name(), measurements(), metadata()) :: :ok
  defdelegate execute(event_name, measurements, metadata), to: TelemetryService

  @doc """
  Runs a function and emits how long it took; see `Foundation.Services.TelemetryService.measure/3`.
  """
  @spec measure(event_name(), metadata(), Foundation.Types.work(result)) :: result
        when result: var
  defdelegate measure(event_name, metadata, fun), to: TelemetryService

  @doc """
  Adds one to a counter.
  """
  @spec emit_counter(event_name(), metadata()) :: :ok
  defdelegate emit_counter(event_name, metadata), to: TelemetryService

  @doc """
  Sets a gauge.
  """
  @spec emit_gauge(event_name(), metric_value(), metadata()) :: :ok
  defdelegate emit_gauge(event_name, value, metadata), to: TelemetryService

  @doc """
  Records a value of a distribution. Raises `ArgumentError` on arguments of other types.
  """
  @spec emit_histogram(event_name(), metric_value(), metadata()) :: :ok
  defdelegate emit_histogram(event_name, value, metadata \\ %{}), to: TelemetryService

  @doc """
  All metrics, nested by the segments of their names, with `retrieved_at`. Under `foundation` are also the plain counts
  `events_stored`, `config_updates` and `config_resets`.
  """
  @spec get_metrics() :: {:ok, map()} | {:error, Error.t()}
  defdelegate get_metrics(), to: TelemetryService

  @doc """
  The metrics whose names begin with a prefix: a flat map by name.
  """
  @spec get_metrics_for(event_name()) :: {:ok, %{event_name() => map()}} | {:error, Error.t()}
  def get_metrics_for(prefix) when is_list(prefix) do
    with {:ok, metrics} <- TelemetryService.list_metrics() do
      {:ok, Map.filter(metrics, fn {name, _metric} -> List.starts_with?(name, prefix) end)}
    end
  end

  @doc """
  The metrics of all nodes, nested as in `get_metrics/0`.

  Options: `aggregation`, `:sum` (default) or `:average` over the nodes that have the metric, for its measurements; counts are always
  added up. `time_window`, `:last_hour` or `:last_24_hours`, leaves out metrics without an event since; the measurements of the
  others are those since they began. `timeout`, 5000 ms.

  Under `:cluster` is `%{nodes: _, unknown: _}`: who was counted, and which connected nodes gave no figures.
  """
  @spec get_cluster_metrics(keyword()) :: {:ok, map()} | {:error, Error.t()}
  def get_cluster_metrics(opts \\ []) do
    aggregation = Keyword.get(opts, :aggregation, :sum)
    window = window(opts[:time_window])
    nodes = [node() | Node.list()]

    answers =
      nodes
      |> :erpc.multicall(
        TelemetryService,
        :list_metrics,
        [window],
        Keyword.get(opts, :timeout, 5000)
      )
      |> then(&Enum.zip(nodes, &1))

    case List.first(answers) do
      {_this_node, {:ok, {:error, error}}} ->
        {:error, error}

      _running ->
        figures = for {node, {:ok, {:ok, %{} = metrics}}} <- answers, do: {node, metrics}
        counted = Enum.map(figures, &elem(&1, 0))

        {:ok,
         figures
         |> Enum.flat_map(&Map.to_list(elem(&1, 1)))
         |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
         |> Map.new(fn {name, metrics} -> {name, aggregate(metrics, aggregation)} end)
         |> TelemetryService.nest()
         |> Map.merge(%{
           retrieved_at: System.monotonic_time(),
           cluster: %{nodes: counted, unknown: nodes -- counted}
         })}
    end
  end

  defp window(nil), do: :infinity
  defp window(:last_hour), do: 3_600_000
  defp window(:last_24_hours), do: 86_400_000

  defp aggregate(metrics, aggregation) when aggregation in [:sum, :average] do
    measurements =
      metrics
      |> Enum.flat_map(&Map.to_list(&1.measurements))
      |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
      |> Map.new(fn {key, values} -> {key, combine(values, aggregation)} end)

    %{
      count: metrics |> Enum.map(& &1.count) |> Enum.sum(),
      measurements: measurements,
      nodes: length(metrics)
    }
  end

  defp combine(values, aggregation) do
    cond do
      not Enum.all?(values, &is_number/1) -> List.last(values)
      aggregation == :sum -> Enum.sum(values)
      aggregation == :average -> Enum.sum(values) / length(values)
    end
  end

  @doc """
  Logs the given events at debug level from now on.
  """
  @spec attach_handlers([event_name()]) :: :ok | {:error, Error.t()}
  defdelegate attach_handlers(event_names), to: TelemetryService

  @doc """
  Undoes `attach_handlers/1`.
  """
  @spec detach_handlers([event_name()]) :: :ok
  defdelegate detach_handlers(event_names), to: TelemetryService

  @doc """
  `measure/3` as `[:foundation, :function, :execution]` with module and function as metadata.
  """
  @spec time_function(module(), atom(), Foundation.Types.work(result)) :: result when result: var
  def time_function(module, function, fun) when is_atom(module) and is_atom(function) do
    measure([:foundation, :function, :execution], %{module: module, function: function}, fun)
  end

  @doc """
  Sets the gauge `[:foundation, :performance, metric_name]`.
  """
  @spec emit_performance(atom(), metric_value(), metadata()) :: :ok
  def emit_performance(metric_name, value, metadata \\ %{}) when is_atom(metric_name) do
    emit_gauge([:foundation, :performance, metric_name], value, metadata)
  end

  @doc """
  Adds one to the counter `[:foundation, :system, event_type]`.
  """
  @spec emit_system_event(atom(), metadata()) :: :ok
  def emit_system_event(event_type, metadata \\ %{}) when is_atom(event_type) do
    emit_counter([:foundation, :system, event_type], metadata)
  end
end

defmodule Foundation.Services.TelemetryService do
  @moduledoc """
  The process that collects metrics. `Foundation.Telemetry` is its public face.

  Each event is recorded here, given to the handlers attached here, and then executed as a `:telemetry` event; all three in
  this process, in the order in which the events were emitted. Emitting is a cast and does nothing when the service is
  down.

  A metric is `%{count: _, measurements: _, metadata: _, timestamp: _}`: the metadata of its first event, the native monotonic
  time of its last, and measurements merged: `:counter` is added up, `:gauge` replaced, any other number averaged with what
  was there. Metrics without an event for `metric_retention_ms` are dropped every `cleanup_interval` milliseconds.

  Options of `start_link/1`, with their defaults: `namespace` (`:production`), `enable_vm_metrics` (true),
  `enable_process_metrics` (true), `metric_retention_ms` (300,000), `cleanup_interval` (60,000).
  """

  use GenServer

  alias Foundation.Contracts.Telemetry
  alias Foundation.Host
  alias Foundation.Services.Lifecycle
  alias Foundation.Types.Error
  require Logger

  @behaviour Telemetry

  @defaults %{
    enable_vm_metrics: true,
    enable_process_metrics: true,
    metric_retention_ms: 300_000,
    cleanup_interval: 60_000
  }

  @vm_gauges [[:vm, :memory], [:vm, :total_run_queue_lengths], [:vm, :system_counts]]

  # Shown in get_metrics/0 as plain counts under :foundation.
  @counts [
    [:foundation, :event_store, :events_stored],
    [:foundation, :config_updates],
    [:foundation, :config_resets],
    [:foundation, :config_operations]
  ]

  ## Emitting

  @impl Telemetry
  @spec execute([atom()], map(), map()) :: :ok
  def execute(event_name, measurements, metadata) when is_list(event_name) do
    case lookup() do
      {:ok, pid} -> GenServer.cast(pid, {:execute_event, event_name, measurements, metadata})
      {:error, _not_found} -> :ok
    end
  end

  @doc """
  Runs the function and executes `event_name ++ [:stop]`, or `[:exception]` with `error` in the metadata, with
  `%{duration: native}`. An exception is raised again.
  """
  @impl Telemetry
  @spec measure([atom()], map(), Foundation.Types.work(result)) :: result when result: term()
  def measure(event_name, metadata, fun) when is_list(event_name) and is_function(fun, 0) do
    start = System.monotonic_time()

    try do
      fun.()
    rescue
      exception ->
        duration = System.monotonic_time() - start
        metadata = Map.put(metadata, :error, exception)
        execute(event_name ++ [:exception], %{duration: duration}, metadata)
        reraise exception, __STACKTRACE__
    else
      result ->
        execute(event_name ++ [:stop], %{duration: System.monotonic_time() - start}, metadata)
        result
    end
  end

  @impl Telemetry
  @spec emit_counter([atom()], map()) :: :ok
  def emit_counter(event_name, metadata) when is_list(event_name),
    do: execute(event_name, %{counter: 1}, metadata)

  @doc """
  Adds a number to a counter.
  """
  @spec emit_counter([atom()], number(), map()) :: :ok
  def emit_counter(event_name, value, metadata) when is_list(event_name) and is_number(value),
    do: execute(event_name, %{counter: value}, metadata)

  @impl Telemetry
  @spec emit_gauge([atom()], number(), map()) :: :ok
  def emit_gauge(event_name, value, metadata) when is_list(event_name) and is_number(value),
    do: execute(event_name, %{gauge: value}, metadata)

  @doc """
  Records a value. Raises `ArgumentError` with what is wrong if an argument has another type.
  """
  @impl Telemetry
  @spec emit_histogram([atom(), ...], number(), map()) :: :ok
  def emit_histogram(event_name, value, metadata \\ %{}) do
    cond do
      event_name == [] ->
        raise ArgumentError, "Event name cannot be empty"

      not (is_list(event_name) and Enum.all?(event_name, &is_atom/1)) ->
        raise ArgumentError, "Event name must be a list of atoms, got: #{inspect(event_name)}"

      not is_number(value) ->
        raise ArgumentError, "Value must be a number, got: #{inspect(value)}"

      not is_map(metadata) ->
        raise ArgumentError, "Metadata must be a map, got: #{inspect(metadata)}"

      true ->
        execute(event_name, %{histogram: value}, metadata)
    end
  end

  ## The service

  @impl Telemetry
  @spec get_metrics() :: {:ok, map()} | {:error, Error.t()}
  def get_metrics, do: call(:get_metrics)

  @doc """
  The metrics as they are recorded: a flat map by event name.
  """
  @spec list_metrics() :: {:ok, %{[atom()] => map()}} | {:error, Error.t()}
  def list_metrics, do: call(:list_metrics)

  @doc """
  The same for the metrics that had an event within the last `window_ms`, without their timestamps: other nodes have another clock.
  """
  @spec list_metrics(pos_integer() | :infinity) ::
          {:ok, %{[atom()] => map()}} | {:error, Error.t()}
  def list_metrics(window_ms) do
    with {:ok, metrics} <- list_metrics() do
      now = System.monotonic_time(:millisecond)

      recent =
        for {name, metric} <- metrics,
            age = now - System.convert_time_unit(metric.timestamp, :native, :millisecond),
            window_ms == :infinity or age <= window_ms,
            into: %{},
            do: {name, Map.take(metric, [:count, :measurements])}

      {:ok, recent}
    end
  end

  @doc """
  A flat map of metrics nested by the segments of their names, as `get_metrics/0` gives them.
  """
  @spec nest(%{[atom()] => map()}) :: map()
  def nest(metrics) do
    Enum.reduce(metrics, %{}, fn
      {[_ | _] = name, metric}, nested when name in @counts ->
        put(nested, [:foundation, List.last(name)], metric.count)

      {[_ | _] = name, metric}, nested ->
        put(nested, name, metric)

      {_empty, _metric}, nested ->
        nested
    end)
  end

  @impl Telemetry
  @spec attach_handlers([[atom()]]) :: :ok | {:error, Error.t()}
  def attach_handlers(event_names) when is_list(event_names),
    do: call({:attach_handlers, event_names})

  @impl Telemetry
  @spec detach_handlers([[atom()]]) :: :ok
  def detach_handlers(event_names) when is_list(event_names) do
    with {:ok, pid} <- lookup(), do: GenServer.cast(pid, {:detach_handlers, event_names})
    :ok
  end

  @impl Telemetry
  @spec available?() :: boolean()
  def available?, do: Lifecycle.available?(:telemetry_service)

  @impl Telemetry
  @spec initialize() :: :ok | {:error, Error.t()}
  def initialize, do: initialize([])

  @doc """
  Starts the service unless it runs.
  """
  @spec initialize(keyword()) :: :ok | {:error, Error.t()}
  def initialize(opts) do
    namespace = Keyword.get(opts, :namespace, :production)

    Lifecycle.initialize(__MODULE__, {namespace, :telemetry_service}, opts, fn reason ->
      {:error,
       Error.new(
         error_type: :service_initialization_failed,
         message: "Failed to initialize telemetry service",
         context: %{reason: reason},
         category: :system,
         subcategory: :startup,
         severity: :high
       )}
    end)
  end

  @impl Telemetry
  @spec status() :: {:ok, map()} | {:error, Error.t()}
  def status, do: call(:get_status)

  @doc """
  Drops all metrics.
  """
  @spec reset_metrics() :: :ok | {:error, Error.t()}
  def reset_metrics, do: call(:clear_metrics)

  @doc """
  Drops metrics, handlers and settings. Only with `config :foundation, test_mode: true`, else an error
  `:operation_forbidden`, code 7002.
  """
  @spec reset_state() :: :ok | {:error, Error.t()}
  def reset_state, do: Lifecycle.in_test_mode(7002, fn -> call(:reset_state) end)

  @doc """
  Starts the server under `:telemetry_service` of the option `namespace`.
  """
  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(opts \\ []), do: Lifecycle.start_link(__MODULE__, :telemetry_service, opts)

  @doc """
  Stops the server of `:production`.
  """
  @spec stop() :: :ok
  def stop, do: Lifecycle.stop(:telemetry_service)

  defp lookup, do: Lifecycle.lookup(:telemetry_service)

  defp call(request) do
    Lifecycle.call(:telemetry_service, request, fn ->
      {:error,
       Error.new(
         error_type: :service_unavailable,
         message: "Telemetry service not started",
         category: :system,
         subcategory: :initialization,
         severity: :medium
       )}
    end)
  end

  ## Callbacks

  @impl GenServer
  def init(opts) do
    config = Map.merge(@defaults, Map.new(opts))
    namespace = Keyword.get(opts, :namespace, :production)
    schedule_cleanup(config)

    # Their value is constant; that they come at all says that the service has started.
    if config.enable_vm_metrics do
      for name <- @vm_gauges, do: emit_gauge(name, 1, %{source: :vm})
    end

    Logger.info("Telemetry service initialized successfully in namespace #{inspect(namespace)}")
    {:ok, %{metrics: %{}, handlers: %{}, config: config, namespace: namespace}}
  end

  @impl GenServer
  def handle_cast({:execute_event, event_name, measurements, metadata}, state) do
    state = record(state, event_name, measurements, metadata)
    handle(state.handlers, event_name, measurements, metadata)
    Host.Telemetry.execute(event_name, measurements, metadata)
    {:noreply, state}
  end

  def handle_cast({:detach_handlers, event_names}, state) do
    {:noreply, %{state | handlers: Map.drop(state.handlers, event_names)}}
  end

  @impl GenServer
  def handle_call(:get_metrics, _from, state) do
    {:reply, {:ok, state.metrics |> nest() |> Map.put(:retrieved_at, System.monotonic_time())},
     state}
  end

  def handle_call(:list_metrics, _from, state), do: {:reply, {:ok, state.metrics}, state}

  def handle_call(:get_status, _from, state) do
    {:reply,
     {:ok,
      %{
        status: :running,
        metrics_count: map_size(state.metrics),
        handlers_count: map_size(state.handlers),
        config: state.config
      }}, state}
  end

  def handle_call(:clear_metrics, _from, state), do: {:reply, :ok, %{state | metrics: %{}}}

  def handle_call(:reset_state, _from, state) do
    {:reply, :ok, %{state | metrics: %{}, handlers: %{}, config: @defaults}}
  end

  def handle_call({:attach_handlers, event_names}, _from, state) do
    handlers = Enum.reduce(event_names, state.handlers, &Map.put(&2, &1, log_handler()))
    {:reply, :ok, %{state | handlers: handlers}}
  end

  @impl GenServer
  def handle_info(:cleanup_old_metrics, state) do
    retention = System.convert_time_unit(state.config.metric_retention_ms, :millisecond, :native)
    oldest = System.monotonic_time() - retention
    metrics = Map.filter(state.metrics, fn {_name, metric} -> metric.timestamp > oldest end)
    schedule_cleanup(state.config)
    {:noreply, %{state | metrics: metrics}}
  end

  def handle_info(message, state) do
    Logger.debug("Unexpected message in TelemetryService: #{inspect(message)}")
    {:noreply, state}
  end

  defp schedule_cleanup(config) do
    Process.send_after(self(), :cleanup_old_metrics, config.cleanup_interval)
  end

  defp log_handler do
    fn event_name, measurements, metadata ->
      Logger.debug("Telemetry event: #{inspect(event_name)}",
        measurements: measurements,
        metadata: metadata
      )
    end
  end

  defp handle(handlers, event_name, measurements, metadata) do
    with %{^event_name => handler} <- handlers, do: handler.(event_name, measurements, metadata)
  rescue
    exception -> Logger.warning("Telemetry handler failed: #{inspect(exception)}")
  end

  defp record(state, event_name, measurements, metadata) do
    now = System.monotonic_time()

    metric =
      case state.metrics do
        %{^event_name => metric} ->
          %{
            metric
            | timestamp: now,
              measurements: Map.merge(metric.measurements, measurements, &merge/3),
              count: metric.count + 1
          }

        _first ->
          %{timestamp: now, measurements: measurements, metadata: metadata, count: 1}
      end

    %{state | metrics: Map.put(state.metrics, event_name, metric)}
  end

  defp merge(:gauge, _old, new), do: new
  defp merge(:counter, old, new) when is_number(old) and is_number(new), do: old + new
  defp merge(_key, old, new) when is_number(old) and is_number(new), do: (old + new) / 2
  defp merge(_key, _old, new), do: new

  # A name may continue another; the shorter one's metric then has the longer one's segment as a further key.
  defp put(%{} = nested, [segment], value) do
    case {nested, value} do
      {%{^segment => %{} = inner}, %{}} -> Map.put(nested, segment, Map.merge(inner, value))
      _free_or_count -> Map.put(nested, segment, value)
    end
  end

  defp put(%{} = nested, [segment | rest], value) do
    inner =
      case nested do
        %{^segment => %{} = inner} -> inner
        _free_or_count -> %{}
      end

    Map.put(nested, segment, put(inner, rest, value))
  end
end

defmodule Foundation.Services.EventStore do
  @moduledoc """
  The process that stores events, in memory. `Foundation.Events` is its public face.

  Events are in a table by id. A second table finds the events of a correlation id; it is brought up to date when it
  is asked for, so that storing costs nothing more. Reads of `:production` by id or correlation id go to the tables from
  the calling process, without a message to the server. Nothing is removed but by `prune_before/1`.

  Calls it answers, in any namespace: `{:store_event, event}`, `{:store_batch, events}`, `{:get_event, id}`,
  `{:query_events, map}`, `{:get_by_correlation, id}`, `{:prune_before, timestamp}`, `:get_stats`, `:get_status`, `:reset_state`. Any
  other call is logged and answered with an error `:operation_not_supported`, code 4001.
  """

  use GenServer

  alias Foundation.Contracts.EventStore, as: Contract
  alias Foundation.{ProcessRegistry, ServiceRegistry}
  alias Foundation.Services.TelemetryService
  alias Foundation.Types.{Error, Event}
  alias Foundation.Validation.EventValidator
  require Logger

  @behaviour Contract

  @unavailable "Event store not available"
  # What 1.x says of one event: 600 to 713 bytes of event and its place in the tables.
  @bytes_per_event 1000
  # Keeps the list on the server's heap short; each entry is about 100 bytes.
  @max_pending 4096

  ## Contract

  @doc """
  Stores an event, or the one of `{:ok, event}`. `{:error, _}` passes through; anything else is an error
  `:invalid_argument`, code 2005.
  """
  @impl Contract
  @spec store(Event.t() | {:ok, Event.t()} | {:error, term()}) ::
          {:ok, Event.event_id()} | {:error, term()}
  def store(%Event{} = event), do: call({:store_event, event})
  def store({:ok, %Event{} = event}), do: call({:store_event, event})
  def store({:error, _reason} = error), do: error

  def store(other) do
    {:error,
     Error.new(
       code: 2005,
       error_type: :invalid_argument,
       message: "Expected Event struct or {:ok, Event} tuple",
       severity: :high,
       context: %{received: other},
       category: :data,
       subcategory: :validation
     )}
  end

  @doc """
  Stores all of the events or, if one is invalid, none.
  """
  @impl Contract
  @spec store_batch([Event.t()]) :: {:ok, [Event.event_id()]} | {:error, Error.t()}
  def store_batch(events) when is_list(events), do: call({:store_batch, events})

  @doc """
  The event of an id, or an error `:not_found`, code 3001.
  """
  @impl Contract
  @spec get(pos_integer()) :: {:ok, Event.t()} | {:error, Error.t()}
  def get(event_id) when is_integer(event_id) and event_id > 0 do
    with {:ok, pid} <- lookup(),
         {:ok, ^pid, %{} = tables} <- ProcessRegistry.lookup_value(:production, :event_store),
         {_status, _event_or_error} = result <- read(tables, event_id) do
      result
    else
      {:error, _not_found} -> unavailable(@unavailable)
      _server_gone -> call({:get_event, event_id})
    end
  end

  @doc """
  The events that match.

  Keys, all optional: `event_type`; `time_range: {first, last}`; `order_by: :event_id | :timestamp`; `offset`; `limit`.
  Events of one timestamp, and all without `order_by`, come by id.
  """
  @impl Contract
  @spec query(map()) :: {:ok, [Event.t()]} | {:error, Error.t()}
  def query(query) when is_map(query), do: call({:query_events, query})

  @doc """
  The events of a correlation id, by timestamp.
  """
  @impl Contract
  @spec get_by_correlation(String.t()) :: {:ok, [Event.t()]} | {:error, Error.t()}
  def get_by_correlation(correlation_id) when is_binary(correlation_id) do
    with {:ok, pid} <- lookup(),
         {:ok, ^pid, %{pending: pending} = tables} <-
           ProcessRegistry.lookup_value(:production, :event_store),
         0 <- :atomics.get(pending, 1),
         {:ok, events} <- read_correlated(tables, correlation_id) do
      {:ok, events}
    else
      {:error, _not_found} -> unavailable(@unavailable)
      _index_behind_or_server_gone -> call({:get_by_correlation, correlation_id})
    end
  end

  @doc """
  Removes the events with an earlier timestamp; their number comes back.
  """
  @impl Contract
  @spec prune_before(integer()) :: {:ok, non_neg_integer()} | {:error, Error.t()}
  def prune_before(timestamp) when is_integer(timestamp), do: call({:prune_before, timestamp})

  @doc """
  Events stored and pruned since the start, present count, uptime, estimated memory in bytes.
  """
  @impl Contract
  @spec stats() :: {:ok, map()} | {:error, Error.t()}
  def stats, do: call(:get_stats)

  @impl Contract
  @spec available?() :: boolean()
  def available?, do: match?({:ok, _pid}, lookup())

  @impl Contract
  @spec initialize() :: :ok | {:error, Error.t()}
  def initialize, do: initialize([])

  @doc """
  Starts the service unless it runs.
  """
  @spec initialize(keyword()) :: :ok | {:error, Error.t()}
  def initialize(opts) do
    with {:error, _not_found} <- lookup(),
         {:error, reason} <- start_link(opts) do
      case reason do
        {:already_started, _pid} -> :ok
        reason -> unavailable("Failed to initialize event store: #{inspect(reason)}")
      end
    else
      {:ok, _pid} -> :ok
    end
  end

  @impl Contract
  @spec status() :: {:ok, map()} | {:error, Error.t()}
  def status, do: call(:get_status)

  @doc """
  Forgets all events. Only with `config :foundation, test_mode: true`, else an error `:operation_forbidden`, code 3002.
  """
  @spec reset_state() :: :ok | {:error, Error.t()}
  def reset_state do
    if Application.get_env(:foundation, :test_mode, false) do
      call(:reset_state)
    else
      {:error,
       Error.new(
         code: 3002,
         error_type: :operation_forbidden,
         message: "State reset only allowed in test mode",
         severity: :high,
         category: :security,
         subcategory: :authorization
       )}
    end
  end

  @doc """
  Starts the server under `:event_store` of the option `namespace`, `:production` by default.
  """
  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(opts \\ []) do
    opts = Keyword.put_new(opts, :namespace, :production)
    name = ServiceRegistry.via_tuple(opts[:namespace], :event_store)
    GenServer.start_link(__MODULE__, opts, name: name)
  end

  @doc """
  Stops the server of `:production`.
  """
  @spec stop() :: :ok
  def stop do
    with {:ok, pid} <- lookup(), do: GenServer.stop(pid)
    :ok
  end

  defp lookup, do: ServiceRegistry.lookup(:production, :event_store)

  defp call(request) do
    case lookup() do
      {:ok, pid} -> GenServer.call(pid, request)
      {:error, _not_found} -> unavailable(@unavailable)
    end
  end

  defp unavailable(message) do
    {:error,
     Error.new(
       code: 3000,
       error_type: :service_unavailable,
       message: message,
       severity: :high,
       category: :system,
       subcategory: :availability
     )}
  end

  ## Callbacks

  @impl GenServer
  def init(opts) do
    tables = %{
      events: :ets.new(:foundation_events, [:set, :protected, read_concurrency: true]),
      correlations:
        :ets.new(:foundation_correlations, [:duplicate_bag, :protected, read_concurrency: true]),
      # How many stored events the second table does not have yet.
      pending: :atomics.new(1, [])
    }

    # Readers find the tables with the name: the entry belongs to this process and goes with it.
    if namespace = opts[:namespace] do
      Registry.update_value(ProcessRegistry, {namespace, :event_store}, fn _none -> tables end)
    end

    Logger.info("Event store initialized successfully")
    {:ok, fresh(tables)}
  end

  defp fresh(tables) do
    %{
      tables: tables,
      # {correlation_id, event_id} of the pending events, latest first.
      pending: [],
      next_id: 1,
      metrics: %{events_stored: 0, events_pruned: 0, start_time: now()}
    }
  end

  @impl GenServer
  def handle_call({:store_event, event}, _from, state) do
    case EventValidator.validate(event) do
      :ok ->
        state = insert(state, [event])

        TelemetryService.emit_counter([:foundation, :event_store, :events_stored], 1, %{
          event_type: event.event_type,
          event_id: event.event_id
        })

        {:reply, {:ok, event.event_id}, state}

      {:error, _reason} = error ->
        {:reply, error, state}
    end
  end

  def handle_call({:store_batch, events}, _from, state) do
    case validate_all(events) do
      :ok ->
        state = insert(state, events)
        count = length(events)

        TelemetryService.emit_counter([:foundation, :event_store, :events_stored], count, %{
          batch_size: count
        })

        {:reply, {:ok, Enum.map(events, & &1.event_id)}, state}

      {:error, _reason} = error ->
        {:reply, error, state}
    end
  end

  def handle_call({:get_event, event_id}, _from, state) do
    {:reply, read(state.tables, event_id), state}
  end

  def handle_call({:query_events, query}, _from, state) do
    {:reply, {:ok, select(state.tables.events, query)}, state}
  end

  def handle_call({:get_by_correlation, correlation_id}, _from, state) do
    state = index(state)
    {:reply, read_correlated(state.tables, correlation_id), state}
  end

  def handle_call({:prune_before, timestamp}, _from, state) do
    state = index(state)
    %{events: events, correlations: correlations} = state.tables

    pruned =
      :ets.select(events, [
        {{:"$1", :"$2", :_, :"$3"}, [{:<, :"$2", timestamp}], [{{:"$1", :"$3"}}]}
      ])

    for {event_id, event} <- pruned do
      :ets.delete(events, event_id)
      :ets.delete_object(correlations, {event.correlation_id, event_id})
    end

    count = length(pruned)
    metrics = Map.update!(state.metrics, :events_pruned, &(&1 + count))
    {:reply, {:ok, count}, %{state | metrics: metrics}}
  end

  def handle_call(:get_stats, _from, state) do
    count = :ets.info(state.tables.events, :size)

    {:reply,
     {:ok,
      Map.merge(state.metrics, %{
        current_event_count: count,
        uptime_ms: now() - state.metrics.start_time,
        memory_usage_estimate: count * @bytes_per_event
      })}, state}
  end

  def handle_call(:get_status, _from, state) do
    {:reply,
     {:ok,
      %{
        status: :running,
        event_count: :ets.info(state.tables.events, :size),
        next_id: state.next_id
      }}, state}
  end

  def handle_call(:reset_state, _from, state) do
    :ets.delete_all_objects(state.tables.events)
    :ets.delete_all_objects(state.tables.correlations)
    :atomics.put(state.tables.pending, 1, 0)
    {:reply, :ok, fresh(state.tables)}
  end

  def handle_call(request, _from, state) do
    Logger.warning("Attempted unsupported EventStore operation: #{inspect(request)}")

    operation =
      case request do
        {operation, _} -> operation
        {operation, _, _} -> operation
        operation when is_atom(operation) -> operation
        _other -> :unknown
      end

    {:reply,
     {:error,
      Error.new(
        code: 4001,
        error_type: :operation_not_supported,
        message: "EventStore operation not supported for security reasons: #{inspect(operation)}",
        severity: :medium,
        context: %{operation: operation},
        category: :security,
        subcategory: :access_control
      )}, state}
  end

  @impl GenServer
  def handle_info(message, state) do
    Logger.warning("Unexpected message in EventStore: #{inspect(message)}")
    {:noreply, state}
  end

  ## Storing

  defp validate_all(events) do
    Enum.find_value(events, :ok, fn event ->
      with :ok <- EventValidator.validate(event), do: nil
    end)
  end

  # The events are valid, so each has a positive id of its own.
  defp insert(state, events) do
    rows = Enum.map(events, &{&1.event_id, &1.timestamp, &1.event_type, &1})
    pending = for %{correlation_id: id} = event when id != nil <- events, do: {id, event.event_id}

    # Counted before the events can be seen: who then reads zero reads a complete index.
    :atomics.add(state.tables.pending, 1, length(pending))
    :ets.insert(state.tables.events, rows)

    state = %{
      state
      | pending: Enum.reverse(pending, state.pending),
        next_id: Enum.reduce(events, state.next_id, &(max(&1.event_id, &2) + 1)),
        metrics: Map.update!(state.metrics, :events_stored, &(&1 + length(events)))
    }

    if :atomics.get(state.tables.pending, 1) > @max_pending, do: index(state), else: state
  end

  defp index(%{pending: []} = state), do: state

  defp index(%{pending: pending, tables: tables} = state) do
    :ets.insert(tables.correlations, Enum.reverse(pending))
    :atomics.put(tables.pending, 1, 0)
    %{state | pending: []}
  end

  ## Reading; also from other processes

  defp read(tables, event_id) do
    case :ets.lookup(tables.events, event_id) do
      [{^event_id, _timestamp, _type, event}] ->
        {:ok, event}

      [] ->
        {:error,
         Error.new(
           code: 3001,
           error_type: :not_found,
           message: "Event not found",
           severity: :low,
           context: %{event_id: event_id},
           category: :data,
           subcategory: :retrieval
         )}
    end
  rescue
    # The server died between the look at the name and the look at the table.
    ArgumentError -> :gone
  end

  # The index may name an id twice, or an event that was stored anew under another correlation id.
  defp read_correlated(tables, correlation_id) do
    events =
      case :ets.lookup(tables.correlations, correlation_id) do
        [] ->
          []

        [{_id, event_id}] ->
          correlated(tables, [event_id], correlation_id)

        entries ->
          entries
          |> Enum.map(&elem(&1, 1))
          |> Enum.uniq()
          |> then(&correlated(tables, &1, correlation_id))
          |> Enum.sort_by(&{&1.timestamp, &1.event_id})
      end

    {:ok, events}
  rescue
    ArgumentError -> :gone
  end

  defp correlated(tables, event_ids, correlation_id) do
    for event_id <- event_ids,
        {_id, _timestamp, _type, %{correlation_id: ^correlation_id} = event} <-
          :ets.lookup(tables.events, event_id),
        do: event
  end

  ## Queries

  # First ids and timestamps only, then the events that are left: a limit keeps the rest from being copied.
  defp select(table, query) do
    {head, guards} = conditions(query)

    table
    |> :ets.select([{head, guards, [{{:"$2", :"$1"}}]}])
    |> sort(query[:order_by])
    |> offset(query[:offset])
    |> limit(query[:limit])
    |> Enum.map(fn {_timestamp, event_id} -> :ets.lookup_element(table, event_id, 4) end)
  end

  defp conditions(query) do
    type =
      if query[:event_type] == nil, do: [], else: [{:"=:=", :"$3", {:const, query[:event_type]}}]

    range =
      case query[:time_range] do
        nil -> []
        {first, last} -> [{:>=, :"$2", {:const, first}}, {:"=<", :"$2", {:const, last}}]
      end

    {{:"$1", :"$2", :"$3", :_}, type ++ range}
  end

  defp sort(keys, :timestamp), do: Enum.sort(keys)
  defp sort(keys, _event_id_or_none), do: Enum.sort_by(keys, &elem(&1, 1))

  defp offset(keys, offset) when is_integer(offset) and offset >= 0, do: Enum.drop(keys, offset)
  defp offset(keys, _none), do: keys

  defp limit(keys, limit) when is_integer(limit) and limit > 0, do: Enum.take(keys, limit)
  defp limit(keys, _none), do: keys

  defp now, do: System.monotonic_time(:millisecond)
end

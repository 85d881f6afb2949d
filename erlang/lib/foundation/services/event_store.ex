defmodule Foundation.Services.EventStore do
  @moduledoc """
  The process that stores events, in memory. `Foundation.Events` is its public face.

  An event is first kept in the server's own memory, which costs least, and settles when the server has nothing else to do:
  it then is in tables with indexes by time and by correlation id. Reads of `:production` go to the tables from the
  calling process, without a message, once everything has settled; before that the server looks through the rest
  as well. Nothing is removed but by `prune_before/1`.

  Calls it answers, in any namespace: `{:store_event, event}`, `{:store_batch, events}`, `{:get_event, id}`,
  `{:query_events, map}`, `{:get_by_correlation, id}`, `{:prune_before, timestamp}`, `:get_stats`, `:get_status`, `:reset_state`. Any
  other call is logged and answered with an error `:operation_not_supported`, code 4001.
  """

  use GenServer

  alias Foundation.Contracts.EventStore, as: Contract
  alias Foundation.ProcessRegistry
  alias Foundation.Services.EventStore.Tables
  alias Foundation.Services.{Lifecycle, TelemetryService}
  alias Foundation.Types.{Error, Event}
  alias Foundation.Validation.EventValidator
  require Logger

  @behaviour Contract

  @unavailable "Event store not available"
  # What 1.x says of one event: 600 to 713 bytes of event and its place in the tables.
  @bytes_per_event 1000
  # Quiet milliseconds before events settle: a loop of stores is not slowed by it.
  @settle_after_ms 10
  # Events that settle at a time, about 10 ms: the longest that a request waits for it.
  @settle_chunk 2000

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
    read({:get_event, event_id}, fn tables -> found(Tables.fetch(tables, event_id), event_id) end)
  end

  @doc """
  The events that match.

  Keys, all optional: `event_type`; `time_range: {first, last}`; `order_by: :event_id | :timestamp`; `offset`; `limit`.
  Events of one timestamp come by id. Without `order_by` they come by id while the
  store has up to 32 events; beyond that the latest first with a `limit`, in no order without.
  """
  @impl Contract
  @spec query(map()) :: {:ok, [Event.t()]} | {:error, Error.t()}
  def query(query) when is_map(query) do
    read({:query_events, query}, fn tables -> {:ok, select(tables, %{}, query)} end)
  end

  @doc """
  The events of a correlation id, by timestamp.
  """
  @impl Contract
  @spec get_by_correlation(String.t()) :: {:ok, [Event.t()]} | {:error, Error.t()}
  def get_by_correlation(correlation_id) when is_binary(correlation_id) do
    read({:get_by_correlation, correlation_id}, fn tables ->
      {:ok, correlated(tables, %{}, correlation_id)}
    end)
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
  def available?, do: Lifecycle.available?(:event_store)

  @impl Contract
  @spec initialize() :: :ok | {:error, Error.t()}
  def initialize, do: initialize([])

  @doc """
  Starts the service unless it runs.
  """
  @spec initialize(keyword()) :: :ok | {:error, Error.t()}
  def initialize(opts) do
    Lifecycle.initialize(__MODULE__, {:production, :event_store}, opts, fn reason ->
      unavailable("Failed to initialize event store: #{inspect(reason)}")
    end)
  end

  @impl Contract
  @spec status() :: {:ok, map()} | {:error, Error.t()}
  def status, do: call(:get_status)

  @doc """
  Forgets all events. Only with `config :foundation, test_mode: true`, else an error `:operation_forbidden`, code 3002.
  """
  @spec reset_state() :: :ok | {:error, Error.t()}
  def reset_state, do: Lifecycle.in_test_mode(3002, fn -> call(:reset_state) end)

  @doc """
  Starts the server under `:event_store` of the option `namespace`, `:production` by default.
  """
  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(opts \\ []), do: Lifecycle.start_link(__MODULE__, :event_store, opts)

  @doc """
  Stops the server of `:production`.
  """
  @spec stop() :: :ok
  def stop, do: Lifecycle.stop(:event_store)

  defp call(request),
    do: Lifecycle.call(:event_store, request, fn -> unavailable(@unavailable) end)

  # From the tables if everything has settled, else by the server.
  defp read(request, fun) do
    with {:ok, pid} <- Lifecycle.lookup(:event_store),
         {:ok, ^pid, %Tables{} = tables} <-
           ProcessRegistry.lookup_value(:production, :event_store),
         true <- Tables.settled?(tables),
         {_status, _events} = result <- read_tables(tables, fun) do
      result
    else
      {:error, _not_found} -> unavailable(@unavailable)
      _unsettled_or_gone -> call(request)
    end
  end

  defp read_tables(tables, fun) do
    fun.(tables)
  rescue
    # The server died between the look at the name and the look at the table.
    ArgumentError -> :gone
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
    tables = Tables.new()

    # Readers find the tables with the name: the entry belongs to this process and goes with it.
    if namespace = opts[:namespace] do
      Registry.update_value(ProcessRegistry.local(), {namespace, :event_store}, fn _none ->
        tables
      end)
    end

    Logger.info("Event store initialized successfully")
    {:ok, fresh(tables)}
  end

  defp fresh(tables) do
    %{
      tables: tables,
      # The events that have not settled, by id. One here hides one of the same id in the tables.
      recent: %{},
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

        reply({:ok, event.event_id}, state)

      {:error, _reason} = error ->
        reply(error, state)
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

        reply({:ok, Enum.map(events, & &1.event_id)}, state)

      {:error, _reason} = error ->
        reply(error, state)
    end
  end

  def handle_call({:get_event, event_id}, _from, state) do
    event =
      with :error <- Map.fetch(state.recent, event_id), do: Tables.fetch(state.tables, event_id)

    event |> found(event_id) |> reply(state)
  end

  def handle_call({:query_events, query}, from, state) do
    GenServer.reply(from, {:ok, select(state.tables, state.recent, query)})
    state |> settle(@settle_chunk) |> noreply()
  end

  def handle_call({:get_by_correlation, correlation_id}, from, state) do
    GenServer.reply(from, {:ok, correlated(state.tables, state.recent, correlation_id)})
    state |> settle(@settle_chunk) |> noreply()
  end

  def handle_call({:prune_before, timestamp}, _from, state) do
    state = settle(state, :all)
    count = Tables.prune_before(state.tables, timestamp)
    metrics = Map.update!(state.metrics, :events_pruned, &(&1 + count))
    reply({:ok, count}, %{state | metrics: metrics})
  end

  def handle_call(:get_stats, _from, state) do
    count = count(state)

    stats = %{
      current_event_count: count,
      uptime_ms: now() - state.metrics.start_time,
      memory_usage_estimate: count * @bytes_per_event
    }

    reply({:ok, Map.merge(state.metrics, stats)}, state)
  end

  def handle_call(:get_status, _from, state) do
    reply({:ok, %{status: :running, event_count: count(state), next_id: state.next_id}}, state)
  end

  def handle_call(:reset_state, _from, state) do
    Tables.delete_all(state.tables)
    reply(:ok, fresh(state.tables))
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

    error =
      Error.new(
        code: 4001,
        error_type: :operation_not_supported,
        message: "EventStore operation not supported for security reasons: #{inspect(operation)}",
        severity: :medium,
        context: %{operation: operation},
        category: :security,
        subcategory: :access_control
      )

    reply({:error, error}, state)
  end

  @impl GenServer
  def handle_info(:timeout, state) do
    state = settle(state, @settle_chunk)
    # On with the rest at once, unless a request has come meanwhile.
    if state.recent == %{}, do: {:noreply, state}, else: {:noreply, state, 0}
  end

  def handle_info(message, state) do
    Logger.warning("Unexpected message in EventStore: #{inspect(message)}")
    noreply(state)
  end

  defp reply(reply, %{recent: recent} = state) when recent == %{}, do: {:reply, reply, state}
  defp reply(reply, state), do: {:reply, reply, state, @settle_after_ms}
  defp noreply(%{recent: recent} = state) when recent == %{}, do: {:noreply, state}
  defp noreply(state), do: {:noreply, state, @settle_after_ms}

  ## Storing

  defp validate_all(events) do
    Enum.find_value(events, :ok, fn event ->
      with :ok <- EventValidator.validate(event), do: nil
    end)
  end

  # The events are valid, so each has a positive id of its own.
  defp insert(state, events) do
    {recent, next_id, count} =
      Enum.reduce(events, {state.recent, state.next_id, 0}, fn event, {recent, next_id, count} ->
        {Map.put(recent, event.event_id, event), max(event.event_id, next_id) + 1, count + 1}
      end)

    Tables.put_unsettled(state.tables, map_size(recent))
    metrics = %{state.metrics | events_stored: state.metrics.events_stored + count}
    %{state | recent: recent, next_id: next_id, metrics: metrics}
  end

  defp settle(%{recent: recent} = state, _count) when recent == %{}, do: state

  defp settle(%{recent: recent} = state, count) when map_size(recent) <= count or count == :all do
    Tables.insert(state.tables, Map.values(recent))
    Tables.put_unsettled(state.tables, 0)
    %{state | recent: %{}}
  end

  defp settle(%{recent: recent} = state, count) do
    events = recent |> :maps.iterator() |> take(count, [])
    Tables.insert(state.tables, events)
    recent = Map.drop(recent, Enum.map(events, & &1.event_id))
    Tables.put_unsettled(state.tables, map_size(recent))
    %{state | recent: recent}
  end

  defp take(_iterator, 0, events), do: events

  defp take(iterator, count, events) do
    {_id, event, iterator} = :maps.next(iterator)
    take(iterator, count - 1, [event | events])
  end

  defp count(state) do
    Tables.size(state.tables) +
      Enum.count(state.recent, fn {id, _event} -> not Tables.member?(state.tables, id) end)
  end

  ## Reading: by the server with the events that have not settled, by others without

  defp found({:ok, event}, _event_id), do: {:ok, event}

  defp found(:error, event_id) do
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

  defp correlated(tables, recent, correlation_id) do
    settled = Tables.correlated(tables, correlation_id)

    events =
      if recent == %{} do
        settled
      else
        unsettled = for {_id, %{correlation_id: ^correlation_id} = event} <- recent, do: event
        unsettled ++ Enum.reject(settled, &is_map_key(recent, &1.event_id))
      end

    case events do
      [_, _ | _] -> Enum.sort_by(events, &{&1.timestamp, &1.event_id})
      none_or_one -> none_or_one
    end
  end

  defp select(tables, recent, query) do
    offset = if is_integer(query[:offset]) and query[:offset] >= 0, do: query[:offset], else: 0
    order = order(tables, recent, query[:order_by])

    case query[:limit] do
      limit when is_integer(limit) and limit > 0 ->
        select_some(tables, recent, query, order, offset, limit)

      _none ->
        tables |> select_all(recent, query) |> sort(order) |> Enum.drop(offset)
    end
  end

  # Without an order 1.x gave that of a map: by id up to 32 events in the store, none beyond. Of the orders that are none,
  # the latest first is the one in which a limit serves.
  defp order(_tables, _recent, order) when order in [:timestamp, :event_id], do: order

  defp order(tables, recent, _none) do
    if Tables.size(tables) + map_size(recent) <= 32, do: :event_id, else: :latest
  end

  defp select_all(tables, recent, query) when recent == %{}, do: Tables.select(tables, query)

  defp select_all(tables, recent, query) do
    settled = tables |> Tables.select(query) |> Enum.reject(&is_map_key(recent, &1.event_id))
    for({_id, event} <- recent, matches?(event, query), do: event) ++ settled
  end

  defp sort(events, :timestamp), do: Enum.sort_by(events, &{&1.timestamp, &1.event_id})
  defp sort(events, :event_id), do: Enum.sort_by(events, & &1.event_id)
  defp sort(events, :latest), do: events

  # Keys first, then only the events that the limit leaves.
  defp select_some(tables, recent, query, order, offset, limit) do
    tables
    |> keys(recent, query, order, offset + limit)
    |> Enum.slice(offset, limit)
    |> Enum.flat_map(fn {_timestamp, id} ->
      case recent do
        %{^id => event} -> [event]
        _settled -> Tables.fetch_all(tables, [id])
      end
    end)
  end

  defp keys(tables, recent, query, order, count) when recent == %{} do
    case order do
      :timestamp -> Tables.keys(tables, query, count)
      :latest -> Tables.latest_keys(tables, query, count)
      :event_id -> tables |> Tables.keys(query, :all) |> sort_keys(order)
    end
  end

  defp keys(tables, recent, query, order, _count) do
    settled = Tables.keys(tables, query, :all)
    unsettled = for {id, event} <- recent, matches?(event, query), do: {event.timestamp, id}
    settled = Enum.reject(settled, fn {_timestamp, id} -> is_map_key(recent, id) end)
    sort_keys(unsettled ++ settled, order)
  end

  defp sort_keys(keys, :timestamp), do: Enum.sort(keys)
  defp sort_keys(keys, :latest), do: Enum.sort(keys, :desc)
  defp sort_keys(keys, :event_id), do: Enum.sort_by(keys, fn {_timestamp, id} -> id end)

  defp matches?(event, query) do
    (query[:event_type] == nil or event.event_type == query[:event_type]) and
      case query[:time_range] do
        nil -> true
        {first, last} -> event.timestamp >= first and event.timestamp <= last
      end
  end

  defp now, do: System.monotonic_time(:millisecond)
end

defmodule Foundation.Services.EventStore do
  @moduledoc """
  The process that stores events, in memory. `Foundation.Events` is its public face.

  An event is first kept in the server's own memory, which costs least, and settles when the server has nothing else to do:
  it then is in tables, in blocks of which the range of times and ids is known, with an index by correlation id. Reads of `:production` go to the tables from the
  calling process, without a message, once everything has settled; before that the server gives what has not, or looks through
  it. Nothing is removed but by `prune_before/1`.

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
  # Events that settle at a time when nothing else is to be done, some milliseconds.
  @settle_chunk 2000
  # The most that wait until there is nothing else to do. They then settle at once, which costs least for each: some 30 ms, for which one who
  # stores waits, or a reader.
  @max_recent 10_000
  # The most that wait once more have come than that, until there is nothing else to do.
  @most_in_haste 500
  # To look through so many costs less than to add them to a block; and to give them to who asks for more than they.
  @few 64
  @handed_out 1000
  @more {__MODULE__, :more}

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
    with {:ok, pid, tables} <- tables(),
         {:ok, recent} <- recent(pid, tables),
         {:ok, _events} = found <- read_tables(fn -> {:ok, select(tables, recent, query)} end) do
      found
    else
      {:error, _not_found} = error -> error
      :gone -> call({:query_events, query})
    end
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
    case tables() do
      {:ok, pid, tables} ->
        with true <- Tables.settled?(tables),
             {_status, _events} = result <- read_tables(fn -> fun.(tables) end) do
          result
        else
          false -> GenServer.call(pid, request)
          :gone -> call(request)
        end

      {:error, _not_found} = error ->
        error

      :gone ->
        call(request)
    end
  end

  defp tables do
    with {:ok, pid} <- Lifecycle.lookup(:event_store),
         {:ok, ^pid, %Tables{} = tables} <-
           ProcessRegistry.lookup_value(:production, :event_store) do
      {:ok, pid, tables}
    else
      {:error, _not_found} -> unavailable(@unavailable)
      _another_process -> :gone
    end
  end

  # What the server has not settled is few events: the result is put together by who asks, and copied once.
  defp recent(pid, tables) do
    if Tables.settled?(tables), do: {:ok, %{}}, else: GenServer.call(pid, {__MODULE__, :recent})
  end

  defp read_tables(fun) do
    fun.()
  rescue
    # The server died between the look at the name and the look at the table, or a block went meanwhile.
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
      # The events that have not settled, the latest first, and how many.
      pending: [],
      held: 0,
      # As many may wait.
      most: @max_recent,
      # The same by id, for who reads: as many of the first of them as were there when somebody did.
      recent: %{},
      collected: 0,
      # What is pruned and still has to leave the indexes.
      stale: [],
      timer: nil,
      next_id: 1,
      metrics: %{events_stored: 0, events_pruned: 0, start_time: now()}
    }
  end

  @impl GenServer
  def handle_call({:store_event, event}, _from, state) do
    case EventValidator.validate(event) do
      :ok ->
        {[id], state} = insert([event], state)

        TelemetryService.emit_counter([:foundation, :event_store, :events_stored], 1, %{
          event_type: event.event_type,
          event_id: id
        })

        stored({:ok, id}, state)

      {:error, _reason} = error ->
        {:reply, error, state}
    end
  end

  def handle_call({:store_batch, events}, _from, state) do
    case validate_all(events) do
      :ok ->
        {ids, state} = insert(events, state)
        count = length(ids)

        TelemetryService.emit_counter([:foundation, :event_store, :events_stored], count, %{
          batch_size: count
        })

        stored({:ok, ids}, state)

      {:error, _reason} = error ->
        {:reply, error, state}
    end
  end

  def handle_call({:get_event, event_id}, _from, state) do
    state = collect(state)

    event =
      with :error <- Map.fetch(state.recent, event_id), do: Tables.fetch(state.tables, event_id)

    {:reply, found(event, event_id), state}
  end

  def handle_call({:query_events, query}, _from, state) do
    state = state |> settle_most(@handed_out) |> collect()
    {:reply, {:ok, select(state.tables, state.recent, query)}, state}
  end

  def handle_call({__MODULE__, :recent}, _from, state) do
    state = state |> settle_most(@handed_out) |> collect()
    {:reply, {:ok, state.recent}, state}
  end

  def handle_call({:get_by_correlation, correlation_id}, _from, state) do
    state = state |> settle_most(@few) |> collect()
    {:reply, {:ok, correlated(state.tables, state.recent, correlation_id)}, state}
  end

  def handle_call({:prune_before, timestamp}, _from, state) do
    state = settle(state, :all)
    stale = Tables.prune_before(state.tables, timestamp)
    count = length(stale)
    metrics = Map.update!(state.metrics, :events_pruned, &(&1 + count))
    {:reply, {:ok, count}, wait(%{state | metrics: metrics, stale: stale ++ state.stale})}
  end

  def handle_call(:get_stats, _from, state) do
    state = state |> settle_most(@few) |> collect()
    count = count(state)

    stats = %{
      current_event_count: count,
      uptime_ms: now() - state.metrics.start_time,
      memory_usage_estimate: count * @bytes_per_event
    }

    {:reply, {:ok, Map.merge(state.metrics, stats)}, state}
  end

  def handle_call(:get_status, _from, state) do
    state = state |> settle_most(@few) |> collect()
    {:reply, {:ok, %{status: :running, event_count: count(state), next_id: state.next_id}}, state}
  end

  def handle_call(:reset_state, _from, state) do
    Tables.delete_all(state.tables)
    {:reply, :ok, %{fresh(state.tables) | timer: state.timer}}
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

    {:reply, {:error, error}, state}
  end

  # More come than can wait: the next ones settle while they are in the processor's cache and no garbage collection has copied them, until a quiet
  # moment.
  @impl GenServer
  def handle_continue(:settle, state),
    do: {:noreply, settle(%{state | most: @most_in_haste}, :all)}

  @impl GenServer
  def handle_info({:timeout, timer, stored}, %{timer: timer} = state) do
    state = %{state | timer: nil}
    quiet? = stored == state.metrics.events_stored
    {:noreply, if(quiet?, do: clear_up(state), else: wait(state))}
  end

  def handle_info(@more, state), do: {:noreply, clear_up(state)}

  def handle_info(message, state) do
    Logger.warning("Unexpected message in EventStore: #{inspect(message)}")
    {:noreply, state}
  end

  # A timer that runs once, not one for each request.
  defp wait(%{timer: nil} = state) do
    timer = :erlang.start_timer(@settle_after_ms, self(), state.metrics.events_stored)
    %{state | timer: timer}
  end

  defp wait(state), do: state

  # A part, then whatever requests have come meanwhile.
  defp clear_up(state) do
    state = %{state | most: @max_recent}

    state =
      if state.stale == [], do: settle(state, @settle_chunk), else: forget(state, @settle_chunk)

    unless state.pending == [] and state.stale == [], do: send(self(), @more)
    state
  end

  ## Storing

  defp validate_all(events) do
    Enum.find_value(events, :ok, fn event ->
      with :ok <- EventValidator.validate(event), do: nil
    end)
  end

  # To put each into a map would take as long as all else that is done for it: that waits until somebody reads.
  defp insert(events, state) do
    {ids, pending, next_id} = put(events, [], state.pending, state.next_id)
    count = length(ids)
    held = state.held + count
    Tables.put_unsettled(state.tables, held)
    metrics = %{state.metrics | events_stored: state.metrics.events_stored + count}
    state = %{state | pending: pending, held: held, next_id: next_id, metrics: metrics}
    {ids, wait(state)}
  end

  # The events are valid: an id is positive, or `false`, which gets the next one as in 1.x.
  defp put([%{event_id: id} = event | events], ids, pending, next_id) when is_integer(id),
    do: put(events, [id | ids], [event | pending], max(id, next_id) + 1)

  defp put([event | events], ids, pending, next_id),
    do: put([%{event | event_id: next_id} | events], ids, pending, next_id)

  defp put([], ids, pending, next_id), do: {Enum.reverse(ids), pending, next_id}

  # What came since the last time.
  defp collect(%{held: held, collected: held} = state), do: state

  defp collect(state) do
    recent =
      state.pending
      |> Enum.take(state.held - state.collected)
      |> List.foldr(state.recent, &Map.put(&2, &1.event_id, &1))

    %{state | recent: recent, collected: state.held}
  end

  # Who stores goes on while what has come settles.
  defp stored(reply, %{held: held, most: most} = state) when held > most,
    do: {:reply, reply, state, {:continue, :settle}}

  defp stored(reply, state), do: {:reply, reply, state}

  # In the order in which they came, so that a block has events of about the same time.
  defp settle(%{held: 0} = state, _count), do: state

  defp settle(state, count) do
    state = forget(state, :all)
    {events, later} = state.pending |> Enum.reverse() |> some(count)

    # Fewer at a time cost less for each.
    for events <- Enum.chunk_every(events, @settle_chunk),
        do: Tables.insert(state.tables, last_of_each(events))

    held = length(later)
    Tables.put_unsettled(state.tables, held)
    %{state | pending: Enum.reverse(later), held: held, recent: %{}, collected: 0}
  end

  # Of those with the same id.
  defp last_of_each(events) do
    ids = for %{event_id: id} <- events, do: id

    if length(:lists.usort(ids)) == length(ids),
      do: events,
      else: events |> Map.new(&{&1.event_id, &1}) |> Map.values()
  end

  defp settle_most(%{held: held} = state, few) when held <= few, do: state
  defp settle_most(state, _few), do: settle(state, :all)

  defp forget(%{stale: []} = state, _count), do: state

  defp forget(state, count) do
    {stale, later} = some(state.stale, count)
    Tables.forget(state.tables, stale)
    %{state | stale: later}
  end

  defp some(list, :all), do: {list, []}
  defp some(list, count), do: Enum.split(list, count)

  defp count(state) do
    new =
      Enum.count(state.recent, fn {id, _event} -> Tables.fetch(state.tables, id) == :error end)

    Tables.size(state.tables) + new
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
        Tables.first(tables, query, recent, order, offset, limit)

      _none ->
        tables |> Tables.select(query, recent) |> sort(order) |> Enum.drop(offset)
    end
  end

  # Without an order 1.x gave that of a map: by id up to 32 events in the store, none beyond. Of the orders that are none,
  # the latest first is the one in which a limit serves.
  defp order(_tables, _recent, order) when order in [:timestamp, :event_id], do: order

  defp order(tables, recent, _none) do
    if Tables.size(tables) + map_size(recent) <= 32, do: :event_id, else: :latest
  end

  defp sort(events, :latest), do: events

  # They mostly came in that order. Ids differ, so no two events are ever compared.
  defp sort(events, order) do
    ranked = Enum.map(events, &{rank(&1, order), &1})
    if sorted?(ranked), do: events, else: ranked |> Enum.sort() |> Enum.map(&elem(&1, 1))
  end

  defp rank(event, :timestamp), do: {event.timestamp, event.event_id}
  defp rank(event, :event_id), do: event.event_id

  defp sorted?([{first, _}, {second, _} = next | ranked]),
    do: first < second and sorted?([next | ranked])

  defp sorted?(_one_or_none), do: true

  defp now, do: System.monotonic_time(:millisecond)
end

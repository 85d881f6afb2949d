defmodule Foundation.Services.EventStore.Tables do
  @moduledoc false
  # The settled events: three tables that their owner writes and anybody reads.
  #
  #     events         {id, timestamp, event_type, event}
  #     correlations   {correlation_id, id}, a bag        the events of a correlation id
  #     times          {{timestamp, id}, event_type}      ordered: queries by time stop at their limit
  #
  # `unsettled` is the number of events that the owner holds and has not put here yet. A reader that sees zero finds every
  # event of which the store has said that it is stored; any other reader has to ask the owner.

  alias Foundation.Types.Event

  @enforce_keys [:events, :correlations, :times, :unsettled]
  defstruct @enforce_keys

  @type t :: %__MODULE__{
          events: :ets.tid(),
          correlations: :ets.tid(),
          times: :ets.tid(),
          unsettled: :atomics.atomics_ref()
        }
  @type key :: {timestamp :: integer(), id :: Event.event_id()}

  @spec new() :: t()
  def new do
    options = [:protected, read_concurrency: true]

    %__MODULE__{
      events: :ets.new(:foundation_events, [:set | options]),
      correlations: :ets.new(:foundation_events_by_correlation, [:duplicate_bag | options]),
      times: :ets.new(:foundation_events_by_time, [:ordered_set | options]),
      unsettled: :atomics.new(1, [])
    }
  end

  @spec settled?(t()) :: boolean()
  def settled?(tables), do: :atomics.get(tables.unsettled, 1) == 0

  @spec put_unsettled(t(), non_neg_integer()) :: :ok
  def put_unsettled(tables, count), do: :atomics.put(tables.unsettled, 1, count)

  ## Writing: the owner only

  @spec insert(t(), [Event.t()]) :: :ok
  def insert(tables, events) do
    unless :ets.insert_new(tables.events, Enum.map(events, &row/1)) do
      # Some are stored anew; the old ones leave the indexes.
      for event <- events do
        delete(tables, event.event_id)
        :ets.insert(tables.events, row(event))
      end
    end

    :ets.insert(tables.times, Enum.map(events, &{{&1.timestamp, &1.event_id}, &1.event_type}))

    :ets.insert(
      tables.correlations,
      for(%{correlation_id: id} = event when id != nil <- events, do: {id, event.event_id})
    )

    :ok
  end

  defp row(event), do: {event.event_id, event.timestamp, event.event_type, event}

  @spec delete(t(), Event.event_id()) :: :ok
  def delete(tables, id) do
    for {_id, _timestamp, _type, event} <- :ets.take(tables.events, id) do
      :ets.delete(tables.times, {event.timestamp, id})
      :ets.delete_object(tables.correlations, {event.correlation_id, id})
    end

    :ok
  end

  @spec delete_all(t()) :: :ok
  def delete_all(tables) do
    for table <- [tables.events, tables.correlations, tables.times],
        do: :ets.delete_all_objects(table)

    put_unsettled(tables, 0)
  end

  @doc false
  # How many events had an earlier timestamp.
  @spec prune_before(t(), integer()) :: non_neg_integer()
  def prune_before(tables, timestamp), do: prune(tables, timestamp, :ets.first(tables.times), 0)

  defp prune(tables, timestamp, {earlier, id}, count) when earlier < timestamp do
    delete(tables, id)
    prune(tables, timestamp, :ets.first(tables.times), count + 1)
  end

  defp prune(_tables, _timestamp, _later_or_end, count), do: count

  ## Reading: any process. The tables go with their owner; these functions then raise ArgumentError.

  @spec size(t()) :: non_neg_integer()
  def size(tables), do: :ets.info(tables.events, :size)

  @spec member?(t(), Event.event_id()) :: boolean()
  def member?(tables, id), do: :ets.member(tables.events, id)

  @spec fetch(t(), term()) :: {:ok, Event.t()} | :error
  def fetch(tables, id) do
    case :ets.lookup(tables.events, id) do
      [{_id, _timestamp, _type, event}] -> {:ok, event}
      [] -> :error
    end
  end

  # Events that have left meanwhile are left out.
  @spec fetch_all(t(), [Event.event_id()]) :: [Event.t()]
  def fetch_all(tables, ids) do
    for id <- ids, {_id, _timestamp, _type, event} <- :ets.lookup(tables.events, id), do: event
  end

  @spec correlated(t(), String.t()) :: [Event.t()]
  def correlated(tables, correlation_id) do
    fetch_all(
      tables,
      for({_correlation, id} <- :ets.lookup(tables.correlations, correlation_id), do: id)
    )
  end

  @doc false
  # The events that match, in no order.
  @spec select(t(), map()) :: [Event.t()]
  def select(tables, query) do
    guards = guards(query, :"$1", :"$2")
    :ets.select(tables.events, [{{:_, :"$1", :"$2", :"$3"}, guards, [:"$3"]}])
  end

  @doc false
  # The keys of the events that match, by timestamp and id; only the first `count` of them unless that is `:all`.
  @spec keys(t(), map(), pos_integer() | :all) :: [key()]
  def keys(tables, query, :all), do: :ets.select(tables.times, key_spec(query))

  def keys(tables, query, count),
    do: tables.times |> :ets.select(key_spec(query), count) |> page()

  @doc false
  # The keys of the latest `count` events that match, the latest first.
  @spec latest_keys(t(), map(), pos_integer()) :: [key()]
  def latest_keys(tables, query, count),
    do: tables.times |> :ets.select_reverse(key_spec(query), count) |> page()

  defp page(:"$end_of_table"), do: []
  defp page({keys, _continuation}), do: keys

  defp key_spec(query) do
    [{{:"$1", :"$2"}, guards(query, {:element, 1, :"$1"}, :"$2"), [:"$1"]}]
  end

  defp guards(query, timestamp, type) do
    of_type =
      if query[:event_type] == nil, do: [], else: [{:"=:=", type, {:const, query[:event_type]}}]

    case query[:time_range] do
      nil ->
        of_type

      {first, last} ->
        [{:>=, timestamp, {:const, first}}, {:"=<", timestamp, {:const, last}} | of_type]
    end
  end
end

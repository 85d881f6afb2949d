defmodule Foundation.Services.EventStore.Tables do
  @moduledoc false
  # The settled events: four tables that their owner writes and anybody reads.
  #
  #     blocks         {block, event or nil, …}                     up to @block events, in the order in which they came
  #     keys           {block, first and last timestamp, first and last id, [key or nil, …]}, a key being
  #                    {timestamp, id, event_type, hash of its correlation id or nil}
  #     places         {id, place}                                  place: block * @block + position in it
  #     correlations   {hash of a correlation id, place}, a bag
  #
  # An object comes out of a table in one copy, so many events come out fastest in large objects; of one block a single
  # event can be taken, too. What a query looks for is decided by the keys of the blocks, and blocks that lie outside of its
  # range are not looked at.
  #
  # What is pruned leaves the blocks at once, and its place and correlation when its owner has time: a reader that finds
  # such a place finds no event there, or another than it looks for.
  #
  # The counter @unsettled is the number of events that the owner holds and has not put here yet. A reader that sees zero finds every
  # event of which the store has said that it is stored; any other reader has to ask the owner for the rest.

  alias Foundation.Types.Event

  @enforce_keys [:blocks, :keys, :places, :correlations, :counters]
  defstruct @enforce_keys

  @type t :: %__MODULE__{
          blocks: :ets.tid(),
          keys: :ets.tid(),
          places: :ets.tid(),
          correlations: :ets.tid(),
          counters: :atomics.atomics_ref()
        }

  @typedoc "Events that have not settled, by id. One here hides one of the same id in the tables."
  @type recent :: %{Event.event_id() => Event.t()}
  @typedoc "An event that was pruned: its id, the hash of its correlation id, its place."
  @type stale :: {Event.event_id(), non_neg_integer() | nil, non_neg_integer()}
  @type order :: :timestamp | :event_id | :latest

  # A smaller block is read more often, a larger one written longer when an event is added to it: 128 events are
  # copied in about 20 microseconds.
  @block 128
  # From this many on the events of a block are taken out together.
  @together 64
  @unsettled 1
  @last_block 2
  @size 3

  @spec new() :: t()
  def new do
    options = [:protected, read_concurrency: true]

    %__MODULE__{
      blocks: :ets.new(:foundation_events, [:ordered_set | options]),
      keys: :ets.new(:foundation_event_keys, [:ordered_set | options]),
      places: :ets.new(:foundation_event_places, [:set | options]),
      correlations: :ets.new(:foundation_events_by_correlation, [:duplicate_bag | options]),
      counters: :atomics.new(3, [])
    }
  end

  @spec settled?(t()) :: boolean()
  def settled?(tables), do: :atomics.get(tables.counters, @unsettled) == 0

  @spec put_unsettled(t(), non_neg_integer()) :: :ok
  def put_unsettled(tables, count), do: :atomics.put(tables.counters, @unsettled, count)

  ## Writing: the owner only

  @doc false
  # No two of them have the same id, and nothing is stale.
  @spec insert(t(), [Event.t()]) :: :ok
  def insert(tables, events) do
    {known, new} = Enum.split_with(events, &:ets.member(tables.places, &1.event_id))
    for event <- known, do: replace(tables, event)
    append(tables, new)
  end

  defp replace(tables, event) do
    place = :ets.lookup_element(tables.places, event.event_id, 2)
    {block, position} = {div(place, @block), rem(place, @block)}
    entries = entries(tables, block)
    before = Enum.at(entries, position)

    if before.correlation_id != event.correlation_id do
      unlink(tables, key(before), place)
      link(tables, [{event, place}])
    end

    put_block(tables, block, List.replace_at(entries, position, event))
  end

  defp append(_tables, []), do: :ok

  defp append(tables, events) do
    {first, before} = open_block(tables)
    entries = before ++ events

    for {entries, block} <- entries |> Enum.chunk_every(@block) |> Enum.with_index(first) do
      put_block(tables, block, entries)
      :atomics.put(tables.counters, @last_block, block)
    end

    placed = Enum.with_index(events, first * @block + length(before))
    :ets.insert(tables.places, for({event, place} <- placed, do: {event.event_id, place}))
    link(tables, placed)
    :atomics.add(tables.counters, @size, length(events))
  end

  # The block that the next event goes to, and what it has. Numbers of blocks that are gone are not used again: a reader may
  # still be about to look for one.
  defp open_block(tables) do
    last = :atomics.get(tables.counters, @last_block)
    before = entries(tables, last)
    if length(before) in 1..(@block - 1), do: {last, before}, else: {last + 1, []}
  end

  defp put_block(tables, block, entries) do
    case for(%{timestamp: timestamp, event_id: id} <- entries, do: {timestamp, id}) do
      [] ->
        :ets.delete(tables.keys, block)
        :ets.delete(tables.blocks, block)

      present ->
        {first, last} = present |> Enum.map(&elem(&1, 0)) |> Enum.min_max()
        {first_id, last_id} = present |> Enum.map(&elem(&1, 1)) |> Enum.min_max()
        keys = Enum.map(entries, &(&1 && key(&1)))
        :ets.insert(tables.blocks, List.to_tuple([block | entries]))
        :ets.insert(tables.keys, {block, first, last, first_id, last_id, keys})
    end

    :ok
  end

  defp link(tables, placed) do
    :ets.insert(
      tables.correlations,
      for({%{correlation_id: id}, place} when id != nil <- placed, do: {hash(id), place})
    )
  end

  defp unlink(_tables, {_timestamp, _id, _type, nil}, _place), do: true

  defp unlink(tables, {_timestamp, _id, _type, hash}, place),
    do: :ets.delete_object(tables.correlations, {hash, place})

  @spec delete_all(t()) :: :ok
  def delete_all(tables) do
    for table <- [tables.correlations, tables.places, tables.keys, tables.blocks],
        do: :ets.delete_all_objects(table)

    :atomics.put(tables.counters, @size, 0)
    put_unsettled(tables, 0)
  end

  @doc false
  # What had an earlier timestamp, for `forget/2`.
  @spec prune_before(t(), integer()) :: [stale()]
  def prune_before(tables, timestamp) do
    with_earlier = [
      {{:"$1", :"$2", :"$3", :_, :_, :_}, [{:<, :"$2", timestamp}], [{{:"$1", :"$3"}}]}
    ]

    stale =
      for {block, last} <- :ets.select(tables.keys, with_earlier), reduce: [] do
        stale ->
          gone =
            for {{earlier, id, _type, hash}, place} when earlier < timestamp <-
                  places(tables, block),
                do: {id, hash, place}

          if last < timestamp,
            do: put_block(tables, block, []),
            else:
              put_block(
                tables,
                block,
                tables |> entries(block) |> Enum.map(&since(&1, timestamp))
              )

          gone ++ stale
      end

    :atomics.sub(tables.counters, @size, length(stale))
    stale
  end

  defp since(%Event{timestamp: earlier}, timestamp) when earlier < timestamp, do: nil
  defp since(entry, _timestamp), do: entry

  @doc false
  @spec forget(t(), [stale()]) :: :ok
  def forget(tables, stale) do
    for {id, hash, place} <- stale do
      :ets.delete_object(tables.places, {id, place})
      unlink(tables, {nil, id, nil, hash}, place)
    end

    :ok
  end

  ## Reading: any process. The tables go with their owner; these functions then raise ArgumentError.

  @spec size(t()) :: non_neg_integer()
  def size(tables), do: :atomics.get(tables.counters, @size)

  @spec fetch(t(), term()) :: {:ok, Event.t()} | :error
  def fetch(tables, id) do
    with [{_id, place}] <- :ets.lookup(tables.places, id),
         %Event{event_id: ^id} = event <- at(tables, place) do
      {:ok, event}
    else
      _gone -> :error
    end
  end

  @doc false
  # The events of a correlation id, in no order.
  @spec correlated(t(), String.t()) :: [Event.t()]
  def correlated(tables, correlation_id) do
    for {_hash, place} <- :ets.lookup(tables.correlations, hash(correlation_id)),
        %Event{correlation_id: ^correlation_id} = event <- [at(tables, place)],
        do: event
  end

  @doc false
  # The events that match, in the order in which they came but for those that have not settled.
  @spec select(t(), map(), recent()) :: [Event.t()]
  def select(tables, query, recent) do
    wanted = wanted(query)
    unsettled = for {_id, event} <- recent, wanted?(key(event), wanted, %{}), do: event

    # From the last block on, so that each is put before what is there already.
    blocks =
      for [block, first, last | _ids] <- tables |> ranges(wanted) |> Enum.reverse(),
          which = which(tables, block, first, last, wanted, recent),
          which != [],
          do: {block, which}

    with_room(tables, blocks, fn ->
      Enum.reduce(blocks, unsettled, fn {block, which}, found ->
        tables |> matching(block, which, wanted, recent) |> prepend(found)
      end)
    end)
  end

  defp which(tables, block, first, last, wanted, recent) do
    if recent == %{} and all?(wanted, first, last),
      do: :all,
      else: places(tables, block, wanted, recent)
  end

  # A heap that grows step by step is copied at each: more than half of the time that it takes to give 10,000 events. It is made large enough at
  # once; a later collection shrinks it.
  defp with_room(tables, blocks, fun) do
    count =
      for {_block, which} <- blocks, reduce: 0 do
        count -> count + if(which == :all, do: @block, else: length(which))
      end

    size = max(size(tables), 1)
    words = div(:ets.info(tables.blocks, :memory) * min(count, size), size)
    before = if count > @together, do: min_heap_size(words)

    try do
      fun.()
    after
      if before, do: min_heap_size(before)
    end
  end

  defp min_heap_size(words) do
    Process.flag(:min_heap_size, words)
  rescue
    # Above the process's own max_heap_size.
    ArgumentError -> nil
  end

  defp all?({nil, nil}, _first, _last), do: true
  defp all?({nil, {from, to}}, first, last), do: from <= first and last <= to
  defp all?(_of_one_type, _first, _last), do: false

  defp prepend([nil | entries], found), do: prepend(entries, found)
  defp prepend([event | entries], found), do: [event | prepend(entries, found)]
  defp prepend([], found), do: found

  defp matching(tables, block, :all, _wanted, _recent), do: entries(tables, block)

  defp matching(tables, block, places, wanted, recent) when length(places) >= @together do
    for event <- entries(tables, block), event && wanted?(key(event), wanted, recent), do: event
  end

  defp matching(tables, _block, places, _wanted, _recent) do
    for {_key, place} <- places, reduce: [] do
      events -> [at(tables, place) | events]
    end
  end

  @doc false
  # The `count` first events that match, after the `offset` first ones.
  @spec first(t(), map(), recent(), order(), non_neg_integer(), pos_integer()) :: [Event.t()]
  def first(tables, query, recent, order, offset, count) do
    wanted = wanted(query)

    unsettled =
      for {_id, event} <- recent,
          key = key(event),
          wanted?(key, wanted, %{}),
          do: {rank(order, key), event}

    ranges = tables |> ranges(wanted) |> Enum.map(&{at_best(order, &1), hd(&1)}) |> Enum.sort()
    blocks = 1 + div(offset + count, @block)

    found =
      {tables, wanted, recent, order, offset + count}
      |> lowest(ranges, blocks, Enum.sort(unsettled))
      |> Enum.slice(offset, count)

    blocks = for {_rank, place} when is_integer(place) <- found, do: div(place, @block)

    together =
      for {block, count} when count >= @together <- Enum.frequencies(blocks),
          [row] <- [:ets.lookup(tables.blocks, block)],
          into: %{},
          do: {block, row}

    for {_rank, which} <- found, event = event(tables, together, which), do: event
  end

  # Blocks are looked at in the order of the best that they can have, more and more of them at a time, until no other can
  # have anything better than what is found.
  defp lowest({tables, wanted, recent, order, count} = query, ranges, blocks, found) do
    {next, rest} = Enum.split(ranges, blocks)

    more =
      for {_best, block} <- next,
          {key, place} <- places(tables, block, wanted, recent),
          do: {rank(order, key), place}

    found = (more ++ found) |> Enum.sort() |> Enum.take(count)

    case rest do
      [{best, _block} | _others] ->
        if length(found) == count and elem(List.last(found), 0) < best,
          do: found,
          else: lowest(query, rest, 2 * blocks, found)

      [] ->
        found
    end
  end

  defp rank(:timestamp, {timestamp, id, _type, _hash}), do: {timestamp, id}
  defp rank(:event_id, {_timestamp, id, _type, _hash}), do: id
  defp rank(:latest, {timestamp, id, _type, _hash}), do: {-timestamp, -id}

  defp at_best(:timestamp, [_block, first, _last, first_id, _last_id]), do: {first, first_id}
  defp at_best(:event_id, [_block, _first, _last, first_id, _last_id]), do: first_id
  defp at_best(:latest, [_block, _first, last, _first_id, last_id]), do: {-last, -last_id}

  defp event(tables, together, place) when is_integer(place) do
    block = div(place, @block)

    case together do
      %{^block => row} -> elem(row, 1 + rem(place, @block))
      _one_by_one -> at(tables, place)
    end
  end

  defp event(_tables, _together, unsettled), do: unsettled

  ## Walks

  defp wanted(query), do: {query[:event_type], query[:time_range]}

  defp key(%{timestamp: timestamp, event_id: id, event_type: type, correlation_id: correlation}),
    do: {timestamp, id, type, correlation && hash(correlation)}

  # Of equal hashes the events themselves are looked at.
  defp hash(correlation_id), do: :erlang.phash2(correlation_id)

  defp wanted?({_timestamp, id, type, _hash}, {of_type, nil}, recent),
    do: (of_type == nil or type == of_type) and not is_map_key(recent, id)

  defp wanted?({timestamp, _id, _type, _hash} = key, {type, {from, to}}, recent),
    do: timestamp >= from and timestamp <= to and wanted?(key, {type, nil}, recent)

  # [block, first and last timestamp, first and last id] of the blocks that may have something.
  defp ranges(tables, {_type, range}) do
    within =
      case range do
        nil -> []
        {from, to} -> [{:>=, :"$3", {:const, from}}, {:"=<", :"$2", {:const, to}}]
      end

    :ets.select(tables.keys, [{{:"$1", :"$2", :"$3", :"$4", :"$5", :_}, within, [:"$$"]}])
  end

  # {key, place} of what is in a block.
  defp places(tables, block) do
    for {key, place} when key != nil <- tables |> keys(block) |> Enum.with_index(block * @block),
        do: {key, place}
  end

  # Of what matches, but for what has not settled; the last one first.
  defp places(tables, block, wanted, recent),
    do: tables |> keys(block) |> matching_places(block * @block, wanted, recent, [])

  defp matching_places([], _place, _wanted, _recent, found), do: found

  defp matching_places([key | keys], place, wanted, recent, found) do
    if key != nil and wanted?(key, wanted, recent),
      do: matching_places(keys, place + 1, wanted, recent, [{key, place} | found]),
      else: matching_places(keys, place + 1, wanted, recent, found)
  end

  defp keys(tables, block) do
    case :ets.lookup(tables.keys, block) do
      [{_block, _first, _last, _first_id, _last_id, keys}] -> keys
      [] -> []
    end
  end

  defp entries(tables, block) do
    case :ets.lookup(tables.blocks, block) do
      [row] -> row |> Tuple.to_list() |> tl()
      [] -> []
    end
  end

  # Nil if it is gone.
  defp at(tables, place) do
    :ets.lookup_element(tables.blocks, div(place, @block), 2 + rem(place, @block))
  rescue
    ArgumentError -> nil
  end
end

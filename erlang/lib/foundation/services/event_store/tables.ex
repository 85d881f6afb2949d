defmodule Foundation.Services.EventStore.Tables do
  @moduledoc false
  # The settled events: four tables that their owner writes and anybody reads.
  #
  #     blocks         {block, event or nil, …}                     up to @block events, in the order in which they came
  #     keys           {block, first and last timestamp, first and last id, types, timestamps, ids}: a list and two
  #                    tuples, with nil for an event that is gone
  #     places         {id, place}                                  place: block * @block + position in it
  #     correlations   {hash of a correlation id, place}, a bag
  #
  # An object comes out of a table in one copy, so many events come out fastest in large objects; of one block a single
  # event can be taken, too. What a query looks for is decided by the keys of the blocks, of which it takes what it needs, and blocks
  # that lie outside of its range are not looked at.
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
  @together 48
  # Where the types are among the keys.
  @types 6
  @unsettled 1
  @last_block 2
  @size 3

  @spec new() :: t()
  def new do
    options = [:protected, read_concurrency: true]

    %__MODULE__{
      blocks: :ets.new(:foundation_events, [:set | options]),
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
    unless append(tables, events) do
      {known, new} = Enum.split_with(events, &:ets.member(tables.places, &1.event_id))
      for event <- known, do: replace(tables, event)
      true = append(tables, new)
    end

    :ok
  end

  defp replace(tables, event) do
    place = :ets.lookup_element(tables.places, event.event_id, 2)
    {block, position} = {div(place, @block), rem(place, @block)}
    entries = entries(tables, block)
    before = Enum.at(entries, position)

    if before.correlation_id != event.correlation_id do
      unlink(tables, hash(before), place)
      :ets.insert(tables.correlations, links([event], place))
    end

    put_block(tables, block, List.replace_at(entries, position, event))
  end

  defp append(_tables, []), do: true

  # False, and nothing is done, if one of them is there already: to ask for each costs more than all else.
  defp append(tables, events) do
    {first, before} = open_block(tables)
    place = first * @block + length(before)

    if :ets.insert_new(tables.places, places_of(events, place)) do
      put_blocks(tables, first, before ++ events)
      :ets.insert(tables.correlations, links(events, place))
      :atomics.add(tables.counters, @size, length(events))
      true
    else
      false
    end
  end

  defp places_of([event | events], place),
    do: [{event.event_id, place} | places_of(events, place + 1)]

  defp places_of([], _place), do: []

  defp links([event | events], place) do
    case hash(event) do
      nil -> links(events, place + 1)
      hash -> [{hash, place} | links(events, place + 1)]
    end
  end

  defp links([], _place), do: []

  # The block that the next event goes to, and what it has. Numbers of blocks that are gone are not used again: a reader may
  # still be about to look for one.
  defp open_block(tables) do
    last = :atomics.get(tables.counters, @last_block)
    before = entries(tables, last)
    if length(before) in 1..(@block - 1), do: {last, before}, else: {last + 1, []}
  end

  defp put_blocks(_tables, _block, []), do: :ok

  defp put_blocks(tables, block, entries) do
    {these, later} = Enum.split(entries, @block)
    put_block(tables, block, these)
    :atomics.put(tables.counters, @last_block, block)
    put_blocks(tables, block + 1, later)
  end

  defp put_block(tables, block, entries) do
    case columns(entries) do
      {_types, [], [], _timestamps, _ids} ->
        :ets.delete(tables.keys, block)
        :ets.delete(tables.blocks, block)

      {types, all_timestamps, all_ids, timestamps, ids} ->
        {first, last} = Enum.min_max(all_timestamps)
        {first_id, last_id} = Enum.min_max(all_ids)
        :ets.insert(tables.blocks, List.to_tuple([block | entries]))
        {timestamps, ids} = {List.to_tuple(timestamps), List.to_tuple(ids)}
        :ets.insert(tables.keys, {block, first, last, first_id, last_id, types, timestamps, ids})
    end

    :ok
  end

  # The types, timestamps and ids of a block, and before the latter two the same without those that are gone.
  defp columns(entries) do
    if nil in entries do
      present = Enum.reject(entries, &is_nil/1)

      {for(entry <- entries, do: entry && entry.event_type), Enum.map(present, & &1.timestamp),
       Enum.map(present, & &1.event_id), for(entry <- entries, do: entry && entry.timestamp),
       for(entry <- entries, do: entry && entry.event_id)}
    else
      timestamps = for %{timestamp: timestamp} <- entries, do: timestamp
      ids = for %{event_id: id} <- entries, do: id
      {for(%{event_type: type} <- entries, do: type), timestamps, ids, timestamps, ids}
    end
  end

  defp unlink(_tables, nil, _place), do: true
  defp unlink(tables, hash, place), do: :ets.delete_object(tables.correlations, {hash, place})

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
      {{:"$1", :"$2", :_, :_, :_, :_, :_, :_}, [{:<, :"$2", timestamp}], [:"$1"]}
    ]

    stale =
      for block <- :ets.select(tables.keys, with_earlier), reduce: [] do
        stale ->
          entries = entries(tables, block)
          put_block(tables, block, Enum.map(entries, &since(&1, timestamp)))

          for {%{timestamp: earlier} = event, place} when earlier < timestamp <-
                Enum.with_index(entries, block * @block),
              reduce: stale do
            stale -> [{event.event_id, hash(event), place} | stale]
          end
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
      unlink(tables, hash, place)
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
    hash = :erlang.phash2(correlation_id)

    # Of equal hashes the events themselves are looked at.
    for {_hash, place} <- :ets.lookup(tables.correlations, hash),
        %Event{correlation_id: ^correlation_id} = event <- [at(tables, place)],
        do: event
  end

  @doc false
  # The events that match, in the order in which they came but for those that have not settled.
  @spec select(t(), map(), recent()) :: [Event.t()]
  def select(tables, query, recent) do
    wanted = wanted(query)
    unsettled = for {_id, event} <- recent, wanted?(event, wanted), do: event

    # From the last block on, so that each is put before what is there already.
    blocks =
      for [block, first, last | _ids] <- tables |> ranges(wanted) |> Enum.reverse(),
          which = which(tables, block, first, last, wanted, recent),
          which != [],
          do: {block, which}

    count =
      for {_block, which} <- blocks, reduce: 0 do
        count -> count + if(which == :all, do: @block, else: length(which))
      end

    with_room(tables, count, fn ->
      Enum.reduce(blocks, unsettled, fn {block, which}, found ->
        matching(tables, block, which, found)
      end)
    end)
  end

  defp which(tables, block, first, last, wanted, recent) do
    if recent == %{} and all?(wanted, first, last),
      do: :all,
      else: places(tables, block, wanted, {first, last}, recent)
  end

  # A heap that grows step by step is copied at each: more than half of the time that it takes to give 10,000 events. It is made large enough at
  # once; a later collection shrinks it.
  defp with_room(tables, count, fun) do
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

  # Those that are gone since the keys were looked at are left out.
  defp matching(tables, block, :all, found), do: tables |> entries(block) |> prepend(found)

  defp matching(tables, block, places, found) when length(places) >= @together do
    case :ets.lookup(tables.blocks, block) do
      [row] -> Enum.reduce(places, found, &prepend([in_row(row, &1)], &2))
      [] -> found
    end
  end

  defp matching(tables, _block, places, found),
    do: Enum.reduce(places, found, &prepend([at(tables, &1)], &2))

  @doc false
  # The `count` first events that match, after the `offset` first ones.
  @spec first(t(), map(), recent(), order(), non_neg_integer(), pos_integer()) :: [Event.t()]
  def first(tables, query, recent, order, offset, count) do
    wanted = wanted(query)

    unsettled =
      for {_id, event} <- recent,
          wanted?(event, wanted),
          do: ranked(order, event.timestamp, event.event_id, event)

    ranges = tables |> ranges(wanted) |> Enum.map(&{at_best(order, &1), hd(&1)}) |> Enum.sort()
    blocks = 1 + div(offset + count, @block)

    found =
      {tables, wanted, recent, order, offset + count}
      |> lowest(ranges, {blocks, blocks}, Enum.sort(unsettled))
      |> Enum.slice(offset, count)

    with_room(tables, length(found), fn -> events(tables, found) end)
  end

  defp events(tables, found) do
    blocks = for {_first, _second, place} when is_integer(place) <- found, do: div(place, @block)

    together =
      for block <- blocks |> Enum.sort() |> often(0),
          [row] <- [:ets.lookup(tables.blocks, block)],
          into: %{},
          do: {block, row}

    for {_first, _second, which} <- found, event = event(tables, together, which), do: event
  end

  # What is there @together times and more; `count` of the first one have been before.
  defp often([block, block | blocks], count), do: often([block | blocks], count + 1)
  defp often([block | blocks], count) when count + 1 >= @together, do: [block | often(blocks, 0)]
  defp often([_few | blocks], _count), do: often(blocks, 0)
  defp often([], _count), do: []

  # Blocks are looked at in the order of the best that they can have, until no other can have anything better than what is found. `step` are the
  # next, `seen` are all of them.
  defp lowest({tables, wanted, recent, order, count} = query, ranges, {step, seen}, found) do
    {next, rest} = Enum.split(ranges, step)

    more =
      for {_best, block} <- next,
          {timestamp, id, place} <- matching_keys(tables, block, wanted, recent),
          do: ranked(order, timestamp, id, place)

    found = more |> Enum.sort() |> :lists.merge(found) |> Enum.take(count)

    case rest do
      [{best, _block} | _others] ->
        if length(found) == count and List.last(found) < best do
          found
        else
          step = step(step, seen, length(found), count)
          lowest(query, rest, {step, seen + step}, found)
        end

      [] ->
        found
    end
  end

  # As many as what is missing should be in, by those that have been seen.
  defp step(step, seen, found, count) when found > 0 and found < count,
    do: min(1 + div((count - found) * seen, found), 4 * step)

  defp step(step, _seen, _found, _count), do: 2 * step

  # What is ordered, then the place, or the event of an unsettled one: ids differ, so these are never compared. Flat, because most of the time of a
  # query is comparing.
  defp ranked(:timestamp, timestamp, id, which), do: {timestamp, id, which}
  defp ranked(:event_id, _timestamp, id, which), do: {id, id, which}
  defp ranked(:latest, timestamp, id, which), do: {-timestamp, -id, which}

  # Not above the best of the block, whose first id need not be that of its first event.
  defp at_best(:latest, [_block, _first, last, _first_id, last_id]), do: {-last, -last_id, -1}

  defp at_best(order, [_block, first, _last, first_id, _last_id]),
    do: ranked(order, first, first_id, -1)

  defp event(tables, together, place) when is_integer(place) do
    block = div(place, @block)

    case together do
      %{^block => row} -> in_row(row, place)
      _one_by_one -> at(tables, place)
    end
  end

  defp event(_tables, _together, unsettled), do: unsettled

  ## Walks

  defp wanted(query), do: {query[:event_type], query[:time_range]}

  # No two of them are compared: of equal hashes the events themselves are looked at.
  defp hash(%{correlation_id: nil}), do: nil
  defp hash(%{correlation_id: correlation_id}), do: :erlang.phash2(correlation_id)

  defp wanted?(%{event_type: type, timestamp: timestamp}, {of_type, range}),
    do: (of_type == nil or type == of_type) and within?(timestamp, range)

  defp within?(_timestamp, nil), do: true
  defp within?(timestamp, {from, to}), do: timestamp >= from and timestamp <= to

  # [block, first and last timestamp, first and last id] of the blocks that may have something.
  defp ranges(tables, {_type, range}) do
    within =
      case range do
        nil -> []
        {from, to} -> [{:>=, :"$3", {:const, from}}, {:"=<", :"$2", {:const, to}}]
      end

    :ets.select(tables.keys, [{{:"$1", :"$2", :"$3", :"$4", :"$5", :_, :_, :_}, within, [:"$$"]}])
  end

  # Where what matches is in a block, but for what has not settled; the last one first.
  defp places(tables, block, {type, range} = wanted, {first, last}, recent) do
    if recent == %{} and all?({nil, range}, first, last) do
      types = types(tables, block)
      # Most blocks have none of a rare type: this looks fastest.
      if :lists.member(type, types), do: of_type(types, type, block * @block, []), else: []
    else
      for {_timestamp, _id, place} <- matching_keys(tables, block, wanted, recent), do: place
    end
  end

  defp of_type([type | types], type, place, found),
    do: of_type(types, type, place + 1, [place | found])

  defp of_type([_other | types], type, place, found), do: of_type(types, type, place + 1, found)
  defp of_type([], _type, _place, found), do: found

  defp types(tables, block) do
    :ets.lookup_element(tables.keys, block, @types)
  rescue
    ArgumentError -> gone(tables, [])
  end

  # {timestamp, id, place}, the last one first.
  defp matching_keys(tables, block, wanted, recent) do
    case :ets.lookup(tables.keys, block) do
      [{_block, _first, _last, _first_id, _last_id, types, timestamps, ids}] ->
        matching_keys(types, 0, {block * @block, timestamps, ids}, wanted, recent, [])

      [] ->
        []
    end
  end

  defp matching_keys([other | types], n, keys, {type, _range} = wanted, recent, found)
       when type != nil and other != type,
       do: matching_keys(types, n + 1, keys, wanted, recent, found)

  defp matching_keys([_of_type | types], n, keys, {_type, range} = wanted, recent, found) do
    {place, timestamps, ids} = keys
    {timestamp, id} = {elem(timestamps, n), elem(ids, n)}

    if id != nil and within?(timestamp, range) and not is_map_key(recent, id) do
      found = [{timestamp, id, place + n} | found]
      matching_keys(types, n + 1, keys, wanted, recent, found)
    else
      matching_keys(types, n + 1, keys, wanted, recent, found)
    end
  end

  defp matching_keys([], _n, _keys, _wanted, _recent, found), do: found

  defp entries(tables, block) do
    case :ets.lookup(tables.blocks, block) do
      [row] -> row |> Tuple.to_list() |> tl()
      [] -> []
    end
  end

  defp in_row(row, place), do: elem(row, 1 + rem(place, @block))

  # Nil if it is gone.
  defp at(tables, place) do
    :ets.lookup_element(tables.blocks, div(place, @block), 2 + rem(place, @block))
  rescue
    ArgumentError -> gone(tables, nil)
  end

  # Of the block, not of the table with all others: that is an error.
  defp gone(tables, nothing) do
    _none = :ets.member(tables.blocks, 0)
    nothing
  end
end

defmodule Foundation.Events.Ring do
  @moduledoc """
  A bounded queue that many processes write to and one empties: for bursts of events that are to be looked at later.

      ring = Foundation.Events.Ring.new(100_000)
      :ok = Foundation.Events.Ring.push(ring, event)
      events = Foundation.Events.Ring.drain(ring, 1000)

  When it is full `push/2` gives `{:error, :full}` and counts it; what was accepted comes out, in the order in which the places were taken. Writing
  takes a place with one atomic operation and puts the term into a table: no process is asked.

  One place can be lost: that of a process that is killed between the two. It is skipped a second later and counted.
  """

  @enforce_keys [:table, :numbers, :capacity]
  defstruct @enforce_keys

  @opaque t :: %__MODULE__{}

  # Numbers: the next to write, the next to read, refused, skipped, and since when the next to read is missing.
  @write 1
  @read 2
  @refused 3
  @skipped 4
  @missing_since 5
  @patience_ms 1_000

  @doc """
  A ring for `capacity` terms. It belongs to the calling process and goes with it.
  """
  @spec new(pos_integer()) :: t()
  def new(capacity) when is_integer(capacity) and capacity > 0 do
    %__MODULE__{
      table: :ets.new(__MODULE__, [:set, :public, write_concurrency: true]),
      numbers: :atomics.new(5, signed: true),
      capacity: capacity
    }
  end

  @doc """
  Adds a term.
  """
  @spec push(t(), term()) :: :ok | {:error, :full}
  def push(%__MODULE__{numbers: numbers} = ring, term) do
    case place(numbers, :atomics.get(numbers, @write), ring.capacity) do
      :full ->
        :atomics.add(numbers, @refused, 1)
        {:error, :full}

      place ->
        :ets.insert(ring.table, {place, term})
        :ok
    end
  end

  defp place(numbers, place, capacity) do
    if place - :atomics.get(numbers, @read) >= capacity do
      :full
    else
      case :atomics.compare_exchange(numbers, @write, place, place + 1) do
        :ok -> place
        other -> place(numbers, other, capacity)
      end
    end
  end

  @doc """
  Takes up to `count` terms out, the oldest first. Only one process at a time may do so.
  """
  @spec drain(t(), pos_integer()) :: [term()]
  def drain(%__MODULE__{numbers: numbers} = ring, count) when is_integer(count) and count > 0 do
    first = :atomics.get(numbers, @read)
    last = min(:atomics.get(numbers, @write), first + count)
    {terms, next} = take(ring, first, last, [])
    :atomics.put(numbers, @read, next)
    :lists.reverse(terms)
  end

  defp take(_ring, last, last, terms), do: {terms, last}

  defp take(ring, place, last, terms) do
    case :ets.take(ring.table, place) do
      [{_place, term}] ->
        :atomics.put(ring.numbers, @missing_since, 0)
        take(ring, place + 1, last, [term | terms])

      [] ->
        if abandoned?(ring.numbers) do
          :atomics.add(ring.numbers, @skipped, 1)
          take(ring, place + 1, last, terms)
        else
          {terms, place}
        end
    end
  end

  # A writer that has taken its place needs a moment to fill it.
  defp abandoned?(numbers) do
    now = System.monotonic_time(:millisecond)

    case :atomics.get(numbers, @missing_since) do
      0 ->
        # 0 means that none is missing.
        :atomics.put(numbers, @missing_since, if(now == 0, do: 1, else: now))
        false

      since when now - since > @patience_ms ->
        :atomics.put(numbers, @missing_since, 0)
        true

      _recent ->
        false
    end
  end

  @doc """
  `%{size: waiting, capacity: _, accepted: since the start, refused: _, skipped: _}`.
  """
  @spec stats(t()) :: %{atom() => non_neg_integer()}
  def stats(%__MODULE__{numbers: numbers, capacity: capacity}) do
    written = :atomics.get(numbers, @write)

    %{
      size: written - :atomics.get(numbers, @read),
      capacity: capacity,
      accepted: written,
      refused: :atomics.get(numbers, @refused),
      skipped: :atomics.get(numbers, @skipped)
    }
  end
end

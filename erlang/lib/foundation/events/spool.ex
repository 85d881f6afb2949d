defmodule Foundation.Events.Spool do
  @moduledoc """
  Events as binaries, kept in order and by correlation until they are shipped.

      spool = Foundation.Events.Spool.new(max_bytes: 16 * 1024 * 1024)
      {:ok, 0} = Foundation.Events.Spool.append(spool, event)
      [binary] = Foundation.Events.Spool.correlate(spool, event.correlation_id)
      [binary] = Foundation.Events.Spool.drain(spool, 1000)

  Any process appends and looks, and the oldest events leave first. It is bounded by bytes: `append/3` gives `{:error, :full}` and counts it,
  and what was accepted comes out. Each event counts with its bytes, those of its correlation, and 128 more.

  With the native functions the bytes are outside of the heaps and tables of the VM. Without them two tables that belong to the
  calling process do the same. For events that are looked at as terms use `Foundation.Events`, whose store needs no decoding; for a queue of terms
  use `Foundation.Events.Ring`.

  A spool that is dropped with much in it is freed at once by the scheduler that collects it: drain it first.
  """

  alias Foundation.Native
  alias Foundation.Native.Loader
  alias Foundation.Types.Event

  @enforce_keys [:engine, :max_bytes]
  defstruct @enforce_keys

  @opaque t :: %__MODULE__{}

  @max_bytes 64 * 1024 * 1024
  @overhead 128
  # Bytes that are copied within 100 microseconds on a busy machine. Where it depends on what is in the spool the native function says so.
  @dirty_bytes 64 * 1024

  # Numbers of the tables: the next event, bytes here, refused.
  @next 1
  @bytes 2
  @refused 3

  @doc """
  An empty spool. `max_bytes:` is 64 MiB if not given; `native: false` takes the tables in any case.
  """
  @spec new(keyword()) :: t()
  def new(opts \\ []) do
    max_bytes = Keyword.get(opts, :max_bytes, @max_bytes)

    unless is_integer(max_bytes) and max_bytes > 0,
      do: raise(ArgumentError, "max_bytes: is #{inspect(max_bytes)}; it is a positive integer")

    engine =
      if Keyword.get(opts, :native, true) and Native.loaded?(),
        do: Loader.spool_new(max_bytes),
        else: tables()

    %__MODULE__{engine: engine, max_bytes: max_bytes}
  end

  defp tables do
    {:ets.new(__MODULE__, [:ordered_set, :public]), :ets.new(__MODULE__, [:ordered_set, :public]),
     :atomics.new(3, signed: true)}
  end

  @doc """
  Adds an event in the external term format under its correlation. Its number comes back, the first is 0.
  """
  @spec append(t(), Event.t()) :: {:ok, non_neg_integer()} | {:error, :full}
  def append(%__MODULE__{} = spool, %Event{} = event),
    do: append(spool, :erlang.term_to_binary(event), event.correlation_id || "")

  @doc """
  Adds bytes under a correlation; `""` is none.
  """
  @spec append(t(), binary(), binary()) :: {:ok, non_neg_integer()} | {:error, :full}
  def append(%__MODULE__{engine: engine} = spool, bytes, correlation)
      when is_binary(bytes) and is_binary(correlation) do
    cond do
      is_tuple(engine) ->
        append_own(spool, bytes, correlation)

      byte_size(bytes) + byte_size(correlation) > @dirty_bytes ->
        Loader.spool_append_dirty(engine, bytes, correlation)

      true ->
        with {:error, :dirty} <- Loader.spool_append(engine, bytes, correlation),
             do: Loader.spool_append_dirty(engine, bytes, correlation)
    end
  end

  defp append_own(%{engine: {events, index, numbers}} = spool, bytes, correlation) do
    cost = cost(bytes, correlation)

    if :atomics.add_get(numbers, @bytes, cost) > spool.max_bytes do
      :atomics.sub(numbers, @bytes, cost)
      :atomics.add(numbers, @refused, 1)
      {:error, :full}
    else
      number = :atomics.add_get(numbers, @next, 1) - 1
      # Bytes of a message are a part of a larger binary, which would stay.
      :ets.insert(events, {number, :binary.copy(bytes), correlation})
      if correlation != "", do: :ets.insert(index, {{correlation, number}})
      {:ok, number}
    end
  end

  defp cost(bytes, correlation), do: byte_size(bytes) + byte_size(correlation) + @overhead

  @doc """
  The events of a correlation that are here, the oldest first, at most `count`.
  """
  @spec correlate(t(), binary(), pos_integer()) :: [binary()]
  def correlate(%__MODULE__{engine: engine}, correlation, count \\ 1000)
      when is_binary(correlation) and is_integer(count) and count > 0 do
    cond do
      is_tuple(engine) -> correlate_own(engine, correlation, count)
      byte_size(correlation) > @dirty_bytes -> correlate_dirty(engine, correlation, count)
      true -> correlate_native(engine, correlation, count)
    end
  end

  defp correlate_native(engine, correlation, count) do
    case Loader.spool_correlate(engine, correlation, count) do
      {:ok, events} -> events
      {:error, :dirty} -> correlate_dirty(engine, correlation, count)
    end
  end

  defp correlate_dirty(engine, correlation, count),
    do: Loader.spool_correlate_dirty(engine, correlation, count)

  defp correlate_own({events, index, _numbers}, correlation, count) do
    case :ets.select(index, [{{{correlation, :"$1"}}, [], [:"$1"]}], count) do
      {numbers, _more} ->
        for number <- numbers, {_number, bytes, _} <- :ets.lookup(events, number), do: bytes

      :"$end_of_table" ->
        []
    end
  end

  @doc """
  Takes the oldest events out, at most `count`. Only one process at a time may do so.
  """
  @spec drain(t(), pos_integer()) :: [binary()]
  def drain(%__MODULE__{engine: engine}, count) when is_integer(count) and count > 0 do
    if is_tuple(engine), do: drain_own(engine, count, []), else: drain_native(engine, count)
  end

  # Few small events at once; what is more on a dirty scheduler.
  defp drain_native(engine, count) do
    case Loader.spool_drain(engine, count) do
      {:all, events} -> events
      {:more, []} -> Loader.spool_drain_dirty(engine, count)
      {:more, events} -> events ++ Loader.spool_drain_dirty(engine, count - length(events))
    end
  end

  defp drain_own(_engine, 0, drained), do: :lists.reverse(drained)

  defp drain_own({events, index, numbers} = engine, count, drained) do
    case :ets.first(events) do
      :"$end_of_table" ->
        :lists.reverse(drained)

      number ->
        [{_number, bytes, correlation}] = :ets.take(events, number)
        :ets.delete(index, {correlation, number})
        :atomics.sub(numbers, @bytes, cost(bytes, correlation))
        drain_own(engine, count - 1, [bytes | drained])
    end
  end

  @doc """
  `%{events: here, bytes: as they are counted, correlations: here, appended: since the start, refused: _}`.
  """
  @spec stats(t()) :: %{atom() => non_neg_integer()}
  def stats(%__MODULE__{engine: {events, index, numbers}}) do
    %{
      events: :ets.info(events, :size),
      bytes: :atomics.get(numbers, @bytes),
      correlations: correlations(index, :ets.first(index), 0),
      appended: :atomics.get(numbers, @next),
      refused: :atomics.get(numbers, @refused)
    }
  end

  def stats(%__MODULE__{engine: engine}) do
    {:ok, {events, bytes, correlations, appended, refused}} =
      with {:error, :dirty} <- Loader.spool_stats(engine), do: Loader.spool_stats_dirty(engine)

    %{
      events: events,
      bytes: bytes,
      correlations: correlations,
      appended: appended,
      refused: refused
    }
  end

  defp correlations(_index, :"$end_of_table", count), do: count

  # An atom comes after every number.
  defp correlations(index, {correlation, _number}, count),
    do: correlations(index, :ets.next(index, {correlation, :end}), count + 1)
end

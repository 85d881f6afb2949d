defmodule Foundation.BEAM.Messages do
  @moduledoc """
  Sending large terms in other ways than by copying them.

  The BEAM copies a term into the receiver's heap, except for binaries above 64 bytes, which are shared. Sending as it is is the fastest
  for nearly everything; what is here helps where the same large term goes to many processes, or where most receivers look at little of it.

  | strategy | receiver gets | answer |
  |---|---|---|
  | `:direct` | the term | the term, as `send/2` |
  | `:ets_reference` | `{:ets_ref, reference, table}`, for `open/1`; this node only | `{:ok, reference}` |
  | `:binary_sharing`, `:ref_counted_binary` | `{:shared_binary, binary}`, for `open/1` | `{:ok, bytes}` |
  | `:flow_controlled` | the term, once its queue is short enough | `{:ok, :sent}` or `{:error, {:flow_control_failed, reason}}` |
  """

  require Logger

  @small 1_024
  @large 10_240
  @table __MODULE__
  # More are not put aside: they are sent as they are.
  @max_references 10_000
  @ttl_ms 60_000
  @max_queue 1000

  @type strategy ::
          :direct | :ets_reference | :binary_sharing | :ref_counted_binary | :flow_controlled
  @type result :: term() | {:ok, term()} | {:error, {:flow_control_failed, term()}}

  @doc """
  Sends a term by the given `strategy:`, or by the one that suits.

  Which one suits: `:direct` below 1 KiB with `priority: :high`; `:ets_reference` above 10,240 bytes, for a process of this node;
  `:binary_sharing` with `frequency: :frequent | :continuous`; `:flow_controlled` with `flow_control:`; `:binary_sharing` above 1 KiB; else
  `:direct`. Bytes are those of the external term format.

  Options: `ttl`, how long a reference can be opened, 60,000 ms; `compression: :high | :low`; `max_queue_size` (1000), `max_retries` (3) and
  `retry_delay` (100 ms, doubling) of flow control.
  """
  @spec send_optimized(pid(), term(), keyword()) :: result()
  def send_optimized(pid, data, opts \\ []) when is_pid(pid) do
    case opts[:strategy] || strategy(pid, data, opts) do
      :direct ->
        send(pid, data)

      :ets_reference ->
        by_reference(pid, data, Keyword.get(opts, :ttl, @ttl_ms))

      sharing when sharing in [:binary_sharing, :ref_counted_binary] ->
        shared(pid, data, opts[:compression])

      :flow_controlled ->
        controlled(pid, data, opts)
    end
  end

  defp strategy(pid, data, opts) do
    size = :erlang.external_size(data)

    cond do
      size < @small and opts[:priority] == :high -> :direct
      size > @large and node(pid) == node() -> :ets_reference
      opts[:frequency] in [:frequent, :continuous] -> :binary_sharing
      opts[:flow_control] -> :flow_controlled
      size > @small -> :binary_sharing
      true -> :direct
    end
  end

  @doc """
  The term behind what `send_optimized/3` delivered. `:error` if a reference is too old.
  """
  @spec open({:ets_ref, reference(), atom()} | {:shared_binary, binary()}) ::
          {:ok, term()} | :error
  def open({:ets_ref, reference, table}) do
    case :ets.lookup(table, reference) do
      [{_reference, data}] -> {:ok, data}
      [] -> :error
    end
  rescue
    ArgumentError -> :error
  end

  def open({:shared_binary, binary}) when is_binary(binary) do
    {:ok, :erlang.binary_to_term(binary)}
  rescue
    ArgumentError -> :error
  end

  defp by_reference(pid, data, ttl) do
    create_table()

    if :ets.info(@table, :size) < @max_references and node(pid) == node() do
      reference = make_ref()
      :ets.insert(@table, {reference, data})
      {:ok, _timer} = :timer.apply_after(ttl, :ets, :delete, [@table, reference])
      send(pid, {:ets_ref, reference, @table})
      {:ok, reference}
    else
      send(pid, data)
    end
  end

  defp shared(pid, data, compression) do
    binary =
      case compression do
        :high -> :erlang.term_to_binary(data, compressed: 9)
        :low -> :erlang.term_to_binary(data, compressed: 1)
        _none -> :erlang.term_to_binary(data)
      end

    send(pid, {:shared_binary, binary})
    {:ok, byte_size(binary)}
  end

  defp controlled(pid, data, opts) do
    limit = Keyword.get(opts, :max_queue_size, @max_queue)

    await(
      pid,
      data,
      limit,
      Keyword.get(opts, :max_retries, 3),
      Keyword.get(opts, :retry_delay, 100)
    )
  end

  defp await(pid, data, limit, retries, delay) do
    case queue(pid) do
      {:ok, length} when length < limit ->
        send(pid, data)
        {:ok, :sent}

      {:ok, _length} when retries > 0 ->
        Process.sleep(delay)
        await(pid, data, limit, retries - 1, delay * 2)

      {:ok, length} ->
        {:error, {:flow_control_failed, {:queue_full, length}}}

      {:error, reason} ->
        {:error, {:flow_control_failed, reason}}
    end
  end

  @doc """
  `send_optimized/3`, unless the receiver's queue has `max_queue_size` (1000) messages or more.

  Then `backpressure_strategy:` says what happens: `:drop`, the default, `{:dropped, :backpressure}`; `:queue`, a process of its own
  goes on trying as `:flow_controlled` does, `{:queued, :backpressure}`; `:alternative` sends to `alternative:`, a pid, or without one gives
  `{:dropped, :no_alternative}`. A process that is dead or cannot be asked counts as full.
  """
  @spec send_with_backpressure(pid(), term(), keyword()) ::
          result() | {:dropped, :backpressure | :no_alternative} | {:queued, :backpressure}
  def send_with_backpressure(pid, data, opts \\ []) when is_pid(pid) do
    limit = Keyword.get(opts, :max_queue_size, @max_queue)

    case queue(pid) do
      {:ok, length} when length < limit -> send_optimized(pid, data, opts)
      _full -> press(Keyword.get(opts, :backpressure_strategy, :drop), pid, data, opts)
    end
  end

  defp press(:drop, pid, _data, _opts) do
    Logger.warning("Dropping message to #{inspect(pid)} due to backpressure")
    {:dropped, :backpressure}
  end

  defp press(:queue, pid, data, opts) do
    spawn(fn ->
      with {:error, reason} <- controlled(pid, data, opts),
           do: Logger.warning("Dropping queued message to #{inspect(pid)}: #{inspect(reason)}")
    end)

    {:queued, :backpressure}
  end

  defp press(:alternative, _pid, data, opts) do
    case opts[:alternative] do
      pid when is_pid(pid) -> send_optimized(pid, data, Keyword.delete(opts, :alternative))
      nil -> {:dropped, :no_alternative}
    end
  end

  defp queue(pid) do
    info =
      if node(pid) == node(),
        do: Process.info(pid, :message_queue_len),
        else: :erpc.call(node(pid), Process, :info, [pid, :message_queue_len], 5000)

    case info do
      {:message_queue_len, length} -> {:ok, length}
      nil -> {:error, :noproc}
    end
  catch
    :error, {:erpc, reason} -> {:error, reason}
    :error, {:exception, reason, _stack} -> {:error, reason}
  end

  @doc false
  @spec create_table() :: :ok
  def create_table do
    if :ets.whereis(@table) == :undefined,
      do: :ets.new(@table, [:named_table, :public, :set, read_concurrency: true])

    :ok
  rescue
    # Two processes made it at once.
    ArgumentError -> :ok
  end
end

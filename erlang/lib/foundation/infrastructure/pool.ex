defmodule Foundation.Infrastructure.Pool do
  @moduledoc """
  Pools of workers: `:poolboy` when the host application has it, else the process here.

  `size` workers are started with the pool, up to `max_overflow` more when all are out; those stop when they come back.
  A checkout waits until a worker is free. A worker that dies is replaced; a borrower that dies returns its worker.
  """

  use GenServer

  alias Foundation.Host

  @type status ::
          {:ready | :overflow | :full, non_neg_integer(), non_neg_integer(), non_neg_integer()}

  @doc """
  Starts a pool. Arguments: `name: {:local, atom}`, `worker_module`, `size`, `max_overflow`, `strategy: :lifo | :fifo`.
  """
  @spec start_link(keyword(), term()) :: GenServer.on_start()
  def start_link(pool_args, worker_args) do
    case Host.module(:poolboy) do
      nil ->
        {:local, name} = Keyword.fetch!(pool_args, :name)
        GenServer.start_link(__MODULE__, {Map.new(pool_args), worker_args}, name: name)

      poolboy ->
        poolboy.start_link(pool_args, worker_args)
    end
  end

  @doc """
  Takes a worker out. Waits at most `timeout` milliseconds, then exits with `{:timeout, _}`.
  """
  @spec checkout(GenServer.server(), timeout()) :: pid()
  def checkout(pool, timeout) do
    case Host.module(:poolboy) do
      nil -> checkout_own(pool, timeout)
      poolboy -> poolboy.checkout(pool, true, timeout)
    end
  end

  @doc """
  Gives a worker back.
  """
  @spec checkin(GenServer.server(), pid()) :: :ok
  def checkin(pool, worker) do
    case Host.module(:poolboy) do
      nil -> GenServer.cast(pool, {:checkin, worker})
      poolboy -> poolboy.checkin(pool, worker)
    end
  end

  @doc """
  `{state, free workers, workers beyond size, workers taken out}`.
  """
  @spec status(GenServer.server()) :: status()
  def status(pool) do
    case Host.module(:poolboy) do
      nil -> GenServer.call(pool, :status)
      poolboy -> poolboy.status(pool)
    end
  end

  @doc """
  Stops the pool and its workers.
  """
  @spec stop(GenServer.server()) :: :ok
  def stop(pool) do
    case Host.module(:poolboy) do
      nil -> GenServer.stop(pool)
      poolboy -> poolboy.stop(pool)
    end
  end

  defp checkout_own(pool, timeout) do
    ticket = make_ref()

    try do
      GenServer.call(pool, {:checkout, ticket}, timeout)
    catch
      kind, reason ->
        GenServer.cast(pool, {:cancel, ticket})
        :erlang.raise(kind, reason, __STACKTRACE__)
    end
  end

  ## Callbacks

  @impl GenServer
  def init({pool_args, worker_args}) do
    Process.flag(:trap_exit, true)

    state = %{
      module: pool_args.worker_module,
      args: worker_args,
      size: pool_args.size,
      max_overflow: pool_args.max_overflow,
      strategy: pool_args.strategy,
      overflow: 0,
      free: [],
      # worker => {monitor of the borrower, ticket}
      taken: %{},
      # {from, ticket, monitor of the borrower}
      waiting: :queue.new()
    }

    case start_workers(state, state.size, []) do
      {:ok, free} -> {:ok, %{state | free: free}}
      {:error, reason} -> {:stop, reason}
    end
  end

  defp start_workers(_state, 0, workers), do: {:ok, workers}

  defp start_workers(state, count, workers) do
    with {:ok, worker} <- start_worker(state),
         do: start_workers(state, count - 1, [worker | workers])
  end

  defp start_worker(state) do
    case state.module.start_link(state.args) do
      {:ok, worker} -> {:ok, worker}
      {:error, reason} -> {:error, reason}
      :ignore -> {:error, :ignore}
    end
  end

  @impl GenServer
  def handle_call({:checkout, ticket}, {borrower, _tag} = from, state) do
    case take(state) do
      {:ok, worker, state} ->
        taken = Map.put(state.taken, worker, {Process.monitor(borrower), ticket})
        {:reply, worker, %{state | taken: taken}}

      :none ->
        entry = {from, ticket, Process.monitor(borrower)}
        {:noreply, %{state | waiting: :queue.in(entry, state.waiting)}}
    end
  end

  def handle_call(:status, _from, state) do
    free = length(state.free)

    name =
      cond do
        free > 0 ->
          :ready

        state.overflow < state.max_overflow ->
          if(state.max_overflow == 0, do: :full, else: :overflow)

        true ->
          :full
      end

    {:reply, {name, free, state.overflow, map_size(state.taken)}, state}
  end

  @impl GenServer
  def handle_cast({:checkin, worker}, state), do: {:noreply, return(state, worker)}

  # The borrower gave up; the worker may already be on its way to it.
  def handle_cast({:cancel, ticket}, state) do
    case Enum.find(state.taken, fn {_worker, {_ref, held}} -> held == ticket end) do
      {worker, _entry} -> {:noreply, return(state, worker)}
      nil -> {:noreply, drop_waiting(state, &(elem(&1, 1) == ticket))}
    end
  end

  @impl GenServer
  def handle_info({:DOWN, ref, :process, _borrower, _reason}, state) do
    case Enum.find(state.taken, fn {_worker, {held, _ticket}} -> held == ref end) do
      {worker, _entry} -> {:noreply, return(state, worker)}
      nil -> {:noreply, drop_waiting(state, &(elem(&1, 2) == ref))}
    end
  end

  def handle_info({:EXIT, worker, reason}, state) do
    case pop_in(state.taken[worker]) do
      {{ref, _ticket}, state} ->
        Process.demonitor(ref, [:flush])
        replace(state)

      {nil, state} ->
        if worker in state.free,
          do: replace(%{state | free: List.delete(state.free, worker)}),
          else: other_exit(worker, reason, state)
    end
  end

  def handle_info(_message, state), do: {:noreply, state}

  # The process that started the pool is linked to it as well.
  defp other_exit(_pid, :normal, state), do: {:noreply, state}

  defp other_exit(pid, reason, state) do
    if pid in Process.get(:"$ancestors", []), do: {:stop, reason, state}, else: {:noreply, state}
  end

  defp take(%{free: [worker | free]} = state), do: {:ok, worker, %{state | free: free}}

  defp take(%{overflow: overflow, max_overflow: max} = state) when overflow < max do
    case start_worker(state) do
      {:ok, worker} -> {:ok, worker, %{state | overflow: overflow + 1}}
      {:error, _reason} -> :none
    end
  end

  defp take(_state), do: :none

  defp return(state, worker) do
    case pop_in(state.taken[worker]) do
      {nil, state} ->
        state

      {{ref, _ticket}, state} ->
        Process.demonitor(ref, [:flush])
        hand_on(state, worker)
    end
  end

  # To who waits longest; else back, or away if it is one too many.
  defp hand_on(state, worker) do
    case :queue.out(state.waiting) do
      {{:value, {from, ticket, ref}}, waiting} ->
        GenServer.reply(from, worker)
        %{state | waiting: waiting, taken: Map.put(state.taken, worker, {ref, ticket})}

      {:empty, _waiting} when state.overflow > 0 ->
        stop_worker(worker)
        %{state | overflow: state.overflow - 1}

      {:empty, _waiting} when state.strategy == :fifo ->
        %{state | free: state.free ++ [worker]}

      {:empty, _waiting} ->
        %{state | free: [worker | state.free]}
    end
  end

  # A worker died.
  defp replace(%{overflow: overflow} = state) do
    cond do
      overflow > 0 and :queue.is_empty(state.waiting) ->
        {:noreply, %{state | overflow: overflow - 1}}

      true ->
        case start_worker(state) do
          {:ok, worker} -> {:noreply, hand_on(state, worker)}
          {:error, reason} -> {:stop, {:worker_start_failed, reason}, state}
        end
    end
  end

  defp drop_waiting(state, drop?) do
    {gone, kept} = state.waiting |> :queue.to_list() |> Enum.split_with(drop?)
    for {_from, _ticket, ref} <- gone, do: Process.demonitor(ref, [:flush])
    %{state | waiting: :queue.from_list(kept)}
  end

  defp stop_worker(worker) do
    Process.unlink(worker)
    Process.exit(worker, :shutdown)

    receive do
      {:EXIT, ^worker, _reason} -> :ok
    after
      0 -> :ok
    end
  end

  @impl GenServer
  def terminate(_reason, state) do
    for worker <- state.free ++ Map.keys(state.taken), do: stop_worker(worker)
  end
end

defmodule Foundation.Distributed.Work do
  @moduledoc false
  # Items on nodes. The calling process holds a queue for each node; each call in flight is a process of its own that waits in :erpc, so
  # a node that hangs holds up nothing but its own items.

  alias Foundation.Distributed.Context

  @retries 3
  @ask_ms 5_000

  # queues: node => [index]. busy: node => calls in flight. limits: node => how many at once. calls: reference => {node, index}.
  # attempts: index => how often it was lost. left: how many items have no result yet.
  defstruct [:items, :job, :context, :timeout, :retries, :left] ++
              [queues: %{}, busy: %{}, limits: %{}, calls: %{}, attempts: %{}, results: %{}]

  # The processes of these exit with their result, so they have none to return.
  @dialyzer {:no_return, run: 4, caller_bound: 1, start: 3}

  @spec run([term()], {module(), atom(), [term()]}, [node()], keyword()) :: [
          {:ok, term()} | {:error, term()}
        ]
  def run([], _job, _nodes, _opts), do: []

  def run(items, job, nodes, opts) do
    context = Context.get()

    # In a process of its own: answers and deaths must not mix with the caller's messages, and nothing is left when the caller dies.
    {_pid, ref} =
      caller_bound(fn ->
        limits = limits(nodes, opts[:concurrency])

        work =
          distribute(%__MODULE__{
            items: List.to_tuple(items),
            job: job,
            context: context,
            timeout: Keyword.get(opts, :timeout, :infinity),
            retries: Keyword.get(opts, :retries, @retries),
            left: length(items),
            limits: limits
          })

        work = loop(fill(work))
        exit({:done, for(index <- 0..(length(items) - 1), do: Map.fetch!(work.results, index))})
      end)

    receive do
      {:DOWN, ^ref, :process, _pid, {:done, results}} -> results
      {:DOWN, ^ref, :process, _pid, reason} -> exit(reason)
    end
  end

  defp caller_bound(fun) do
    caller = self()

    spawn_monitor(fn ->
      # The work's calls end with this process, and this process with the caller.
      Process.monitor(caller)
      Process.put(:caller, caller)
      fun.()
    end)
  end

  # How many at once: what the caller says, else what the node has. A node that does not answer gets nothing.
  defp limits(nodes, concurrency) when is_integer(concurrency) and concurrency > 0,
    do: Map.new(nodes, &{&1, concurrency})

  defp limits(nodes, nil) do
    nodes = Enum.uniq(nodes)

    nodes
    |> :erpc.multicall(:erlang, :system_info, [:schedulers_online], @ask_ms)
    |> then(&Enum.zip(nodes, &1))
    |> Enum.flat_map(fn
      {node, {:ok, count}} when is_integer(count) and count > 0 -> [{node, count}]
      # A node that serves jobs but not this question.
      {node, {:error, {:exception, :undef, _stack}}} -> [{node, 1}]
      _away -> []
    end)
    |> Map.new()
  end

  defp distribute(work) do
    nodes = work.limits |> Map.keys() |> Enum.sort()
    indexes = Enum.to_list(0..(work.left - 1))

    if nodes == [] do
      nobody(work, indexes)
    else
      shares = Enum.chunk_every(indexes, div(work.left + length(nodes) - 1, length(nodes)))
      queues = Map.merge(Map.new(nodes, &{&1, []}), Map.new(Enum.zip(nodes, shares)))
      %{work | queues: queues, busy: Map.new(nodes, &{&1, 0})}
    end
  end

  defp nobody(work, indexes) do
    results = Map.new(indexes, &{&1, {:error, :no_nodes}})
    %{work | results: Map.merge(work.results, results), left: work.left - length(indexes)}
  end

  defp loop(%{left: 0} = work), do: work

  defp loop(work) do
    receive do
      {:DOWN, ref, :process, _pid, outcome} when is_map_key(work.calls, ref) ->
        {{node, index}, calls} = Map.pop(work.calls, ref)
        work = %{work | calls: calls}

        work =
          if is_map_key(work.busy, node), do: update_in(work.busy[node], &(&1 - 1)), else: work

        work |> outcome(node, index, outcome) |> fill() |> loop()

      # The caller.
      {:DOWN, _ref, :process, _pid, _reason} ->
        exit(:shutdown)
    end
  end

  # Starts calls while there are items and nodes with room for them.
  defp fill(work) do
    Enum.reduce(Enum.sort(Map.keys(work.limits)), work, &fill(&2, &1))
  end

  defp fill(work, node) do
    with true <- work.busy[node] < work.limits[node],
         {:ok, index, queues} <- take(work.queues, node) do
      %{work | queues: queues}
      |> start(node, index)
      |> fill(node)
    else
      _full_or_nothing_left -> work
    end
  end

  @doc false
  # The next item for a node: its own first, else half of the longest queue becomes its own.
  @spec take(%{node() => [index]}, node()) :: {:ok, index, %{node() => [index]}} | :none
        when index: non_neg_integer()
  def take(queues, node) do
    case queues do
      %{^node => [index | rest]} ->
        {:ok, index, %{queues | node => rest}}

      _own_is_done ->
        {victim, queue} = Enum.max_by(queues, fn {node, queue} -> {length(queue), node} end)

        case Enum.split(queue, div(length(queue), 2)) do
          {[], []} -> :none
          {kept, [index | stolen]} -> {:ok, index, %{queues | victim => kept, node => stolen}}
        end
    end
  end

  defp start(work, node, index) do
    %{job: {module, function, args}, context: context, timeout: timeout} = work
    item = elem(work.items, index)
    parent = self()

    {_pid, ref} =
      spawn_monitor(fn ->
        Process.link(parent)
        exit_with(call(node, context, module, function, args ++ [item], timeout))
      end)

    %{
      work
      | calls: Map.put(work.calls, ref, {node, index}),
        busy: Map.update!(work.busy, node, &(&1 + 1))
    }
  end

  # Unlinked first: an end with a result is no crash of the whole.
  defp exit_with(result) do
    for pid when is_pid(pid) <- elem(Process.info(self(), :links), 1), do: Process.unlink(pid)
    exit({:result, result})
  end

  # A node without this library takes the plain call: it has no context to put the call into.
  defp call(node, context, module, function, args, timeout) when map_size(context) == 0,
    do: erpc(node, {module, function, args}, {module, function}, timeout)

  defp call(node, context, module, function, args, timeout) do
    erpc(
      node,
      {Context, :run, [context, module, function, args]},
      {module, function},
      timeout
    )
  end

  defp erpc(node, {module, function, args}, wanted, timeout) do
    {:ok, :erpc.call(node, module, function, args, timeout)}
  catch
    :throw, value ->
      {:error, {:throw, value}}

    :exit, {:exception, {:foundation_no_job, name}} ->
      {:useless, {:no_job, name}}

    :exit, {:exception, reason} ->
      {:error, {:exit, reason}}

    :exit, reason ->
      {:error, {:exit, reason}}

    :error, {:exception, :undef, [{m, f, _, _} | _]} when {m, f} == wanted or m == module ->
      {:useless, :undef}

    :error, {:exception, reason, _stack} ->
      {:error, reason}

    :error, {:erpc, :timeout} ->
      {:error, :timeout}

    :error, {:erpc, reason} ->
      {:useless, reason}

    :error, reason ->
      {:error, reason}
  end

  defp outcome(work, _node, index, {:result, {kind, _value} = result}) when kind in [:ok, :error],
    do: done(work, index, result)

  defp outcome(work, node, index, {:result, {:useless, reason}}),
    do: work |> without(node) |> again(index, reason)

  defp outcome(work, _node, index, crash), do: done(work, index, {:error, crash})

  defp done(work, index, result),
    do: %{work | results: Map.put(work.results, index, result), left: work.left - 1}

  # A node that gets no more items; those of its queue go to the others.
  defp without(work, node) do
    {queue, queues} = Map.pop(work.queues, node, [])

    work = %{
      work
      | queues: queues,
        limits: Map.delete(work.limits, node),
        busy: Map.delete(work.busy, node)
    }

    requeue(work, queue)
  end

  defp again(work, index, reason) do
    attempts = Map.get(work.attempts, index, 0) + 1
    work = put_in(work.attempts[index], attempts)

    cond do
      attempts > work.retries -> done(work, index, {:error, reason})
      work.queues == %{} -> done(work, index, {:error, reason})
      true -> requeue(work, [index])
    end
  end

  defp requeue(work, []), do: work
  defp requeue(%{queues: queues} = work, indexes) when queues == %{}, do: nobody(work, indexes)

  defp requeue(work, indexes) do
    {node, queue} = Enum.min_by(work.queues, fn {node, queue} -> {length(queue), node} end)
    put_in(work.queues[node], indexes ++ queue)
  end
end

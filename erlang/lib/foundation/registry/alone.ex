defmodule Foundation.Registry.Alone do
  @moduledoc false
  # The registry of one node, for want of the native functions: events and actions as those of the native machine that has no members.

  defstruct [
    :node,
    :me,
    :keys,
    :max_names,
    :max_bytes,
    next: 0,
    ignored: 0,
    entries: %{},
    pids: %{},
    watched: %{}
  ]

  @max_select 1_000

  @doc false
  def new(me, options) do
    %__MODULE__{
      node: node(me),
      me: me,
      keys: Map.get(options, :keys, :unique),
      max_names: Map.get(options, :max_names, 1_048_576),
      max_bytes: Map.get(options, :max_bytes, 65_536)
    }
  end

  @doc false
  def handle(state, _now, events) do
    {state, actions} = Enum.reduce(events, {state, []}, &event/2)

    {actions, _none} =
      actions |> Enum.reverse() |> Enum.map_reduce(found(actions, state), &give/2)

    {:ok, state, actions, nil}
  end

  # What is found under the keys that changed, when all events are taken in. The first change takes all of it.
  defp found(actions, state) do
    keys = for {:changed, changes} <- actions, change <- changes, uniq: true, do: elem(change, 1)

    for key <- Enum.sort(keys) do
      {key, for({_claim, pid, value} <- entries(state, key), do: {pid, value, true})}
    end
  end

  defp give({:changed, changes}, rows), do: {{:changed, changes, rows}, []}
  defp give(action, rows), do: {action, rows}

  defp event({:message, {:"$gen_call", from, request}, wall}, {state, actions}) do
    case call(request, wall, state) do
      {reply, state, done} ->
        {state, [{:reply, from, reply} | done ++ actions]}

      :badarg ->
        {%{state | ignored: state.ignored + 1}, [{:reply, from, {:error, :badarg}} | actions]}
    end
  end

  defp event({:down, monitor}, {state, actions}) do
    case Map.pop(state.watched, monitor) do
      {nil, _watched} ->
        {state, actions}

      {pid, watched} ->
        {{_monitor, keys}, pids} = Map.pop!(state.pids, pid)

        keys
        |> Enum.sort()
        |> Enum.reduce({%{state | watched: watched, pids: pids}, actions}, fn key,
                                                                              {state, actions} ->
          {value, state} = drop(state, key, pid)
          {state, [{:changed, [{:removed, key, pid, value}]} | actions]}
        end)
    end
  end

  defp event({:message, _of_a_member, _wall}, {state, actions}),
    do: {%{state | ignored: state.ignored + 1}, actions}

  defp event(_nodes_and_time, unchanged), do: unchanged

  ## Calls. Actions are given the latest first.

  defp call({:lookup, key}, _wall, state),
    do: {for({_claim, pid, value} <- entries(state, key), do: {pid, value}), state, []}

  defp call({:whereis_name, key}, _wall, %{keys: :unique} = state) do
    case entries(state, key) do
      [{_claim, pid, _value}] -> {pid, state, []}
      [] -> {:undefined, state, []}
    end
  end

  defp call({:keys, pid}, _wall, state) when is_pid(pid), do: {keys(state, pid), state, []}
  defp call(:count, _wall, state), do: {count(state), state, []}
  defp call(:members, _wall, state), do: {[state.node], state, []}

  defp call(:stats, _wall, state) do
    none = Map.new([:behind, :conflicts, :lag_ms, :pushed, :refused, :slowest_ms], &{&1, 0})
    {Map.put(none, :ignored, state.ignored), state, []}
  end

  defp call({:select, from, limit}, _wall, state) when is_integer(limit) do
    with {:ok, sorted} <- sorted_after(state, from) do
      {rows, next} = take(sorted, max(1, min(limit, @max_select)), [])
      {{:ok, rows, next}, state, []}
    end
  end

  defp call({:register, key, value, pid}, wall, state) when is_pid(pid) do
    taken =
      case {state.keys, entries(state, key)} do
        {:unique, [{_claim, holder, _value}]} -> holder
        {:duplicate, entries} -> if List.keymember?(entries, pid, 1), do: pid
        {:unique, []} -> nil
      end

    cond do
      not fits?(state, key, value) -> {{:error, :too_large}, state, []}
      taken != nil -> {{:error, {:already_registered, taken}}, state, []}
      count(state) >= state.max_names -> {{:error, :system_limit}, state, []}
      true -> put(state, key, value, pid, wall)
    end
  end

  defp call({:update_value, key, value, pid}, _wall, state) when is_pid(pid) do
    before = state |> entries(key) |> List.keyfind(pid, 1)

    cond do
      not fits?(state, key, value) ->
        {{:error, :too_large}, state, []}

      before == nil ->
        {{:error, :not_registered}, state, []}

      elem(before, 2) === value ->
        {:ok, state, []}

      true ->
        entries = state |> entries(key) |> List.keyreplace(pid, 1, put_elem(before, 2, value))

        {:ok, put_in(state.entries[key], entries), [{:changed, [{:updated, key, pid, value}]}]}
    end
  end

  defp call({:unregister, key, pid}, _wall, state) when is_pid(pid) do
    if key in keys(state, pid) do
      {value, state} = drop(state, key, pid)
      {state, actions} = forget(state, key, pid)
      {:ok, state, [{:changed, [{:removed, key, pid, value}]} | actions]}
    else
      {:ok, state, []}
    end
  end

  defp call({:wait_until_all, key, timeout}, _wall, state)
       when is_integer(timeout) and timeout >= 0 do
    if entries(state, key) == [],
      do: {{:error, :not_registered}, state, []},
      else: {:ok, state, []}
  end

  defp call(_request, _wall, _state), do: :badarg

  ## Entries: of each key `{claim, pid, value}`, the earliest claim first

  defp entries(state, key), do: Map.get(state.entries, key, [])
  defp count(state), do: state.entries |> Map.values() |> Enum.map(&length/1) |> Enum.sum()

  defp keys(state, pid) do
    case state.pids do
      %{^pid => {_monitor, keys}} -> Enum.sort(keys)
      _none -> []
    end
  end

  defp fits?(state, key, value),
    do:
      byte_size(:erlang.term_to_binary(key)) + byte_size(:erlang.term_to_binary(value)) - 2 <=
        state.max_bytes

  defp put(state, key, value, pid, wall) do
    {state, actions} = watch(state, pid)
    state = update_in(state.pids[pid], fn {monitor, keys} -> {monitor, [key | keys]} end)
    state = put_in(state.entries[key], Enum.sort([{wall, pid, value} | entries(state, key)]))
    {{:ok, state.me}, state, [{:changed, [{:added, key, pid, value}]} | actions]}
  end

  defp watch(state, pid) when is_map_key(state.pids, pid), do: {state, []}

  defp watch(state, pid) do
    monitor = state.next + 1
    state = %{state | next: monitor, watched: Map.put(state.watched, monitor, pid)}
    {put_in(state.pids[pid], {monitor, []}), [{:monitor, monitor, pid}]}
  end

  defp drop(state, key, pid) do
    {{_claim, _pid, value}, entries} = state |> entries(key) |> List.keytake(pid, 1)

    entries =
      if entries == [],
        do: Map.delete(state.entries, key),
        else: Map.put(state.entries, key, entries)

    {value, %{state | entries: entries}}
  end

  defp forget(state, key, pid) do
    case Map.fetch!(state.pids, pid) do
      {monitor, [^key]} ->
        state = %{
          state
          | pids: Map.delete(state.pids, pid),
            watched: Map.delete(state.watched, monitor)
        }

        {state, [{:demonitor, monitor}]}

      {monitor, keys} ->
        {put_in(state.pids[pid], {monitor, keys -- [key]}), []}
    end
  end

  ## Paging

  defp sorted_after(state, from) do
    sorted = Enum.sort(state.entries)

    case from do
      :first -> {:ok, sorted}
      {:after, key} -> {:ok, Enum.drop_while(sorted, fn {other, _entries} -> other <= key end)}
      _other -> :badarg
    end
  end

  # The processes of one key come together, whatever the limit.
  defp take([], _room, rows), do: {Enum.reverse(rows), :end}

  defp take(_more, room, [{key, _pid, _value} | _] = rows) when room <= 0,
    do: {Enum.reverse(rows), {:after, key}}

  defp take([{key, entries} | rest], room, rows) do
    more = for {_claim, pid, value} <- entries, do: {key, pid, value}
    take(rest, room - length(more), Enum.reverse(more, rows))
  end
end

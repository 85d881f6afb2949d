defmodule Foundation.Registry.Server do
  @moduledoc false
  # The process of a registry. It decides nothing: what happens goes to the machine, and what the machine says is done. The machine is
  # native (Foundation.Registry.Native), or for want of it Foundation.Registry.Alone.
  #
  # If this process restarts, its processes' names are registered again; the other nodes see a new incarnation.

  use GenServer
  require Logger

  alias Foundation.Registry.{Alone, Native, Pieces}

  # Calls that are carried out together, so that the other nodes are told of them in one message.
  @batch 256
  # With more than this in the mailbox, looking for calls among it costs more than it saves.
  @queue 1_000
  # What members say to each other; see docs/registry.md.
  @protocol [:hello, :welcome, :have, :writes, :scan, :head, :unknown]

  # unreachable: monitors of processes on nodes that are not connected, until the machine is told.
  defstruct [
    :name,
    :listeners,
    :on_conflict,
    :node,
    :origin,
    :module,
    :machine,
    :timer,
    :pieces,
    monitors: %{},
    refs: %{},
    unreachable: []
  ]

  def start_link({name, _options, _told, _pieces} = registry),
    do: GenServer.start_link(__MODULE__, registry, name: name)

  @impl true
  def init({name, options, {listeners, on_conflict}, pieces}) do
    {module, machine} = machine(name, options)

    state = %__MODULE__{
      name: name,
      listeners: listeners,
      on_conflict: on_conflict,
      node: node(),
      # Times are small and positive whatever the VM's clock began with.
      origin: System.monotonic_time(:nanosecond),
      module: module,
      machine: machine,
      pieces: Pieces.begin(pieces)
    }

    # Listening before looking, so that no node is missed. A node that is not alive has none.
    _ = :net_kernel.monitor_nodes(true, node_type: :all)
    state = again(state)
    {:ok, handle(state, for(node <- connected(), do: {:node_up, node}))}
  end

  defp machine(name, options) do
    case Native.new(name, self(), options) do
      {:ok, machine} ->
        :persistent_term.put({Foundation.Registry, :nif_missing}, false)
        {Native, machine}

      {:error, :not_loaded} ->
        :persistent_term.put({Foundation.Registry, :nif_missing}, true)

        Logger.warning(
          "Foundation.Registry #{inspect(name)} has the names of this node only: " <>
            "the native functions are not loaded (Foundation.Native.status/0 says why)"
        )

        {Alone, Alone.new(self(), options)}
    end
  end

  # What the table knows of an earlier life of this process.
  defp again(state) do
    rows = :ets.tab2list(state.name)

    own =
      for {key, _found} = row <- rows,
          {pid, value, true} <- Pieces.left(row),
          Process.alive?(pid) do
        {:message, call({self(), :again}, {:register, key, value, pid}), wall()}
      end

    state = own |> Enum.chunk_every(@batch) |> Enum.reduce(state, &handle(&2, &1))
    kept = MapSet.new(own, fn {:message, {_call, _from, {:register, key, _, _}}, _} -> key end)
    for {key, _entries} <- rows, key not in kept, do: :ets.delete(state.name, key)
    Pieces.forget_others(state.pieces)
    state
  end

  defp connected, do: Node.list(:connected)

  ## What happens

  @impl true
  def handle_call(request, from, state) do
    first = {:message, call(from, request), wall()}
    {:message_queue_len, waiting} = Process.info(self(), :message_queue_len)
    others = if waiting in 1..@queue, do: more_calls([], @batch - 1), else: []
    {:noreply, handle(state, [first | others])}
  end

  defp more_calls(events, 0), do: Enum.reverse(events)

  defp more_calls(events, count) do
    receive do
      {:"$gen_call", from, request} ->
        more_calls([{:message, call(from, request), wall()} | events], count - 1)
    after
      0 -> Enum.reverse(events)
    end
  end

  # Anybody can send one.
  @impl true
  def handle_cast(_request, state), do: {:noreply, state}

  @impl true
  def handle_info({:nodeup, _node, _info}, state) when state.node != node() do
    # This node has got its name: a registry of another name is another member, which begins anew with what it has.
    {:stop, {:shutdown, :renamed}, state}
  end

  def handle_info({:nodeup, node, _info}, state),
    do: {:noreply, handle(state, [{:node_up, node}])}

  def handle_info({:nodedown, node, _info}, state),
    do: {:noreply, handle(state, [{:node_down, node}])}

  def handle_info({:DOWN, ref, :process, _pid, _reason}, state) do
    case Map.pop(state.monitors, ref) do
      {nil, _monitors} ->
        {:noreply, state}

      {id, monitors} ->
        state = %{state | monitors: monitors, refs: Map.delete(state.refs, id)}
        {:noreply, handle(state, [{:down, id}])}
    end
  end

  def handle_info({:timeout, timer, :due}, %{timer: {timer, _due}} = state),
    do: {:noreply, handle(%{state | timer: nil}, [:timeout])}

  def handle_info(message, state) when is_tuple(message) and elem(message, 0) in @protocol,
    do: {:noreply, handle(state, [{:message, message, wall()}])}

  def handle_info(_message, state), do: {:noreply, state}

  defp call(from, request), do: {:"$gen_call", from, request}
  defp wall, do: System.system_time(:millisecond)

  ## What is to be done

  defp handle(state, []), do: state

  defp handle(state, events) do
    now = System.monotonic_time(:nanosecond) - state.origin

    case state.module.handle(state.machine, now, events) do
      {:ok, machine, actions, due} ->
        state = Enum.reduce(actions, set_timer(%{state | machine: machine}, due), &act/2)
        # After all that was to be done before: what is found would be out of date otherwise.
        downs = for id <- Enum.reverse(state.unreachable), do: {:down, id}
        handle(%{state | unreachable: []}, downs)

      # Beyond what terms of peers may be (depth, size): whoever it came from is told, and the others are not held up.
      {:error, :badarg} ->
        refuse(state, events)
    end
  end

  defp refuse(state, [{:message, {:"$gen_call", from, _request}, _wall}]) do
    act({:reply, from, {:error, :badarg}}, state)
  end

  defp refuse(state, [_event]), do: state
  defp refuse(state, events), do: Enum.reduce(events, state, &handle(&2, [&1]))

  defp act({:send, to, message}, state) do
    # Without connecting: a lost connection says so through the monitors.
    for receiver <- to do
      receiver = if is_pid(receiver), do: receiver, else: {state.name, receiver}
      :erlang.send(receiver, message, [:noconnect])
    end

    state
  end

  defp act({:reply, {pid, :again}, _reply}, state) when pid == self(), do: state

  defp act({:reply, from, reply}, state) do
    # A call that did not come from GenServer may have anything for a sender.
    with {pid, _tag} when is_pid(pid) <- from, do: GenServer.reply(from, reply)
    state
  end

  defp act({:monitor, id, pid}, state) do
    # A registry never makes connections; it follows them.
    if node(pid) == node() or node(pid) in connected() do
      ref = Process.monitor(pid)

      %{
        state
        | monitors: Map.put(state.monitors, ref, id),
          refs: Map.put(state.refs, id, ref)
      }
    else
      %{state | unreachable: [id | state.unreachable]}
    end
  end

  defp act({:demonitor, id}, state) do
    case Map.pop(state.refs, id) do
      {nil, _refs} ->
        state

      {ref, refs} ->
        Process.demonitor(ref, [:flush])
        %{state | refs: refs, monitors: Map.delete(state.monitors, ref)}
    end
  end

  defp act(
         {:exit, _pid, {:name_conflict, {_key, value}, _name, _winner}},
         %{on_conflict: {:listeners, value}} = state
       ),
       do: state

  defp act({:exit, pid, reason}, state) do
    Logger.info("#{inspect(pid)} has lost its name: #{inspect(reason)}")
    Process.exit(pid, reason)
    state
  end

  defp act({:pieces, new, gone}, state),
    do: %{state | pieces: Pieces.write(state.pieces, new, gone)}

  defp act({:changed, changes, found}, state) do
    # All at once: readers see what was before, or all of it.
    :ets.insert(state.name, Enum.map(found, &Pieces.row(state.pieces, &1)))
    for {key, []} <- found, do: :ets.delete_object(state.name, {key, []})
    for change <- changes, listener <- state.listeners, do: tell(listener, state.name, change)
    state
  end

  defp tell(listener, name, change) do
    with pid when is_pid(pid) <- Process.whereis(listener),
         do: send(pid, Tuple.insert_at(change, 1, name))
  end

  defp set_timer(%{timer: {_timer, due}} = state, due), do: state

  defp set_timer(state, due) do
    with {timer, _due} <- state.timer, do: :erlang.cancel_timer(timer)
    %{state | timer: due && {start_timer(state, due), due}}
  end

  # Rounded up: a timer that fires early would find nothing due.
  defp start_timer(state, due) do
    at = System.convert_time_unit(due + state.origin, :nanosecond, :millisecond) + 1
    :erlang.start_timer(at, self(), :due, abs: true)
  end
end

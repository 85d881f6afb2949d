defmodule Foundation.ProcessManager.Keeper do
  @moduledoc """
  The engine of `Foundation.ProcessManager` without Horde: one such process on each node, under this name.

  Keepers greet each other when nodes connect and exchange what they know (`Foundation.ProcessManager.Entries`); after that each tells
  the others of its changes, and every second compares a digest of all with one of them by chance. A name has a home, the node that runs it. While the home is there nobody else starts it; when it has
  gone, the remaining nodes agree on a new one by hashing the name with each node's name, without asking each other. Two homes, after a
  partition, are settled by the later version of the entry.

  Each keeper says which names its node runs in the registry `Foundation.ProcessManager.Shared`, which Rust nodes share. A process of
  theirs under a name is the one that is found and that starts give; if it has the earlier claim, after a partition, the keeper's process ends and the name is
  theirs: no keeper starts it again unless it is asked to when they have given it up.

  A child that crashes is started again at once up to 3 times in 5 seconds, and then after 0.1 s, doubling up to 30 s: one that cannot
  start harms no other.
  """

  use GenServer

  alias Foundation.ProcessManager.{Child, Entries, Shared}
  require Logger

  @supervisor Foundation.DistributedSupervisor
  @registry Foundation.ProcessRegistry
  @tick_ms 1_000
  @quick_restarts 3
  @window_ms 5_000
  @first_delay_ms 100
  @longest_delay_ms 30_000

  # How often a question goes from keeper to keeper while their views differ, before the last one starts the child itself.
  @hops 3

  # members: node => {keeper, monitor}. running: name => pid, of this node. starting: name => {child, askers}. monitors: reference =>
  # {:member, node} | {:child, name, pid} | {:launch, name}. asked: reference => {name, child, asker, node}. crashes: name => [when].
  # pauses: name => when it is over.
  defstruct members: %{},
            running: %{},
            starting: %{},
            monitors: %{},
            asked: %{},
            crashes: %{},
            pauses: %{}

  @doc false
  def start_link(_opts), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc false
  def start(name, child, timeout) do
    with :not_found <- lookup(name),
         do: GenServer.call(__MODULE__, {:start, name, child}, timeout)
  end

  @doc false
  def stop(name), do: GenServer.call(__MODULE__, {:stop, name})

  @doc false
  def lookup(name) do
    case Entries.get(name) do
      {_version, home, _child, pid} when is_pid(pid) ->
        if alive?(home, pid), do: {:ok, pid}, else: of_others(name)

      _none_or_stopped ->
        of_others(name)
    end
  end

  defp of_others(name) do
    case Shared.holder(name) do
      {:other, pid} -> {:ok, pid}
      _keeper_or_none -> :not_found
    end
  end

  @doc false
  def list do
    for {name, {_version, home, _child, pid}} when is_pid(pid) <- Entries.all(),
        alive?(home, pid),
        into: Shared.all_of_others(),
        do: {name, pid}
  end

  @doc false
  # The name of a process, and how it was started.
  def named(pid) do
    Enum.find_value(Entries.all(), :error, fn
      {name, {_version, _home, %Child{} = child, ^pid}} -> {:ok, name, child}
      _other -> nil
    end)
  end

  defp alive?(home, pid) when home == node(), do: Process.alive?(pid)
  defp alive?(home, _pid), do: home in Node.list(:connected)

  @doc false
  # The nodes that have a keeper, this one included.
  def members, do: GenServer.call(__MODULE__, :members)

  ## Callbacks

  @impl true
  def init(_opts) do
    :ok = :net_kernel.monitor_nodes(true, node_type: :visible)
    for node <- Node.list(), do: greet(node)
    Process.send_after(self(), :tick, @tick_ms)
    {:ok, adopt(%__MODULE__{})}
  end

  # Children that ran on under the supervisor while the keeper restarted.
  defp adopt(state) do
    running = for {_, pid, _, _} when is_pid(pid) <- children(), do: pid

    for {name, {_version, home, _child, pid}} <- Entries.all(),
        home == node() and pid in running,
        reduce: state,
        do: (state -> watch(state, name, pid))
  end

  defp children, do: DynamicSupervisor.which_children(@supervisor)

  # Answered with a welcome, which is not answered.
  defp greet(node), do: send({__MODULE__, node}, {:hello, self(), Entries.all()})

  @impl true
  def handle_call({:start, name, child}, from, state),
    do: {:noreply, route(state, name, child, {:caller, from}, @hops)}

  def handle_call({:stop, name}, _from, state) do
    case Entries.get(name) do
      {_version, _home, %Child{}, _pid} ->
        tell(state, name, Entries.change(name, node(), :stopped, nil))
        {:reply, :ok, settle(state, name)}

      _none_or_stopped ->
        case Shared.holder(name) do
          {:other, pid} -> {:reply, {:error, {:not_managed, pid}}, state}
          _keeper_or_none -> {:reply, {:error, :not_found}, state}
        end
    end
  end

  # A process that moves here from another node, with its state.
  def handle_call({:move_here, name, child, process_state}, from, state) do
    if is_map_key(state.running, name) or is_map_key(state.starting, name),
      do: {:noreply, route(state, name, child, {:caller, from}, 0)},
      else: {:noreply, launch(state, name, child, [{:caller, from}], {:state, process_state})}
  end

  def handle_call(:members, _from, state), do: {:reply, nodes(state), state}

  @impl true
  def handle_info({greeting, keeper, entries}, state)
      when greeting in [:hello, :welcome] and is_pid(keeper) and is_list(entries) do
    state = join(state, keeper)
    if greeting == :hello, do: send(keeper, {:welcome, self(), Entries.all()})

    {:noreply,
     Enum.reduce(entries, state, fn
       {name, entry}, state -> heard(state, name, entry)
       _no_entry, state -> state
     end)}
  end

  def handle_info({:digest, keeper, digest}, state) when is_pid(keeper) do
    if digest != Entries.digest(), do: send(keeper, {:hello, self(), Entries.all()})
    {:noreply, state}
  end

  # Somebody who does not count this node among the members.
  def handle_info({:who, node}, state) when is_atom(node) do
    greet(node)
    {:noreply, state}
  end

  def handle_info({:entry, name, entry}, state), do: {:noreply, heard(state, name, entry)}

  # Another keeper takes this node for the one to start a name.
  def handle_info({:start, name, %Child{} = child, keeper, ref, hops}, state)
      when is_pid(keeper) and is_integer(hops) and hops in 0..@hops,
      do: {:noreply, route(state, name, child, {:keeper, keeper, ref}, hops)}

  def handle_info({:started, ref, result}, state) when is_map_key(state.asked, ref) do
    {{_name, _child, asker, _node}, asked} = Map.pop(state.asked, ref)
    answer(asker, result)
    {:noreply, %{state | asked: asked}}
  end

  def handle_info({:nodeup, node, _info}, state) do
    greet(node)
    {:noreply, state}
  end

  def handle_info({:DOWN, ref, :process, _pid, reason}, state)
      when is_map_key(state.monitors, ref) do
    {what, monitors} = Map.pop(state.monitors, ref)
    {:noreply, down(%{state | monitors: monitors}, what, reason)}
  end

  def handle_info(:tick, state) do
    Process.send_after(self(), :tick, @tick_ms)
    Entries.drop_old()
    look_for_members(state)
    compare_with_one(state)
    state = settle_all(state)
    {:noreply, state.running |> Map.keys() |> Enum.reduce(state, &share(&2, &1))}
  end

  # From the registry: who has a name, has it no more, or has lost it to an earlier claim.
  def handle_info({change, Shared, name, _pid, _value_or_loser}, state)
      when change in [:added, :removed, :conflict],
      do: {:noreply, share(state, name)}

  def handle_info({:again, name}, state),
    do: {:noreply, settle(%{state | pauses: Map.delete(state.pauses, name)}, name)}

  def handle_info(_message, state), do: {:noreply, state}

  ## Members

  # Also one that is a member already: its end of an earlier connection may still be on its way, and must not count for this one.
  defp join(state, keeper) do
    {ref, state} = pop_monitor(state, node(keeper))
    if ref, do: Process.demonitor(ref, [:flush])
    ref = Process.monitor(keeper)

    %{
      state
      | members: Map.put(state.members, node(keeper), {keeper, ref}),
        monitors: Map.put(state.monitors, ref, {:member, node(keeper)})
    }
  end

  defp pop_monitor(state, node) do
    case state.members do
      %{^node => {_keeper, ref}} -> {ref, %{state | monitors: Map.delete(state.monitors, ref)}}
      _none -> {nil, state}
    end
  end

  # Greetings can cross with the ends of connections; who is connected and no member is asked again. Nodes without a keeper do not answer.
  defp look_for_members(state) do
    for node <- Node.list(),
        not is_map_key(state.members, node),
        do: send({__MODULE__, node}, {:who, node()})

    :ok
  end

  # Changes are told by who makes them. A node that was cut off from that one while a third was not learns of them here.
  defp compare_with_one(%{members: members}) when members == %{}, do: :ok

  defp compare_with_one(%{members: members}) do
    {_node, {keeper, _ref}} = Enum.random(members)
    send(keeper, {:digest, self(), Entries.digest()})
    :ok
  end

  defp nodes(state), do: Enum.sort([node() | Map.keys(state.members)])

  defp tell(state, name, entry) do
    for {_node, {keeper, _ref}} <- state.members, do: send(keeper, {:entry, name, entry})
    :ok
  end

  defp monitor(state, pid, what),
    do: %{state | monitors: Map.put(state.monitors, Process.monitor(pid), what)}

  ## Starting

  # Here, or by the node whose name it is.
  defp route(state, name, child, asker, hops) do
    case {lookup(name), home(state, name)} do
      {{:ok, pid}, _home} ->
        answer(asker, {:ok, pid})
        state

      {:not_found, home} when home == node() or hops == 0 ->
        launch(state, name, child, [asker])

      {:not_found, home} ->
        ref = make_ref()
        {keeper, _ref} = Map.fetch!(state.members, home)
        send(keeper, {:start, name, child, self(), ref, hops - 1})
        %{state | asked: Map.put(state.asked, ref, {name, child, asker, home})}
    end
  end

  # The node that is to run a name.
  defp home(state, name) do
    members = nodes(state)

    with {_version, home, %Child{}, _pid} <- Entries.get(name), true <- home in members do
      home
    else
      _none_stopped_or_gone -> Entries.owner(name, members)
    end
  end

  # In a process of its own: a slow init/1 must not hold up the keeper.
  defp launch(state, name, child, askers, restore \\ nil) do
    case state.starting do
      %{^name => {first, others}} ->
        put_in(state.starting[name], {first, askers ++ others})

      _not_yet ->
        {_pid, ref} =
          spawn_monitor(fn -> exit({:launched, start_shared(name, child, restore)}) end)

        state = put_in(state.starting[name], {child, askers})
        put_in(state.monitors[ref], {:launch, name})
    end
  end

  # Claimed as soon as it runs. What finds the name taken by another's process ends at once.
  defp start_shared(name, child, restore) do
    case of_others(name) do
      {:ok, other} ->
        {:other, other}

      :not_found ->
        with {:ok, pid} <- start_child(name, child, restore), do: claim(name, pid)
    end
  end

  defp claim(name, pid) do
    case Shared.claim(name, pid) do
      {:other, other} ->
        DynamicSupervisor.terminate_child(@supervisor, pid)
        {:other, other}

      {:error, reason} ->
        Logger.warning("#{inspect(name)} is not shared with Rust nodes: #{inspect(reason)}")
        {:ok, pid}

      _now_or_later ->
        {:ok, pid}
    end
  end

  defp start_child(name, child, nil), do: start_child(name, child)

  defp start_child(name, child, {:state, state}) do
    with {:ok, pid} <- start_child(name, child) do
      try do
        _ = :sys.replace_state(pid, fn _initial -> state end)
        {:ok, pid}
      catch
        :exit, reason ->
          DynamicSupervisor.terminate_child(@supervisor, pid)
          {:error, reason}
      end
    end
  end

  defp start_child(name, child) do
    spec = %{
      id: name,
      start: child.start,
      # The keeper starts it again, here or elsewhere.
      restart: :temporary,
      shutdown: child.shutdown,
      type: child.type
    }

    case DynamicSupervisor.start_child(@supervisor, spec) do
      {:ok, pid} -> {:ok, pid}
      {:ok, pid, _info} -> {:ok, pid}
      :ignore -> {:error, :ignore}
      {:error, reason} -> {:error, reason}
    end
  end

  defp answer({:caller, from}, result), do: GenServer.reply(from, result)
  defp answer({:keeper, keeper, ref}, result), do: send(keeper, {:started, ref, result})

  defp launched(state, name, child, result, askers) do
    stopped = match?({_, _, :stopped, _}, Entries.get(name))

    case result do
      # Stopped while it was being started again, and nobody has asked for it since.
      {:ok, pid} when stopped and askers == [] ->
        end_child(put_in(state.running[name], pid), name, :shutdown)

      {:ok, pid} ->
        tell(state, name, Entries.change(name, node(), child, pid))
        watch(state, name, pid)

      {:other, _pid} ->
        given_up(state, name)

      {:error, reason} ->
        # Nobody knows of a first start that failed. One that is to take over, or to run again, is tried until it works.
        if match?({_, _, %Child{}, _}, Entries.get(name)),
          do: crashed(state, name, reason),
          else: state
    end
  end

  defp watch(state, name, pid) do
    put_in(state.running[name], pid) |> monitor(pid, {:child, name, pid})
  end

  ## What Rust nodes find

  # Makes the registry have what this node runs, or ends that if the name is another's.
  defp share(%{running: running} = state, name) when is_map_key(running, name) do
    mine = Map.fetch!(running, name)

    case Shared.holder(name) do
      {_whose, ^mine} ->
        state

      {:other, pid} ->
        state
        |> given_up(name)
        |> end_child(name, {:name_conflict, {name, nil}, @registry, pid})

      # The entries settle it, and then it is removed.
      {:keeper, _another} ->
        state

      :none ->
        spawn(fn -> Shared.claim(name, mine) end)
        state
    end
  end

  defp share(state, _name), do: state

  # It is no longer for keepers to start.
  defp given_up(state, name) do
    with {_version, _home, %Child{}, _pid} <- Entries.get(name),
         do: tell(state, name, Entries.change(name, node(), :stopped, nil))

    state
  end

  ## Hearing and settling

  defp heard(state, name, entry) do
    if Entries.valid?(entry) and Entries.merge(name, entry), do: settle(state, name), else: state
  end

  defp settle_all(state),
    do: Enum.reduce(Entries.all(), state, fn {name, _entry}, state -> settle(state, name) end)

  # Makes this node do what the entry says of it.
  defp settle(state, name) do
    mine = Map.get(state.running, name)

    case {Entries.get(name), home(state, name) == node()} do
      {{_, _, :stopped, _}, _here} when mine != nil ->
        end_child(state, name, :shutdown)

      {{_, _, %Child{}, pid}, false} when mine != nil ->
        end_child(state, name, {:name_conflict, {name, nil}, @registry, pid})

      # The entry is of a node that has gone, or of an earlier life of this one.
      {{_, _, %Child{} = child, pid}, true} when mine != nil and pid != mine ->
        tell(state, name, Entries.change(name, node(), child, mine))
        state

      {{_, _, %Child{} = child, _pid}, true} when mine == nil ->
        if is_map_key(state.pauses, name), do: state, else: launch(state, name, child, [])

      _as_it_should_be ->
        state
    end
  end

  defp end_child(state, name, reason) do
    {pid, running} = Map.pop(state.running, name)

    # In a process of its own: a child may take its time to stop.
    spawn(fn ->
      if reason != :shutdown, do: Process.exit(pid, reason)
      DynamicSupervisor.terminate_child(@supervisor, pid)
    end)

    %{state | running: running, crashes: Map.delete(state.crashes, name)}
  end

  ## Ends

  defp down(state, {:member, node}, _reason) do
    {asked, kept} = Enum.split_with(state.asked, fn {_ref, {_, _, _, home}} -> home == node end)
    state = %{state | members: Map.delete(state.members, node), asked: Map.new(kept)}

    Enum.reduce(asked, settle_all(state), fn {_ref, {name, child, asker, _home}}, state ->
      route(state, name, child, asker, @hops)
    end)
  end

  defp down(state, {:launch, name}, reason) do
    {{child, askers}, starting} = Map.pop(state.starting, name)

    result =
      case reason do
        {:launched, result} -> result
        crash -> {:error, crash}
      end

    state = launched(%{state | starting: starting}, name, child, result, askers)
    result = with {:other, pid} <- result, do: {:ok, pid}
    for asker <- askers, do: answer(asker, result)
    settle(state, name)
  end

  # A child that was ended on purpose is not listed any more, and its name may have another.
  defp down(%{running: running} = state, {:child, name, pid}, _reason)
       when not is_map_key(running, name) or :erlang.map_get(name, running) != pid,
       do: state

  defp down(state, {:child, name, _pid}, reason) do
    state = %{state | running: Map.delete(state.running, name)}

    case Entries.get(name) do
      {_version, home, %Child{} = child, _pid} when home == node() ->
        if Child.again?(child, reason) do
          crashed(state, name, reason)
        else
          tell(state, name, Entries.change(name, node(), :stopped, nil))
          %{state | crashes: Map.delete(state.crashes, name)}
        end

      _stopped_or_elsewhere ->
        state
    end
  end

  defp crashed(state, name, reason) do
    now = System.monotonic_time(:millisecond)
    earlier = Map.get(state.crashes, name, [])
    recent = Enum.take_while(earlier, &(now - &1 < 2 * @longest_delay_ms))
    quick = Enum.count(recent, &(now - &1 < @window_ms))
    state = put_in(state.crashes[name], Enum.take([now | recent], 20))

    if quick < @quick_restarts do
      settle(state, name)
    else
      delay = min(@first_delay_ms * 2 ** (length(recent) - @quick_restarts), @longest_delay_ms)

      Logger.error(
        "Foundation.ProcessManager: #{inspect(name)} ended again (#{Exception.format_exit(reason)}); " <>
          "it is started in #{delay} ms"
      )

      Process.send_after(self(), {:again, name}, delay)
      put_in(state.pauses[name], now + delay)
    end
  end
end

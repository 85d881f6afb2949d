defmodule Foundation.ProcessManager.HordeWatch do
  @moduledoc false
  # Starts what Horde lost. When a node goes, Horde's supervisor hears of it twice, by a monitor and by its node listener, and if the second
  # comes first the node's children are started nowhere. Singletons that are to run always are therefore noted in Horde's registry, as meta
  # data, which every node has; one whose node has gone and that is nowhere for some seconds is started by the node that all agree on.
  # What was ended through Horde itself on a node that is there stays ended.

  use GenServer

  alias Foundation.ProcessManager.{Entries, HordeEngine}
  require Logger

  @compile {:no_warn_undefined, Horde.Registry}
  @registry Foundation.ProcessRegistry
  @tick_ms 1_000
  # Horde's own restart is usually a few hundred milliseconds after the node's end.
  @patience_ms 3_000
  @start_ms 10_000

  def start_link(_opts), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc false
  def note(name, %{restart: :permanent} = child),
    do: Horde.Registry.put_meta(@registry, {__MODULE__, name}, child)

  def note(_name, _child), do: :ok

  @doc false
  def forget(name), do: Horde.Registry.delete_meta(@registry, {__MODULE__, name})

  defp noted,
    do:
      for([name, child] <- :ets.match(@registry, {{__MODULE__, :"$1"}, :"$2"}), do: {name, child})

  # seen: name => the node where it was last. missing: name => since when.
  @impl true
  def init(_opts) do
    Process.send_after(self(), :look, @tick_ms)
    {:ok, %{seen: %{}, missing: %{}}}
  end

  @impl true
  def handle_info(:look, state) do
    Process.send_after(self(), :look, @tick_ms)
    noted = noted()
    names = Enum.map(noted, &elem(&1, 0))
    state = %{seen: Map.take(state.seen, names), missing: Map.take(state.missing, names)}
    {:noreply, Enum.reduce(noted, state, &look/2)}
  end

  def handle_info(_message, state), do: {:noreply, state}

  defp look({name, child}, state) do
    now = System.monotonic_time(:millisecond)

    case {HordeEngine.lookup(name), state} do
      {{:ok, pid}, _state} ->
        %{
          state
          | seen: Map.put(state.seen, name, node(pid)),
            missing: Map.delete(state.missing, name)
        }

      {:not_found, %{missing: %{^name => since}}} when now - since >= @patience_ms ->
        if gone?(state.seen[name]) and Entries.owner(name, HordeEngine.members()) == node(),
          do: start(name, child)

        %{state | missing: Map.put(state.missing, name, now)}

      {:not_found, _state} ->
        %{state | missing: Map.put_new(state.missing, name, now)}
    end
  end

  # A node that was never seen with it has joined since: the others know.
  defp gone?(nil), do: false
  defp gone?(node), do: node != node() and node not in Node.list(:connected)

  defp start(name, child) do
    Logger.warning(
      "Foundation.ProcessManager: Horde did not start #{inspect(name)} again; doing so"
    )

    Task.Supervisor.start_child(Foundation.TaskSupervisor, HordeEngine, :start, [
      name,
      child,
      @start_ms
    ])
  end
end

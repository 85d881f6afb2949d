defmodule Foundation.Cluster.Monitor do
  @moduledoc false
  # Says who joins and leaves: telemetry, and one log line when the cluster has formed.

  use GenServer

  alias Foundation.Host
  require Logger

  def start_link(decision), do: GenServer.start_link(__MODULE__, decision, name: __MODULE__)

  @scope Foundation.ProcessRegistry.Names
  # How long nobody comes until the cluster counts as formed, and when it does at the latest.
  @quiet_ms 1_000
  @latest_ms 30_000

  @doc false
  # The nodes that play a role.
  @spec nodes(term()) :: [node()]
  def nodes(role) do
    if Process.whereis(@scope),
      do: @scope |> :pg.get_members({:role, role}) |> Enum.map(&node/1) |> Enum.sort(),
      else: for(^role <- roles(), do: node())
  end

  defp roles, do: :roles |> Foundation.Settings.get() |> List.wrap() |> Enum.uniq()

  @impl true
  def init(decision) do
    for role <- roles(), do: :pg.join(@scope, {:role, role}, self())
    :ok = :net_kernel.monitor_nodes(true, [:nodedown_reason, node_type: :all])

    {:ok,
     %{
       decision: decision,
       start: System.monotonic_time(:millisecond),
       formed?: false,
       timer: nil,
       last: nil,
       nodes: MapSet.new()
     }, {:continue, :present}}
  end

  # Those that were connected before clustering was turned on.
  @impl true
  def handle_continue(:present, state),
    do: {:noreply, Enum.reduce(Node.list([:visible, :hidden]), state, &joined/2)}

  @impl true
  def handle_info({:nodeup, node, _info}, state), do: {:noreply, joined(node, state)}

  def handle_info({:nodedown, node, info}, state) do
    Host.Telemetry.execute(
      [:foundation, :cluster, :node_left],
      %{count: length(Node.list()) + 1},
      %{node: node, reason: info[:nodedown_reason]}
    )

    {:noreply, %{state | nodes: MapSet.delete(state.nodes, node)}}
  end

  def handle_info(:quiet, %{formed?: false} = state) do
    Logger.info("Foundation cluster formed",
      cluster_id: state.decision.topologies |> Keyword.keys() |> List.first(),
      node_count: length(Node.list()) + 1,
      formation_time_ms: state.last - state.start,
      strategy: state.decision.strategy
    )

    {:noreply, %{state | formed?: true, timer: nil}}
  end

  def handle_info(_message, state), do: {:noreply, state}

  defp joined(node, state) do
    if MapSet.member?(state.nodes, node) do
      state
    else
      count = length(Node.list()) + 1

      Host.Telemetry.execute([:foundation, :cluster, :node_joined], %{count: count}, %{node: node})

      formed(%{state | nodes: MapSet.put(state.nodes, node)})
    end
  end

  # When nobody has come for a moment, so that the count is that of the cluster and not of its first two nodes.
  defp formed(%{formed?: true} = state), do: state

  defp formed(state) do
    if state.timer, do: Process.cancel_timer(state.timer)
    now = System.monotonic_time(:millisecond)
    wait = max(min(@quiet_ms, state.start + @latest_ms - now), 0)
    %{state | timer: Process.send_after(self(), :quiet, wait), last: now}
  end
end

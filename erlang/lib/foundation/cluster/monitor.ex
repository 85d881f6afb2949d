defmodule Foundation.Cluster.Monitor do
  @moduledoc false
  # Says who joins and leaves: telemetry, and one log line when the cluster has formed.

  use GenServer

  alias Foundation.Host
  require Logger

  def start_link(decision), do: GenServer.start_link(__MODULE__, decision, name: __MODULE__)

  @scope Foundation.ProcessRegistry.Names

  @doc false
  # The nodes that play a role.
  @spec nodes(term()) :: [node()]
  def nodes(role) do
    if Process.whereis(@scope),
      do: @scope |> :pg.get_members({:role, role}) |> Enum.map(&node/1) |> Enum.sort(),
      else: for(^role <- roles(), do: node())
  end

  defp roles, do: :foundation |> Application.get_env(:roles, []) |> List.wrap() |> Enum.uniq()

  @impl true
  def init(decision) do
    for role <- roles(), do: :pg.join(@scope, {:role, role}, self())
    :ok = :net_kernel.monitor_nodes(true, [:nodedown_reason, node_type: :all])
    {:ok, %{decision: decision, start: System.monotonic_time(:millisecond), formed?: false}}
  end

  @impl true
  def handle_info({:nodeup, node, _info}, state) do
    count = length(Node.list()) + 1
    Host.Telemetry.execute([:foundation, :cluster, :node_joined], %{count: count}, %{node: node})
    {:noreply, formed(state, count)}
  end

  def handle_info({:nodedown, node, info}, state) do
    Host.Telemetry.execute(
      [:foundation, :cluster, :node_left],
      %{count: length(Node.list()) + 1},
      %{node: node, reason: info[:nodedown_reason]}
    )

    {:noreply, state}
  end

  def handle_info(_message, state), do: {:noreply, state}

  defp formed(%{formed?: true} = state, _count), do: state

  defp formed(state, count) do
    Logger.info("Foundation cluster formed",
      cluster_id: state.decision.topologies |> Keyword.keys() |> List.first(),
      node_count: count,
      formation_time_ms: System.monotonic_time(:millisecond) - state.start,
      strategy: state.decision.strategy
    )

    %{state | formed?: true}
  end
end

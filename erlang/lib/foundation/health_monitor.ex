defmodule Foundation.HealthMonitor do
  @moduledoc """
  How the nodes of the cluster are. Asked for when it is wanted: no process, and nothing is kept.

  Every connected node is asked in parallel. One that does not answer in time, or does not run Foundation, is listed as `:unknown`
  and without figures.
  """

  alias Foundation.{Cluster, Native, ServiceMesh, ServiceRegistry}

  @timeout_ms 2000

  @type status :: :healthy | :degraded | :critical
  @type report :: %{
          status: status(),
          nodes: [{node(), :healthy | :degraded | :unknown, map()}],
          services: [{term(), :healthy | :degraded, non_neg_integer()}],
          last_check: integer()
        }

  @doc """
  The health of the cluster. Options: `timeout`, 2000 ms.

  - `nodes`: a node is `:degraded` if one of its three services is not available. Its figures are `memory` in bytes, `processes`,
    `run_queue`, `uptime_ms`, and `native`, whether the native functions are loaded.
  - `services`: the names in the namespace `:production` of the nodes that answer, `:degraded` where a node that answers lacks
    it, with the number of live instances; then those of `Foundation.ServiceMesh` with their number of instances.
  - `status`: `:critical` if this node is degraded or more than half of the nodes are not healthy, `:degraded` if any is not.
  - `last_check`: milliseconds since 1970.
  """
  @spec cluster_health(keyword()) :: report()
  def cluster_health(opts \\ []) do
    nodes = Enum.sort(Enum.uniq([node() | Node.list()] ++ Cluster.nodes()))

    answers =
      nodes
      |> :erpc.multicall(__MODULE__, :local_health, [], Keyword.get(opts, :timeout, @timeout_ms))
      |> then(&Enum.zip(nodes, &1))
      |> Enum.map(&answer/1)

    %{
      status: overall(answers),
      nodes: Enum.map(answers, &Tuple.delete_at(&1, 3)),
      services: services(answers),
      last_check: System.system_time(:millisecond)
    }
  end

  defp answer({node, {:ok, %{status: status, metrics: metrics, services: services}}})
       when status in [:healthy, :degraded] and is_map(metrics) and is_map(services),
       do: {node, status, metrics, services}

  defp answer({node, _error_or_something_else}), do: {node, :unknown, %{}, nil}

  defp overall(answers) do
    unwell =
      Enum.reject(answers, fn {_node, status, _metrics, _services} -> status == :healthy end)

    cond do
      unwell == [] ->
        :healthy

      Enum.any?(unwell, fn {node, _status, _metrics, _services} -> node == node() end) ->
        :critical

      length(unwell) * 2 > length(answers) ->
        :critical

      true ->
        :degraded
    end
  end

  defp services(answers) do
    reports =
      for {_node, _status, _metrics, services} when services != nil <- answers, do: services

    own =
      for name <- reports |> Enum.flat_map(&Map.keys/1) |> Enum.uniq() |> Enum.sort() do
        instances = Enum.count(reports, & &1[name])
        {name, if(instances == length(reports), do: :healthy, else: :degraded), instances}
      end

    mesh = Enum.frequencies_by(ServiceMesh.discover_services(), & &1.name)
    own ++ for {name, instances} <- Enum.sort(mesh), do: {name, :healthy, instances}
  end

  @doc """
  What this node answers: `%{status: _, metrics: _, services: %{name => alive?}}`.
  """
  @spec local_health() :: %{status: :healthy | :degraded, metrics: map(), services: map()}
  def local_health do
    {uptime, _since_last} = :erlang.statistics(:wall_clock)

    %{
      status: if(Foundation.available?(), do: :healthy, else: :degraded),
      metrics: %{
        memory: :erlang.memory(:total),
        processes: :erlang.system_info(:process_count),
        run_queue: :erlang.statistics(:total_run_queue_lengths),
        uptime_ms: uptime,
        native: Native.loaded?()
      },
      services:
        Map.new(ServiceRegistry.get_service_info(:production).services, fn {name, info} ->
          {name, info.alive}
        end)
    }
  end
end

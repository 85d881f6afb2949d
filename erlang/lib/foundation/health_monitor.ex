defmodule Foundation.HealthMonitor do
  @moduledoc """
  How the nodes of the cluster and their services are. Asked for when it is wanted: nothing is kept.

  Every connected node is asked in parallel. One that does not answer in time, or does not run Foundation, is listed as `:unknown`
  and without figures.

  With clustering on, each node also checks those of its services that have a `health_check:` in their metadata
  (`Foundation.ServiceMesh`), every `config :foundation, health_check_interval: 10_000` ms with up to `health_check_timeout: 5_000` ms for
  each. `:ok`, `true` and `{:ok, _}` are good health. A failure logs the warning `Service health check failed` with `service`, `node`,
  `consecutive_failures` and `action`: `:retrying`, and with the third `:marking_unhealthy`.
  """

  alias Foundation.{Channels, Cluster, Native, ProcessManager, ProcessRegistry, ServiceMesh}

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

  - `nodes`: a node is `:degraded` if one of its three services is not available, or it has `problems`, a list: `:nif_missing` says that a
    `Foundation.Registry` there has the names of its node only, because the native functions are not loaded. Its figures are `memory` in bytes, `processes`,
    `run_queue`, `uptime_ms`, `native`, whether the native functions are loaded, `registry_changes` and `message_rate`,
    see `cluster_metrics/1`.
  - `services`: the names in the namespace `:production` of the nodes that answer, `:degraded` where a node that answers lacks
    it, with the number of live instances; then those of `Foundation.ServiceMesh` with their number of instances, `:degraded` if one is
    marked unhealthy.
  - `status`: `:critical` if a service of this node is not available, or more than half of the nodes lack one or do not answer; `:degraded` if any node is not
    healthy.
  - `last_check`: milliseconds since 1970.
  """
  @spec cluster_health(keyword()) :: report()
  def cluster_health(opts \\ []) do
    answers = ask(opts)

    %{
      status: overall(answers),
      nodes: Enum.map(answers, &Tuple.delete_at(&1, 3)),
      services: services(answers),
      last_check: System.system_time(:millisecond)
    }
  end

  @doc """
  Figures of the cluster, from the nodes that answer. Options as in `cluster_health/1`.

  `node_count`; `registry_churn`, registrations in `Foundation.ServiceMesh` and their ends within the last minute;
  `registry_churn_rate`, `:high` above one a second, else `:low`; `services` and `singletons`, how many there are; `message_rate`, channel messages that
  arrive a second, over ten seconds; `memory` in bytes and `processes`, added up; `nodes` and `unknown`, who answered and who did not.
  """
  @spec cluster_metrics(keyword()) :: %{
          node_count: pos_integer(),
          registry_churn: non_neg_integer(),
          registry_churn_rate: :low | :high,
          services: non_neg_integer(),
          singletons: non_neg_integer(),
          message_rate: float(),
          memory: non_neg_integer(),
          processes: non_neg_integer(),
          nodes: [node()],
          unknown: [node()]
        }
  def cluster_metrics(opts \\ []) do
    {unknown, known} =
      opts |> ask() |> Enum.split_with(fn {_node, status, _, _} -> status == :unknown end)

    sum = fn key ->
      known |> Enum.map(fn {_, _, metrics, _} -> Map.get(metrics, key, 0) end) |> Enum.sum()
    end

    churn = sum.(:registry_changes)

    %{
      node_count: Cluster.size(),
      registry_churn: churn,
      registry_churn_rate: if(churn > 60, do: :high, else: :low),
      services: length(ServiceMesh.discover_services()),
      singletons: map_size(ProcessManager.list_singletons()),
      message_rate: sum.(:message_rate) / 1,
      memory: sum.(:memory),
      processes: sum.(:processes),
      nodes: Enum.map(known, &elem(&1, 0)),
      unknown: Enum.map(unknown, &elem(&1, 0))
    }
  end

  defp ask(opts) do
    nodes = Enum.sort(Enum.uniq([node() | Node.list()] ++ Cluster.nodes()))

    nodes
    |> :erpc.multicall(__MODULE__, :local_health, [], Keyword.get(opts, :timeout, @timeout_ms))
    |> then(&Enum.zip(nodes, &1))
    |> Enum.map(&answer/1)
  end

  defp answer({node, {:ok, %{status: status, metrics: metrics, services: services}}})
       when status in [:healthy, :degraded] and is_map(metrics) and is_map(services),
       do: {node, status, metrics, services}

  defp answer({node, _error_or_something_else}), do: {node, :unknown, %{}, nil}

  defp overall(answers) do
    unwell =
      Enum.reject(answers, fn {_node, status, _metrics, _services} -> status == :healthy end)

    ill = for {node, _status, metrics, _services} <- unwell, problems(metrics) == [], do: node

    cond do
      unwell == [] -> :healthy
      node() in ill or length(ill) * 2 > length(answers) -> :critical
      true -> :degraded
    end
  end

  # Of nodes with an earlier version of this library there is no such list.
  defp problems(metrics), do: Map.get(metrics, :problems, [])

  defp services(answers) do
    reports =
      for {_node, _status, _metrics, services} when services != nil <- answers, do: services

    own =
      for name <- reports |> Enum.flat_map(&Map.keys/1) |> Enum.uniq() |> Enum.sort() do
        instances = Enum.count(reports, & &1[name])
        {name, if(instances == length(reports), do: :healthy, else: :degraded), instances}
      end

    mesh = Enum.group_by(ServiceMesh.discover_services(), & &1.name, & &1.metadata[:health])

    own ++
      for {name, marks} <- Enum.sort(mesh) do
        {name, if(:unhealthy in marks, do: :degraded, else: :healthy), length(marks)}
      end
  end

  @doc """
  What this node answers: `%{status: _, metrics: _, services: %{name => alive?}}`.
  """
  @spec local_health() :: %{status: :healthy | :degraded, metrics: map(), services: map()}
  def local_health do
    {uptime, _since_last} = :erlang.statistics(:wall_clock)
    available? = Foundation.available?()
    problems = if available? and Foundation.Registry.nif_missing?(), do: [:nif_missing], else: []

    %{
      status: if(available? and problems == [], do: :healthy, else: :degraded),
      metrics: %{
        problems: problems,
        memory: :erlang.memory(:total),
        processes: :erlang.system_info(:process_count),
        run_queue: :erlang.statistics(:total_run_queue_lengths),
        uptime_ms: uptime,
        native: Native.loaded?(),
        registry_changes: if(Cluster.enabled?(), do: ServiceMesh.Registrar.changes(), else: 0),
        message_rate: Channels.Rate.per_second()
      },
      services:
        Map.new(ProcessRegistry.local_services(:production), fn {name, _living} ->
          {name, true}
        end)
    }
  end
end

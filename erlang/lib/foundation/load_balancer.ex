defmodule Foundation.LoadBalancer do
  @moduledoc """
  Calls to one of the instances of a service of `Foundation.ServiceMesh`.

      {:ok, reply} = Foundation.LoadBalancer.route(:api_request, {:get, "/"}, strategy: :least_connections)
  """

  alias Foundation.BEAM.Schedulers
  alias Foundation.ServiceMesh
  alias Foundation.Types.Error

  @table __MODULE__
  @strategies [:least_connections, :round_robin, :random]
  @timeout_ms 5_000

  @doc """
  `GenServer.call/3` of an instance: `{:ok, reply}` or an error.

  - `strategy`: `:least_connections`, the default, those to which this node has the fewest calls in flight; `:round_robin`; `:random`.
  - `constraints`: criteria of `Foundation.ServiceMesh.discover_services/1`, and `cpu_usage: :under_80_percent` (any number from 1 to 100), the
    schedulers of the instance's node over 100 ms, asked for now.
  - `timeout`: 5000 ms.

  Instances that are marked unhealthy are left out. Errors are `Foundation.Types.Error`: `:no_instance`; `:call_failed`, which names the
  facade, `GenServer.call` and its error.
  """
  @spec route(term(), term(), keyword()) :: {:ok, term()} | {:error, Error.t()}
  def route(name, request, opts \\ []) do
    with {:ok, %{pid: pid}} <- pick(name, opts) do
      create_table()
      :ets.update_counter(@table, {:calls, pid}, 1, {{:calls, pid}, 0})

      try do
        {:ok, GenServer.call(pid, request, Keyword.get(opts, :timeout, @timeout_ms))}
      catch
        :exit, reason ->
          error(:call_failed, "GenServer.call #{inspect(pid)}: #{Exception.format_exit(reason)}")
      after
        # Nothing is left for a process without calls: the table has one entry for each that is busy.
        if :ets.update_counter(@table, {:calls, pid}, -1, {{:calls, pid}, 1}) <= 0,
          do: :ets.delete_object(@table, {{:calls, pid}, 0})
      end
    end
  end

  @doc """
  The instance that `route/3` would call.
  """
  @spec pick(term(), keyword()) :: {:ok, ServiceMesh.service_info()} | {:error, Error.t()}
  def pick(name, opts \\ []) do
    strategy = Keyword.get(opts, :strategy, :least_connections)

    unless strategy in @strategies do
      raise ArgumentError,
            "strategy: is #{inspect(strategy)}; it may be #{Enum.map_join(@strategies, ", ", &inspect/1)}"
    end

    {usage, criteria} = opts |> Keyword.get(:constraints, []) |> Keyword.pop(:cpu_usage)

    [name: name]
    |> Keyword.merge(criteria)
    |> ServiceMesh.discover_services()
    |> Enum.reject(&(&1.metadata[:health] == :unhealthy))
    |> under(usage)
    |> choose(strategy, name)
  end

  defp choose([], _strategy, name),
    do: error(:no_instance, "Foundation.ServiceMesh: no instance of #{inspect(name)}")

  defp choose(services, :random, _name), do: {:ok, Enum.random(services)}

  defp choose(services, :round_robin, name) do
    create_table()
    turn = :ets.update_counter(@table, {:turn, name}, 1, {{:turn, name}, -1})
    {:ok, Enum.at(services, rem(turn, length(services)))}
  end

  defp choose(services, :least_connections, _name) do
    create_table()

    # Among equals by chance, so that they stay equal.
    {:ok, services |> Enum.shuffle() |> Enum.min_by(&in_flight(&1.pid))}
  end

  defp in_flight(pid) do
    case :ets.lookup(@table, {:calls, pid}) do
      [{_key, count}] -> count
      [] -> 0
    end
  end

  defp under(services, nil), do: services

  defp under(services, usage) do
    limit = percent(usage) / 100
    nodes = services |> Enum.map(& &1.node) |> Enum.uniq()

    idle =
      nodes
      |> :erpc.multicall(Schedulers, :get_scheduler_utilization, [], @timeout_ms)
      |> Enum.zip(nodes)
      |> Enum.flat_map(fn
        {{:ok, %{average: average}}, node} when average < limit -> [node]
        # Busy, or without figures.
        _other -> []
      end)

    Enum.filter(services, &(&1.node in idle))
  end

  defp percent(usage) do
    with text = to_string(usage),
         [_all, number] <- Regex.run(~r/\Aunder_(\d{1,3})_percent\z/, text),
         percent when percent in 1..100 <- String.to_integer(number) do
      percent
    else
      _other ->
        raise ArgumentError,
              "cpu_usage: is #{inspect(usage)}; it may be :under_1_percent to :under_100_percent"
    end
  end

  @doc false
  @spec create_table() :: :ok
  def create_table do
    if :ets.whereis(@table) == :undefined,
      do: :ets.new(@table, [:named_table, :public, :set, write_concurrency: true])

    :ok
  rescue
    # Two processes made it at once.
    ArgumentError -> :ok
  end

  defp error(error_type, reason) do
    {:error,
     Error.new(
       error_type: error_type,
       message: "Foundation.LoadBalancer.route/3: #{reason}",
       severity: :medium,
       category: :system,
       subcategory: :cluster
     )}
  end
end

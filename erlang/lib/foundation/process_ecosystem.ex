defmodule Foundation.ProcessEcosystem do
  @moduledoc """
  A group of processes by the size of the cluster: under a supervisor here when the node is alone, each a singleton of the cluster when
  not.
  """

  alias Foundation.{Cluster, ProcessManager}

  @type spec :: %{required(:children) => [{module(), [term()]}], optional(:opts) => keyword()}

  @doc """
  Starts `children`, each `{module, args}`.

  On one node they are under a supervisor with `opts` (`strategy: :one_for_one` by default): `{:ok, supervisor}`. On several each child is
  started by `Foundation.ProcessManager.start_singleton/3` under `{name, index}`, the first being 0: `{:ok, %{{name, index} => pid}}`, or the
  first error, after which those that were started are stopped again.
  """
  @spec start_distributed_ecosystem(term(), spec()) ::
          {:ok, pid() | %{{term(), non_neg_integer()} => pid()}} | {:error, term()}
  def start_distributed_ecosystem(name, %{children: children} = spec) when is_list(children) do
    if Cluster.size() == 1 do
      Supervisor.start_link(
        children,
        Keyword.put_new(Map.get(spec, :opts, []), :strategy, :one_for_one)
      )
    else
      children |> Enum.with_index() |> start_all(name, %{})
    end
  end

  defp start_all([], _name, started), do: {:ok, started}

  defp start_all([{{module, args}, index} | rest], name, started) do
    case ProcessManager.start_singleton(module, args, name: {name, index}) do
      {:ok, pid} ->
        start_all(rest, name, Map.put(started, {name, index}, pid))

      {:error, reason} ->
        for {child, _pid} <- started, do: ProcessManager.stop_singleton(child)
        {:error, reason}
    end
  end
end

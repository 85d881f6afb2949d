defmodule Foundation.BEAM.Schedulers do
  @moduledoc """
  Long work in pieces, and how busy the schedulers are.

  The BEAM preempts Elixir code by itself, so nothing has to be cut into pieces for others' sake; pieces help when the process itself should
  answer messages or be collectable between them.
  """

  @sample_ms 100

  @doc """
  Calls the function with one part of a list after the other, and gives the results as one flat list. Anything but a list is given to the
  function as it is.

  Options: `chunk_size`, by default `reduction_limit` (2000) / 10.
  """
  @spec cpu_intensive(term(), (term() -> term()), keyword()) :: term()
  def cpu_intensive(data, fun, opts \\ [])

  def cpu_intensive(data, fun, opts) when is_list(data) and is_function(fun, 1) do
    size =
      case Keyword.get(opts, :chunk_size, :auto) do
        :auto -> max(div(Keyword.get(opts, :reduction_limit, 2000), 10), 1)
        size when is_integer(size) and size > 0 -> size
      end

    data
    |> Enum.chunk_every(size)
    |> Enum.map(fn chunk ->
      result = fun.(chunk)
      :erlang.yield()
      result
    end)
    |> List.flatten()
  end

  def cpu_intensive(data, fun, _opts) when is_function(fun, 1), do: fun.(data)

  @doc """
  How busy the normal schedulers were within the next 100 ms: `%{individual: [{scheduler, 0.0..1.0}], average: _, scheduler_count: _}`.
  """
  @spec get_scheduler_utilization() :: %{
          individual: [{pos_integer(), float()}],
          average: float(),
          scheduler_count: pos_integer()
        }
  def get_scheduler_utilization do
    # The VM counts while a process that asked for it lives; asked for in one of its own, it is taken back by itself.
    task =
      Task.async(fn ->
        :erlang.system_flag(:scheduler_wall_time, true)
        before = sample()

        receive do
        after
          @sample_ms -> {before, sample()}
        end
      end)

    {before, later} = Task.await(task, :infinity)

    individual =
      for {{id, active0, total0}, {id, active1, total1}} <- Enum.zip(before, later) do
        {id, if(total1 > total0, do: (active1 - active0) / (total1 - total0), else: 0.0)}
      end

    %{
      individual: individual,
      average: (individual |> Enum.map(&elem(&1, 1)) |> Enum.sum()) / length(individual),
      scheduler_count: length(individual)
    }
  end

  defp sample do
    online = :erlang.system_info(:schedulers_online)

    for {id, _, _} = one when id <= online <- Enum.sort(:erlang.statistics(:scheduler_wall_time)),
        do: one
  end

  @doc """
  Maps a list in as many processes as there are schedulers, and gives the results in order, as one flat list.

  The VM decides which scheduler runs what; processes that are free to move are balanced better than pinned ones.
  """
  @spec balance_work_across_schedulers([term()], (term() -> term())) :: [term()]
  def balance_work_across_schedulers(items, fun) when is_list(items) and is_function(fun, 1) do
    size = max(div(length(items) + System.schedulers_online() - 1, System.schedulers_online()), 1)

    items
    |> Enum.chunk_every(size)
    |> Enum.map(&Task.async(fn -> Enum.map(&1, fun) end))
    |> Task.await_many(:infinity)
    |> List.flatten()
  end
end

defmodule Foundation.Sla.Report do
  @moduledoc false
  # For bench/sla.exs: clusters, times and rows.

  alias Foundation.{Cluster, ProcessManager, TestCluster}

  def await(fun, deadline \\ System.monotonic_time(:millisecond) + 180_000) do
    cond do
      fun.() ->
        :ok

      System.monotonic_time(:millisecond) > deadline ->
        raise "not within three minutes"

      true ->
        receive do
        after
          20 -> await(fun, deadline)
        end
    end
  end

  def form(count, opts \\ [foundation: [cluster: :local_epmd]]) do
    cluster = TestCluster.start(count, opts)
    await(fn -> formed?(cluster, count) end)
    cluster
  end

  def formed?(cluster, count) do
    Enum.all?(TestCluster.nodes(cluster), fn node ->
      TestCluster.call(cluster, node, Cluster, :size, []) == count and
        length(TestCluster.call(cluster, node, ProcessManager, :nodes, [])) == count
    end)
  end

  def timed(fun) do
    start = System.monotonic_time(:millisecond)
    result = fun.()
    {System.monotonic_time(:millisecond) - start, result}
  end

  # Average and 99th percentile; of few runs the latter is the largest.
  def figures(values) do
    sorted = Enum.sort(values)
    count = length(sorted)
    {Enum.sum(sorted) / count, Enum.at(sorted, min(count - 1, ceil(count * 0.99) - 1))}
  end

  # Seconds of processor time that a node's VM has used.
  def cpu(cluster, node) do
    pid = TestCluster.call(cluster, node, System, :pid, [])

    fields =
      "/proc/#{pid}/stat" |> File.read!() |> String.split(") ") |> List.last() |> String.split()

    (String.to_integer(Enum.at(fields, 11)) + String.to_integer(Enum.at(fields, 12))) / 100
  end

  def row(section, target, goal, measured, met?) do
    met = if met?, do: "yes", else: "no"
    IO.puts("#{section} | #{target} | #{goal} | #{measured} | #{met}")
    {section, "| #{target} | #{goal} | #{measured} | #{met} |\n"}
  end

  def number(value) when value >= 100, do: "#{round(value)}"
  def number(value) when value >= 1, do: "#{Float.round(value / 1, 1)}"
  def number(value), do: "#{Float.round(value / 1, 3)}"
end

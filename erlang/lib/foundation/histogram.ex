defmodule Foundation.Histogram do
  @moduledoc """
  A distribution that many processes write to without a lock or a message: latencies, sizes.

      histogram = Foundation.Histogram.new()
      Foundation.Histogram.record(histogram, 1250)
      %{p99: _} = Foundation.Histogram.snapshot(histogram)

  Values are integers from 0; larger ones than 2^60 count as that. They are counted in classes of which each is at most 1/16 wider than its lower
  end, so a percentile is at most 6.25 % above the true one. It is `:counters` of the VM, about 8 kB for each scheduler: a native function would
  need longer for the call alone than this needs in all.
  """

  import Bitwise

  @enforce_keys [:counters]
  defstruct @enforce_keys

  @opaque t :: %__MODULE__{}

  @largest 1 <<< 60
  # 16 classes for each power of two from 2^4 on, and one for each number below.
  @classes (60 - 4 + 2) * 16
  @sum @classes + 1

  @doc """
  An empty one. It goes when nothing refers to it.
  """
  @spec new() :: t()
  def new, do: %__MODULE__{counters: :counters.new(@sum, [:write_concurrency])}

  @doc """
  Counts a value.
  """
  @spec record(t(), non_neg_integer()) :: :ok
  def record(%__MODULE__{counters: counters}, value) when is_integer(value) and value >= 0 do
    value = min(value, @largest)
    :counters.add(counters, class(value) + 1, 1)
    :counters.add(counters, @sum, value)
  end

  @doc """
  `%{count: _, mean: float, min: _, p50: _, p90: _, p99: _, max: _}`, all but `mean` upper ends of classes; without values only `count: 0`.
  What is recorded meanwhile may be in it or not.
  """
  @spec snapshot(t()) :: %{required(:count) => non_neg_integer(), optional(atom()) => number()}
  def snapshot(%__MODULE__{counters: counters}) do
    filled =
      for class <- 0..(@classes - 1),
          (count = :counters.get(counters, class + 1)) > 0,
          do: {class, count}

    case filled |> Enum.map(&elem(&1, 1)) |> Enum.sum() do
      0 ->
        %{count: 0}

      count ->
        %{
          count: count,
          mean: :counters.get(counters, @sum) / count,
          min: filled |> hd() |> elem(0) |> upper(),
          p50: percentile(filled, count, 50),
          p90: percentile(filled, count, 90),
          p99: percentile(filled, count, 99),
          max: filled |> List.last() |> elem(0) |> upper()
        }
    end
  end

  defp percentile(filled, count, percent) do
    wanted = div(count * percent + 99, 100)

    filled
    |> Enum.reduce_while(0, fn {class, many}, seen ->
      if seen + many >= wanted, do: {:halt, {:class, class}}, else: {:cont, seen + many}
    end)
    |> then(fn {:class, class} -> upper(class) end)
  end

  defp class(value) when value < 16, do: value

  defp class(value) do
    power = power(value)
    (power - 3) * 16 + (value >>> (power - 4) &&& 15)
  end

  defp upper(class) when class < 16, do: class

  defp upper(class) do
    power = div(class, 16) + 3
    ((rem(class, 16) + 17) <<< (power - 4)) - 1
  end

  # The largest n with 2^n <= value.
  defp power(value) when value >= 1 <<< 32, do: 32 + power32(value >>> 32)
  defp power(value), do: power32(value)
  defp power32(value) when value >= 1 <<< 16, do: 16 + power16(value >>> 16)
  defp power32(value), do: power16(value)
  defp power16(value) when value >= 1 <<< 8, do: 8 + power8(value >>> 8)
  defp power16(value), do: power8(value)
  defp power8(value) when value >= 1 <<< 4, do: 4 + power4(value >>> 4)
  defp power8(value), do: power4(value)
  defp power4(value) when value >= 8, do: 3
  defp power4(value) when value >= 4, do: 2
  defp power4(value) when value >= 2, do: 1
  defp power4(1), do: 0
end

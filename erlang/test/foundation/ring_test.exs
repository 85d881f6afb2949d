defmodule Foundation.RingTest do
  use ExUnit.Case, async: true
  @moduletag :unit

  import Foundation.Eventually
  alias Foundation.Events.Ring
  alias Foundation.Histogram

  test "what is accepted comes out, in order; what is not is counted" do
    ring = Ring.new(3)

    assert Enum.map(1..5, &Ring.push(ring, &1)) == [
             :ok,
             :ok,
             :ok,
             {:error, :full},
             {:error, :full}
           ]

    assert Ring.drain(ring, 2) == [1, 2]
    assert Ring.push(ring, 6) == :ok
    assert Ring.stats(ring) == %{size: 2, capacity: 3, accepted: 4, refused: 2, skipped: 0}
    assert Ring.drain(ring, 10) == [3, 6]
    assert Ring.drain(ring, 10) == []
  end

  @tag :property
  test "many writers, one reader: nothing is lost, and each writer's order holds" do
    ring = Ring.new(500)

    writers =
      for writer <- 1..8 do
        Task.async(fn -> for n <- 1..5000, Ring.push(ring, {writer, n}) == :ok, do: n end)
      end

    drained = drain_until(ring, fn -> Enum.all?(writers, &(not Process.alive?(&1.pid))) end, [])
    accepted = Task.await_many(writers)

    for {numbers, writer} <- Enum.with_index(accepted, 1) do
      assert for({^writer, n} <- drained, do: n) == numbers
    end

    stats = Ring.stats(ring)

    assert stats.accepted == length(drained) and stats.accepted + stats.refused == 40_000 and
             stats.skipped == 0
  end

  defp drain_until(ring, over?, drained) do
    over = over?.()

    case Ring.drain(ring, 100) do
      [] when over -> drained |> Enum.reverse() |> Enum.concat()
      terms -> drain_until(ring, over?, [terms | drained])
    end
  end

  test "the place of a writer that died in between is skipped" do
    ring = Ring.new(10)
    :ok = Ring.push(ring, 1)
    # As if killed between the two steps.
    :atomics.add(ring.numbers, 1, 1)
    :ok = Ring.push(ring, 3)
    assert Ring.drain(ring, 10) == [1]
    eventually(fn -> Ring.drain(ring, 10) == [3] end)
    assert %{skipped: 1, size: 0} = Ring.stats(ring)
  end

  describe "histogram" do
    test "small numbers are exact" do
      histogram = Histogram.new()
      assert Histogram.snapshot(histogram) == %{count: 0}
      for n <- 1..10, do: Histogram.record(histogram, n)

      assert Histogram.snapshot(histogram) == %{
               count: 10,
               mean: 5.5,
               min: 1,
               p50: 5,
               p90: 9,
               p99: 10,
               max: 10
             }
    end

    @tag :property
    test "percentiles are at most a sixteenth above the true ones" do
      for seed <- 1..200 do
        :rand.seed(:exsss, {4, 4, seed})
        values = for _n <- 1..:rand.uniform(300), do: :rand.uniform(2 ** :rand.uniform(60)) - 1
        histogram = Histogram.new()
        Enum.each(values, &Histogram.record(histogram, &1))
        snapshot = Histogram.snapshot(histogram)
        sorted = Enum.sort(values)

        for {key, percent} <- [min: 0, p50: 50, p90: 90, p99: 99, max: 100] do
          true_one = Enum.at(sorted, max(div(length(sorted) * percent + 99, 100) - 1, 0))

          assert snapshot[key] >= true_one and snapshot[key] <= true_one + div(true_one, 16),
                 "seed #{seed} #{key}"
        end
      end

      histogram = Histogram.new()
      for edge <- [0, 15, 16, 17, 31, 32, 2 ** 60, 2 ** 70], do: Histogram.record(histogram, edge)
      assert Histogram.snapshot(histogram).count == 8
    end

    test "many write" do
      histogram = Histogram.new()

      1..8
      |> Enum.map(fn _n ->
        Task.async(fn -> for n <- 1..1000, do: Histogram.record(histogram, n) end)
      end)
      |> Task.await_many()

      assert Histogram.snapshot(histogram).count == 8000
    end
  end
end

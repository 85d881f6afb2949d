defmodule Bench.Measure do
  @moduledoc false
  # Times of calls, and how late other processes run meanwhile. In nanoseconds.

  # Each of two functions in turn, so that other work on the machine meets both.
  @rounds 5
  @round_ms 150

  # Of each round of a load: how many times a process is woken by a timer.
  @load_rounds 3
  @sleeps 200

  @doc "{least, median} of one call of each function."
  def side_by_side(funs) do
    for fun <- funs, do: fun.()

    for(_round <- 1..@rounds, {fun, n} <- Enum.with_index(funs), do: {n, times(fun)})
    |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
    |> Enum.sort()
    |> Enum.map(fn {_n, rounds} ->
      sorted = rounds |> Enum.concat() |> Enum.sort()
      {hd(sorted), Enum.at(sorted, div(length(sorted), 2))}
    end)
  end

  defp times(fun) do
    # A call of less than a microsecond is timed with others, or the clock would be what is measured.
    at_once = at_once(fun, 1)
    until = System.monotonic_time(:millisecond) + @round_ms
    times(fun, at_once, until, [])
  end

  defp at_once(fun, count) do
    if count < 1024 and time(fun, count) < 10_000, do: at_once(fun, count * 2), else: count
  end

  defp times(fun, at_once, until, times) do
    times = [div(time(fun, at_once), at_once) | times]

    if System.monotonic_time(:millisecond) > until,
      do: times,
      else: times(fun, at_once, until, times)
  end

  defp time(fun, count) do
    start = System.monotonic_time(:nanosecond)
    repeat(fun, count)
    System.monotonic_time(:nanosecond) - start
  end

  defp repeat(_fun, 0), do: :ok

  defp repeat(fun, count) do
    fun.()
    repeat(fun, count - 1)
  end

  @doc "{least, median} of 2,000 single calls: what is beyond them is the operating system's, on a machine that does other work."
  def single(fun) do
    fun.()
    sorted = Enum.sort(for _n <- 1..2000, do: time(fun, 1))
    {hd(sorted), Enum.at(sorted, 1000)}
  end

  @doc """
  By how much a process is woken too late by a timer: {median, 99th percentile, latest} of each load, medians of three rounds
  in which the loads take turns. A load makes a function, which twice as many processes as there are schedulers call without a pause; nil is none.
  """
  def lateness(loads) do
    for(_round <- 1..@load_rounds, {load, n} <- Enum.with_index(loads), do: {n, late(load)})
    |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
    |> Enum.sort()
    |> Enum.map(fn {_n, rounds} ->
      rounds
      |> Enum.zip_with(&Enum.at(Enum.sort(&1), div(@load_rounds, 2)))
      |> List.to_tuple()
    end)
  end

  defp late(nil), do: sleeps()

  defp late(load) do
    pids =
      for _n <- 1..(2 * System.schedulers_online()), do: spawn(fn -> without_pause(load.()) end)

    # Until all of them run.
    Process.sleep(50)
    late = sleeps()

    for pid <- pids do
      ref = Process.monitor(pid)
      Process.exit(pid, :kill)

      receive do
        {:DOWN, ^ref, :process, ^pid, _reason} -> :ok
      end
    end

    late
  end

  defp without_pause(fun) do
    fun.()
    without_pause(fun)
  end

  # Timers are due when a millisecond begins.
  defp sleeps do
    late =
      for _n <- 1..@sleeps do
        at = System.monotonic_time(:millisecond) + 2
        timer = :erlang.start_timer(at, self(), :due, abs: true)

        receive do
          {:timeout, ^timer, :due} -> System.monotonic_time(:nanosecond) - at * 1_000_000
        end
      end

    sorted = Enum.sort(late)
    [Enum.at(sorted, div(@sleeps, 2)), Enum.at(sorted, div(@sleeps * 99, 100)), List.last(sorted)]
  end

  @doc "Microseconds with few digits."
  def us(nanoseconds) when nanoseconds >= 100_000, do: "#{div(nanoseconds, 1000)}"

  def us(nanoseconds),
    do: "#{Float.round(nanoseconds / 1000, if(nanoseconds < 10_000, do: 2, else: 1))}"
end

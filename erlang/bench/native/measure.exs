defmodule Bench.Measure do
  @moduledoc false
  # Times of calls, and how late other processes run meanwhile. In nanoseconds.

  # Each of two functions in turn, so that other work on the machine meets both.
  @rounds 5
  @round_ms 150

  # Of each round of a load: how many times a process is woken by a timer, and for how long at most.
  @load_rounds 3
  @sleeps 100
  @sleeps_ms 2000

  # A scheduler whose thread was ready and not running for longer than this was held up by other work on the machine.
  @held_up 100_000

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

  @doc "Nanoseconds of so many calls."
  def time(fun, count) do
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
  By how much a process is woken too late by a timer: `%{counted: {median, latest, how many}, all: {median, latest, how many}}` of each load, over
  three rounds in which the loads take turns. A load makes a function, which twice as many processes as there are schedulers call without a pause; nil is none.

  Counted are times during which the operating system had not taken the scheduler's thread off its processor: else its time slices, of some
  milliseconds, are what is measured. They are told by `/proc`; where it has no such files, all count.
  """
  def lateness(loads) do
    stats = stats()

    for(
      _round <- 1..@load_rounds,
      {load, n} <- Enum.with_index(loads),
      do: {n, late(load, stats)}
    )
    |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
    |> Enum.sort()
    |> Enum.map(fn {_n, rounds} ->
      all = Enum.concat(rounds)

      %{
        counted: figures(for {late, held_up} <- all, held_up < @held_up, do: late),
        all: figures(for {late, _held_up} <- all, do: late)
      }
    end)
  end

  defp figures(late) do
    sorted = Enum.sort(late)
    {Enum.at(sorted, div(length(sorted), 2)), List.last(sorted), length(sorted)}
  end

  defp late(nil, stats), do: sleeps(stats)

  defp late(load, stats) do
    pids =
      for _n <- 1..(2 * System.schedulers_online()), do: spawn(fn -> without_pause(load.()) end)

    # Until all of them run.
    Process.sleep(50)
    late = sleeps(stats)

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

  defp sleeps(stats) do
    until = System.monotonic_time(:millisecond) + @sleeps_ms

    Enum.reduce_while(1..@sleeps, [], fn _n, late ->
      if System.monotonic_time(:millisecond) > until,
        do: {:halt, late},
        else: {:cont, [sleep(stats) | late]}
    end)
  end

  # Timers are due when a millisecond begins. They belong to the scheduler on which they are started, and whom they wake runs there, unless it is
  # taken over by another scheduler.
  defp sleep(stats) do
    before = held_up(stats)
    begun_on = :erlang.system_info(:scheduler_id)
    at = System.monotonic_time(:millisecond) + 1
    timer = :erlang.start_timer(at, self(), :due, abs: true)

    late =
      receive do
        {:timeout, ^timer, :due} -> System.monotonic_time(:nanosecond) - at * 1_000_000
      end

    schedulers = [begun_on, :erlang.system_info(:scheduler_id)]
    later = held_up(stats)
    {late, Enum.max(for id <- schedulers, do: Map.get(later, id, 0) - Map.get(before, id, 0))}
  end

  # The threads of the normal schedulers; until OTP 25 they had other names.
  defp stats do
    for comm <- Path.wildcard("/proc/self/task/*/comm"),
        [_all, id] <- [Regex.run(~r/^(?:erts_sched_)?(\d+)(?:_scheduler)?$/m, File.read!(comm))],
        stat = Path.join(Path.dirname(comm), "schedstat"),
        File.exists?(stat),
        into: %{},
        do: {String.to_integer(id), stat}
  end

  # Nanoseconds that each was ready and did not run; without the file server, which would be one more process to wait for.
  defp held_up(stats) do
    for {id, stat} <- stats, into: %{} do
      {:ok, line} = :prim_file.read_file(stat)
      [_ran, waited, _times] = String.split(line)
      {id, String.to_integer(waited)}
    end
  end

  @doc "Microseconds with few digits."
  def us(nanoseconds) when nanoseconds >= 100_000, do: "#{div(nanoseconds, 1000)}"

  def us(nanoseconds),
    do: "#{Float.round(nanoseconds / 1000, if(nanoseconds < 10_000, do: 2, else: 1))}"
end

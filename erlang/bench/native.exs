# The native functions beside what does the same without them, the longest calls that run on a normal scheduler, and how late other processes
# run meanwhile: `mix native`. Writes docs/native.md; give a path to write elsewhere. About six minutes.

for file <- ["measure", "cases"], do: Code.require_file("native/#{file}.exs", __DIR__)

alias Bench.{Cases, Measure}
alias Foundation.Native

us = &Measure.us/1
Logger.configure(level: :warning)
unless Native.loaded?(), do: raise(elem(Native.status(), 1))

loadavg = fn -> File.read!("/proc/loadavg") |> String.split() |> hd() end
before = loadavg.()
inputs = Cases.inputs()
pairs = Cases.pairs(inputs)

row = fn cells ->
  IO.puts(Enum.join(cells, " | "))
  "| #{Enum.join(cells, " | ")} |\n"
end

times =
  for {name, native, elixir} <- pairs do
    [{fast, fast_median}, {slow, slow_median}] = Measure.side_by_side([native.(), elixir.()])

    row.([
      name,
      us.(fast),
      us.(fast_median),
      us.(slow),
      us.(slow_median),
      "#{Float.round(slow / max(fast, 1), 1)}"
    ])
  end

longest =
  for {name, call} <- Cases.longest(inputs) do
    {least, median} = Measure.single(call)
    row.([name, us.(least), us.(median)])
  end

# What stays in Elixir, with what a native function would cost for the call alone.
ring = Foundation.Events.Ring.new(1_000_000)
event = hd(inputs.events)
small = {:call, self(), 1, 123_456}
histogram = Foundation.Histogram.new()
{:ok, _registry} = Foundation.Registry.start_link(name: :bench_names)
for n <- 1..10_000, do: {:ok, _} = Foundation.Registry.register(:bench_names, {:worker, n}, n)

# A ring fills: 5 rounds of 200,000 calls at most.
stays =
  for {name, call} <- [
        {"a ring accepts a small event", fn -> Foundation.Events.Ring.push(ring, small) end},
        {"a ring accepts a whole event", fn -> Foundation.Events.Ring.push(ring, event) end},
        {"a histogram takes a value (`:counters`)",
         fn -> Foundation.Histogram.record(histogram, 17) end},
        {"a name is looked up, of 10,000 (ETS)",
         fn -> Foundation.Registry.lookup(:bench_names, {:worker, 77}) end},
        {"its key encoded and hashed by a native call", fn -> Native.phash2({:worker, 77}) end},
        {"`:erlang.phash2/2` of it", fn -> :erlang.phash2({:worker, 77}) end},
        {"a native call that does nothing", fn -> Native.loaded?() end}
      ] do
    [{least, median}] = Measure.side_by_side([call])
    Foundation.Events.Ring.drain(ring, 1_000_000)
    row.([name, us.(least), us.(median)])
  end

cells = fn %{counted: {median, latest, count}, all: {median_of_all, latest_of_all, all}} ->
  counted = if count == 0, do: ["", ""], else: [us.(median), us.(latest)]
  counted ++ [us.(median_of_all), us.(latest_of_all), "#{count} of #{all}"]
end

[idle, loop] = Measure.lateness([nil, fn -> fn -> :ok end end])

late =
  for {name, late} <- [{"nothing", idle}, {"an endless loop in Elixir", loop}],
      do: row.([name, "" | cells.(late)])

late =
  late ++
    for {name, native, elixir} <- Cases.loads(pairs),
        {which, late} <- Enum.zip(["native", "without"], Measure.lateness([native, elixir])),
        do: row.([name, which | cells.(late)])

text = """
# The native functions, measured

`cd erlang && mix native` measures again and writes this file. Microseconds. Run of #{Date.utc_today()}: OTP #{System.otp_release()}, Elixir
#{System.version()}, #{System.schedulers_online()} schedulers, native functions of the profile #{Native.profile()}, load average #{before} at the beginning and #{loadavg.()} at the end: other
work on the machine slows what is measured, and the least is what it slows least.

## Beside what does the same without them

Both in turn, in 5 rounds of 150 ms each: the least and the median of all calls. A call of less than 10 µs is timed with others, to their mean. The last column is
the ratio of the least. A batch is 1,000 events of `Foundation.Events.new_event/3`, #{byte_size(inputs.batch)} bytes.

| | native, least | median | without, least | median | times |
|---|---|---|---|---|---|
#{times}
## The longest calls on a normal scheduler

Each with the most that the library gives to a normal scheduler; a call with more runs on a dirty one. 2,000 calls each, one by one.

| | least | median |
|---|---|---|
#{longest}
`zstd_compress`, `zstd_decompress`, `vectors_new` and `ring_new` always run on a dirty scheduler. `loaded`, `ring_owner`, `spool_new`, `spool_stats` and `machine_new` do
the same little whatever they are given.

## How late other processes run meanwhile

A process is woken by a timer: by how much too late, while twice as many processes as there are schedulers call one function without a pause. Native and without take turns
in three rounds. First come the times during which the operating system had not taken the scheduler's thread off its processor for more than 0.1 ms
(`/proc/self/task/*/schedstat`), then all; the last column says how many the first were. On a machine that does other work a scheduler that is always busy, whatever it does, waits some milliseconds for its processor again and again, and
a process is late by that: so late as "all" it really was. The threads of dirty schedulers, where the longer calls run, are such other work when there are no more processors than schedulers.

| load | | not held up: median | latest | all: median | latest | not held up |
|---|---|---|---|---|---|---|
#{late}
A process keeps its scheduler for 4,000 reductions, and one that is woken waits until the processes before it have had theirs. The time that a call takes on a normal scheduler is charged
to its process: all 4,000 reductions for 25 µs, which is about what they take in Elixir.

## What stays in Elixir

ETS, `:counters` and `:atomics` beside what a native function costs for the call alone.

| | least | median |
|---|---|---|
#{stays}\
"""

path = List.first(System.argv()) || Path.expand("../../docs/native.md", __DIR__)
File.write!(path, text)
IO.puts("written to #{path}")

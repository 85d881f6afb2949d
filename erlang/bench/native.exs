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

cells = fn {median, p99, latest} -> Enum.map([median, p99, latest], us) end

late =
  for {name, native, elixir} <- Cases.loads(pairs) do
    [idle, with_native, without] = Measure.lateness([nil, native, elixir])
    row.([name] ++ cells.(idle) ++ cells.(with_native) ++ cells.(without))
  end

[idle, loop] = Measure.lateness([nil, fn -> fn -> :ok end end])

late =
  late ++ [row.(["(an endless loop in Elixir)"] ++ cells.(idle) ++ ["", "", ""] ++ cells.(loop))]

text = """
# The native functions, measured

`cd erlang && mix native` measures again and writes this file. Microseconds. Run of #{Date.utc_today()}: OTP #{System.otp_release()}, Elixir
#{System.version()}, #{System.schedulers_online()} schedulers, native functions of the release profile, load average #{before} at the beginning and #{loadavg.()} at the end: other
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

A process is woken by a timer, 200 times: by how much too late, while twice as many processes as there are schedulers call one function without a pause. Idle, native
and without take turns in three rounds; each figure is the median of the rounds. With nothing else on the machine the dirty schedulers' threads and the normal ones'
share its processors: what is late under a load on dirty schedulers is late by the operating system, and so are multiples of
its time slice of 4 ms, on a machine that does other work.

| load | idle: median | 99 of 100 | latest | native: median | 99 of 100 | latest | without: median | 99 of 100 | latest |
|---|---|---|---|---|---|---|---|---|---|
#{late}
## What stays in Elixir

ETS, `:counters` and `:atomics` beside what a native function costs for the call alone.

| | least | median |
|---|---|---|
#{stays}\
"""

path = List.first(System.argv()) || Path.expand("../../docs/native.md", __DIR__)
File.write!(path, text)
IO.puts("written to #{path}")

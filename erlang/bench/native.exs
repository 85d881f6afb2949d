# The native functions beside their fallbacks in Elixir, one after the other in one run:
#
#     MIX_ENV=prod mix run bench/native.exs
#
# Medians of the runs within half a second each. A native function is there because its line says so.

defmodule Bench do
  def median(fun) do
    fun.()
    deadline = System.monotonic_time(:millisecond) + 500
    times = collect(fun, deadline, [])
    times |> Enum.sort() |> Enum.at(div(length(times), 2))
  end

  defp collect(fun, deadline, times) do
    start = System.monotonic_time(:nanosecond)
    fun.()
    times = [System.monotonic_time(:nanosecond) - start | times]

    if System.monotonic_time(:millisecond) > deadline,
      do: times,
      else: collect(fun, deadline, times)
  end

  def compare(name, native, elixir) do
    [fast, slow] = Enum.map([native, elixir], &median/1)

    IO.puts(
      String.pad_trailing(name, 46) <>
        String.pad_leading("#{Float.round(fast / 1000, 1)} µs", 14) <>
        String.pad_leading("#{Float.round(slow / 1000, 1)} µs", 14) <>
        String.pad_leading("#{Float.round(slow / fast, 1)}x", 10)
    )
  end
end

alias Foundation.{Native, Text, Vectors}
alias Foundation.Native.{LZ4, XXH3}

unless Native.loaded?(), do: raise(elem(Native.status(), 1))

IO.puts(
  "OTP #{System.otp_release()}, Elixir #{System.version()}, #{System.schedulers_online()} schedulers"
)

IO.puts(
  String.pad_trailing("", 46) <>
    String.pad_leading("native", 14) <>
    String.pad_leading("Elixir", 14) <> String.pad_leading("ratio", 10)
)

:rand.seed(:exsss, {1, 2, 3})

events =
  for n <- 1..1000 do
    Foundation.Events.debug_new_event(:function_entry, %{
      module: Sample,
      function: :call,
      args: [n, "argument #{n}"]
    })
  end

plain = :erlang.term_to_binary(events)
{:ok, block} = Native.lz4_compress(plain)
zlib = :zlib.compress(plain)

IO.puts(
  "a batch of 1000 events: #{byte_size(plain)} bytes, LZ4 #{byte_size(block)}, zlib #{byte_size(zlib)}"
)

Bench.compare("compress a batch (LZ4; zlib)", fn -> Native.lz4_compress(plain) end, fn ->
  :zlib.compress(plain)
end)

{:ok, frame} = Native.zstd_compress(plain)
IO.puts("  Zstandard #{byte_size(frame)}")

Bench.compare("compress it (Zstandard; zlib)", fn -> Native.zstd_compress(plain) end, fn ->
  :zlib.compress(plain)
end)

Bench.compare(
  "decompress it (Zstandard; zlib)",
  fn -> Native.zstd_decompress(frame, byte_size(plain)) end,
  fn -> :zlib.uncompress(zlib) end
)

Bench.compare(
  "decompress it (LZ4; zlib)",
  fn -> Native.lz4_decompress(block, byte_size(plain)) end,
  fn -> :zlib.uncompress(zlib) end
)

Bench.compare(
  "decompress LZ4 (both)",
  fn -> Native.lz4_decompress(block, byte_size(plain)) end,
  fn -> LZ4.decompress(block, byte_size(plain)) end
)

Bench.compare("digest of a batch (XXH3)", fn -> Native.xxh3(plain) end, fn -> XXH3.hash(plain) end)

Bench.compare("digest of a batch (XXH3; MD5 of OTP)", fn -> Native.xxh3(plain) end, fn ->
  :erlang.md5(plain)
end)

values = for _n <- 1..(1000 * 1536), into: <<>>, do: <<:rand.normal()::float-little-32>>
query = binary_part(values, 1536 * 4 * 5, 1536 * 4)
{:ok, native_vectors} = Vectors.new(values, dimensions: 1536)
{:ok, elixir} = Vectors.new(values, dimensions: 1536, native: false)

Bench.compare("10 nearest of 1000 x 1536", fn -> Vectors.top(native_vectors, query, 10) end, fn ->
  Vectors.top(elixir, query, 10)
end)

words = for _n <- 1..300, do: Base.encode16(:rand.bytes(3))
text = fn -> Enum.map_join(1..120, " ", fn _n -> Enum.random(words) end) end
[one | others] = for _n <- 1..11, do: text.()

Bench.compare(
  "similarity of one text of 850 B to 10",
  fn -> Text.similarities(one, others) end,
  fn -> Text.in_elixir(one, others) end
)

alias Foundation.Events.Spool

# One event in, one out: what is in the spool stays the same.
spools =
  for native <- [true, false] do
    spool = Spool.new(native: native)
    binaries = for event <- events, do: {:erlang.term_to_binary(event), event.correlation_id}

    for {bytes, correlation} <- binaries,
        do: {:ok, _number} = Spool.append(spool, bytes, correlation)

    {spool, hd(binaries)}
  end

spooled = fn fun -> Enum.map(spools, fn {spool, event} -> fn -> fun.(spool, event) end end) end

[native, elixir] =
  spooled.(fn spool, {bytes, correlation} ->
    {:ok, _number} = Spool.append(spool, bytes, correlation)
    Spool.drain(spool, 1)
  end)

Bench.compare("a spool takes an event and gives one", native, elixir)

[native, elixir] =
  spooled.(fn spool, _event ->
    for bytes <- Spool.drain(spool, 1000), do: {:ok, _number} = Spool.append(spool, bytes, "c")
  end)

Bench.compare("a spool gives and takes 1000 events", native, elixir)
[native, elixir] = spooled.(fn spool, _event -> Spool.correlate(spool, "c", 10) end)
Bench.compare("10 events of a correlation, of 1000", native, elixir)

Bench.compare("phash2 of an event (ours; the VM's)", fn -> Native.phash2(hd(events)) end, fn ->
  :erlang.phash2(hd(events))
end)

nodes = for n <- 1..100, do: :"node#{n}@host"
ring_of_libring = {Foundation.Ring.new(nodes), Foundation.Ring.in_elixir(nodes)}

Bench.compare("a ring of 100 nodes", fn -> Foundation.Ring.new(nodes) end, fn ->
  Foundation.Ring.in_elixir(nodes)
end)

keys = for n <- 1..1000, do: {:user, n}

[native, elixir] =
  for ring <- Tuple.to_list(ring_of_libring), do: fn -> Foundation.Ring.owners(ring, keys) end

Bench.compare("the owners of 1000 keys on it", native, elixir)

[native, elixir] =
  for ring <- Tuple.to_list(ring_of_libring),
      do: fn -> for _n <- 1..1000, do: Foundation.Ring.owner(ring, :rand) end

Bench.compare("1000 times the owner of one key", native, elixir)

# What stays in Elixir, with what a native function would cost for the call alone.
ring = Foundation.Events.Ring.new(1_000_000)
event = hd(events)
small = {:call, self(), 1, 123_456}
histogram = Foundation.Histogram.new()

{:ok, _registry} = Foundation.Registry.start_link(name: :bench_names)

for n <- 1..10_000,
    do: {:ok, _} = Foundation.Registry.register(:bench_names, {:worker, n}, n)

per_call = fn count, fun ->
  {time, _result} = :timer.tc(fn -> Enum.each(1..count, fun) end)
  time * 1000 / count
end

IO.puts("")

for {name, fun} <- [
      {"a ring accepts a small event", fn _n -> Foundation.Events.Ring.push(ring, small) end},
      {"a ring accepts a whole event", fn _n -> Foundation.Events.Ring.push(ring, event) end},
      {"a histogram takes a value (:counters)",
       fn n -> Foundation.Histogram.record(histogram, n) end},
      {"a name is looked up, of 10,000 (ETS)",
       fn n -> Foundation.Registry.lookup(:bench_names, {:worker, rem(n, 10_000) + 1}) end},
      {"the same as a native call: its encoding alone",
       fn n -> Native.phash2({:worker, rem(n, 10_000) + 1}) end},
      {"a native call that does nothing", fn _n -> Foundation.Native.loaded?() end}
    ] do
  IO.puts(
    String.pad_trailing(name, 46) <>
      String.pad_leading("#{round(per_call.(400_000, fun))} ns", 14)
  )
end

registering = fn _n ->
  {:ok, _} = Foundation.Registry.register(:bench_names, :one, 1)
  :ok = Foundation.Registry.unregister(:bench_names, :one)
end

IO.puts(
  String.pad_trailing("a name is registered and taken back", 46) <>
    String.pad_leading("#{round(per_call.(20_000, registering))} ns", 14)
)

# How late a process wakes up from a sleep of a millisecond: while nothing runs, and while twice as many processes as there are schedulers call
# one native function without a pause. The same with a fallback is what Elixir itself does under that load.
wake_up = fn ->
  late =
    for _n <- 1..1000 do
      start = System.monotonic_time(:nanosecond)
      Process.sleep(1)
      System.monotonic_time(:nanosecond) - start - 1_000_000
    end
    |> Enum.sort()

  {Enum.at(late, 500), Enum.at(late, 989)}
end

under_load = fn name, fun ->
  load =
    for _n <- 1..(2 * System.schedulers_online()),
        do: spawn(fn -> Stream.repeatedly(fun) |> Stream.run() end)

  {median, p99} = wake_up.()
  for pid <- load, do: Process.exit(pid, :kill)

  IO.puts(
    String.pad_trailing(name, 46) <>
      String.pad_leading("#{Float.round(median / 1000, 1)} µs", 14) <>
      String.pad_leading("#{Float.round(p99 / 1000, 1)} µs", 14)
  )
end

IO.puts(
  "\n" <>
    String.pad_trailing("a process wakes up late by", 46) <> "        median       99 of 100"
)

small = binary_part(plain, 0, 32 * 1024)
{spool, _event} = hd(spools)
few_query = binary_part(values, 0, 768 * 4)
{:ok, few_vectors} = Vectors.new(binary_part(values, 0, 20 * 768 * 4), dimensions: 768)
few_keys = Enum.take(keys, 400)
{:ok, machine} = Foundation.Registry.Native.new(:machine, self(), %{})
lookup = {:message, {:"$gen_call", {self(), :tag}, {:lookup, :nobody}}, 0}
idle = wake_up.()

IO.puts(
  String.pad_trailing("with nothing else", 46) <>
    String.pad_leading("#{Float.round(elem(idle, 0) / 1000, 1)} µs", 14) <>
    String.pad_leading("#{Float.round(elem(idle, 1) / 1000, 1)} µs", 14)
)

for {name, fun} <- [
      {"LZ4 of 32 KiB (normal scheduler)", fn -> Native.lz4_compress(small) end},
      {"LZ4 of a batch (dirty)", fn -> Native.lz4_compress(plain) end},
      {"Zstandard of a batch (dirty)", fn -> Native.zstd_compress(plain) end},
      {"XXH3 of a batch", fn -> Native.xxh3(plain) end},
      {"10 nearest of 1000 x 1536", fn -> Vectors.top(native_vectors, query, 10) end},
      {"similarity of one text to 10", fn -> Text.similarities(one, others) end},
      {"similarity of one text to one", fn -> Text.similarities(one, [hd(others)]) end},
      {"3 nearest of 20 x 768 (normal scheduler)",
       fn -> Vectors.top(few_vectors, few_query, 3) end},
      {"phash2 of an event", fn -> Native.phash2(event) end},
      {"the owners of 400 keys on a ring",
       fn -> Foundation.Ring.owners(elem(ring_of_libring, 0), few_keys) end},
      {"a machine of a registry",
       fn -> Foundation.Registry.Native.handle(machine, 0, [lookup]) end},
      {"a spool gives and takes",
       fn ->
         Spool.append(spool, small, "load")
         Spool.drain(spool, 1)
       end},
      {"zlib of a batch, OTP's own (for comparison)", fn -> :zlib.compress(plain) end},
      {"an endless loop in Elixir (for comparison)", fn -> :ok end}
    ] do
  under_load.(name, fun)
end

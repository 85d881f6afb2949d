defmodule Bench.Cases do
  @moduledoc false
  # What is measured: the inputs, each native function beside what does the same without it, and the longest calls on a normal scheduler.

  alias Foundation.{Native, Registry, Ring, Text, Vectors}
  alias Foundation.Events.Spool
  alias Foundation.Native.{Loader, LZ4, XXH3}

  def inputs do
    :rand.seed(:exsss, {1, 2, 3})

    events =
      for n <- 1..1000 do
        Foundation.Events.debug_new_event(:function_entry, %{
          module: Sample,
          function: :call,
          args: [n, "argument #{n}"]
        })
      end

    batch = :erlang.term_to_binary(events)
    words = for _n <- 1..300, do: Base.encode16(:rand.bytes(3))

    %{
      events: events,
      batch: batch,
      small: binary_part(batch, 0, 32 * 1024),
      texts: for(_n <- 1..11, do: Enum.map_join(1..120, " ", fn _n -> Enum.random(words) end)),
      values: for(_n <- 1..(1000 * 1536), into: <<>>, do: <<:rand.normal()::float-little-32>>)
    }
  end

  @doc """
  {name, with native functions, without}: the last is what the library does, or a host would do, for want of the first. Both make the
  function that is to be called.
  """
  def pairs(inputs) do
    plain = Enum.concat([batches(inputs), vectors(inputs), texts(inputs), rings()])

    for({name, native, elixir} <- plain, do: {name, fn -> native end, fn -> elixir end}) ++
      spools(inputs) ++ registry()
  end

  @doc "Of these, those under whose load the lateness of others is measured."
  def loads(pairs) do
    alike = [
      "a batch from LZ4; by Elixir",
      "XXH3 of a batch; by Elixir",
      "XXH3 of a batch; OTP's CRC-32",
      "a ring of 100 nodes",
      "the owner of a key on it",
      "a spool gives and takes 1000",
      "a spool gives 10 events of a correlation"
    ]

    for {name, _native, _elixir} = pair <- pairs, name not in alike, do: pair
  end

  defp batches(%{batch: batch, small: small}) do
    {:ok, block} = Native.lz4_compress(batch)
    {:ok, frame} = Native.zstd_compress(batch)
    zlib = :zlib.compress(batch)
    size = byte_size(batch)

    IO.puts(
      "a batch of 1000 events: #{size} bytes; LZ4 #{byte_size(block)}, zlib #{byte_size(zlib)}, Zstandard #{byte_size(frame)}"
    )

    [
      {"LZ4 of a batch; zlib", fn -> Native.lz4_compress(batch) end,
       fn -> :zlib.compress(batch) end},
      {"LZ4 of 32 KiB; zlib", fn -> Native.lz4_compress(small) end,
       fn -> :zlib.compress(small) end},
      {"Zstandard of a batch; zlib", fn -> Native.zstd_compress(batch) end,
       fn -> :zlib.compress(batch) end},
      {"a batch from LZ4; from zlib", fn -> {:ok, _} = Native.lz4_decompress(block, size) end,
       fn -> :zlib.uncompress(zlib) end},
      {"a batch from LZ4; by Elixir", fn -> {:ok, _} = Native.lz4_decompress(block, size) end,
       fn -> {:ok, _} = LZ4.decompress(block, size) end},
      {"a batch from Zstandard; from zlib",
       fn -> {:ok, _} = Native.zstd_decompress(frame, size) end,
       fn -> :zlib.uncompress(zlib) end},
      {"XXH3 of a batch; by Elixir", fn -> Native.xxh3(batch) end, fn -> XXH3.hash(batch) end},
      {"XXH3 of a batch; OTP's CRC-32", fn -> Native.xxh3(batch) end,
       fn -> :erlang.crc32(batch) end},
      {"XXH3 of 32 KiB; OTP's CRC-32", fn -> Native.xxh3(small) end,
       fn -> :erlang.crc32(small) end}
    ]
  end

  defp vectors(%{values: values}) do
    for {rows, dimensions, count} <- [{1000, 1536, 10}, {20, 768, 3}] do
      part = binary_part(values, 0, rows * dimensions * 4)
      query = binary_part(values, dimensions * 4 * 5, dimensions * 4)
      {:ok, native} = Vectors.new(part, dimensions: dimensions)
      {:ok, elixir} = Vectors.new(part, dimensions: dimensions, native: false)

      {"#{count} nearest of #{rows} x #{dimensions}", fn -> Vectors.top(native, query, count) end,
       fn -> Vectors.top(elixir, query, count) end}
    end
  end

  defp texts(%{texts: [one | others]}) do
    [
      {"similarity of one text of 840 B to 10", fn -> Text.similarities(one, others) end,
       fn -> Text.in_elixir(one, others) end},
      {"similarity of one to one", fn -> Text.similarities(one, [hd(others)]) end,
       fn -> Text.in_elixir(one, [hd(others)]) end}
    ]
  end

  # What is in the spool stays the same.
  # What is in a spool stays the same. Each process has its own: only one at a time may take out.
  defp spools(%{events: events}) do
    binaries = for event <- events, do: :erlang.term_to_binary(event)

    for {name, fun} <- [
          {"a spool takes an event and gives one",
           fn spool ->
             {:ok, _number} = Spool.append(spool, hd(binaries), "c")
             [_event] = Spool.drain(spool, 1)
           end},
          {"a spool gives and takes 1000",
           fn spool ->
             for bytes <- Spool.drain(spool, 1000), do: {:ok, _} = Spool.append(spool, bytes, "c")
           end},
          {"a spool gives 10 events of a correlation",
           fn spool -> [_ | _] = Spool.correlate(spool, "c", 10) end}
        ] do
      [native, elixir] =
        for native <- [true, false] do
          fn ->
            spool = Spool.new(native: native)
            for bytes <- binaries, do: {:ok, _} = Spool.append(spool, bytes, "c")
            fn -> fun.(spool) end
          end
        end

      {name, native, elixir}
    end
  end

  defp rings do
    nodes = for n <- 1..100, do: :"node#{n}@host"
    keys = for n <- 1..1000, do: {:user, n}
    {native, elixir} = {Ring.new(nodes), Ring.in_elixir(nodes)}

    [
      {"a ring of 100 nodes", fn -> Ring.new(nodes) end, fn -> Ring.in_elixir(nodes) end},
      {"the owner of a key on it", fn -> Ring.owner(native, :rand) end,
       fn -> Ring.owner(elixir, :rand) end},
      {"the owners of 1000 keys", fn -> Ring.owners(native, keys) end,
       fn -> Ring.owners(elixir, keys) end}
    ]
  end

  # The names of this node: what the machine does for other nodes has no other implementation.
  defp registry do
    # One after the other: a call that finds the name taken is answered sooner.
    events = fn me ->
      for request <- [{:register, :name, 1, me}, {:unregister, :name, me}],
          do: [{:message, {:"$gen_call", {me, :tag}, request}, 0}]
    end

    [
      {"a name is registered and taken back; on a node alone",
       fn ->
         {:ok, machine} = Registry.Native.new(:machine, self(), %{})

         fn ->
           for event <- events.(self()),
               do: {:ok, _, _, _} = Registry.Native.handle(machine, 0, event)
         end
       end,
       fn ->
         machine = Registry.Alone.new(self(), %{})

         fn ->
           Enum.reduce(events.(self()), machine, fn event, machine ->
             {:ok, machine, _, _} = Registry.Alone.handle(machine, 0, event)
             machine
           end)
         end
       end}
    ]
  end

  @doc "{name, the longest call on a normal scheduler}."
  def longest(inputs) do
    letters = Base.encode16(:rand.bytes(16 * 1024))
    tuples = :erlang.term_to_binary(for n <- 1..252, do: {n})
    words = for n <- 1..676, do: <<rem(n, 26) + ?a, div(n - 1, 26) + ?a>>
    [one, other] = for count <- [676, 650], do: words |> Enum.take(count) |> Enum.join(" ")
    pairs = for _n <- 1..1400, do: [:rand.normal(), :rand.normal()]
    [{:ok, few}, {:ok, many}] = for count <- [350, 1400], do: Vectors.new(Enum.take(pairs, count))
    {:ok, wide} = Vectors.new(binary_part(inputs.values, 0, 38 * 1496 * 4), dimensions: 1496)
    query = binary_part(inputs.values, 0, 1496 * 4)
    large = binary_part(inputs.values, 0, 64 * 1024 - 1)
    spool = Spool.new(max_bytes: 1_000_000_000)
    for _n <- 1..70_000, do: Spool.append(spool, binary_part(letters, 0, 600), "c")
    for _n <- 1..32, do: Spool.append(spool, binary_part(letters, 0, 2000), "e")
    {:ok, ring} = Loader.ring_new(:erlang.term_to_binary(for n <- 1..8000, do: {n, 128}))
    places = for _n <- 1..500, do: :rand.uniform(4_294_967_295) - 1
    {:ok, block} = Native.lz4_compress(letters)
    {:ok, machine} = Registry.Native.new(:machine, self(), %{})

    # As many as go in: a key is given and taken back, so that nothing is left.
    calls = fn count ->
      for n <- 1..count,
          request <- [{:register, n, 1, self()}, {:unregister, n, self()}],
          do: {:message, {:"$gen_call", {self(), :tag}, request}, 0}
    end

    fits? = fn count -> byte_size(:erlang.term_to_binary(calls.(count))) <= 2048 end
    calls = 1..100 |> Enum.take_while(fits?) |> List.last() |> calls.()

    # A call that is longer would run on a dirty scheduler, and be no measurement.
    true = byte_size(tuples) <= 1024
    true = (byte_size(one) + byte_size(other) + 8) in 3900..4096

    [
      {"LZ4 of 32 KiB of random letters", fn -> Native.lz4_compress(letters) end},
      {"32 KiB from LZ4", fn -> Native.lz4_decompress(block, 32 * 1024) end},
      {"XXH3 of 256 KiB", fn -> Native.xxh3(binary_part(inputs.values, 0, 256 * 1024)) end},
      {"phash2 of 1 KiB of small tuples", fn -> Loader.phash2_external(tuples, 1000) end},
      {"10 nearest of 38 x 1496", fn -> Vectors.top(wide, query, 10) end},
      {"5 nearest of 1400 x 2", fn -> Vectors.top(many, [1.0, 2.0], 5) end},
      {"all of 350 x 2 by nearness", fn -> Vectors.top(few, [1.0, 2.0], 350) end},
      {"similarity of two texts of 2 kB, of words of 2 letters",
       fn -> Text.similarities(one, [other]) end},
      {"a spool takes 64 KiB", fn -> Spool.append(spool, large, "d") end},
      {"a spool gives 32 events of 600 bytes", fn -> [_ | _] = Spool.drain(spool, 32) end},
      {"a spool gives 32 of a correlation, of 2000 bytes",
       fn -> [_ | _] = Spool.correlate(spool, "e", 32) end},
      {"the owners of 500 keys on a ring of 8000 nodes",
       fn -> Loader.ring_owners(ring, places) end},
      {"#{length(calls)} calls in a registry's machine",
       fn -> {:ok, _, _, _} = Registry.Native.handle(machine, 0, calls) end}
    ]
  end
end

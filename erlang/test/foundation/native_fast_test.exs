defmodule Foundation.NativeFastTest do
  # The native functions against their fallbacks.
  use ExUnit.Case, async: true
  @moduletag :unit

  import Bitwise, only: [<<<: 2]
  alias Foundation.{Events, Generator, Native, Text, Vectors}
  alias Foundation.Events.Batch
  alias Foundation.Native.{Loader, LZ4, XXH3}

  # Repeats itself as events do.
  defp compressible(size) do
    words = for _n <- 1..20, do: :rand.bytes(:rand.uniform(12))

    Stream.repeatedly(fn -> Enum.random(words) end)
    |> Enum.take(size + 1)
    |> IO.iodata_to_binary()
    |> binary_part(0, size)
  end

  describe "zstd" do
    @tag :property
    test "what was compressed comes back, and only with its length" do
      for size <- [0, 1, 100, 5_000, 300_000, 3_000_000], kind <- [:random, :compressible] do
        :rand.seed(:exsss, {7, 7, size})
        plain = if kind == :random, do: :rand.bytes(size), else: compressible(size)
        {:ok, frame} = Native.zstd_compress(plain)
        assert Native.zstd_decompress(frame, size) == {:ok, plain}
        assert Native.zstd_decompress(frame, size + 1) == {:error, :malformed}
        if size > 0, do: assert(Native.zstd_decompress(frame, size - 1) == {:error, :malformed})
        assert Native.zstd_decompress(frame <> "x", size) == {:error, :malformed}
      end
    end

    test "bytes from anybody are an error, and a claim takes no memory" do
      for seed <- 1..500 do
        :rand.seed(:exsss, {8, 8, seed})
        assert {:error, :malformed} = Native.zstd_decompress(Generator.binary(), 10)
      end

      # A frame whose header claims 2^62 bytes and a window of as many.
      claim = <<0x28, 0xB5, 0x2F, 0xFD, 0xE0, 1 <<< 62::little-64, 0, 0, 0>>
      assert Native.zstd_decompress(claim, 1 <<< 40) == {:error, :malformed}
    end

    test "exactly one frame, whatever it says of its length" do
      # RFC 8878: no content size, a window of 1 KiB, one raw block.
      unsaid = <<0x28, 0xB5, 0x2F, 0xFD, 0, 0, 0x19, 0, 0, "abc">>
      assert Native.zstd_decompress(unsaid, 3) == {:ok, "abc"}
      assert Native.zstd_decompress(unsaid, 4) == {:error, :malformed}
      assert Native.zstd_decompress(unsaid <> unsaid, 6) == {:error, :malformed}

      {:ok, frame} = Native.zstd_compress("abc")

      for {bytes, size} <- [
            {frame <> frame, 6},
            {frame <> frame, 3},
            {binary_part(frame, 0, byte_size(frame) - 1), 3},
            # One that is skipped.
            {<<0x50, 0x2A, 0x4D, 0x18, 0::32>>, 0},
            {<<0x50, 0x2A, 0x4D, 0x18, 0::32>> <> frame, 3}
          ],
          do: assert(Native.zstd_decompress(bytes, size) == {:error, :malformed})

      # So much in so few bytes that memory is taken as they come.
      zeros = :binary.copy(<<0>>, 5_000_000)
      {:ok, frame} = Native.zstd_compress(zeros)
      assert byte_size(frame) * 255 < 5_000_000
      assert Native.zstd_decompress(frame, 5_000_000) == {:ok, zeros}
      assert Native.zstd_decompress(frame, 4_999_999) == {:error, :malformed}
    end

    # OTP has a module of its own from 28 on.
    @tag skip: not Code.ensure_loaded?(:zstd)
    test "OTP reads ours, and we read OTP's" do
      plain = compressible(100_000)
      {:ok, frame} = Native.zstd_compress(plain)
      assert apply(:zstd, :decompress, [frame]) |> IO.iodata_to_binary() == plain
      theirs = apply(:zstd, :compress, [plain]) |> IO.iodata_to_binary()
      assert Native.zstd_decompress(theirs, 100_000) == {:ok, plain}
    end
  end

  describe "xxh3" do
    test "known values" do
      # xxhsum -H3 of xxHash 0.8.2.
      assert Native.xxh3("") == 0x2D06800538D394C2
      assert XXH3.hash("") == 0x2D06800538D394C2
    end

    @tag :property
    test "is the same in Elixir for every length up to three blocks" do
      :rand.seed(:exsss, {1, 2, 3})

      for size <-
            Enum.concat(0..600, [
              1023,
              1024,
              1025,
              1087,
              1088,
              1089,
              2047,
              2048,
              2049,
              3071,
              3072,
              3073,
              300_000
            ]) do
        bytes = :rand.bytes(size)
        assert Loader.xxh3(bytes) == XXH3.hash(bytes), "size #{size}"
      end

      bytes = :rand.bytes(300_000)
      assert Native.xxh3(bytes) == Loader.xxh3(bytes)
    end
  end

  describe "lz4" do
    @tag :property
    test "comes back by either reader" do
      for seed <- 1..300 do
        :rand.seed(:exsss, {1, 2, seed})
        size = :rand.uniform(Enum.random([20, 500, 70_000])) - 1
        plain = Enum.random([:rand.bytes(size), compressible(size), :binary.copy("a", size)])
        {:ok, block} = Native.lz4_compress(plain)
        assert Native.lz4_decompress(block, size) == {:ok, plain}, "seed #{seed}"
        assert LZ4.decompress(block, size) == {:ok, plain}, "seed #{seed}"
      end
    end

    @tag :property
    test "both readers refuse the same damaged blocks" do
      for seed <- 1..800 do
        :rand.seed(:exsss, {3, 2, seed})
        plain = compressible(:rand.uniform(200))
        {:ok, block} = Native.lz4_compress(plain)
        at = :rand.uniform(byte_size(block)) - 1
        head = binary_part(block, 0, at)
        tail = binary_part(block, byte_size(block), at + 1 - byte_size(block))

        damaged =
          Enum.random([
            <<head::binary, :rand.uniform(256) - 1, tail::binary>>,
            head,
            head <> tail
          ])

        size = byte_size(plain) + Enum.random([0, 0, 0, -1, 1])

        assert Loader.lz4_decompress(damaged, size) == LZ4.decompress(damaged, size),
               "seed #{seed}: #{inspect(damaged, limit: :infinity)} #{size}"
      end
    end

    test "a claimed length is not believed" do
      {:ok, block} = Native.lz4_compress("abc")

      for size <- [4, 1_000_000, 2 ** 40, 2 ** 60],
          do: assert(Native.lz4_decompress(block, size) == {:error, :malformed})

      # A length that goes on and on.
      endless = <<0xF0>> <> :binary.copy(<<255>>, 1_000_000)
      assert Native.lz4_decompress(endless, 1000) == {:error, :malformed}

      for reader <- [&Loader.lz4_decompress/2, &LZ4.decompress/2],
          block <- ["", <<0xF0>>, <<0x0F, 0, 0>>],
          do: assert(reader.(block, 10) == {:error, :malformed})
    end
  end

  describe "batches" do
    test "come back, and damage is found" do
      events =
        for n <- 1..500, do: Events.debug_new_event(:call, %{n: n, module: "Elixir.Sample"})

      batch = Batch.pack(events)
      assert <<"FEB", 1, 1, size::32, _digest::64, rest::binary>> = batch
      assert byte_size(rest) * 3 < size
      assert Batch.unpack(batch) == {:ok, events}
      assert Batch.unpack(Batch.pack([])) == {:ok, []}
      assert Batch.unpack(batch, max_bytes: size - 1) == {:error, :too_large}
      assert Batch.unpack("FEX") == {:error, :not_a_batch}

      # What a node without native functions writes.
      plain = :erlang.term_to_binary(events)
      digest = :erlang.crc32(plain)

      for {method, bytes} <- [{2, :zlib.compress(plain)}, {0, plain}] do
        assert Batch.unpack(<<"FEB", 1, method, byte_size(plain)::32, digest::64, bytes::binary>>) ==
                 {:ok, events}

        assert Batch.unpack(
                 <<"FEB", 1, method, byte_size(plain) - 1::32, digest::64, bytes::binary>>
               ) == {:error, :damaged}
      end
    end

    test "in Zstandard they take fewer bytes, for readers with the native functions" do
      events = for n <- 1..300, do: Events.debug_new_event(:sample, %{n: n, text: "sample text"})
      batch = Batch.pack(events, compression: :zstd)
      assert <<"FEB", 1, 3, size::32, _digest::64, frame::binary>> = batch
      assert byte_size(batch) < byte_size(Batch.pack(events))
      assert Batch.unpack(batch) == {:ok, events}
      assert Batch.unpack(batch, max_bytes: size - 1) == {:error, :too_large}

      for length <- 0..(byte_size(frame) - 1)//7 do
        cut = binary_part(batch, 0, byte_size(batch) - byte_size(frame) + length)
        assert Batch.unpack(cut) == {:error, :damaged}
      end
    end

    @tag :property
    test "a batch with another byte is an error or says the same" do
      :rand.seed(:exsss, {1, 1, 1})
      terms = for n <- 1..20, do: {:event, n, "some text"}
      batch = Batch.pack(terms)

      for at <- 0..(byte_size(batch) - 1) do
        head = binary_part(batch, 0, at)
        tail = binary_part(batch, byte_size(batch), at + 1 - byte_size(batch))
        byte = :binary.at(batch, at)
        other = Bitwise.bxor(byte, :rand.uniform(255))
        # LZ4 can say one thing in several ways: what comes out is what was there.
        result = Batch.unpack(<<head::binary, other, tail::binary>>)
        assert match?({:error, _reason}, result) or result == {:ok, terms}
      end

      for seed <- 1..200 do
        :rand.seed(:exsss, {9, 9, seed})
        assert Batch.unpack(Batch.pack(terms = Generator.terms(3))) == {:ok, terms}
      end
    end
  end

  describe "vectors" do
    defp both(rows) do
      {Vectors.new(rows), Vectors.new(rows, native: false)}
    end

    test "the nearest first, equal ones by index" do
      {{:ok, native}, {:ok, elixir}} = both([[1, 0], [0, 2], [3, 4], [0, 0], [0, 5]])

      for vectors <- [native, elixir] do
        assert {:ok, [{1, 1.0}, {4, 1.0}, {2, 0.8}]} = Vectors.top(vectors, [0, 1], 3)
        assert {:ok, []} = Vectors.top(vectors, [0, 1], 0)
        assert {:ok, all} = Vectors.top(vectors, [-1, 0], 99)
        assert List.last(all) == {0, -1.0}
        assert Vectors.top(vectors, [1], 1) == {:error, :dimensions}
        assert Vectors.top(vectors, [0, 0], 1) == {:error, :zero_vector}
        assert Vectors.top(vectors, [1.0e39, 0], 1) == {:error, :not_finite}
        assert Vectors.top(vectors, <<0, 0, 128, 127, 0, 0, 0, 0>>, 1) == {:error, :not_finite}
        assert inspect(vectors) == "#Foundation.Vectors<5 of 2>"
      end

      for native <- [true, false] do
        assert Vectors.new([[1], [1, 2]], native: native) == {:error, :dimensions}
        assert Vectors.new([], native: native) == {:error, :dimensions}

        assert Vectors.new(<<0, 0, 192, 127>>, dimensions: 1, native: native) ==
                 {:error, :not_finite}

        assert Vectors.new(<<1, 2, 3>>, dimensions: 1, native: native) == {:error, :dimensions}
      end
    end

    @tag :property
    test "the same bits by both" do
      for seed <- 1..200 do
        :rand.seed(:exsss, {7, 7, seed})
        dimensions = :rand.uniform(40)

        number = fn ->
          Enum.random([0.0, 1.0, :rand.normal(), :rand.normal() * 1.0e20, :rand.uniform(9)])
        end

        rows = for _row <- 1..:rand.uniform(60), do: for(_n <- 1..dimensions, do: number.())
        query = [1.0 | for(_n <- 2..dimensions//1, do: number.())]
        {{:ok, native}, {:ok, elixir}} = both(rows)
        count = :rand.uniform(70)

        assert Vectors.top(native, query, count) == Vectors.top(elixir, query, count),
               "seed #{seed}"
      end
    end

    test "many go to a dirty scheduler" do
      values = for _n <- 1..100_000, into: <<>>, do: <<:rand.normal()::float-little-32>>
      {:ok, vectors} = Vectors.new(values, dimensions: 100)
      assert {:ok, [{7, near} | _]} = Vectors.top(vectors, binary_part(values, 2800, 400), 3)
      assert_in_delta near, 1.0, 1.0e-12
    end
  end

  describe "texts" do
    doctest Foundation.Text

    @tag :property
    test "the same by both, whatever the alphabet" do
      for seed <- 1..1000 do
        :rand.seed(:exsss, {6, 7, seed})

        words = [
          "The",
          "the",
          "cat",
          "CAT",
          "",
          "\t",
          "\n",
          "a\u00A0b",
          "\u2003",
          "É",
          "é",
          "ΟΔΟΣ",
          "x-1"
        ]

        ascii = Enum.take(words, 7)

        text = fn words ->
          Enum.map_join(1..:rand.uniform(12), " ", fn _n -> Enum.random(words) end)
        end

        list = Enum.random([words, ascii, ascii])
        [text | others] = for _n <- 1..5, do: text.(list)
        assert Text.similarities(text, others) == Text.in_elixir(text, others), "seed #{seed}"
      end

      assert Text.similarity("", "") == 1.0
      assert Text.similarity(<<255>>, <<255>>) == 1.0
    end
  end
end

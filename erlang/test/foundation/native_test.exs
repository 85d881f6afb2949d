defmodule Foundation.NativeTest do
  use ExUnit.Case, async: true
  @moduletag :unit

  alias Foundation.Native

  test "is loaded, and says so" do
    assert Native.loaded?()
    assert Native.status() == :ok
    assert Native.load() == :ok
  end

  test "a panic becomes an exception, and the functions go on working" do
    assert_raise ErlangError, ~r/nif_panicked/, fn -> Native.Loader.panic_probe() end
    assert Native.loaded?()
  end

  test "a VM without the library says what is missing and how to mend it" do
    ebin = Application.app_dir(:foundation, "ebin")
    directory = Path.join(System.tmp_dir!(), "foundation_#{System.unique_integer([:positive])}")
    File.mkdir_p!(directory)
    File.cp_r!(ebin, Path.join(directory, "ebin"))
    on_exit(fn -> File.rm_rf!(directory) end)

    {output, 0} =
      System.cmd("elixir", [
        "-pa",
        Path.join(directory, "ebin"),
        "-e",
        "{:error, message} = Foundation.Native.load(); IO.puts(message); " <>
          "IO.inspect({Foundation.Native.loaded?(), elem(Foundation.Native.status(), 0)})"
      ])

    assert output =~ "native functions are not loaded"
    assert output =~ "priv/native/foundation_native"
    assert output =~ "mix compile"
    assert output =~ "Elixir fallbacks serve"
    assert output =~ "{false, :error}"
  end

  test "a build uses what it has made itself, and without it what is in priv" do
    assert Native.profile() == "debug"
    own = Application.app_dir(:foundation, "native/foundation_native")
    assert Native.Loader.path() == own

    directory = Path.join(System.tmp_dir!(), "foundation_#{System.unique_integer([:positive])}")
    on_exit(fn -> File.rm_rf!(directory) end)
    application = Path.join(directory, "foundation")
    File.mkdir_p!(Path.join(application, "priv/native"))
    File.cp_r!(Application.app_dir(:foundation, "ebin"), Path.join(application, "ebin"))
    [library] = Path.wildcard(own <> ".*")
    File.cp!(library, Path.join([application, "priv/native", Path.basename(library)]))

    load = fn ->
      script = "IO.inspect({Foundation.Native.load(), Foundation.Native.profile()})"

      {output, 0} =
        System.cmd("elixir", ["-pa", Path.join(application, "ebin"), "-e", script],
          stderr_to_stdout: true
        )

      output
    end

    assert load.() =~ ~s({:ok, "debug"})
    File.mkdir_p!(Path.join(application, "native"))
    File.write!(Path.join([application, "native", Path.basename(library)]), "no library")
    output = load.()
    assert output =~ Path.join(application, "native/foundation_native")
    assert output =~ ~r{,\s+nil\}}
  end

  test "a library that was cut short is refused, and ends no VM" do
    [library] = Path.wildcard(Application.app_dir(:foundation, "native/foundation_native.*"))
    assert Native.Object.whole(library) == :ok
    # The linker's to refuse.
    assert Native.Object.whole(library <> ".none") == :ok

    directory = Path.join(System.tmp_dir!(), "foundation_#{System.unique_integer([:positive])}")
    on_exit(fn -> File.rm_rf!(directory) end)
    application = Path.join(directory, "foundation")
    copy = Path.join([application, "priv/native", Path.basename(library)])
    File.mkdir_p!(Path.dirname(copy))
    File.cp_r!(Application.app_dir(:foundation, "ebin"), Path.join(application, "ebin"))
    size = File.stat!(library).size

    for bytes <- [7, 40, 64, 100, 70_000, div(size, 2), size - 1] do
      {:ok, _copied} = :file.copy(library, copy, bytes)

      assert Native.Object.whole(copy) ==
               {:error,
                "#{copy} has #{bytes} bytes of at least #{needed(copy)}: it was not copied whole"}
    end

    for other <- [
          "",
          "no library",
          <<0x7F, "ELF", 9, 9, 0::64*8>>,
          <<0x7F, "ELF", 2, 9, 0::64*8>>
        ] do
      File.write!(copy, other)
      assert Native.Object.whole(copy) == :ok
    end

    {:ok, _copied} = :file.copy(library, copy, div(size, 2))

    {output, 0} =
      System.cmd("elixir", [
        "-pa",
        Path.join(application, "ebin"),
        "-e",
        "{:error, message} = Foundation.Native.load(); IO.puts(message)"
      ])

    assert output =~ "native functions are not loaded: "
    assert output =~ "it was not copied whole"
  end

  defp needed(copy) do
    {:error, message} = Native.Object.whole(copy)
    [_all, needed] = Regex.run(~r/at least (\d+)/, message)
    assert String.to_integer(needed) > File.stat!(copy).size
    needed
  end

  # 4,000 reductions of Elixir take about 25 microseconds. Without a charge a call is one, and its process keeps the scheduler for as long as it likes.
  test "a call on a normal scheduler is charged to the process that makes it" do
    alias Native.Loader
    text = String.duplicate("some words of a text ", 20)
    values = for n <- 1..4000, into: <<>>, do: <<n::float-little-32>>
    {:ok, vectors} = Loader.vectors_new(values, 100)
    query = binary_part(values, 0, 400)
    term = :erlang.term_to_binary(Enum.to_list(1..400))
    {:ok, ring} = Loader.ring_new(:erlang.term_to_binary([{:a, 128}, {:b, 128}]))
    places = Enum.to_list(1..500)
    bytes = :rand.bytes(8000)

    for {name, call} <- [
          text: fn -> Loader.text_similarities(text, [text, text]) end,
          vectors: fn -> Loader.vectors_top(vectors, query, 3) end,
          phash2: fn -> Loader.phash2_external(term, 1000) end,
          lz4: fn -> Loader.lz4_compress(bytes) end,
          ring: fn -> Loader.ring_owners(ring, places) end
        ] do
      {reductions, least} = reductions(call)

      # Half of it for what of the time is not the native function's. A call can be charged for a slice, not for more.
      assert reductions > min(4000, least * 4000 / 25_000) / 2, "#{name}: #{least} ns"
    end
  end

  # Of one call, on average, and the least nanoseconds that one took.
  defp reductions(call) do
    {:reductions, before} = Process.info(self(), :reductions)

    times =
      for _n <- 1..300 do
        start = System.monotonic_time(:nanosecond)
        call.()
        System.monotonic_time(:nanosecond) - start
      end

    {:reductions, later} = Process.info(self(), :reductions)
    {(later - before) / 300, Enum.min(times)}
  end

  describe "phash2" do
    @tag :property
    test "equals :erlang.phash2 for every kind of term" do
      for seed <- 1..6000 do
        :rand.seed(:exsss, {8, 2, seed})
        term = Foundation.Generator.term()

        range =
          Enum.random([1, 2, 271, 4096, 134_217_728, 4_294_967_296, :rand.uniform(4_294_967_296)])

        assert Native.phash2(term) == :erlang.phash2(term), "seed #{seed}: #{inspect(term)}"

        assert Native.phash2(term, range) == :erlang.phash2(term, range),
               "seed #{seed}, range #{range}"
      end
    end

    test "equals it at the edges of the format" do
      edges =
        for exponent <- [7, 8, 27, 28, 31, 32, 59, 60, 63, 64, 65, 127, 128, 2040, 4000],
            sign <- [1, -1],
            by <- [-1, 0, 1] do
          sign * (2 ** exponent + by)
        end

      others = [
        -0.0,
        0.0,
        5.0e-324,
        1.7976931348623157e308,
        <<0::1>>,
        <<1::7>>,
        <<255, 1::1>>,
        String.duplicate("x", 15),
        String.duplicate("x", 16),
        String.duplicate("x", 17),
        Enum.to_list(1..300),
        List.duplicate(?a, 70_000),
        Map.new(1..33, &{&1, &1}),
        Map.new(1..1000, &{{&1, "k"}, [&1]}),
        List.to_tuple(Enum.to_list(1..300)),
        self(),
        hd(Port.list()),
        make_ref(),
        :erlang.alias(),
        &Enum.map/2,
        fn -> 1 end,
        String.to_atom(String.duplicate("é", 255)),
        [1 | 2],
        %{%{} => %{}},
        Date.utc_today()
      ]

      for term <- edges ++ others,
          do: assert(Native.phash2(term) == :erlang.phash2(term), inspect(term))
    end

    test "goes to a dirty scheduler above 2 KiB, with the same result" do
      for size <- [2_000, 2_100, 66_000, 1_000_000] do
        term = {:large, :rand.bytes(size)}
        assert Native.phash2(term, 1000) == :erlang.phash2(term, 1000)
      end
    end

    test "bytes that are no term are an error, not a crash" do
      for bytes <- ["", <<131>>, <<1, 2>>, <<131, 104, 255>>, <<131, 108, -1::32>>] do
        assert Native.Loader.phash2_external(bytes, 10) == {:error, :badterm}
        assert Native.Loader.phash2_external_dirty(bytes, 10) == {:error, :badterm}
      end

      assert_raise ArgumentError, fn -> Native.Loader.phash2_external(:no_binary, 10) end
      assert_raise FunctionClauseError, fn -> Native.phash2(:x, 0) end
    end
  end
end

defmodule Foundation.Events.SpoolTest do
  use ExUnit.Case, async: true
  @moduletag :unit

  alias Foundation.Events
  alias Foundation.Events.Spool
  alias Foundation.Native.Loader

  for native <- [true, false] do
    @native native
    describe "native: #{native}" do
      test "events come out in order, and by correlation while they are there" do
        spool = Spool.new(native: @native)
        {:ok, one} = Events.new_event(:a, %{n: 1}, correlation_id: "c")
        {:ok, two} = Events.new_event(:b, %{n: 2}, correlation_id: "d")
        {:ok, three} = Events.new_event(:a, %{n: 3}, correlation_id: "c")

        for {event, n} <- Enum.with_index([one, two, three]),
            do: assert(Spool.append(spool, event) == {:ok, n})

        terms = fn binaries -> Enum.map(binaries, &:erlang.binary_to_term/1) end
        assert terms.(Spool.correlate(spool, "c")) == [one, three]
        assert terms.(Spool.correlate(spool, "c", 1)) == [one]
        assert Spool.correlate(spool, "other") == []
        assert %{events: 3, correlations: 2, appended: 3, refused: 0} = Spool.stats(spool)

        assert terms.(Spool.drain(spool, 2)) == [one, two]
        assert terms.(Spool.correlate(spool, "c")) == [three]
        assert Spool.correlate(spool, "d") == []
        assert terms.(Spool.drain(spool, 100)) == [three]
        assert Spool.drain(spool, 1) == []

        assert Spool.stats(spool) == %{
                 events: 0,
                 bytes: 0,
                 correlations: 0,
                 appended: 3,
                 refused: 0
               }
      end

      test "it is bounded by bytes, and says so" do
        spool = Spool.new(max_bytes: 1000, native: @native)
        bytes = :binary.copy("x", 300)
        assert {:ok, 0} = Spool.append(spool, bytes, "c")
        assert {:ok, 1} = Spool.append(spool, bytes, "")
        assert {:error, :full} = Spool.append(spool, bytes, "c")
        assert %{events: 2, bytes: 857, refused: 1, correlations: 1} = Spool.stats(spool)
        assert [^bytes] = Spool.drain(spool, 1)
        assert {:ok, 2} = Spool.append(spool, bytes, "c")
        assert {:error, :full} = Spool.append(spool, :binary.copy("x", 1001), "")
        assert_raise ArgumentError, ~r/max_bytes: is 0/, fn -> Spool.new(max_bytes: 0) end
      end

      test "an event of a megabyte" do
        spool = Spool.new(native: @native)
        bytes = :rand.bytes(1_000_000)
        assert {:ok, 0} = Spool.append(spool, bytes, "big")
        assert Spool.correlate(spool, "big", 1) == [bytes]
        assert Spool.correlate(spool, "big", 100) == [bytes]
        assert Spool.drain(spool, 1) == [bytes]
      end

      @tag :stress
      test "what many processes append while one drains comes out once, and in each one's order" do
        spool = Spool.new(native: @native)
        writers = 8
        each = 5000

        tasks =
          for writer <- 1..writers do
            Task.async(fn ->
              for n <- 1..each, do: {:ok, _} = Spool.append(spool, <<writer, n::32>>, <<writer>>)
            end)
          end

        drained = drain(spool, writers * each, [])
        Task.await_many(tasks, 60_000)
        assert Spool.drain(spool, 1) == []

        for writer <- 1..writers do
          assert for(<<^writer, n::32>> <- drained, do: n) == Enum.to_list(1..each)
        end

        assert %{events: 0, bytes: 0, correlations: 0} = Spool.stats(spool)
      end
    end
  end

  defp drain(_spool, 0, drained), do: drained |> Enum.reverse() |> Enum.concat()

  defp drain(spool, left, drained) do
    events = Spool.drain(spool, 1000)
    drain(spool, left - length(events), [events | drained])
  end

  test "a normal scheduler is left with little to do" do
    spool = Spool.new(max_bytes: 1_000_000_000)

    few = fn count, size ->
      for _n <- 1..count, do: {:ok, _} = Spool.append(spool, :rand.bytes(size), "few")
    end

    few.(40, 10)
    assert Loader.spool_correlate(spool.engine, "few", 33) == {:error, :dirty}
    assert {:ok, events} = Loader.spool_correlate(spool.engine, "few", 32)
    assert length(events) == 32
    assert length(Spool.correlate(spool, "few", 33)) == 33
    assert {:more, ^events} = Loader.spool_drain(spool.engine, 40)
    assert {:all, rest} = Loader.spool_drain(spool.engine, 40)
    assert length(rest) == 8
    assert Loader.spool_drain(spool.engine, 40) == {:all, []}

    few.(3, 30_000)
    assert Loader.spool_correlate(spool.engine, "few", 3) == {:error, :dirty}
    assert {:more, [_, _]} = Loader.spool_drain(spool.engine, 3)
    assert [_] = Spool.drain(spool, 3)
    few.(1, 100_000)
    assert {:more, []} = Loader.spool_drain(spool.engine, 1)
    assert [_] = Spool.drain(spool, 1)

    # A long queue is moved to a larger place elsewhere.
    append = fn -> Loader.spool_append(spool.engine, "x", "c") end
    moved = Stream.repeatedly(append) |> Enum.find_index(&(&1 == {:error, :dirty}))
    assert moved in 4096..16_384
    assert {:ok, _} = Spool.append(spool, "x", "c")
    assert {:ok, _} = append.()
    long = String.duplicate("c", 70_000)
    assert {:ok, _} = Spool.append(spool, "x", long)
    assert Spool.correlate(spool, long) == ["x"]
    assert %{events: events} = Spool.stats(spool)
    assert events == length(Spool.drain(spool, events + 1))
  end

  @tag :property
  test "both engines give the same for any sequence of calls" do
    for seed <- 1..300 do
      :rand.seed(:exsss, {5, 5, seed})
      max_bytes = 400 + :rand.uniform(4000)
      spools = for native <- [true, false], do: Spool.new(max_bytes: max_bytes, native: native)

      for _n <- 1..60 do
        correlation = Enum.random(["", "a", "b", <<0>>, <<255, 255>>, "é"])

        call =
          case :rand.uniform(6) do
            n when n <= 3 ->
              bytes = Foundation.Generator.binary()
              &Spool.append(&1, bytes, correlation)

            4 ->
              count = Enum.random([1, 3, 40])
              &Spool.correlate(&1, if(correlation == "", do: "a", else: correlation), count)

            5 ->
              count = :rand.uniform(8)
              &Spool.drain(&1, count)

            6 ->
              &Spool.stats/1
          end

        [native, own] = Enum.map(spools, call)
        assert native == own, "seed #{seed}"
      end
    end
  end
end

defmodule Foundation.UtilsTest do
  use ExUnit.Case, async: true
  @moduletag :unit

  alias Foundation.Utils

  test "ids are positive and differ" do
    ids = for _n <- 1..1000, do: Utils.generate_id()
    assert Enum.all?(ids, &(is_integer(&1) and &1 > 0))
    assert ids == Enum.uniq(ids)
  end

  test "correlation ids are UUIDs of version 4" do
    for _n <- 1..200 do
      assert Utils.generate_correlation_id() =~
               ~r/\A[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\z/
    end
  end

  test "clocks have their units" do
    assert_in_delta Utils.monotonic_timestamp(), System.monotonic_time(:millisecond), 1000
    assert_in_delta Utils.wall_timestamp(), System.system_time(:nanosecond), 1_000_000_000
  end

  test "large terms are cut with a preview of their kind" do
    assert Utils.truncate_if_large("short") == "short"
    long = String.duplicate("x", 20_000)

    assert %{truncated: true, original_size: 20_006, preview: preview, timestamp: %DateTime{}} =
             Utils.truncate_if_large(long)

    assert preview == String.duplicate("x", 100) <> "..."

    assert %{preview: ["1" | _] = shown} = Utils.truncate_if_large(Enum.to_list(1..5000), 500)
    assert length(shown) == 10
    assert %{preview: %{} = map} = Utils.truncate_if_large(Map.new(1..5000, &{&1, &1}), 500)
    assert map_size(map) == 5
    # As in 1.x: of these there is no preview.
    for whole <- [
          %Foundation.Types.Config{},
          MapSet.new(1..100),
          [1 | String.duplicate("x", 100)]
        ],
        do: assert(Utils.truncate_if_large(whole, 50) == whole)

    assert %{preview: text} = Utils.truncate_if_large(List.to_tuple(Enum.to_list(1..5000)), 500)
    assert is_binary(text)
  end

  test "nested maps" do
    assert Utils.deep_merge(%{a: %{b: 1, c: 2}}, %{a: %{c: 3}, d: 4}) == %{a: %{b: 1, c: 3}, d: 4}
    assert Utils.deep_merge(%{a: %{b: 1}}, %{a: 2}) == %{a: 2}
    assert Utils.get_nested(%{a: %{b: 1}}, [:a, :b]) == 1
    assert Utils.get_nested(%{a: %{b: 1}}, [:a, :x], :default) == :default
    assert Utils.get_nested(%{a: 1}, [:a, :b], :default) == :default
    assert Utils.get_nested(%{a: 1}, []) == %{a: 1}
    assert Utils.put_nested(%{}, [:a, :b], 1) == %{a: %{b: 1}}
    assert Utils.put_nested(%{a: 1}, [], 2) == 2
  end

  test "keys" do
    assert Utils.atomize_keys(%{"a" => [%{"b" => 1}]}) == %{a: [%{b: 1}]}
    unknown = "unknown_#{System.unique_integer()}"
    assert Utils.atomize_keys(%{unknown => 1}) == %{unknown => 1}
    assert Utils.stringify_keys(%{a: [%{b: 1}], c: :d}) == %{"a" => [%{"b" => 1}], "c" => :d}
  end

  test "strings and blankness" do
    assert Utils.sanitize_string("  a\n\n b\tc ") == "a b c"
    for blank <- [nil, "", " \n", [], %{}], do: assert(Utils.blank?(blank))
    for present <- ["a", [1], %{a: 1}, 0, false, :a], do: assert(Utils.present?(present))
    assert Utils.valid_positive_integer?(1)
    for other <- [0, -1, 1.0, "1", nil], do: refute(Utils.valid_positive_integer?(other))
  end

  test "durations and sizes" do
    assert Utils.format_duration(17) == "17ns"
    assert Utils.format_duration(1_500) == "1.5μs"
    assert Utils.format_duration(12_000_000) == "12.0ms"
    assert Utils.format_duration(1_500_000_000) == "1.5s"
    assert Utils.format_bytes(512) == "512 B"
    assert Utils.format_bytes(1536) == "1.5 KB"
    assert Utils.format_bytes(2_097_152) == "2.0 MB"
    assert Utils.format_bytes(1_181_116_006) == "1.1 GB"
  end

  test "retry stops at the first success or at the last attempt" do
    counter = :counters.new(1, [])

    fun = fn ->
      :counters.add(counter, 1, 1)
      if :counters.get(counter, 1) < 3, do: {:error, :not_yet}, else: {:ok, :done}
    end

    assert Utils.retry(fun, base_delay: 1) == {:ok, :done}
    assert Utils.retry(fn -> :ok end) == {:ok, :ok}
    assert Utils.retry(fn -> 42 end) == {:ok, 42}

    assert Utils.retry(fn -> {:error, :never} end, max_attempts: 2, base_delay: 1) ==
             {:error, :max_attempts_exceeded}
  end

  test "measuring" do
    assert {:result, microseconds} = Utils.measure(fn -> :result end)
    assert is_integer(microseconds) and microseconds >= 0
    assert {1, {before, later, difference}} = Utils.measure_memory(fn -> 1 end)
    assert difference == later - before
  end

  test "statistics" do
    stats = Utils.process_stats()
    for key <- [:memory, :message_queue_len, :reductions], do: assert(is_integer(stats[key]))
    assert stats.status == :running
    assert Keyword.keyword?(stats.garbage_collection)

    assert %{process_count: _, atom_count: _, memory: _, scheduler_count: _, scheduler_online: _} =
             Utils.system_stats()
  end

  test "what cannot be inspected says so" do
    assert Utils.safe_inspect(%{a: 1}) == "%{a: 1}"
    assert Utils.deep_size([1, 2, 3]) == :erlang.external_size([1, 2, 3])
  end
end

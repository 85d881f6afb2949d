defmodule Foundation.BEAMTest do
  use ExUnit.Case, async: true
  @moduletag :unit

  alias Foundation.BEAM
  alias Foundation.BEAM.{Memory, Messages, Schedulers}

  test "sending picks the way that suits" do
    large = List.duplicate("some text", 2000)
    assert {:ok, reference} = BEAM.send_optimized(self(), large)
    assert_received {:ets_ref, ^reference, _table} = message
    assert Messages.open(message) == {:ok, large}
    middle = List.duplicate("some text", 120)
    assert {:ok, bytes} = Messages.send_optimized(self(), middle)
    assert_received {:shared_binary, binary} = message
    assert byte_size(binary) == bytes
    assert Messages.open(message) == {:ok, middle}

    assert {:ok, smaller} =
             Messages.send_optimized(self(), middle,
               strategy: :ref_counted_binary,
               compression: :high
             )

    assert smaller < bytes
    Messages.send_optimized(self(), :small, priority: :high)
    assert_received :small
    assert Messages.send_optimized(self(), :small, flow_control: true) == {:ok, :sent}
    assert {:ok, reference} = Messages.send_optimized(self(), large, ttl: 0)
    assert_receive {:ets_ref, ^reference, table}

    Foundation.Eventually.eventually(fn ->
      Messages.open({:ets_ref, reference, table}) == :error
    end)
  end

  test "a full queue is not made fuller" do
    busy = spawn(fn -> Process.sleep(:infinity) end)
    on_exit(fn -> Process.exit(busy, :kill) end)
    for n <- 1..10, do: send(busy, n)
    opts = [max_queue_size: 10, max_retries: 1, retry_delay: 1]
    assert Messages.send_with_backpressure(busy, :x, opts) == {:dropped, :backpressure}

    assert Messages.send_with_backpressure(busy, :x, [backpressure_strategy: :queue] ++ opts) ==
             {:queued, :backpressure}

    alternative = [backpressure_strategy: :alternative] ++ opts
    assert Messages.send_with_backpressure(busy, :x, alternative) == {:dropped, :no_alternative}
    Messages.send_with_backpressure(busy, :x, [alternative: self()] ++ alternative)
    assert_received :x

    assert Messages.send_optimized(busy, :x, [strategy: :flow_controlled] ++ opts) ==
             {:error, {:flow_control_failed, {:queue_full, 10}}}

    Process.exit(busy, :kill)
    Foundation.Eventually.eventually(fn -> not Process.alive?(busy) end)

    assert Messages.send_optimized(busy, :x, strategy: :flow_controlled) ==
             {:error, {:flow_control_failed, :noproc}}
  end

  test "work in pieces" do
    assert BEAM.cpu_intensive(Enum.to_list(1..1000), &Enum.map(&1, fn n -> n + 1 end)) ==
             Enum.to_list(2..1001)

    assert Schedulers.cpu_intensive([1, 2, 3], &[Enum.sum(&1)], chunk_size: 2) == [3, 3]
    assert Schedulers.cpu_intensive(%{a: 1}, & &1.a) == 1

    assert Schedulers.balance_work_across_schedulers(Enum.to_list(1..7), &(&1 * 2)) ==
             Enum.map(1..7, &(&1 * 2))

    assert Schedulers.balance_work_across_schedulers([], & &1) == []
  end

  test "utilization is measured" do
    assert %{individual: [{1, first} | _] = all, average: average, scheduler_count: count} =
             Schedulers.get_scheduler_utilization()

    assert count == System.schedulers_online() and length(all) == count
    for value <- [first, average], do: assert(value >= 0.0 and value <= 1.0)
  end

  test "memory" do
    part = binary_part(:binary.copy("x", 10_000), 0, 100)
    assert Memory.optimize_binary(part) == part
    assert :binary.referenced_byte_size(Memory.optimize_binary(part, :sharing)) == 100
    text = String.duplicate("abc", 1000)
    assert :zlib.uncompress(Memory.optimize_binary(text, :storage)) == text
    assert Memory.optimize_binary("short", :transmission) == "short"

    assert Memory.safe_atom("ok", max_atoms: 0) == {:ok, :ok}
    new = "atom_#{System.unique_integer([:positive])}"
    assert Memory.safe_atom(new, max_atoms: 0) == {:error, :atom_table_nearly_full}
    assert {:ok, atom} = Memory.safe_atom(new)
    assert Atom.to_string(atom) == new
    assert Memory.safe_atom(String.duplicate("x", 256)) == {:error, :invalid_atom}
    assert Memory.safe_atom(<<255, 254>>) == {:error, :invalid_atom}

    assert %{total_memory: total, atom_count: _, recommendations: recommendations} =
             Memory.analyze_memory_usage()

    assert total > 0 and is_list(recommendations)
    assert {:ok, %{processes: 1}} = BEAM.optimize_memory(:conservative)
    assert {:ok, %{before: _, after: _}} = Memory.optimize_memory(:aggressive)
  end
end

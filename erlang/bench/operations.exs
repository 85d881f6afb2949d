# The operations of Foundation 1.x, each by the least and the median of its rounds in microseconds: `mix operations`. It calls nothing that 1.x
# does not have, so `elixir bench/operations.exs` with 1.x in ERL_LIBS gives the other column of the table in docs/elixir.md.

Code.require_file("native/measure.exs", __DIR__)
Logger.configure(level: :error)
{:ok, _} = Application.ensure_all_started(:foundation)
# For EventStore.reset_state/0. At its start 1.x would look for its own tests' modules.
Application.put_env(:foundation, :test_mode, true)

alias Foundation.{Config, Events, ProcessRegistry, ServiceRegistry, Telemetry, Utils}
alias Foundation.Services.EventStore

defmodule Operations do
  @moduledoc false
  alias Bench.Measure

  # Each round in a process of its own: what earlier ones have on the heap is no part of it.
  def row(name, rounds, calls, fun) do
    times =
      for _round <- 1..rounds do
        task = Task.async(fn -> Measure.time(fun, calls) end)
        time = div(Task.await(task, :infinity), calls)
        # The casts of one round must not burden the next.
        {:ok, _metrics} = Foundation.Telemetry.get_metrics()
        time
      end

    sorted = Enum.sort(times)
    median = Enum.at(sorted, div(rounds, 2))
    IO.puts("| #{name} | #{Measure.us(hd(sorted))} | #{Measure.us(median)} |")
  end
end

row = &Operations.row/4
{:ok, event} = Events.new_event(:benchmark, %{a: 1})
{:ok, binary} = Events.serialize(event)

row.("`Config.get/1`", 40, 500, fn -> Config.get([:ai, :provider]) end)
row.("`Config.update/2`", 20, 100, fn -> Config.update([:dev, :debug_mode], true) end)

row.("`ServiceRegistry.lookup/2`", 40, 2000, fn ->
  ServiceRegistry.lookup(:production, :config_server)
end)

row.("`ProcessRegistry.lookup/2`", 40, 2000, fn ->
  ProcessRegistry.lookup(:production, :config_server)
end)

row.("`Telemetry.emit_counter/2`", 40, 500, fn -> Telemetry.emit_counter([:benchmark], %{}) end)
row.("`Events.new_event/2`", 40, 1000, fn -> Events.new_event(:benchmark, %{a: 1}) end)
row.("`Events.serialize/1`", 40, 500, fn -> Events.serialize(event) end)
row.("`Events.deserialize/1`", 40, 500, fn -> Events.deserialize(binary) end)
row.("`Utils.generate_correlation_id/0`", 40, 1000, &Utils.generate_correlation_id/0)

for {count, rounds} <- [{1_000, 20}, {10_000, 15}, {100_000, 5}] do
  events =
    for n <- 1..count do
      %{
        event
        | event_id: n,
          timestamp: n,
          event_type: Enum.at([:a, :b, :c, :d], rem(n, 4)),
          correlation_id: "a correlation id of 36 bytes #{rem(n, div(count, 5))}",
          data: %{module: Sample, function: :call, args: [n, "argument #{n}"]}
      }
    end

  reset = fn -> :ok = EventStore.reset_state() end

  one_by_one =
    for _round <- 1..min(rounds, 7) do
      reset.()
      {time, _} = :timer.tc(fn -> for e <- events, do: {:ok, _} = Events.store(e) end)
      time / count
    end

  IO.puts("| `Events.store/1`, each of #{count} | #{Float.round(Enum.min(one_by_one), 2)} | |")

  in_batches =
    for _round <- 1..min(rounds, 7) do
      reset.()
      batches = Enum.chunk_every(events, 1000)
      {time, _} = :timer.tc(fn -> for b <- batches, do: {:ok, _} = Events.store_batch(b) end)
      time / count
    end

  IO.puts("| in batches of 1000, each of #{count} | #{Float.round(Enum.min(in_batches), 2)} | |")
  # So that both measure what they do with events that have been there for a while.
  Process.sleep(1000)

  row.("`Events.get/1`, of #{count}", rounds, 50, fn -> {:ok, _} = Events.get(div(count, 2)) end)

  row.("`Events.get_by_correlation/1`: 5 of #{count}", rounds, 20, fn ->
    {:ok, [_, _, _, _, _]} = Events.get_by_correlation("a correlation id of 36 bytes 3")
  end)

  for {name, query} <- [
        {"all", %{}},
        {"all by timestamp", %{order_by: :timestamp}},
        {"a quarter, by type", %{event_type: :a}},
        {"type, order, limit 100", %{event_type: :a, order_by: :timestamp, limit: 100}},
        {"ten, by time", %{time_range: {100, 109}}},
        {"none, by type", %{event_type: :none}}
      ] do
    row.("`Events.query/1`: #{name}, of #{count}", rounds, 1, fn ->
      {:ok, _} = Events.query(query)
    end)
  end
end

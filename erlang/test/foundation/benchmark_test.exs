defmodule Foundation.BenchmarkTest do
  # Figures for the machine it runs on, and the ratios that must hold on any.
  use ExUnit.Case
  @moduletag :benchmark
  @moduletag timeout: 120_000

  alias Foundation.{Config, Events, Native, ServiceRegistry, Telemetry}
  alias Foundation.Logic.EventLogic

  defp microseconds(runs, fun) do
    for(_n <- 1..runs, do: fun |> :timer.tc() |> elem(0)) |> Enum.sort() |> Enum.at(div(runs, 2))
  end

  defp each(count, fun), do: microseconds(5, fn -> for(_n <- 1..count, do: fun.()) end) / count

  defp report(name, value),
    do: IO.puts("#{String.pad_trailing(name, 44)} #{Float.round(value / 1, 2)} µs")

  test "a correlation query does not grow with the number of events" do
    figures =
      for count <- [1_000, 10_000, 100_000] do
        :ok = Foundation.Services.EventStore.reset_state()
        {:ok, event} = Events.new_event(:benchmark, %{n: 1})

        events =
          for n <- 1..count do
            %{event | event_id: n, timestamp: n, correlation_id: "c#{rem(n, div(count, 5))}"}
          end

        for chunk <- Enum.chunk_every(events, 1000), do: {:ok, _ids} = Events.store_batch(chunk)
        {:ok, pid} = ServiceRegistry.lookup(:production, :event_store)

        settled = fn ->
          if :sys.get_state(pid).recent == %{}, do: :ok, else: {:error, :not_yet}
        end

        {:ok, :ok} =
          Foundation.Utils.retry(settled, max_attempts: 200, base_delay: 50, max_delay: 50)

        indexed = each(500, fn -> {:ok, [_, _, _, _, _]} = Events.get_by_correlation("c3") end)
        scanned = microseconds(5, fn -> EventLogic.extract_correlation_chain(events, "c3") end)
        report("get_by_correlation, #{count} events", indexed)
        report("  the same by a scan", scanned)

        page =
          each(50, fn ->
            Events.query(%{event_type: :benchmark, order_by: :timestamp, limit: 100})
          end)

        report("query of type, order, limit 100", page)
        {indexed, scanned}
      end

    {indexed, scanned} = List.last(figures)
    assert scanned / indexed > 100
    assert indexed < 20 * elem(hd(figures), 0)
  end

  test "operations of 1.x" do
    {:ok, event} = Events.new_event(:benchmark, %{a: 1})
    {:ok, binary} = Events.serialize(event)

    for {name, count, fun} <- [
          {"Config.get", 5000, fn -> Config.get([:ai, :provider]) end},
          {"Config.update", 500, fn -> Config.update([:dev, :debug_mode], true) end},
          {"ServiceRegistry.lookup", 20_000,
           fn -> ServiceRegistry.lookup(:production, :config_server) end},
          {"ProcessRegistry.lookup", 20_000,
           fn -> Foundation.ProcessRegistry.lookup(:production, :config_server) end},
          {"Telemetry.emit_counter", 5000, fn -> Telemetry.emit_counter([:benchmark], %{}) end},
          {"Events.new_event", 5000, fn -> Events.new_event(:benchmark, %{a: 1}) end},
          {"Events.store", 2000, fn -> Events.store(event) end},
          {"Events.serialize", 5000, fn -> Events.serialize(event) end},
          {"Events.deserialize", 5000, fn -> Events.deserialize(binary) end},
          {"Utils.generate_correlation_id", 5000, &Foundation.Utils.generate_correlation_id/0}
        ] do
      report(name, each(count, fun))
      # The casts of one benchmark must not burden the next.
      {:ok, _metrics} = Telemetry.get_metrics()
    end
  end

  test "phash2: the NIF against the VM's own" do
    for {name, term} <- [
          {"small tuple", {:key, 1}},
          {"event", elem(Events.new_event(:x, %{}), 1)},
          {"64 kB binary", :rand.bytes(65_000)}
        ] do
      report("phash2 of a #{name}, NIF", each(2000, fn -> Native.phash2(term) end))
      report("phash2 of a #{name}, VM", each(2000, fn -> :erlang.phash2(term) end))
    end
  end
end

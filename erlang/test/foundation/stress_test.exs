defmodule Foundation.StressTest do
  use ExUnit.Case
  @moduletag :stress
  @moduletag timeout: 120_000

  alias Foundation.{Config, Events, ServiceRegistry, Telemetry}

  test "many processes store and query at once, and nothing is lost" do
    :ok = Foundation.Services.EventStore.reset_state()
    writers = 20
    each = 1000

    1..writers
    |> Task.async_stream(
      fn writer ->
        for n <- 1..each do
          {:ok, event} = Events.new_event(:stress, n, correlation_id: "writer #{writer}")
          {:ok, _id} = Events.store(event)
          if rem(n, 100) == 0, do: {:ok, [_ | _]} = Events.get_by_correlation("writer #{writer}")
        end
      end,
      max_concurrency: writers,
      timeout: 60_000
    )
    |> Stream.run()

    assert {:ok, %{current_event_count: count}} = Events.stats()
    assert count == writers * each

    for writer <- 1..writers do
      assert {:ok, events} = Events.get_by_correlation("writer #{writer}")
      assert events |> Enum.map(& &1.data) |> Enum.sort() == Enum.to_list(1..each)
    end
  end

  test "counters add up whoever emits" do
    :ok = Telemetry.initialize()
    :ok = Foundation.Services.TelemetryService.reset_state()

    1..10
    |> Task.async_stream(fn _n ->
      for _m <- 1..2000, do: Telemetry.emit_counter([:stress, :count], %{})
    end)
    |> Stream.run()

    assert {:ok, %{stress: %{count: %{count: 20_000, measurements: %{counter: 20_000}}}}} =
             Telemetry.get_metrics()
  end

  test "services that are killed come back, and callers see typed errors meanwhile" do
    # As many kills within 5 seconds as the supervisor allows, so those of tests before must not count.
    :ok = Application.stop(:foundation)
    {:ok, _started} = Application.ensure_all_started(:foundation)

    for service <- [:config_server, :event_store, :telemetry_service] do
      {:ok, pid} = ServiceRegistry.lookup(:production, service)
      ref = Process.monitor(pid)
      Process.exit(pid, :kill)
      assert_receive {:DOWN, ^ref, :process, ^pid, :killed}

      for result <- [Config.get([:ai, :provider]), Events.stats(), Telemetry.get_metrics()] do
        assert match?({:ok, _}, result) or
                 match?({:error, %{error_type: :service_unavailable}}, result)
      end

      assert {:ok, other} = ServiceRegistry.wait_for_service(:production, service)
      assert other != pid
    end

    assert Foundation.available?()
  end
end

defmodule Foundation.TelemetryTest do
  use ExUnit.Case
  @moduletag :integration

  alias Foundation.{Host, Telemetry}
  alias Foundation.Services.TelemetryService
  alias Foundation.Types.Error

  setup do
    :ok = TelemetryService.reset_state()
  end

  defp forward(id, events) do
    test = self()

    handler = fn event, measurements, metadata, _config ->
      send(test, {event, measurements, metadata})
    end

    :ok = Host.Telemetry.attach_many(id, events, handler, nil)
    on_exit(fn -> Host.Telemetry.detach(id) end)
  end

  test "measurements are merged by their kind" do
    Telemetry.emit_counter([:m, :count], %{first: true})
    Telemetry.emit_counter([:m, :count], %{first: false})
    TelemetryService.emit_counter([:m, :count], 3, %{})
    Telemetry.emit_gauge([:m, :gauge], 1, %{})
    Telemetry.emit_gauge([:m, :gauge], 7, %{})
    Telemetry.emit_histogram([:m, :histogram], 10)
    Telemetry.emit_histogram([:m, :histogram], 20, %{})
    Telemetry.execute([:m, :other], %{text: "a", n: 1}, %{})
    Telemetry.execute([:m, :other], %{text: "b", n: 4}, %{})

    assert {:ok, %{m: m, retrieved_at: at}} = Telemetry.get_metrics()
    assert is_integer(at)

    assert %{count: 3, measurements: %{counter: 5}, metadata: %{first: true}, timestamp: _} =
             m.count

    assert m.gauge.measurements == %{gauge: 7}
    assert m.histogram.measurements == %{histogram: 15.0}
    assert m.other.measurements == %{text: "b", n: 2.5}
  end

  test "a name may continue another, in either order" do
    for names <- [[[:a], [:a, :b]], [[:a, :b], [:a]]] do
      :ok = TelemetryService.reset_metrics()
      for name <- names, do: Telemetry.emit_counter(name, %{})
      assert {:ok, %{a: %{count: 1, b: %{count: 1}}}} = Telemetry.get_metrics()
    end
  end

  test "metrics of a prefix" do
    Telemetry.emit_counter([:app, :a, :b], %{})
    Telemetry.emit_counter([:app, :c], %{})
    Telemetry.emit_counter([:other], %{})
    assert {:ok, found} = Telemetry.get_metrics_for([:app])
    assert found |> Map.keys() |> Enum.sort() == [[:app, :a, :b], [:app, :c]]
    assert {:ok, none} = Telemetry.get_metrics_for([:nothing])
    assert none == %{}
  end

  test "names are lists of atoms" do
    assert_raise FunctionClauseError, fn -> Telemetry.emit_counter(:atom, %{}) end
    assert_raise FunctionClauseError, fn -> Telemetry.emit_gauge(:atom, 1, %{}) end

    for {name, value, metadata, message} <- [
          {:atom, 1, %{}, "Event name must be a list of atoms, got: :atom"},
          {[], 1, %{}, "Event name cannot be empty"},
          {["x"], 1, %{}, "Event name must be a list of atoms, got: [\"x\"]"},
          {[:x], "1", %{}, "Value must be a number, got: \"1\""},
          {[:x], 1, :odd, "Metadata must be a map, got: :odd"}
        ] do
      assert_raise ArgumentError, message, fn ->
        Telemetry.emit_histogram(name, value, metadata)
      end
    end
  end

  test "measures functions and their exceptions" do
    forward(:measured, [
      [:work, :stop],
      [:work, :exception],
      [:foundation, :function, :execution, :stop]
    ])

    assert Telemetry.measure([:work], %{a: 1}, fn -> :result end) == :result
    assert_receive {[:work, :stop], %{duration: duration}, %{a: 1}}
    assert is_integer(duration)

    assert_raise RuntimeError, "boom", fn ->
      Telemetry.measure([:work], %{}, fn -> raise "boom" end)
    end

    assert_receive {[:work, :exception], %{duration: _}, %{error: %RuntimeError{}}}
    assert Telemetry.time_function(M, :f, fn -> 1 end) == 1
    assert_receive {[:foundation, :function, :execution, :stop], _, %{module: M, function: :f}}
  end

  test "events of the library" do
    forward(:library, [
      [:foundation, :performance, :x],
      [:foundation, :system, :boot],
      [:foundation, :foundation, :registry, :lookup]
    ])

    Telemetry.emit_performance(:x, 5)
    assert_receive {[:foundation, :performance, :x], %{gauge: 5}, %{}}
    Telemetry.emit_system_event(:boot, %{a: 1})
    assert_receive {[:foundation, :system, :boot], %{counter: 1}, %{a: 1}}
    Foundation.ServiceRegistry.lookup(:nowhere, :nothing)

    assert_receive {[:foundation, :foundation, :registry, :lookup], %{duration: _},
                    %{namespace: :nowhere, service: :nothing, result: :error}}
  end

  test "a handler that raises is detached, and the others go on" do
    :ok = Host.Telemetry.attach(:raising, [:h], fn _, _, _, _ -> raise "boom" end, :config)
    forward(:steady, [[:h], [:telemetry, :handler, :failure]])
    Host.Telemetry.execute([:h], %{}, %{})
    assert_receive {[:h], _, _}

    assert_receive {[:telemetry, :handler, :failure], %{monotonic_time: _, system_time: _},
                    %{
                      event_name: [:h],
                      handler_id: :raising,
                      handler_config: :config,
                      kind: :error,
                      reason: %RuntimeError{message: "boom"},
                      stacktrace: [_ | _]
                    }}

    assert Host.Telemetry.attach(:raising, [:h], fn _, _, _, _ -> :ok end, nil) == :ok

    assert Host.Telemetry.attach(:raising, [:h], fn _, _, _, _ -> :ok end, nil) ==
             {:error, :already_exists}

    assert Host.Telemetry.detach(:raising) == :ok
    assert Host.Telemetry.detach(:raising) == {:error, :not_found}
  end

  test "logging handlers" do
    assert Telemetry.attach_handlers([[:a], [:b]]) == :ok

    assert {:ok, %{handlers_count: 2, status: :running, config: %{metric_retention_ms: 300_000}}} =
             Telemetry.status()

    assert Telemetry.detach_handlers([[:a]]) == :ok
    assert {:ok, %{handlers_count: 1}} = Telemetry.status()
  end

  test "old metrics go, young ones stay" do
    {:ok, pid} =
      start_supervised(
        {TelemetryService,
         namespace: {:test, make_ref()}, metric_retention_ms: 100, enable_vm_metrics: false}
      )

    GenServer.cast(pid, {:execute_event, [:young], %{}, %{}})
    send(pid, :cleanup_old_metrics)
    assert {:ok, %{young: _}} = GenServer.call(pid, :get_metrics)

    :sys.replace_state(
      pid,
      &put_in(&1.metrics[[:young]].timestamp, System.monotonic_time() - 200_000_000)
    )

    send(pid, :cleanup_old_metrics)
    assert {:ok, %{metrics_count: 0}} = GenServer.call(pid, :get_status)
  end

  test "without the service, emitting does nothing and reading is an error" do
    {:ok, pid} = Foundation.ServiceRegistry.lookup(:production, :telemetry_service)
    :sys.suspend(pid)
    assert Telemetry.emit_counter([:x], %{}) == :ok
    :sys.resume(pid)

    :ok = Supervisor.terminate_child(Foundation.Supervisor, TelemetryService)
    assert Telemetry.emit_counter([:x], %{}) == :ok
    refute Telemetry.available?()
    refute Foundation.available?()
    assert {:error, %Error{error_type: :service_unavailable}} = Telemetry.get_metrics()
    assert {:error, %Error{}} = Foundation.health()
    {:ok, _} = Supervisor.restart_child(Foundation.Supervisor, TelemetryService)
    assert Foundation.available?()
  end
end

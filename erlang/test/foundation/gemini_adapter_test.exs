defmodule Foundation.GeminiAdapterTest do
  use ExUnit.Case
  @moduletag :unit

  alias Foundation.{Events, Host, Telemetry}
  alias Foundation.Integrations.GeminiAdapter

  setup do
    on_exit(fn -> Host.Telemetry.detach("foundation-gemini-adapter") end)
    id = Foundation.Utils.generate_correlation_id()
    %{id: id, stored: fn type -> stored(type, id) end}
  end

  defp stored(type, id) do
    {:ok, events} = Events.query(%{event_type: type})
    for event <- events, event.data[:request_id] == id, do: event.data
  end

  test "does nothing without gemini_ex", %{id: id, stored: stored} do
    assert GeminiAdapter.setup() == :noop
    Host.Telemetry.execute([:gemini, :request, :start], %{}, %{request_id: id})
    assert stored.(:gemini_request_start) == []
  end

  test "stores and measures what gemini_ex tells", %{id: id, stored: stored} do
    Code.compile_string("defmodule Gemini do end")

    on_exit(fn ->
      :code.purge(Gemini)
      :code.delete(Gemini)
      :code.purge(Gemini)
    end)

    assert GeminiAdapter.setup() == :ok
    # Again has no effect.
    assert GeminiAdapter.setup() == :ok

    for {of, phase, measurements} <- [
          {:request, :start, %{system_time: 1}},
          {:request, :stop, %{duration: 7}},
          {:request, :stop, %{}},
          {:request, :exception, %{duration: 3}},
          {:stream, :start, %{}},
          {:stream, :chunk, %{chunk_size: 10}},
          {:stream, :stop, %{total_duration: 9, total_chunks: 2}},
          {:stream, :exception, %{}}
        ] do
      Host.Telemetry.execute([:gemini, of, phase], measurements, %{request_id: id, reason: :slow})
    end

    base = %{request_id: id, reason: :slow}
    assert stored.(:gemini_request_start) == [Map.put(base, :system_time, 1)]
    assert Enum.sort(stored.(:gemini_request_stop)) == [base, Map.put(base, :duration, 7)]
    assert stored.(:gemini_request_exception) == [Map.put(base, :duration, 3)]
    assert stored.(:gemini_stream_start) == [base]
    assert stored.(:gemini_stream_chunk) == [Map.put(base, :chunk_size, 10)]

    assert stored.(:gemini_stream_stop) == [
             Map.merge(base, %{total_duration: 9, total_chunks: 2})
           ]

    assert stored.(:gemini_stream_exception) == [base]

    {:ok, metrics} = Telemetry.get_metrics_for([:gemini])

    assert Map.new(metrics, fn {name, metric} -> {name, metric.measurements} end) == %{
             [:gemini, :request, :duration] => %{histogram: 7},
             [:gemini, :request, :errors] => %{counter: 1},
             [:gemini, :stream, :chunk_size] => %{histogram: 10},
             [:gemini, :stream, :duration] => %{histogram: 9},
             [:gemini, :stream, :chunks] => %{histogram: 2},
             [:gemini, :stream, :errors] => %{counter: 1}
           }
  end

  test "data that cannot be stored are no reason to be detached", %{id: id} do
    log =
      ExUnit.CaptureLog.capture_log(fn ->
        assert GeminiAdapter.handle_event(
                 [:gemini, :request, :stop],
                 %{duration: :long},
                 %{request_id: id},
                 nil
               ) == :ok
      end)

    assert log =~ "Failed to store gemini_request_stop event: %ArgumentError{"
  end
end

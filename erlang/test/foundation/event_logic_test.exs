defmodule Foundation.Logic.EventLogicTest do
  use ExUnit.Case, async: true
  @moduletag :unit

  alias Foundation.Events
  alias Foundation.Logic.EventLogic
  alias Foundation.Types.{Error, Event}
  alias Foundation.Validation.EventValidator

  test "a new event has every field" do
    assert {:ok, event} = Events.new_event(:anything, %{a: 1})

    assert %Event{event_type: :anything, data: %{a: 1}, node: node, pid: pid, parent_id: nil} =
             event

    assert {node, pid} == {node(), self()}
    assert is_integer(event.event_id) and is_integer(event.timestamp)
    assert_in_delta event.timestamp, System.monotonic_time(:millisecond), 1000
    assert byte_size(event.correlation_id) == 36
    assert %DateTime{} = event.wall_time

    fields = [event_id: 7, timestamp: 1, correlation_id: "c", parent_id: 3, node: :a@b]
    assert {:ok, given} = Events.new_event(:anything, nil, fields)
    assert Map.take(given, Keyword.keys(fields)) == Map.new(fields)
  end

  test "each violation has its type and code" do
    for {type, opts, error_type, code} <- [
          {nil, [], :validation_failed, 2001},
          {"text", [], :type_mismatch, 2002},
          {:ok, [event_id: -1], :type_mismatch, 2002},
          {:ok, [timestamp: nil], :validation_failed, 2001},
          {:ok, [timestamp: 1.5], :type_mismatch, 2002},
          {:ok, [wall_time: 1], :type_mismatch, 2002},
          {:ok, [pid: 1], :type_mismatch, 2002},
          {:ok, [correlation_id: :atom], :type_mismatch, 2002},
          {:ok, [parent_id: 0], :type_mismatch, 2002}
        ] do
      assert {:error, %Error{error_type: ^error_type, code: ^code}} =
               Events.new_event(type, %{}, opts)
    end

    assert {:error,
            %Error{error_type: :data_too_large, code: 2003, context: %{max_size: 1_000_000}}} =
             Events.new_event(:big, String.duplicate("x", 1_000_001))

    assert EventValidator.validate_event_type(:spawn) == :ok
    assert {:error, %Error{code: 2004}} = EventValidator.validate_event_type(:never_heard_of)
    assert {:error, %Error{code: 2002}} = EventValidator.validate_event_type("spawn")

    assert_raise RuntimeError, "Failed to create debug event", fn ->
      Events.debug_new_event(nil, 1)
    end
  end

  test "events come back from their bytes" do
    {:ok, event} = Events.new_event(:stored, %{pid: self(), list: [1, 2.5, "x"]})
    assert {:ok, binary} = Events.serialize(event)
    assert Events.deserialize(binary) == {:ok, event}
    assert Events.serialized_size(event) == {:ok, byte_size(binary)}
    assert {:ok, plain} = EventLogic.serialize_event(event, compression: false)
    assert Events.deserialize(plain) == {:ok, event}
    assert {:error, %Error{error_type: :deserialization_failed}} = Events.deserialize(<<1, 2, 3>>)

    assert {:error, %Error{error_type: :deserialization_failed}} =
             Events.deserialize(:erlang.term_to_binary(:no_event))

    assert_raise FunctionClauseError, fn -> Events.serialize(:no_event) end
  end

  test "calls, returns and state changes" do
    large = String.duplicate("x", 10_001)

    assert {:ok, %{event_type: :function_entry, data: data}} =
             Events.function_entry(M, :f, 1, [large], caller_line: 3)

    assert %{
             module: M,
             function: :f,
             arity: 1,
             args: %{truncated: true},
             caller_line: 3,
             caller_module: nil
           } = data

    assert {:ok,
            %{
              event_type: :function_exit,
              data: %{call_id: 1, result: :r, duration_ns: 5, exit_reason: :normal}
            }} = Events.function_exit(M, :f, 1, 1, :r, 5, :normal)

    assert {:ok, %{data: %{state_diff: :changed}}} =
             Events.state_change(self(), :handle_call, 1, 2)

    assert {:ok, %{data: %{state_diff: :no_change}}} =
             Events.state_change(self(), :handle_call, 1, 1)
  end

  test "the three kinds that 2.0 adds" do
    assert {:ok, %{event_type: :login, data: %{user_id: 7, ip: "x"}}} =
             Events.new_user_event(7, :login, %{ip: "x"})

    assert {:ok, %{event_type: :boot, data: %{a: 1}}} = Events.new_system_event(:boot, %{a: 1})
    assert {:ok, %{data: %{reason: :x}}} = Events.new_error_event(:failed, %{reason: :x})

    assert {:ok, %{data: %{error: %RuntimeError{}}}} =
             Events.new_error_event(:failed, %RuntimeError{})
  end

  test "selecting" do
    events =
      for {id, time} <- [{"a", 3}, {"b", 1}, {"a", 2}, {nil, 4}] do
        {:ok, event} = Events.new_event(:x, nil, correlation_id: id, timestamp: time)
        event
      end

    times = fn list -> Enum.map(list, & &1.timestamp) end
    assert times.(EventLogic.extract_correlation_chain(events, "a")) == [2, 3]
    groups = EventLogic.group_by_correlation(events)

    assert Map.new(groups, fn {id, list} -> {id, times.(list)} end) == %{
             "a" => [2, 3],
             "b" => [1]
           }

    assert times.(EventLogic.filter_by_time_range(events, 2, 3)) == [3, 2]
    assert EventLogic.transform_event_data(hd(events), fn nil -> 1 end).data == 1
  end

  test "plain events" do
    assert Event.new().event_type == :default
    assert Event.new(:custom).event_type == :custom
    assert Event.new(event_type: :a, data: 1).data == 1
    assert Event.empty().event_id == nil
  end
end

defmodule Foundation.ErrorTest do
  use ExUnit.Case, async: true
  @moduletag :unit

  alias Foundation.{Error, ErrorContext}

  @catalogue [
    invalid_config_structure: {1101, :high, :config, :structure, :immediate},
    missing_required_field: {1102, :high, :config, :structure, :immediate},
    invalid_config_value: {1201, :medium, :config, :validation, :no_retry},
    constraint_violation: {1202, :medium, :config, :validation, :fixed_delay},
    range_error: {1203, :low, :config, :validation, :fixed_delay},
    config_not_found: {1301, :high, :config, :access, :immediate},
    config_update_forbidden: {1401, :medium, :config, :runtime, :fixed_delay},
    initialization_failed: {2101, :critical, :system, :initialization, :no_retry},
    service_unavailable: {2102, :high, :system, :initialization, :immediate},
    resource_exhausted: {2201, :high, :system, :resources, :immediate},
    dependency_failed: {2301, :high, :system, :dependencies, :immediate},
    internal_error: {2401, :critical, :system, :runtime, :no_retry},
    serialization_failed: {3101, :medium, :data, :serialization, :fixed_delay},
    deserialization_failed: {3102, :medium, :data, :serialization, :fixed_delay},
    type_mismatch: {3201, :low, :data, :validation, :fixed_delay},
    format_error: {3202, :low, :data, :validation, :fixed_delay},
    validation_failed: {3203, :medium, :data, :validation, :fixed_delay},
    invalid_input: {3204, :low, :data, :validation, :fixed_delay},
    data_corruption: {3301, :critical, :data, :corruption, :no_retry},
    data_not_found: {3401, :low, :data, :not_found, :fixed_delay},
    network_error: {4101, :medium, :external, :network, :exponential_backoff},
    external_service_error: {4201, :medium, :external, :service, :fixed_delay},
    timeout: {4301, :medium, :external, :timeout, :exponential_backoff},
    authentication_failed: {4401, :high, :external, :auth, :immediate},
    never_heard_of: {9999, :medium, :unknown, :unknown, :fixed_delay}
  ]

  test "code, severity, category and retry strategy follow from the type" do
    for {type, {code, severity, category, subcategory, strategy}} <- @catalogue do
      error = Error.new(type)

      assert {error.code, error.severity, error.category, error.subcategory, error.retry_strategy} ==
               {code, severity, category, subcategory, strategy}

      assert error.error_type == type
      assert is_binary(error.message)
      assert [_ | _] = error.recovery_actions
      assert %DateTime{} = error.timestamp
      assert Error.is_retryable?(error) == (strategy != :no_retry)
      assert Error.should_escalate?(error) == severity in [:high, :critical]
    end
  end

  test "message, context and stack trace are the caller's" do
    stack = [{Mod, :fun, 1, [file: ~c"a.ex", line: 3]}, :odd]
    error = Error.new(:timeout, "too slow", context: %{operation: :fetch}, stacktrace: stack)
    assert error.message == "too slow"
    assert List.last(error.recovery_actions) == "Review fetch implementation"
    assert [%{module: Mod, function: :fun, arity: 1, line: 3}, ":odd"] = error.stacktrace
    assert {:error, %Error{error_type: :timeout}} = Error.error_result(:timeout)
  end

  test "delays" do
    assert for(n <- 0..6, do: Error.retry_delay(Error.new(:timeout), n)) ==
             [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]

    assert Error.retry_delay(Error.new(:timeout), 5000) == 30_000
    assert Error.retry_delay(Error.new(:range_error), 3) == 1000
    assert Error.retry_delay(Error.new(:service_unavailable), 3) == 0
    assert Error.retry_delay(Error.new(:internal_error), 3) == :infinity
  end

  test "wrapping keeps what was there" do
    assert {:error, wrapped} =
             Error.wrap_error({:error, :enoent}, :config_not_found, nil, context: %{a: 1})

    assert wrapped.context == %{a: 1, original_reason: :enoent}

    inner = Error.new(:timeout)
    assert {:error, same} = Error.wrap_error({:error, inner}, :network_error, "outer")
    assert same.error_type == :timeout

    assert %{wrapped_by: :network_error, wrapper_message: "outer", wrapper_context: %{}} =
             same.context

    assert Error.wrap_error({:ok, 1}, :timeout) == {:ok, 1}
  end

  test "as text" do
    assert Error.to_string(Error.new(:timeout)) ==
             "[4301:timeout] Operation timeout | Severity: medium"

    assert Error.to_string(Error.new(:timeout, nil, context: %{a: 1})) ==
             "[4301:timeout] Operation timeout | Context: %{a: 1} | Severity: medium"
  end

  describe "contexts" do
    test "a child continues its parent" do
      parent = ErrorContext.new(M, :f, metadata: %{a: 1}, correlation_id: "id")
      child = ErrorContext.child_context(parent, N, :g, %{b: 2})
      assert child.correlation_id == "id"
      assert child.metadata == %{a: 1, b: 2}

      assert [%{module: M, function: :f}, %{module: N, function: :g, metadata: %{b: 2}}] =
               child.breadcrumbs

      assert child.parent_context == parent

      grown = parent |> ErrorContext.add_breadcrumb(O, :h) |> ErrorContext.add_metadata(%{c: 3})
      assert length(grown.breadcrumbs) == 2
      assert grown.metadata == %{a: 1, c: 3}

      assert ErrorContext.format_breadcrumbs(grown) =~
               ~r/\AElixir\.M\.f \(.* ago\) -> Elixir\.O\.h/

      assert is_integer(ErrorContext.get_operation_duration(grown))
    end

    test "is in the process dictionary while the function runs" do
      context = ErrorContext.new(M, :f)
      assert ErrorContext.with_context(context, &ErrorContext.get_current_context/0) == context
      assert ErrorContext.get_current_context() == nil
    end

    test "an exception becomes an internal error" do
      context = ErrorContext.new(M, :f, metadata: %{a: 1})

      assert {:error, %Error{error_type: :internal_error} = error} =
               ErrorContext.with_context(context, fn -> raise "boom" end)

      assert error.message == "Exception in operation: boom"
      assert error.context.exception_type == RuntimeError
      assert error.context.operation_context.metadata == %{a: 1}
      assert error.correlation_id == context.correlation_id
      assert Enum.all?(error.stacktrace, &is_binary/1)
      assert ErrorContext.get_current_context() == nil
    end

    test "errors gain the operation" do
      context = ErrorContext.new(M, :f, correlation_id: "id")
      error = Error.new(:timeout, nil, context: %{a: 1})

      assert %{a: 1, operation_context: %{correlation_id: "id", metadata: %{}}} =
               ErrorContext.enhance_error(error, context).context

      assert {:error, %Error{correlation_id: "id"}} =
               ErrorContext.enhance_error({:error, error}, context)

      assert {:error,
              %Error{
                error_type: :external_error,
                code: 9999,
                context: %{original_reason: :enoent}
              }} = ErrorContext.enhance_error({:error, :enoent}, context)

      assert ErrorContext.enhance_error({:ok, 1}, context) == {:ok, 1}
    end

    test "any map can be added to an error" do
      context = ErrorContext.new(M, :f)
      assert ErrorContext.add_context(:ok, context) == :ok
      assert ErrorContext.add_context({:ok, 1}, context) == {:ok, 1}
      error = Error.new(:timeout)

      assert {:error, %{context: %{a: 1, b: 2}}} =
               ErrorContext.add_context({:error, error}, %{a: 1}, %{b: 2})

      assert {:error, %{context: %{operation_context: _, b: 2}}} =
               ErrorContext.add_context({:error, error}, context, %{b: 2})

      assert {:error, %{context: %{original_reason: :x, a: 1}}} =
               ErrorContext.add_context({:error, :x}, %{a: 1})

      assert {:error, %{context: %{original_reason: :x, operation_context: _}}} =
               ErrorContext.add_context({:error, :x}, context)
    end
  end
end

defmodule Foundation.Infrastructure.CircuitBreaker do
  @moduledoc """
  Circuit breakers: after too many failures in a window, calls are refused for a while.

  A failure is a function that raises, throws or exits. One that returns `{:error, _}` counts as a success.

  | `error_type` | code | when |
  |---|---|---|
  | `:circuit_breaker_install_failed`, `:circuit_breaker_exception` | 5001, 5002 | `start_fuse_instance/2` |
  | `:protected_operation_failed` | 5003, 5012 | the function raised; threw or exited |
  | `:circuit_breaker_blown` | 5004 | refused; retry strategy `:fixed_delay` |
  | `:circuit_breaker_not_found` | 5005, 5007, 5013 | `execute/3`, `get_status/1`, `reset/1` of an unknown name |
  | `:circuit_breaker_exception` | 5006, 5008, 5014 | the engine failed |
  | `:invalid_input` | 5009, 5011 | arguments of other types |

  Emits counters `[:foundation, :foundation, :infra, :circuit_breaker, event]`: `:fuse_installed`, `:fuse_already_installed`,
  `:fuse_install_failed`, `:fuse_install_exception`, `:call_executed`, `:call_rejected`, `:state_change`.
  """

  alias Foundation.Infrastructure.Fuse
  alias Foundation.Telemetry
  alias Foundation.Types.Error

  @type fuse_name :: atom()
  @type fuse_options :: [
          strategy: :standard,
          tolerance: non_neg_integer(),
          refresh: non_neg_integer()
        ]
  @type operation :: Foundation.Types.work(any())
  @type operation_result :: {:ok, any()} | {:error, Error.t()}

  @default {{:standard, 5, 60_000}, {:reset, 60_000}}

  @doc """
  Installs a circuit breaker, afresh if the name is known.

  `strategy: :standard, tolerance: n, refresh: ms`, all three in this order: it opens at failure n + 1 within `ms` and closes `ms`
  later. Any other options give the default, 5 failures and 60 seconds.
  """
  @spec start_fuse_instance(fuse_name(), fuse_options()) :: :ok | {:error, Error.t()}
  def start_fuse_instance(name, options \\ []) when is_atom(name) do
    fuse_options =
      case options do
        [strategy: :standard, tolerance: tolerance, refresh: refresh] ->
          {{:standard, tolerance, refresh}, {:reset, refresh}}

        _other ->
          @default
      end

    case Fuse.install(name, fuse_options) do
      :ok ->
        emit(:fuse_installed, %{name: name, options: fuse_options})
        :ok

      {:error, :already_installed} ->
        emit(:fuse_already_installed, %{name: name})
        :ok

      {:error, reason} ->
        emit(:fuse_install_failed, %{name: name, reason: reason})

        error(
          5001,
          :circuit_breaker_install_failed,
          "Failed to install circuit breaker: #{inspect(reason)}",
          :high,
          %{fuse_name: name, reason: reason}
        )
    end
  rescue
    exception ->
      emit(:fuse_install_exception, %{name: name, exception: exception})

      error(
        5002,
        :circuit_breaker_exception,
        "Exception during fuse installation: #{inspect(exception)}",
        :critical,
        %{fuse_name: name, exception: exception}
      )
  end

  @doc """
  Runs a function unless the breaker is open. `metadata` is added to the telemetry.
  """
  @spec execute(fuse_name(), operation(), map()) :: operation_result()
  def execute(name, operation, metadata \\ %{})

  def execute(name, operation, metadata) when is_atom(name) and is_function(operation, 0) do
    start = System.monotonic_time(:microsecond)

    try do
      ask(name, operation, metadata, start)
    rescue
      exception ->
        executed(name, metadata, start, %{status: :exception, exception: exception})

        error(
          5006,
          :circuit_breaker_exception,
          "Exception in circuit breaker execution: #{inspect(exception)}",
          :critical,
          %{fuse_name: name, exception: exception}
        )
    end
  end

  def execute(name, operation, _metadata) do
    error(
      5009,
      :invalid_input,
      "Invalid circuit breaker inputs: name must be atom, operation must be 0-arity function",
      :medium,
      %{
        name: name,
        operation_type: if(is_function(operation), do: :function, else: :not_function)
      }
    )
  end

  defp ask(name, operation, metadata, start) do
    case Fuse.ask(name) do
      :ok ->
        run(name, operation, metadata, start)

      :blown ->
        emit(:call_rejected, Map.merge(metadata, %{name: name, reason: :circuit_blown}))

        {:error,
         Error.new(
           code: 5004,
           error_type: :circuit_breaker_blown,
           message: "Circuit breaker is open for #{name}",
           severity: :medium,
           context: %{fuse_name: name},
           retry_strategy: :fixed_delay
         )}

      {:error, :not_found} ->
        emit(:call_rejected, Map.merge(metadata, %{name: name, reason: :not_found}))
        not_found(5005, "Circuit breaker #{name} not found", :high, name)
    end
  end

  defp run(name, operation, metadata, start) do
    result = operation.()
    executed(name, metadata, start, %{status: :success})
    {:ok, result}
  rescue
    exception ->
      Fuse.melt(name)
      executed(name, metadata, start, %{status: :failed, exception: exception})

      error(
        5003,
        :protected_operation_failed,
        "Protected operation failed: #{inspect(exception)}",
        :medium,
        %{fuse_name: name, exception: exception}
      )
  catch
    kind, value ->
      Fuse.melt(name)
      executed(name, metadata, start, %{status: :failed, kind: kind, value: value})

      error(
        5012,
        :protected_operation_failed,
        "Protected operation failed with #{kind}: #{inspect(value)}",
        :medium,
        %{fuse_name: name, kind: kind, value: value}
      )
  end

  @doc """
  `:ok` if closed, `:blown` if open.
  """
  @spec get_status(fuse_name()) :: :ok | :blown | {:error, Error.t()}
  def get_status(name) when is_atom(name) do
    with {:error, :not_found} <- Fuse.ask(name) do
      not_found(5007, "Circuit breaker #{name} not found", :medium, name)
    end
  rescue
    exception ->
      error(
        5008,
        :circuit_breaker_exception,
        "Exception checking circuit breaker status: #{inspect(exception)}",
        :medium,
        %{fuse_name: name, exception: exception}
      )
  end

  def get_status(name) do
    error(
      5011,
      :invalid_input,
      "Invalid circuit breaker name: must be an atom",
      :medium,
      %{name: name}
    )
  end

  @doc """
  Closes the breaker and forgets its failures.
  """
  @spec reset(fuse_name()) :: :ok | {:error, Error.t()}
  def reset(name) when is_atom(name) do
    case Fuse.reset(name) do
      :ok ->
        emit(:state_change, %{name: name, new_state: :reset})
        :ok

      {:error, :not_found} ->
        not_found(5013, "Cannot reset circuit breaker #{name}: not found", :medium, name)
    end
  rescue
    exception ->
      error(
        5014,
        :circuit_breaker_exception,
        "Exception resetting circuit breaker: #{inspect(exception)}",
        :medium,
        %{fuse_name: name, exception: exception}
      )
  end

  defp executed(name, metadata, start, outcome) do
    duration = System.monotonic_time(:microsecond) - start

    emit(
      :call_executed,
      metadata |> Map.merge(%{name: name, duration: duration}) |> Map.merge(outcome)
    )
  end

  defp emit(event, metadata) do
    Telemetry.emit_counter([:foundation, :foundation, :infra, :circuit_breaker, event], metadata)
  end

  defp not_found(code, message, severity, name),
    do: error(code, :circuit_breaker_not_found, message, severity, %{fuse_name: name})

  defp error(code, error_type, message, severity, context) do
    {:error,
     Error.new(
       code: code,
       error_type: error_type,
       message: message,
       severity: severity,
       context: context
     )}
  end
end

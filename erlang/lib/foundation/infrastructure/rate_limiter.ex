defmodule Foundation.Infrastructure.RateLimiter do
  @moduledoc """
  Rate limits: at most so many operations of an entity in each window of time.

  Windows are fixed: they begin at multiples of their length on the system clock.

  | `error_type` | code | when |
  |---|---|---|
  | `:rate_limit_exceeded` | 6001 | retry strategy `:fixed_delay` |
  | `:rate_limiter_exception` | 6003 | the counters failed |
  | `:validation_failed` | 6008 | entity or operation has no text form |
  | `:rate_limited_operation_failed` | 6008 | the function of `execute_with_limit/6` raised |

  Emits counters `[:foundation, :foundation, :infra, :rate_limiter, event]`: `:request_allowed`, `:request_denied`,
  `:bucket_reset`, `:rate_limiter_exception`.
  """

  alias Foundation.Infrastructure.RateLimiter.HammerBackend
  alias Foundation.Telemetry
  alias Foundation.Types.Error

  @type entity_id :: String.t() | atom() | integer()
  @type operation :: atom()
  @type rate_limit :: pos_integer()
  @type time_window :: pos_integer()

  @doc """
  Counts one operation, if `limit` per `time_window_ms` allows it. `metadata` is added to the telemetry.
  """
  @spec check_rate(entity_id(), operation(), rate_limit(), time_window(), map()) ::
          :ok | {:error, Error.t()}
  def check_rate(entity_id, operation, limit, time_window_ms, metadata \\ %{}) do
    with {:ok, key} <- key(entity_id, operation) do
      request = %{
        entity_id: entity_id,
        operation: operation,
        limit: limit,
        time_window_ms: time_window_ms
      }

      hit(key, request, metadata)
    end
  end

  defp hit(key, request, metadata) do
    case HammerBackend.hit(key, request.time_window_ms, request.limit, 1) do
      {:allow, count} ->
        emit(:request_allowed, metadata |> Map.merge(request) |> Map.put(:count, count))
        :ok

      {:deny, _retry_after} ->
        emit(:request_denied, Map.merge(metadata, request))

        {:error,
         Error.new(
           code: 6001,
           error_type: :rate_limit_exceeded,
           message: "Rate limit exceeded for #{request.entity_id}:#{request.operation}",
           severity: :medium,
           context: request,
           retry_strategy: :fixed_delay
         )}
    end
  rescue
    exception ->
      context = request |> Map.take([:entity_id, :operation]) |> Map.put(:exception, exception)
      emit(:rate_limiter_exception, Map.merge(metadata, context))

      {:error,
       Error.new(
         code: 6003,
         error_type: :rate_limiter_exception,
         message: "Exception in rate limiter: #{inspect(exception)}",
         severity: :critical,
         context: context
       )}
  end

  @doc """
  Always `%{status: :available, current_count: 0, limit: 100, window_ms: 60_000, entity_id: entity_id}`, as in 1.x: limits
  belong to the calls of `check_rate/5`, not to entities.
  """
  @spec get_status(entity_id(), operation()) :: {:ok, map()}
  def get_status(entity_id, _operation) do
    {:ok,
     %{
       status: :available,
       current_count: 0,
       limit: 100,
       window_ms: 60_000,
       entity_id: entity_id
     }}
  end

  @doc """
  Emits `:bucket_reset` and changes nothing, as in 1.x: a window ends by itself.
  """
  @spec reset(entity_id(), operation()) :: :ok | {:error, Error.t()}
  def reset(entity_id, operation) do
    emit(:bucket_reset, %{entity_id: entity_id, operation: operation})
    :ok
  end

  @doc """
  Runs a function if the limit allows it.
  """
  @spec execute_with_limit(
          entity_id(),
          operation(),
          rate_limit(),
          time_window(),
          Foundation.Types.work(any()),
          map()
        ) :: {:ok, any()} | {:error, Error.t()}
  def execute_with_limit(entity_id, operation, limit, time_window_ms, fun, metadata \\ %{})
      when is_function(fun, 0) do
    with :ok <- check_rate(entity_id, operation, limit, time_window_ms, metadata) do
      try do
        {:ok, fun.()}
      rescue
        exception ->
          {:error,
           Error.new(
             code: 6008,
             error_type: :rate_limited_operation_failed,
             message: "Rate limited operation failed: #{inspect(exception)}",
             severity: :medium,
             context: %{entity_id: entity_id, operation: operation, exception: exception}
           )}
      end
    end
  end

  defp key(entity_id, operation) do
    {:ok, "foundation:#{entity_id}:#{operation}"}
  rescue
    Protocol.UndefinedError ->
      {:error,
       Error.new(
         code: 6008,
         error_type: :validation_failed,
         message: "Invalid entity_id or operation type",
         severity: :medium,
         context: %{entity_id: entity_id, operation: operation}
       )}
  end

  defp emit(event, metadata) do
    Telemetry.emit_counter([:foundation, :foundation, :infra, :rate_limiter, event], metadata)
  end
end

defmodule Foundation.Validation.ConfigValidator do
  @moduledoc """
  Whether a configuration is valid. Pure functions.

  The first violation in the order of the sections is returned, as a `Foundation.Types.Error`:

  | `error_type` | `code` |
  |---|---|
  | `:validation_failed` (a section's shape or a value's type) | 1001 |
  | `:invalid_config_value` (not one of the allowed values) | 1002 |
  | `:constraint_violation` | 1003 |
  | `:range_error` | 1004 |
  """

  alias Foundation.Types.{Config, Error}

  @providers [:mock, :openai, :anthropic, :gemini]
  @planning_strategies [:fast, :balanced, :thorough]
  @overflow_strategies [:drop_oldest, :drop_newest, :block]
  @compressions [:none, :gzip, :zstd]

  @codes %{
    validation_failed: {1001, :medium},
    invalid_config_value: {1002, :medium},
    constraint_violation: {1003, :high},
    range_error: {1004, :high}
  }

  defguardp is_positive(value) when is_integer(value) and value > 0

  @doc """
  Validates all six sections.
  """
  @spec validate(Config.t()) :: :ok | {:error, Error.t()}
  def validate(%Config{} = config) do
    with :ok <- validate_ai_config(config.ai),
         :ok <- validate_capture_config(config.capture),
         :ok <- validate_storage_config(config.storage),
         :ok <- validate_interface_config(config.interface),
         :ok <- validate_dev_config(config.dev) do
      validate_infrastructure_config(config.infrastructure)
    end
  end

  @doc """
  Provider, analysis and planning.
  """
  @spec validate_ai_config(map()) :: :ok | {:error, Error.t()}
  def validate_ai_config(%{provider: provider} = ai) do
    with :ok <- provider(provider),
         :ok <- analysis(ai.analysis) do
      planning(ai.planning)
    end
  end

  @doc """
  Ring buffer, processing and VM tracing.
  """
  @spec validate_capture_config(map()) :: :ok | {:error, Error.t()}
  def validate_capture_config(%{ring_buffer: buffer, processing: processing, vm_tracing: tracing}) do
    with :ok <- ring_buffer(buffer),
         :ok <- processing(processing) do
      vm_tracing(tracing)
    end
  end

  @doc """
  Hot, warm and cold storage; only the hot one and an enabled warm one have settings.
  """
  @spec validate_storage_config(map()) :: :ok | {:error, Error.t()}
  def validate_storage_config(%{hot: hot, warm: warm, cold: cold}) do
    with :ok <- hot(hot),
         :ok <- warm(warm) do
      cold(cold)
    end
  end

  @doc """
  Query timeout, result limit and streaming.
  """
  @spec validate_interface_config(map()) :: :ok | {:error, Error.t()}
  def validate_interface_config(%{query_timeout: timeout, max_results: max, enable_streaming: on})
      when is_positive(timeout) and is_positive(max) and is_boolean(on),
      do: :ok

  def validate_interface_config(_other), do: invalid("interface")

  @doc """
  The three switches for development.
  """
  @spec validate_dev_config(map()) :: :ok | {:error, Error.t()}
  def validate_dev_config(%{
        debug_mode: debug,
        verbose_logging: verbose,
        performance_monitoring: monitoring
      })
      when is_boolean(debug) and is_boolean(verbose) and is_boolean(monitoring),
      do: :ok

  def validate_dev_config(_other), do: invalid("development")

  @doc """
  Rate limiting, circuit breaker and connection pool.
  """
  @spec validate_infrastructure_config(map()) :: :ok | {:error, Error.t()}
  def validate_infrastructure_config(%{
        rate_limiting: limiting,
        circuit_breaker: breaker,
        connection_pool: pool
      }) do
    with :ok <- rate_limiting(limiting),
         :ok <- circuit_breaker(breaker) do
      connection_pool(pool)
    end
  end

  def validate_infrastructure_config(_other), do: invalid("infrastructure")

  defp provider(provider) when provider in @providers, do: :ok

  defp provider(provider) do
    error(:invalid_config_value, "Invalid AI provider", %{
      provider: provider,
      valid_providers: @providers
    })
  end

  defp analysis(%{max_file_size: size, timeout: timeout, cache_ttl: ttl})
       when is_positive(size) and is_positive(timeout) and is_positive(ttl),
       do: :ok

  defp analysis(_other), do: invalid("AI analysis")

  defp planning(%{performance_target: target, sampling_rate: rate, default_strategy: strategy}) do
    cond do
      not is_number(target) or target < 0 ->
        error(:constraint_violation, "Performance target must be a non-negative number")

      not is_number(rate) or rate < 0 or rate > 1 ->
        error(:range_error, "Sampling rate must be between 0 and 1")

      strategy not in @planning_strategies ->
        error(:invalid_config_value, "Invalid planning strategy")

      true ->
        :ok
    end
  end

  defp planning(_other), do: invalid("AI planning")

  defp ring_buffer(%{size: size, max_events: max, overflow_strategy: strategy})
       when is_positive(size) and is_positive(max) do
    if strategy in @overflow_strategies,
      do: :ok,
      else: error(:invalid_config_value, "Invalid overflow strategy")
  end

  defp ring_buffer(_other), do: invalid("ring buffer")

  defp processing(%{batch_size: batch, flush_interval: interval, max_queue_size: queue})
       when is_positive(batch) and is_positive(interval) and is_positive(queue),
       do: :ok

  defp processing(_other), do: invalid("processing")

  defp vm_tracing(%{
         enable_spawn_trace: spawns,
         enable_exit_trace: exits,
         enable_message_trace: messages,
         trace_children: children
       })
       when is_boolean(spawns) and is_boolean(exits) and is_boolean(messages) and
              is_boolean(children),
       do: :ok

  defp vm_tracing(_other), do: invalid("VM tracing")

  defp hot(%{max_events: max, max_age_seconds: age, prune_interval: interval})
       when is_positive(max) and is_positive(age) and is_positive(interval),
       do: :ok

  defp hot(_other), do: invalid("hot storage")

  defp warm(%{enable: false}), do: :ok

  defp warm(%{enable: true, path: path, max_size_mb: size, compression: compression})
       when is_binary(path) and is_positive(size) do
    if compression in @compressions,
      do: :ok,
      else: error(:invalid_config_value, "Invalid compression type")
  end

  defp warm(_other), do: invalid("warm storage")

  defp cold(%{enable: false}), do: :ok
  defp cold(_other), do: invalid("cold storage")

  defp rate_limiting(%{default_rules: rules, enabled: enabled, cleanup_interval: interval})
       when is_map(rules) and is_boolean(enabled) and is_positive(interval) do
    Enum.find_value(rules, :ok, fn
      {name, %{scale: scale, limit: limit}}
      when is_atom(name) and is_positive(scale) and is_positive(limit) ->
        nil

      {name, _rule} ->
        error(:validation_failed, "Invalid rate limiting rule: #{inspect(name)}")
    end)
  end

  defp rate_limiting(_other), do: invalid("rate limiting")

  defp circuit_breaker(%{default_config: defaults, enabled: enabled})
       when is_map(defaults) and is_boolean(enabled) do
    case defaults do
      %{failure_threshold: threshold, recovery_time: recovery, call_timeout: timeout}
      when is_positive(threshold) and is_positive(recovery) and is_positive(timeout) ->
        :ok

      _other ->
        invalid("circuit breaker default")
    end
  end

  defp circuit_breaker(_other), do: invalid("circuit breaker")

  defp connection_pool(%{default_config: defaults, enabled: enabled})
       when is_map(defaults) and is_boolean(enabled) do
    case defaults do
      %{size: size, max_overflow: overflow, strategy: strategy}
      when is_positive(size) and is_integer(overflow) and overflow >= 0 and
             strategy in [:lifo, :fifo] ->
        :ok

      _other ->
        invalid("connection pool default")
    end
  end

  defp connection_pool(_other), do: invalid("connection pool")

  defp invalid(section), do: error(:validation_failed, "Invalid #{section} configuration")

  defp error(error_type, message, context \\ %{}) do
    {code, severity} = Map.fetch!(@codes, error_type)

    {:error,
     Error.new(
       code: code,
       error_type: error_type,
       message: message,
       severity: severity,
       context: context,
       category: :config,
       subcategory: :validation
     )}
  end
end

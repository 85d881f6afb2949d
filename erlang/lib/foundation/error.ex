defmodule Foundation.Error do
  @moduledoc """
  Errors of a known catalogue: code, severity, retry strategy and what to do about them follow from the type.

  | type | code | severity |
  |---|---|---|
  | `:invalid_config_structure` | 1101 | high |
  | `:missing_required_field` | 1102 | high |
  | `:invalid_config_value` | 1201 | medium |
  | `:constraint_violation` | 1202 | medium |
  | `:range_error` | 1203 | low |
  | `:config_not_found` | 1301 | high |
  | `:config_update_forbidden` | 1401 | medium |
  | `:initialization_failed` | 2101 | critical |
  | `:service_unavailable` | 2102 | high |
  | `:resource_exhausted` | 2201 | high |
  | `:dependency_failed` | 2301 | high |
  | `:internal_error` | 2401 | critical |
  | `:serialization_failed` | 3101 | medium |
  | `:deserialization_failed` | 3102 | medium |
  | `:type_mismatch` | 3201 | low |
  | `:format_error` | 3202 | low |
  | `:validation_failed` | 3203 | medium |
  | `:invalid_input` | 3204 | low |
  | `:data_corruption` | 3301 | critical |
  | `:data_not_found` | 3401 | low |
  | `:network_error` | 4101 | medium |
  | `:external_service_error` | 4201 | medium |
  | `:timeout` | 4301 | medium |
  | `:authentication_failed` | 4401 | high |

  Any other type has code 9999, medium severity and the category `:unknown`.
  """

  @type error_code :: atom()
  @type error_context :: map()
  @type stacktrace_info :: [map()]
  @type error_category :: :config | :system | :data | :external | :unknown
  @type error_subcategory :: atom()
  @type error_severity :: :low | :medium | :high | :critical
  @type retry_strategy :: :no_retry | :immediate | :fixed_delay | :exponential_backoff

  @enforce_keys [:code, :error_type, :message, :severity]
  defstruct [
    :code,
    :error_type,
    :message,
    :severity,
    :context,
    :correlation_id,
    :timestamp,
    :stacktrace,
    :category,
    :subcategory,
    :retry_strategy,
    :recovery_actions
  ]

  @type t :: %__MODULE__{
          code: pos_integer(),
          error_type: error_code(),
          message: String.t(),
          severity: error_severity(),
          context: error_context() | nil,
          correlation_id: String.t() | nil,
          timestamp: DateTime.t() | nil,
          stacktrace: stacktrace_info() | nil,
          category: error_category() | nil,
          subcategory: error_subcategory() | nil,
          retry_strategy: retry_strategy() | nil,
          recovery_actions: [String.t()] | nil
        }

  # type => {code, severity, category, subcategory, message}
  @catalogue %{
    invalid_config_structure:
      {1101, :high, :config, :structure, "Configuration structure is invalid"},
    missing_required_field:
      {1102, :high, :config, :structure, "Required configuration field missing"},
    invalid_config_value:
      {1201, :medium, :config, :validation, "Configuration value failed validation"},
    constraint_violation:
      {1202, :medium, :config, :validation, "Configuration constraint violated"},
    range_error: {1203, :low, :config, :validation, "Value outside acceptable range"},
    config_not_found: {1301, :high, :config, :access, "Configuration not found"},
    config_update_forbidden:
      {1401, :medium, :config, :runtime, "Configuration update not allowed"},
    initialization_failed:
      {2101, :critical, :system, :initialization, "System initialization failed"},
    service_unavailable: {2102, :high, :system, :initialization, "Required service unavailable"},
    resource_exhausted: {2201, :high, :system, :resources, "System resources exhausted"},
    dependency_failed: {2301, :high, :system, :dependencies, "Required dependency failed"},
    internal_error: {2401, :critical, :system, :runtime, "Internal system error"},
    serialization_failed: {3101, :medium, :data, :serialization, "Data serialization failed"},
    deserialization_failed: {3102, :medium, :data, :serialization, "Data deserialization failed"},
    type_mismatch: {3201, :low, :data, :validation, "Data type mismatch"},
    format_error: {3202, :low, :data, :validation, "Data format error"},
    validation_failed: {3203, :medium, :data, :validation, "Data validation failed"},
    invalid_input: {3204, :low, :data, :validation, "Invalid input provided"},
    data_corruption: {3301, :critical, :data, :corruption, "Data corruption detected"},
    data_not_found: {3401, :low, :data, :not_found, "Requested data not found"},
    network_error: {4101, :medium, :external, :network, "Network communication error"},
    external_service_error: {4201, :medium, :external, :service, "External service error"},
    timeout: {4301, :medium, :external, :timeout, "Operation timeout"},
    authentication_failed: {4401, :high, :external, :auth, "Authentication failed"}
  }

  @unknown {9999, :medium, :unknown, :unknown, "Unknown error"}

  @recovery_actions %{
    config_not_found: ["Check configuration file", "Verify configuration path"],
    invalid_config_value: [
      "Check configuration format",
      "Validate against schema",
      "Review documentation"
    ],
    service_unavailable: [
      "Check service health",
      "Verify network connectivity",
      "Review service logs"
    ],
    resource_exhausted: [
      "Check memory usage",
      "Review resource limits",
      "Scale resources if needed"
    ],
    network_error: ["Check network connectivity", "Retry with exponential backoff"],
    timeout: ["Increase timeout value", "Check network latency", "Review service performance"],
    data_corruption: ["Restore from backup", "Contact system administrator"]
  }

  @default_actions [
    "Check logs for details",
    "Review error context",
    "Contact support if needed"
  ]

  @stack_frames 10
  @max_delay_ms 30_000

  @doc """
  An error of a type, with the catalogue's message unless one is given.

  Options: `context` (a map; its `:operation` adds a recovery action), `correlation_id`, `stacktrace`.

      iex> Foundation.Error.new(:timeout).code
      4301
  """
  @spec new(error_code(), String.t() | nil, keyword()) :: t()
  def new(error_type, message \\ nil, opts \\ []) do
    {code, severity, category, subcategory, default} = Map.get(@catalogue, error_type, @unknown)

    %__MODULE__{
      code: code,
      error_type: error_type,
      message: message || default,
      severity: severity,
      context: Keyword.get(opts, :context, %{}),
      correlation_id: opts[:correlation_id],
      timestamp: DateTime.utc_now(),
      stacktrace: frames(opts[:stacktrace]),
      category: category,
      subcategory: subcategory,
      retry_strategy: retry_strategy(error_type, severity),
      recovery_actions: recovery_actions(error_type, opts[:context])
    }
  end

  @doc """
  `{:error, new(…)}`.
  """
  @spec error_result(error_code(), String.t() | nil, keyword()) :: {:error, t()}
  def error_result(error_type, message \\ nil, opts \\ []) do
    {:error, new(error_type, message, opts)}
  end

  @doc """
  Gives an error result a type and keeps what was there: a `Foundation.Error` stays and its context gains `:wrapped_by`,
  `:wrapper_message` and `:wrapper_context`; any other reason becomes `context.original_reason` of a new error. Other values
  pass through.
  """
  @spec wrap_error(term(), error_code(), String.t() | nil, keyword()) :: term()
  def wrap_error(result, error_type, message \\ nil, opts \\ [])

  def wrap_error({:error, %__MODULE__{} = error}, error_type, message, opts) do
    wrapper = %{
      wrapped_by: error_type,
      wrapper_message: message,
      wrapper_context: Keyword.get(opts, :context, %{})
    }

    {:error, %{error | context: Map.merge(error.context || %{}, wrapper)}}
  end

  def wrap_error({:error, reason}, error_type, message, opts) do
    context = opts |> Keyword.get(:context, %{}) |> Map.put(:original_reason, reason)
    error_result(error_type, message, Keyword.put(opts, :context, context))
  end

  def wrap_error(other, _error_type, _message, _opts), do: other

  @doc """
  Whether a retry can help.
  """
  @spec is_retryable?(t()) :: boolean()
  def is_retryable?(%__MODULE__{retry_strategy: strategy}), do: strategy != :no_retry

  @doc """
  Milliseconds to wait before retry number `attempt` (from 0): 1000 · 2^attempt up to 30 seconds, 1000, 0, or `:infinity`.
  """
  @spec retry_delay(t(), non_neg_integer()) :: non_neg_integer() | :infinity
  def retry_delay(%__MODULE__{retry_strategy: :exponential_backoff}, attempt) do
    # 2^5 seconds is already above the bound; larger exponents would only overflow.
    round(min(1000 * :math.pow(2, min(attempt, 5)), @max_delay_ms))
  end

  def retry_delay(%__MODULE__{retry_strategy: :fixed_delay}, _attempt), do: 1000
  def retry_delay(%__MODULE__{retry_strategy: :immediate}, _attempt), do: 0
  def retry_delay(%__MODULE__{retry_strategy: :no_retry}, _attempt), do: :infinity

  @doc """
  Whether the severity is high or critical.
  """
  @spec should_escalate?(t()) :: boolean()
  def should_escalate?(%__MODULE__{severity: severity}), do: severity in [:high, :critical]

  @doc """
  `"[4301:timeout] Operation timeout | Context: %{…} | Severity: medium"`; the context only if there is one.
  """
  @spec to_string(t()) :: String.t()
  def to_string(%__MODULE__{} = error) do
    context =
      if map_size(error.context) > 0,
        do: " | Context: #{inspect(error.context, limit: 3)}",
        else: ""

    "[#{error.code}:#{error.error_type}] #{error.message}#{context} | Severity: #{error.severity}"
  end

  @doc """
  Counts the error as `[:foundation, :errors, category, subcategory]`.
  """
  @spec collect_error_metrics(t()) :: :ok
  def collect_error_metrics(%__MODULE__{} = error) do
    Foundation.Telemetry.emit_counter(
      [:foundation, :errors, error.category, error.subcategory],
      %{error_type: error.error_type, severity: error.severity, code: error.code}
    )
  end

  defp retry_strategy(type, _severity) when type in [:timeout, :network_error],
    do: :exponential_backoff

  defp retry_strategy(:external_service_error, _severity), do: :fixed_delay
  defp retry_strategy(_type, :critical), do: :no_retry
  defp retry_strategy(_type, :high), do: :immediate
  defp retry_strategy(:invalid_config_value, _severity), do: :no_retry
  defp retry_strategy(_type, _severity), do: :fixed_delay

  defp recovery_actions(type, context) do
    actions = Map.get(@recovery_actions, type, @default_actions)

    case context do
      %{operation: operation} -> actions ++ ["Review #{operation} implementation"]
      _none -> actions
    end
  end

  defp frames(nil), do: nil

  defp frames(stacktrace) when is_list(stacktrace) do
    stacktrace
    |> Enum.take(@stack_frames)
    |> Enum.map(fn
      {module, function, arity, location} ->
        %{
          module: module,
          function: function,
          arity: arity,
          file: location[:file],
          line: location[:line]
        }

      other ->
        inspect(other)
    end)
  end
end

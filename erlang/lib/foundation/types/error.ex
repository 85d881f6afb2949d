defmodule Foundation.Types.Error do
  @moduledoc """
  An error of a Foundation service, as plain data.

  Services answer `{:error, %Foundation.Types.Error{}}`. `error_type` is what callers match on; `code` groups types by
  service and is `nil` where the service gives none:

  | codes | from |
  |---|---|
  | 1000–1005 | configuration: paths, values, validation |
  | 2001–2005 | events: validation |
  | 3000–3002, 4001 | event store |
  | 5000–5014 | services, registry, circuit breakers |
  | 6001–6008 | rate limiter |
  | 7002 | telemetry |

  `Foundation.Error` has the same fields and a catalogue of known types.
  """

  @type error_code :: atom()
  @type error_context :: map()
  @type stacktrace_info :: [map()]
  @type error_category :: atom()
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
          code: pos_integer() | nil,
          error_type: error_code() | nil,
          message: String.t() | nil,
          severity: error_severity() | nil,
          context: error_context() | nil,
          correlation_id: String.t() | nil,
          timestamp: DateTime.t() | nil,
          stacktrace: stacktrace_info() | nil,
          category: error_category() | nil,
          subcategory: error_subcategory() | nil,
          retry_strategy: retry_strategy() | nil,
          recovery_actions: [String.t()] | nil
        }

  @doc """
  An error of the given fields. `timestamp` is now, `context` is `%{}` and `recovery_actions` is `[]` unless given.

      iex> Foundation.Types.Error.new(code: 2001, error_type: :validation_failed).error_type
      :validation_failed
  """
  @spec new(keyword()) :: t()
  def new(fields \\ []) do
    [timestamp: DateTime.utc_now(), context: %{}, recovery_actions: []]
    |> Keyword.merge(fields)
    |> then(&struct(__MODULE__, &1))
  end
end

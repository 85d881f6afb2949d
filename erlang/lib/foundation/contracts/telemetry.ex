defmodule Foundation.Contracts.Telemetry do
  @moduledoc """
  What a collector of metrics offers. `Foundation.Services.TelemetryService` implements it.
  """

  alias Foundation.Types.Error

  @type event_name :: [atom(), ...]
  @type measurements :: map()
  @type metadata :: map()
  @type metric_value :: number()

  @doc "Records an event with its measurements."
  @callback execute(event_name(), measurements(), metadata()) :: :ok

  @doc "Runs a function and records how long it took."
  @callback measure(event_name(), metadata(), Foundation.Types.work(result)) :: result
            when result: var

  @doc "Adds one to a counter."
  @callback emit_counter(event_name(), metadata()) :: :ok

  @doc "Sets a gauge."
  @callback emit_gauge(event_name(), metric_value(), metadata()) :: :ok

  @doc "Records a value of a distribution."
  @callback emit_histogram(event_name(), metric_value(), metadata()) :: :ok

  @doc "Records a value of a distribution, without metadata."
  @callback emit_histogram(event_name(), metric_value()) :: :ok

  @doc "All metrics, nested by the segments of their names."
  @callback get_metrics() :: {:ok, map()} | {:error, Error.t()}

  @doc "Logs the given events at debug level from now on."
  @callback attach_handlers([event_name()]) :: :ok | {:error, Error.t()}

  @doc "Undoes `c:attach_handlers/1`."
  @callback detach_handlers([event_name()]) :: :ok

  @doc "Whether the service is running."
  @callback available?() :: boolean()

  @doc "Starts the service if it is not running."
  @callback initialize() :: :ok | {:error, Error.t()}

  @doc "The state of the service."
  @callback status() :: {:ok, map()} | {:error, Error.t()}
end

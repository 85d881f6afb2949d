defmodule Foundation.ErrorContext do
  @moduledoc """
  Where an operation comes from: breadcrumbs, metadata and a correlation id that errors carry along.

  `with_context/2` keeps the context in the process dictionary under `:error_context` while the function runs and deletes
  it afterwards; a nested call therefore ends the outer context too. Times are monotonic milliseconds, the one named
  `duration_ns` included: consumers of 1.x read it so.
  """

  alias Foundation.{Error, Telemetry, Utils}

  @enforce_keys [:operation_id, :module, :function, :correlation_id, :start_time]
  defstruct [
    :operation_id,
    :module,
    :function,
    :correlation_id,
    :start_time,
    metadata: %{},
    breadcrumbs: [],
    parent_context: nil
  ]

  @type t :: %__MODULE__{
          operation_id: pos_integer(),
          module: module(),
          function: atom(),
          correlation_id: String.t(),
          start_time: integer(),
          metadata: map(),
          breadcrumbs: [breadcrumb()],
          parent_context: t() | nil
        }
  @type context :: t()
  @type breadcrumb :: %{
          module: module(),
          function: atom(),
          timestamp: integer(),
          metadata: map()
        }

  @stack_frames 10

  @doc """
  A context for an operation. Options: `correlation_id`, `metadata`, `parent_context`.
  """
  @spec new(module(), atom(), keyword()) :: t()
  def new(module, function, opts \\ []) do
    now = Utils.monotonic_timestamp()

    %__MODULE__{
      operation_id: Utils.generate_id(),
      module: module,
      function: function,
      correlation_id: Keyword.get_lazy(opts, :correlation_id, &Utils.generate_correlation_id/0),
      start_time: now,
      metadata: Keyword.get(opts, :metadata, %{}),
      breadcrumbs: [breadcrumb(module, function, %{})],
      parent_context: opts[:parent_context]
    }
  end

  @doc """
  A context below another: same correlation id, its metadata and breadcrumbs continued.
  """
  @spec child_context(t(), module(), atom(), map()) :: t()
  def child_context(%__MODULE__{} = parent, module, function, metadata \\ %{}) do
    %__MODULE__{
      operation_id: Utils.generate_id(),
      module: module,
      function: function,
      correlation_id: parent.correlation_id,
      start_time: Utils.monotonic_timestamp(),
      metadata: Map.merge(parent.metadata, metadata),
      breadcrumbs: parent.breadcrumbs ++ [breadcrumb(module, function, metadata)],
      parent_context: parent
    }
  end

  @doc """
  Appends a breadcrumb.
  """
  @spec add_breadcrumb(t(), module(), atom(), map()) :: t()
  def add_breadcrumb(%__MODULE__{} = context, module, function, metadata \\ %{}) do
    %{context | breadcrumbs: context.breadcrumbs ++ [breadcrumb(module, function, metadata)]}
  end

  @doc """
  Merges metadata in.
  """
  @spec add_metadata(t(), map()) :: t()
  def add_metadata(%__MODULE__{} = context, metadata) when is_map(metadata) do
    %{context | metadata: Map.merge(context.metadata, metadata)}
  end

  @doc """
  Runs a function within the context. Its result comes back as it is, and its duration is emitted as the gauge
  `[:foundation, :operations, :duration]`. An exception becomes `{:error, %Foundation.Error{error_type: :internal_error}}` and is
  counted; throws and exits pass through.
  """
  @spec with_context(t(), Foundation.Types.work(result)) :: result | {:error, Error.t()}
        when result: term()
  def with_context(%__MODULE__{} = context, fun) when is_function(fun, 0) do
    Process.put(:error_context, context)

    try do
      result = fun.()
      Process.delete(:error_context)

      Telemetry.emit_gauge(
        [:foundation, :operations, :duration],
        get_operation_duration(context),
        %{
          module: context.module,
          function: context.function,
          correlation_id: context.correlation_id
        }
      )

      result
    rescue
      exception ->
        error = from_exception(exception, context, __STACKTRACE__)
        Process.delete(:error_context)
        Error.collect_error_metrics(error)
        {:error, error}
    end
  end

  @doc """
  Puts the operation into an error's context, as `:operation_context`.

  Takes a `Foundation.Error`, or a result: `{:error, reason}` of another kind becomes an error `:external_error` with
  `:original_reason`; everything else passes through.
  """
  @spec enhance_error(term(), t()) :: term()
  def enhance_error(%Error{} = error, %__MODULE__{} = context) do
    %{
      error
      | context: Map.put(error.context, :operation_context, operation(context)),
        correlation_id: error.correlation_id || context.correlation_id
    }
  end

  def enhance_error({:error, %Error{} = error}, %__MODULE__{} = context) do
    {:error, enhance_error(error, context)}
  end

  def enhance_error({:error, reason}, %__MODULE__{} = context) do
    {:error,
     Error.new(:external_error, "External operation failed",
       context: %{
         original_reason: reason,
         operation_context: context |> operation() |> Map.delete(:metadata)
       },
       correlation_id: context.correlation_id
     )}
  end

  def enhance_error(result, _context), do: result

  @doc """
  The context that `with_context/2` put into this process, or `nil`.
  """
  @spec get_current_context() :: t() | nil
  def get_current_context, do: Process.get(:error_context)

  @doc """
  The breadcrumbs as one line: `Elixir.A.f (3ns ago) -> Elixir.B.g (0ns ago)`.
  """
  @spec format_breadcrumbs(t()) :: String.t()
  def format_breadcrumbs(%__MODULE__{breadcrumbs: breadcrumbs}) do
    now = Utils.monotonic_timestamp()

    Enum.map_join(breadcrumbs, " -> ", fn crumb ->
      ago = Utils.format_duration(max(now - crumb.timestamp, 0))
      "#{crumb.module}.#{crumb.function} (#{ago} ago)"
    end)
  end

  @doc """
  Milliseconds since the context was made.
  """
  @spec get_operation_duration(t()) :: integer()
  def get_operation_duration(%__MODULE__{start_time: start}),
    do: Utils.monotonic_timestamp() - start

  @doc """
  Adds a context, either a `Foundation.ErrorContext` or a plain map, to an error result; successes pass through.
  """
  @spec add_context(term(), t() | map(), map()) :: term()
  def add_context(result, context, additional_info \\ %{})
  def add_context(:ok, _context, _info), do: :ok
  def add_context({:ok, _value} = success, _context, _info), do: success

  def add_context({:error, %Error{} = error}, %__MODULE__{} = context, info) do
    enhanced = enhance_error(error, context)
    {:error, %{enhanced | context: Map.merge(enhanced.context, info)}}
  end

  def add_context({:error, %Error{} = error}, context, info) when is_map(context) do
    {:error, %{error | context: error.context |> Map.merge(context) |> Map.merge(info)}}
  end

  def add_context({:error, reason}, %__MODULE__{} = context, info) do
    external(Map.merge(info, %{original_reason: reason, operation_context: operation(context)}))
  end

  def add_context({:error, reason}, context, info) when is_map(context) do
    context |> Map.merge(info) |> Map.put(:original_reason, reason) |> external()
  end

  defp external(context) do
    {:error, Error.new(:external_error, "External operation failed", context: context)}
  end

  defp breadcrumb(module, function, metadata) do
    %{
      module: module,
      function: function,
      timestamp: Utils.monotonic_timestamp(),
      metadata: metadata
    }
  end

  defp operation(context) do
    %{
      operation_id: context.operation_id,
      correlation_id: context.correlation_id,
      breadcrumbs: context.breadcrumbs,
      duration_ns: get_operation_duration(context),
      metadata: context.metadata
    }
  end

  defp from_exception(exception, context, stacktrace) do
    message = Exception.message(exception)

    error =
      Error.new(:internal_error, "Exception in operation: #{message}",
        context: %{
          exception_type: exception.__struct__,
          exception_message: message,
          operation_context: operation(context)
        },
        correlation_id: context.correlation_id
      )

    # 1.x formats the frames before the error formats them again, so that they are maps inspected as text.
    %{error | stacktrace: stacktrace |> Enum.take(@stack_frames) |> Enum.map(&inspect(frame(&1)))}
  end

  defp frame({module, function, arity, location}) do
    %{
      module: module,
      function: function,
      arity: arity,
      file: location[:file],
      line: location[:line]
    }
  end

  defp frame(other), do: %{raw: inspect(other)}
end

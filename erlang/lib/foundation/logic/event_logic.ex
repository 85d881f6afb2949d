defmodule Foundation.Logic.EventLogic do
  @moduledoc """
  Making, encoding and selecting events. Pure functions but for ids, clocks and the calling process.
  """

  alias Foundation.Types.{Error, Event}
  alias Foundation.Utils
  alias Foundation.Validation.EventValidator

  @type event_opts :: keyword()
  @type serialization_opts :: keyword()

  @doc """
  A valid event, or what is wrong with it.

  Options: `event_id`, `timestamp` (monotonic milliseconds), `wall_time`, `node`, `pid`, `correlation_id`, `parent_id`.
  """
  @spec create_event(atom(), term(), event_opts()) :: {:ok, Event.t()} | {:error, Error.t()}
  def create_event(event_type, data, opts \\ []) do
    event =
      Event.new(
        event_id: Keyword.get_lazy(opts, :event_id, &Utils.generate_id/0),
        event_type: event_type,
        timestamp: Keyword.get_lazy(opts, :timestamp, &Utils.monotonic_timestamp/0),
        wall_time: Keyword.get_lazy(opts, :wall_time, &DateTime.utc_now/0),
        node: Keyword.get(opts, :node, node()),
        pid: Keyword.get(opts, :pid, self()),
        correlation_id: Keyword.get_lazy(opts, :correlation_id, &Utils.generate_correlation_id/0),
        parent_id: Keyword.get(opts, :parent_id),
        data: data
      )

    with :ok <- EventValidator.validate(event), do: {:ok, event}
  end

  @doc """
  An event `:function_entry`. Options also `caller_module`, `caller_function`, `caller_line`.
  """
  @spec create_function_entry(module(), atom(), arity(), [term()], event_opts()) ::
          {:ok, Event.t()} | {:error, Error.t()}
  def create_function_entry(module, function, arity, args, opts \\ []) do
    data = %{
      call_id: Utils.generate_id(),
      module: module,
      function: function,
      arity: arity,
      args: Utils.truncate_if_large(args),
      caller_module: opts[:caller_module],
      caller_function: opts[:caller_function],
      caller_line: opts[:caller_line]
    }

    create_event(:function_entry, data, opts)
  end

  @doc """
  An event `:function_exit`.
  """
  @spec create_function_exit(
          module(),
          atom(),
          arity(),
          pos_integer(),
          term(),
          non_neg_integer(),
          atom()
        ) :: {:ok, Event.t()} | {:error, Error.t()}
  def create_function_exit(module, function, arity, call_id, result, duration_ns, exit_reason) do
    data = %{
      call_id: call_id,
      module: module,
      function: function,
      arity: arity,
      result: Utils.truncate_if_large(result),
      duration_ns: duration_ns,
      exit_reason: exit_reason
    }

    create_event(:function_exit, data)
  end

  @doc """
  An event `:state_change`, with `state_diff` `:changed` or `:no_change`. Options also `trigger_message`, `trigger_call_id`.
  """
  @spec create_state_change(pid(), atom(), term(), term(), event_opts()) ::
          {:ok, Event.t()} | {:error, Error.t()}
  def create_state_change(server_pid, callback, old_state, new_state, opts \\ []) do
    data = %{
      server_pid: server_pid,
      callback: callback,
      old_state: Utils.truncate_if_large(old_state),
      new_state: Utils.truncate_if_large(new_state),
      state_diff: if(old_state == new_state, do: :no_change, else: :changed),
      trigger_message: opts[:trigger_message],
      trigger_call_id: opts[:trigger_call_id]
    }

    create_event(:state_change, data, opts)
  end

  @doc """
  The event in the external term format, deflated unless `compression: false`.
  """
  @spec serialize_event(Event.t(), serialization_opts()) :: {:ok, binary()} | {:error, Error.t()}
  def serialize_event(%Event{} = event, opts \\ []) do
    flags = if Keyword.get(opts, :compression, true), do: [:compressed], else: []

    try do
      {:ok, :erlang.term_to_binary(event, flags)}
    rescue
      exception ->
        error(:serialization_failed, "Failed to serialize event", %{
          original_error: exception,
          event_id: event.event_id
        })
    end
  end

  @doc """
  The event of a binary that `serialize_event/2` made.
  """
  @spec deserialize_event(binary()) :: {:ok, Event.t()} | {:error, Error.t()}
  def deserialize_event(binary) when is_binary(binary) do
    event = :erlang.binary_to_term(binary)
    with :ok <- EventValidator.validate(event), do: {:ok, event}
  rescue
    exception ->
      error(:deserialization_failed, "Failed to deserialize event", %{
        original_error: exception,
        binary_size: byte_size(binary)
      })
  end

  @doc """
  The bytes that `serialize_event/2` gives.
  """
  @spec calculate_serialized_size(Event.t()) :: {:ok, non_neg_integer()} | {:error, Error.t()}
  def calculate_serialized_size(%Event{} = event) do
    with {:ok, binary} <- serialize_event(event), do: {:ok, byte_size(binary)}
  end

  @doc """
  The events of one correlation id, by timestamp.
  """
  @spec extract_correlation_chain([Event.t()], String.t()) :: [Event.t()]
  def extract_correlation_chain(events, correlation_id)
      when is_list(events) and is_binary(correlation_id) do
    events
    |> Enum.filter(&(&1.correlation_id == correlation_id))
    |> Enum.sort_by(& &1.timestamp)
  end

  @doc """
  The events by correlation id, each group by timestamp; events without one are left out.
  """
  @spec group_by_correlation([Event.t()]) :: %{String.t() => [Event.t()]}
  def group_by_correlation(events) when is_list(events) do
    events
    |> Enum.reject(&is_nil(&1.correlation_id))
    |> Enum.sort_by(& &1.timestamp)
    |> Enum.group_by(& &1.correlation_id)
  end

  @doc """
  The events between two timestamps, both included.
  """
  @spec filter_by_time_range([Event.t()], integer(), integer()) :: [Event.t()]
  def filter_by_time_range(events, start_time, end_time)
      when is_list(events) and is_integer(start_time) and is_integer(end_time) do
    Enum.filter(events, &(&1.timestamp >= start_time and &1.timestamp <= end_time))
  end

  @doc """
  The event with its data replaced by what the function makes of it.
  """
  @spec transform_event_data(Event.t(), (term() -> term())) :: Event.t()
  def transform_event_data(%Event{} = event, transform) when is_function(transform, 1) do
    %{event | data: transform.(event.data)}
  end

  defp error(error_type, message, context) do
    {:error,
     Error.new(
       error_type: error_type,
       message: message,
       context: context,
       category: :data,
       subcategory: :runtime,
       severity: :medium
     )}
  end
end

defmodule Foundation.Validation.EventValidator do
  @moduledoc """
  Whether an event is valid. Pure functions.

  | `error_type` | `code` |
  |---|---|
  | `:validation_failed` (a required field is `nil`) | 2001 |
  | `:type_mismatch` | 2002 |
  | `:data_too_large` (above 1,000,000 bytes in the external term format) | 2003 |
  | `:invalid_event_type` (only `validate_event_type/1`) | 2004 |
  """

  alias Foundation.Types.{Error, Event}

  @max_data_size 1_000_000

  @event_types [
    :function_entry,
    :function_exit,
    :state_change,
    :message_send,
    :message_receive,
    :spawn,
    :exit,
    :link,
    :unlink,
    :monitor,
    :demonitor,
    :system_event,
    :custom_event,
    :config_updated,
    :config_reset,
    :test,
    :test1,
    :test2,
    :test3,
    :test_event,
    :default,
    :type_a,
    :type_b
  ]

  @codes %{
    validation_failed: {2001, :high},
    type_mismatch: {2002, :medium},
    data_too_large: {2003, :high},
    invalid_event_type: {2004, :medium}
  }

  # `false` counts as not set, as `nil` does. Both are atoms.
  defguardp unset(value) when value in [nil, false]
  defguardp positive(value) when is_integer(value) and value > 0

  @doc """
  Validates required fields, then types, then the size of the data. Any atom is a valid type here.
  """
  @spec validate(Event.t()) :: :ok | {:error, Error.t()}
  def validate(%Event{} = event) do
    with :ok <- validate_required_fields(event),
         :ok <- validate_field_types(event) do
      validate_data_size(event)
    end
  end

  @doc """
  Id, type and timestamp must be there.
  """
  @spec validate_required_fields(Event.t()) :: :ok | {:error, Error.t()}
  def validate_required_fields(%Event{event_id: nil}), do: missing("Event ID")
  def validate_required_fields(%Event{event_type: nil}), do: missing("Event type")
  def validate_required_fields(%Event{timestamp: nil}), do: missing("Timestamp")
  def validate_required_fields(%Event{}), do: :ok

  @doc """
  Fields that are set must have their types.
  """
  @spec validate_field_types(Event.t()) :: :ok | {:error, Error.t()}
  def validate_field_types(%Event{} = event) do
    cond do
      not (unset(event.event_id) or positive(event.event_id)) ->
        mismatch("Event ID", "a positive integer")

      not is_atom(event.event_type) ->
        mismatch("Event type", "an atom")

      not (unset(event.timestamp) or is_integer(event.timestamp)) ->
        mismatch("Timestamp", "an integer")

      not (unset(event.wall_time) or is_struct(event.wall_time, DateTime)) ->
        mismatch("Wall time", "a DateTime")

      not is_atom(event.node) ->
        mismatch("Node", "an atom")

      not (unset(event.pid) or is_pid(event.pid)) ->
        mismatch("PID", "a process identifier")

      not (unset(event.correlation_id) or is_binary(event.correlation_id)) ->
        mismatch("Correlation ID", "a string")

      not (unset(event.parent_id) or positive(event.parent_id)) ->
        mismatch("Parent ID", "a positive integer")

      true ->
        :ok
    end
  end

  @doc """
  The data must not exceed 1,000,000 bytes in the external term format.
  """
  @spec validate_data_size(Event.t()) :: :ok | {:error, Error.t()}
  def validate_data_size(%Event{data: data}) do
    size = :erlang.external_size(data)

    if size > @max_data_size do
      error(:data_too_large, "Event data too large", %{size: size, max_size: @max_data_size})
    else
      :ok
    end
  end

  @doc """
  Whether the type is one that the library itself names. Not part of `validate/1`: applications use their own.
  """
  @spec validate_event_type(atom()) :: :ok | {:error, Error.t()}
  def validate_event_type(event_type) when event_type in @event_types, do: :ok

  def validate_event_type(event_type) when is_atom(event_type) do
    error(:invalid_event_type, "Invalid event type", %{
      event_type: event_type,
      allowed_types: @event_types
    })
  end

  def validate_event_type(_other), do: mismatch("Event type", "an atom")

  defp missing(field), do: error(:validation_failed, "#{field} cannot be nil")
  defp mismatch(field, expected), do: error(:type_mismatch, "#{field} must be #{expected}")

  defp error(error_type, message, context \\ %{}) do
    {code, severity} = Map.fetch!(@codes, error_type)

    {:error,
     Error.new(
       code: code,
       error_type: error_type,
       message: message,
       severity: severity,
       context: context,
       category: :data,
       subcategory: :validation
     )}
  end
end

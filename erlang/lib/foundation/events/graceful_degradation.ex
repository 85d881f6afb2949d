defmodule Foundation.Events.GracefulDegradation do
  @moduledoc """
  Events when something is wrong with them or with their store: these functions do not raise.
  """

  alias Foundation.{Events, Utils}
  alias Foundation.Host.Json
  alias Foundation.Types.Event
  require Logger

  # How many events store_safe/1 keeps in the process dictionary, under :event_fallback_buffer.
  @buffer_size 100

  @doc """
  An event, whatever the data: that of `Foundation.Events.new_event/2`, or a minimal one that says what could not be kept.
  """
  @spec new_event_safe(term(), term()) :: Event.t()
  def new_event_safe(event_type, data) do
    case Events.new_event(event_type, data) do
      {:ok, event} ->
        event

      {:error, _reason} = error ->
        Logger.warning("Unexpected result from Events.new_event: #{inspect(error)}")
        minimal(event_type, data)
    end
  rescue
    exception ->
      Logger.warning("Primary event creation failed: #{Exception.message(exception)}")
      with_sanitized(event_type, data)
  end

  defp with_sanitized(event_type, data) do
    case Events.new_event(event_type, sanitize(data)) do
      {:ok, event} -> event
      {:error, _error} -> minimal(event_type, data)
    end
  rescue
    exception ->
      Logger.error("Fallback event creation also failed: #{Exception.message(exception)}")
      minimal(event_type, data)
  end

  @doc """
  The serialized event, or in its place its JSON (`{:json_fallback, json}`) or type and timestamp (`{:minimal_fallback, map}`) in the
  external term format.
  """
  @spec serialize_safe(term()) :: binary()
  def serialize_safe(event) do
    case Events.serialize(event) do
      {:ok, binary} ->
        binary

      {:error, _error} ->
        Logger.warning("Events.serialize returned error, using fallback")
        serialize_fallback(event)
    end
  rescue
    exception ->
      Logger.warning("Primary serialization failed: #{Exception.message(exception)}")
      serialize_fallback(event)
  end

  @doc """
  What `serialize_safe/1` made: `{:ok, event}`, or `{:ok, %{fallback_data: _, warning: _}}` of a minimal one.
  """
  @spec deserialize_safe(binary()) :: {:ok, Event.t() | map()} | {:error, term()}
  def deserialize_safe(binary) when is_binary(binary) do
    Events.deserialize(binary)
  rescue
    exception ->
      Logger.warning("Primary deserialization failed: #{Exception.message(exception)}")
      deserialize_fallback(binary)
  end

  @doc """
  `Foundation.Events.store/1`; if that raises, the event goes into this process's buffer of 100 and `:ok` comes back.
  """
  @spec store_safe(term()) :: {:ok, Event.event_id()} | {:error, term()} | :ok
  def store_safe(event) do
    Events.store(event)
  rescue
    exception ->
      Logger.warning("Primary event storage failed: #{Exception.message(exception)}")
      buffer = [event | Process.get(:event_fallback_buffer, [])] |> Enum.take(@buffer_size)
      Process.put(:event_fallback_buffer, buffer)
      Logger.info("Event stored in fallback buffer (#{length(buffer)} events buffered)")
      :ok
  end

  @doc """
  `Foundation.Events.query/1`; if that raises, `{:ok, [], %{warning: _}}`.
  """
  @spec query_safe(map() | keyword()) ::
          {:ok, [Event.t()]} | {:error, term()} | {:ok, [], %{warning: String.t()}}
  def query_safe(query) do
    Events.query(query)
  rescue
    exception ->
      Logger.warning("Primary event query failed: #{Exception.message(exception)}")
      {:ok, [], %{warning: "Service temporarily unavailable"}}
  end

  defp serialize_fallback(event) do
    :erlang.term_to_binary({:json_fallback, event |> json_form() |> Json.encode!()})
  rescue
    exception ->
      Logger.error("JSON fallback serialization failed: #{Exception.message(exception)}")

      :erlang.term_to_binary(
        {:minimal_fallback,
         %{
           event_type: event.event_type,
           timestamp: event.timestamp,
           error: "Serialization failed"
         }}
      )
  end

  defp deserialize_fallback(binary) do
    case :erlang.binary_to_term(binary) do
      {:json_fallback, json} ->
        {:ok, struct(Event, Json.decode!(json, keys: :atoms))}

      {:minimal_fallback, data} ->
        {:ok, %{fallback_data: data, warning: "Minimal fallback used"}}

      other ->
        Logger.warning("Unknown fallback format: #{inspect(other)}")
        {:error, :unknown_fallback_format}
    end
  rescue
    exception ->
      Logger.error("Fallback deserialization failed: #{Exception.message(exception)}")
      {:error, :deserialization_failed}
  end

  defp json_form(%Event{} = event) do
    %{
      Map.from_struct(event)
      | wall_time: DateTime.to_iso8601(event.wall_time),
        node: to_string(event.node),
        pid: inspect(event.pid),
        data: sanitize(event.data)
    }
  end

  defp json_form(data), do: sanitize(data)

  # What has no meaning elsewhere becomes text.
  defp sanitize(%{} = map), do: Map.new(map, fn {key, value} -> {key, sanitize_value(value)} end)
  defp sanitize(other), do: other

  defp sanitize_value(value) when is_function(value), do: "#Function<#{inspect(value)}>"

  defp sanitize_value(value) when is_pid(value) or is_reference(value) or is_port(value),
    do: inspect(value)

  defp sanitize_value(value) when is_map(value), do: sanitize(value)
  defp sanitize_value(value) when is_list(value), do: Enum.map(value, &sanitize_value/1)
  defp sanitize_value(value), do: value

  defp minimal(event_type, data) do
    %Event{
      event_type: event_type,
      event_id: Utils.generate_id(),
      timestamp: System.system_time(:microsecond),
      wall_time: DateTime.utc_now(),
      node: node(),
      pid: self(),
      data: %{
        original_data_error: "Failed to serialize original data",
        fallback_info: %{
          original_data_type: type_of(data),
          sanitization_attempted: true,
          timestamp: DateTime.utc_now()
        }
      }
    }
  end

  defp type_of(data) when is_map(data), do: :map
  defp type_of(data) when is_list(data), do: :list
  defp type_of(data) when is_binary(data), do: :binary
  defp type_of(data) when is_atom(data), do: :atom
  defp type_of(data) when is_number(data), do: :number
  defp type_of(data) when is_pid(data), do: :pid
  defp type_of(data) when is_reference(data), do: :reference
  defp type_of(data) when is_function(data), do: :function
  defp type_of(_data), do: :unknown
end

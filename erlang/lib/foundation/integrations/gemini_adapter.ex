defmodule Foundation.Integrations.GeminiAdapter do
  @moduledoc """
  Stores what `gemini_ex` tells by `:telemetry`, from `setup/0` on. The data of an event are its measurements and metadata in one map.

  | of `gemini_ex` | stored as | emitted |
  |---|---|---|
  | `[:gemini, :request, :start]` | `:gemini_request_start` | |
  | `[:gemini, :request, :stop]` | `:gemini_request_stop` | histogram `[:gemini, :request, :duration]` of `duration` |
  | `[:gemini, :request, :exception]` | `:gemini_request_exception` | counter `[:gemini, :request, :errors]` |
  | `[:gemini, :stream, :start]` | `:gemini_stream_start` | |
  | `[:gemini, :stream, :chunk]` | `:gemini_stream_chunk` | histogram `[:gemini, :stream, :chunk_size]` of `chunk_size` |
  | `[:gemini, :stream, :stop]` | `:gemini_stream_stop` | histograms `[:gemini, :stream, :duration]` of `total_duration`, `[:gemini, :stream, :chunks]` of `total_chunks` |
  | `[:gemini, :stream, :exception]` | `:gemini_stream_exception` | counter `[:gemini, :stream, :errors]` |

  A measurement that is missing is not emitted. What cannot be stored is logged.
  """

  alias Foundation.{Events, Telemetry}
  alias Foundation.Host
  require Logger

  # By the last two segments of its name: the type of the event stored, and which measurement goes into which histogram.
  @captured %{
    {:request, :start} => {:gemini_request_start, []},
    {:request, :stop} => {:gemini_request_stop, duration: :duration},
    {:request, :exception} => {:gemini_request_exception, []},
    {:stream, :start} => {:gemini_stream_start, []},
    {:stream, :chunk} => {:gemini_stream_chunk, chunk_size: :chunk_size},
    {:stream, :stop} => {:gemini_stream_stop, total_duration: :duration, total_chunks: :chunks},
    {:stream, :exception} => {:gemini_stream_exception, []}
  }

  @doc """
  Begins to store. `:noop` if the application does not have `gemini_ex`.
  """
  @spec setup() :: :ok | :noop
  def setup do
    if Code.ensure_loaded?(Gemini) do
      events = for {{of, phase}, _stored} <- @captured, do: [:gemini, of, phase]
      Host.Telemetry.attach_many("foundation-gemini-adapter", events, &handle_event/4, nil)
      Logger.info("#{inspect(__MODULE__)}: Successfully attached to Gemini telemetry events")
      :ok
    else
      Logger.info(
        "#{inspect(__MODULE__)}: Gemini integration not available (gemini_ex not in dependencies)"
      )

      :noop
    end
  end

  @doc """
  Stores one event: the handler that `setup/0` attaches.
  """
  @spec handle_event([atom()], map(), map(), term()) :: :ok
  def handle_event([:gemini, of, phase], measurements, metadata, _config)
      when is_map_key(@captured, {of, phase}) do
    {type, histograms} = Map.fetch!(@captured, {of, phase})
    data = Map.merge(measurements, metadata)

    try do
      type |> Events.new_event(data) |> Events.store()

      for {key, name} <- histograms, is_map_key(measurements, key) do
        Telemetry.emit_histogram([:gemini, of, name], measurements[key], metadata)
      end

      if phase == :exception, do: Telemetry.emit_counter([:gemini, of, :errors], metadata)
      level = if phase == :exception, do: :warning, else: :debug
      Logger.log(level, "Captured Gemini #{of} #{phase}: #{said(phase, measurements, metadata)}")
    rescue
      exception -> Logger.error("Failed to store #{type} event: #{inspect(exception)}")
    end

    :ok
  end

  defp said(:start, _measurements, metadata), do: inspect(metadata)
  defp said(:exception, _measurements, metadata), do: inspect(metadata[:reason] || "unknown")

  defp said(:chunk, measurements, _metadata),
    do: "size=#{measurements[:chunk_size] || "N/A"} bytes"

  defp said(:stop, measurements, _metadata) do
    case measurements do
      %{total_duration: time} ->
        "duration=#{time}ms, chunks=#{measurements[:total_chunks] || "N/A"}"

      _one_answer ->
        "duration=#{measurements[:duration] || "N/A"}ms"
    end
  end
end

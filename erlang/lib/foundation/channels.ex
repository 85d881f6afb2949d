defmodule Foundation.Channels do
  @moduledoc """
  Four channels between the nodes of a cluster: `:control`, `:events`, `:telemetry`, `:data`.

  Each is a topic of `Foundation.PubSub`, `"foundation:control"` and so on, and any `Phoenix.PubSub` node of that name takes part.
  Subscribers get the bare message. Delivery is at most once. All channels of a pair of nodes share one connection: a large
  message on `:data` delays what follows it on `:control`.

  Every broadcast executes `[:foundation, :message, :sent]` with `%{size: bytes}` in the external term format and metadata
  `%{channel: channel}`.

  Errors are `Foundation.Types.Error` of type `:pubsub_unavailable`; their message names the facade, the tool and the tool's error.
  """

  alias Foundation.Host
  alias Foundation.PubSub
  alias Foundation.Types.Error

  @channels [:control, :events, :telemetry, :data]
  # From this size on route_message/2 takes :data.
  @large 10_240

  @type channel :: :control | :events | :telemetry | :data

  @doc """
  The channels.
  """
  @spec channels() :: [channel(), ...]
  def channels, do: @channels

  @doc """
  The topic of a channel.
  """
  @spec topic(channel()) :: String.t()
  def topic(channel) when channel in @channels, do: "foundation:#{channel}"

  @doc """
  Sends a message to the subscribers of a channel on all nodes. Options are accepted for `route_message/2`'s sake.
  """
  @spec broadcast(channel(), term(), keyword()) :: :ok | {:error, Error.t()}
  def broadcast(channel, message, _opts \\ []) when channel in @channels do
    with :ok <- run("broadcast/3", fn -> PubSub.broadcast(topic(channel), message) end) do
      Host.Telemetry.execute(
        [:foundation, :message, :sent],
        %{size: :erlang.external_size(message)},
        %{channel: channel}
      )
    end
  end

  @doc """
  Subscribes a process of this node, the caller by default. Twice is twice for the caller; for another process the second
  has no effect.

  The tool subscribes callers only, so another process gets its messages through a forwarder, which ends with it.
  """
  @spec subscribe(channel(), pid()) :: :ok | {:error, Error.t()}
  def subscribe(channel, pid \\ self())

  def subscribe(channel, pid) when channel in @channels and pid == self(),
    do: run("subscribe/2", fn -> PubSub.subscribe(topic(channel)) end)

  def subscribe(channel, pid) when channel in @channels and node(pid) == node() do
    run("subscribe/2", fn ->
      child = %{
        id: {channel, pid},
        start: {__MODULE__.Forwarder, :start_link, [topic(channel), pid]},
        restart: :temporary
      }

      case DynamicSupervisor.start_child(Foundation.TaskSupervisor, child) do
        {:ok, _forwarder} -> :ok
        {:error, {:already_started, _forwarder}} -> :ok
        {:error, reason} -> {:error, reason}
      end
    end)
  end

  @doc """
  Ends the calling process's subscriptions to a channel.
  """
  @spec unsubscribe(channel()) :: :ok | {:error, Error.t()}
  def unsubscribe(channel) when channel in @channels,
    do: run("unsubscribe/1", fn -> PubSub.unsubscribe(topic(channel)) end)

  @doc """
  Broadcasts on the channel that suits a message.

  `channel:` names it; else `priority: :high` takes `:control`; else messages from 10,240 bytes on take `:data`, and all others
  `:events`.
  """
  @spec route_message(term(), keyword()) :: :ok | {:error, Error.t()}
  def route_message(message, opts \\ []) do
    broadcast(
      opts[:channel] || route(message, Keyword.get(opts, :priority, :normal)),
      message,
      opts
    )
  end

  defp route(_message, :high), do: :control

  defp route(message, priority) when priority in [:low, :normal] do
    if :erlang.external_size(message) >= @large, do: :data, else: :events
  end

  defp run(function, fun) do
    if PubSub.running?() do
      with {:error, reason} <- fun.(), do: error(function, inspect(reason))
    else
      error(function, "not running; clustering is off, see Foundation.ClusterConfig")
    end
  catch
    # It stopped between the look and the call.
    kind, reason -> error(function, Exception.format_banner(kind, reason))
  end

  defp error(function, reason) do
    {:error,
     Error.new(
       error_type: :pubsub_unavailable,
       message: "Foundation.Channels.#{function}: Phoenix.PubSub Foundation.PubSub: #{reason}",
       severity: :high,
       category: :system,
       subcategory: :cluster
     )}
  end
end

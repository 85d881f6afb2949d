defmodule Foundation.Channels do
  @moduledoc """
  Four channels between the nodes of a cluster: `:control`, `:events`, `:telemetry`, `:data`.

  Each is a topic of `Foundation.PubSub`, `"foundation:control"` and so on, and any `Phoenix.PubSub` node of that name takes part.
  Subscribers get the bare message. Delivery is at most once. All channels of a pair of nodes share one connection: a large
  message on `:data` delays what follows it on `:control`.

  Every broadcast executes `[:foundation, :message, :sent]` on its node, measurements `%{size: bytes}` in the external term format, and
  `[:foundation, :message, :received]` on each node that it reaches, its own included, measurements `%{latency: microseconds}` by the clocks
  of the two nodes. The metadata is `%{channel: channel}` and the same number. What a node without this library broadcasts on a topic is
  delivered but not counted: it does not say when it was sent.

  Errors are `Foundation.Types.Error` of type `:pubsub_unavailable`; their message names the facade, the tool and the tool's error.
  """

  alias Foundation.Channels.Receiver
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
  Sends a message to the subscribers of a channel on all nodes.

  `compression: true` deflates it on its way to nodes that have this library. `timeout:` is accepted and has no effect: nothing is waited
  for.
  """
  @spec broadcast(channel(), term(), keyword()) :: :ok | {:error, Error.t()}
  def broadcast(channel, message, opts \\ []) when channel in @channels do
    run("broadcast/3", fn ->
      sent_at = Receiver.now()
      size = :erlang.external_size(message)
      :ok = Receiver.send_to_others(channel, message, opts)

      Host.Telemetry.execute(
        [:foundation, :message, :sent],
        %{size: size},
        %{channel: channel, size: size}
      )

      Receiver.deliver(channel, message, sent_at)
    end)
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

defmodule Foundation.Channels.Receiver do
  @moduledoc false
  # One for each channel on each node. What another node's Foundation.Channels broadcasts comes here, with the time of sending, which a
  # bare message on the topic cannot carry; nodes that have only a PubSub get the bare message. A process a channel, so that a channel
  # with much to deliver does not hold up the others.

  use GenServer

  alias Foundation.{Channels, Host, PubSub}
  alias Foundation.Channels.Rate

  @scope Phoenix.PubSub

  def start_link(channel), do: GenServer.start_link(__MODULE__, channel)

  def child_spec(channel),
    do: %{id: {__MODULE__, channel}, start: {__MODULE__, :start_link, [channel]}}

  @doc false
  # To all nodes but this one.
  @spec send_to_others(Channels.channel(), term(), keyword()) :: :ok
  def send_to_others(channel, message, opts) do
    receivers = for pid <- :pg.get_members(@scope, group(channel)), node(pid) != node(), do: pid

    if receivers != [] do
      packed = {:foundation_channel, 1, now(), pack(message, opts[:compression] == true)}
      for pid <- receivers, do: send(pid, packed)
    end

    known = Enum.map(receivers, &node/1)

    for node <- PubSub.nodes(), node != node(), node not in known do
      PubSub.direct_broadcast(node, Channels.topic(channel), message)
    end

    :ok
  end

  @doc false
  # To the subscribers of this node.
  @spec deliver(Channels.channel(), term(), integer()) :: :ok
  def deliver(channel, message, sent_at) do
    :ok = PubSub.local_broadcast(Channels.topic(channel), message)
    Rate.count()
    # Clocks of two nodes differ; a message never arrives before it was sent.
    latency = max(now() - sent_at, 0)

    Host.Telemetry.execute(
      [:foundation, :message, :received],
      %{latency: latency},
      %{channel: channel, latency: latency}
    )
  end

  @doc false
  # Microseconds since 1970.
  def now, do: System.os_time(:microsecond)

  defp group(channel), do: {__MODULE__, channel}

  defp pack(message, true), do: {:packed, :erlang.term_to_binary(message, compressed: 1)}
  defp pack(message, false), do: {:plain, message}

  @impl true
  def init(channel) do
    :ok = :pg.join(@scope, group(channel), self())
    {:ok, channel}
  end

  @impl true
  def handle_info({:foundation_channel, 1, sent_at, {form, content}}, channel)
      when is_integer(sent_at) do
    case unpack(form, content) do
      {:ok, message} -> deliver(channel, message, sent_at)
      :error -> :ok
    end

    {:noreply, channel}
  end

  def handle_info(_message, channel), do: {:noreply, channel}

  defp unpack(:plain, message), do: {:ok, message}

  defp unpack(:packed, binary) when is_binary(binary) do
    {:ok, :erlang.binary_to_term(binary)}
  rescue
    ArgumentError -> :error
  end

  defp unpack(_form, _content), do: :error
end

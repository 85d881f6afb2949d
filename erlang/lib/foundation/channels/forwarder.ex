defmodule Foundation.Channels.Forwarder do
  @moduledoc false
  # Subscribes in place of a process that cannot do so itself, and ends with it.

  use GenServer

  def start_link(topic, pid) do
    name = Foundation.ProcessRegistry.via_tuple(:foundation_channels, {topic, pid})
    GenServer.start_link(__MODULE__, {topic, pid}, name: name)
  end

  @impl true
  def init({topic, pid}) do
    Process.monitor(pid)
    with :ok <- Foundation.PubSub.subscribe(topic), do: {:ok, pid}
  end

  @impl true
  def handle_info({:DOWN, _ref, :process, pid, _reason}, pid), do: {:stop, :normal, pid}

  def handle_info(message, pid) do
    send(pid, message)
    {:noreply, pid}
  end
end

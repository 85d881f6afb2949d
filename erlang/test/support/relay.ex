defmodule Foundation.Relay do
  @moduledoc false
  # On another node: hands what it gets to an agent's list, the latest first.

  def start(agent), do: spawn(fn -> loop(agent) end)

  def telemetry(event, measurements, metadata, agent),
    do: Agent.update(agent, List, :insert_at, [0, {event, measurements, metadata}])

  # Counts the messages of a channel.
  def count(channel) do
    counter = :counters.new(1, [])
    pid = spawn(fn -> count_loop(counter) end)
    :ok = Foundation.Channels.subscribe(channel, pid)
    name = {__MODULE__, make_ref()}
    :persistent_term.put(name, counter)
    name
  end

  def counted(name), do: :counters.get(:persistent_term.get(name), 1)

  defp count_loop(counter) do
    receive do
      _message -> :counters.add(counter, 1, 1)
    end

    count_loop(counter)
  end

  # Broadcasts for so many milliseconds. How many it were.
  def flood(channel, duration),
    do: flood(channel, System.monotonic_time(:millisecond) + duration, 0)

  defp flood(channel, deadline, sent) do
    if System.monotonic_time(:millisecond) > deadline do
      sent
    else
      :ok = Foundation.Channels.broadcast(channel, {:message, sent})
      flood(channel, deadline, sent + 1)
    end
  end

  defp loop(agent) do
    receive do
      message -> Agent.update(agent, List, :insert_at, [0, message])
    end

    loop(agent)
  end
end

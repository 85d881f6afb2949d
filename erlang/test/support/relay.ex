defmodule Foundation.Relay do
  @moduledoc false
  # On another node: hands what it gets to an agent's list, the latest first.

  def start(agent), do: spawn(fn -> loop(agent) end)

  def telemetry(event, measurements, metadata, agent),
    do: Agent.update(agent, List, :insert_at, [0, {event, measurements, metadata}])

  defp loop(agent) do
    receive do
      message -> Agent.update(agent, List, :insert_at, [0, message])
    end

    loop(agent)
  end
end

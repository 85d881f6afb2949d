defmodule Foundation.Channels.Rate do
  @moduledoc false
  # How many channel messages a second arrive at this node, over the last ten seconds.

  use GenServer

  @samples 10
  @interval_ms 1000

  def start_link(_opts), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc false
  @spec count() :: :ok
  def count do
    case :persistent_term.get(__MODULE__, nil) do
      nil -> :ok
      counter -> :counters.add(counter, 1, 1)
    end
  end

  @doc false
  @spec per_second() :: float()
  def per_second do
    GenServer.call(__MODULE__, :per_second)
  catch
    :exit, _not_running -> 0.0
  end

  # The samples, the latest first: {microseconds, messages since the start}.
  @impl true
  def init(_opts) do
    counter = :persistent_term.get(__MODULE__, nil) || :counters.new(1, [:write_concurrency])
    :persistent_term.put(__MODULE__, counter)
    Process.send_after(self(), :sample, @interval_ms)
    {:ok, {counter, [now(counter)]}}
  end

  @impl true
  def handle_call(:per_second, _from, {counter, samples}) do
    {later, last} = now(counter)
    {earlier, first} = List.last(samples)
    {:reply, (last - first) * 1_000_000 / max(later - earlier, 1), {counter, samples}}
  end

  @impl true
  def handle_info(:sample, {counter, samples}) do
    Process.send_after(self(), :sample, @interval_ms)
    {:noreply, {counter, Enum.take([now(counter) | samples], @samples)}}
  end

  def handle_info(_message, state), do: {:noreply, state}

  defp now(counter), do: {System.monotonic_time(:microsecond), :counters.get(counter, 1)}
end

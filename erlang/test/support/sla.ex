defmodule Foundation.Sla do
  @moduledoc false
  # What bench/sla.exs runs on the nodes that it measures.

  alias Foundation.{Channels, ServiceMesh}

  @doc "Collects the latencies of the messages of `send_many/4` on a channel."
  def collect(channel) do
    parent = self()

    pid =
      spawn(fn ->
        :ok = Channels.subscribe(channel)
        send(parent, {:collecting, self()})
        collecting([])
      end)

    receive do
      {:collecting, ^pid} -> :ok
    end

    :persistent_term.put({__MODULE__, channel}, pid)
  end

  defp collecting(latencies) do
    receive do
      {:sla, sent_at, _payload} ->
        collecting([System.os_time(:nanosecond) - sent_at | latencies])

      {:take, count, from} when length(latencies) >= count ->
        send(from, {:latencies, self(), latencies})
    end
  end

  @doc "Waits until so many have come. Nanoseconds."
  def latencies(channel, count) do
    pid = :persistent_term.get({__MODULE__, channel})
    send(pid, {:take, count, self()})

    receive do
      {:latencies, ^pid, latencies} -> latencies
    after
      25_000 -> :timeout
    end
  end

  def send_many(channel, count, bytes, gap_ms) do
    payload = :rand.bytes(bytes)

    for _n <- 1..count do
      :ok = Channels.broadcast(channel, {:sla, System.os_time(:nanosecond), payload})

      receive do
      after
        gap_ms -> :ok
      end
    end

    :ok
  end

  @doc "A flood of large messages until stop_flood/0."
  def start_flood(bytes) do
    payload = :rand.bytes(bytes)
    :persistent_term.put({__MODULE__, :flood}, spawn(fn -> flood(payload) end))
  end

  defp flood(payload) do
    :ok = Channels.broadcast(:data, payload)
    flood(payload)
  end

  def stop_flood, do: Process.exit(:persistent_term.get({__MODULE__, :flood}), :kill)

  @doc "A registered process that counts and drops, for plain sends."
  def sink do
    pid = spawn(fn -> drop() end)
    Process.register(pid, :sla_sink)
  end

  defp drop do
    receive do
      _message -> drop()
    end
  end

  @doc "The same messages at the same rate, by channel or by plain send. The microseconds it took."
  def steady(how, count, per_second) do
    payload = :rand.bytes(100)
    start = System.monotonic_time(:microsecond)

    for n <- 1..count do
      case how do
        {:send, node} -> send({:sla_sink, node}, {:message, n, payload})
        {:channel, channel} -> :ok = Channels.broadcast(channel, {:message, n, payload})
      end

      ahead = start + div(n * 1_000_000, per_second) - System.monotonic_time(:microsecond)

      if ahead > 2000 do
        receive do
        after
          div(ahead, 1000) -> :ok
        end
      end
    end

    System.monotonic_time(:microsecond) - start
  end

  @doc "Bytes sent and received on the connection to a node."
  def bytes(node) do
    {^node, port} = List.keyfind(:erlang.system_info(:dist_ctrl), node, 0)
    {:ok, counts} = :inet.getstat(port, [:send_oct, :recv_oct])
    counts |> Keyword.values() |> Enum.sum()
  end

  @doc "Bytes of the whole VM, everything collected."
  def memory do
    for pid <- Process.list(), do: :erlang.garbage_collect(pid)
    :erlang.memory(:total)
  end

  def register(count) do
    # The processes are there before and after: only what their registration takes is measured.
    pids = for _n <- 1..count, do: spawn(fn -> Process.sleep(:infinity) end)
    before = memory()

    for {pid, n} <- Enum.with_index(pids),
        do: :ok = ServiceMesh.register_service({:service, n}, pid, [:capability], %{n: n})

    (memory() - before) / count
  end

  def discover(count) do
    for n <- 1..count, do: ServiceMesh.discover_services(name: {:service, n})
    :ok
  end
end

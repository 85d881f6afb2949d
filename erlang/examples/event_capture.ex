defmodule Foundation.Examples.EventCapture do
  @moduledoc """
  Capturing events on all nodes of a cluster and putting them together on one, as a tracing tool such as ElixirScope does.

  On each node: a ring that takes bursts (`Foundation.Events.Ring`), and a shipper that empties it into compressed batches
  (`Foundation.Events.Batch`) and sends them to the collector. A batch is sent again until the collector has confirmed it, so what the ring accepted
  arrives once; what it did not accept is counted. The collector stores the events and finds them by the trace's correlation id.

      Foundation.Examples.EventCapture.main()

  runs it on three nodes of its own. The test of this example runs the same.
  """

  alias Foundation.{Distributed, Events, TestCluster, Utils}
  alias Foundation.Distributed.Context
  alias Foundation.Events.{Batch, Ring}

  defmodule Collector do
    @moduledoc "Takes batches and answers questions about traces."
    use GenServer

    alias Foundation.Events
    alias Foundation.Events.Batch

    def start, do: GenServer.start(__MODULE__, [], name: __MODULE__)

    @impl true
    def init(_opts), do: {:ok, %{received: %{}, batches: 0, bytes: 0}}

    # A batch that was sent again because the answer was late is confirmed and not stored again.
    @impl true
    def handle_call({:batch, node, number, batch}, _from, state) do
      if Map.get(state.received, node, 0) >= number do
        {:reply, :ok, state}
      else
        {:ok, events} = Batch.unpack(batch)
        # Ids are of each node's own; here they become ours.
        {:ok, _ids} =
          events
          |> Enum.map(&%{&1 | event_id: Foundation.Utils.generate_id()})
          |> Events.store_batch()

        {:reply, :ok,
         %{
           received: Map.put(state.received, node, number),
           batches: state.batches + 1,
           bytes: state.bytes + byte_size(batch)
         }}
      end
    end

    def handle_call(:figures, _from, state),
      do: {:reply, Map.take(state, [:batches, :bytes]), state}
  end

  defmodule Shipper do
    @moduledoc "Owns a node's ring and empties it."
    use GenServer

    alias Foundation.Events.{Batch, Ring}

    @batch 1000
    @idle_ms 20
    @answer_ms 5000

    def start(collector, capacity) do
      with {:ok, pid} <- GenServer.start(__MODULE__, {collector, capacity}, name: __MODULE__),
           do: {:ok, pid}
    end

    @impl true
    def init({collector, capacity}) do
      ring = Ring.new(capacity)
      :persistent_term.put(Foundation.Examples.EventCapture, ring)
      {:ok, %{ring: ring, collector: collector, number: 1}, {:continue, :ship}}
    end

    @impl true
    def handle_continue(:ship, state), do: {:noreply, ship(state)}

    @impl true
    def handle_info(:ship, state), do: {:noreply, ship(state)}
    def handle_info(_late_answer, state), do: {:noreply, state}

    defp ship(state) do
      case Ring.drain(state.ring, @batch) do
        [] ->
          Process.send_after(self(), :ship, @idle_ms)
          state

        events ->
          send(self(), :ship)
          deliver({:batch, node(), state.number, Batch.pack(events)}, state.collector)
          %{state | number: state.number + 1}
      end
    end

    defp deliver(request, collector) do
      :ok =
        GenServer.call(
          {Foundation.Examples.EventCapture.Collector, collector},
          request,
          @answer_ms
        )
    catch
      :exit, _no_answer -> deliver(request, collector)
    end
  end

  @doc "An event of this node's running trace into its ring."
  @spec capture(atom(), term()) :: :ok | {:error, :full}
  def capture(type, data) do
    %{trace_id: trace_id} = Context.get()
    {:ok, event} = Events.new_event(type, data, correlation_id: trace_id)
    Ring.push(:persistent_term.get(__MODULE__), event)
  end

  @doc "Runs a traced workload on all nodes: each captures its begin, `calls` calls, and its end with their number."
  @spec run_trace([node()], pos_integer()) :: String.t()
  def run_trace(nodes, calls) do
    trace_id = Utils.generate_correlation_id()

    Context.within(%{trace_id: trace_id}, fn ->
      for {:error, reason} <-
            Distributed.coordinate_work(:trace, nodes,
              nodes: nodes,
              job: {__MODULE__, :start_workload}
            ),
          do: raise(inspect(reason))

      for node <- nodes, do: Distributed.call(node, __MODULE__, :workload, [calls])
    end)

    trace_id
  end

  @doc false
  def start_workload(_node), do: :ok

  @doc false
  def workload(calls) do
    :ok = capture(:trace_begin, %{})

    accepted =
      Enum.count(
        1..calls,
        &(capture(:call, %{module: __MODULE__, function: :workload, n: &1}) == :ok)
      )

    finish(accepted)
  end

  # The end must get in even when the ring is full.
  defp finish(accepted) do
    with {:error, :full} <- capture(:trace_end, %{calls: accepted}) do
      receive do
      after
        5 -> finish(accepted)
      end
    end

    accepted
  end

  @doc """
  What the collector has of a trace. It is complete when each node that began has ended and all its calls have arrived.
  """
  @spec get_trace_data(String.t()) :: %{
          nodes: [node()],
          events: non_neg_integer(),
          complete: boolean()
        }
  def get_trace_data(trace_id) do
    {:ok, events} = Events.get_by_correlation(trace_id)
    by_node = Enum.group_by(events, & &1.node)

    complete =
      by_node != %{} and
        Enum.all?(by_node, fn {_node, events} ->
          types = Enum.frequencies_by(events, & &1.event_type)
          ends = for %{event_type: :trace_end, data: %{calls: calls}} <- events, do: calls
          types[:trace_begin] == 1 and ends == [Map.get(types, :call, 0)]
        end)

    %{nodes: by_node |> Map.keys() |> Enum.sort(), events: length(events), complete: complete}
  end

  @doc "On nodes of its own."
  def main do
    cluster = TestCluster.start(3, foundation: [cluster: :local_epmd])

    try do
      nodes = [collector | _] = TestCluster.nodes(cluster)
      {:ok, trace} = run(cluster, nodes, 5000)

      IO.inspect(TestCluster.call(cluster, collector, __MODULE__, :get_trace_data, [trace]),
        label: "trace"
      )

      IO.inspect(TestCluster.call(cluster, collector, GenServer, :call, [Collector, :figures]),
        label: "collector"
      )
    after
      TestCluster.stop(cluster)
    end
  end

  @doc false
  def run(cluster, [collector | _] = nodes, calls) do
    call = &TestCluster.call(cluster, &1, &2, &3, &4)

    await(fn ->
      Enum.all?(nodes, &(call.(&1, Foundation.Cluster, :size, []) == length(nodes)))
    end)

    {:ok, _} = call.(collector, Collector, :start, [])
    for node <- nodes, do: {:ok, _} = call.(node, Shipper, :start, [collector, 100_000])
    trace = call.(collector, __MODULE__, :run_trace, [nodes, calls])
    await(fn -> call.(collector, __MODULE__, :get_trace_data, [trace]).complete end)
    {:ok, trace}
  end

  defp await(condition, left \\ 3000) do
    cond do
      condition.() ->
        :ok

      left == 0 ->
        raise "it did not come true within a minute"

      true ->
        receive do
        after
          20 -> await(condition, left - 1)
        end
    end
  end
end

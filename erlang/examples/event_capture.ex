defmodule Foundation.Examples.EventCapture do
  @moduledoc """
  Capturing events on all nodes of a cluster and putting them together on one, as a tracing tool such as ElixirScope does.

  On each node: a ring that takes bursts (`Foundation.Events.Ring`), and a shipper that empties it into compressed batches
  (`Foundation.Events.Batch`) and sends them to the collector. A batch is sent again until the collector has confirmed it, so what the ring accepted
  arrives once; what it did not accept is counted. The collector stores the events and finds them by the trace's correlation id.

      Foundation.Examples.EventCapture.main()

  runs it on three nodes of its own. The test of this example runs the same.

  The collector is a BEAM node's, or a Rust node's: `interop-tests/examples/collector.rs` takes the same calls, and is found by its name,
  `{:production, :event_collector}` in `Foundation.ProcessRegistry`. With its program

      Foundation.Examples.EventCapture.main("../target/debug/examples/collector")

  runs a trace on two BEAM nodes and the Rust node, all of which capture events, and then says how many a second the cluster keeps up with.
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
      with {:error, :full} <- GenServer.call(collector, request, @answer_ms) do
        receive do
        after
          @idle_ms -> deliver(request, collector)
        end
      end
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
    shippers(call, nodes, {Collector, collector})
    trace = call.(collector, __MODULE__, :run_trace, [nodes, calls])
    ask = fn -> call.(collector, __MODULE__, :get_trace_data, [trace]) end
    await(fn -> whole?(ask.(), length(nodes)) end)
    {:ok, trace}
  end

  # Of a node from which nothing has arrived yet the collector does not know.
  defp whole?(trace_data, nodes),
    do: trace_data.complete and length(trace_data.nodes) == nodes

  defp shippers(call, nodes, collector),
    do: for(node <- nodes, do: {:ok, _} = call.(node, Shipper, :start, [collector, 100_000]))

  @doc "The same with a Rust node that collects, and takes part."
  @spec main(Path.t()) :: :ok
  def main(program) do
    cluster = TestCluster.start(2, foundation: [cluster: :local_epmd])

    try do
      nodes = TestCluster.nodes(cluster)
      {collector, rust} = start_rust(cluster, nodes, program)
      {:ok, trace} = run_with_rust(cluster, nodes, collector, 5000)
      ask = &TestCluster.call(cluster, hd(nodes), GenServer, :call, [collector, &1])
      IO.inspect(ask.({:get_trace_data, trace}), label: "trace")
      IO.inspect(rate(cluster, nodes, collector, 200_000), label: "events a second")
      IO.inspect(ask.(:figures), label: "collector")
      stop_rust(rust)
    after
      TestCluster.stop(cluster)
    end
  end

  @doc false
  # The program as a node of the cluster. It ends with its standard input.
  def start_rust(cluster, [node | _] = nodes, program) do
    {_epmd, epmd_port} = cluster.epmd
    cookie = TestCluster.call(cluster, node, Node, :get_cookie, [])
    env = [{~c"FOUNDATION_COOKIE", ~c"#{cookie}"}, {~c"ERL_EPMD_PORT", ~c"#{epmd_port}"}]
    args = ["collector@127.0.0.1"]
    rust = Port.open({:spawn_executable, program}, [:binary, args: args, env: env])

    receive do
      {^rust, {:data, "collector@" <> _rest}} -> :ok
    after
      60_000 -> raise "#{program} has not started"
    end

    for node <- nodes,
        do: true = TestCluster.call(cluster, node, Node, :connect, [:"collector@127.0.0.1"])

    name = [:production, :event_collector]
    find = &TestCluster.call(cluster, &1, Foundation.ProcessRegistry, :lookup, name)
    await(fn -> Enum.all?(nodes, &match?({:ok, _pid}, find.(&1))) end)
    {:ok, collector} = find.(node)
    {collector, rust}
  end

  @doc false
  def stop_rust(rust), do: Port.close(rust)

  @doc false
  def run_with_rust(cluster, [node | _] = nodes, collector, calls) do
    call = &TestCluster.call(cluster, &1, &2, &3, &4)

    await(fn ->
      Enum.all?(nodes, &(call.(&1, Foundation.Cluster, :size, []) == length(nodes)))
    end)

    shippers(call, nodes, collector)
    trace = call.(node, __MODULE__, :run_trace, [nodes, calls])
    :ok = call.(node, GenServer, :call, [collector, {:workload, trace, calls}])
    ask = fn -> call.(node, GenServer, :call, [collector, {:get_trace_data, trace}]) end
    await(fn -> whole?(ask.(), length(nodes) + 1) end)
    {:ok, trace}
  end

  @doc false
  # How many events a second go from the rings into the collector, while all nodes capture as many as their rings accept.
  def rate(cluster, [node | _] = nodes, collector, each) do
    figures = fn -> TestCluster.call(cluster, node, GenServer, :call, [collector, :figures]) end
    before = figures.().events
    start = System.monotonic_time(:microsecond)

    for node <- nodes,
        do: :ok = TestCluster.call(cluster, node, __MODULE__, :start_flood, [each])

    total = length(nodes) * each
    await(fn -> figures.().events == before + total end)
    round(total * 1_000_000 / (System.monotonic_time(:microsecond) - start))
  end

  @doc false
  def start_flood(count) do
    spawn(fn -> Context.within(%{trace_id: "flood"}, fn -> flood(count) end) end)
    :ok
  end

  defp flood(0), do: :ok

  defp flood(left) do
    case capture(:call, %{n: left}) do
      :ok ->
        flood(left - 1)

      {:error, :full} ->
        receive do
        after
          1 -> flood(left)
        end
    end
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

defmodule Foundation.ExamplesTest do
  use ExUnit.Case
  @moduletag :integration
  @moduletag :cluster
  @moduletag timeout: 120_000

  import Foundation.Eventually
  alias Foundation.Examples.{Evaluation, EventCapture}
  alias Foundation.TestCluster

  # 000 §3, "elixir_scope distributed debugging workflow", on BEAM nodes.
  test "a trace that starts on three nodes is complete on one" do
    cluster = TestCluster.start(3, foundation: [cluster: :local_epmd])
    on_exit(fn -> TestCluster.stop(cluster) end)
    [collector | _] = nodes = TestCluster.nodes(cluster)
    {:ok, trace} = EventCapture.run(cluster, nodes, 2000)
    trace_data = TestCluster.call(cluster, collector, EventCapture, :get_trace_data, [trace])
    assert trace_data.nodes == Enum.sort(nodes)
    assert trace_data.complete == true
    assert trace_data.events == 3 * 2002

    assert TestCluster.call(cluster, collector, EventCapture, :get_trace_data, ["another"]).complete ==
             false
  end

  # The same, "trace_data.nodes == cluster", with a Rust node among them.
  @tag :collector
  test "a trace of two BEAM nodes and a Rust node is complete on the Rust node" do
    cluster = TestCluster.start(2, foundation: [cluster: :local_epmd])
    on_exit(fn -> TestCluster.stop(cluster) end)
    [a, b] = nodes = TestCluster.nodes(cluster)
    program = Application.fetch_env!(:foundation, :test_collector)
    {collector, rust} = EventCapture.start_rust(cluster, nodes, program)
    assert node(collector) == :"collector@127.0.0.1"
    {:ok, trace} = EventCapture.run_with_rust(cluster, nodes, collector, 2000)
    ask = &TestCluster.call(cluster, b, GenServer, :call, [collector, &1])

    assert ask.({:get_trace_data, trace}) == %{
             nodes: Enum.sort([node(collector) | nodes]),
             complete: true,
             events: 3 * 2002
           }

    # What comes back is what was captured.
    assert {:ok, [%Foundation.Types.Event{correlation_id: ^trace, node: from} | _] = events} =
             ask.({:get_by_correlation, trace, 100})

    assert length(events) == 100 and from in [node(collector) | nodes]
    assert ask.({:get_trace_data, "another"}) == %{nodes: [], complete: false, events: 0}
    assert ask.({:get_by_correlation, "another", 10}) == {:ok, []}
    figures = ask.(:figures)
    assert %{batches: batches, bytes: bytes, events: 6006} = figures
    assert batches >= 4 and bytes > 0

    # A batch that comes again is confirmed; one that is damaged is refused, and neither is stored.
    batch = Foundation.Events.Batch.pack([])
    assert ask.({:batch, a, 1, batch}) == :ok
    <<head::binary-size(10), _digest, rest::binary>> = batch
    assert ask.({:batch, a, 1000, <<head::binary, 7, rest::binary>>}) == {:error, :damaged}
    assert ask.({:batch, a, 1000, "no batch"}) == {:error, :damaged}
    assert ask.({:nonsense, 1}) == {:error, :badarg}
    assert ask.(:figures) == figures

    # Nodes find what the Rust node has registered as they find each other's, and lose it with the node.
    EventCapture.stop_rust(rust)

    eventually(fn ->
      TestCluster.call(cluster, a, Foundation.ProcessRegistry, :lookup, [
        :production,
        :event_collector
      ]) == :error
    end)
  end

  test "10,000 examples are evaluated by all nodes, the failures counted" do
    cluster = TestCluster.start(3)
    on_exit(fn -> TestCluster.stop(cluster) end)
    [here, other | _] = nodes = TestCluster.nodes(cluster)
    for node <- nodes, do: assert(TestCluster.call(cluster, here, Node, :connect, [node]))
    examples = Evaluation.examples(10_000)

    report =
      TestCluster.call(cluster, here, Evaluation, :evaluate, [
        examples,
        {Evaluation, :exact},
        nodes
      ])

    # By the fake model's rules: 100 refused, 200 wrong.
    assert report.failed == 100
    assert report.evaluated == 9900
    assert_in_delta report.score, 9700 / 9900, 1.0e-12
    assert report.nodes |> Map.keys() |> Enum.sort() == Enum.sort(nodes)
    assert report.nodes |> Map.values() |> Enum.sum() == 100

    # The real application's call, to a node that does not serve it.
    call = [
      other,
      DSPEx.Evaluate,
      :evaluate_chunk_on_node,
      [:program, [], &Evaluation.exact/2, 1]
    ]

    assert {:badrpc, {:EXIT, {:undef, _stack}}} =
             TestCluster.call(cluster, here, :rpc, :call, call)

    # Without any node there is nothing but failures.
    assert %{evaluated: 0, failed: 10_000, score: score} =
             TestCluster.call(cluster, here, Evaluation, :evaluate, [
               examples,
               {Evaluation, :exact},
               []
             ])

    assert score == 0.0
  end
end

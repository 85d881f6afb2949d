defmodule Foundation.ExamplesTest do
  use ExUnit.Case
  @moduletag :integration
  @moduletag :cluster
  @moduletag timeout: 120_000

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

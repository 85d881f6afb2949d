defmodule Foundation.Examples.Evaluation do
  @moduledoc """
  Evaluating a program on many examples over all nodes, as DSPEx does, with workers that fail.

  The language model is none: `FakeLM` adds two numbers, and says so. One question in fifty is answered wrong and one in a hundred fails, by the
  numbers in it and not by chance, so the result is known beforehand.

      Foundation.Examples.Evaluation.main()

  runs it on three nodes of its own. The test of this example runs the same.
  """

  alias Foundation.{Distributed, TestCluster}

  @chunk 100

  defmodule FakeLM do
    @moduledoc "No language model: it adds."

    def name, do: "fake: adds two numbers, no language model"

    def ask(%{a: a, b: b}) do
      cond do
        rem(a, 100) == 7 -> raise "the fake model refuses #{a}"
        rem(a, 50) == 3 -> a + b + 1
        true -> a + b
      end
    end
  end

  @type report :: %{
          score: float(),
          evaluated: non_neg_integer(),
          failed: non_neg_integer(),
          nodes: %{node() => pos_integer()}
        }

  @doc "Examples whose right answers are known."
  def examples(count), do: for(a <- 1..count, do: %{a: a, b: 2 * a, answer: 3 * a})

  @doc "The mean of a metric over the examples that could be evaluated, and how many could not."
  @spec evaluate([map()], {module(), atom()}, [node()]) :: report()
  def evaluate(examples, metric, nodes) do
    chunks = examples |> Enum.chunk_every(@chunk) |> Enum.map(&{&1, metric})

    results =
      Distributed.coordinate_work(:evaluate, chunks,
        nodes: nodes,
        job: {__MODULE__, :evaluate_chunk}
      )

    # A chunk that no node could do is so many failures, and not a lost evaluation.
    parts =
      for {result, {examples, _metric}} <- Enum.zip(results, chunks) do
        case result do
          {:ok, part} -> part
          {:error, _reason} -> %{scores: [], failed: length(examples), node: nil}
        end
      end

    scores = Enum.flat_map(parts, & &1.scores)

    %{
      score: if(scores == [], do: 0.0, else: Enum.sum(scores) / length(scores)),
      evaluated: length(scores),
      failed: parts |> Enum.map(& &1.failed) |> Enum.sum(),
      nodes: for(%{node: node} when node != nil <- parts, do: node) |> Enum.frequencies()
    }
  end

  @doc false
  # On a worker's node.
  def evaluate_chunk({examples, {module, function}}) do
    results =
      for example <- examples do
        try do
          {:ok, apply(module, function, [example, FakeLM.ask(example)])}
        rescue
          exception -> {:error, exception}
        end
      end

    scores = for {:ok, score} <- results, do: score
    %{scores: scores, failed: length(examples) - length(scores), node: node()}
  end

  @doc "1.0 for the right answer."
  def exact(%{answer: answer}, given), do: if(answer == given, do: 1.0, else: 0.0)

  @doc "On nodes of its own."
  def main do
    cluster = TestCluster.start(3)

    try do
      [here | _] = nodes = TestCluster.nodes(cluster)
      for node <- nodes, do: true = TestCluster.call(cluster, here, Node, :connect, [node])
      IO.puts("model: #{FakeLM.name()}")

      report =
        TestCluster.call(cluster, here, __MODULE__, :evaluate, [
          examples(10_000),
          {__MODULE__, :exact},
          nodes
        ])

      IO.inspect(report, label: "report")
    after
      TestCluster.stop(cluster)
    end
  end
end

defmodule Foundation.DistributedTest do
  use ExUnit.Case
  @moduletag :integration

  import Foundation.Eventually
  alias Foundation.{Distributed, Jobs, TestCluster}
  alias Foundation.Distributed.{Context, Coordination, Work}
  require Context

  import Foundation.Jobs, only: [double: 1, who: 1, odd_fails: 1]

  describe "here" do
    test "map_reduce keeps the order of the chunks" do
      assert Distributed.map_reduce(1..10, &Enum.sum/1, &Function.identity/1, chunk_size: 4) == [
               10,
               26,
               19
             ]

      assert Distributed.map_reduce([], &Enum.sum/1, &Enum.sum/1) == 0
      factor = 3

      assert Distributed.map_reduce(1..100, fn chunk -> Enum.sum(chunk) * factor end, &Enum.sum/1) ==
               15_150

      assert_raise ErlangError, ~r/map_failed/, fn ->
        Distributed.map_reduce([1], fn _ -> raise "no" end, &Enum.sum/1)
      end
    end

    test "coordinate_work says of each item how it went" do
      assert Coordination.coordinate_work(:x, 1..1000, %{job: {Jobs, :double}}) ==
               for(n <- 1..1000, do: {:ok, n * 2})

      assert [{:error, %RuntimeError{message: "odd 1"}}, {:ok, 2}] =
               Distributed.coordinate_work(:x, [1, 2], job: &odd_fails/1)

      assert Distributed.coordinate_work(:x, [1], job: fn _ -> exit(:gone) end) == [
               {:error, {:exit, :gone}}
             ]

      assert Distributed.coordinate_work(:x, [1], job: fn _ -> throw(:it) end) == [
               {:error, {:throw, :it}}
             ]

      assert Distributed.coordinate_work(:x, [1],
               job: fn _ -> Process.sleep(:infinity) end,
               timeout: 20
             ) == [{:error, :timeout}]

      # The only node does not have it.
      for {:error, reason} <- Distributed.coordinate_work(:no_such_job, [1, 2, 3]),
          do: assert(reason in [{:no_job, :no_such_job}, :no_nodes])

      assert Distributed.coordinate_work(:x, [1], job: {No.Such, :job}) == [{:error, :undef}]

      assert Distributed.coordinate_work(:x, [1, 2], nodes: [], job: &double/1) == [
               error: :no_nodes,
               error: :no_nodes
             ]

      assert Distributed.coordinate_work(:x, [], job: &double/1) == []

      assert_raise ArgumentError, ~r/work_stealing/, fn ->
        Distributed.coordinate_work(:x, [1], strategy: :round_robin)
      end

      refute_received {:DOWN, _, _, _, _}
    end

    test "jobs have names" do
      :ok = Distributed.register_job(:doubling, &double/1)
      assert Distributed.coordinate_work(:doubling, [1, 2]) == [ok: 2, ok: 4]
    end

    @tag :property
    test "taking by stealing gives every item once" do
      for seed <- 1..500 do
        :rand.seed(:exsss, {5, 5, seed})
        nodes = Enum.take([:a, :b, :c, :d], :rand.uniform(4))
        items = Enum.to_list(1..:rand.uniform(60))

        queues =
          Enum.reduce(items, Map.new(nodes, &{&1, []}), fn item, queues ->
            Map.update!(queues, Enum.random(nodes), &[item | &1])
          end)

        taken =
          Stream.unfold(queues, fn queues ->
            with {:ok, item, queues} <- Work.take(queues, Enum.random(nodes)),
                 do: {item, queues},
                 else: (:none -> nil)
          end)

        assert Enum.sort(Enum.to_list(taken)) == items, "seed #{seed}"
      end
    end

    test "context goes with the work and ends with the block" do
      result =
        Context.with_global_context %{request_id: 7, user: :u} do
          Context.with_global_context %{user: :v} do
            assert Context.get() == %{request_id: 7, user: :v}
          end

          assert Context.get() == %{request_id: 7, user: :u}
          assert Task.await(Task.async(Context.carry(fn -> Context.get()[:user] end))) == :u
          Distributed.coordinate_work(:x, [1], job: &who/1)
        end

      assert result == [ok: 7]
      assert Context.get() == %{}
    end
  end

  describe "on several nodes" do
    @describetag :cluster
    @describetag timeout: 120_000

    setup do
      cluster = TestCluster.start(3, foundation: [cluster: :local_epmd])
      on_exit(fn -> TestCluster.stop(cluster) end)
      nodes = TestCluster.nodes(cluster)

      eventually(fn ->
        Enum.all?(
          nodes,
          &(length(TestCluster.call(cluster, &1, Foundation.ProcessManager, :nodes, [])) == 3)
        )
      end)

      %{cluster: cluster, nodes: nodes}
    end

    test "all nodes work, with the context, and one that goes away loses nothing", %{
      cluster: cluster,
      nodes: [a, b, c] = nodes
    } do
      results =
        TestCluster.call(cluster, a, Distributed, :coordinate_work, [
          :x,
          1..300,
          %{job: {Jobs, :where}}
        ])

      assert for({:ok, {item, _node}} <- results, do: item) == Enum.to_list(1..300)

      assert results
             |> Enum.map(fn {:ok, {_item, node}} -> node end)
             |> Enum.uniq()
             |> Enum.sort() == Enum.sort(nodes)

      sum =
        TestCluster.call(cluster, a, Distributed, :map_reduce, [
          1..1000,
          &Enum.sum/1,
          &Enum.sum/1,
          [nodes: [b, c]]
        ])

      assert sum == 500_500

      context = [
        %{request_id: 9},
        Distributed,
        :coordinate_work,
        [:x, [1, 2, 3], [job: {Jobs, :who}, nodes: [b]]]
      ]

      assert TestCluster.call(cluster, a, Context, :run, context) == [ok: 9, ok: 9, ok: 9]

      results =
        TestCluster.call(cluster, a, Jobs, :run_fatal, [nodes, hd(Enum.sort(nodes) -- [a])])

      # The item that kills its node is done by another.
      assert results == for(n <- 1..200, do: {:ok, n})
    end
  end
end

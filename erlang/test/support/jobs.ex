defmodule Foundation.Jobs do
  @moduledoc false
  # Work for tests on several nodes.

  alias Foundation.Distributed
  alias Foundation.Distributed.Context

  def double(item), do: item * 2
  def where(item), do: {item, node()}
  def who(_item), do: Context.get()[:request_id]
  def odd_fails(item), do: if(rem(item, 2) == 1, do: raise("odd #{item}"), else: item)

  # The first node to do item 1 goes away while it does it.
  def fatal(1, node) when node == node(), do: :erlang.halt(1)
  def fatal(item, _node), do: item

  def run_fatal(nodes, victim) do
    :ok = Distributed.register_job(:fatal, & &1)

    for node <- nodes, node != node() do
      :ok = :erpc.call(node, Distributed, :register_job, [:fatal, {__MODULE__, :fatal_here}])
      :erpc.call(node, :persistent_term, :put, [:victim, victim])
    end

    :persistent_term.put(:victim, victim)
    Distributed.register_job(:fatal, {__MODULE__, :fatal_here})
    Distributed.coordinate_work(:fatal, 1..200, %{strategy: :work_stealing, nodes: nodes})
  end

  def fatal_here(item), do: fatal(item, :persistent_term.get(:victim))
end

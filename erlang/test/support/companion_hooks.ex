defmodule Foundation.CompanionHooks do
  @moduledoc false
  # A topology's own connect, disconnect and list_nodes: what is asked of them goes to an agent, and then to the kernel.

  # Where `cargo test` puts the program, or what FOUNDATION_BIN names.
  def program do
    built = Path.expand("../../../target/debug/foundation", __DIR__)
    named = System.get_env("FOUNDATION_BIN")
    Enum.find([named, built], &(&1 != nil and File.regular?(&1)))
  end

  def connect(agent, node) do
    note(agent, {:connect, node})
    :net_kernel.connect_node(node)
  end

  def disconnect(agent, node) do
    note(agent, {:disconnect, node})
    :erlang.disconnect_node(node)
  end

  def list_nodes(agent) do
    note(agent, :list_nodes)
    :erlang.nodes(:connected)
  end

  defp note(agent, what), do: Agent.update(agent, &[what | &1])

  # The operating system's process ids of this node's companions.
  def pids do
    for supervisor <- [Foundation.ClusterSupervisor, Foundation.Cluster.Companion],
        Process.whereis(supervisor) != nil,
        {{Foundation.Cluster.Companion, _n}, pid, _type, _modules} <-
          Supervisor.which_children(supervisor),
        %{port: port} when port != nil <- [:sys.get_state(pid)],
        {:os_pid, os_pid} <- [Port.info(port, :os_pid)],
        do: os_pid
  end
end

defmodule Foundation.Cluster.Epmd do
  @moduledoc """
  Discovery without libcluster: the nodes of a list, or all that are registered with the epmd of this host.

  Every second it connects to those that are not connected. It never disconnects any.
  """

  use GenServer

  @interval_ms 1000

  @doc """
  `hosts:` is a list of node names, `:local`, or `{:local, list}` for both.
  """
  @spec start_link(hosts: [node()] | :local | {:local, [node()]}) :: GenServer.on_start()
  def start_link(opts), do: GenServer.start_link(__MODULE__, opts[:hosts])

  @doc """
  Under a supervisor with the name that libcluster's would have, so that who asks it for its children gets an answer.
  """
  @spec child_spec(hosts: [node()] | :local | {:local, [node()]}) :: Supervisor.child_spec()
  def child_spec(opts) do
    children = [%{id: __MODULE__, start: {__MODULE__, :start_link, [opts]}}]
    options = [strategy: :one_for_one, name: Foundation.ClusterSupervisor]

    %{
      id: Foundation.ClusterSupervisor,
      start: {Supervisor, :start_link, [children, options]},
      type: :supervisor
    }
  end

  @doc """
  The nodes that are registered with the epmd of this host, this one among them.
  """
  @spec registered() :: [node()]
  def registered do
    [_name, host] = node() |> Atom.to_string() |> String.split("@")

    case :erl_epmd.names() do
      {:ok, names} -> for {name, _port} <- names, do: String.to_atom("#{name}@#{host}")
      {:error, _no_epmd} -> []
    end
  end

  @impl true
  def init(hosts), do: {:ok, hosts, {:continue, :connect}}

  @impl true
  def handle_continue(:connect, hosts) do
    connect(hosts)
    {:noreply, hosts}
  end

  @impl true
  def handle_info(:connect, hosts) do
    connect(hosts)
    {:noreply, hosts}
  end

  def handle_info(_message, hosts), do: {:noreply, hosts}

  defp connect(hosts) do
    if Node.alive?() do
      for name <- candidates(hosts) -- [node() | Node.list(:connected)], do: Node.connect(name)
    end

    Process.send_after(self(), :connect, @interval_ms)
  end

  defp candidates(:local), do: registered()
  defp candidates({:local, hosts}), do: Enum.uniq(registered() ++ hosts)
  defp candidates(hosts), do: hosts
end

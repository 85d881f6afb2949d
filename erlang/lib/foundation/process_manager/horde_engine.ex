defmodule Foundation.ProcessManager.HordeEngine do
  @moduledoc false
  # Singletons by the host application's Horde. A child is started through start_named/2, because Horde's registry must learn of the
  # process on whichever node it starts, and a module's start_link takes no name.

  @compile {:no_warn_undefined, [Horde.Cluster, Horde.DynamicSupervisor, Horde.Registry]}

  alias Foundation.ProcessManager.HordeWatch

  @registry Foundation.ProcessRegistry
  @supervisor Foundation.DistributedSupervisor
  # Another node's registration comes with Horde's next synchronisation, every 300 ms by default.
  @poll_ms 10

  @doc false
  @spec children() :: [Supervisor.child_spec() | {module(), keyword()}]
  def children do
    common = [
      members: :auto,
      delta_crdt_options: [sync_interval: Foundation.Optimizer.sync_interval()]
    ]

    [
      {Horde.Registry, [name: @registry, keys: :unique] ++ common},
      {Horde.DynamicSupervisor, [name: @supervisor, strategy: :one_for_one] ++ common},
      HordeWatch
    ]
  end

  @doc false
  def start(name, child, timeout) do
    with :not_found <- lookup(name),
         {:ok, pid} <- start_child(name, child, deadline(timeout)) do
      HordeWatch.note(name, child)
      {:ok, pid}
    end
  end

  defp start_child(name, child, deadline) do
    spec = %{
      id: name,
      start: {__MODULE__, :start_named, [name, child.start]},
      restart: child.restart,
      shutdown: child.shutdown,
      type: child.type
    }

    case GenServer.call(@supervisor, {:start_child, spec}, left(deadline)) do
      {:ok, pid} -> await(name, pid, deadline)
      {:ok, pid, _info} -> await(name, pid, deadline)
      {:error, {:already_started, pid}} -> await(name, pid, deadline)
      :ignore -> {:error, :ignore}
      {:error, reason} -> {:error, reason}
    end
  end

  # Until this node's registry has it, so that a lookup after the start finds it.
  defp await(name, pid, deadline) do
    cond do
      lookup(name) != :not_found ->
        {:ok, pid}

      left(deadline) == 0 ->
        {:ok, pid}

      true ->
        Process.sleep(@poll_ms)
        await(name, pid, deadline)
    end
  end

  @doc false
  # Called by Horde on the node that it chose, and again when the process crashed.
  def start_named(name, {module, function, args}) do
    case lookup(name) do
      {:ok, pid} ->
        {:error, {:already_started, pid}}

      :not_found ->
        with {:ok, pid} = started <- apply(module, function, args) do
          :yes = Horde.Registry.register_name({@registry, name}, pid)
          started
        end
    end
  end

  @doc false
  def lookup(name) do
    case Horde.Registry.lookup(@registry, name) do
      [{pid, _value}] -> {:ok, pid}
      [] -> :not_found
    end
  end

  @doc false
  def stop(name) do
    HordeWatch.forget(name)

    with {:ok, pid} <- lookup(name),
         :ok <- Horde.DynamicSupervisor.terminate_child(@supervisor, pid) do
      :ok
    else
      :not_found -> {:error, :not_found}
      {:error, reason} -> {:error, reason}
    end
  end

  @doc false
  def list do
    for {name, pid} <-
          Horde.Registry.select(@registry, [{{:"$1", :"$2", :_}, [], [{{:"$1", :"$2"}}]}]),
        into: %{},
        do: {name, pid}
  end

  @doc false
  def members do
    @supervisor |> Horde.Cluster.members() |> Enum.map(&elem(&1, 1)) |> Enum.sort()
  end

  defp deadline(:infinity), do: :infinity
  defp deadline(timeout), do: System.monotonic_time(:millisecond) + timeout

  defp left(:infinity), do: :infinity
  defp left(deadline), do: max(deadline - System.monotonic_time(:millisecond), 0)
end

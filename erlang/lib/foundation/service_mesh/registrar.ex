defmodule Foundation.ServiceMesh.Registrar do
  @moduledoc false
  # This node's services. What is known of one is the name of its :pg group, {:service, name, capabilities, metadata, registered_at}:
  # the scope spreads it and drops it with the process or the node.

  use GenServer

  alias Foundation.{Channels, Host}

  @scope Foundation.ServiceMesh

  def start_link(_opts), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  @doc false
  # The services of this node.
  @spec local() :: [Foundation.ServiceMesh.service_info()]
  def local, do: GenServer.call(__MODULE__, :local)

  @doc false
  # Registrations and their ends within the last minute on this node.
  @spec changes() :: non_neg_integer()
  def changes, do: GenServer.call(__MODULE__, :changes)

  @doc false
  # Puts `health: :unhealthy` into the metadata, or takes it out.
  @spec mark(term(), pid(), :healthy | :unhealthy) :: :ok
  def mark(name, pid, health), do: GenServer.call(__MODULE__, {:mark, name, pid, health})

  # services: {name, pid} => {group, monitor}. changes: second => how many, of the last minute.
  @impl true
  def init(_opts) do
    with {:ok, _scope} <- :pg.start_link(@scope), do: {:ok, %{services: %{}, changes: %{}}}
  end

  @impl true
  def handle_call({:register, name, pid, capabilities, metadata}, _from, state) do
    group = {:service, name, capabilities, metadata, System.system_time(:millisecond)}
    state = state |> remove({name, pid}) |> put({name, pid}, group) |> changed()
    emit(:registered, name)
    Channels.broadcast(:events, {:service_registered, name, info(group, pid)})
    {:reply, :ok, state}
  end

  def handle_call({:deregister, name, pid}, _from, state)
      when is_map_key(state.services, {name, pid}) do
    emit(:deregistered, name)
    {:reply, :ok, state |> remove({name, pid}) |> changed()}
  end

  def handle_call({:deregister, _name, _pid}, _from, state), do: {:reply, :ok, state}

  def handle_call({:mark, name, pid, health}, _from, state) do
    case state.services do
      %{{^name, ^pid} => {{:service, _name, capabilities, metadata, registered_at}, _monitor}} ->
        metadata =
          if health == :unhealthy,
            do: Map.put(metadata, :health, :unhealthy),
            else: Map.delete(metadata, :health)

        group = {:service, name, capabilities, metadata, registered_at}
        {:reply, :ok, state |> remove({name, pid}) |> put({name, pid}, group)}

      _gone_meanwhile ->
        {:reply, :ok, state}
    end
  end

  def handle_call(:local, _from, state) do
    {:reply, for({{_name, pid}, {group, _monitor}} <- state.services, do: info(group, pid)),
     state}
  end

  def handle_call(:changes, _from, state) do
    state = forget(state)
    {:reply, state.changes |> Map.values() |> Enum.sum(), state}
  end

  @impl true
  def handle_info({:DOWN, _monitor, :process, pid, _reason}, state) do
    {gone, kept} =
      Enum.split_with(state.services, fn {{_name, service}, _entry} -> service == pid end)

    for {{name, _pid}, _entry} <- gone, do: emit(:deregistered, name)
    {:noreply, changed(%{state | services: Map.new(kept)}, length(gone))}
  end

  def handle_info(_message, state), do: {:noreply, state}

  defp put(state, {_name, pid} = key, group) do
    :ok = :pg.join(@scope, group, pid)
    put_in(state.services[key], {group, Process.monitor(pid)})
  end

  defp remove(state, {_name, pid} = key) do
    case Map.pop(state.services, key) do
      {nil, _services} ->
        state

      {{group, monitor}, services} ->
        Process.demonitor(monitor, [:flush])
        _ = :pg.leave(@scope, group, pid)
        %{state | services: services}
    end
  end

  defp changed(state, count \\ 1) do
    state = forget(state)
    update_in(state.changes[System.monotonic_time(:second)], &((&1 || 0) + count))
  end

  defp forget(state) do
    oldest = System.monotonic_time(:second) - 60
    %{state | changes: Map.filter(state.changes, fn {second, _count} -> second > oldest end)}
  end

  defp info({:service, name, capabilities, metadata, registered_at}, pid) do
    %{
      name: name,
      pid: pid,
      node: node(pid),
      capabilities: capabilities,
      metadata: metadata,
      registered_at: registered_at
    }
  end

  defp emit(event, name) do
    Host.Telemetry.execute([:foundation, :service, event], %{count: 1}, %{
      name: name,
      node: node()
    })
  end
end

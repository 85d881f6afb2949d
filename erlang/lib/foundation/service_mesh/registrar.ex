defmodule Foundation.ServiceMesh.Registrar do
  @moduledoc false
  # This node's services. What is known of one is the name of its :pg group, {:service, name, capabilities, metadata, registered_at}:
  # the scope spreads it and drops it with the process or the node.

  use GenServer

  alias Foundation.{Channels, Host}

  @scope Foundation.ServiceMesh

  def start_link(_opts), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  # State: {name, pid} => {group, monitor}
  @impl true
  def init(_opts) do
    case :pg.start_link(@scope) do
      {:ok, _scope} -> {:ok, %{}}
      {:error, reason} -> {:stop, reason}
    end
  end

  @impl true
  def handle_call({:register, name, pid, capabilities, metadata}, _from, services) do
    services = remove(services, {name, pid})
    group = {:service, name, capabilities, metadata, System.system_time(:millisecond)}
    monitor = Process.monitor(pid)
    :ok = :pg.join(@scope, group, pid)
    emit(:registered, name)
    Channels.broadcast(:events, {:service_registered, name, info(group, pid)})
    {:reply, :ok, Map.put(services, {name, pid}, {group, monitor})}
  end

  def handle_call({:deregister, name, pid}, _from, services) do
    if is_map_key(services, {name, pid}), do: emit(:deregistered, name)
    {:reply, :ok, remove(services, {name, pid})}
  end

  @impl true
  def handle_info({:DOWN, _monitor, :process, pid, _reason}, services) do
    {gone, kept} = Enum.split_with(services, fn {{_name, service}, _entry} -> service == pid end)
    for {{name, _pid}, _entry} <- gone, do: emit(:deregistered, name)
    {:noreply, Map.new(kept)}
  end

  def handle_info(_message, services), do: {:noreply, services}

  defp remove(services, key) do
    case Map.pop(services, key) do
      {nil, services} ->
        services

      {{group, monitor}, services} ->
        Process.demonitor(monitor, [:flush])
        _ = :pg.leave(@scope, group, elem(key, 1))
        services
    end
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

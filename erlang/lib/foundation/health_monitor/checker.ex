defmodule Foundation.HealthMonitor.Checker do
  @moduledoc false
  # Runs the health checks of this node's services, each in a process of its own, and marks those that fail.

  use GenServer

  alias Foundation.ServiceMesh.Registrar
  require Logger

  @failures 3

  def start_link(opts), do: GenServer.start_link(__MODULE__, opts, name: __MODULE__)

  # running: reference => {service, process, timer}. failures: {name, pid} => count.
  @impl true
  def init(_opts) do
    state = %{
      interval: Foundation.Settings.get(:health_check_interval),
      timeout: Foundation.Settings.get(:health_check_timeout),
      running: %{},
      failures: %{}
    }

    Process.send_after(self(), :check, state.interval)
    {:ok, state}
  end

  @impl true
  def handle_info(:check, state) do
    Process.send_after(self(), :check, state.interval)

    checked =
      for service <- Registrar.local(), service.metadata[:health_check] != nil, do: service

    busy = for {_ref, {service, _pid, _timer}} <- state.running, do: key(service)
    # Services that have gone, or are no longer checked.
    state = %{state | failures: Map.take(state.failures, Enum.map(checked, &key/1))}
    {:noreply, checked |> Enum.reject(&(key(&1) in busy)) |> Enum.reduce(state, &start/2)}
  end

  def handle_info({:DOWN, ref, :process, _pid, reason}, state)
      when is_map_key(state.running, ref) do
    {{service, _pid, timer}, running} = Map.pop(state.running, ref)
    Process.cancel_timer(timer)
    {:noreply, judge(%{state | running: running}, service, healthy?(reason))}
  end

  def handle_info({:late, ref}, state) do
    with %{^ref => {_service, pid, _timer}} <- state.running, do: Process.exit(pid, :kill)
    {:noreply, state}
  end

  def handle_info(_message, state), do: {:noreply, state}

  defp key(service), do: {service.name, service.pid}

  defp start(service, state) do
    {pid, ref} = spawn_monitor(fn -> exit({:checked, check(service)}) end)
    timer = Process.send_after(self(), {:late, ref}, state.timeout)
    put_in(state.running[ref], {service, pid, timer})
  end

  defp check(%{metadata: %{health_check: check}} = service) when is_function(check, 1),
    do: check.(service)

  defp check(%{metadata: %{health_check: {module, function, args}}} = service),
    do: apply(module, function, [service | args])

  defp check(_service), do: :no_function

  defp healthy?({:checked, result}), do: result in [:ok, true] or match?({:ok, _value}, result)
  defp healthy?(_crash), do: false

  defp judge(state, service, true) do
    case Map.pop(state.failures, key(service), 0) do
      {failures, rest} when failures >= @failures ->
        Logger.info("Service health check succeeded again", service: service.name, node: node())
        Registrar.mark(service.name, service.pid, :healthy)
        %{state | failures: rest}

      {_few, rest} ->
        %{state | failures: rest}
    end
  end

  defp judge(state, service, false) do
    failures = Map.get(state.failures, key(service), 0) + 1

    # It is said three times and then only when it is over.
    if failures <= @failures do
      Logger.warning("Service health check failed",
        service: service.name,
        node: node(),
        consecutive_failures: failures,
        action: if(failures == @failures, do: :marking_unhealthy, else: :retrying)
      )
    end

    if failures == @failures, do: Registrar.mark(service.name, service.pid, :unhealthy)
    put_in(state.failures[key(service)], failures)
  end
end

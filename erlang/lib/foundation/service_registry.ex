defmodule Foundation.ServiceRegistry do
  @moduledoc """
  `Foundation.ProcessRegistry` for services: typed errors, telemetry, health checks, waiting.

  Emits `[:foundation, :foundation, :registry, :lookup]` with `%{duration: native}` and
  `[:foundation, :foundation, :registry, :register]` with `%{count: 1}`, both with metadata
  `%{namespace: _, service: _, result: :ok | :error}`, from the calling process.
  """

  alias Foundation.Host
  alias Foundation.Distributed.Discovery
  alias Foundation.LoadBalancer
  alias Foundation.ProcessRegistry
  alias Foundation.ServiceMesh
  alias Foundation.Types.Error
  require Logger

  @type namespace :: ProcessRegistry.namespace()
  @type service_name :: ProcessRegistry.service_name()
  @type registration_result :: :ok | {:error, {:already_registered, pid()}}
  @type lookup_result :: {:ok, pid()} | {:error, Error.t()}
  @type health_error ::
          :process_dead
          | :health_check_timeout
          | {:health_check_failed, term()}
          | {:health_check_error, term()}
          | {:health_check_crashed, term()}

  @poll_ms 10
  @lookup [:foundation, :foundation, :registry, :lookup]

  @doc """
  Registers a process; see `Foundation.ProcessRegistry.register/3` for names that services hold.
  """
  @spec register(namespace(), service_name(), pid()) :: registration_result()
  def register(namespace, service, pid) when is_pid(pid) do
    Logger.debug(fn -> "Registering service #{describe(namespace, service)}" end)
    result = ProcessRegistry.register(namespace, service, pid)

    case result do
      :ok ->
        Logger.info(fn -> "Successfully registered service #{describe(namespace, service)}" end)

      {:error, {:already_registered, holder}} ->
        Logger.warning(
          "Failed to register service #{describe(namespace, service)}: " <>
            "already registered to PID #{inspect(holder)}"
        )
    end

    emit(:register, %{count: 1}, namespace, service, result)
    result
  end

  @doc """
  The process of a name, or an error `:service_not_found`, code 5001.
  """
  @spec lookup(namespace(), service_name()) :: lookup_result()
  def lookup(namespace, service) do
    # To read the clock twice takes a quarter of the time of a lookup.
    if Host.Telemetry.heard?(@lookup) do
      start = System.monotonic_time()
      result = find(namespace, service)
      emit(:lookup, %{duration: System.monotonic_time() - start}, namespace, service, result)
      result
    else
      find(namespace, service)
    end
  end

  defp find(namespace, service) do
    with :error <- ProcessRegistry.lookup(namespace, service) do
      {:error, not_found(namespace, service)}
    end
  end

  @doc """
  Removes a name.
  """
  @spec unregister(namespace(), service_name()) :: :ok
  def unregister(namespace, service) do
    Logger.debug(fn -> "Unregistering service #{describe(namespace, service, "from")}" end)
    :ok = ProcessRegistry.unregister(namespace, service)
    Logger.info(fn -> "Unregistered service #{describe(namespace, service, "from")}" end)
    :ok
  end

  @doc """
  The names of a namespace.
  """
  @spec list_services(namespace()) :: [service_name()]
  def list_services(namespace) do
    Logger.debug(fn -> "Listing services in namespace #{inspect(namespace)}" end)
    services = ProcessRegistry.list_services(namespace)

    Logger.debug(fn ->
      "Found #{length(services)} services in namespace #{inspect(namespace)}"
    end)

    services
  end

  @doc """
  Whether a service is there and well.

  Options: `health_check`, a function of the pid that returns `:ok`, `{:ok, _}` or `true` for good health and runs in a
  process of its own; `timeout` for it, 5000 ms by default. Without the function a live process is healthy.

  | error | when |
  |---|---|
  | `%Foundation.Types.Error{error_type: :service_not_found}` | no such name |
  | `:process_dead` | it died since |
  | `{:health_check_failed, value}` | the function returned something else |
  | `{:health_check_error, exception}` | it raised a `RuntimeError` |
  | `{:health_check_crashed, reason}` | it raised another exception or exited |
  | `:health_check_timeout` | it took too long |
  """
  @spec health_check(namespace(), service_name(), keyword()) ::
          {:ok, pid()} | {:error, health_error() | Error.t()}
  def health_check(namespace, service, opts \\ []) do
    # Options that are none raise whether the service is there or not.
    check = Keyword.get(opts, :health_check)
    timeout = Keyword.get(opts, :timeout, 5000)

    if Keyword.get(opts, :debug_health_check, false),
      do: Logger.debug("Health checking service #{describe(namespace, service)}")

    with {:ok, pid} <- lookup(namespace, service) do
      if node(pid) != node() or Process.alive?(pid) do
        case check do
          nil -> {:ok, pid}
          check when is_function(check, 1) -> run_check(check, pid, service, timeout)
        end
      else
        Logger.warning("Service #{inspect(service)} found but process is dead")
        {:error, :process_dead}
      end
    end
  end

  defp run_check(check, pid, service, timeout) do
    callers = [self() | Process.get(:"$callers", [])]

    # Not linked: the check's crash is an answer, and must not reach the caller. Of the caller's, as a task would be, for what looks that up.
    {worker, ref} =
      spawn_monitor(fn ->
        Process.put(:"$callers", callers)
        exit({:checked, :timer.tc(fn -> check.(pid) end)})
      end)

    receive do
      {:DOWN, ^ref, :process, ^worker, {:checked, {time, value}}} ->
        checked(value, time, pid, service)

      {:DOWN, ^ref, :process, ^worker, reason} ->
        {:error, crashed(reason, service)}
    after
      timeout ->
        Process.demonitor(ref, [:flush])
        Process.exit(worker, :kill)
        Logger.warning("Health check timed out for #{inspect(service)} after #{timeout}ms")
        {:error, :health_check_timeout}
    end
  end

  defp checked(value, time, pid, service) do
    if value in [:ok, true] or match?({:ok, _value}, value) do
      Logger.debug("Health check passed for #{inspect(service)} in #{time}μs")
      {:ok, pid}
    else
      said = if value == false, do: "returned false", else: inspect(value)
      Logger.warning("Health check failed for #{inspect(service)}: #{said}")
      {:error, {:health_check_failed, value}}
    end
  end

  # Of a pair the first element is the reason: an exception has its stack trace beside it, an exit from a call the call.
  defp crashed({%RuntimeError{} = exception, _stacktrace}, service) do
    Logger.warning("Health check errored for #{inspect(service)}: #{inspect(exception)}")
    {:health_check_error, exception}
  end

  defp crashed(reason, service) do
    reason = if match?({_reason, _where}, reason), do: elem(reason, 0), else: reason
    Logger.warning("Health check crashed for #{inspect(service)}: #{inspect(reason)}")
    {:health_check_crashed, reason}
  end

  @doc """
  Waits until a name is there, at most `timeout` ms (5000 by default).
  """
  @spec wait_for_service(namespace(), service_name(), non_neg_integer()) ::
          {:ok, pid()} | {:error, :timeout}
  def wait_for_service(namespace, service, timeout \\ 5000) do
    Logger.debug(fn ->
      "Waiting for service #{describe(namespace, service)} (timeout: #{timeout}ms)"
    end)

    wait(namespace, service, timeout, System.monotonic_time(:millisecond))
  end

  defp wait(namespace, service, timeout, start) do
    found = lookup(namespace, service)
    elapsed = System.monotonic_time(:millisecond) - start

    case found do
      {:ok, pid} ->
        Logger.debug("Service #{inspect(service)} became available after #{elapsed}ms")
        {:ok, pid}

      {:error, _not_found} when elapsed >= timeout ->
        Logger.warning("Timeout waiting for service #{inspect(service)} after #{elapsed}ms")
        {:error, :timeout}

      {:error, _not_found} ->
        Process.sleep(@poll_ms)
        wait(namespace, service, timeout, start)
    end
  end

  @doc """
  The services of a namespace, each `%{pid: _, alive: _, uptime_ms: _}`, with their number and the number of live ones.

  `uptime_ms` is the VM's monotonic clock for a live process and 0 for a dead one, as in 1.x.
  """
  @spec get_service_info(namespace()) :: %{
          namespace: namespace(),
          services: %{service_name() => map()},
          total_services: non_neg_integer(),
          healthy_services: non_neg_integer()
        }
  def get_service_info(namespace) do
    if Foundation.Settings.get(:debug_registry),
      do: Logger.debug("Getting service info for namespace #{inspect(namespace)}")

    services =
      Map.new(ProcessRegistry.get_all_services(namespace), fn {service, pid} ->
        alive = node(pid) != node() or Process.alive?(pid)
        uptime = if alive, do: System.monotonic_time(:millisecond), else: 0
        {service, %{pid: pid, alive: alive, uptime_ms: uptime}}
      end)

    %{
      namespace: namespace,
      services: services,
      total_services: map_size(services),
      healthy_services: Enum.count(services, fn {_name, info} -> info.alive end)
    }
  end

  @doc """
  See `Foundation.ProcessRegistry.cleanup_test_namespace/1`.
  """
  @spec cleanup_test_namespace(reference()) :: :ok
  def cleanup_test_namespace(test_ref) do
    namespace = {:test, test_ref}
    log = if Foundation.Settings.get(:test_mode), do: fn _line -> :ok end, else: &Logger.info/1
    log.("Starting cleanup of test namespace #{inspect(namespace)}")
    %{total_services: count} = get_service_info(namespace)

    if count > 0 do
      Logger.info("Cleaning up #{count} services in test namespace")
      ProcessRegistry.cleanup_test_namespace(test_ref)
      log.("Cleanup completed for test namespace #{inspect(namespace)}")
    end

    :ok
  end

  @doc """
  See `Foundation.ProcessRegistry.via_tuple/2`.
  """
  @spec via_tuple(namespace(), service_name()) ::
          {:via, module(), {module(), {namespace(), service_name()}}}
  def via_tuple(namespace, service), do: ProcessRegistry.via_tuple(namespace, service)

  ## The mesh

  @doc """
  `Foundation.ServiceMesh.register_service/4` with a list of capabilities or `capabilities: list`.
  """
  @spec register_mesh_service(term(), pid(), [term()] | keyword()) :: :ok | {:error, Error.t()}
  def register_mesh_service(name, pid, capabilities \\ []),
    do: ServiceMesh.register_service(name, pid, Discovery.capabilities(capabilities))

  @doc """
  `Foundation.ServiceMesh.discover_services/1` as `{:ok, services}`; also takes `capability:`, a single one.
  """
  @spec discover_services(keyword()) :: {:ok, [ServiceMesh.service_info()]}
  defdelegate discover_services(criteria \\ []), to: Discovery

  @doc """
  The instance that `Foundation.LoadBalancer.pick/2` chooses: `{:ok, pid}`. `context` is its options, a map or keyword list.
  """
  @spec route_to_best_instance(term(), map() | keyword()) :: {:ok, pid()} | {:error, Error.t()}
  def route_to_best_instance(name, context \\ []) do
    opts = context |> Enum.to_list() |> Keyword.take([:strategy, :constraints])
    with {:ok, %{pid: pid}} <- LoadBalancer.pick(name, opts), do: {:ok, pid}
  end

  defp emit(event, measurements, namespace, service, result) do
    status = if match?({:error, _}, result), do: :error, else: :ok

    Host.Telemetry.execute(
      [:foundation, :foundation, :registry, event],
      measurements,
      %{namespace: namespace, service: service, result: status}
    )
  end

  defp not_found(namespace, service) do
    Error.new(
      code: 5001,
      error_type: :service_not_found,
      message: "Service #{inspect(service)} not found in namespace #{inspect(namespace)}",
      severity: :medium,
      category: :system,
      subcategory: :discovery,
      context: %{namespace: namespace, service: service}
    )
  end

  defp describe(namespace, service, preposition \\ "in") do
    "#{inspect(service)} #{preposition} namespace #{inspect(namespace)}"
  end
end

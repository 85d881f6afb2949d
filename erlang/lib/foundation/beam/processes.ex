defmodule Foundation.BEAM.Processes do
  @moduledoc """
  Groups of processes with a coordinator, and work whose garbage goes with its own heap.

  An ecosystem is one coordinator and its workers, monitored by the process that made them:
  `%{coordinator: pid, workers: [pid], monitors: [reference], topology: :tree, supervisor: pid | nil, config: map}`. All of them
  stop on the message `:shutdown`.
  """

  alias Foundation.ErrorContext
  alias Foundation.Types.Error

  @type ecosystem_config :: %{
          required(:coordinator) => module(),
          required(:workers) => {module(), keyword()},
          optional(:memory_strategy) => :isolated_heaps | :shared_heap,
          optional(:gc_strategy) => :frequent_minor | :standard,
          optional(:fault_tolerance) => :self_healing | :standard
        }
  @type ecosystem :: %{
          coordinator: pid(),
          workers: [pid()],
          monitors: [reference()],
          topology: :tree,
          supervisor: pid() | nil,
          config: ecosystem_config()
        }

  @shutdown_ms 500

  @doc """
  Starts a coordinator and workers.

  `workers: {module, count: n}` starts n workers, 1 by default. Modules with `start_link/1` are started with it, workers with
  `coordinator: pid`; a process that answers `{:test_message, data, caller}` stands in for others. With `fault_tolerance:
  :self_healing` a coordinator that dies is started again.

  An invalid configuration is an error `:validation_error`, code 3001.
  """
  @spec spawn_ecosystem(ecosystem_config()) ::
          {:ok, ecosystem()} | {:error, Error.t() | Foundation.Error.t()}
  def spawn_ecosystem(config) do
    context = ErrorContext.new(__MODULE__, :spawn_ecosystem, metadata: %{config: config})

    ErrorContext.with_context(context, fn ->
      case check(config) do
        :ok ->
          {:ok, create(config)}

        {:error, message} ->
          {:error,
           Error.new(
             code: 3001,
             error_type: :validation_error,
             message: message,
             severity: :high,
             context: %{validation_context: context}
           )}
      end
    end)
  end

  @doc """
  Runs a function in a process of its own, whose heap is freed as a whole when it ends. `caller` gets `{:work_complete, result}` or
  `{:work_error, exception}`.
  """
  @spec isolate_memory_intensive_work(Foundation.Types.work(term()), pid()) ::
          {:ok, pid()} | {:error, Foundation.Error.t()}
  def isolate_memory_intensive_work(work, caller \\ self()) when is_pid(caller) do
    __MODULE__
    |> ErrorContext.new(:isolate_memory_intensive_work)
    |> ErrorContext.with_context(fn ->
      Task.start(fn ->
        message =
          try do
            {:work_complete, work.()}
          rescue
            exception -> {:work_error, exception}
          end

        send(caller, message)
      end)
    end)
  end

  @doc """
  Asks all processes to stop and kills those that have not after half a second.
  """
  @spec shutdown_ecosystem(ecosystem()) :: :ok | {:error, Foundation.Error.t()}
  def shutdown_ecosystem(ecosystem) do
    __MODULE__
    |> ErrorContext.new(:shutdown_ecosystem)
    |> ErrorContext.with_context(fn ->
      # The supervisor first, so that it does not start the coordinator again.
      pids =
        Enum.uniq(
          List.wrap(ecosystem.supervisor) ++
            [current_coordinator(ecosystem), ecosystem.coordinator | ecosystem.workers]
        )

      for pid <- pids, do: send(pid, :shutdown)
      refs = Map.new(pids, &{Process.monitor(&1), &1})
      left = await_down(refs, System.monotonic_time(:millisecond) + @shutdown_ms)
      for {_ref, pid} <- left, do: Process.exit(pid, :kill)
      await_down(left, System.monotonic_time(:millisecond) + @shutdown_ms)
      :ok
    end)
  end

  @doc """
  `%{coordinator: info, workers: [info], total_processes: _, total_memory: bytes, topology: :tree}`, each info
  `%{pid: _, status: _, memory: bytes, message_queue_len: _}`; dead workers are left out.
  """
  @spec ecosystem_info(ecosystem()) :: {:ok, map()} | {:error, Foundation.Error.t()}
  def ecosystem_info(ecosystem) do
    __MODULE__
    |> ErrorContext.new(:ecosystem_info)
    |> ErrorContext.with_context(fn ->
      coordinator = ecosystem |> current_coordinator() |> info()
      workers = ecosystem.workers |> Enum.map(&info/1) |> Enum.reject(&(&1.status == :dead))
      living = if coordinator.status == :dead, do: workers, else: [coordinator | workers]

      {:ok,
       %{
         coordinator: coordinator,
         workers: workers,
         total_processes: length(living),
         total_memory: living |> Enum.map(& &1.memory) |> Enum.sum(),
         topology: ecosystem.topology
       }}
    end)
  end

  defp check(config) do
    case config do
      config when not is_map(config) ->
        {:error, "Configuration must be a map"}

      config when not is_map_key(config, :coordinator) ->
        missing(:coordinator)

      config when not is_map_key(config, :workers) ->
        missing(:workers)

      %{coordinator: module} when not is_atom(module) ->
        {:error, "Coordinator must be a module name (atom)"}

      %{workers: {module, _opts}} when not is_atom(module) ->
        {:error, "Worker module must be an atom"}

      %{workers: {_module, opts}} when not is_list(opts) ->
        {:error, "Worker options must be a keyword list"}

      %{workers: {_module, _opts}} ->
        :ok

      _other ->
        {:error, "Workers must be a {module, options} tuple"}
    end
  end

  defp missing(key), do: {:error, "Configuration must include #{inspect(key)}"}

  defp create(config) do
    {worker, opts} = config.workers
    coordinator = start_coordinator(config.coordinator)

    start_link? = startable?(worker)

    workers =
      for _n <- 1..Keyword.get(opts, :count, 1)//1,
          do: start(worker, [coordinator: coordinator], start_link?, :worker)

    supervisor =
      if config[:fault_tolerance] == :self_healing,
        do: spawn(fn -> supervise(config.coordinator, coordinator) end)

    %{
      coordinator: coordinator,
      workers: workers,
      monitors: Enum.map([coordinator | workers], &Process.monitor/1),
      topology: :tree,
      supervisor: supervisor,
      config: config
    }
  end

  defp start_coordinator(module), do: start(module, [], startable?(module), :coordinator)

  # Asked once for all workers: looking for a module that does not exist reads the whole code path.
  defp startable?(module),
    do: Code.ensure_loaded?(module) and function_exported?(module, :start_link, 1)

  defp start(module, args, true, role) do
    case module.start_link(args) do
      {:ok, pid} when is_pid(pid) -> pid
      pid when is_pid(pid) -> pid
      _other -> start(module, args, false, role)
    end
  end

  defp start(_module, _args, false, role), do: spawn(fn -> stand_in(role) end)

  defp stand_in(role) do
    receive do
      :shutdown ->
        :ok

      {:test_message, _data, caller} ->
        send(caller, {:message_processed, role})
        stand_in(role)

      {:work_request, from, work} ->
        send(from, {:work_assigned, work})
        stand_in(role)

      _other ->
        stand_in(role)
    end
  end

  defp supervise(module, coordinator) do
    Process.put(:current_coordinator, coordinator)
    ref = Process.monitor(coordinator)

    receive do
      {:DOWN, ^ref, :process, _pid, _reason} -> supervise(module, start_coordinator(module))
      :shutdown -> :ok
    end
  end

  defp current_coordinator(%{supervisor: supervisor} = ecosystem) when is_pid(supervisor) do
    with {:dictionary, dictionary} <- Process.info(supervisor, :dictionary),
         pid when is_pid(pid) <- dictionary[:current_coordinator] do
      pid
    else
      _gone_or_not_yet -> ecosystem.coordinator
    end
  end

  defp current_coordinator(ecosystem), do: ecosystem.coordinator

  defp info(pid) do
    case Process.info(pid, [:status, :memory, :message_queue_len]) do
      nil -> %{pid: pid, status: :dead, memory: 0, message_queue_len: 0}
      items -> items |> Map.new() |> Map.put(:pid, pid)
    end
  end

  defp await_down(refs, _deadline) when map_size(refs) == 0, do: refs

  defp await_down(refs, deadline) do
    timeout = max(deadline - System.monotonic_time(:millisecond), 0)

    receive do
      {:DOWN, ref, :process, _pid, _reason} when is_map_key(refs, ref) ->
        refs |> Map.delete(ref) |> await_down(deadline)
    after
      timeout ->
        for {ref, _pid} <- refs, do: Process.demonitor(ref, [:flush])
        refs
    end
  end
end

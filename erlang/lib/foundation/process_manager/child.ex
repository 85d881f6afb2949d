defmodule Foundation.ProcessManager.Child do
  @moduledoc false
  # What is known of a process before it runs: how to start it and when to start it again. Goes to other nodes, so it is data only.

  alias Foundation.ProcessRegistry

  @enforce_keys [:start, :restart, :shutdown, :type]
  defstruct @enforce_keys

  @type t :: %__MODULE__{
          start: {module(), atom(), [term()]},
          restart: :permanent | :transient | :temporary,
          shutdown: timeout() | :brutal_kill,
          type: :worker | :supervisor
        }

  @spec new(module(), [term()], keyword()) :: t()
  def new(module, args, opts) do
    spec = spec(module, args)
    restart = opts[:restart] || Map.get(spec, :restart, :permanent)

    unless restart in [:permanent, :transient, :temporary] do
      raise ArgumentError,
            "restart: is #{inspect(restart)}; it may be :permanent, :transient or :temporary"
    end

    type = Map.get(spec, :type, :worker)

    %__MODULE__{
      start: spec.start,
      restart: restart,
      shutdown: Map.get(spec, :shutdown, if(type == :worker, do: 5000, else: :infinity)),
      type: type
    }
  end

  defp spec(module, args) do
    _ = Code.ensure_loaded(module)

    cond do
      function_exported?(module, :child_spec, 1) and function_exported?(module, :start_link, 1) ->
        Supervisor.child_spec({module, args}, [])

      function_exported?(module, :init, 1) and not function_exported?(module, :start_link, 1) ->
        %{start: {GenServer, :start_link, [module, args]}}

      true ->
        %{start: {module, :start_link, [args]}}
    end
  end

  @doc false
  # Whether it is started again after it ended for this reason.
  @spec again?(t(), term()) :: boolean()
  def again?(%{restart: :permanent}, _reason), do: true
  def again?(%{restart: :temporary}, _reason), do: false
  def again?(_transient, reason) when reason in [:normal, :shutdown], do: false
  def again?(_transient, {:shutdown, _reason}), do: false
  def again?(_transient, _reason), do: true

  @doc false
  # For a supervisor that starts it under a name of this node, once.
  @spec start_local(term(), t()) :: {:ok, pid()} | {:error, term()}
  def start_local(name, child) do
    spec = %{
      id: name,
      start: {__MODULE__, :start_named, [name, child.start]},
      restart: child.restart,
      shutdown: child.shutdown,
      type: child.type
    }

    case DynamicSupervisor.start_child(Foundation.ReplicaSupervisor, spec) do
      {:ok, pid} -> {:ok, pid}
      {:ok, pid, _info} -> {:ok, pid}
      {:error, {:already_started, pid}} -> {:ok, pid}
      :ignore -> {:error, :ignore}
      {:error, reason} -> {:error, reason}
    end
  end

  @doc false
  def start_named(name, {module, function, args}) do
    case lookup_local(name) do
      nil ->
        with {:ok, pid} = started <- apply(module, function, args) do
          :ok = ProcessRegistry.register(:foundation_replicas, name, pid)
          started
        end

      pid ->
        {:error, {:already_started, pid}}
    end
  end

  @doc false
  @spec lookup_local(term()) :: pid() | nil
  def lookup_local(name) do
    case ProcessRegistry.lookup(:foundation_replicas, name) do
      {:ok, pid} -> pid
      :error -> nil
    end
  end
end

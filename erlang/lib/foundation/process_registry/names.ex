defmodule Foundation.ProcessRegistry.Names do
  @moduledoc false
  # What makes the names of Foundation.ProcessRegistry known on all nodes, with clustering on: the host application's Horde, or the
  # :pg scope of this module with a group for each name, and beside it the registry that Rust nodes share. Also the module of via tuples in the
  # latter case. :pg is there for nodes without native functions, which have no share in the registry.
  #
  # Some names stay of one node: those of the three services, of tests, of the library's own parts, and of namespaces that the application
  # names in `config :foundation, local_namespaces:`.

  @compile {:no_warn_undefined, Horde.Registry}
  require Logger

  @registry Foundation.ProcessRegistry
  # Of duplicate keys: after a partition a name has two processes, and nobody is ended.
  @shared Module.concat(@registry, Shared)
  # The Registry of this node while the name above belongs to Horde.
  @beside_horde Module.concat(@registry, Local)
  @own_namespaces [:foundation_channels, :foundation_replicas]
  @built_in [:config_server, :event_store, :telemetry_service]

  @type key :: {term(), term()}
  @type engine :: :off | :pg | :horde

  @doc false
  # Before the Registry starts.
  @spec choose(engine()) :: :ok
  def choose(engine) do
    :persistent_term.put({@registry, :engine}, engine)

    # An atom is found sooner than a tuple, and every lookup needs this.
    :persistent_term.put(__MODULE__, if(engine == :horde, do: @beside_horde, else: @registry))
  end

  @doc false
  @spec engine() :: engine()
  def engine, do: :persistent_term.get({@registry, :engine}, :off)

  @doc false
  # The Registry that has this node's names.
  @spec local() :: module()
  def local, do: :persistent_term.get(__MODULE__, @registry)

  @doc false
  # The registry comes first: names are shared as soon as the scope is there.
  def child_spec(engine) do
    scope = %{id: __MODULE__, start: {:pg, :start_link, [__MODULE__]}}
    registry = {Foundation.Registry, name: @shared, keys: :duplicate}
    children = if engine == :horde, do: [scope], else: [registry, scope]

    %{
      id: __MODULE__,
      start: {Supervisor, :start_link, [children, [strategy: :rest_for_one]]},
      type: :supervisor
    }
  end

  @doc false
  @spec shared?(key()) :: boolean()
  def shared?({namespace, service}) do
    running?() and
      not (namespace in @own_namespaces or match?({:test, _ref}, namespace) or
             (namespace == :production and service in @built_in) or
             namespace in List.wrap(Foundation.Settings.get(:local_namespaces)))
  end

  defp running? do
    case engine() do
      :off -> false
      :pg -> Process.whereis(__MODULE__) != nil
      :horde -> Process.whereis(@registry) != nil
    end
  end

  @doc false
  @spec via(key()) :: {:via, module(), {module(), key()}}
  def via(key) do
    if shared?(key) do
      {:via, if(engine() == :horde, do: Horde.Registry, else: __MODULE__), {@registry, key}}
    else
      {:via, Registry, {local(), key}}
    end
  end

  @doc false
  # Only for processes of this node: a node speaks for its own.
  @spec announce(key(), pid()) :: :ok
  def announce(key, pid) when node(pid) == node() do
    cond do
      not shared?(key) -> :ok
      engine() == :horde -> register_in_horde(key, pid)
      pid in :pg.get_members(__MODULE__, {:name, key}) -> :ok
      true -> share(key, pid)
    end
  end

  def announce(_key, _pid), do: :ok

  defp share(key, pid) do
    :ok = :pg.join(__MODULE__, {:name, key}, pid)

    with {:error, reason} <- Foundation.Registry.register(@shared, key, nil, pid),
         do: Logger.warning("#{inspect(key)} is not shared with Rust nodes: #{inspect(reason)}")

    :ok
  catch
    # It restarts, and takes up what it had before.
    :exit, reason ->
      Logger.warning("#{inspect(key)} is not shared with Rust nodes: #{inspect(reason)}")
      :ok
  end

  defp register_in_horde(key, pid) do
    :yes = Horde.Registry.register_name({@registry, key}, pid)
    :ok
  end

  @doc false
  @spec withdraw(key(), pid()) :: :ok
  def withdraw(key, pid) do
    cond do
      not shared?(key) -> :ok
      engine() == :horde -> GenServer.call(@registry, {:unregister, key, pid})
      true -> leave(key, pid)
    end

    :ok
  end

  defp leave(key, pid) do
    _ = :pg.leave(__MODULE__, {:name, key}, pid)
    Foundation.Registry.unregister(@shared, key, pid)
  catch
    :exit, _restarting -> :ok
  end

  @doc false
  # The process of a name somewhere: of several, after a partition, the same on all nodes.
  @spec find(key()) :: {:ok, pid()} | :error
  def find(key) do
    cond do
      not shared?(key) ->
        :error

      engine() == :horde ->
        case Horde.Registry.lookup(@registry, key) do
          [{pid, _value}] -> {:ok, pid}
          [] -> :error
        end

      true ->
        with :undefined <- Foundation.Registry.whereis_name({@shared, key}),
             pids when pids != [] <- :pg.get_members(__MODULE__, {:name, key}) do
          {:ok, Enum.min_by(pids, &{node(&1), &1})}
        else
          [] -> :error
          pid -> {:ok, pid}
        end
    end
  end

  @doc false
  @spec all(term()) :: %{term() => pid()}
  def all(namespace) do
    keys =
      cond do
        not running?() ->
          []

        engine() == :horde ->
          Horde.Registry.select(@registry, [{{:"$1", :_, :_}, [], [:"$1"]}])

        true ->
          Enum.uniq(shared_keys() ++ for({:name, key} <- :pg.which_groups(__MODULE__), do: key))
      end

    for {^namespace, service} = key <- keys,
        {:ok, pid} <- [find(key)],
        into: %{},
        do: {service, pid}
  end

  # Rust nodes may register what is no name here.
  defp shared_keys,
    do: for({{_, _} = key, _pid, _value} <- Foundation.Registry.to_list(@shared), do: key)

  ## The callbacks of a via tuple

  @doc false
  def register_name({registry, key}, pid) do
    with :error <- find(key), :yes <- Registry.register_name({registry, key}, pid) do
      :ok = announce(key, pid)
      :yes
    else
      _taken -> :no
    end
  end

  @doc false
  def unregister_name({registry, key}) do
    withdraw(key, self())
    Registry.unregister_name({registry, key})
  end

  @doc false
  def whereis_name({registry, key}) do
    with :undefined <- Registry.whereis_name({registry, key}),
         {:ok, pid} <- find(key) do
      pid
    else
      pid when is_pid(pid) -> pid
      :error -> :undefined
    end
  end

  @doc false
  def send(name, message) do
    case whereis_name(name) do
      :undefined -> :erlang.error(:badarg, [name, message])
      pid -> Kernel.send(pid, message)
    end
  end
end

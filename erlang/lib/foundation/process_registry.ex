defmodule Foundation.ProcessRegistry do
  @moduledoc """
  Names of processes by namespace: `:production`, `{:test, reference}`, or any term of your own.

  Two tables stand behind it. Processes that start under `via_tuple/2` are in an Elixir `Registry` with unique keys,
  named as this module, and leave it when they die. Processes that are given to `register/3` are in the table
  `:process_registry_backup`; nothing monitors them, and dead ones are dropped when they are looked at. A lookup asks the
  `Registry` first, so a name that a service holds there may be registered again in the second table without effect on
  lookups: `register(:production, :config_server, self())` answers `:ok`, and consumers rely on it.

  Pids of other nodes count as alive while their node is connected.

  With clustering on (`Foundation.ClusterConfig`) the names are those of the whole cluster: a name that a process of another node holds is
  refused, and found. Nodes learn of each other's names after a moment, so two may take one at once, as may the sides of a
  partition; each then finds its own first, and other nodes all find the same of them. Rust nodes share the names as
  `node.registry_with("Foundation.ProcessRegistry.Shared", Config::new(Keys::Duplicate))`, with `{namespace, name}` for keys, if the native functions are loaded. With Horde in the host application, its registry has
  this module's name and settles such a conflict as Horde does, by ending one of the processes. What stays of one node:
  `:config_server`, `:event_store` and `:telemetry_service` in `:production`, namespaces `{:test, reference}`, namespaces listed in
  `config :foundation, local_namespaces: [...]`, processes registered on a node that is not theirs, and the values in `lookup_value/2`.
  """

  alias Foundation.ProcessRegistry.Names
  require Logger

  @backup :process_registry_backup

  @type namespace :: :production | {:test, reference()} | term()
  @type service_name :: atom() | term()
  @type registry_key :: {namespace(), service_name()}

  @doc false
  def child_spec(_opts) do
    %{
      id: Registry,
      start:
        {Registry, :start_link,
         [[keys: :unique, name: local(), partitions: System.schedulers_online()]]},
      type: :supervisor,
      restart: :permanent,
      shutdown: :infinity
    }
  end

  @doc """
  Registers a process. A name held by another live process in the same table is refused.
  """
  @spec register(namespace(), service_name(), pid()) ::
          :ok | {:error, {:already_registered, pid()}}
  def register(namespace, service, pid) when is_pid(pid) do
    key = {namespace, service}
    ensure_backup()
    trace("attempting to register", key, pid)

    case :ets.lookup(@backup, key) do
      [] ->
        take(key, pid, "new registration")

      [{^key, holder}] ->
        cond do
          not alive?(holder) ->
            take(key, pid, "replaced dead process")

          holder == pid ->
            trace("already registered correctly", key, pid)

          true ->
            trace("already registered to different pid", key, holder)
            {:error, {:already_registered, holder}}
        end
    end
  end

  # Unless another node's process has it.
  defp take(key, pid, how) do
    case Names.find(key) do
      {:ok, holder} when node(holder) != node() and holder != pid ->
        trace("already registered to different pid", key, holder)
        {:error, {:already_registered, holder}}

      _free ->
        :ets.insert(@backup, {key, pid})
        trace(how, key, pid)
        Names.announce(key, pid)
    end
  end

  defp trace(what, key, pid) do
    debug(fn -> "ProcessRegistry.register: #{what} #{inspect(key)} -> #{inspect(pid)}" end)
  end

  @doc """
  The live process of a name, of this node or, with clustering on, of another.
  """
  @spec lookup(namespace(), service_name()) :: {:ok, pid()} | :error
  def lookup(namespace, service) do
    key = {namespace, service}

    case Registry.lookup(Names.local(), key) do
      # Of this node. One that has ended may still be there.
      [{pid, _value}] -> if Process.alive?(pid), do: {:ok, pid}, else: :error
      [] -> with :error <- lookup_backup(key), do: Names.find(key)
    end
  end

  defp lookup_backup(key) do
    ensure_backup()

    case :ets.lookup(@backup, key) do
      [{^key, pid}] ->
        if alive?(pid) do
          {:ok, pid}
        else
          :ets.delete_object(@backup, {key, pid})
          :error
        end

      [] ->
        debug(fn ->
          "ProcessRegistry.lookup: service #{inspect(key)} not found in backup table"
        end)

        debug(fn ->
          "ProcessRegistry.lookup: available entries: #{inspect(:ets.tab2list(@backup))}"
        end)

        :error
    end
  end

  @doc """
  Removes a name. In the `Registry` only the process that holds the name can remove it.
  """
  @spec unregister(namespace(), service_name()) :: :ok
  def unregister(namespace, service) do
    key = {namespace, service}

    if :ets.whereis(@backup) != :undefined do
      for {_key, pid} <- :ets.take(@backup, key), do: Names.withdraw(key, pid)
    end

    Registry.unregister(local(), key)
  end

  @doc """
  The names of a namespace's live processes.
  """
  @spec list_services(namespace()) :: [service_name()]
  def list_services(namespace), do: namespace |> get_all_services() |> Map.keys()

  @doc """
  A namespace's live processes by name. Where both tables have a name, the process of `register/3` is given.
  """
  @spec get_all_services(namespace()) :: %{service_name() => pid()}
  def get_all_services(namespace), do: Map.merge(Names.all(namespace), local_services(namespace))

  @doc """
  The same of this node alone.
  """
  @spec local_services(namespace()) :: %{service_name() => pid()}
  def local_services(namespace) do
    ensure_backup()

    # Keys are compared, not matched by pattern: a namespace may be any term, `:_` included.
    started =
      for {{^namespace, service}, pid} <- registered(), alive?(pid), into: %{}, do: {service, pid}

    for {{^namespace, service}, pid} <- :ets.tab2list(@backup), alive?(pid), into: started do
      {service, pid}
    end
  end

  @doc """
  Whether a name has a live process.
  """
  @spec registered?(namespace(), service_name()) :: boolean()
  def registered?(namespace, service), do: lookup(namespace, service) != :error

  @doc """
  How many names of a namespace have a live process.
  """
  @spec count_services(namespace()) :: non_neg_integer()
  def count_services(namespace), do: namespace |> get_all_services() |> map_size()

  @doc """
  A name for `GenServer.start_link/3` and `GenServer.call/2`: `{:via, Registry, {Foundation.ProcessRegistry, {namespace, service}}}`. With
  clustering on, another module than `Registry` stands there for the names of the whole cluster.
  """
  @spec via_tuple(namespace(), service_name()) :: {:via, module(), {module(), registry_key()}}
  def via_tuple(namespace, service), do: Names.via({namespace, service})

  @doc """
  Stops the processes that were registered under `{:test, test_ref}` with `register/3` and removes their names.

  They get 100 ms to stop by themselves, then `:shutdown`, then `:kill`.
  """
  @spec cleanup_test_namespace(reference()) :: :ok
  def cleanup_test_namespace(test_ref) do
    namespace = {:test, test_ref}

    if :ets.whereis(@backup) != :undefined do
      entries = for {{^namespace, _service}, _pid} = entry <- :ets.tab2list(@backup), do: entry
      pids = entries |> Enum.map(&elem(&1, 1)) |> Enum.uniq() |> Enum.filter(&alive?/1)

      stoppers = Enum.map(pids, fn pid -> spawn_monitor(fn -> stop(pid) end) end)
      for {stopper, ref} <- stoppers, do: await(stopper, ref)

      for {_key, pid} = entry <- entries, not alive?(pid), do: :ets.delete_object(@backup, entry)

      case Enum.count(entries, fn {_key, pid} -> not alive?(pid) end) do
        0 ->
          :ok

        count ->
          debug(fn ->
            "Cleaned up #{count} services from test namespace #{inspect(test_ref)}"
          end)
      end
    end

    :ok
  end

  defp stop(pid) do
    GenServer.stop(pid, :shutdown, 100)
  catch
    :exit, _reason ->
      ref = Process.monitor(pid)
      Process.exit(pid, :shutdown)

      receive do
        {:DOWN, ^ref, :process, _pid, _reason} -> :ok
      after
        50 ->
          Process.exit(pid, :kill)

          receive do
            {:DOWN, ^ref, :process, _pid, _reason} -> :ok
          after
            50 -> :ok
          end
      end
  end

  defp await(stopper, ref) do
    receive do
      {:DOWN, ^ref, :process, ^stopper, _reason} -> :ok
    after
      1000 -> Process.demonitor(ref, [:flush])
    end
  end

  @doc """
  Counts over all namespaces, and the size of the second table.
  """
  @spec stats() :: %{
          total_services: non_neg_integer(),
          production_services: non_neg_integer(),
          test_namespaces: non_neg_integer(),
          partitions: pos_integer(),
          partition_count: pos_integer(),
          memory_usage_bytes: non_neg_integer(),
          ets_table_info: map()
        }
  def stats do
    ensure_backup()
    backup = for {key, pid} <- :ets.tab2list(@backup), alive?(pid), do: key
    keys = Enum.uniq(Enum.map(registered(), &elem(&1, 0)) ++ backup)
    words = :ets.info(@backup, :memory)

    %{
      total_services: length(keys),
      production_services: Enum.count(keys, &match?({:production, _}, &1)),
      test_namespaces: for({{:test, ref}, _service} <- keys, uniq: true, do: ref) |> length(),
      partitions: System.schedulers_online(),
      partition_count: System.schedulers_online(),
      memory_usage_bytes: words * :erlang.system_info(:wordsize),
      ets_table_info: %{
        backup_table_exists: true,
        table_size: :ets.info(@backup, :size),
        memory_words: words
      }
    }
  end

  @doc """
  The process and the value that it keeps with its name in the `Registry`.
  """
  @spec lookup_value(namespace(), service_name()) :: {:ok, pid(), term()} | :error
  def lookup_value(namespace, service) do
    case Registry.lookup(local(), {namespace, service}) do
      [{pid, value}] -> {:ok, pid, value}
      [] -> :error
    end
  end

  @doc false
  # The name of this node's Registry: this module's, unless clustering is on and the host application has Horde, whose registry then
  # has that name.
  @spec local() :: module()
  defdelegate local(), to: Names

  @doc false
  # Called by the application, whose process then owns the table.
  @spec ensure_backup() :: :ok
  def ensure_backup do
    if :ets.whereis(@backup) == :undefined do
      :ets.new(@backup, [:named_table, :public, :set, read_concurrency: true])
    end

    :ok
  rescue
    # Two processes made it at once.
    ArgumentError -> :ok
  end

  defp registered do
    Registry.select(local(), [{{:"$1", :"$2", :_}, [], [{{:"$1", :"$2"}}]}])
  end

  defp alive?(pid) when node(pid) == node(), do: Process.alive?(pid)
  defp alive?(pid), do: node(pid) in Node.list(:known) and node(pid) in Node.list(:connected)

  defp debug(message) do
    if Foundation.Settings.get(:debug_registry), do: Logger.debug(message)
    :ok
  end
end

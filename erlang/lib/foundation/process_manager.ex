defmodule Foundation.ProcessManager do
  @moduledoc """
  Processes of the cluster: one for all nodes, or one on each.

      {:ok, pid} = Foundation.ProcessManager.start_singleton(MyApp.Scheduler, [], name: :scheduler)
      {:ok, ^pid} = Foundation.ProcessManager.lookup_singleton(:scheduler)
      [{:ok, _}, {:ok, _}] = Foundation.ProcessManager.start_replicated(MyApp.Cache, size: 100)

  Runs only with clustering on (`Foundation.ClusterConfig`), over one of two engines:

  | host application has | engine | who is `Foundation.DistributedSupervisor` | who is `Foundation.ProcessRegistry` |
  |---|---|---|---|
  | Horde | `Horde.DynamicSupervisor`, `Horde.Registry` | Horde's | Horde's |
  | not | `Foundation.ProcessManager.Keeper` | a `DynamicSupervisor` for this node's share | an Elixir `Registry` for this node's names |

  All nodes of a cluster need the same engine. Without Horde, Rust nodes share the names: they find them in the registry
  `Foundation.ProcessManager.Shared` (`node.registry("Foundation.ProcessManager.Shared")`), with the value `:singleton`, and what they
  register there with another value is found here; see `start_singleton/3`.

  What both promise: nodes that are connected agree on one process for a name after a moment; if its node goes, another node starts it
  anew, without its state; if it crashes it is started again according to `restart:`. What neither promises: a name can have two
  processes for a short time when two nodes that do not know of each other yet start it, and during a partition each side has its own. When
  the sides meet, one is kept and the other exits with
  `{:name_conflict, {name, value}, Foundation.ProcessRegistry, pid_of_the_kept}`. What must never run twice needs a lock
  outside of the cluster.

  Errors are `Foundation.Types.Error` of type `:process_manager_unavailable`, whose message names the facade, the tool and the
  tool's error, or what the module's `start_link` gave.
  """

  alias Foundation.{Cluster, Host}
  alias Foundation.ProcessManager.{Child, HordeEngine, Keeper}
  alias Foundation.Types.Error

  @timeout_ms 30_000

  @type name :: term()
  @type option ::
          {:name, name()}
          | {:restart, :permanent | :transient | :temporary}
          | {:timeout, pos_integer() | :infinity}

  @doc """
  Starts a process that the cluster has once; if it runs already, gives that one.

  It is started as `{module, args}` under a supervisor is: by the module's `child_spec/1`, else by `module.start_link(args)`, else, for
  a module that has only `init/1`, by `GenServer.start_link(module, args)`. Any node may have to start it, so the module must be on all.

  - `name`: the module by default, any term.
  - `restart`: `:permanent` by default, or what `child_spec/1` says. A process that is not to be started again is forgotten everywhere.
  - `timeout`: 30,000 ms for the answer; a start that takes longer goes on.

  If a process of a Rust node has the name, that is the one. Of two that got it while their nodes were apart the earlier keeps it, and the other ends.
  """
  @spec start_singleton(module(), [term()], [option()]) :: {:ok, pid()} | {:error, term()}
  def start_singleton(module, args \\ [], opts \\ []) when is_atom(module) do
    name = Keyword.get(opts, :name, module)
    timeout = Keyword.get(opts, :timeout, @timeout_ms)

    run("start_singleton/3", fn ->
      child = Child.new(module, args, opts)

      if Host.module(:horde),
        do: HordeEngine.start(name, child, timeout),
        else: Keeper.start(name, child, timeout)
    end)
  end

  @doc """
  The process of a name. Reads what this node knows, without a message.
  """
  @spec lookup_singleton(name()) :: {:ok, pid()} | :not_found
  def lookup_singleton(name) do
    cond do
      not Cluster.enabled?() -> :not_found
      Host.module(:horde) -> HordeEngine.lookup(name)
      true -> Keeper.lookup(name)
    end
  end

  @doc """
  Stops a process and forgets its name on all nodes. One that runs on a node out of reach goes on until that node is back. One that a Rust
  node has registered is for that to end: `{:error, error}`.
  """
  @spec stop_singleton(name()) :: :ok | {:error, :not_found | Error.t()}
  def stop_singleton(name) do
    run("stop_singleton/1", fn ->
      if Host.module(:horde), do: HordeEngine.stop(name), else: stop_own(name)
    end)
  end

  defp stop_own(name) do
    with {:error, {:not_managed, pid}} <- Keeper.stop(name) do
      unavailable(
        "stop_singleton/1",
        "Foundation.ProcessManager.Keeper: #{inspect(name)} is #{inspect(pid)} of #{node(pid)}, " <>
          "which was not started by start_singleton/3 and is for its own node to end"
      )
    end
  end

  @doc """
  The names that this node knows, each with its process.
  """
  @spec list_singletons() :: %{name() => pid()}
  def list_singletons do
    cond do
      not Cluster.enabled?() -> %{}
      Host.module(:horde) -> HordeEngine.list()
      true -> Keeper.list()
    end
  end

  @doc """
  Starts a process on each node of the cluster, `{module, node}` by name; on nodes where it runs, gives that one.

  One result a node, in the order of the nodes' names. Each process is supervised by its own node and ends with it. Nodes
  that join later have none until this is called again. Options as in `start_singleton/3`; `name` stands for the module.
  """
  @spec start_replicated(module(), [term()], [option()]) :: [{:ok, pid()} | {:error, term()}]
  def start_replicated(module, args \\ [], opts \\ []) when is_atom(module) do
    if Cluster.enabled?() do
      timeout = Keyword.get(opts, :timeout, @timeout_ms)

      nodes()
      |> :erpc.multicall(__MODULE__, :start_local, [module, args, opts], timeout)
      |> Enum.map(fn
        {:ok, result} -> result
        {_class, reason} -> unavailable("start_replicated/3", ":erpc: #{inspect(reason)}")
      end)
    else
      [off("start_replicated/3")]
    end
  end

  @doc """
  The process that `start_replicated/3` started on a node, this one by default.
  """
  @spec lookup_replicated(name(), node()) :: {:ok, pid()} | :not_found
  def lookup_replicated(name, node \\ node()) do
    case :erpc.call(node, Child, :lookup_local, [{name, node}], @timeout_ms) do
      nil -> :not_found
      pid -> {:ok, pid}
    end
  catch
    :error, {:erpc, _reason} -> :not_found
  end

  @doc """
  The nodes whose processes are managed together, this one included. Nodes without the library, Rust nodes among them, are not.
  """
  @spec nodes() :: [node()]
  def nodes do
    cond do
      not Cluster.enabled?() -> [node()]
      Host.module(:horde) -> HordeEngine.members()
      true -> Keeper.members()
    end
  end

  @doc false
  @spec start_local(module(), [term()], [option()]) :: {:ok, pid()} | {:error, term()}
  def start_local(module, args, opts) do
    run("start_replicated/3", fn ->
      Child.start_local(
        {Keyword.get(opts, :name, module), node()},
        Child.new(module, args, opts)
      )
    end)
  end

  defp run(function, fun) do
    if Cluster.enabled?(), do: fun.(), else: off(function)
  catch
    :exit, {reason, {GenServer, :call, [tool | _request]}} ->
      unavailable(function, "#{inspect(tool)}: #{Exception.format_exit(reason)}")
  end

  defp off(function) do
    unavailable(
      function,
      "Foundation.DistributedSupervisor: not running; clustering is off, see Foundation.ClusterConfig"
    )
  end

  defp unavailable(function, reason) do
    {:error,
     Error.new(
       error_type: :process_manager_unavailable,
       message: "Foundation.ProcessManager.#{function}: #{reason}",
       severity: :high,
       category: :system,
       subcategory: :cluster
     )}
  end
end

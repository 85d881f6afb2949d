defmodule Foundation.Registry do
  @moduledoc """
  Names of processes that all connected nodes with a registry of the same name find, whether they run Elixir with this library or are
  Rust nodes (`node.registry(name)`).

      children = [{Foundation.Registry, name: :workers}]
      {:ok, _} = Foundation.Registry.register(:workers, "worker 1", :idle)
      [{pid, :idle}] = Foundation.Registry.lookup(:workers, "worker 1")
      GenServer.start_link(Worker, [], name: {:via, Foundation.Registry, {:workers, "worker 2"}})

  What holds:

  - When `register/4` returns, readers on this node find the name; the other nodes are told at once. `wait_until_all/3` returns when all that
    are connected have it.
  - A name ends with its process, and is not found while its node is out of reach. A node that comes back brings its names along.
  - A unique key has one process. Two nodes that did not know of each other may give one key away; when they meet, the process with the earlier claim
    keeps it, and the other gets the exit signal `{:name_conflict, {key, value}, registry, winner}`, as with Horde.
  - Reading takes no message: `lookup/2`, `whereis_name/1` and `to_list/1` look into an ETS table. What one message of another node brings
    becomes visible at once.

  Who decides is the state machine that Rust nodes run, in native code, and the protocol is theirs (`docs/registry.md`). If the native functions cannot be loaded the
  registry serves the names of its own node alone, says so in the log, and `Foundation.HealthMonitor.cluster_health/1` reports the node as
  `:degraded` with `:nif_missing`.

  The registry's process has its name on its node, so any node can call it without this library:
  `GenServer.call({:workers, node}, {:lookup, key})`.
  """

  alias Foundation.Registry.Pieces

  @type registry :: atom()
  @type key :: term()
  @type value :: term()

  @limits [:max_names, :max_bytes, :max_removed, :max_members, :max_waits]

  @doc """
  For a supervisor: see `start_link/1`.
  """
  def child_spec(opts) do
    %{
      id: Keyword.get(opts, :id, Keyword.fetch!(opts, :name)),
      start: {__MODULE__, :start_link, [opts]},
      type: :supervisor
    }
  end

  @doc """
  Starts a registry. Options:

  - `name:`, an atom: nodes with a registry of the same name share names.
  - `keys:`, `:unique` (the default) or `:duplicate`: how many processes may have one key. Members that differ in this do not share names.
  - `listeners:`, names of processes of this node that get `{:added | :updated | :removed, registry, key, pid, value}` for what comes to be found, or
    not, here and elsewhere, and `{:conflict, registry, key, winner, loser}`.
  - `on_conflict:`, what becomes of a process of this node that loses its key to an earlier claim: `:exit` (the default), or `{:listeners, value}`: one that was
    registered with this value lives on without its key, and it is for the listeners to act.
  - `max_names:` (1,048,576, of all nodes), `max_bytes:` (64 KiB, key and value of one name), `max_removed:` (65,536 removals that are remembered
    for members that come back), `max_members:` (4,096), `max_waits:` (65,536 callers of `wait_until_all/3`).
  """
  @spec start_link(keyword()) :: Supervisor.on_start()
  def start_link(opts) do
    {name, opts} = Keyword.pop!(opts, :name)
    {listeners, opts} = Keyword.pop(opts, :listeners, [])
    {on_conflict, opts} = Keyword.pop(opts, :on_conflict, :exit)
    options = opts |> Keyword.delete(:id) |> Map.new()

    unless is_atom(name) and name not in [nil, true, false, :undefined],
      do: raise(ArgumentError, "name: of a registry must be an atom, got: #{inspect(name)}")

    unless is_list(listeners) and Enum.all?(listeners, &is_atom/1),
      do: raise(ArgumentError, "listeners: must be names, got: #{inspect(listeners)}")

    unless on_conflict == :exit or match?({:listeners, _value}, on_conflict),
      do:
        raise(
          ArgumentError,
          "on_conflict: must be :exit or {:listeners, value}, got: #{inspect(on_conflict)}"
        )

    for {key, value} <- options, not valid?(key, value) do
      raise ArgumentError,
            "#{inspect([{key, value}])} is no option of a registry: keys: :unique or :duplicate, and " <>
              "#{Enum.map_join(@limits, ", ", &"#{&1}:")} with a number"
    end

    Foundation.Registry.Supervisor.start_link({name, options, {listeners, on_conflict}})
  end

  defp valid?(:keys, keys), do: keys in [:unique, :duplicate]

  defp valid?(key, value),
    do: key in @limits and is_integer(value) and value >= 0 and value < 0x8000_0000

  @doc """
  Gives a process, the caller if none is given, a key until it ends.

  `{:ok, pid of the registry}`; `{:error, {:already_registered, pid}}` if another has the key as far as it is known here (of duplicate
  keys: if this one has it); `{:error, :too_large}` and `{:error, :system_limit}` at the limits.
  """
  @spec register(registry(), key(), value(), pid()) ::
          {:ok, pid()}
          | {:error, {:already_registered, pid()} | :too_large | :system_limit | :badarg}
  def register(registry, key, value, pid \\ self()) when is_atom(registry) and is_pid(pid),
    do: call(registry, {:register, key, value, pid})

  @doc """
  Takes a key from a process of this node. `:ok` also if it did not have it.
  """
  @spec unregister(registry(), key(), pid()) :: :ok
  def unregister(registry, key, pid \\ self()) when is_atom(registry) and is_pid(pid),
    do: call(registry, {:unregister, key, pid})

  @doc """
  Changes what is kept with a key of a process of this node.
  """
  @spec update_value(registry(), key(), value(), pid()) ::
          :ok | {:error, :not_registered | :too_large | :badarg}
  def update_value(registry, key, value, pid \\ self()) when is_atom(registry) and is_pid(pid),
    do: call(registry, {:update_value, key, value, pid})

  @doc """
  The processes that have a key, with their values: one at most if keys are unique.
  """
  @spec lookup(registry(), key()) :: [{pid(), value()}]
  def lookup(registry, key) when is_atom(registry) do
    for {pid, value, _own} <- Pieces.lookup(registry, key), alive?(pid), do: {pid, value}
  end

  @doc """
  All that is found, in no order.
  """
  @spec to_list(registry()) :: [{key(), pid(), value()}]
  def to_list(registry) when is_atom(registry) do
    for {key, _found} = row <- :ets.tab2list(registry),
        {pid, value, _own} <- Pieces.entries(registry, row),
        alive?(pid),
        do: {key, pid, value}
  end

  @doc """
  The keys of a process, whichever node it is of.
  """
  @spec keys(registry(), pid()) :: [key()]
  def keys(registry, pid) when is_atom(registry) and is_pid(pid), do: call(registry, {:keys, pid})

  @doc """
  How many names are found.
  """
  @spec count(registry()) :: non_neg_integer()
  def count(registry) when is_atom(registry), do: call(registry, :count)

  @doc """
  The nodes that share the names, this one included.
  """
  @spec members(registry()) :: [node()]
  def members(registry) when is_atom(registry), do: call(registry, :members)

  @doc """
  Waits until all members that are connected have what was registered under a key on this node. They acknowledge it; no time is taken for an answer.

  `{:error, {:timeout, nodes}}` names those that did not.
  """
  @spec wait_until_all(registry(), key(), non_neg_integer()) ::
          :ok | {:error, :not_registered | :system_limit | {:timeout, [node()]}}
  def wait_until_all(registry, key, timeout_ms \\ 5000)
      when is_atom(registry) and is_integer(timeout_ms) and timeout_ms >= 0,
      do: GenServer.call(registry, {:wait_until_all, key, timeout_ms}, timeout_ms + 5000)

  @doc """
  What was counted since the start: `behind`, the writes that the slowest member lacks, `lag_ms`, for how long, `slowest_ms`, the longest such time; `conflicts`, keys that
  were lost to an earlier claim; `refused`, names of others for which there was no room; `pushed` and `ignored`, messages.
  """
  @spec stats(registry()) :: %{atom() => non_neg_integer()}
  def stats(registry) when is_atom(registry), do: call(registry, :stats)

  @doc """
  Whether a registry of this node runs without the native functions, and so for the names of this node alone.
  """
  @spec nif_missing?() :: boolean()
  def nif_missing?, do: :persistent_term.get({__MODULE__, :nif_missing}, false)

  ## A via tuple's callbacks: `{:via, Foundation.Registry, {registry, key}}`, or `{registry, key, value}`

  @doc false
  def register_name({registry, key}, pid), do: register_name({registry, key, nil}, pid)

  def register_name({registry, key, value}, pid) do
    case register(registry, key, value, pid) do
      {:ok, _registry} -> :yes
      {:error, {:already_registered, _pid}} -> :no
      {:error, reason} -> raise ArgumentError, "#{inspect(registry)}: #{inspect(reason)}"
    end
  end

  @doc false
  def unregister_name({registry, key}), do: unregister(registry, key)
  def unregister_name({registry, key, _value}), do: unregister(registry, key)

  @doc false
  def whereis_name({registry, key, _value}), do: whereis_name({registry, key})

  def whereis_name({registry, key}) do
    case Pieces.first(registry, key) do
      [] -> :undefined
      first -> first_alive(first) || first_alive(Pieces.lookup(registry, key)) || :undefined
    end
  end

  @doc false
  def send(name, message) do
    case whereis_name(name) do
      :undefined -> :erlang.error(:badarg, [name, message])
      pid -> Kernel.send(pid, message)
    end
  end

  defp call(registry, request), do: GenServer.call(registry, request)

  defp first_alive(entries),
    do: Enum.find_value(entries, fn {pid, _value, _own} -> if alive?(pid), do: pid end)

  # A process of this node that has ended is not found, though the registry has yet to hear of it.
  defp alive?(pid), do: node(pid) != node() or Process.alive?(pid)
end

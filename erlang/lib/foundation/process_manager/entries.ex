defmodule Foundation.ProcessManager.Entries do
  @moduledoc false
  # What the nodes know of the cluster's singletons: by name, an entry with a version. The later version wins, so the order in which
  # nodes hear of changes does not matter and hearing twice changes nothing.
  #
  # An entry: {version, home, child, pid}, or {version, home, :stopped, nil}. The version is {count, node that changed it}; two nodes
  # never make the same one. The home is the node that runs it and alone starts it while it is there.
  #
  # Kept in a table that any process of this node reads. Only the keeper writes it.

  alias Foundation.ProcessManager.Child

  @table __MODULE__
  # A node that was away for longer can bring back what was stopped meanwhile.
  @stopped_ms 3_600_000

  @type version :: {pos_integer(), node()}
  @type entry :: {version(), node(), Child.t() | :stopped, pid() | nil}

  @doc false
  # By the process that outlives the keeper.
  @spec create() :: :ok
  def create do
    if :ets.whereis(@table) == :undefined,
      do: :ets.new(@table, [:named_table, :public, :set, read_concurrency: true])

    :ok
  end

  @spec get(term()) :: entry() | nil
  def get(name) do
    case :ets.lookup(@table, name) do
      [{_name, entry, _since}] -> entry
      [] -> nil
    end
  rescue
    # Clustering is just being stopped.
    ArgumentError -> nil
  end

  @spec all() :: [{term(), entry()}]
  def all do
    for {name, entry, _since} <- :ets.tab2list(@table), do: {name, entry}
  rescue
    ArgumentError -> []
  end

  @doc false
  # The same number for the same entries, in whatever order.
  @spec digest() :: non_neg_integer()
  def digest do
    Enum.reduce(all(), 0, fn {name, entry}, digest ->
      Bitwise.bxor(digest, :erlang.phash2({name, elem(entry, 0)}, 4_294_967_296))
    end)
  end

  @doc false
  # What another node sent may be of another version of this library, or anything.
  @spec valid?(term()) :: boolean()
  def valid?({{count, changer}, home, %Child{}, pid})
      when is_integer(count) and count > 0 and is_atom(changer) and is_atom(home) and is_pid(pid),
      do: true

  def valid?({{count, changer}, home, :stopped, nil})
      when is_integer(count) and count > 0 and is_atom(changer) and is_atom(home),
      do: true

  def valid?(_other), do: false

  @doc false
  # Whether it is news.
  @spec merge(term(), entry()) :: boolean()
  def merge(name, entry) do
    case get(name) do
      known when known != nil and elem(known, 0) >= elem(entry, 0) ->
        false

      _older_or_none ->
        :ets.insert(@table, {name, entry, now()})
        true
    end
  end

  @doc false
  @spec change(term(), node(), Child.t() | :stopped, pid() | nil) ::
          entry()
  def change(name, home, child, pid) do
    count =
      case get(name) do
        {{count, _node}, _home, _child, _pid} -> count + 1
        nil -> 1
      end

    entry = {{count, node()}, home, child, pid}
    true = merge(name, entry)
    entry
  end

  @doc false
  @spec drop_old() :: :ok
  def drop_old do
    before = now() - @stopped_ms

    :ets.select_delete(@table, [
      {{:_, {:_, :_, :stopped, :_}, :"$1"}, [{:<, :"$1", before}], [true]}
    ])

    :ok
  end

  @doc false
  # The node that takes over a name: the same for all who see the same members.
  @spec owner(term(), [node(), ...]) :: node()
  def owner(name, members), do: Enum.max_by(members, &{:erlang.phash2({name, &1}), &1})

  defp now, do: System.monotonic_time(:millisecond)
end

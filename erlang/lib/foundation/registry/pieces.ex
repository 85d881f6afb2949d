defmodule Foundation.Registry.Pieces do
  @moduledoc false
  # The processes of a duplicate key that very many have. A row of the registry's table then has no list of them but `{table, life, numbers}`: the
  # pieces with these numbers, one after the other. A piece is never changed; another takes its place, and the row that names it is written once it is
  # there. So who reads a row reads what was found at one moment, whatever is written meanwhile.

  # Pieces that no row names any more are kept for readers who have just read such a row, this many of them.
  @kept 512
  # How often a reader begins anew who was too slow even so, before it asks the registry's process.
  @tries 5

  # life: which process of the registry has written a piece; the machine of each counts from one.
  @enforce_keys [:table, :life]
  defstruct [:table, :life, gone: :queue.new(), count: 0]

  @type entries :: [{pid(), term(), boolean()}]
  @type row :: entries() | {:ets.tid(), integer(), [integer()]}

  @doc false
  def new, do: :ets.new(__MODULE__, [:public, :set, read_concurrency: true])

  @doc false
  def begin(table), do: %__MODULE__{table: table, life: :erlang.unique_integer()}

  @doc false
  # What the machine says is new, and what no row will name when those that follow are written.
  def write(%__MODULE__{} = pieces, new, gone) do
    pieces = trim(pieces)
    :ets.insert(pieces.table, for({number, entries} <- new, do: {{pieces.life, number}, entries}))

    %{
      pieces
      | gone: Enum.reduce(gone, pieces.gone, &:queue.in/2),
        count: pieces.count + length(gone)
    }
  end

  defp trim(%{count: count} = pieces) when count > @kept do
    {{:value, number}, gone} = :queue.out(pieces.gone)
    :ets.delete(pieces.table, {pieces.life, number})
    trim(%{pieces | gone: gone, count: count - 1})
  end

  defp trim(pieces), do: pieces

  @doc false
  # Those of earlier lives, which no row names any more.
  def forget_others(%__MODULE__{table: table, life: life}),
    do: :ets.select_delete(table, [{{{:"$1", :_}, :_}, [{:"=/=", :"$1", life}], [true]}])

  @doc false
  # As the table of the registry has it.
  @spec row(%__MODULE__{}, {term(), entries() | {:pieces, [integer()]}}) :: {term(), row()}
  def row(pieces, {key, {:pieces, numbers}}), do: {key, {pieces.table, pieces.life, numbers}}
  def row(_pieces, row), do: row

  @doc false
  @spec lookup(atom(), term()) :: entries()
  def lookup(registry, key), do: lookup(registry, key, @tries)

  defp lookup(registry, key, 0) do
    for {pid, value} <- GenServer.call(registry, {:lookup, key}), do: {pid, value, false}
  end

  defp lookup(registry, key, tries) do
    case :ets.lookup(registry, key) do
      [{_key, entries}] when is_list(entries) -> entries
      [{_key, row}] -> with :gone <- all(row), do: lookup(registry, key, tries - 1)
      [] -> []
    end
  end

  @doc false
  # The first of them.
  @spec first(atom(), term()) :: entries()
  def first(registry, key) do
    case :ets.lookup(registry, key) do
      [{_key, {table, life, [number | _others]}}] ->
        case :ets.lookup(table, {life, number}) do
          [{_number, entries}] -> entries
          [] -> lookup(registry, key)
        end

      [{_key, entries}] ->
        entries

      [] ->
        []
    end
  end

  @doc false
  # What a row of the table stands for.
  @spec entries(atom(), {term(), row()}) :: entries()
  def entries(_registry, {_key, entries}) when is_list(entries), do: entries

  def entries(registry, {key, row}),
    do: with(:gone <- all(row), do: lookup(registry, key))

  @doc false
  # The same for the registry's process, which nobody can ask before it is there.
  @spec left({term(), row()}) :: entries()
  def left({_key, entries}) when is_list(entries), do: entries
  def left({_key, row}), do: with(:gone <- all(row), do: [])

  defp all({table, life, numbers}) do
    numbers
    |> Enum.reduce_while([], fn number, lists ->
      case :ets.lookup(table, {life, number}) do
        [{_number, entries}] -> {:cont, [entries | lists]}
        [] -> {:halt, :gone}
      end
    end)
    |> case do
      :gone -> :gone
      lists -> Enum.reduce(lists, [], &(&1 ++ &2))
    end
  end
end

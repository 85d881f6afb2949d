defmodule Foundation.Settings.Type do
  @moduledoc false
  # What a setting may be, as data: whether a value is of a type, and what the type is called in a message. Total for every term, improper lists
  # among them.

  @type t ::
          :any
          | :string
          | :charlist
          | :atom
          | :boolean
          | :keyword
          # One term, or a proper list of them.
          | :terms
          # A duration that a timer takes.
          | :milliseconds
          | :ip_address
          | {:integer, Range.t()}
          | {:integer, :above, integer()}
          | {:number, number(), number() | :infinity}
          | {:one_of, [atom(), ...]}
          | {:function, arity()}
          | {:list, t()}
          | {:some, t()}
          | {:either, [t(), ...]}
          # A type and a value of it, for the message.
          | {:such_as, t(), term()}
          # A map that has all of these keys.
          | {:map, %{atom() => t()}}
          | {:section, section()}

  @typedoc """
  The keys of a keyword list or map. `other` is the type of a key that is not listed; without it such a key is told but kept. With `switch` the
  other keys count only if that key is `true`.
  """
  @type section :: %{
          required(:keys) => %{atom() => t()},
          optional(:other) => t(),
          optional(:switch) => atom()
        }

  # Erlang's timers take no more.
  @longest_ms 4_294_967_295

  @doc false
  @spec right?(t(), term()) :: boolean()
  def right?(:any, _value), do: true
  def right?(:string, value), do: is_binary(value)
  def right?(:charlist, value), do: value != [] and :io_lib.printable_unicode_list(value)
  def right?(:atom, value), do: is_atom(value)
  def right?(:boolean, value), do: is_boolean(value)
  def right?(:keyword, value), do: Keyword.keyword?(value)
  def right?(:terms, value), do: not is_list(value) or proper?(value)
  def right?(:milliseconds, value), do: is_integer(value) and value in 1..@longest_ms

  def right?(:ip_address, value) when is_binary(value),
    do: match?({:ok, _address}, :inet.parse_address(String.to_charlist(value)))

  def right?(:ip_address, value), do: :inet.is_ip_address(value)
  def right?({:integer, range}, value), do: is_integer(value) and value in range
  def right?({:integer, :above, least}, value), do: is_integer(value) and value > least
  def right?({:number, least, :infinity}, value), do: is_number(value) and value >= least

  def right?({:number, least, most}, value),
    do: is_number(value) and value >= least and value <= most

  def right?({:one_of, values}, value), do: value in values
  def right?({:function, arity}, value), do: is_function(value, arity)
  def right?({:list, type}, value), do: proper?(value) and Enum.all?(value, &right?(type, &1))
  def right?({:some, type}, value), do: value != [] and right?({:list, type}, value)
  def right?({:either, types}, value), do: Enum.any?(types, &right?(&1, value))
  def right?({:such_as, type, _example}, value), do: right?(type, value)

  def right?({:map, keys}, value) do
    is_map(value) and
      Enum.all?(keys, fn {key, type} ->
        match?(%{^key => _value}, value) and right?(type, Map.get(value, key))
      end)
  end

  def right?({:section, _section} = type, value), do: match?({_kept, []}, take(type, value, ""))

  defp proper?(value), do: is_list(value) and not List.improper?(value)

  @doc false
  # As in "it is a string".
  @spec describe(t()) :: String.t()
  def describe(:any), do: "anything"
  def describe(:string), do: "a string"
  def describe(:charlist), do: "a charlist"
  def describe(:atom), do: "an atom"
  def describe(:boolean), do: "true or false"
  def describe(:keyword), do: "a keyword list"
  def describe(:terms), do: "a term or a list of terms"
  def describe(:milliseconds), do: "a number of milliseconds above 0"
  def describe(:ip_address), do: "an IP address, as a string or a tuple"
  def describe({:integer, range}), do: "a number from #{range.first} to #{range.last}"
  def describe({:integer, :above, least}), do: "a whole number above #{least}"
  def describe({:number, least, :infinity}), do: "a number, #{least} or more"
  def describe({:number, least, most}), do: "a number from #{least} to #{most}"
  def describe({:one_of, values}), do: values |> Enum.map(&inspect/1) |> alternatives()
  def describe({:function, 1}), do: "a function of one argument"
  def describe({:function, arity}), do: "a function of #{arity} arguments"
  def describe({:list, :any}), do: "a list"
  def describe({:list, :string}), do: "a list of strings"
  def describe({:list, :atom}), do: "a list of atoms"
  def describe({:list, type}), do: "a list of which each is #{describe(type)}"
  def describe({:some, type}), do: "#{describe({:list, type})}, not empty"
  def describe({:either, types}), do: types |> Enum.map(&describe/1) |> alternatives()
  def describe({:such_as, type, example}), do: "#{describe(type)}, as #{inspect(example)}"

  def describe({:map, keys}) do
    described =
      Enum.map_join(Enum.sort(keys), " and ", fn {key, type} -> "#{key}: #{describe(type)}" end)

    "a map with " <> described
  end

  def describe({:section, _section}), do: "a keyword list or a map"

  defp alternatives([one]), do: one

  defp alternatives(several) do
    {last, others} = List.pop_at(several, -1)
    Enum.join(others, ", ") <> " or " <> last
  end

  @doc false
  # The value without what is wrong in it, as a map if it is a section, and what is wrong. Nothing is left of a value that is no section.
  @spec take(t(), term(), String.t()) :: {{:ok, term()} | :error, [Foundation.Settings.mistake()]}
  def take({:section, section} = type, value, path) do
    case pairs(value) do
      {:ok, pairs} ->
        {kept, mistakes} = Enum.map_reduce(pairs, [], &take_key(section, path, &1, &2))
        kept = Map.new(Enum.concat(kept))
        mistakes = for {key, found} <- mistakes, counts?(section, kept, key), do: found
        kept = if switched_off?(section, kept), do: as_given(section, pairs, kept), else: kept
        {{:ok, kept}, Enum.reverse(mistakes)}

      :error ->
        {:error, [wrong(path, value, type)]}
    end
  end

  def take(type, value, path) do
    if right?(type, value), do: {{:ok, value}, []}, else: {:error, [wrong(path, value, type)]}
  end

  defp take_key(section, path, {key, value}, mistakes) do
    case {section, key} do
      {%{keys: %{^key => type}}, _key} ->
        take_value(type, key, value, path, mistakes)

      {%{other: type}, key} when is_atom(key) ->
        take_value(type, key, value, path, mistakes)

      {%{other: _type}, key} ->
        {[], [{key, {:error, "#{path} has #{show(key)}; its keys are atoms"}} | mistakes]}

      {%{keys: keys}, key} ->
        line = "#{path} has #{word(key)}, which nothing here reads#{meant(key, Map.keys(keys))}"
        {[{key, value}], [{key, {:warning, line}} | mistakes]}
    end
  end

  defp take_value(type, key, value, path, mistakes) do
    {taken, found} = take(type, value, "#{path} #{word(key)}")
    kept = with {:ok, value} <- taken, do: [{key, value}]
    {if(taken == :error, do: [], else: kept), Enum.map(found, &{key, &1}) ++ mistakes}
  end

  defp as_given(%{switch: switch}, pairs, kept),
    do: pairs |> Map.new() |> Map.delete(switch) |> Map.merge(kept)

  # What is turned off is not looked at, as in 1.x.
  defp counts?(%{switch: switch} = section, kept, key),
    do: key == switch or not switched_off?(section, kept)

  defp counts?(_section, _kept, _key), do: true

  # As it is by default.
  defp switched_off?(%{switch: switch}, kept), do: Map.get(kept, switch, false) == false
  defp switched_off?(_section, _kept), do: false

  @doc false
  # What has keys with values: a map or a list of pairs, whose keys are of any kind as in 1.x, which makes a map of it.
  @spec pairs(term()) :: {:ok, [{term(), term()}]} | :error
  def pairs(%{} = map) when not is_struct(map), do: {:ok, Map.to_list(map)}

  def pairs(value) do
    if proper?(value) and Enum.all?(value, &match?({_key, _value}, &1)),
      # In their order, and of a key that stands there twice the last, as in the map.
      do: {:ok, value |> Enum.reverse() |> Enum.uniq_by(&elem(&1, 0)) |> Enum.reverse()},
      else: :error
  end

  @doc false
  @spec wrong(String.t(), term(), t()) :: Foundation.Settings.mistake()
  def wrong(path, value, type),
    do: {:error, "#{path} is #{show(value)}; it may be #{describe(type)}"}

  @doc false
  # Short: whoever has put the wrong thing somewhere may have put much there.
  @spec show(term()) :: String.t()
  def show(value), do: inspect(value, limit: 10, printable_limit: 100)

  @doc false
  @spec word(term()) :: String.t()
  def word(key) when is_atom(key), do: "#{key}:"
  def word(key), do: show(key)

  @doc false
  # The key that somebody has misspelt.
  @spec meant(term(), [atom()]) :: String.t()
  def meant(key, known) when is_atom(key) do
    case similar(key, known) do
      nil -> ""
      likely -> "; did you mean #{likely}:?"
    end
  end

  def meant(_key, _known), do: ""

  @doc false
  @spec similar(atom(), [atom()]) :: atom() | nil
  def similar(key, known) do
    text = Atom.to_string(key)

    known
    |> Enum.map(&{String.jaro_distance(text, Atom.to_string(&1)), &1})
    |> Enum.filter(fn {distance, _key} -> distance >= 0.85 end)
    |> Enum.max(fn -> {0.0, nil} end)
    |> elem(1)
  end
end

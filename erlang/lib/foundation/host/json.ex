defmodule Foundation.Host.Json do
  @moduledoc """
  JSON through `Jason` when the host application has it, else by this module's own encoder and decoder (RFC 8259).

  The encoder takes maps, lists, strings, numbers, booleans, `nil`, atoms and the calendar types, as `Jason` does.
  """

  alias Foundation.Host

  @doc """
  The term as JSON. Raises what the encoder raises if it has no JSON form.
  """
  @spec encode!(term()) :: String.t()
  def encode!(term) do
    case Host.module(:jason) do
      nil -> term |> encode() |> IO.iodata_to_binary()
      jason -> jason.encode!(term)
    end
  end

  @doc """
  The term of a JSON text. `keys: :atoms` gives maps with atoms as keys; `keys: :atoms!` only with existing ones.
  """
  @spec decode!(String.t(), keyword()) :: term()
  def decode!(text, opts \\ []) do
    case Host.module(:jason) do
      nil -> decode(text, Keyword.get(opts, :keys, :strings))
      jason -> jason.decode!(text, opts)
    end
  end

  ## Encoding

  defp encode(nil), do: "null"
  defp encode(true), do: "true"
  defp encode(false), do: "false"
  defp encode(atom) when is_atom(atom), do: encode(Atom.to_string(atom))
  defp encode(integer) when is_integer(integer), do: Integer.to_string(integer)
  defp encode(float) when is_float(float), do: :io_lib_format.fwrite_g(float)
  defp encode(string) when is_binary(string), do: [?", escape(string), ?"]

  defp encode(list) when is_list(list),
    do: [?[, list |> Enum.map(&encode/1) |> Enum.intersperse(?,), ?]]

  defp encode(%module{} = struct) when module in [DateTime, NaiveDateTime, Date, Time],
    do: encode(module.to_iso8601(struct))

  defp encode(%_module{} = struct),
    do: raise(Protocol.UndefinedError, protocol: String.Chars, value: struct)

  defp encode(%{} = map) do
    members =
      Enum.map(map, fn {key, value} -> [?", escape(to_string(key)), ?", ?:, encode(value)] end)

    [?{, Enum.intersperse(members, ?,), ?}]
  end

  defp encode(other), do: raise(Protocol.UndefinedError, protocol: String.Chars, value: other)

  defp escape(string) do
    if String.valid?(string),
      do: for(<<codepoint::utf8 <- string>>, into: "", do: escape_codepoint(codepoint)),
      else: raise(ArgumentError, "not UTF-8: #{inspect(string)}")
  end

  defp escape_codepoint(?"), do: "\\\""
  defp escape_codepoint(?\\), do: "\\\\"
  defp escape_codepoint(?\n), do: "\\n"
  defp escape_codepoint(?\r), do: "\\r"
  defp escape_codepoint(?\t), do: "\\t"

  defp escape_codepoint(control) when control < 0x20,
    do: "\\u" <> String.pad_leading(Integer.to_string(control, 16), 4, "0")

  defp escape_codepoint(codepoint), do: <<codepoint::utf8>>

  ## Decoding: each function but the first gives {term, rest}

  defp decode(text, keys) do
    {term, rest} = value(skip(text), keys)
    if skip(rest) == "", do: term, else: invalid(rest)
  end

  defp value("null" <> rest, _keys), do: {nil, rest}
  defp value("true" <> rest, _keys), do: {true, rest}
  defp value("false" <> rest, _keys), do: {false, rest}
  defp value("\"" <> rest, _keys), do: string(rest, [])
  defp value("[" <> rest, keys), do: array(skip(rest), keys, [])
  defp value("{" <> rest, keys), do: object(skip(rest), keys, %{})
  defp value(text, _keys), do: number(text)

  defp array("]" <> rest, _keys, []), do: {[], rest}

  defp array(text, keys, elements) do
    {element, rest} = value(text, keys)

    case skip(rest) do
      "," <> rest -> array(skip(rest), keys, [element | elements])
      "]" <> rest -> {Enum.reverse([element | elements]), rest}
      other -> invalid(other)
    end
  end

  defp object("}" <> rest, _keys, map) when map == %{}, do: {map, rest}

  defp object("\"" <> rest, keys, map) do
    {key, rest} = string(rest, [])

    with ":" <> rest <- skip(rest),
         {element, rest} = value(skip(rest), keys),
         map = Map.put(map, key(key, keys), element) do
      case skip(rest) do
        "," <> rest -> object(skip(rest), keys, map)
        "}" <> rest -> {map, rest}
        other -> invalid(other)
      end
    else
      other -> invalid(other)
    end
  end

  defp object(other, _keys, _map), do: invalid(other)

  defp key(key, :atoms), do: String.to_atom(key)
  defp key(key, :atoms!), do: String.to_existing_atom(key)
  defp key(key, _strings), do: key

  defp string("\"" <> rest, parts), do: {IO.iodata_to_binary(Enum.reverse(parts)), rest}

  defp string(<<"\\u", code::binary-4, rest::binary>>, parts) do
    case {hex(code), rest} do
      {high, <<"\\u", low::binary-4, rest::binary>>} when high in 0xD800..0xDBFF ->
        string(rest, [<<0x10000 + (high - 0xD800) * 0x400 + (hex(low) - 0xDC00)::utf8>> | parts])

      {codepoint, _rest} when codepoint in 0xD800..0xDFFF ->
        invalid(rest)

      {codepoint, rest} ->
        string(rest, [<<codepoint::utf8>> | parts])
    end
  end

  defp string(<<?\\, escaped, rest::binary>>, parts) do
    unescaped =
      case escaped do
        ?n -> "\n"
        ?r -> "\r"
        ?t -> "\t"
        ?b -> "\b"
        ?f -> "\f"
        other when other in [?", ?\\, ?/] -> <<other>>
        other -> invalid(<<other>>)
      end

    string(rest, [unescaped | parts])
  end

  defp string(<<codepoint::utf8, rest::binary>>, parts) when codepoint >= 0x20,
    do: string(rest, [<<codepoint::utf8>> | parts])

  defp string(other, _parts), do: invalid(other)

  defp number(text) do
    case Regex.run(~r/\A-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?/, text) do
      [digits | parts] ->
        rest = binary_part(text, byte_size(digits), byte_size(text) - byte_size(digits))
        {number(digits, length(parts)), rest}

      nil ->
        invalid(text)
    end
  end

  defp number(digits, 1), do: String.to_integer(digits)

  defp number(digits, _fraction_or_exponent) do
    {float, ""} = Float.parse(digits)
    float
  end

  defp hex(digits), do: String.to_integer(digits, 16)

  defp skip(<<space, rest::binary>>) when space in [?\s, ?\t, ?\n, ?\r], do: skip(rest)
  defp skip(text), do: text

  defp invalid(text),
    do: raise(ArgumentError, "invalid JSON at #{inspect(String.slice(text, 0, 20))}")
end

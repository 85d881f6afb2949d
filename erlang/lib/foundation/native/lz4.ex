defmodule Foundation.Native.LZ4 do
  @moduledoc false
  # Reading LZ4 blocks in Elixir (doc/lz4_Block_format.md of lz4): a node without the native functions reads what others wrote.

  @spec decompress(binary(), non_neg_integer()) :: {:ok, binary()} | {:error, :malformed}
  def decompress(block, size) when is_binary(block) and is_integer(size) and size >= 0 do
    case sequences(block, <<>>, size) do
      plain when byte_size(plain) == size -> {:ok, plain}
      _short_or_error -> {:error, :malformed}
    end
  catch
    :malformed -> {:error, :malformed}
  end

  # A token, literals, and unless that is the end, a copy of what is there.
  defp sequences(<<literals::4, match::4, rest::binary>>, plain, size) do
    {length, rest} = more(literals, rest)

    if byte_size(rest) < length or byte_size(plain) + length > size, do: throw(:malformed)
    bytes = binary_part(rest, 0, length)
    rest = binary_part(rest, length, byte_size(rest) - length)
    copy(rest, match, <<plain::binary, bytes::binary>>, size)
  end

  defp sequences(_end, _plain, _size), do: throw(:malformed)

  defp copy(<<>>, _match, plain, _size), do: plain

  defp copy(<<offset::little-16, rest::binary>>, match, plain, size)
       when offset > 0 and offset <= byte_size(plain) do
    {length, rest} = more(match, rest)
    length = length + 4
    if byte_size(plain) + length > size, do: throw(:malformed)
    sequences(rest, repeat(plain, offset, length), size)
  end

  defp copy(_rest, _match, _plain, _size), do: throw(:malformed)

  # What is copied may reach into itself: then it repeats.
  defp repeat(plain, offset, length) do
    pattern = binary_part(plain, byte_size(plain), -offset)
    times = div(length + offset - 1, offset)
    copied = binary_part(:binary.copy(pattern, times), 0, length)
    <<plain::binary, copied::binary>>
  end

  defp more(15, <<255, rest::binary>>) do
    {length, rest} = more(15, rest)
    {length + 255, rest}
  end

  defp more(15, <<byte, rest::binary>>), do: {15 + byte, rest}
  defp more(15, <<>>), do: throw(:malformed)
  defp more(length, rest), do: {length, rest}
end

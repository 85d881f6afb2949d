defmodule Foundation.Events.Batch do
  @moduledoc """
  Many terms as one binary with a digest, to ship or to keep: `pack/1` and `unpack/1`.

  | bytes | meaning |
  |---|---|
  | 3 | `"FEB"` |
  | 1 | version, 1 |
  | 1 | method: 0 plain, 1 one LZ4 block, 2 zlib |
  | 4 | length of the plain bytes, big endian |
  | 8 | digest of the plain bytes, big endian: XXH3 (64 bits, seed 0) with LZ4, CRC-32 with the others |
  | | the bytes; plain they are the list in the external term format |

  With the native functions it is LZ4, without them zlib, and plain where neither helps. Both sides read all three; each writes the digest that
  is cheap for it. It finds damage and is no signature.
  """

  alias Foundation.Native

  @max_bytes 64 * 1024 * 1024

  @type reason :: :not_a_batch | :too_large | :damaged

  @doc """
  The terms as a batch.
  """
  @spec pack([term()]) :: binary()
  def pack(terms) when is_list(terms) do
    plain = :erlang.term_to_binary(terms)
    {method, bytes} = smallest(plain)

    <<"FEB", 1, method, byte_size(plain)::32, digest(method, plain)::64, bytes::binary>>
  end

  defp smallest(plain) do
    {method, bytes} =
      case Native.lz4_compress(plain) do
        {:ok, block} -> {1, block}
        {:error, :not_loaded} -> {2, :zlib.compress(plain)}
      end

    if byte_size(bytes) < byte_size(plain), do: {method, bytes}, else: {0, plain}
  end

  @doc """
  The terms of a batch. Batches come from other nodes of the cluster: their terms are trusted as messages are.

  `max_bytes`, 64 MiB, is how many plain bytes may come out. Errors: `:not_a_batch`; `:too_large`; `:damaged`, it does not decompress, or the
  digest is another.
  """
  @spec unpack(binary(), keyword()) :: {:ok, [term()]} | {:error, reason()}
  def unpack(batch, opts \\ [])

  def unpack(<<"FEB", 1, method, size::32, digest::64, bytes::binary>>, opts)
      when method in 0..2 do
    with true <- size <= Keyword.get(opts, :max_bytes, @max_bytes) || {:error, :too_large},
         {:ok, plain} <- plain(method, bytes, size),
         ^digest <- digest(method, plain),
         {:ok, terms} <- terms(plain) do
      {:ok, terms}
    else
      {:error, :too_large} -> {:error, :too_large}
      _other -> {:error, :damaged}
    end
  end

  def unpack(binary, _opts) when is_binary(binary), do: {:error, :not_a_batch}

  defp digest(1, plain), do: Native.xxh3(plain)
  defp digest(_plain_or_zlib, plain), do: :erlang.crc32(plain)

  defp plain(0, bytes, size) when byte_size(bytes) == size, do: {:ok, bytes}
  defp plain(1, bytes, size), do: Native.lz4_decompress(bytes, size)
  defp plain(2, bytes, size), do: inflate(bytes, size)
  defp plain(_method, _bytes, _size), do: :error

  # In pieces, so that no more comes out than was said.
  defp inflate(bytes, size) do
    stream = :zlib.open()

    try do
      :ok = :zlib.inflateInit(stream)
      pieces(stream, :zlib.safeInflate(stream, bytes), [], 0, size)
    rescue
      ErlangError -> :error
    after
      :zlib.close(stream)
    end
  end

  defp pieces(stream, {kind, output}, done, have, size) do
    have = have + IO.iodata_length(output)
    done = [done | output]

    cond do
      have > size -> :error
      kind == :continue -> pieces(stream, :zlib.safeInflate(stream, []), done, have, size)
      have == size -> {:ok, IO.iodata_to_binary(done)}
      true -> :error
    end
  end

  defp terms(plain) do
    case :erlang.binary_to_term(plain) do
      terms when is_list(terms) -> {:ok, terms}
      _other -> :error
    end
  rescue
    ArgumentError -> :error
  end
end

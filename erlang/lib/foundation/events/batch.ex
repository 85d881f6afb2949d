defmodule Foundation.Events.Batch do
  @moduledoc """
  Many terms as one binary with a digest, to ship or to keep: `pack/2` and `unpack/2`.

  | bytes | meaning |
  |---|---|
  | 3 | `"FEB"` |
  | 1 | version, 1 |
  | 1 | method: 0 plain, 1 one LZ4 block, 2 zlib, 3 one Zstandard frame |
  | 4 | length of the plain bytes, big endian |
  | 8 | digest of the plain bytes, big endian: XXH3 (64 bits, seed 0) with LZ4 and Zstandard, CRC-32 with the others |
  | | the bytes; plain they are the list in the external term format |

  With the native functions it is LZ4, without them zlib, and plain where neither helps. Every node reads these three; each writes the digest that
  is cheap for it. Zstandard is for those who ask for it, because only a node with the native functions reads it. The digest finds damage and is no
  signature.
  """

  alias Foundation.Native

  @max_bytes 64 * 1024 * 1024

  @type reason :: :not_a_batch | :too_large | :damaged | :not_loaded

  @doc """
  The terms as a batch.

  `compression: :zstd` for the fewest bytes where time counts less, to readers with the native functions; `:lz4`, or zlib without them,
  otherwise.
  """
  @spec pack([term()], keyword()) :: binary()
  def pack(terms, opts \\ []) when is_list(terms) do
    plain = :erlang.term_to_binary(terms)
    {method, bytes} = smallest(plain, Keyword.get(opts, :compression, :lz4))

    <<"FEB", 1, method, byte_size(plain)::32, digest(method, plain)::64, bytes::binary>>
  end

  defp smallest(plain, compression) when compression in [:lz4, :zstd] do
    {method, bytes} =
      case compress(plain, compression) do
        {:ok, compressed} when compression == :lz4 -> {1, compressed}
        {:ok, compressed} -> {3, compressed}
        {:error, _reason} -> {2, :zlib.compress(plain)}
      end

    if byte_size(bytes) < byte_size(plain), do: {method, bytes}, else: {0, plain}
  end

  defp compress(plain, :lz4), do: Native.lz4_compress(plain)
  defp compress(plain, :zstd), do: Native.zstd_compress(plain)

  @doc """
  The terms of a batch. Batches come from other nodes of the cluster: their terms are trusted as messages are.

  `max_bytes`, 64 MiB, is how many plain bytes may come out. Errors: `:not_a_batch`; `:too_large`; `:damaged`, it does not decompress, or the
  digest is another; `:not_loaded`, it is in Zstandard, and the native functions are not here.
  """
  @spec unpack(binary(), keyword()) :: {:ok, [term()]} | {:error, reason()}
  def unpack(batch, opts \\ [])

  def unpack(<<"FEB", 1, method, size::32, digest::64, bytes::binary>>, opts)
      when method in 0..3 do
    with true <- size <= Keyword.get(opts, :max_bytes, @max_bytes) || {:error, :too_large},
         {:ok, plain} <- plain(method, bytes, size),
         ^digest <- digest(method, plain),
         {:ok, terms} <- terms(plain) do
      {:ok, terms}
    else
      {:error, reason} when reason in [:too_large, :not_loaded] -> {:error, reason}
      _other -> {:error, :damaged}
    end
  end

  def unpack(binary, _opts) when is_binary(binary), do: {:error, :not_a_batch}

  defp digest(method, plain) when method in [1, 3], do: Native.xxh3(plain)
  defp digest(_plain_or_zlib, plain), do: :erlang.crc32(plain)

  defp plain(0, bytes, size) when byte_size(bytes) == size, do: {:ok, bytes}
  defp plain(1, bytes, size), do: Native.lz4_decompress(bytes, size)
  defp plain(2, bytes, size), do: inflate(bytes, size)
  defp plain(3, bytes, size), do: Native.zstd_decompress(bytes, size)
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

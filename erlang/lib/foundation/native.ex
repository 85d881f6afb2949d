defmodule Foundation.Native do
  @moduledoc """
  The functions written in Rust, and what happens when they cannot be loaded.

  The library is `priv/native/foundation_native.so`, or what a development build has made for itself; one file serves OTP 22 to 29 (NIF version
  2.15). It is loaded by plain
  `:erlang.load_nif/2`. If that fails the application starts all the same: pure functions run their Elixir
  fallback, which gives the same results, and `status/0` says why.

  `config :foundation, native: false` leaves them out.

  Terms cross as binaries in the external term format. Each function has a size above which it runs on a dirty scheduler, so that no call holds a
  normal one for more than 100 microseconds; and what a call takes there is charged to the process that makes it. What the longest of such calls
  take, and how late other processes are meanwhile, is in `docs/native.md`.
  """

  alias Foundation.Native.{Loader, LZ4, XXH3}

  # Bytes that 100 microseconds suffice for, on a busy machine: bench/native.exs measures calls of these sizes. The slowest terms are small
  # tuples and integers, at up to 40 ns a byte; the slowest bytes to compress are random letters.
  @dirty_above 1024
  @lz4_dirty_above 32 * 1024
  @xxh3_dirty_above 256 * 1024

  @doc """
  Loads the native functions; the application does so when it starts.

  `:ok` also if they are loaded already. The error says what is missing and how to mend it, and stays available from
  `status/0`.
  """
  @spec load() :: :ok | {:error, String.t()}
  def load do
    wanted? = Foundation.Settings.get(:native)

    case if(wanted?, do: Loader.load(), else: {:error, "config :foundation, native: false"}) do
      :ok ->
        :ok

      {:error, reason} ->
        message =
          "Foundation's native functions are not loaded: #{reason}. " <>
            "Run `mix compile` with cargo installed, or put foundation_native.so into priv/native. " <>
            "Until then the Elixir fallbacks serve."

        :persistent_term.put({__MODULE__, :load_error}, message)
        {:error, message}
    end
  end

  @doc """
  The cargo profile that the native functions were built with, `"dist"` for those that are shipped; `nil` without them.
  """
  @spec profile() :: String.t() | nil
  def profile do
    Loader.profile()
  rescue
    ErlangError -> nil
  end

  @doc """
  Whether the native functions are loaded.
  """
  @spec loaded?() :: boolean()
  def loaded? do
    Loader.loaded()
  rescue
    ErlangError -> false
  end

  @doc """
  `:ok`, or why the native functions are not loaded and how to mend it.
  """
  @spec status() :: :ok | {:error, String.t()}
  def status do
    if loaded?() do
      :ok
    else
      {:error,
       :persistent_term.get(
         {__MODULE__, :load_error},
         "Foundation's native functions are not loaded: load/0 was not called yet."
       )}
    end
  end

  @doc """
  `:erlang.phash2(term, range)`, computed by the Rust implementation.

  `range` is 1 to 2^32, 2^27 if not given. Equal to the VM's own function for every term: nodes written in Rust place keys on
  the same ring with it, and this is how the two are held together. It is slower than `:erlang.phash2/2` for all but
  binaries, because the term is encoded first; code that only wants the hash calls that.
  """
  @spec phash2(term(), 1..4_294_967_296) :: non_neg_integer()
  def phash2(term, range \\ 134_217_728)
      when is_integer(range) and range >= 1 and range <= 4_294_967_296 do
    if loaded?() do
      binary = :erlang.term_to_binary(term)

      hash =
        if byte_size(binary) > @dirty_above,
          do: Loader.phash2_external_dirty(binary, range),
          else: Loader.phash2_external(binary, range)

      case hash do
        {:ok, hash} -> hash
        {:error, :badterm} -> :erlang.phash2(term, range)
      end
    else
      :erlang.phash2(term, range)
    end
  end

  @doc """
  XXH3 with 64 bits and seed 0 of a binary. The fallback gives the same number.
  """
  @spec xxh3(binary()) :: non_neg_integer()
  def xxh3(bytes) when is_binary(bytes) do
    cond do
      not loaded?() -> XXH3.hash(bytes)
      byte_size(bytes) > @xxh3_dirty_above -> Loader.xxh3_dirty(bytes)
      true -> Loader.xxh3(bytes)
    end
  end

  @doc """
  One LZ4 block, without the plain length in front. There is no fallback: `{:error, :not_loaded}`; use zlib.
  """
  @spec lz4_compress(binary()) :: {:ok, binary()} | {:error, :not_loaded}
  def lz4_compress(plain) when is_binary(plain) do
    cond do
      not loaded?() -> {:error, :not_loaded}
      byte_size(plain) > @lz4_dirty_above -> {:ok, Loader.lz4_compress_dirty(plain)}
      true -> {:ok, Loader.lz4_compress(plain)}
    end
  end

  @doc """
  The plain bytes of an LZ4 block, of which there must be exactly `size`. The fallback gives the same.
  """
  @spec lz4_decompress(binary(), non_neg_integer()) ::
          {:ok, binary()} | {:error, :malformed}
  def lz4_decompress(block, size) when is_binary(block) and is_integer(size) and size >= 0 do
    cond do
      not loaded?() -> LZ4.decompress(block, size)
      # A block of a megabyte that says nothing is read to its end, too.
      max(size, byte_size(block)) > @lz4_dirty_above -> Loader.lz4_decompress_dirty(block, size)
      true -> Loader.lz4_decompress(block, size)
    end
  end

  @doc """
  One Zstandard frame (RFC 8878), level 1: of events about three fifths of the bytes of LZ4, more slowly. There is no fallback:
  `{:error, :not_loaded}`.
  """
  @spec zstd_compress(binary()) :: {:ok, binary()} | {:error, :not_loaded | :no_memory}
  def zstd_compress(plain) when is_binary(plain),
    do: if(loaded?(), do: Loader.zstd_compress(plain), else: {:error, :not_loaded})

  @doc """
  The plain bytes of a frame, of which there must be exactly `size`. There is no fallback.
  """
  @spec zstd_decompress(binary(), non_neg_integer()) ::
          {:ok, binary()} | {:error, :malformed | :not_loaded | :no_memory}
  def zstd_decompress(frame, size) when is_binary(frame) and is_integer(size) and size >= 0,
    do: if(loaded?(), do: Loader.zstd_decompress(frame, size), else: {:error, :not_loaded})
end

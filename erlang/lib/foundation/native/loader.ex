defmodule Foundation.Native.Loader do
  @moduledoc false
  # The stubs that the library replaces. This module holds nothing else, because a module with loaded native functions
  # cannot be reloaded: `Foundation.Native` can.

  alias Foundation.Native.Object

  @doc false
  @spec load() :: :ok | {:error, String.t()}
  def load do
    path = path()

    with :ok <- Object.whole(path <> ".so") do
      case :erlang.load_nif(String.to_charlist(path), 0) do
        :ok -> :ok
        {:error, {:reload, _text}} -> :ok
        {:error, {_reason, text}} -> {:error, List.to_string(text)}
      end
    end
  end

  def loaded, do: error()
  def profile, do: error()
  def phash2_external(_binary, _range), do: error()
  def phash2_external_dirty(_binary, _range), do: error()
  def lz4_compress(_plain), do: error()
  def lz4_compress_dirty(_plain), do: error()
  def lz4_decompress(_block, _size), do: error()
  def lz4_decompress_dirty(_block, _size), do: error()
  def zstd_compress(_plain), do: error()
  def zstd_decompress(_frame, _size), do: error()
  def xxh3(_bytes), do: error()
  def xxh3_dirty(_bytes), do: error()
  def vectors_new(_values, _dimensions), do: error()
  def vectors_top(_vectors, _query, _count), do: error()
  def vectors_top_dirty(_vectors, _query, _count), do: error()
  def spool_new(_max_bytes), do: error()
  def spool_append(_spool, _bytes, _correlation), do: error()
  def spool_append_dirty(_spool, _bytes, _correlation), do: error()
  def spool_correlate(_spool, _correlation, _count), do: error()
  def spool_correlate_dirty(_spool, _correlation, _count), do: error()
  def spool_drain(_spool, _count), do: error()
  def spool_drain_dirty(_spool, _count), do: error()
  def spool_stats(_spool), do: error()
  def spool_stats_dirty(_spool), do: error()
  def text_similarities(_text, _others), do: error()
  def text_similarities_dirty(_text, _others), do: error()
  def machine_new(_term), do: error()
  def machine_handle(_machine, _now, _events), do: error()
  def machine_handle_dirty(_machine, _now, _events), do: error()
  def ring_new(_nodes), do: error()
  def ring_owner(_ring, _place), do: error()
  def ring_owners(_ring, _places), do: error()
  def ring_owners_dirty(_ring, _places), do: error()
  def machine_panic(_machine), do: error()
  def panic_probe, do: error()

  @doc false
  # Without the extension. What this very build has made is beside its `ebin`, what is shipped in `priv`, which all builds share.
  @spec path() :: Path.t()
  def path do
    application =
      case :code.lib_dir(:foundation) do
        {:error, :bad_name} -> Path.expand("..", Path.dirname(:code.which(__MODULE__)))
        directory -> List.to_string(directory)
      end

    own = Path.join(application, "native/foundation_native")

    if Path.wildcard(own <> ".*") != [],
      do: own,
      else: Path.join(application, "priv/native/foundation_native")
  end

  defp error, do: :erlang.nif_error(:nif_not_loaded)
end

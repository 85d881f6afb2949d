defmodule Foundation.BEAM.Memory do
  @moduledoc """
  Memory: what is used, and the few things that an application can do about it.
  """

  require Logger

  # A part of a larger binary keeps all of it alive.
  @wasteful_factor 2
  @compress_above 1_024
  @max_atoms 800_000

  @type strategy :: :conservative | :aggressive

  @doc """
  The binary in the form that suits its use.

  - `:sharing`: a copy if it is a part of one more than twice as large, so that the large one can go.
  - `:storage`, `:transmission`: deflated with zlib (`:zlib.compress/1`) above 1 KiB if that is smaller.
  - `:automatic`: as `:sharing`.
  """
  @spec optimize_binary(binary(), :automatic | :sharing | :storage | :transmission) :: binary()
  def optimize_binary(binary, strategy \\ :automatic) when is_binary(binary) do
    case strategy do
      sharing when sharing in [:automatic, :sharing] ->
        if :binary.referenced_byte_size(binary) > @wasteful_factor * byte_size(binary),
          do: :binary.copy(binary),
          else: binary

      compressing when compressing in [:storage, :transmission] ->
        compressed =
          if byte_size(binary) > @compress_above, do: :zlib.compress(binary), else: binary

        if byte_size(compressed) < byte_size(binary), do: compressed, else: binary
    end
  end

  @doc """
  The atom of a text, unless the atom table is nearly full: `max_atoms`, 800,000, or less where the VM's own limit is lower. An atom
  that exists already is always given.

  `{:error, :atom_table_nearly_full}`; `{:error, :invalid_atom}` for more than 255 characters or bytes that are no UTF-8.
  """
  @spec safe_atom(String.t(), keyword()) ::
          {:ok, atom()} | {:error, :atom_table_nearly_full | :invalid_atom}
  def safe_atom(text, opts \\ []) when is_binary(text) do
    {:ok, String.to_existing_atom(text)}
  rescue
    # SystemLimitError on newer releases for a text that is too long.
    _unknown_or_invalid -> new_atom(text, Keyword.get(opts, :max_atoms, @max_atoms))
  end

  defp new_atom(text, max_atoms) do
    limit = min(max_atoms, div(:erlang.system_info(:atom_limit) * 9, 10))

    cond do
      not String.valid?(text) or String.length(text) > 255 ->
        {:error, :invalid_atom}

      :erlang.system_info(:atom_count) >= limit ->
        Logger.warning(
          "Atom table approaching limit: #{:erlang.system_info(:atom_count)}/#{limit}"
        )

        {:error, :atom_table_nearly_full}

      true ->
        {:ok, String.to_atom(text)}
    end
  end

  @doc """
  Memory by kind in bytes, shares in percent, counts with their limits, and recommendations as texts.
  """
  @spec analyze_memory_usage() :: map()
  def analyze_memory_usage do
    memory = :erlang.memory()
    share = fn kind -> memory[kind] / memory[:total] * 100 end

    counts =
      Map.new([:atom_count, :atom_limit, :process_count, :process_limit], fn key ->
        {key, :erlang.system_info(key)}
      end)

    Map.merge(counts, %{
      total_memory: memory[:total],
      process_memory: memory[:processes],
      atom_memory: memory[:atom],
      binary_memory: memory[:binary],
      code_memory: memory[:code],
      ets_memory: memory[:ets],
      process_memory_percentage: share.(:processes),
      binary_memory_percentage: share.(:binary),
      recommendations:
        for {true, text} <- [
              {share.(:binary) > 50,
               "Binaries hold more than half of the memory: look for parts of large ones that are kept."},
              {counts.atom_count * 2 > counts.atom_limit,
               "More than half of the atom table is used: atoms are never freed."},
              {counts.process_count * 2 > counts.process_limit,
               "More than half of the process table is used."}
            ] do
          text
        end
    })
  end

  @doc """
  Collects garbage: `:conservative`, of this process; `:aggressive`, of every process of the node whose heap is above `min_heap`
  bytes (1 MiB). `{:ok, %{before: bytes, after: bytes, processes: count}}`.
  """
  @spec optimize_memory(strategy(), keyword()) :: {:ok, map()}
  def optimize_memory(strategy, opts \\ []) when strategy in [:conservative, :aggressive] do
    before = :erlang.memory(:total)

    pids =
      if strategy == :aggressive,
        do: large(Keyword.get(opts, :min_heap, 1_048_576)),
        else: [self()]

    Enum.each(pids, &:erlang.garbage_collect/1)
    {:ok, %{before: before, after: :erlang.memory(:total), processes: length(pids)}}
  end

  defp large(bytes) do
    for pid <- Process.list(),
        {:memory, memory} <- [Process.info(pid, :memory)],
        memory > bytes,
        do: pid
  end
end

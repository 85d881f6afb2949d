defmodule Foundation.Utils do
  @moduledoc """
  Small pure functions that the services and their users share: ids, clocks, nested maps, formatting, measuring.
  """

  import Bitwise

  @default_max_size 10_000

  ## Ids and clocks

  @doc """
  A positive integer, unique in this VM and unlikely to recur in another.
  """
  @spec generate_id() :: pos_integer()
  def generate_id do
    System.unique_integer([:positive]) * 1_000_000 + :erlang.phash2(make_ref(), 1_000_000) + 1
  end

  @doc """
  A random UUID, version 4, in lower case.
  """
  @spec generate_correlation_id() :: String.t()
  def generate_correlation_id do
    <<a::48, _version::4, b::12, _variant::2, c::62>> = :crypto.strong_rand_bytes(16)

    <<a1::binary-8, a2::binary-4, a3::binary-4, a4::binary-4, a5::binary-12>> =
      Base.encode16(<<a::48, 4::4, b::12, 2::2, c::62>>, case: :lower)

    <<a1::binary, ?-, a2::binary, ?-, a3::binary, ?-, a4::binary, ?-, a5::binary>>
  end

  @doc """
  The monotonic clock in milliseconds. May be negative.
  """
  @spec monotonic_timestamp() :: integer()
  def monotonic_timestamp, do: System.monotonic_time(:millisecond)

  @doc """
  The system clock in nanoseconds since 1970.
  """
  @spec wall_timestamp() :: integer()
  def wall_timestamp, do: System.system_time(:nanosecond)

  ## Sizes and texts of terms

  @doc """
  The term, or, if it exceeds `max_size` bytes (10,000 by default) in the external term format, a map
  `%{truncated: true, original_size: bytes, preview: _, timestamp: now}`. A struct is given as it is, whatever its size.
  """
  @spec truncate_if_large(term(), pos_integer()) :: term()
  def truncate_if_large(data, max_size \\ @default_max_size) do
    size = :erlang.external_size(data)

    if size > max_size do
      %{
        truncated: true,
        original_size: size,
        preview: preview(data),
        timestamp: DateTime.utc_now()
      }
    else
      data
    end
  rescue
    # No preview can be made of a struct or a short improper list: as in 1.x it stays whole.
    _no_preview -> data
  end

  @doc """
  Bytes of the term in the external term format.
  """
  @spec deep_size(term()) :: non_neg_integer()
  def deep_size(term), do: :erlang.external_size(term)

  @doc """
  The term as text, at most 100 elements; `"<uninspectable>"` if its own `Inspect` raises.
  """
  @spec safe_inspect(term()) :: String.t()
  def safe_inspect(term) do
    inspect(term, limit: 100, printable_limit: 100)
  rescue
    _exception -> "<uninspectable>"
  end

  ## Maps

  @doc """
  Merges maps deeply; anything else is replaced by the right side.
  """
  @spec deep_merge(term(), term()) :: term()
  def deep_merge(%{} = left, %{} = right) do
    Map.merge(left, right, fn _key, l, r -> deep_merge(l, r) end)
  end

  def deep_merge(_left, right), do: right

  @doc """
  The value at a path, or the default if a key is missing or `nil` on the way.
  """
  @spec get_nested(term(), [term()], term()) :: term()
  def get_nested(map, path, default \\ nil)
  def get_nested(value, [], _default), do: value

  def get_nested(%{} = map, [key | rest], default) do
    case Map.get(map, key) do
      nil -> default
      value -> get_nested(value, rest, default)
    end
  end

  def get_nested(_leaf, _path, default), do: default

  @doc """
  Puts a value at a path; missing maps on the way are created.
  """
  @spec put_nested(map(), [term()], term()) :: term()
  def put_nested(_map, [], value), do: value
  def put_nested(%{} = map, [key], value), do: Map.put(map, key, value)

  def put_nested(%{} = map, [key | rest], value) do
    Map.put(map, key, put_nested(Map.get(map, key, %{}), rest, value))
  end

  @doc """
  String keys as atoms, deeply, where the atom already exists; other keys stay.
  """
  @spec atomize_keys(term()) :: term()
  def atomize_keys(%{} = map) do
    Map.new(map, fn {key, value} -> {existing_atom(key), atomize_keys(value)} end)
  end

  def atomize_keys(list) when is_list(list), do: Enum.map(list, &atomize_keys/1)
  def atomize_keys(value), do: value

  @doc """
  Atom keys as strings, deeply.
  """
  @spec stringify_keys(term()) :: term()
  def stringify_keys(%{} = map) do
    Map.new(map, fn
      {key, value} when is_atom(key) -> {Atom.to_string(key), stringify_keys(value)}
      {key, value} -> {key, stringify_keys(value)}
    end)
  end

  def stringify_keys(list) when is_list(list), do: Enum.map(list, &stringify_keys/1)
  def stringify_keys(value), do: value

  ## Strings and blankness

  @doc """
  The string trimmed, with every run of white space as one space.
  """
  @spec sanitize_string(String.t()) :: String.t()
  def sanitize_string(string) when is_binary(string) do
    string |> String.replace(~r/\s+/, " ") |> String.trim()
  end

  @doc """
  Whether a value is `nil`, white space or empty.
  """
  @spec blank?(term()) :: boolean()
  def blank?(nil), do: true
  def blank?([]), do: true
  def blank?(string) when is_binary(string), do: String.trim(string) == ""
  def blank?(map) when is_map(map), do: map_size(map) == 0
  def blank?(_other), do: false

  @doc """
  The opposite of `blank?/1`.
  """
  @spec present?(term()) :: boolean()
  def present?(term), do: not blank?(term)

  @doc """
  Whether a value is an integer above zero.
  """
  @spec valid_positive_integer?(term()) :: boolean()
  def valid_positive_integer?(value), do: is_integer(value) and value > 0

  @doc """
  Nanoseconds for people: `"1.5s"`, `"12.0ms"`, `"3.2μs"`, `"17ns"`.
  """
  @spec format_duration(non_neg_integer()) :: String.t()
  def format_duration(ns) when is_integer(ns) and ns >= 0 do
    cond do
      ns >= 1_000_000_000 -> decimal(ns / 1_000_000_000) <> "s"
      ns >= 1_000_000 -> decimal(ns / 1_000_000) <> "ms"
      ns >= 1_000 -> decimal(ns / 1_000) <> "μs"
      true -> "#{ns}ns"
    end
  end

  @doc """
  Bytes for people, in powers of 1024: `"512 B"`, `"1.5 KB"`, `"2.0 MB"`, `"1.1 GB"`.
  """
  @spec format_bytes(non_neg_integer()) :: String.t()
  def format_bytes(bytes) when is_integer(bytes) and bytes >= 0 do
    cond do
      bytes < 1024 -> "#{bytes} B"
      bytes < 1024 ** 2 -> "#{Float.round(bytes / 1024, 1)} KB"
      bytes < 1024 ** 3 -> "#{Float.round(bytes / 1024 ** 2, 1)} MB"
      true -> "#{Float.round(bytes / 1024 ** 3, 1)} GB"
    end
  end

  ## Running functions

  @doc """
  Runs a function until it does not return `{:error, _}`, with exponential delays between.

  Options: `max_attempts` (3), `base_delay` (100 ms), `max_delay` (5000 ms). `:ok` comes back as `{:ok, :ok}`, any plain
  value as `{:ok, value}`, and the last error as `{:error, :max_attempts_exceeded}`.
  """
  @spec retry(Foundation.Types.work(term()), keyword()) ::
          {:ok, term()} | {:error, :max_attempts_exceeded}
  def retry(fun, opts \\ []) when is_function(fun, 0) do
    retry(
      fun,
      1,
      Keyword.get(opts, :max_attempts, 3),
      Keyword.get(opts, :base_delay, 100),
      Keyword.get(opts, :max_delay, 5000)
    )
  end

  defp retry(fun, attempt, max_attempts, base_delay, max_delay) do
    case fun.() do
      {:ok, value} ->
        {:ok, value}

      {:error, _reason} when attempt < max_attempts ->
        Process.sleep(round(min(base_delay * (1 <<< (attempt - 1)), max_delay)))
        retry(fun, attempt + 1, max_attempts, base_delay, max_delay)

      {:error, _reason} ->
        {:error, :max_attempts_exceeded}

      value ->
        {:ok, value}
    end
  end

  @doc """
  The function's result and the microseconds it took.
  """
  @spec measure(Foundation.Types.work(result)) :: {result, non_neg_integer()} when result: term()
  def measure(fun) when is_function(fun, 0) do
    start = System.monotonic_time(:microsecond)
    result = fun.()
    {result, System.monotonic_time(:microsecond) - start}
  end

  @doc """
  The function's result and the VM's total memory `{before, after, difference}` in bytes, the caller collected each time.
  """
  @spec measure_memory(Foundation.Types.work(result)) ::
          {result, {non_neg_integer(), non_neg_integer(), integer()}}
        when result: term()
  def measure_memory(fun) when is_function(fun, 0) do
    :erlang.garbage_collect()
    memory_before = :erlang.memory(:total)
    result = fun.()
    :erlang.garbage_collect()
    memory_after = :erlang.memory(:total)
    {result, {memory_before, memory_after, memory_after - memory_before}}
  end

  @doc """
  Memory, queue length, reductions, garbage collection and status of the calling process.
  """
  @spec process_stats() :: map()
  def process_stats do
    # One by one: a list of items would leave out what the VM does not know of a running process.
    for item <- [:memory, :message_queue_len, :reductions, :garbage_collection, :status],
        {^item, value} <- [Process.info(self(), item)],
        into: %{},
        do: {item, value}
  end

  @doc """
  Processes, atoms, memory and schedulers of the VM.
  """
  @spec system_stats() :: map()
  def system_stats do
    %{
      process_count: :erlang.system_info(:process_count),
      atom_count: :erlang.system_info(:atom_count),
      memory: :erlang.memory(),
      scheduler_count: :erlang.system_info(:schedulers),
      scheduler_online: :erlang.system_info(:schedulers_online)
    }
  end

  defp decimal(value), do: :erlang.float_to_binary(value, decimals: 1)

  defp existing_atom(key) when is_binary(key) do
    String.to_existing_atom(key)
  rescue
    ArgumentError -> key
  end

  defp existing_atom(key), do: key

  defp preview(data) when is_binary(data), do: String.slice(data, 0, 100) <> "..."
  defp preview(data) when is_list(data), do: data |> Enum.take(10) |> Enum.map(&safe_inspect/1)
  defp preview(%{} = data), do: data |> Enum.take(5) |> Map.new()
  defp preview(data), do: safe_inspect(data)
end

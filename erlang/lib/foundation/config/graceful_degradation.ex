defmodule Foundation.Config.GracefulDegradation do
  @moduledoc """
  Configuration when its service may be down: the values read last, and updates kept for later.

  Everything is in the public table `:config_fallback_cache`, which belongs to the process that called
  `initialize_fallback_system/0`: `{{:config_cache, path}, value, seconds}` and `{{:pending_update, path}, value, seconds}`. Entries
  are valid for 300 seconds.
  """

  alias Foundation.Config
  alias Foundation.Types.Error
  require Logger

  @table :config_fallback_cache
  @ttl_seconds 300

  @doc """
  Makes the table unless it is there.
  """
  @spec initialize_fallback_system() :: :ok
  def initialize_fallback_system do
    if :ets.whereis(@table) == :undefined do
      :ets.new(@table, [:named_table, :public, :set, read_concurrency: true])
      Logger.info("Fallback system initialized with ETS table: #{@table}")
    else
      Logger.debug("Fallback system already initialized")
    end

    :ok
  end

  @doc """
  Deletes the table if it is there.
  """
  @spec cleanup_fallback_system() :: :ok
  def cleanup_fallback_system do
    if :ets.whereis(@table) != :undefined, do: :ets.delete(@table)
    :ok
  rescue
    # Another process deleted it, or owned it and died.
    ArgumentError -> :ok
  end

  @doc """
  `Foundation.Config.get/1`, which keeps what it reads, or else the value kept. Without one, an error
  `:config_unavailable`, code `nil`.
  """
  @spec get_with_fallback(Config.config_path()) :: {:ok, term()} | {:error, Error.t()}
  def get_with_fallback(path) when is_list(path) do
    case Config.get(path) do
      {:ok, value} ->
        :ets.insert(@table, {{:config_cache, path}, value, now()})
        {:ok, value}

      {:error, _error} ->
        cached(path)
    end
  end

  @doc """
  `Foundation.Config.update/2`, which keeps an update that failed for `retry_pending_updates/0` and returns its error.
  """
  @spec update_with_fallback(Config.config_path(), term()) :: :ok | {:error, term()}
  def update_with_fallback(path, value) when is_list(path) do
    key = {:pending_update, path}

    case Config.update(path, value) do
      :ok ->
        :ets.delete(@table, key)
        :ok

      {:error, _reason} = error ->
        :ets.insert(@table, {key, value, now()})

        Logger.warning(
          "Config update failed, cached as pending: #{inspect(path)} -> #{inspect(value)}"
        )

        error
    end
  end

  @doc """
  Deletes the entries that are older than 300 seconds.
  """
  @spec cleanup_expired_cache() :: :ok
  def cleanup_expired_cache do
    :ets.select_delete(@table, [
      {{:_, :_, :"$1"}, [{:is_integer, :"$1"}, {:<, :"$1", now() - @ttl_seconds}], [true]}
    ])

    Logger.debug("Expired cache entries cleaned up")
    :ok
  end

  @doc """
  Tries the kept updates again; those that succeed are forgotten.
  """
  @spec retry_pending_updates() :: :ok
  def retry_pending_updates do
    pending =
      :ets.select(@table, [{{{:pending_update, :"$1"}, :"$2", :_}, [], [{{:"$1", :"$2"}}]}])

    Logger.debug("Retrying #{length(pending)} pending updates")
    applied = Enum.count(pending, fn {path, value} -> applied?(path, value) end)
    Logger.info("Retry completed: #{applied}/#{length(pending)} updates successful")
    :ok
  end

  defp applied?(path, value) do
    case Config.update(path, value) do
      :ok ->
        :ets.delete(@table, {:pending_update, path})
        Logger.debug("Successfully applied pending update: #{inspect(path)}")
        true

      {:error, reason} ->
        Logger.debug("Pending update still failed: #{inspect(path)} - #{inspect(reason)}")
        false
    end
  end

  @doc """
  Counts of entries and the table's memory in words, or `%{error: :table_not_found}`.
  """
  @spec get_cache_stats() :: map()
  def get_cache_stats do
    %{
      total_entries: :ets.info(@table, :size),
      memory_words: :ets.info(@table, :memory),
      config_cache_entries: count(:config_cache),
      pending_update_entries: count(:pending_update)
    }
  rescue
    ArgumentError -> %{error: :table_not_found}
  end

  defp count(kind), do: :ets.select_count(@table, [{{{kind, :_}, :_, :_}, [], [true]}])

  defp cached(path) do
    key = {:config_cache, path}

    case :ets.lookup(@table, key) do
      [{^key, value, seconds}] ->
        if now() - seconds <= @ttl_seconds do
          Logger.debug("Using cached config value for path: #{inspect(path)}")
          {:ok, value}
        else
          :ets.delete(@table, key)
          Logger.warning("Cache expired for path: #{inspect(path)}")
          unavailable("Configuration cache expired", path)
        end

      [] ->
        Logger.warning("No cached value available for path: #{inspect(path)}")
        unavailable("Configuration not available", path)
    end
  end

  defp unavailable(message, path) do
    {:error,
     Error.new(
       error_type: :config_unavailable,
       message: message,
       context: %{path: path},
       category: :config,
       subcategory: :access,
       severity: :medium
     )}
  end

  defp now, do: System.system_time(:second)
end

defmodule Foundation.Infrastructure.RateLimiter.HammerBackend do
  @moduledoc """
  Counters in fixed windows: Hammer's when the host application has it, else the same by this process.

  A key's window of `scale` milliseconds begins at multiples of `scale` on the system clock. Expired counters are removed
  every `clean_period` milliseconds, 60,000 by default.
  """

  use GenServer

  alias Foundation.Host

  @table __MODULE__
  @clean_period 60_000

  @doc """
  Starts the counters.
  """
  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(opts \\ []) do
    GenServer.start_link(__MODULE__, Keyword.get(opts, :clean_period, @clean_period),
      name: __MODULE__
    )
  end

  @doc """
  Counts `increment`: `{:allow, count}`, or `{:deny, ms}` until the window ends.
  """
  @spec hit(term(), pos_integer(), pos_integer(), pos_integer()) ::
          {:allow, pos_integer()} | {:deny, non_neg_integer()}
  def hit(key, scale, limit, increment \\ 1) do
    case Host.module(:hammer) do
      nil -> hit_own(key, scale, limit, increment)
      windows -> windows.hit(@table, key, scale, limit, increment)
    end
  end

  @doc """
  Counts `increment` without a limit; the count comes back.
  """
  @spec inc(term(), pos_integer(), pos_integer()) :: pos_integer()
  def inc(key, scale, increment \\ 1), do: inc(key, scale, increment, now())

  @doc """
  Sets the count of the present window.
  """
  @spec set(term(), pos_integer(), non_neg_integer()) :: non_neg_integer()
  def set(key, scale, count) do
    now = now()
    :ets.insert(@table, {{key, div(now, scale)}, count, window_end(now, scale)})
    count
  end

  @doc """
  The count of the present window.
  """
  @spec get(term(), pos_integer()) :: non_neg_integer()
  def get(key, scale) do
    case :ets.lookup(@table, {key, div(now(), scale)}) do
      [{_key, count, _expires_at}] -> count
      [] -> 0
    end
  end

  defp hit_own(key, scale, limit, increment) do
    now = now()
    count = inc(key, scale, increment, now)
    if count <= limit, do: {:allow, count}, else: {:deny, window_end(now, scale) - now}
  end

  defp inc(key, scale, increment, now) do
    key = {key, div(now, scale)}
    :ets.update_counter(@table, key, increment, {key, 0, window_end(now, scale)})
  end

  defp window_end(now, scale), do: (div(now, scale) + 1) * scale
  defp now, do: System.system_time(:millisecond)

  ## Callbacks

  @impl GenServer
  def init(clean_period) do
    :ets.new(@table, [
      :named_table,
      :public,
      :set,
      read_concurrency: true,
      write_concurrency: true,
      decentralized_counters: true
    ])

    Process.send_after(self(), :clean, clean_period)
    {:ok, clean_period}
  end

  @impl GenServer
  def handle_info(:clean, clean_period) do
    :ets.select_delete(@table, [{{:_, :_, :"$1"}, [], [{:<, :"$1", now()}]}])
    Process.send_after(self(), :clean, clean_period)
    {:noreply, clean_period}
  end

  def handle_info(_message, clean_period), do: {:noreply, clean_period}
end

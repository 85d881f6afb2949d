defmodule Foundation.Optimizer do
  @moduledoc """
  Looks at the cluster a minute after the start and then every hour, and logs what could be set better.

  It changes nothing: Horde takes its settings when it starts. There is one rule, for Horde's `sync_interval` (`config :foundation,
  horde: [sync_interval: ms]`, Horde's own default of 300 otherwise):

  | nodes | churn | milliseconds |
  |---|---|---|
  | more than 50 | `:low` | 5000 |
  | fewer than 10 | `:high` | 250 |
  | otherwise | | 1000 |

  Without Horde nothing is recommended: our own engine sends a change when there is one, at no interval. Runs only with clustering on.
  """

  use GenServer

  alias Foundation.{HealthMonitor, Host}
  require Logger

  @first_ms 60_000
  @interval_ms 3_600_000
  @horde_default_ms 300

  @type recommendation :: %{
          type: :set_horde_sync_interval,
          value: pos_integer(),
          reason: String.t()
        }

  @doc false
  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(opts), do: GenServer.start_link(__MODULE__, opts, name: __MODULE__)

  @doc """
  What is recommended for the cluster as it is now. Also logs it.
  """
  @spec optimize() :: [recommendation()]
  def optimize do
    Logger.info("Foundation Optimizer: Analyzing cluster for performance improvements...")

    if Host.module(:horde) do
      recommendations = recommendations(HealthMonitor.cluster_metrics(), sync_interval())
      Enum.each(recommendations, &log/1)
      recommendations
    else
      []
    end
  end

  @doc """
  What is recommended for such metrics and a sync interval in milliseconds.
  """
  @spec recommendations(map(), pos_integer()) :: [recommendation()]
  def recommendations(%{node_count: nodes, registry_churn_rate: churn}, sync_interval) do
    case interval(nodes, churn) do
      ^sync_interval ->
        []

      value ->
        [
          %{
            type: :set_horde_sync_interval,
            value: value,
            reason: "Cluster size is #{nodes} with #{churn} churn."
          }
        ]
    end
  end

  @doc """
  The sync interval that Horde was started with, milliseconds.
  """
  @spec sync_interval() :: pos_integer()
  def sync_interval do
    :horde |> Foundation.Settings.get() |> Map.new() |> Map.get(:sync_interval, @horde_default_ms)
  end

  defp interval(nodes, :low) when nodes > 50, do: 5000
  defp interval(nodes, :high) when nodes < 10, do: 250
  defp interval(_nodes, _churn), do: 1000

  defp log(%{type: :set_horde_sync_interval, value: value, reason: reason}) do
    Logger.warning(
      "OPTIMIZATION: #{reason} Recommending Horde sync interval change to #{value}ms. " <>
        "Manual restart of Horde required to apply."
    )
  end

  @impl true
  def init(opts) do
    Process.send_after(self(), :optimize, Keyword.get(opts, :first, @first_ms))
    {:ok, Keyword.get(opts, :interval, @interval_ms)}
  end

  @impl true
  def handle_info(:optimize, interval) do
    # In a process of its own: a node that does not answer must not hold up this one.
    Task.Supervisor.start_child(Foundation.TaskSupervisor, __MODULE__, :optimize, [])
    Process.send_after(self(), :optimize, interval)
    {:noreply, interval}
  end

  def handle_info(_message, interval), do: {:noreply, interval}
end

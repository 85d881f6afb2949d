defmodule Foundation.Host do
  @moduledoc """
  The optional libraries: the host application's own when it has them, small equivalents when not.

  | library | used for | otherwise |
  |---|---|---|
  | `:telemetry` | emitting events | `Foundation.Host.Telemetry` keeps the handlers itself |
  | `Jason` | JSON of fallback events and of the HTTP mock | `Foundation.Host.Json` |
  | `:fuse` | circuit breakers | `Foundation.Infrastructure.Fuse` |
  | `:poolboy` | connection pools | `Foundation.Infrastructure.Pool` |
  | `Hammer` 7 | rate limits | the same fixed windows in `Foundation.Infrastructure.RateLimiter.HammerBackend` |
  | `Phoenix.PubSub` | messages between nodes | `Foundation.PubSub` speaks its protocol itself |
  | Horde | processes and names of the whole cluster | `Foundation.ProcessManager.Keeper` |
  | libcluster | finding nodes | `Foundation.Cluster.Epmd`: listed nodes, and those of this host |
  | mdns_lite | finding nodes by multicast DNS, together with libcluster: `Foundation.Strategy.MdnsLite` | not done |

  What is there is found out once, when the application starts. `config :foundation, use_host_libraries: false` never uses them.
  """

  require Logger

  @libraries [
    telemetry: :telemetry,
    jason: Jason,
    fuse: :fuse,
    poolboy: :poolboy,
    hammer: Hammer.ETS.FixWindow,
    phoenix_pubsub: Phoenix.PubSub,
    horde: Horde.DynamicSupervisor,
    libcluster: Cluster.Supervisor,
    mdns_lite: MdnsLite
  ]

  @type library ::
          :telemetry
          | :jason
          | :fuse
          | :poolboy
          | :hammer
          | :phoenix_pubsub
          | :horde
          | :libcluster
          | :mdns_lite

  @doc """
  Looks for the libraries and starts those that are applications of their own.
  """
  @spec detect() :: :ok
  def detect do
    wanted? = Foundation.Settings.get(:use_host_libraries)

    for {library, module} <- @libraries do
      found = if wanted? and usable?(library, module), do: module
      :persistent_term.put({__MODULE__, library}, found)
    end

    :ok
  end

  @doc """
  The module of a library, or `nil`. Its functions are called through this, so that nothing here depends on it.
  """
  @spec module(library()) :: module() | nil
  def module(library) do
    case :persistent_term.get({__MODULE__, library}, :unknown) do
      :unknown ->
        detect()
        :persistent_term.get({__MODULE__, library})

      known ->
        known
    end
  end

  defp usable?(library, module) do
    Code.ensure_loaded?(module) and started?(library)
  end

  # Opens sockets: its strategy starts it.
  defp started?(:mdns_lite), do: true

  defp started?(library) do
    with {:error, reason} <- Application.ensure_all_started(library) do
      Logger.warning(
        "Foundation does not use #{library}, which cannot be started: #{inspect(reason)}"
      )

      false
    else
      {:ok, _started} -> true
    end
  end
end

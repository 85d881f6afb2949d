defmodule Foundation do
  @moduledoc """
  Infrastructure services for Elixir applications: configuration, events, metrics, registries, circuit breakers, rate
  limits and pools.

  The application starts them; nothing has to be called first. Each has its own module: `Foundation.Config`,
  `Foundation.Events`, `Foundation.Telemetry`, `Foundation.ServiceRegistry`, `Foundation.Infrastructure`. The functions here look at
  all of them together.
  """

  alias Foundation.{Config, ErrorContext, Events, Telemetry}
  alias Foundation.Types.Error

  @doc """
  Starts what is not running. `config:` is given to `Foundation.Config.initialize/1`.
  """
  @spec initialize(keyword()) :: :ok | {:error, Error.t()}
  def initialize(opts \\ []) do
    with :ok <- Config.initialize(Keyword.get(opts, :config, [])),
         :ok <- Events.initialize() do
      Telemetry.initialize()
    end
  end

  @doc """
  `%{config: _, events: _, telemetry: _}` with the status of each, or the first one's error.
  """
  @spec status() :: {:ok, map()} | {:error, Error.t()}
  def status do
    with {:ok, config} <- Config.status(),
         {:ok, events} <- Events.status(),
         {:ok, telemetry} <- Telemetry.status() do
      {:ok, %{config: config, events: events, telemetry: telemetry}}
    end
  end

  @doc """
  Whether all three services are running.
  """
  @spec available?() :: boolean()
  def available?, do: Config.available?() and Events.available?() and Telemetry.available?()

  @doc """
  The version of the library.
  """
  @spec version() :: String.t()
  def version, do: :foundation |> Application.spec(:vsn) |> to_string()

  @doc """
  `initialize/1` for supervisors' callers of 1.x: `{:ok, self()}`, there is no process of its own.
  """
  @spec start_link(keyword()) :: {:ok, pid()} | {:error, Foundation.Error.t()}
  def start_link(opts \\ []) do
    context = ErrorContext.new(__MODULE__, :start_link, metadata: %{opts: opts})

    ErrorContext.with_context(context, fn ->
      :ok = initialize(opts)
      {:ok, self()}
    end)
  end

  @doc """
  Stops the supervision tree.
  """
  @spec shutdown() :: :ok
  def shutdown do
    with pid when is_pid(pid) <- Process.whereis(Foundation.Supervisor),
         do: Supervisor.stop(pid, :normal)

    :ok
  end

  @doc """
  The status of the services with versions, and `status: :healthy | :degraded`.
  """
  @spec health() :: {:ok, map()} | {:error, Error.t()}
  def health do
    with {:ok, services} <- status() do
      running? = Enum.all?(services, fn {_name, service} -> service[:status] == :running end)

      {:ok,
       %{
         status: if(running?, do: :healthy, else: :degraded),
         timestamp: System.monotonic_time(:millisecond),
         services: services,
         foundation_available: available?(),
         elixir_version: System.version(),
         otp_release: System.otp_release()
       }}
    end
  end
end

defmodule Foundation.Services.ConfigServer do
  @moduledoc """
  The process that holds the configuration. `Foundation.Config` is its public face.

  Calls it answers, in any namespace: `:get_config`, `{:get_config_path, path}`, `{:update_config, path, value}`,
  `:reset_config`, `{:subscribe, pid}`, `{:unsubscribe, pid}`, `:get_status`, `:reset_state`. Any other call is logged and
  answered with `{:error, :unauthorized_access}`.

  Subscribers are monitored and get `{:config_notification, {:config_updated, path, value}}` and
  `{:config_notification, {:config_reset, config}}`. Each change is also stored as an event (`:config_updated`, `:config_reset`)
  and counted (`[:foundation, :config_updates]`, `[:foundation, :config_resets]`).
  """

  use GenServer

  alias Foundation.Contracts.Configurable
  alias Foundation.Logic.ConfigLogic
  alias Foundation.Services.{EventStore, Lifecycle, TelemetryService}
  alias Foundation.Types.{Config, Error}
  alias Foundation.Validation.ConfigValidator
  require Logger

  @behaviour Configurable

  @not_started "Configuration service not started"

  ## Configurable

  @impl Configurable
  @spec get() :: {:ok, Config.t()} | {:error, Error.t()}
  def get, do: call(:get_config)

  @impl Configurable
  @spec get([atom()]) :: {:ok, term()} | {:error, Error.t()}
  def get(path) when is_list(path), do: call({:get_config_path, path})

  @impl Configurable
  @spec update([atom()], term()) :: :ok | {:error, Error.t()}
  def update(path, value) when is_list(path), do: call({:update_config, path, value})

  @impl Configurable
  @spec validate(Config.t()) :: :ok | {:error, Error.t()}
  defdelegate validate(config), to: ConfigValidator

  @impl Configurable
  @spec updatable_paths() :: [[atom(), ...], ...]
  defdelegate updatable_paths(), to: ConfigLogic

  @impl Configurable
  @spec reset() :: :ok | {:error, Error.t()}
  def reset, do: call(:reset_config)

  @impl Configurable
  @spec available?() :: boolean()
  def available?, do: Lifecycle.available?(:config_server)

  ## The service

  @doc """
  Starts the service unless it runs. Options replace whole sections of the configuration.
  """
  @spec initialize(keyword()) :: :ok | {:error, Error.t()}
  def initialize(opts \\ []) when is_list(opts) do
    opts = Keyword.put(opts, :namespace, :production)

    Lifecycle.initialize(__MODULE__, {:production, :config_server}, opts, fn reason ->
      unavailable("Failed to start ConfigServer: #{inspect(reason)}")
    end)
  end

  @doc """
  Uptime, number of updates and of subscribers.
  """
  @spec status() :: {:ok, map()} | {:error, Error.t()}
  def status, do: call(:get_status)

  @doc """
  Subscribes a process, the caller by default. Again has no effect.
  """
  @spec subscribe(pid()) :: :ok | {:error, Error.t()}
  def subscribe(pid \\ self()), do: call({:subscribe, pid})

  @doc """
  Ends a subscription.
  """
  @spec unsubscribe(pid()) :: :ok | {:error, Error.t()}
  def unsubscribe(pid \\ self()), do: call({:unsubscribe, pid})

  @doc """
  Starts afresh, subscribers included. Only with `config :foundation, test_mode: true`, else an error
  `:operation_forbidden`, code 5002.
  """
  @spec reset_state() :: :ok | {:error, Error.t()}
  def reset_state, do: Lifecycle.in_test_mode(5002, fn -> call(:reset_state) end)

  @doc """
  Starts the server under `{:config_server}` of the option `namespace`, `:production` by default.
  """
  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(opts \\ []), do: Lifecycle.start_link(__MODULE__, :config_server, opts)

  @doc """
  Stops the server of `:production`.
  """
  @spec stop() :: :ok
  def stop, do: Lifecycle.stop(:config_server)

  defp call(request),
    do: Lifecycle.call(:config_server, request, fn -> unavailable(@not_started) end)

  defp unavailable(message) do
    {:error,
     Error.new(
       code: 5000,
       error_type: :service_unavailable,
       message: message,
       severity: :high,
       category: :system,
       subcategory: :initialization
     )}
  end

  ## Callbacks

  @impl GenServer
  def init(opts) do
    namespace = Keyword.get(opts, :namespace, :production)

    # The namespace among them: `Config.get/0` shows it as in 1.x, until the first update or reset.
    case fresh(namespace, opts) do
      {:ok, state} ->
        Logger.info(
          "Configuration server initialized successfully in namespace #{inspect(namespace)}"
        )

        {:ok, state}

      {:error, error} ->
        Logger.error("Failed to initialize configuration: #{inspect(error)}")
        {:stop, {:config_validation_failed, error}}
    end
  end

  defp fresh(namespace, sections) do
    with {:ok, config} <- ConfigLogic.start_config(sections) do
      {:ok,
       %{
         config: config,
         app: ConfigLogic.app_namespaces(),
         subscribers: [],
         monitors: %{},
         namespace: namespace,
         metrics: %{start_time: now(), updates_count: 0, last_update: nil}
       }}
    end
  end

  @impl GenServer
  def handle_call(:get_config, _from, state), do: {:reply, {:ok, state.config}, state}

  def handle_call({:get_config_path, path}, _from, state) do
    {:reply, value(state, path), state}
  end

  def handle_call({:update_config, path, value}, _from, state) do
    case put(state, path, value) do
      {:ok, updated} ->
        metrics = %{
          state.metrics
          | updates_count: state.metrics.updates_count + 1,
            last_update: now()
        }

        announce(state.subscribers, {:config_updated, path, value})

        record(state, :config_updated, [:foundation, :config_updates], %{path: path}, %{
          path: path,
          new_value: value,
          previous_value: value(state, path),
          timestamp: now()
        })

        {:reply, :ok, %{updated | metrics: metrics}}

      {:error, _reason} = error ->
        {:reply, error, state}
    end
  end

  def handle_call(:reset_config, _from, state) do
    config = ConfigLogic.reset_config()
    count = %{reset_from_updates_count: state.metrics.updates_count}
    announce(state.subscribers, {:config_reset, config})

    record(
      state,
      :config_reset,
      [:foundation, :config_resets],
      count,
      Map.put(count, :timestamp, now())
    )

    {:reply, :ok, %{state | config: config, app: ConfigLogic.app_namespaces()}}
  end

  def handle_call({:subscribe, pid}, _from, state) do
    if pid in state.subscribers do
      {:reply, :ok, state}
    else
      monitors = Map.put(state.monitors, Process.monitor(pid), pid)
      {:reply, :ok, %{state | subscribers: [pid | state.subscribers], monitors: monitors}}
    end
  end

  def handle_call({:unsubscribe, pid}, _from, state) do
    {gone, monitors} = Enum.split_with(state.monitors, &match?({_ref, ^pid}, &1))
    for {ref, _pid} <- gone, do: Process.demonitor(ref, [:flush])

    {:reply, :ok,
     %{state | subscribers: List.delete(state.subscribers, pid), monitors: Map.new(monitors)}}
  end

  def handle_call(:reset_state, _from, state) do
    case fresh(state.namespace, []) do
      {:ok, state} -> {:reply, :ok, state}
      {:error, _reason} = error -> {:reply, error, state}
    end
  end

  def handle_call(:get_status, _from, state) do
    {:reply,
     {:ok,
      %{
        status: :running,
        uptime_ms: now() - state.metrics.start_time,
        updates_count: state.metrics.updates_count,
        last_update: state.metrics.last_update,
        subscribers_count: length(state.subscribers)
      }}, state}
  end

  def handle_call(request, _from, state) do
    Logger.warning("Unauthorized or invalid request to ConfigServer: #{inspect(request)}")
    {:reply, {:error, :unauthorized_access}, state}
  end

  @impl GenServer
  def handle_info({:DOWN, ref, :process, pid, _reason}, state) do
    {:noreply,
     %{
       state
       | subscribers: List.delete(state.subscribers, pid),
         monitors: Map.delete(state.monitors, ref)
     }}
  end

  def handle_info(message, state) do
    Logger.warning("Unexpected message in ConfigServer: #{inspect(message)}")
    {:noreply, state}
  end

  # A path under a namespace that the application declared has no schema.
  defp value(%{app: app}, [name | _rest] = path) when is_map_key(app, name),
    do: ConfigLogic.get_config_value(app, path)

  defp value(state, path), do: ConfigLogic.get_config_value(state.config, path)

  defp put(%{app: app} = state, [name | _rest] = path, value) when is_map_key(app, name) do
    with {:ok, app} <- ConfigLogic.update_namespace(app, path, value),
         do: {:ok, %{state | app: app}}
  end

  defp put(state, path, value) do
    with {:ok, config} <- ConfigLogic.update_config(state.config, path, value),
         do: {:ok, %{state | config: config}}
  end

  defp announce(subscribers, message) do
    for pid <- subscribers, do: send(pid, {:config_notification, message})
  end

  # The event store and telemetry may be down or restarting; a change of configuration goes through all the same.
  defp record(_state, event_type, counter, metadata, data) do
    with true <- EventStore.available?(),
         {:ok, event} <- Foundation.Events.new_event(event_type, data),
         {:error, error} <- EventStore.store(event) do
      Logger.warning("Failed to emit config event: #{inspect(error)}")
    else
      {:error, error} -> Logger.warning("Failed to create config event: #{inspect(error)}")
      _stored_or_unavailable -> :ok
    end

    if TelemetryService.available?(), do: TelemetryService.emit_counter(counter, metadata)
  catch
    kind, reason ->
      Logger.warning("Failed to record #{event_type}: #{Exception.format_banner(kind, reason)}")
  end

  defp now, do: System.monotonic_time(:millisecond)
end

defmodule Foundation.Infrastructure.ConnectionManager do
  @moduledoc """
  Named pools of workers.

  `with_connection/3` runs its function inside this process, one at a time over all pools: 1.x does so, and users rely on
  the exclusion. What runs long belongs into the worker, behind a message.

  Emits `[:foundation, :foundation, :connection_pool, event]`: `:pool_started`, `:pool_stopped`, `:checkout` with `%{checkout_time: native}`,
  `:checkin`, `:timeout` with `%{timeout: ms}`; metadata `%{pool_name: _}`, and `config` for `:pool_started`.
  """

  use GenServer

  alias Foundation.Infrastructure.Pool
  alias Foundation.Services.TelemetryService
  require Logger

  @type pool_name :: atom()
  @type pool_config :: [
          size: non_neg_integer(),
          max_overflow: non_neg_integer(),
          worker_module: module(),
          worker_args: term(),
          strategy: :lifo | :fifo
        ]
  @type pool_status :: %{
          size: non_neg_integer(),
          overflow: non_neg_integer(),
          workers: non_neg_integer(),
          waiting: non_neg_integer(),
          monitors: non_neg_integer()
        }

  @defaults [size: 5, max_overflow: 10, strategy: :lifo]
  @default_timeout 5_000

  @doc false
  @spec start_link(keyword()) :: GenServer.on_start()
  def start_link(opts \\ []), do: GenServer.start_link(__MODULE__, opts, name: __MODULE__)

  @doc """
  Starts a pool.

  | error | when |
  |---|---|
  | `:already_exists` | the name is taken |
  | `{:invalid_config, key, message}` | `size` or `max_overflow` is no non-negative integer |
  | `{:invalid_worker_module, module}` | the module cannot be loaded |
  | any other | the pool or a worker did not start |
  """
  @spec start_pool(pool_name(), pool_config()) :: {:ok, pid()} | {:error, term()}
  def start_pool(pool_name, config),
    do: GenServer.call(__MODULE__, {:start_pool, pool_name, config})

  @doc """
  Stops a pool and its workers.
  """
  @spec stop_pool(pool_name()) :: :ok | {:error, :not_found}
  def stop_pool(pool_name), do: GenServer.call(__MODULE__, {:stop_pool, pool_name})

  @doc """
  Runs a function of a worker taken out of a pool.

  `{:error, reason}` with `:pool_not_found`, `:checkout_timeout` (no worker within `timeout`), the exception that the function
  raised, or the reason with which it exited.
  """
  @spec with_connection(pool_name(), (pid() -> term()), pos_integer()) ::
          {:ok, term()} | {:error, term()}
  def with_connection(pool_name, fun, timeout \\ @default_timeout) do
    # A fifth more than the checkout may take, 0.5 to 2 seconds, for the function itself.
    margin = (timeout * 0.2) |> trunc() |> max(500) |> min(2000)
    GenServer.call(__MODULE__, {:with_connection, pool_name, fun, timeout}, timeout + margin)
  end

  @doc """
  `size` is the number of free workers, `workers` of those beyond the pool's size, `waiting` of those taken out; the names
  are 1.x's.
  """
  @spec get_pool_status(pool_name()) :: {:ok, pool_status()} | {:error, :not_found}
  def get_pool_status(pool_name), do: GenServer.call(__MODULE__, {:get_pool_status, pool_name})

  @doc """
  The names of the pools.
  """
  @spec list_pools() :: [pool_name()]
  def list_pools, do: GenServer.call(__MODULE__, :list_pools)

  ## Callbacks. State: pools by name

  @impl GenServer
  def init(_opts) do
    Logger.info("ConnectionManager started")
    {:ok, %{pools: %{}, configs: %{}}}
  end

  @impl GenServer
  def handle_call({:start_pool, name, _config}, _from, %{pools: pools} = state)
      when is_map_key(pools, name) do
    {:reply, {:error, :already_exists}, state}
  end

  def handle_call({:start_pool, name, config}, _from, state) do
    case start(name, config) do
      {:ok, pool} ->
        Logger.info("Started connection pool: #{name}")
        emit(:pool_started, %{}, %{pool_name: name, config: config})

        {:reply, {:ok, pool},
         %{
           state
           | pools: Map.put(state.pools, name, pool),
             configs: Map.put(state.configs, name, config)
         }}

      {:error, reason} = error ->
        Logger.error("Failed to start pool #{name}: #{inspect(reason)}")
        {:reply, error, state}
    end
  end

  def handle_call(:list_pools, _from, state), do: {:reply, Map.keys(state.pools), state}

  def handle_call({request, name}, _from, state) when request in [:stop_pool, :get_pool_status] do
    case state.pools do
      %{^name => pool} when request == :stop_pool ->
        Pool.stop(pool)
        Logger.info("Stopped connection pool: #{name}")
        emit(:pool_stopped, %{}, %{pool_name: name})

        {:reply, :ok,
         %{
           state
           | pools: Map.delete(state.pools, name),
             configs: Map.delete(state.configs, name)
         }}

      %{^name => pool} ->
        {_state, free, overflow, taken} = Pool.status(pool)

        {:reply,
         {:ok, %{size: free, overflow: 0, workers: overflow, waiting: taken, monitors: 0}}, state}

      _unknown ->
        {:reply, {:error, :not_found}, state}
    end
  end

  def handle_call({:with_connection, name, fun, timeout}, _from, state) do
    case state.pools do
      %{^name => pool} -> {:reply, run(name, pool, fun, timeout), state}
      _unknown -> {:reply, {:error, :pool_not_found}, state}
    end
  end

  defp start(name, config) do
    settings = Keyword.merge(@defaults, config)
    module = settings[:worker_module]

    with :ok <- check_count(:size, "Size", settings),
         :ok <- check_count(:max_overflow, "Max overflow", settings),
         :ok <- check_module(module) do
      Pool.start_link(
        [
          name: {:local, name},
          worker_module: module,
          size: settings[:size],
          max_overflow: settings[:max_overflow],
          strategy: settings[:strategy]
        ],
        Keyword.get(settings, :worker_args, [])
      )
    end
  rescue
    exception -> {:error, exception}
  end

  defp check_count(key, label, settings) do
    count = settings[key]

    if is_integer(count) and count >= 0,
      do: :ok,
      else: {:error, {:invalid_config, key, "#{label} must be a non-negative integer"}}
  end

  defp check_module(module) do
    case Code.ensure_compiled(module) do
      {:module, _module} -> :ok
      _error -> {:error, {:invalid_worker_module, module}}
    end
  end

  defp run(name, pool, fun, timeout) do
    start = System.monotonic_time()
    worker = Pool.checkout(pool, timeout)
    emit(:checkout, %{checkout_time: System.monotonic_time() - start}, %{pool_name: name})

    try do
      {:ok, fun.(worker)}
    rescue
      exception ->
        Logger.error("Function execution error in pool #{name}: #{inspect(exception)}")
        {:error, exception}
    catch
      :exit, reason ->
        Logger.warning("Worker process exited during call in pool #{name}: #{inspect(reason)}")
        {:error, reason}
    after
      Pool.checkin(pool, worker)
      emit(:checkin, %{}, %{pool_name: name})
    end
  catch
    :exit, {reason, _call} when reason in [:timeout, :noproc] ->
      emit(:timeout, %{timeout: timeout}, %{pool_name: name})
      {:error, :checkout_timeout}

    :exit, reason ->
      Logger.error("Connection pool error for #{name}: #{inspect(reason)}")
      {:error, reason}
  end

  defp emit(event, measurements, metadata) do
    TelemetryService.execute(
      [:foundation, :foundation, :connection_pool, event],
      measurements,
      metadata
    )
  end
end

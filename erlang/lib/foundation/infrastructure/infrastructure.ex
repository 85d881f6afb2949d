defmodule Foundation.Infrastructure do
  @moduledoc """
  Running functions under protection: rate limit, then circuit breaker, then connection pool.

      :ok = Foundation.Infrastructure.initialize_circuit_breaker(:gemini, %{failure_threshold: 3, recovery_time: 30_000})

      Foundation.Infrastructure.execute_protected(
        :gemini_call,
        [circuit_breaker: :gemini, rate_limiter: {:gemini_calls, "user_1"}],
        fn -> ask_gemini() end
      )

  | `error_type` of `initialize_circuit_breaker/2`, code `nil` | when |
  |---|---|
  | `:already_exists` | the name is taken, open or closed |
  | `:invalid_configuration` | a threshold or time is missing or no positive integer |
  | `:invalid_arguments`, `:invalid_name` | arguments of other types |
  | `:circuit_breaker_init_failed` | the engine refused |

  Emits `[:foundation, :foundation, :infrastructure, event]`: `:execute_start`, `:execute_stop`, `:execute_exception`,
  `:protection_triggered`, `:infrastructure_initialized`.
  """

  alias Foundation.Host
  alias Foundation.Infrastructure.{CircuitBreaker, ConnectionManager, Fuse, RateLimiter}
  alias Foundation.Services.TelemetryService
  alias Foundation.Types.Error
  require Logger

  @type protection_key :: atom()
  @type protection_options :: [
          circuit_breaker: atom(),
          rate_limiter: {atom(), term()},
          connection_pool: atom(),
          timeout: pos_integer()
        ]
  @type protection_config :: %{
          circuit_breaker: map(),
          rate_limiter: map(),
          connection_pool: map()
        }

  @configs __MODULE__.ConfigAgent
  @default_timeout 5_000
  # The limit of execute_protected/3; check_rate/5 takes any other.
  @limit 100
  @window_ms 60_000
  @default_breaker %{failure_threshold: 5, recovery_time: 30_000}

  ## Engines

  @doc """
  Starts what the engines need. The application has done so already; this is for callers of 1.x.
  """
  @spec initialize_all_infra_components() :: {:ok, []} | {:error, term()}
  def initialize_all_infra_components do
    if Application.get_env(:hammer, :backend) == nil do
      settings = [expiry_ms: 7_200_000, cleanup_interval_ms: 600_000]
      Application.put_env(:hammer, :backend, {Hammer.Backend.ETS, settings})
    end

    if Host.module(:fuse), do: {:ok, _started} = Application.ensure_all_started(:fuse)

    emit(:infrastructure_initialized, %{config: %{}, components: [:fuse, :hammer]}, %{})
    {:ok, []}
  rescue
    exception -> {:error, {:infrastructure_init_failed, exception}}
  end

  @doc """
  `%{fuse: :running | :not_started, hammer: :configured | :not_configured, timestamp: ms}`.
  """
  @spec get_infrastructure_status() :: {:ok, map()}
  def get_infrastructure_status do
    {:ok,
     %{
       fuse: if(Fuse.running?(), do: :running, else: :not_started),
       hammer: if(Application.get_env(:hammer, :backend), do: :configured, else: :not_configured),
       timestamp: System.system_time(:millisecond)
     }}
  end

  ## Running

  @doc """
  Runs a function under the protections that the options name.

  `rate_limiter: {rule, id}` allows 100 calls in 60 seconds for each pair. `circuit_breaker:` and `connection_pool:` must
  exist. `timeout:` is that of taking a connection out, 5000 ms by default.

  | result | when |
  |---|---|
  | `{:ok, value}` | the function returned |
  | `{:error, %Foundation.Types.Error{}}` | 6001 limit exceeded; 5003, 5004, 5005, 5012 circuit breaker |
  | `{:error, {:execution_error, exception}}` | it raised, without breaker and pool |
  | `{:error, {:rate_limit_error, error}}` | the limiter failed |
  | `{:error, {:exception, exception}}` | the protections failed |
  | `{:error, reason}` | the pool's, see `Foundation.Infrastructure.ConnectionManager.with_connection/3` |
  """
  @spec execute_protected(protection_key(), protection_options(), Foundation.Types.work(term())) ::
          {:ok, term()} | {:error, term()}
  def execute_protected(protection_key, options, fun) do
    start = System.monotonic_time()
    key = %{protection_key: protection_key}
    emit(:execute_start, key, %{options: describe(options)})

    try do
      with :ok <- check_rate(Keyword.get(options, :rate_limiter)), do: run(options, fun)
    rescue
      exception ->
        duration = System.monotonic_time() - start
        emit(:execute_exception, key, %{duration: duration, error: inspect(exception)})
        {:error, {:exception, exception}}
    else
      {:ok, _value} = success ->
        duration = System.monotonic_time() - start
        emit(:execute_stop, key, %{duration: duration, success: true})
        success

      {:error, reason} = error ->
        duration = System.monotonic_time() - start
        emit(:execute_stop, key, %{duration: duration, success: false, reason: reason})
        error
    end
  end

  # What is neither is the caller's mistake, and 1.x says so with this exception.
  defp check_rate(rate_limiter) do
    case rate_limiter do
      nil -> :ok
      {rule, identifier} -> check_rate(rule, identifier)
    end
  end

  defp check_rate(rule, identifier) do
    case RateLimiter.check_rate(identifier, rule, @limit, @window_ms) do
      :ok ->
        :ok

      {:error, %Error{error_type: :rate_limit_exceeded}} = error ->
        emit(:protection_triggered, %{protection_type: :rate_limit}, %{
          rule_name: rule,
          identifier: identifier
        })

        error

      {:error, reason} ->
        {:error, {:rate_limit_error, reason}}
    end
  end

  defp run(options, fun) do
    case options[:circuit_breaker] do
      nil ->
        run_in_pool(options, fun)

      breaker ->
        with {:ok, result} <-
               CircuitBreaker.execute(breaker, fn -> run_in_pool(options, fun) end),
             do: result
    end
  end

  defp run_in_pool(options, fun) do
    case options[:connection_pool] do
      nil ->
        try do
          {:ok, fun.()}
        rescue
          exception -> {:error, {:execution_error, exception}}
        end

      pool ->
        timeout = Keyword.get(options, :timeout, @default_timeout)
        ConnectionManager.with_connection(pool, fn _worker -> fun.() end, timeout)
    end
  end

  defp describe(options) when is_list(options) do
    options |> Keyword.take([:circuit_breaker, :connection_pool, :timeout]) |> Map.new()
  end

  defp describe(other), do: %{options: inspect(other)}

  ## Configurations

  @doc """
  Keeps a configuration under a key. All three parts are required:

      %{
        circuit_breaker: %{failure_threshold: 5, recovery_time: 30_000},
        rate_limiter: %{scale: 60_000, limit: 100},
        connection_pool: %{size: 10, max_overflow: 5}
      }

  Errors: `:invalid_config_format`, `:missing_required_keys`, `:invalid_circuit_breaker_config`, `:invalid_rate_limiter_config`,
  `:invalid_connection_pool_config`. `execute_protected/3` does not read it; it is for the application to ask for. All configurations
  live as long as the process that kept the first one.
  """
  @spec configure_protection(protection_key(), protection_config()) :: :ok | {:error, atom()}
  def configure_protection(protection_key, config) do
    case check_config(config) do
      :ok ->
        {:ok, :ok} = ask_configs(&Agent.update(&1, Map, :put, [protection_key, config]))
        Logger.info("Configured protection for #{protection_key}")
        :ok

      {:error, reason} = error ->
        Logger.warning("Invalid protection config for #{protection_key}: #{inspect(reason)}")
        error
    end
  end

  @doc """
  The configuration of a key.
  """
  @spec get_protection_config(protection_key()) :: {:ok, protection_config()} | {:error, term()}
  def get_protection_config(protection_key) do
    with {:ok, nil} <- ask_configs(&Agent.get(&1, Map, :get, [protection_key])),
         do: {:error, :not_found}
  end

  @doc """
  Three maps `%{status: :unknown, message: _}`, as in 1.x: a configuration names no breaker, limiter or pool whose status could
  be given. Ask `CircuitBreaker.get_status/1` and `ConnectionManager.get_pool_status/1` by name.
  """
  @spec get_protection_status(protection_key()) :: {:ok, map()} | {:error, term()}
  def get_protection_status(protection_key) do
    with {:ok, _config} <- get_protection_config(protection_key) do
      {:ok,
       %{
         circuit_breaker: unknown("Circuit breaker"),
         rate_limiter: unknown("Rate limiter"),
         connection_pool: unknown("Connection pool")
       }}
    end
  end

  defp unknown(part), do: %{status: :unknown, message: "#{part} status not implemented"}

  @doc """
  The keys that have a configuration.
  """
  @spec list_protection_keys() :: [protection_key()]
  def list_protection_keys do
    case ask_configs(&Agent.get(&1, Map, :keys, [])) do
      {:ok, keys} -> keys
      {:error, _reason} -> []
    end
  end

  @required_keys [
    circuit_breaker: {[:failure_threshold, :recovery_time], :invalid_circuit_breaker_config},
    rate_limiter: {[:scale, :limit], :invalid_rate_limiter_config},
    connection_pool: {[:size, :max_overflow], :invalid_connection_pool_config}
  ]

  defp check_config(config) when is_map(config) do
    if Enum.all?(@required_keys, fn {part, _required} -> is_map_key(config, part) end) do
      Enum.find_value(@required_keys, :ok, fn {part, {keys, reason}} ->
        if not has_keys?(config[part], keys), do: {:error, reason}
      end)
    else
      {:error, :missing_required_keys}
    end
  end

  defp check_config(_other), do: {:error, :invalid_config_format}

  defp has_keys?(map, keys), do: is_map(map) and Enum.all?(keys, &is_map_key(map, &1))

  # The process that has the configurations may end while it is asked: its successor is, which has none.
  defp ask_configs(ask, attempts \\ 3) do
    with :ok <- ensure_configs(), do: {:ok, ask.(@configs)}
  catch
    :exit, {reason, _call} when reason != :timeout and attempts > 1 ->
      ask_configs(ask, attempts - 1)
  end

  # Linked to the process that asks first, as in 1.x: tests rely on the configurations going with it.
  defp ensure_configs do
    with nil <- Process.whereis(@configs),
         {:error, reason} <- Agent.start_link(Map, :new, [], name: @configs) do
      if match?({:already_started, _pid}, reason), do: :ok, else: {:error, reason}
    else
      _running -> :ok
    end
  end

  ## Circuit breakers

  @doc """
  Installs a circuit breaker that opens after 5 failures within 30 seconds, for 30 seconds.
  """
  @spec initialize_circuit_breaker(atom()) :: :ok | {:error, Error.t()}
  def initialize_circuit_breaker(name) when is_atom(name),
    do: initialize_circuit_breaker(name, @default_breaker)

  def initialize_circuit_breaker(name),
    do: error(:invalid_name, "Circuit breaker name must be an atom", %{name: name})

  @doc """
  Installs a circuit breaker: `%{failure_threshold: n, recovery_time: ms}`, both above zero.

  It opens at failure n + 1 within `recovery_time` and closes again after that time.
  """
  @spec initialize_circuit_breaker(atom(), map()) :: :ok | {:error, Error.t()}
  def initialize_circuit_breaker(name, config) when is_atom(name) and is_map(config) do
    with :ok <- check_name(name),
         :ok <- check_positive(config, :failure_threshold, "a positive integer"),
         :ok <- check_positive(config, :recovery_time, "a positive integer (milliseconds)"),
         :ok <- check_free(name) do
      fuse = [
        strategy: :standard,
        tolerance: config.failure_threshold,
        refresh: config.recovery_time
      ]

      case CircuitBreaker.start_fuse_instance(name, fuse) do
        :ok ->
          Logger.info(
            "Initialized circuit breaker #{inspect(name)} with config #{inspect(config)}"
          )

          :ok

        {:error, reason} ->
          error(
            :circuit_breaker_init_failed,
            "Failed to initialize circuit breaker #{inspect(name)}: #{inspect(reason)}",
            %{name: name, config: config, fuse_reason: reason}
          )
      end
    end
  end

  def initialize_circuit_breaker(name, config) do
    error(
      :invalid_arguments,
      "Circuit breaker name must be an atom and config must be a map",
      %{name: name, config: config}
    )
  end

  defp check_name(nil) do
    error(:invalid_name, "Circuit breaker name must be a non-nil atom", %{name: nil, type: :atom})
  end

  defp check_name(:""),
    do: error(:invalid_name, "Circuit breaker name cannot be an empty atom", %{name: :""})

  defp check_name(_name), do: :ok

  defp check_positive(config, key, expected) do
    case config do
      %{^key => value} when is_integer(value) and value > 0 ->
        :ok

      %{^key => value} ->
        error(:invalid_configuration, "#{key} must be #{expected}", %{
          key => value,
          type: type_of(value)
        })

      _missing ->
        error(:invalid_configuration, "#{key} is required", %{missing_key: key})
    end
  end

  defp check_free(name) do
    case CircuitBreaker.get_status(name) do
      {:error, _not_found} ->
        :ok

      :ok ->
        error(:already_exists, "Circuit breaker #{inspect(name)} already exists", %{name: name})

      :blown ->
        error(
          :already_exists,
          "Circuit breaker #{inspect(name)} already exists (currently blown)",
          %{name: name, status: :blown}
        )
    end
  end

  defp type_of(value) when is_atom(value), do: :atom
  defp type_of(value) when is_binary(value), do: :string
  defp type_of(value) when is_integer(value), do: :integer
  defp type_of(value) when is_float(value), do: :float
  defp type_of(value) when is_list(value), do: :list
  defp type_of(value) when is_map(value), do: :map
  defp type_of(value) when is_tuple(value), do: :tuple
  defp type_of(value) when is_pid(value), do: :pid
  defp type_of(value) when is_function(value), do: :function
  defp type_of(_value), do: :unknown

  defp error(error_type, message, context) do
    {:error, Error.new(error_type: error_type, message: message, context: context)}
  end

  defp emit(event, measurements, metadata) do
    TelemetryService.execute(
      [:foundation, :foundation, :infrastructure, event],
      measurements,
      metadata
    )
  end
end

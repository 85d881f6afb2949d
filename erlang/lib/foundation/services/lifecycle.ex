defmodule Foundation.Services.Lifecycle do
  @moduledoc false
  # What the three services have in common: their names, starting what does not run, calling what may not.

  alias Foundation.ServiceRegistry
  alias Foundation.Types.Error

  @type service :: :config_server | :event_store | :telemetry_service

  @doc false
  # Under the service's name in the option `namespace`.
  @spec start_link(module(), service(), keyword()) :: GenServer.on_start()
  def start_link(module, service, opts) do
    opts = Keyword.put_new(opts, :namespace, :production)
    name = ServiceRegistry.via_tuple(opts[:namespace], service)
    GenServer.start_link(module, opts, name: name)
  end

  @doc false
  @spec lookup(service(), ServiceRegistry.namespace()) :: {:ok, pid()} | {:error, Error.t()}
  def lookup(service, namespace \\ :production), do: ServiceRegistry.lookup(namespace, service)

  @doc false
  @spec available?(service()) :: boolean()
  def available?(service), do: match?({:ok, _pid}, lookup(service))

  @doc false
  # Starts it unless it runs in a namespace. `failed` makes the error of a start that went wrong.
  @spec initialize(
          module(),
          {ServiceRegistry.namespace(), service()},
          keyword(),
          (term() -> {:error, Error.t()})
        ) :: :ok | {:error, Error.t()}
  def initialize(module, {namespace, service}, opts, failed) do
    with {:error, _not_found} <- lookup(service, namespace),
         {:error, reason} <- module.start_link(opts) do
      case reason do
        {:already_started, _pid} -> :ok
        reason -> failed.(reason)
      end
    else
      {:ok, _pid} -> :ok
    end
  end

  @doc false
  # `unavailable` makes the error when it does not run.
  @spec call(service(), term(), Foundation.Types.work({:error, Error.t()})) :: term()
  def call(service, request, unavailable) do
    case lookup(service) do
      {:ok, pid} -> GenServer.call(pid, request)
      {:error, _not_found} -> unavailable.()
    end
  end

  @doc false
  @spec stop(service()) :: :ok
  def stop(service) do
    with {:ok, pid} <- lookup(service), do: GenServer.stop(pid)
    :ok
  end

  @doc false
  # For what forgets everything.
  @spec in_test_mode(pos_integer(), Foundation.Types.work(result)) :: result | {:error, Error.t()}
        when result: term()
  def in_test_mode(code, fun) do
    if Foundation.Settings.get(:test_mode) do
      fun.()
    else
      {:error,
       Error.new(
         code: code,
         error_type: :operation_forbidden,
         message: "State reset only allowed in test mode",
         severity: :high,
         category: :security,
         subcategory: :authorization
       )}
    end
  end
end

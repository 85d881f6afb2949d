defmodule Foundation.Config do
  @moduledoc """
  Reading and changing the configuration.

  Six sections with a closed schema: `ai`, `capture`, `storage`, `interface`, `dev`, `infrastructure`
  (`Foundation.Types.Config`). They start as the defaults with `config :foundation, ai: [...], …` merged in. Any path can be
  read; `updatable_paths/0` can be changed while running.

  An application's own settings go under namespaces that it declares:

      config :foundation, app_namespaces: [:my_app], my_app: [limit: 10]

      Foundation.Config.get([:my_app, :limit])          #=> {:ok, 10}
      Foundation.Config.update([:my_app, :beta, :on], true)  #=> :ok

  | error of `get/1` and `update/2` | code | when |
  |---|---|---|
  | `:config_path_not_found` | `nil` | no such path |
  | `:config_update_forbidden` | `nil` | the path is not updatable; `context.allowed_paths` lists those that are |
  | `:security_violation` | 1000, 1005 | a suspicious path, value (see `Foundation.Logic.ConfigLogic`) |
  | `:validation_failed`, `:range_error`, … | 1001–1004 | the result would be invalid (see `Foundation.Validation.ConfigValidator`) |
  | `:service_unavailable` | 5000 | the service is not running |
  """

  alias Foundation.{Channels, Cluster, Error, ProcessManager}
  alias Foundation.Services.ConfigServer
  alias Foundation.Types

  @behaviour Foundation.Contracts.Configurable

  @type config_path :: [atom()]
  @type config_value :: term()

  @forbidden_paths [
    [:ai, :api_key],
    [:storage, :encryption_key],
    [:security],
    [:system, :node_name]
  ]

  @doc """
  Starts the service unless it runs. Options replace whole sections, if it starts.
  """
  @spec initialize(keyword()) :: :ok | {:error, Types.Error.t()}
  def initialize(opts \\ []) when is_list(opts), do: ConfigServer.initialize(opts)

  @doc """
  `%{status: :running, uptime_ms: _, updates_count: _, last_update: _, subscribers_count: _}`.
  """
  @spec status() :: {:ok, map()} | {:error, Types.Error.t()}
  defdelegate status(), to: ConfigServer

  @doc """
  The six sections.
  """
  @impl true
  @spec get() :: {:ok, Types.Config.t()} | {:error, Types.Error.t()}
  defdelegate get(), to: ConfigServer

  @doc """
  The value at a path; `[]` is the six sections.
  """
  @impl true
  @spec get(config_path()) :: {:ok, config_value()} | {:error, Types.Error.t()}
  defdelegate get(path), to: ConfigServer

  @doc """
  Changes the value at an updatable path, or at any path under a declared namespace.
  """
  @impl true
  @spec update(config_path(), config_value()) :: :ok | {:error, Types.Error.t()}
  defdelegate update(path, value), to: ConfigServer

  @doc """
  Whether a configuration is valid.
  """
  @impl true
  @spec validate(Types.Config.t()) :: :ok | {:error, Types.Error.t()}
  defdelegate validate(config), to: ConfigServer

  @doc """
  The paths of the six sections that may be changed while running. A plain list.
  """
  @impl true
  @spec updatable_paths() :: [[atom(), ...], ...]
  defdelegate updatable_paths(), to: ConfigServer

  @doc """
  Back to the defaults of the library; the application's environment is not merged in again, except for its namespaces.
  """
  @impl true
  @spec reset() :: :ok | {:error, Types.Error.t()}
  defdelegate reset(), to: ConfigServer

  @doc """
  Whether the service is running.
  """
  @impl true
  @spec available?() :: boolean()
  defdelegate available?(), to: ConfigServer

  @doc """
  Subscribes the calling process to changes; see `Foundation.Services.ConfigServer` for the messages.
  """
  @spec subscribe() :: :ok | {:error, Types.Error.t()}
  defdelegate subscribe(), to: ConfigServer

  @doc """
  Ends the calling process's subscription.
  """
  @spec unsubscribe() :: :ok | {:error, Types.Error.t()}
  defdelegate unsubscribe(), to: ConfigServer

  @doc """
  The value at a path, or the default on any error.
  """
  @spec get_with_default(config_path(), config_value()) :: config_value()
  def get_with_default(path, default) do
    case get(path) do
      {:ok, value} -> value
      {:error, _error} -> default
    end
  end

  @doc """
  `update/2`, with secrets and the node's name refused by name: `%Foundation.Error{}` of type `:config_update_forbidden` (1401),
  or `:invalid_path` (9999) for what is no list.
  """
  @spec safe_update(config_path(), config_value()) ::
          :ok | {:error, Error.t() | Types.Error.t()}
  def safe_update(path, _value) when not is_list(path),
    do: Error.error_result(:invalid_path, "Invalid configuration path")

  def safe_update(path, _value) when path in @forbidden_paths,
    do: Error.error_result(:config_update_forbidden, "Configuration path update forbidden")

  def safe_update(path, value), do: update(path, value)

  @doc """
  Changes a value on all nodes: here first, and if this node takes it, on the others through the `:control` channel.

  Errors are those of `update/2`, and of `Foundation.Channels.broadcast/3` after the change here. Without clustering this node is all nodes. The last writer wins, each node for
  itself: nodes that are away, or to which two changes come in different order, end up with different values.
  """
  @spec set_cluster_wide(config_path(), config_value(), keyword()) ::
          :ok | {:error, Types.Error.t()}
  def set_cluster_wide(path, value, _opts \\ []) do
    with :ok <- update(path, value) do
      if Cluster.enabled?(),
        do: Channels.broadcast(:control, Cluster.ConfigSync.message(path, value)),
        else: :ok
    end
  end

  @doc """
  The value at a path that more than half of the nodes of the cluster have.

  Options: `required_nodes`, how many must agree instead; `timeout`, 5000 ms. It is a look, no vote: a value can change right after. Errors: that of
  `get/1` here if the path is none; `%Foundation.Types.Error{error_type: :no_consensus}` with the numbers of nodes by value in
  `context.votes`.
  """
  @spec get_with_consensus(config_path(), keyword()) ::
          {:ok, config_value()} | {:error, Types.Error.t()}
  def get_with_consensus(path, opts \\ []) do
    nodes = ProcessManager.nodes()
    required = Keyword.get(opts, :required_nodes, div(length(nodes), 2) + 1)

    with {:ok, _value} <- get(path) do
      answers =
        :erpc.multicall(nodes, __MODULE__, :get, [path], Keyword.get(opts, :timeout, 5000))

      votes = Enum.frequencies(for {:ok, {:ok, value}} <- answers, do: value)

      case Enum.max_by(votes, fn {value, count} -> {count, value} end, fn -> {nil, 0} end) do
        {value, count} when count >= required -> {:ok, value}
        _too_few -> no_consensus(path, votes, required, length(nodes))
      end
    end
  end

  defp no_consensus(path, votes, required, nodes) do
    {:error,
     Types.Error.new(
       error_type: :no_consensus,
       message:
         "Foundation.Config.get_with_consensus/2: :erpc: no #{required} of #{nodes} nodes agree on #{inspect(path)}",
       severity: :medium,
       category: :system,
       subcategory: :cluster,
       context: %{path: path, votes: votes, required_nodes: required}
     )}
  end
end

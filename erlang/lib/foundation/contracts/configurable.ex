defmodule Foundation.Contracts.Configurable do
  @moduledoc """
  What a source of configuration offers. `Foundation.Config` and `Foundation.Services.ConfigServer` implement it.
  """

  alias Foundation.Types.{Config, Error}

  @type config_path :: [atom()]
  @type config_value :: term()

  @doc "The whole configuration."
  @callback get() :: {:ok, Config.t()} | {:error, Error.t()}

  @doc "The value at a path; `[]` is the whole configuration."
  @callback get(config_path()) :: {:ok, config_value()} | {:error, Error.t()}

  @doc "Changes the value at an updatable path."
  @callback update(config_path(), config_value()) :: :ok | {:error, Error.t()}

  @doc "Whether a configuration is valid."
  @callback validate(Config.t()) :: :ok | {:error, Error.t()}

  @doc "The paths that `c:update/2` accepts."
  @callback updatable_paths() :: [config_path()]

  @doc "Back to the defaults."
  @callback reset() :: :ok | {:error, Error.t()}

  @doc "Whether the service is running."
  @callback available?() :: boolean()
end

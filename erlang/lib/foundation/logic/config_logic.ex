defmodule Foundation.Logic.ConfigLogic do
  @moduledoc """
  Reading, changing and merging configurations. Pure functions but for `build_config/1`, which reads the application's
  environment.

  Paths and values are checked before use. A path has at most 50 segments, atoms or strings, none of which contains the
  name of a system module (`System`, `File`, `Code`, `Process`, `Node`, `Kernel`), `__struct__`, `__info__` or, in strings,
  what looks like an injection. A value holds no function, no binary above 1,000,000 bytes and nests at most 20 deep.
  Violations are errors of type `:security_violation`, codes 1000 (path) and 1005 (value).
  """

  alias Foundation.Settings
  alias Foundation.Types.{Config, Error}
  alias Foundation.Validation.ConfigValidator
  require Logger

  @type config_path :: [atom()]
  @type config_value :: term()

  @updatable_paths [
    [:ai, :planning, :sampling_rate],
    [:ai, :planning, :performance_target],
    [:capture, :processing, :batch_size],
    [:capture, :processing, :flush_interval],
    [:interface, :query_timeout],
    [:interface, :max_results],
    [:dev, :debug_mode],
    [:dev, :verbose_logging],
    [:dev, :performance_monitoring],
    [:infrastructure, :rate_limiting, :enabled],
    [:infrastructure, :circuit_breaker, :enabled],
    [:infrastructure, :connection_pool, :enabled],
    [:infrastructure, :rate_limiting, :cleanup_interval]
  ]

  @max_path 50
  @max_binary 1_000_000
  @max_depth 20
  @forbidden_in_atoms ~w(Elixir.System Elixir.File Elixir.Code Elixir.Process Elixir.Node
                         Elixir.Kernel __struct__ __info__)
  @forbidden_in_strings ["../", "etc/passwd", "drop table", "<script>", "eval_string"]
  @forbidden_structs [System, File, Code, Process]

  @doc """
  The paths that may be changed while running.
  """
  @spec updatable_paths() :: [[atom(), ...], ...]
  def updatable_paths, do: @updatable_paths

  @doc """
  Whether a path is one of `updatable_paths/0`.
  """
  @spec updatable_path?(config_path()) :: boolean()
  def updatable_path?(path) when is_list(path), do: path in @updatable_paths

  @doc """
  The configuration with the value at an updatable path replaced, if the result is valid.
  """
  @spec update_config(Config.t(), config_path(), config_value()) ::
          {:ok, Config.t()} | {:error, Error.t()}
  def update_config(%Config{} = config, path, value) when is_list(path) do
    with :ok <- check_path(path),
         :ok <- check_value(value),
         :ok <- check_updatable(path),
         updated = put_in(config, path, value),
         :ok <- ConfigValidator.validate(updated) do
      {:ok, updated}
    end
  end

  @doc """
  The value at a path; `[]` is the whole configuration.
  """
  @spec get_config_value(Config.t() | map(), config_path()) ::
          {:ok, config_value()} | {:error, Error.t()}
  def get_config_value(config, path) when is_list(path) do
    with :ok <- check_path(path) do
      case fetch(config, path) do
        {:ok, value} ->
          {:ok, value}

        :error ->
          access_error(
            :config_path_not_found,
            "Configuration path not found: #{inspect(path)}",
            %{path: path}
          )
      end
    end
  rescue
    # An improper list, for one.
    exception ->
      message = Exception.message(exception)
      Logger.warning("Failed to get config value for path #{inspect(path)}: #{message}")

      access_error(
        :config_path_invalid,
        "Invalid configuration path: #{message}",
        %{path: path, error: message}
      )
  end

  def get_config_value(_config, path) do
    Logger.warning("Invalid path provided to get_config_value: #{inspect(path)}")

    {:error,
     Error.new(
       error_type: :invalid_path,
       message: "Invalid path type: #{inspect(path)}",
       context: %{path: path},
       category: :config,
       subcategory: :validation,
       severity: :medium
     )}
  end

  @doc """
  The configuration with the application's environment merged in. Keyword lists become maps; unknown keys are ignored.
  """
  @spec merge_env_config(Config.t(), keyword()) :: Config.t()
  def merge_env_config(%Config{} = config, env) when is_list(env) do
    Enum.reduce(env, config, fn {key, value}, acc ->
      case acc do
        %{^key => section} -> Map.put(acc, key, merge(section, value))
        _unknown -> acc
      end
    end)
  end

  @doc """
  The configuration with whole sections replaced.
  """
  @spec merge_opts_config(Config.t(), keyword()) :: Config.t()
  def merge_opts_config(%Config{} = config, opts) when is_list(opts) do
    Enum.reduce(opts, config, fn {key, value}, acc -> Map.put(acc, key, value) end)
  end

  @doc """
  Defaults, then the application's environment, then `opts`; validated.
  """
  @spec build_config(keyword()) :: {:ok, Config.t()} | {:error, Error.t()}
  def build_config(opts \\ []) do
    build(Application.get_all_env(:foundation), opts)
  end

  @doc false
  # As `build_config/1`, but what is wrong in the application's environment is left out: `Foundation.Settings` has said it when the application
  # started.
  @spec start_config(keyword()) :: {:ok, Config.t()} | {:error, Error.t()}
  def start_config(opts) do
    {sections, _mistakes} = Settings.sections(Application.get_all_env(:foundation))
    build(sections, opts)
  end

  defp build(env, opts) do
    config = Config.new() |> merge_env_config(env) |> merge_opts_config(opts)
    with :ok <- ConfigValidator.validate(config), do: {:ok, config}
  end

  @doc """
  The defaults, without the application's environment.
  """
  @spec reset_config() :: Config.t()
  def reset_config, do: Config.new()

  @doc """
  What differs: nested maps as the configuration, with `%{old: _, new: _, path: _}` at each leaf.
  """
  @spec diff_configs(Config.t(), Config.t()) :: map()
  def diff_configs(%Config{} = old, %Config{} = new) do
    diff(Map.from_struct(old), Map.from_struct(new), [])
  end

  ## Namespaces of the application

  @doc """
  What `config :foundation, app_namespaces: [...]` declares, with its values from the application's environment.

  Paths under a declared namespace have no schema: any path may be read, written and created. What is no atom or the name of a section is
  ignored, with an error in the log.
  """
  @spec app_namespaces() :: %{atom() => map()}
  def app_namespaces do
    sections = Map.keys(Config.new())
    declared = List.wrap(Settings.get(:app_namespaces))
    {names, others} = Enum.split_with(declared, &(is_atom(&1) and &1 not in sections))

    unless others == [] do
      Logger.error(
        "config :foundation, app_namespaces: ignores #{inspect(others)}; it takes a list of atoms, but none of #{inspect(sections)}"
      )
    end

    for name <- names, into: %{} do
      case maps(Application.get_env(:foundation, name, %{})) do
        %{} = values -> {name, values}
        _empty_list_or_no_map -> {name, %{}}
      end
    end
  end

  # Keyword lists as maps, at every level: paths go through maps only.
  defp maps([{key, _value} | _rest] = list) when is_atom(key) do
    if Keyword.keyword?(list),
      do: Map.new(list, fn {key, value} -> {key, maps(value)} end),
      else: list
  end

  defp maps(%{} = map) when not is_struct(map), do: Map.new(map, fn {k, v} -> {k, maps(v)} end)
  defp maps(value), do: value

  @doc """
  The namespaces with a value put at a path below one of them; maps on the way are created.
  """
  @spec update_namespace(map(), config_path(), config_value()) ::
          {:ok, map()} | {:error, Error.t()}
  def update_namespace(namespaces, [_name, _key | _rest] = path, value) do
    with :ok <- check_path(path),
         :ok <- check_value(value),
         do: {:ok, put(namespaces, path, value)}
  end

  def update_namespace(_namespaces, path, _value), do: check_updatable(path)

  defp put(%{} = map, [key], value), do: Map.put(map, key, value)

  defp put(%{} = map, [key | rest], value),
    do: Map.put(map, key, put(Map.get(map, key, %{}), rest, value))

  defp put(_leaf, path, value), do: put(%{}, path, value)

  ## Checks

  defp check_path(path) do
    if length(path) <= @max_path and Enum.all?(path, &safe_segment?/1) do
      :ok
    else
      security_error(
        1000,
        "Configuration path contains potentially malicious components: #{inspect(path)}",
        %{path: path, reason: :malicious_path}
      )
    end
  end

  defp safe_segment?(segment) when is_atom(segment) do
    not String.contains?(Atom.to_string(segment), @forbidden_in_atoms)
  end

  defp safe_segment?(segment) when is_binary(segment) do
    not String.contains?(String.downcase(segment), @forbidden_in_strings)
  end

  defp safe_segment?(_other), do: false

  defp check_value(value) do
    if safe_value?(value, 0) do
      :ok
    else
      security_error(
        1005,
        "Configuration value contains potentially dangerous content",
        %{value_type: type_of(value), reason: :dangerous_value}
      )
    end
  end

  defp safe_value?(_value, depth) when depth > @max_depth, do: false
  defp safe_value?(value, _depth) when is_function(value), do: false
  defp safe_value?(value, _depth) when is_binary(value), do: byte_size(value) <= @max_binary
  defp safe_value?(%module{}, _depth) when module in @forbidden_structs, do: false

  defp safe_value?(%{} = map, depth) do
    map
    |> Map.to_list()
    |> Enum.all?(fn {key, value} -> safe_value?(key, 0) and safe_value?(value, depth + 1) end)
  end

  defp safe_value?([head | tail], depth) do
    safe_value?(head, depth + 1) and safe_tail?(tail, depth)
  end

  defp safe_value?(_value, _depth), do: true

  defp safe_tail?([head | tail], depth),
    do: safe_value?(head, depth + 1) and safe_tail?(tail, depth)

  defp safe_tail?(other, depth), do: safe_value?(other, depth + 1)

  defp check_updatable(path) do
    if updatable_path?(path) do
      :ok
    else
      {:error,
       Error.new(
         error_type: :config_update_forbidden,
         message: "Configuration path #{inspect(path)} cannot be updated at runtime",
         context: %{path: path, allowed_paths: @updatable_paths},
         category: :config,
         subcategory: :runtime,
         severity: :medium
       )}
    end
  end

  defp type_of(value) when is_function(value), do: :function
  defp type_of(value) when is_struct(value), do: :struct
  defp type_of(value) when is_map(value), do: :map
  defp type_of(value) when is_list(value), do: :list
  defp type_of(value) when is_binary(value), do: :binary
  defp type_of(value) when is_atom(value), do: :atom
  defp type_of(value) when is_number(value), do: :number
  defp type_of(_value), do: :unknown

  ## Walks

  defp fetch(value, []), do: {:ok, value}

  defp fetch(%{} = map, [key | rest]) do
    with {:ok, value} <- Map.fetch(map, key), do: fetch(value, rest)
  end

  defp fetch(_leaf, _path), do: :error

  defp merge(%{} = left, right) when is_list(right), do: merge(left, Map.new(right))

  defp merge(%{} = left, %{} = right),
    do: Map.merge(left, right, fn _key, l, r -> merge(l, r) end)

  defp merge(_left, right), do: right

  defp diff(old, new, path) do
    for key <- Enum.uniq(Map.keys(old) ++ Map.keys(new)), reduce: %{} do
      differences ->
        case {Map.get(old, key), Map.get(new, key)} do
          {same, same} ->
            differences

          {%{} = left, %{} = right} ->
            nested = diff(left, right, path ++ [key])
            if nested == %{}, do: differences, else: Map.put(differences, key, nested)

          {left, right} ->
            Map.put(differences, key, %{old: left, new: right, path: path ++ [key]})
        end
    end
  end

  ## Errors

  defp security_error(code, message, context) do
    {:error,
     Error.new(
       code: code,
       error_type: :security_violation,
       message: message,
       context: context,
       category: :config,
       subcategory: :security,
       severity: :high
     )}
  end

  defp access_error(error_type, message, context) do
    {:error,
     Error.new(
       error_type: error_type,
       message: message,
       context: context,
       category: :config,
       subcategory: :access,
       severity: :medium
     )}
  end
end

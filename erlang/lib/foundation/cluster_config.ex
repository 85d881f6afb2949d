defmodule Foundation.ClusterConfig do
  @moduledoc """
  Whether and how the nodes of an application find each other: three tiers of configuration, one libcluster topology.

  | tier | configuration | what happens |
  |---|---|---|
  | off | nothing, or `config :foundation, cluster: false` | 1.x: no clustering |
  | mortal | `cluster: true` | a strategy is chosen by `detect/1` |
  | apprentice | `cluster: :kubernetes`, `:consul`, `:dns`, `:mdns_lite`, `:gossip`, `:epmd`, `:static`, `:local_epmd`, `:aws`, `:gcp`, …, or `[strategy: :gossip, secret: "s"]` | translated, with defaults from the application's name |
  | apprentice | `clusters: %{app: [strategy: :kubernetes], ai: [strategy: :epmd, hosts: [...]]}` | one topology for each, under its name |
  | apprentice | `clustering: %{primary: [...], secondary: [...]}` | the secondary runs while the primary fails, with the companion; libcluster runs both |
  | wizard | `config :libcluster, topologies: [...]` | taken as it is; also as `libcluster_topologies:` |

  libcluster's own topologies win over everything but an explicit `false`. The environment variable `FOUNDATION_CLUSTER`
  (`true`, `false` or a strategy's name) wins over `cluster:`, and `FOUNDATION_APP_NAME` over `app_name:`, so that a container can
  be told without a new build. A strategy may be `{Module, config}`, too.

  Settings of the founding documents that do nothing here are named in the log with the reason (`Foundation.ClusterConfig.Settings`).

  `profile:` stands for settings that are not given: `:development` and `:production` for `cluster: true`, the first also for
  `Foundation.Development.Reloader`; `:enterprise` for `clusters:`, which it needs.

  A topology is a keyword list `[strategy: module, config: keyword]`. Translated ones are named `:foundation`.

  Errors are texts that name the setting, what is wrong with it and what it may be.
  """

  alias Foundation.ClusterConfig.Options
  alias Foundation.Settings.Type

  @enforce_keys [:tier, :strategy, :topologies, :reason]
  defstruct @enforce_keys ++ [order: []]

  @type tier :: :off | :mortal | :apprentice | :wizard
  @type topology :: [strategy: module(), config: keyword()]
  @type t :: %__MODULE__{
          tier: tier(),
          # The strategy's short name, or `:libcluster` for the wizard's.
          strategy: atom() | nil,
          topologies: [{atom(), topology()}],
          # Why this one, for the log.
          reason: String.t(),
          # Topologies of which a later one runs only while those before it fail; without an order all run.
          order: [atom()]
        }
  @type settings :: %{
          required(:foundation) => keyword(),
          required(:libcluster) => keyword(),
          required(:env) => %{String.t() => String.t()},
          optional(:libraries) => [Foundation.Host.library()]
        }

  @strategies [
    :kubernetes,
    :kubernetes_dns,
    :kubernetes_dns_srv,
    :consul,
    :dns,
    :mdns,
    :mdns_lite,
    :gossip,
    :epmd,
    :static,
    :local_epmd,
    :erlang_hosts,
    :aws,
    :gcp,
    :postgres,
    :rancher
  ]

  @profiles [:development, :production, :enterprise]

  @secrets [:secret, :access_token, :erlang_cookie]

  @modules %{
    kubernetes: Cluster.Strategy.Kubernetes,
    kubernetes_dns: Cluster.Strategy.Kubernetes.DNS,
    kubernetes_dns_srv: Cluster.Strategy.Kubernetes.DNSSRV,
    consul: Cluster.Strategy.Consul,
    dns: Cluster.Strategy.DNSPoll,
    mdns_lite: Foundation.Strategy.MdnsLite,
    gossip: Cluster.Strategy.Gossip,
    epmd: Cluster.Strategy.Epmd,
    static: Cluster.Strategy.Epmd,
    local_epmd: Cluster.Strategy.LocalEpmd,
    erlang_hosts: Cluster.Strategy.ErlangHosts,
    rancher: Cluster.Strategy.Rancher,
    # Of these there is no module: the program foundation knows them by these names.
    mdns: Foundation.Strategy.Mdns,
    aws: Foundation.Strategy.Aws,
    gcp: Foundation.Strategy.Gcp,
    postgres: Foundation.Strategy.Postgres
  }

  @doc """
  The decision for this node, from the application environments of `:foundation` and `:libcluster` and the variables of the
  operating system.
  """
  @spec resolve() :: {:ok, t()} | {:error, String.t()}
  def resolve do
    resolve(%{
      foundation: Application.get_all_env(:foundation),
      libcluster: Application.get_all_env(:libcluster),
      env: System.get_env(),
      libraries: libraries()
    })
  end

  @doc false
  # Those of the host application on which the choice of a strategy depends.
  @spec libraries() :: [Foundation.Host.library()]
  def libraries,
    do: Enum.filter([:libcluster, :mdns_lite], &(Foundation.Host.module(&1) != nil))

  @doc """
  The decision for the given settings.
  """
  @spec resolve(settings()) :: {:ok, t()} | {:error, String.t()}
  def resolve(%{foundation: foundation, libcluster: libcluster, env: env} = settings) do
    {topologies, place} = topologies(foundation, libcluster)

    with {:ok, cluster, source} <- wanted(foundation, env) do
      cond do
        cluster == false ->
          {:ok, off("#{source} is false")}

        topologies != [] ->
          wizard(topologies, place)

        cluster == nil ->
          {:ok, off("neither FOUNDATION_CLUSTER nor config :foundation, cluster: is set")}

        cluster == true ->
          mortal(settings)

        match?({:clusters, _clusters}, cluster) ->
          clusters(elem(cluster, 1), source, options(settings))

        match?({:clustering, _clustering}, cluster) ->
          clustering(elem(cluster, 1), source, options(settings))

        true ->
          apprentice(cluster, source, options(settings))
      end
    end
  end

  # The drafts have libcluster's under a name of the library's own.
  defp topologies(foundation, libcluster) do
    case Keyword.get(libcluster, :topologies, []) do
      [] ->
        {foundation[:libcluster_topologies] || [], "config :foundation, libcluster_topologies:"}

      topologies ->
        {topologies, "config :libcluster, topologies:"}
    end
  end

  defp wanted(foundation, env) do
    case env["FOUNDATION_CLUSTER"] do
      none when none in [nil, ""] -> configured(foundation)
      text -> from_variable(text)
    end
  end

  defp configured(foundation) do
    profile = foundation[:profile]

    cond do
      profile not in [nil | @profiles] ->
        {:error,
         "config :foundation, profile: is #{Type.show(profile)}; it may be " <>
           Enum.map_join(@profiles, ", ", &inspect/1)}

      foundation[:cluster] != nil ->
        {:ok, foundation[:cluster], "config :foundation, cluster:"}

      foundation[:clusters] != nil ->
        {:ok, {:clusters, foundation[:clusters]}, "config :foundation, clusters:"}

      foundation[:clustering] != nil ->
        {:ok, {:clustering, foundation[:clustering]}, "config :foundation, clustering:"}

      profile == :enterprise ->
        {:error,
         "config :foundation, profile: is :enterprise, which needs clusters: %{name => [strategy: ...]}"}

      profile != nil ->
        {:ok, true, "config :foundation, profile:"}

      true ->
        {:ok, nil, "config :foundation, cluster:"}
    end
  end

  # The secondary runs while the primary fails: an order that the companion keeps.
  defp clustering(clustering, source, defaults) do
    case Type.pairs(clustering) do
      {:ok, pairs} ->
        in_order(Map.new(pairs), source, defaults)

      :error ->
        {:error,
         "#{source} is #{shown(clustering)}; it is %{primary: [strategy: ...], secondary: ...}"}
    end
  end

  defp in_order(clustering, source, defaults) do
    order = Enum.filter([:primary, :secondary], &(clustering[&1] != nil))

    case Map.keys(clustering) -- [:primary, :secondary] do
      [] when order == [] ->
        {:error, "#{source} is empty; it may have primary: and secondary:"}

      [] ->
        with {:ok, decision} <-
               clusters(Enum.map(order, &{&1, clustering[&1]}), source, defaults) do
          topologies = Enum.map(order, &{&1, decision.topologies[&1]})
          {:ok, %{decision | strategy: :failover, topologies: topologies, order: order}}
        end

      keys ->
        {:error, "#{source} has #{Type.show(keys)}; it may have primary: and secondary:"}
    end
  end

  defp clusters(clusters, source, defaults) do
    case elements(clusters) do
      {:ok, clusters} ->
        each_cluster(Enum.sort(clusters), source, defaults)

      :error ->
        {:error, "#{source} is #{shown(clusters)}; it is a map of name => [strategy: ...]"}
    end
  end

  defp elements(%{} = map) when not is_struct(map), do: {:ok, Map.to_list(map)}
  defp elements(value), do: if(Type.right?({:list, :any}, value), do: {:ok, value}, else: :error)

  defp each_cluster(clusters, source, defaults) do
    clusters
    |> Enum.reduce_while({:ok, []}, fn cluster, {:ok, topologies} ->
      with {:ok, name, spec} <- named(cluster, source),
           {:ok, strategy, options} <- parse(spec, "#{source} #{name}"),
           options = Keyword.drop(options, [:processes, :nodes]),
           {:ok, topology} <- translate(strategy, Keyword.merge(defaults, options)) do
        {:cont, {:ok, [{name, topology} | topologies]}}
      else
        {:error, message} -> {:halt, {:error, message}}
      end
    end)
    |> case do
      {:ok, []} ->
        {:error, "#{source} is empty"}

      {:ok, topologies} ->
        {:ok,
         %__MODULE__{
           tier: :apprentice,
           strategy: :clusters,
           topologies: Enum.reverse(topologies),
           reason: "#{source} is set"
         }}

      error ->
        error
    end
  end

  defp named({name, spec}, _source) when is_atom(name) and name not in @secrets,
    do: {:ok, name, spec}

  # Not shown as a whole: there may be a secret in it.
  defp named(other, source) do
    name = with {name, _spec} <- other, do: name

    {:error,
     "#{source} has #{shown(name)}; it is a map of name => [strategy: ...], with atoms for names"}
  end

  defp from_variable(text) do
    values = Map.new([true, false | @strategies], &{Atom.to_string(&1), &1})

    case values do
      %{^text => value} -> {:ok, value, "FOUNDATION_CLUSTER"}
      _unknown -> {:error, "FOUNDATION_CLUSTER is #{inspect(text)}; it may be #{choices(values)}"}
    end
  end

  defp choices(values), do: values |> Map.keys() |> Enum.sort() |> Enum.join(", ")

  defp off(reason), do: %__MODULE__{tier: :off, strategy: nil, topologies: [], reason: reason}

  defp wizard(topologies, place) do
    if Keyword.keyword?(topologies) and
         Enum.all?(topologies, fn {_name, spec} -> topology?(spec) end) do
      {:ok,
       %__MODULE__{
         tier: :wizard,
         strategy: :libcluster,
         topologies: topologies,
         reason: "#{place} is set"
       }}
    else
      {:error,
       "#{place} is not what libcluster takes: #{shown(topologies)}; " <>
         "it is a keyword list of [strategy: module, config: keyword]"}
    end
  end

  defp topology?(spec) do
    Keyword.keyword?(spec) and is_atom(spec[:strategy]) and spec[:strategy] != nil and
      (spec[:config] == nil or match?({:ok, _pairs}, Type.pairs(spec[:config])))
  end

  defp mortal(settings) do
    {strategy, reason} = detect(settings.env, Map.get(settings, :libraries, []))

    with {:ok, decision} <- apprentice(strategy, "cluster: true", options(settings)),
         do: {:ok, %{decision | tier: :mortal, reason: "#{reason}: #{strategy}"}}
  end

  @doc """
  The strategy for `cluster: true`, and the evidence for it.

  In this order: Kubernetes if `KUBERNETES_SERVICE_HOST` is set, DNS if `DNS_CLUSTER_QUERY` is, Consul if `CONSUL_HTTP_ADDR` is, multicast
  DNS if `libraries` has both `:libcluster` and `:mdns_lite`, else gossip by multicast on the local network.
  """
  @spec detect(%{String.t() => String.t()}, [Foundation.Host.library()]) :: {atom(), String.t()}
  def detect(env, libraries \\ []) do
    [
      kubernetes: "KUBERNETES_SERVICE_HOST",
      dns: "DNS_CLUSTER_QUERY",
      consul: "CONSUL_HTTP_ADDR"
    ]
    |> Enum.find_value(otherwise(libraries), fn {strategy, variable} ->
      if env[variable] not in [nil, ""], do: {strategy, "#{variable} is set"}
    end)
  end

  defp otherwise(libraries) do
    none = "no sign of Kubernetes, DNS or Consul"

    if :libcluster in libraries and :mdns_lite in libraries,
      do: {:mdns_lite, "#{none}, and the application has mdns_lite"},
      else: {:gossip, none}
  end

  defp apprentice(cluster, source, defaults) do
    with {:ok, strategy, options} <- parse(cluster, source),
         {:ok, topology} <- translate(strategy, Keyword.merge(defaults, options)) do
      {:ok,
       %__MODULE__{
         tier: :apprentice,
         strategy: strategy,
         topologies: [foundation: topology],
         reason: "#{source} is #{shown(cluster)}"
       }}
    end
  end

  defp parse(strategy, _source) when strategy in @strategies, do: {:ok, strategy, []}

  defp parse([_ | _] = options, source) do
    if Keyword.keyword?(options) do
      case Keyword.pop(options, :strategy) do
        {nil, _options} ->
          {:error, "#{source} #{shown(options)} has no strategy:"}

        {{module, config} = strategy, options} when is_atom(module) ->
          if Keyword.keyword?(config),
            do: {:ok, module, Keyword.merge(config, options)},
            else: {:ok, strategy, options}

        {strategy, options} ->
          {:ok, strategy, options}
      end
    else
      unknown(options, source)
    end
  end

  defp parse(other, source), do: unknown(other, source)

  defp unknown(value, source) do
    {:error,
     "#{source} is #{shown(value)}; it may be true, false, " <>
       Enum.map_join(@strategies, ", ", &inspect/1) <> ", or [strategy: one of these, ...]"}
  end

  # A secret belongs neither into a log nor into an error.
  defp shown(value), do: value |> redact() |> Type.show()

  defp redact({key, _value}) when key in @secrets,
    do: {key, "[redacted]"}

  # Also what is no proper list.
  defp redact([head | tail]), do: [redact(head) | redact(tail)]
  defp redact(%{} = map) when not is_struct(map), do: Map.new(map, &redact/1)
  defp redact({key, value}), do: {key, redact(value)}
  defp redact(other), do: other

  defp options(%{foundation: foundation, env: env}) do
    name =
      present(env["FOUNDATION_APP_NAME"]) || present(env["RELEASE_NAME"]) || foundation[:app_name]

    [app_name: name, dns_query: env["DNS_CLUSTER_QUERY"], consul_url: env["CONSUL_HTTP_ADDR"]]
    |> Enum.reject(fn {_key, value} -> value in [nil, ""] end)
  end

  defp present(""), do: nil
  defp present(value), do: value

  ## Translations

  @doc """
  The topology of a strategy. Options beyond those of the strategy's own function are passed on as they are; one that the strategy does not take, or of a
  wrong type, is an error. An option that is `nil` is none. A module stands for any libcluster strategy, whose options are passed on unseen.
  """
  @spec translate(atom(), keyword()) :: {:ok, topology()} | {:error, String.t()}
  def translate(strategy, options) when strategy in @strategies do
    options = Enum.reject(options, fn {_key, value} -> value == nil end)

    case missing(strategy, options) do
      [] ->
        with :ok <- Options.check(strategy, options),
             do: {:ok, apply_translation(strategy, options)}

      keys ->
        {:error,
         "cluster strategy #{inspect(strategy)} needs #{Enum.map_join(keys, " and ", &need/1)}"}
    end
  end

  def translate(strategy, options) when is_atom(strategy) do
    case Atom.to_string(strategy) do
      # Any libcluster strategy, by its module.
      "Elixir." <> _module ->
        {:ok, [strategy: strategy, config: Keyword.drop(options, internal())]}

      _other ->
        error_unknown(strategy)
    end
  end

  def translate(strategy, _options), do: error_unknown(strategy)

  defp error_unknown(strategy) do
    {:error,
     "cluster strategy #{shown(strategy)} is not known; it may be " <>
       Enum.map_join(@strategies, ", ", &inspect/1) <> " or a libcluster strategy's module"}
  end

  defp missing(:kubernetes, options), do: require_one(options, :app_name, [:kubernetes_selector])
  defp missing(:consul, options), do: require_one(options, :app_name, [:service])

  defp missing(:dns, options),
    do:
      require_one(options, :query, [:dns_query]) ++
        require_one(options, :app_name, [:node_basename])

  defp missing(strategy, options) when strategy in [:epmd, :static],
    do: require_one(options, :hosts, [])

  defp missing(_strategy, _options), do: []

  defp require_one(options, key, others) do
    if Enum.any?([key | others], &(options[&1] != nil)), do: [], else: [key]
  end

  defp need(:app_name), do: "an application name (FOUNDATION_APP_NAME, or app_name:)"
  defp need(:query), do: "a name to query (DNS_CLUSTER_QUERY, or query:)"
  defp need(:hosts), do: "the nodes' names (hosts: [:\"a@host\", ...])"

  defp apply_translation(:kubernetes, options), do: translate_kubernetes_config(options)
  defp apply_translation(:consul, options), do: translate_consul_config(options)
  defp apply_translation(:dns, options), do: translate_dns_config(options)
  defp apply_translation(:gossip, options), do: translate_gossip_config(options)
  defp apply_translation(strategy, options), do: topology(strategy, [], options)

  @doc """
  Pods by the label `app=<app_name>`, nodes named `<app_name>@<ip>`.

      iex> Foundation.ClusterConfig.translate_kubernetes_config(app_name: "a")[:config][:kubernetes_selector]
      "app=a"
  """
  @spec translate_kubernetes_config(keyword()) :: topology()
  def translate_kubernetes_config(options) do
    name = name(options)

    topology(
      :kubernetes,
      [
        mode: :ip,
        kubernetes_ip_lookup_mode: :pods,
        kubernetes_node_basename: name,
        kubernetes_selector: "app=#{name}",
        polling_interval: 5_000
      ],
      options
    )
  end

  @doc """
  The passing instances of the service `<app_name>`, nodes named `<app_name>@<address>`. `CONSUL_HTTP_ADDR` is the agent, port 8500
  of this host by default.
  """
  @spec translate_consul_config(keyword()) :: topology()
  def translate_consul_config(options) do
    name = name(options)

    topology(
      :consul,
      [
        base_url: url(options[:consul_url] || "127.0.0.1:8500"),
        # The companion's: libcluster_consul leaves it to others, and a service that nobody registers has no instances.
        register: options[:service] == nil,
        list_using: [{Cluster.Strategy.Consul.Health, [passing: true]}],
        service: [name: name],
        node_basename: name,
        polling_interval: 10_000
      ],
      options
    )
  end

  defp url("http://" <> _rest = url), do: url
  defp url("https://" <> _rest = url), do: url
  defp url(host), do: "http://" <> host

  @doc """
  The addresses of a name (`query:`, or `DNS_CLUSTER_QUERY`), nodes named `<app_name>@<ip>`.
  """
  @spec translate_dns_config(keyword()) :: topology()
  def translate_dns_config(options) do
    query = options[:query] || options[:dns_query]
    topology(:dns, [polling_interval: 5_000, query: query, node_basename: name(options)], options)
  end

  @doc """
  Multicast on the local network, encrypted if a `secret:` is given.
  """
  @spec translate_gossip_config(keyword()) :: topology()
  def translate_gossip_config(options), do: topology(:gossip, [], options)

  defp name(options), do: options |> Keyword.get(:app_name, "") |> to_string()

  # What was given wins over what follows from the name.
  defp topology(strategy, defaults, options) do
    config = Keyword.merge(defaults, Keyword.drop(options, internal()))
    [strategy: Map.fetch!(@modules, strategy), config: config]
  end

  defp internal, do: [:app_name, :dns_query, :consul_url]

  @doc false
  # Its short name, or the module.
  @spec strategy_name(module()) :: String.t()
  def strategy_name(module) do
    case Enum.find(@strategies, &(Map.fetch!(@modules, &1) == module)) do
      nil -> inspect(module)
      name -> Atom.to_string(name)
    end
  end

  @doc false
  # Why this is a developer's machine; `nil` if nothing says that it is.
  @spec development(t()) :: String.t() | nil
  def development(decision) do
    profile = Application.get_env(:foundation, :profile)

    cond do
      profile == :development -> "profile: :development"
      profile != nil -> nil
      decision.tier == :mortal and decision.strategy in [:gossip, :mdns_lite] -> decision.reason
      true -> mix()
    end
  end

  # A release has no Mix.
  defp mix do
    if Code.ensure_loaded?(Mix) and Process.whereis(Mix.State) != nil do
      env = apply(Mix, :env, [])
      if env != :prod, do: "run by Mix in #{env}"
    end
  end

  ## Security

  @doc """
  The settings of `config :foundation, security: [...]` with `{:system, variable}` replaced by the variable's value.

  `erlang_cookie`, `tls_enabled`, `certificate_file`. An error names a variable that is not set, a key that does not exist, and what
  contradicts itself.
  """
  @spec security(settings()) :: {:ok, keyword()} | {:error, String.t()}
  def security(%{foundation: foundation, env: env}) do
    case Type.pairs(Keyword.get(foundation, :security) || []) do
      {:ok, pairs} ->
        security(pairs, env)

      # Not shown: there may be a cookie in it.
      :error ->
        {:error,
         "security: is no keyword list; it may have erlang_cookie:, tls_enabled: and certificate_file:"}
    end
  end

  defp security(pairs, env) do
    pairs
    |> Enum.reduce_while({:ok, []}, fn {key, value}, {:ok, settings} ->
      with {:ok, value} <- resolved(key, value, env),
           {:ok, value} <- security_value(key, value) do
        {:cont, {:ok, [{key, value} | settings]}}
      else
        {:error, message} -> {:halt, {:error, message}}
      end
    end)
    |> case do
      {:ok, settings} -> consistent(Enum.reverse(settings))
      error -> error
    end
  end

  defp resolved(key, {:system, variable}, env) do
    case env[variable] do
      none when none in [nil, ""] ->
        {:error,
         "security: #{Type.word(key)} is {:system, #{inspect(variable)}}, which is not set"}

      value ->
        {:ok, value}
    end
  end

  defp resolved(_key, value, _env), do: {:ok, value}

  defp security_value(:erlang_cookie, value) when is_atom(value), do: {:ok, value}

  # Not shown: it may be a cookie all the same. An atom has at most 255 characters.
  defp security_value(:erlang_cookie, value) do
    cond do
      not is_binary(value) ->
        {:error, "security: erlang_cookie: is neither a string nor an atom"}

      not String.valid?(value) or String.length(value) > 255 ->
        {:error, "security: erlang_cookie: is longer than 255 characters, or no text"}

      true ->
        {:ok, value}
    end
  end

  defp security_value(:tls_enabled, value) when value in [true, "true"], do: {:ok, true}
  defp security_value(:tls_enabled, value) when value in [false, nil, "false"], do: {:ok, false}

  defp security_value(:tls_enabled, value),
    do: {:error, "security: tls_enabled: is #{Type.show(value)}; it may be true or false"}

  defp security_value(:certificate_file, value) when is_binary(value) do
    # A name with a zero byte is none.
    if not String.contains?(value, <<0>>) and File.regular?(value),
      do: {:ok, value},
      else:
        {:error, "security: certificate_file: is #{inspect(value)}, and there is no such file"}
  end

  defp security_value(:certificate_file, value),
    do: {:error, "security: certificate_file: is #{Type.show(value)}; it is the path of a file"}

  defp security_value(key, _value) do
    {:error,
     "security: has #{Type.show(key)}; it may have erlang_cookie:, tls_enabled: and certificate_file:"}
  end

  defp consistent(settings) do
    if settings[:certificate_file] != nil and settings[:tls_enabled] != true,
      do: {:error, "security: has certificate_file:, and tls_enabled: is not true"},
      else: {:ok, settings}
  end
end

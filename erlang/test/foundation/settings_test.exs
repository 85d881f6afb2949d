defmodule Foundation.SettingsTest do
  use ExUnit.Case, async: true
  @moduletag :unit

  alias Foundation.{ClusterConfig, Generator, Settings}
  alias Foundation.Logic.ConfigLogic
  alias Foundation.Settings.Type
  alias Foundation.Types.Config
  alias Foundation.Validation.ConfigValidator

  @sections [:ai, :capture, :storage, :interface, :dev, :infrastructure]
  @cluster [:cluster, :clusters, :clustering, :libcluster_topologies, :profile, :security]
  @founding [:auto_features, :messaging, :processes, :topology, :channels, :service_mesh]
  @plain [
    :app_namespaces,
    :test_mode,
    :debug_registry,
    :allow,
    :discovery,
    :binary,
    :build_companion,
    :app_name,
    :roles,
    :local_namespaces,
    :health_check_interval,
    :health_check_timeout,
    :reload_interval,
    :horde,
    :native,
    :use_host_libraries,
    :test_cluster
  ]
  @keys @sections ++ @cluster ++ @founding ++ @plain

  # Wrong for nearly every key, and each of another kind.
  @wrong [5, -1, 1.5, "text", :atom, {1, 2}, [1 | 2], [{:a, 1} | 2], [1], [{1, 2}], %{1 => 2}] ++
           [%{strategy: 5}, [strategy: {Foo, [1 | 2]}], <<1::3>>, ~D[2026-01-01], [[]], <<255>>]

  test "every key that is read is listed" do
    read =
      for file <- Path.wildcard("lib/**/*.ex"),
          [_all, key] <-
            Regex.scan(~r/(?:Settings\.get\(|get_env\(:foundation, ):(\w+)/, File.read!(file)),
          uniq: true,
          do: String.to_atom(key)

    assert (read -- @keys) -- [:foundation] == []

    for key <- @plain, do: assert({key, Settings.get(key)} == {key, Settings.get(key)})
    documented = File.read!("lib/foundation/settings.ex")
    for key <- @keys -- @founding, do: assert(documented =~ "`#{key}`", "#{key}")
  end

  test "a wrong value is named with its key and with what it may be" do
    for {env, line} <- [
          {[ai: 5], "config :foundation, ai: is 5; it may be a keyword list or a map"},
          {[capture: "x"], ~s(capture: is "x"; it may be a keyword list or a map)},
          {[dev: [{:debug_mode, true} | :x]], "dev: is [{:debug_mode, true} | :x]; it may be"},
          {[interface: nil], "interface: is nil; it may be a keyword list or a map"},
          {[dev: ~D[2026-01-01]], "dev: is ~D[2026-01-01]; it may be a keyword list or a map"},
          {[ai: [provider: :x]],
           "ai: provider: is :x; it may be :mock, :openai, :anthropic or :gemini"},
          {[ai: [planning: %{sampling_rate: 2}]],
           "ai: planning: sampling_rate: is 2; it may be a number from 0 to 1"},
          {[ai: [planning: 5]], "ai: planning: is 5; it may be a keyword list or a map"},
          {[storage: [cold: [enable: true]]], "storage: cold: enable: is true; it may be false"},
          {[storage: [warm: [enable: true, path: 5]]],
           "storage: warm: path: is 5; it may be a string"},
          {[infrastructure: [rate_limiting: [default_rules: [mine: [limit: 1]]]]],
           "default_rules: mine: is [limit: 1]; it may be a map with limit: a whole number above 0 and scale: a whole number above 0"},
          {[infrastructure: %{rate_limiting: %{default_rules: %{"mine" => 1}}}],
           ~s(default_rules: has "mine"; its keys are atoms)},
          {[native: 5], "native: is 5; it may be true or false; true is used"},
          {[binary: 5], "binary: is 5; it may be a string or a charlist; it is ignored"},
          {[app_name: {1}], "app_name: is {1}; it may be a string or an atom"},
          {[allow: 5],
           "allow: is 5; it may be a string, an atom or a charlist or a list of which"},
          {[allow: ["a" | "b"]], ~s(allow: is ["a" | "b"]; it may be)},
          {[discovery: :x], "discovery: is :x; it may be :companion"},
          {[roles: [1 | 2]],
           "roles: is [1 | 2]; it may be a term or a list of terms; [] is used"},
          {[reload_interval: 5_000_000_000],
           "reload_interval: is 5000000000; it may be a number of milliseconds above 0; 1000"},
          {[horde: [sync_interval: 0]],
           "horde: sync_interval: is 0; it may be a number of milliseconds above 0"},
          {[app_namespaces: [:mine], mine: 5], "mine: is 5; it may be a keyword list or a map"}
        ] do
      assert [{:error, found}] = Settings.mistakes(env)
      assert found =~ line
    end
  end

  test "a key that is not known is told if it looks like one that is" do
    assert [{:warning, line}] = Settings.mistakes(clutser: true)
    assert line =~ "clutser: is not read by this library; did you mean cluster:?"
    assert [{:warning, line}] = Settings.mistakes(ai: [provder: :openai])
    assert line =~ "ai: has provder:, which nothing here reads; did you mean provider:?"
    assert [{:warning, line}] = Settings.mistakes(ai: [{"provider", 1}])
    assert line =~ ~s(ai: has "provider", which nothing here reads)

    # The application's own.
    assert Settings.mistakes(my_own: 1, shop: [a: 1]) == []
    # One that is there is not meant.
    assert Settings.mistakes(cluster: true, cluster2: true, app_namespaces: [:roles2], roles2: []) ==
             Settings.mistakes(cluster2: true, cluster: false)
  end

  test "no value of any key is an exception" do
    for key <- @keys, value <- @wrong, do: total([{key, value}])

    for seed <- 1..60, key <- @keys do
      :rand.seed(:exsss, seed)
      total([{key, Generator.term()}])
      total([{key, [{:strategy, Generator.term()}, {:gossip, Generator.term()}]}])

      total([
        {key, %{primary: Generator.term(), adapter: Generator.term(), channels: Generator.term()}}
      ])
    end
  end

  # What runs at the start reads an environment so.
  defp total(env) do
    for {level, line} <- Settings.mistakes(env) do
      assert level in [:error, :warning]
      assert String.valid?(line)
    end

    assert Enum.all?(ClusterConfig.Settings.not_offered(env), &String.valid?/1)
    settings = %{foundation: env, libcluster: [], env: %{}}
    text(ClusterConfig.resolve(settings))
    text(ClusterConfig.resolve(%{settings | libcluster: [topologies: env[:cluster]]}))
    text(ClusterConfig.resolve(%{settings | foundation: [{:app_name, 5} | env]}))
    text(ClusterConfig.security(settings))
    {sections, _mistakes} = Settings.sections(env)
    assert :ok = ConfigValidator.validate(ConfigLogic.merge_env_config(Config.new(), sections))
  end

  defp text({:ok, _decision}), do: :ok
  defp text({:error, message}), do: assert(String.valid?(message))

  test "secrets are not shown" do
    for cluster <- [
          [{:secret, "hidden"} | :x],
          %{strategy: :gossip, secret: "hidden"},
          [secret: "hidden"],
          {:gossip, [secret: "hidden"]},
          [strategy: {:x, [{:secret, "hidden"} | 5]}]
        ],
        key <- [:cluster, :clusters, :clustering, :libcluster_topologies] do
      settings = %{foundation: [{key, cluster}], libcluster: [], env: %{}}
      assert {:error, message} = ClusterConfig.resolve(settings)
      refute message =~ "hidden"
    end

    for security <- ["hidden", [:hidden | 1], [erlang_cookie: ["hidden"]], [{1, "hidden"}]] do
      settings = %{foundation: [security: security], libcluster: [], env: %{}}
      assert {:error, message} = ClusterConfig.security(settings)
      refute message =~ "hidden"
    end
  end

  # Random sections: leaves that are right, wrong, missing and unknown, as keyword lists and as maps.
  test "what is told is what 1.x refuses, and the rest of a section stays" do
    results =
      for seed <- 1..1500 do
        :rand.seed(:exsss, seed)
        name = Enum.random(@sections)
        section = changed(Map.fetch!(Config.new(), name))
        env = [{name, section}]
        {kept, mistakes} = Settings.sections(env)
        wrong = for {:error, line} <- mistakes, do: line
        taken = ConfigLogic.merge_env_config(Config.new(), kept)
        assert :ok = ConfigValidator.validate(taken)

        case as_in_1x(env) do
          {:ok, config} -> assert {wrong, taken, seed} == {[], config, seed}
          :refused -> assert {seed, wrong} != {seed, []}
        end

        wrong == []
      end

    assert true in results and false in results
  end

  defp as_in_1x(env) do
    config = ConfigLogic.merge_env_config(Config.new(), env)
    if ConfigValidator.validate(config) == :ok, do: {:ok, config}, else: :refused
  rescue
    _shape_that_the_validator_does_not_expect -> :refused
  end

  defp changed(%{} = map) do
    pairs =
      for {key, value} <- map, :rand.uniform(3) > 1 do
        case :rand.uniform(12) do
          1 -> {key, Enum.random([5, 0, -1, 0.5, "x", :x, true, nil, [1 | 2], [1], %{}, []])}
          2 -> {:"#{key}_", value}
          _same -> {key, changed(value)}
        end
      end

    if :rand.uniform(2) == 1, do: Map.new(pairs), else: pairs
  end

  defp changed(value), do: value

  test "every type has a description" do
    for type <- [
          :any,
          :keyword,
          :ip_address,
          {:integer, 1..5},
          {:function, 1},
          {:function, 2},
          {:list, :any},
          {:some, :string},
          {:number, 0, :infinity},
          {:such_as, {:list, :atom}, [:a@host]},
          {:either, [:string, {:one_of, [:infinity]}]}
        ] do
      assert Type.describe(type) =~ ~r/\A[ -~]+\z/
    end

    assert Type.describe({:such_as, {:list, :atom}, [:a@host]}) == "a list of atoms, as [:a@host]"
    assert Type.describe({:either, [:milliseconds, {:one_of, [:infinity]}]}) =~ "or :infinity"
  end
end

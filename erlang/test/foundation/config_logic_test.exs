defmodule Foundation.Logic.ConfigLogicTest do
  use ExUnit.Case, async: true
  @moduletag :unit

  alias Foundation.Logic.ConfigLogic
  alias Foundation.Types.{Config, Error}
  alias Foundation.Validation.ConfigValidator

  @config Config.new()

  test "the defaults are valid" do
    assert ConfigValidator.validate(@config) == :ok
  end

  test "exactly thirteen paths can be updated" do
    assert length(ConfigLogic.updatable_paths()) == 13
    assert ConfigLogic.updatable_path?([:dev, :debug_mode])
    refute ConfigLogic.updatable_path?([:ai, :provider])
    assert {:ok, updated} = ConfigLogic.update_config(@config, [:dev, :debug_mode], true)
    assert updated.dev.debug_mode
  end

  test "other paths are refused with the list of those that can" do
    assert {:error, %Error{error_type: :config_update_forbidden, code: nil} = error} =
             ConfigLogic.update_config(@config, [:ai, :provider], :openai)

    assert error.context == %{
             path: [:ai, :provider],
             allowed_paths: ConfigLogic.updatable_paths()
           }

    assert {error.category, error.subcategory, error.severity} == {:config, :runtime, :medium}
  end

  test "each violation has its type and code" do
    for {path, value, type, code} <- [
          {[:ai, :planning, :sampling_rate], 1.5, :range_error, 1004},
          {[:ai, :planning, :performance_target], -1, :constraint_violation, 1003},
          {[:interface, :max_results], 0, :validation_failed, 1001},
          {[:dev, :debug_mode], :yes, :validation_failed, 1001}
        ] do
      assert {:error, %Error{error_type: ^type, code: ^code}} =
               ConfigLogic.update_config(@config, path, value)
    end

    assert {:error, %Error{error_type: :invalid_config_value, code: 1002}} =
             ConfigValidator.validate(Config.new(ai: %{provider: :unknown}))

    invalid =
      put_in(@config.infrastructure.rate_limiting.default_rules[:bad], %{scale: 0, limit: 1})

    assert {:error, %Error{message: "Invalid rate limiting rule: :bad"}} =
             ConfigValidator.validate(invalid)
  end

  test "suspicious paths are violations, read and written" do
    long = List.duplicate(:a, 51)

    for path <- [[System], [:ai, :__struct__], ["../../etc"], ["<SCRIPT>"], [1], long] do
      assert {:error, %Error{error_type: :security_violation, code: 1000}} =
               ConfigLogic.get_config_value(@config, path)

      assert {:error, %Error{error_type: :security_violation, code: 1000}} =
               ConfigLogic.update_config(@config, path, 1)
    end
  end

  test "dangerous values are violations" do
    deep = Enum.reduce(1..30, 1, fn _n, inner -> [inner] end)

    for value <- [
          fn -> 1 end,
          String.duplicate("x", 1_000_001),
          deep,
          %{a: [fn -> 1 end]},
          [1 | fn -> 1 end]
        ] do
      assert {:error, %Error{error_type: :security_violation, code: 1005}} =
               ConfigLogic.update_config(@config, [:dev, :debug_mode], value)
    end
  end

  test "reading" do
    assert ConfigLogic.get_config_value(@config, []) == {:ok, @config}
    assert ConfigLogic.get_config_value(@config, [:ai, :provider]) == {:ok, :mock}

    assert {:error, %Error{error_type: :config_path_not_found, code: nil}} =
             ConfigLogic.get_config_value(@config, [:ai, :nothing])

    assert {:error, %Error{error_type: :config_path_not_found}} =
             ConfigLogic.get_config_value(@config, [:ai, :provider, :deeper])

    assert {:error, %Error{error_type: :config_path_invalid}} =
             ConfigLogic.get_config_value(@config, [:ai | :provider])

    assert {:error, %Error{error_type: :invalid_path}} =
             ConfigLogic.get_config_value(@config, :ai)
  end

  test "merging and comparing" do
    merged = ConfigLogic.merge_env_config(@config, dev: [debug_mode: true], unknown: 1)
    assert merged.dev == %{@config.dev | debug_mode: true}

    assert ConfigLogic.diff_configs(@config, merged) ==
             %{dev: %{debug_mode: %{old: false, new: true, path: [:dev, :debug_mode]}}}

    assert ConfigLogic.diff_configs(@config, @config) == %{}
    assert {:error, %Error{}} = ConfigLogic.build_config(dev: %{})
    assert ConfigLogic.reset_config() == @config
  end

  test "the struct has Access" do
    assert @config[:ai][:provider] == :mock
    assert put_in(@config, [:dev, :debug_mode], true).dev.debug_mode
    assert {%{debug_mode: false}, %Config{}} = pop_in(@config[:dev])
    assert Config.fetch(@config, :nothing) == :error
  end

  test "a namespace takes any path below it" do
    assert {:ok, %{app: %{a: %{b: 1}}}} =
             ConfigLogic.update_namespace(%{app: %{}}, [:app, :a, :b], 1)

    assert {:ok, %{app: %{a: %{b: 1}}}} =
             ConfigLogic.update_namespace(%{app: %{a: 2}}, [:app, :a, :b], 1)

    assert {:error, %Error{error_type: :config_update_forbidden}} =
             ConfigLogic.update_namespace(%{app: %{}}, [:app], %{})

    assert {:error, %Error{error_type: :security_violation}} =
             ConfigLogic.update_namespace(%{app: %{}}, [:app, System], 1)
  end
end

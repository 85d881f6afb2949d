defmodule Foundation.ConfigTest do
  use ExUnit.Case
  @moduletag :integration

  alias Foundation.{Config, ServiceRegistry}
  alias Foundation.Services.ConfigServer
  alias Foundation.Types

  setup do
    :ok = ConfigServer.reset_state()
    on_exit(&ConfigServer.reset_state/0)
  end

  test "reads, updates, resets" do
    assert {:ok, %Types.Config{}} = Config.get()
    assert {:ok, %Types.Config{}} = Config.get([])
    assert Config.get([:ai, :provider]) == {:ok, :mock}
    assert Config.update([:dev, :debug_mode], true) == :ok
    assert Config.get([:dev, :debug_mode]) == {:ok, true}
    assert Config.reset() == :ok
    assert Config.get([:dev, :debug_mode]) == {:ok, false}
    assert Config.get_with_default([:no, :such], 1) == 1
    assert Config.get_with_default([:ai, :provider], 1) == :mock
    assert {:error, %Types.Error{error_type: :config_path_not_found}} = Config.get([:test, :key])

    assert {:error, %Types.Error{error_type: :config_update_forbidden}} =
             Config.update([:test, :key], 1)

    assert length(Config.updatable_paths()) == 13
  end

  test "the namespace of the server is among its options, until a change makes the sections anew" do
    {:ok, pid} = ServiceRegistry.lookup(:production, :config_server)
    ref = Process.monitor(pid)
    Process.exit(pid, :kill)
    assert_receive {:DOWN, ^ref, :process, ^pid, :killed}
    {:ok, _pid} = ServiceRegistry.wait_for_service(:production, :config_server)
    assert {:ok, %{namespace: :production, dev: %{}}} = Config.get()
    assert Config.get([:namespace]) == {:ok, :production}
    :ok = Config.update([:dev, :debug_mode], true)
    assert {:ok, config} = Config.get()
    refute is_map_key(config, :namespace)
  end

  test "options that are no list raise as in 1.x" do
    for options <- [:none, %{}, nil] do
      error = assert_raise FunctionClauseError, fn -> Config.initialize(options) end
      assert {error.module, error.function, error.arity} == {Config, :initialize, 1}
      error = assert_raise FunctionClauseError, fn -> ConfigServer.initialize(options) end
      assert {error.module, error.function, error.arity} == {ConfigServer, :initialize, 1}
    end
  end

  test "counts updates" do
    assert {:ok, %{status: :running, updates_count: 0, last_update: nil, subscribers_count: 0}} =
             Config.status()

    :ok = Config.update([:interface, :max_results], 5)
    assert {:ok, %{updates_count: 1, last_update: last, uptime_ms: uptime}} = Config.status()
    assert is_integer(last) and uptime >= 0
  end

  test "secrets and the node's name are refused by name" do
    for path <- [[:ai, :api_key], [:storage, :encryption_key], [:security], [:system, :node_name]] do
      assert {:error, %Foundation.Error{error_type: :config_update_forbidden, code: 1401}} =
               Config.safe_update(path, 1)
    end

    assert {:error, %Foundation.Error{error_type: :invalid_path, code: 9999}} =
             Config.safe_update(:ai, 1)

    assert Config.safe_update([:dev, :debug_mode], true) == :ok
  end

  test "subscribers hear of changes until they unsubscribe or die" do
    assert Config.subscribe() == :ok
    assert Config.subscribe() == :ok
    :ok = Config.update([:dev, :debug_mode], true)
    assert_receive {:config_notification, {:config_updated, [:dev, :debug_mode], true}}
    refute_received {:config_notification, {:config_updated, [:dev, :debug_mode], true}}
    :ok = Config.reset()
    assert_receive {:config_notification, {:config_reset, %Types.Config{}}}
    assert Config.unsubscribe() == :ok
    :ok = Config.update([:dev, :debug_mode], true)
    refute_receive {:config_notification, _}, 20

    {pid, ref} = spawn_monitor(fn -> Config.subscribe() end)
    assert_receive {:DOWN, ^ref, :process, ^pid, :normal}
    # The server has its :DOWN before our call.
    assert {:ok, %{subscribers_count: 0}} = Config.status()
  end

  test "a change is an event and a metric" do
    :ok = Foundation.Services.EventStore.reset_state()
    :ok = Foundation.Services.TelemetryService.reset_state()
    :ok = Config.update([:dev, :debug_mode], true)
    assert {:ok, [event]} = Foundation.Events.query(event_type: :config_updated)

    assert %{
             path: [:dev, :debug_mode],
             new_value: true,
             previous_value: {:ok, false},
             timestamp: _
           } = event.data

    :ok = Config.reset()

    assert {:ok, [%{data: %{reset_from_updates_count: 1}}]} =
             Foundation.Events.query(event_type: :config_reset)

    assert {:ok, %{foundation: %{config_updates: 1, config_resets: 1}}} =
             Foundation.Telemetry.get_metrics()
  end

  test "namespaces of the application are free-form" do
    assert Config.get([:sample, :limit]) == {:ok, 10}
    assert Config.get([:sample, :nested, :a]) == {:ok, 1}
    assert Config.subscribe() == :ok
    assert Config.update([:sample, :new, :flag], true) == :ok
    assert_receive {:config_notification, {:config_updated, [:sample, :new, :flag], true}}
    assert Config.get([:sample, :new]) == {:ok, %{flag: true}}

    assert {:error, %Types.Error{error_type: :config_path_not_found}} =
             Config.get([:sample, :none])

    assert {:error, %Types.Error{error_type: :security_violation}} =
             Config.update([:sample, :x], fn -> 1 end)

    :ok = Config.reset()
    assert {:error, _} = Config.get([:sample, :new])
    assert Config.get([:sample, :limit]) == {:ok, 10}
  end

  test "a wrong declaration of namespaces is logged, and the others work" do
    declared = Application.get_env(:foundation, :app_namespaces)
    on_exit(fn -> Application.put_env(:foundation, :app_namespaces, declared) end)

    for wrong <- [[:sample, 5, :dev, "x"], %{sample: 1}, :sample] do
      Application.put_env(:foundation, :app_namespaces, wrong)
      log = ExUnit.CaptureLog.capture_log(fn -> assert ConfigServer.reset_state() == :ok end)

      case wrong do
        [:sample | others] ->
          assert log =~ "app_namespaces: ignores #{inspect(others)}"
          assert Config.get([:sample, :limit]) == {:ok, 10}

        :sample ->
          assert log == ""
          assert Config.get([:sample, :limit]) == {:ok, 10}

        _map ->
          assert log =~ "it takes a list of atoms"
      end
    end
  end

  test "other namespaces have servers of their own, and every raw call is answered" do
    namespace = {:test, make_ref()}
    {:ok, pid} = start_supervised({ConfigServer, namespace: namespace})
    assert ServiceRegistry.lookup(namespace, :config_server) == {:ok, pid}
    assert {:ok, %Types.Config{}} = GenServer.call(pid, :get_config)
    assert {:ok, :mock} = GenServer.call(pid, {:get_config_path, [:ai, :provider]})
    assert :ok = GenServer.call(pid, {:update_config, [:dev, :debug_mode], true})
    assert {:ok, false} = Config.get([:dev, :debug_mode])
    assert :ok = GenServer.call(pid, {:subscribe, self()})
    assert :ok = GenServer.call(pid, {:unsubscribe, self()})
    assert :ok = GenServer.call(pid, :reset_config)
    assert {:ok, %{status: :running}} = GenServer.call(pid, :get_status)
    assert :ok = GenServer.call(pid, :reset_state)
    assert {:error, :unauthorized_access} = GenServer.call(pid, {:delete_everything})
  end

  test "an invalid start is refused" do
    Process.flag(:trap_exit, true)

    assert {:error, {:config_validation_failed, %Types.Error{}}} =
             ConfigServer.start_link(namespace: :x, dev: %{})
  end

  test "reset_state is for tests" do
    Application.put_env(:foundation, :test_mode, false)
    on_exit(fn -> Application.put_env(:foundation, :test_mode, true) end)

    assert {:error, %Types.Error{error_type: :operation_forbidden, code: 5002}} =
             ConfigServer.reset_state()

    assert {:error, %Types.Error{code: 3002}} = Foundation.Services.EventStore.reset_state()
    assert {:error, %Types.Error{code: 7002}} = Foundation.Services.TelemetryService.reset_state()
  end
end

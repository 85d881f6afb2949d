defmodule FoundationTest do
  use ExUnit.Case
  @moduletag :smoke

  test "is available once the application has started" do
    assert Foundation.available?()
    assert Foundation.version() == "2.0.0"
    assert Foundation.initialize() == :ok
    assert Foundation.initialize(config: [dev: %{}]) == :ok
    assert Foundation.start_link() == {:ok, self()}
  end

  test "status and health" do
    assert {:ok,
            %{
              config: %{status: :running},
              events: %{status: :running},
              telemetry: %{status: :running}
            }} = Foundation.status()

    assert {:ok, health} = Foundation.health()
    assert %{status: :healthy, foundation_available: true, services: %{config: _}} = health
    assert health.elixir_version == System.version()
    assert health.otp_release == System.otp_release()
    assert is_integer(health.timestamp)
  end

  test "the tree has the names that 1.x has" do
    for name <- [
          Foundation.Supervisor,
          Foundation.ProcessRegistry,
          Foundation.TaskSupervisor,
          Foundation.Infrastructure.ConnectionManager,
          Foundation.Infrastructure.RateLimiter.HammerBackend
        ] do
      assert is_pid(Process.whereis(name)), inspect(name)
    end

    for service <- [:config_server, :event_store, :telemetry_service] do
      assert [{_pid, _value}] =
               Registry.lookup(Foundation.ProcessRegistry, {:production, service})
    end
  end

  test "shuts down and starts again" do
    assert Foundation.shutdown() == :ok
    assert Process.whereis(Foundation.Supervisor) == nil
    assert Foundation.shutdown() == :ok
    Application.stop(:foundation)
    assert {:ok, _started} = Application.ensure_all_started(:foundation)
    assert Foundation.available?()
  end
end

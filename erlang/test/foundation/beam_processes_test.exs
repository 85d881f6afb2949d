defmodule Foundation.BEAM.ProcessesTest do
  use ExUnit.Case, async: true
  @moduletag :integration

  alias Foundation.BEAM.Processes

  test "starts, describes and stops a coordinator with its workers" do
    assert {:ok, ecosystem} =
             Processes.spawn_ecosystem(%{
               coordinator: NoSuchModule,
               workers: {NoSuchModule, count: 3}
             })

    assert %{topology: :tree, supervisor: nil, workers: [_, _, _], monitors: [_, _, _, _]} =
             ecosystem

    send(ecosystem.coordinator, {:test_message, 1, self()})
    assert_receive {:message_processed, :coordinator}
    send(hd(ecosystem.workers), {:test_message, 1, self()})
    assert_receive {:message_processed, :worker}

    assert {:ok, %{total_processes: 4, total_memory: memory, topology: :tree}} =
             Processes.ecosystem_info(ecosystem)

    assert memory > 0
    assert Processes.shutdown_ecosystem(ecosystem) == :ok
    assert {:ok, %{total_processes: 0, workers: []}} = Processes.ecosystem_info(ecosystem)
  end

  test "a self-healing one gets a new coordinator" do
    config = %{
      coordinator: NoSuchModule,
      workers: {NoSuchModule, []},
      fault_tolerance: :self_healing
    }

    {:ok, ecosystem} = Processes.spawn_ecosystem(config)
    Process.exit(ecosystem.coordinator, :kill)

    {:ok, {:ok, info}} =
      Foundation.Utils.retry(
        fn ->
          {:ok, info} = Processes.ecosystem_info(ecosystem)

          if info.coordinator.status != :dead and info.coordinator.pid != ecosystem.coordinator,
            do: {:ok, {:ok, info}},
            else: {:error, :not_yet}
        end,
        max_attempts: 100,
        base_delay: 5,
        max_delay: 5
      )

    assert info.total_processes == 2
    assert Processes.shutdown_ecosystem(ecosystem) == :ok
    refute Process.alive?(info.coordinator.pid)
  end

  test "an invalid configuration says what is wrong" do
    for {config, message} <- [
          {:odd, "Configuration must be a map"},
          {%{}, "Configuration must include :coordinator"},
          {%{coordinator: A}, "Configuration must include :workers"},
          {%{coordinator: "A", workers: {A, []}}, "Coordinator must be a module name (atom)"},
          {%{coordinator: A, workers: A}, "Workers must be a {module, options} tuple"},
          {%{coordinator: A, workers: {"A", []}}, "Worker module must be an atom"},
          {%{coordinator: A, workers: {A, %{}}}, "Worker options must be a keyword list"}
        ] do
      assert {:error, %{error_type: :validation_error, code: 3001, message: ^message}} =
               Processes.spawn_ecosystem(config)
    end
  end

  test "isolated work answers and ends" do
    assert {:ok, pid} = Processes.isolate_memory_intensive_work(fn -> 1 + 1 end)
    assert_receive {:work_complete, 2}
    ref = Process.monitor(pid)
    assert_receive {:DOWN, ^ref, :process, ^pid, _}
    assert {:ok, _} = Processes.isolate_memory_intensive_work(fn -> raise "boom" end, self())
    assert_receive {:work_error, %RuntimeError{message: "boom"}}
  end
end

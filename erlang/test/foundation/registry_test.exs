defmodule Foundation.RegistryTest do
  use ExUnit.Case
  import ExUnit.CaptureLog
  @moduletag :integration

  alias Foundation.{ProcessRegistry, ServiceRegistry}
  alias Foundation.Types.Error

  setup do
    ref = make_ref()
    on_exit(fn -> ProcessRegistry.cleanup_test_namespace(ref) end)
    %{ref: ref, namespace: {:test, ref}}
  end

  defp process do
    pid = spawn(fn -> Process.sleep(:infinity) end)
    on_exit(fn -> Process.exit(pid, :kill) end)
    pid
  end

  defp kill(pid) do
    ref = Process.monitor(pid)
    Process.exit(pid, :kill)
    assert_receive {:DOWN, ^ref, :process, ^pid, _reason}
  end

  test "registers, finds, lists, removes", %{namespace: namespace} do
    pid = process()
    assert ProcessRegistry.register(namespace, :a, pid) == :ok
    assert ProcessRegistry.register(namespace, :a, pid) == :ok
    assert ProcessRegistry.register(namespace, :a, self()) == {:error, {:already_registered, pid}}
    assert ProcessRegistry.lookup(namespace, :a) == {:ok, pid}
    assert ProcessRegistry.registered?(namespace, :a)
    assert ProcessRegistry.list_services(namespace) == [:a]
    assert ProcessRegistry.get_all_services(namespace) == %{a: pid}
    assert ProcessRegistry.count_services(namespace) == 1
    assert ProcessRegistry.unregister(namespace, :a) == :ok
    assert ProcessRegistry.lookup(namespace, :a) == :error
    assert ProcessRegistry.unregister(namespace, :a) == :ok
  end

  test "a dead process frees its name", %{namespace: namespace} do
    pid = process()
    :ok = ProcessRegistry.register(namespace, :a, pid)
    kill(pid)
    assert ProcessRegistry.lookup(namespace, :a) == :error
    :ok = ProcessRegistry.register(namespace, :b, pid = process())
    kill(pid)
    assert ProcessRegistry.register(namespace, :b, self()) == :ok
  end

  test "names that processes start under come first", %{namespace: namespace} do
    name = ProcessRegistry.via_tuple(namespace, :agent)
    assert name == {:via, Registry, {ProcessRegistry, {namespace, :agent}}}
    {:ok, pid} = Agent.start_link(fn -> 1 end, name: name)
    assert ProcessRegistry.lookup(namespace, :agent) == {:ok, pid}
    assert ServiceRegistry.register(namespace, :agent, self()) == :ok
    assert ProcessRegistry.lookup(namespace, :agent) == {:ok, pid}
  end

  test "built-in names can be registered again without effect, as consumers do at their start" do
    {:ok, server} = ServiceRegistry.lookup(:production, :config_server)
    assert ServiceRegistry.register(:production, :config_server, self()) == :ok
    assert ServiceRegistry.register(:production, :telemetry_service, self()) == :ok
    assert ServiceRegistry.lookup(:production, :config_server) == {:ok, server}
    ServiceRegistry.unregister(:production, :config_server)
    ServiceRegistry.unregister(:production, :telemetry_service)
    assert ServiceRegistry.lookup(:production, :config_server) == {:ok, server}
  end

  test "any term is a namespace, and none is a pattern" do
    for namespace <- [:_, :"$1", {:app, 1}, "text", %{a: 1}] do
      assert ProcessRegistry.register(namespace, :a, self()) == :ok
      assert ProcessRegistry.get_all_services(namespace) == %{a: self()}
      ProcessRegistry.unregister(namespace, :a)
    end

    assert is_map(ProcessRegistry.stats())
  end

  test "statistics", %{namespace: namespace} do
    before = ProcessRegistry.stats()
    :ok = ProcessRegistry.register(namespace, :a, self())
    stats = ProcessRegistry.stats()
    assert stats.total_services == before.total_services + 1
    assert stats.test_namespaces == before.test_namespaces + 1
    assert stats.production_services >= 3
    assert stats.partitions == System.schedulers_online()
    assert stats.memory_usage_bytes > 0
    assert %{backup_table_exists: true, table_size: _, memory_words: _} = stats.ets_table_info
  end

  test "cleaning up a test namespace stops its processes", %{ref: ref, namespace: namespace} do
    {:ok, agent} = Agent.start(fn -> 1 end)
    deaf = spawn(fn -> Process.flag(:trap_exit, true) && Process.sleep(:infinity) end)
    :ok = ProcessRegistry.register(namespace, :agent, agent)
    :ok = ProcessRegistry.register(namespace, :deaf, deaf)
    assert ServiceRegistry.cleanup_test_namespace(ref) == :ok
    refute Process.alive?(agent)
    refute Process.alive?(deaf)
    assert ProcessRegistry.list_services(namespace) == []
  end

  test "a missing service is an error of code 5001", %{namespace: namespace} do
    assert {:error, %Error{error_type: :service_not_found, code: 5001} = error} =
             ServiceRegistry.lookup(namespace, :a)

    assert error.context == %{namespace: namespace, service: :a}
    assert {:error, %Error{code: 5001}} = ServiceRegistry.health_check(namespace, :a)
    assert ServiceRegistry.wait_for_service(namespace, :a, 20) == {:error, :timeout}
  end

  test "options of a health check that are none raise, whether the service is there or not" do
    error =
      assert_raise FunctionClauseError, fn ->
        apply(ServiceRegistry, :health_check, [:none, :a, :b])
      end

    assert {error.module, error.function} == {Keyword, :get}
  end

  test "health checks", %{namespace: namespace} do
    pid = process()
    :ok = ServiceRegistry.register(namespace, :a, pid)

    check = fn fun, opts ->
      ServiceRegistry.health_check(namespace, :a, [health_check: fun] ++ opts)
    end

    assert ServiceRegistry.health_check(namespace, :a) == {:ok, pid}

    for healthy <- [:ok, true, {:ok, 1}],
        do: assert(check.(fn _pid -> healthy end, []) == {:ok, pid})

    assert check.(fn ^pid -> false end, []) == {:error, {:health_check_failed, false}}

    assert check.(fn _pid -> {:error, :x} end, []) ==
             {:error, {:health_check_failed, {:error, :x}}}

    assert {:error, {:health_check_error, %RuntimeError{message: "boom"}}} =
             check.(fn _pid -> raise "boom" end, [])

    assert {:error, {:health_check_crashed, %ArgumentError{}}} =
             check.(fn _pid -> raise ArgumentError end, [])

    assert check.(fn _pid -> exit(:gone) end, []) == {:error, {:health_check_crashed, :gone}}

    # Of a pair the reason: a call that failed says so in its first element.
    for {fun, reason} <- [
          {fn _pid -> exit({:shutdown, :late}) end, :shutdown},
          {fn _pid -> GenServer.call(:nobody, :well?) end, :noproc},
          {fn pid -> GenServer.call(pid, :well?, 1) end, :timeout},
          {fn _pid -> exit({:a, :b, :c}) end, {:a, :b, :c}}
        ],
        do: assert(check.(fun, []) == {:error, {:health_check_crashed, reason}})

    caller = self()
    assert check.(fn _pid -> Process.get(:"$callers") == [caller] end, []) == {:ok, pid}

    assert check.(fn _pid -> Process.sleep(:infinity) end, timeout: 10) ==
             {:error, :health_check_timeout}

    # Nothing of it reaches the caller.
    refute_received _any
  end

  test "what is done with services is logged", %{namespace: {:test, ref} = namespace} do
    pid = process()
    other = process()
    level = Logger.level()
    on_exit(fn -> Logger.configure(level: level) end)
    Logger.configure(level: :debug)

    log =
      capture_log(fn ->
        :ok = ServiceRegistry.register(namespace, :a, pid)
        {:error, _taken} = ServiceRegistry.register(namespace, :a, other)
        [:a] = ServiceRegistry.list_services(namespace)
        {:ok, ^pid} = ServiceRegistry.wait_for_service(namespace, :a)

        for fun <- [
              fn _pid -> true end,
              fn _pid -> false end,
              fn _pid -> :ill end,
              fn _pid -> exit({:ill, :now}) end,
              fn _pid -> raise "ill" end,
              fn _pid -> Process.sleep(:infinity) end
            ],
            do: ServiceRegistry.health_check(namespace, :a, health_check: fun, timeout: 20)

        :ok = ServiceRegistry.unregister(namespace, :a)
        :ok = ServiceRegistry.register(namespace, :a, pid)
        :ok = ServiceRegistry.cleanup_test_namespace(ref)
      end)

    for line <- [
          "Registering service :a in namespace #{inspect(namespace)}",
          "Successfully registered service :a in namespace #{inspect(namespace)}",
          "Failed to register service :a in namespace #{inspect(namespace)}: already registered to PID #{inspect(pid)}",
          "Listing services in namespace #{inspect(namespace)}",
          "Found 1 services in namespace #{inspect(namespace)}",
          "Waiting for service :a in namespace #{inspect(namespace)} (timeout: 5000ms)",
          "Service :a became available after 0ms",
          "Health check passed for :a in ",
          "Health check failed for :a: returned false",
          "Health check failed for :a: :ill",
          "Health check crashed for :a: :ill",
          "Health check errored for :a: %RuntimeError{message: \"ill\"}",
          "Health check timed out for :a after 20ms",
          "Unregistering service :a from namespace #{inspect(namespace)}",
          "Unregistered service :a from namespace #{inspect(namespace)}",
          "Cleaning up 1 services in test namespace"
        ],
        do: assert(log =~ line)
  end

  test "waiting ends when the service comes", %{namespace: namespace} do
    pid = process()
    spawn(fn -> ServiceRegistry.register(namespace, :late, pid) end)
    assert ServiceRegistry.wait_for_service(namespace, :late) == {:ok, pid}

    assert %{
             namespace: ^namespace,
             services: %{late: %{pid: ^pid, alive: true, uptime_ms: _}},
             total_services: 1,
             healthy_services: 1
           } = ServiceRegistry.get_service_info(namespace)

    assert ServiceRegistry.list_services(namespace) == [:late]
    assert ServiceRegistry.unregister(namespace, :late) == :ok
  end

  test "a pid of a node that is not connected is no error", %{namespace: namespace} do
    # NEW_PID_EXT of a@b
    remote = :erlang.binary_to_term(<<131, 88, 119, 3, "a@b", 7::32, 0::32, 1::32>>)
    assert ProcessRegistry.register(namespace, :far, remote) == :ok
    assert ProcessRegistry.lookup(namespace, :far) == :error
  end
end

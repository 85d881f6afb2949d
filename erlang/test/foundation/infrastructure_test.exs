defmodule Foundation.InfrastructureTest do
  use ExUnit.Case
  @moduletag :integration

  import Foundation.Eventually
  alias Foundation.{Host, Infrastructure}
  alias Foundation.Infrastructure.{CircuitBreaker, ConnectionManager, RateLimiter}
  alias Foundation.Infrastructure.PoolWorkers.HttpWorker
  alias Foundation.Infrastructure.RateLimiter.HammerBackend
  alias Foundation.Types.Error

  defmodule Worker do
    use GenServer
    def start_link(args), do: GenServer.start_link(__MODULE__, args)
    @impl true
    def init(:fail), do: {:stop, :no_worker}
    def init(args), do: {:ok, args}
    @impl true
    def handle_call(:args, _from, args), do: {:reply, args, args}
    def handle_call(:die, _from, args), do: {:stop, :normal, :dying, args}
  end

  defp name(prefix), do: :"#{prefix}_#{System.unique_integer([:positive])}"

  defp forward(events) do
    test = self()
    id = make_ref()

    handler = fn event, measurements, metadata, _ ->
      send(test, {List.last(event), measurements, metadata})
    end

    :ok = Host.Telemetry.attach_many(id, events, handler, nil)
    on_exit(fn -> Host.Telemetry.detach(id) end)
  end

  describe "circuit breaker" do
    defp breaker(tolerance, refresh) do
      name = name(:breaker)

      :ok =
        CircuitBreaker.start_fuse_instance(name,
          strategy: :standard,
          tolerance: tolerance,
          refresh: refresh
        )

      name
    end

    defp fail(name), do: CircuitBreaker.execute(name, fn -> raise "boom" end)

    test "opens after more failures than it tolerates, and closes by itself" do
      name = breaker(2, 80)
      assert CircuitBreaker.execute(name, fn -> :fine end) == {:ok, :fine}

      assert CircuitBreaker.execute(name, fn -> {:error, :no_failure} end) ==
               {:ok, {:error, :no_failure}}

      for _n <- 1..2,
          do:
            assert(
              {:error, %Error{code: 5003, error_type: :protected_operation_failed}} = fail(name)
            )

      assert CircuitBreaker.get_status(name) == :ok
      assert {:error, %Error{code: 5003}} = fail(name)
      assert CircuitBreaker.get_status(name) == :blown

      assert {:error,
              %Error{code: 5004, error_type: :circuit_breaker_blown, retry_strategy: :fixed_delay}} =
               CircuitBreaker.execute(name, fn -> flunk("must not run") end)

      Foundation.Utils.retry(
        fn -> if CircuitBreaker.get_status(name) == :ok, do: :ok, else: {:error, :open} end,
        max_attempts: 100,
        base_delay: 10,
        max_delay: 10
      )

      assert CircuitBreaker.execute(name, fn -> 1 end) == {:ok, 1}
      # Its history went with the reset.
      for _n <- 1..2, do: fail(name)
      assert CircuitBreaker.get_status(name) == :ok
    end

    test "throws and exits are failures too" do
      name = breaker(1, 1000)

      assert {:error, %Error{code: 5012, context: %{kind: :throw, value: :ball}}} =
               CircuitBreaker.execute(name, fn -> throw(:ball) end)

      assert {:error, %Error{code: 5012, context: %{kind: :exit}}} =
               CircuitBreaker.execute(name, fn -> exit(:gone) end)

      assert CircuitBreaker.get_status(name) == :blown
      assert CircuitBreaker.reset(name) == :ok
      assert CircuitBreaker.get_status(name) == :ok
    end

    test "failures outside of the window do not add up" do
      name = breaker(1, 30)
      failed_at = System.monotonic_time(:millisecond)
      fail(name)
      eventually(fn -> System.monotonic_time(:millisecond) > failed_at + 60 end)
      fail(name)
      assert CircuitBreaker.get_status(name) == :ok
    end

    test "unknown names and wrong arguments" do
      name = name(:unknown)

      assert {:error, %Error{code: 5005, error_type: :circuit_breaker_not_found}} =
               CircuitBreaker.execute(name, fn -> 1 end)

      assert {:error, %Error{code: 5007}} = CircuitBreaker.get_status(name)
      assert {:error, %Error{code: 5013}} = CircuitBreaker.reset(name)

      assert {:error, %Error{code: 5009, error_type: :invalid_input}} =
               CircuitBreaker.execute("x", fn -> 1 end)

      assert {:error, %Error{code: 5009, context: %{operation_type: :not_function}}} =
               CircuitBreaker.execute(name, 1)

      assert {:error, %Error{code: 5011}} = CircuitBreaker.get_status("x")

      assert_raise FunctionClauseError, fn ->
        apply(CircuitBreaker, :start_fuse_instance, ["x"])
      end
    end

    test "limits that are no counts" do
      for {tolerance, refresh} <- [{-1, 5}, {1, -5}, {1.5, 5}, {:many, 5}] do
        assert {:error, %Error{code: 5002, context: %{exception: %ArgumentError{}}}} =
                 CircuitBreaker.start_fuse_instance(:no_breaker,
                   strategy: :standard,
                   tolerance: tolerance,
                   refresh: refresh
                 )
      end

      assert {:error, %Error{code: 5007}} = CircuitBreaker.get_status(:no_breaker)
    end

    test "tells telemetry" do
      forward(
        for event <- [:fuse_installed, :call_executed, :call_rejected, :state_change],
            do: [:foundation, :foundation, :infra, :circuit_breaker, event]
      )

      name = breaker(0, 1000)
      assert_receive {:fuse_installed, %{counter: 1}, %{name: ^name}}
      CircuitBreaker.execute(name, fn -> 1 end, %{extra: true})

      assert_receive {:call_executed, _,
                      %{name: ^name, status: :success, extra: true, duration: _}}

      fail(name)
      assert_receive {:call_executed, _, %{status: :failed, exception: %RuntimeError{}}}
      fail(name)
      assert_receive {:call_rejected, _, %{reason: :circuit_blown}}
      CircuitBreaker.reset(name)
      assert_receive {:state_change, _, %{new_state: :reset}}
    end

    test "initialize_circuit_breaker checks what it is given" do
      name = name(:breaker)
      config = %{failure_threshold: 3, recovery_time: 1000}
      assert Infrastructure.initialize_circuit_breaker(name, config) == :ok

      assert {:error, %Error{error_type: :already_exists, code: nil}} =
               Infrastructure.initialize_circuit_breaker(name, config)

      assert Infrastructure.initialize_circuit_breaker(name(:breaker)) == :ok

      for bad <- [
            %{},
            %{failure_threshold: 0, recovery_time: 1},
            %{failure_threshold: 1},
            %{failure_threshold: 1, recovery_time: "1"}
          ] do
        assert {:error, %Error{error_type: :invalid_configuration}} =
                 Infrastructure.initialize_circuit_breaker(name(:breaker), bad)
      end

      assert {:error, %Error{error_type: :invalid_arguments}} =
               Infrastructure.initialize_circuit_breaker("x", config)

      assert {:error, %Error{error_type: :invalid_arguments}} =
               Infrastructure.initialize_circuit_breaker(name, [])

      assert {:error, %Error{error_type: :invalid_name}} =
               Infrastructure.initialize_circuit_breaker(nil, config)

      assert {:error, %Error{error_type: :invalid_name}} =
               Infrastructure.initialize_circuit_breaker("x")
    end
  end

  describe "rate limiter" do
    test "allows up to the limit in each window" do
      user = name(:user)
      results = for _n <- 1..5, do: RateLimiter.check_rate(user, :op, 3, 3_600_000)
      assert Enum.take(results, 3) == [:ok, :ok, :ok]

      assert {:error,
              %Error{code: 6001, error_type: :rate_limit_exceeded, retry_strategy: :fixed_delay} =
                error} = List.last(results)

      assert error.context == %{
               entity_id: user,
               operation: :op,
               limit: 3,
               time_window_ms: 3_600_000
             }

      assert RateLimiter.check_rate(user, :other, 3, 3_600_000) == :ok
      assert RateLimiter.check_rate(name(:user), :op, 3, 3_600_000) == :ok
    end

    test "runs functions within the limit" do
      user = name(:user)
      assert RateLimiter.execute_with_limit(user, :op, 2, 3_600_000, fn -> 1 end) == {:ok, 1}

      assert {:error, %Error{code: 6008, error_type: :rate_limited_operation_failed}} =
               RateLimiter.execute_with_limit(user, :op, 2, 3_600_000, fn -> raise "boom" end)

      assert {:error, %Error{code: 6001}} =
               RateLimiter.execute_with_limit(user, :op, 2, 3_600_000, fn -> 1 end)

      assert {:error, %Error{code: 6008, error_type: :validation_failed}} =
               RateLimiter.check_rate({:no, :text}, :op, 1, 1000)
    end

    test "status and reset are those of 1.x" do
      assert RateLimiter.get_status("u", :op) ==
               {:ok,
                %{
                  status: :available,
                  current_count: 0,
                  limit: 100,
                  window_ms: 60_000,
                  entity_id: "u"
                }}

      assert RateLimiter.reset("u", :op) == :ok
    end

    test "counts exactly, whoever counts" do
      key = name(:key)

      1..8
      |> Task.async_stream(fn _n ->
        for _m <- 1..500, do: HammerBackend.hit(key, 3_600_000, 1_000_000)
      end)
      |> Stream.run()

      assert HammerBackend.get(key, 3_600_000) == 4000
      assert HammerBackend.set(key, 3_600_000, 7) == 7
      assert HammerBackend.inc(key, 3_600_000) == 8
      assert {:deny, wait} = HammerBackend.hit(key, 3_600_000, 8)
      assert wait in 1..3_600_000
    end

    test "expired counters are removed" do
      HammerBackend.hit(:old, 1, 10)

      eventually(fn ->
        send(HammerBackend, :clean)
        :sys.get_state(HammerBackend)
        :ets.match(HammerBackend, {{:old, :_}, :_, :_}) == []
      end)
    end
  end

  describe "connection manager" do
    defp pool(config) do
      name = name(:pool)

      {:ok, pid} =
        ConnectionManager.start_pool(
          name,
          Keyword.merge([worker_module: Worker, worker_args: :a], config)
        )

      on_exit(fn -> ConnectionManager.stop_pool(name) end)
      assert is_pid(pid)
      name
    end

    test "runs functions of a worker" do
      name = pool(size: 2, max_overflow: 1)
      assert name in ConnectionManager.list_pools()
      assert ConnectionManager.with_connection(name, &GenServer.call(&1, :args)) == {:ok, :a}

      assert {:error, %RuntimeError{message: "boom"}} =
               ConnectionManager.with_connection(name, fn _ -> raise "boom" end)

      assert {:error, :gone} = ConnectionManager.with_connection(name, fn _ -> exit(:gone) end)

      # One at a time, inside the manager.
      manager = Process.whereis(ConnectionManager)
      assert ConnectionManager.with_connection(name, fn _ -> self() end) == {:ok, manager}

      assert ConnectionManager.get_pool_status(name) ==
               {:ok, %{size: 2, overflow: 0, workers: 0, waiting: 0, monitors: 0}}
    end

    test "errors" do
      name = pool(size: 1)

      assert ConnectionManager.start_pool(name, worker_module: Worker) ==
               {:error, :already_exists}

      assert {:error, {:invalid_config, :size, "Size must be a non-negative integer"}} =
               ConnectionManager.start_pool(name(:p), worker_module: Worker, size: -1)

      assert {:error, {:invalid_config, :max_overflow, _}} =
               ConnectionManager.start_pool(name(:p), worker_module: Worker, max_overflow: :a)

      assert {:error, {:invalid_worker_module, No.Such}} =
               ConnectionManager.start_pool(name(:p), worker_module: No.Such)

      assert ConnectionManager.with_connection(name(:p), fn _ -> 1 end) ==
               {:error, :pool_not_found}

      assert ConnectionManager.get_pool_status(name(:p)) == {:error, :not_found}
      assert ConnectionManager.stop_pool(name(:p)) == {:error, :not_found}
      empty = pool(size: 0, max_overflow: 0)

      assert ConnectionManager.with_connection(empty, fn _ -> 1 end, 20) ==
               {:error, :checkout_timeout}
    end

    test "a worker that dies is replaced" do
      name = pool(size: 1, max_overflow: 0)
      assert ConnectionManager.with_connection(name, &GenServer.call(&1, :die)) == {:ok, :dying}
      assert ConnectionManager.with_connection(name, &GenServer.call(&1, :args)) == {:ok, :a}
    end
  end

  describe "own pool" do
    alias Foundation.Infrastructure.Pool

    setup do
      {:ok, pool} =
        Pool.start_link(
          [
            name: {:local, name(:own)},
            worker_module: Worker,
            size: 2,
            max_overflow: 1,
            strategy: :fifo
          ],
          :a
        )

      %{pool: pool}
    end

    test "gives out, grows, shrinks", %{pool: pool} do
      assert Pool.status(pool) == {:ready, 2, 0, 0}
      [a, b, c] = for _n <- 1..3, do: Pool.checkout(pool, 100)
      assert length(Enum.uniq([a, b, c])) == 3
      assert {:full, 0, 1, 3} = Pool.status(pool)
      assert {:timeout, _} = catch_exit(Pool.checkout(pool, 10))
      Pool.checkin(pool, a)
      assert {_state, 0, 0, 2} = Pool.status(pool)
      refute Process.alive?(a)
      Pool.checkin(pool, b)
      Pool.checkin(pool, b)
      assert {:ready, 1, 0, 1} = Pool.status(pool)
    end

    test "a borrower that dies gives its worker back, also to who waits", %{pool: pool} do
      test = self()

      borrowers =
        for _n <- 1..3 do
          spawn(fn ->
            send(test, {:have, Pool.checkout(pool, 100)})
            Process.sleep(:infinity)
          end)
        end

      for _n <- 1..3, do: assert_receive({:have, _worker})
      waiting = Task.async(fn -> Pool.checkout(pool, 1000) end)
      Process.exit(hd(borrowers), :kill)
      assert is_pid(Task.await(waiting))
      for pid <- borrowers, do: Process.exit(pid, :kill)
    end

    test "a waiter that gives up takes nothing", %{pool: pool} do
      taken = for _n <- 1..3, do: Pool.checkout(pool, 100)
      catch_exit(Pool.checkout(pool, 5))
      for worker <- taken, do: Pool.checkin(pool, worker)
      assert {:ready, 2, 0, 0} = Pool.status(pool)
    end

    test "does not start without workers" do
      Process.flag(:trap_exit, true)

      assert {:error, _} =
               Pool.start_link(
                 [
                   name: {:local, name(:own)},
                   worker_module: Worker,
                   size: 1,
                   max_overflow: 0,
                   strategy: :lifo
                 ],
                 :fail
               )
    end
  end

  describe "HTTP mock" do
    test "answers as httpbin would" do
      {:ok, worker} = HttpWorker.start_link(base_url: "https://x.test/", headers: [{"A", "1"}])

      assert {:ok, %{status_code: 200, body: body}} =
               HttpWorker.get(worker, "/get", params: [q: "a b"])

      assert %{
               "args" => %{"q" => "a b"},
               "url" => "https://x.test/get?q=a+b",
               "headers" => %{"A" => "1"}
             } = Host.Json.decode!(body)

      assert {:ok, %{body: body}} = HttpWorker.post(worker, "post", %{a: [1, nil]})

      assert %{"json" => %{"a" => [1, nil]}, "data" => ~S({"a":[1,null]})} =
               Host.Json.decode!(body)

      assert {:ok, %{status_code: 418}} = HttpWorker.get(worker, "/status/418")
      assert {:ok, %{body: <<_::binary-32>>}} = HttpWorker.get(worker, "/bytes/32")
      assert {:error, :timeout} = HttpWorker.get(worker, "/delay/99")

      assert {:ok, %{stats: %{requests_made: 5, errors: 1}, base_url: "https://x.test/"}} =
               HttpWorker.get_status(worker)
    end

    test "needs a base URL" do
      Process.flag(:trap_exit, true)

      for {config, reason} <- [
            {[], :missing_base_url},
            {[base_url: ""], :empty_base_url},
            {[base_url: 1], :invalid_base_url_type},
            {[base_url: "ftp://x"], :invalid_scheme}
          ] do
        assert HttpWorker.start_link(config) == {:error, {:invalid_config, reason}}
      end
    end
  end

  describe "protection" do
    @config %{
      circuit_breaker: %{failure_threshold: 5, recovery_time: 30_000},
      rate_limiter: %{scale: 60_000, limit: 100},
      connection_pool: %{size: 10, max_overflow: 5}
    }

    test "executes under what the options name" do
      assert Infrastructure.execute_protected(:k, [], fn -> 1 end) == {:ok, 1}

      assert {:error, {:execution_error, %RuntimeError{}}} =
               Infrastructure.execute_protected(:k, [], fn -> raise "x" end)

      breaker = breaker(1, 1000)
      pool = pool(size: 1)
      options = [circuit_breaker: breaker, connection_pool: pool, rate_limiter: {:r, name(:u)}]
      assert Infrastructure.execute_protected(:k, options, fn -> 1 end) == {:ok, 1}

      assert {:error, %Error{code: 5005}} =
               Infrastructure.execute_protected(:k, [circuit_breaker: name(:none)], fn -> 1 end)

      assert {:error, :pool_not_found} =
               Infrastructure.execute_protected(:k, [connection_pool: name(:none)], fn -> 1 end)

      assert {:error, {:rate_limit_error, %Error{code: 6008}}} =
               Infrastructure.execute_protected(:k, [rate_limiter: {:r, {1}}], fn -> 1 end)

      for no_options <- [:config, %{}] do
        assert {:error, {:exception, %FunctionClauseError{}}} =
                 Infrastructure.execute_protected(:k, no_options, fn -> 1 end)
      end

      assert {:error, {:exception, %CaseClauseError{term: :no_pair}}} =
               Infrastructure.execute_protected(:k, [rate_limiter: :no_pair], fn -> 1 end)

      limited = [rate_limiter: {:r, name(:u)}]
      for _n <- 1..100, do: Infrastructure.execute_protected(:k, limited, fn -> 1 end)

      assert {:error, %Error{code: 6001}} =
               Infrastructure.execute_protected(:k, limited, fn -> 1 end)
    end

    test "configurations need all three parts" do
      key = name(:key)
      assert Infrastructure.configure_protection(key, @config) == :ok
      assert Infrastructure.get_protection_config(key) == {:ok, @config}
      assert key in Infrastructure.list_protection_keys()

      assert {:ok,
              %{
                circuit_breaker: %{
                  status: :unknown,
                  message: "Circuit breaker status not implemented"
                }
              }} = Infrastructure.get_protection_status(key)

      assert Infrastructure.get_protection_config(name(:key)) == {:error, :not_found}
      assert Infrastructure.get_protection_status(name(:key)) == {:error, :not_found}

      assert Infrastructure.configure_protection(key, Map.delete(@config, :rate_limiter)) ==
               {:error, :missing_required_keys}

      assert Infrastructure.configure_protection(key, []) == {:error, :invalid_config_format}

      for {part, reason} <- [
            circuit_breaker: :invalid_circuit_breaker_config,
            rate_limiter: :invalid_rate_limiter_config,
            connection_pool: :invalid_connection_pool_config
          ] do
        assert Infrastructure.configure_protection(key, Map.put(@config, part, %{})) ==
                 {:error, reason}
      end
    end

    test "whose process ends while it is asked, are asked of its successor" do
      agent = Infrastructure.ConfigAgent
      key = name(:key)

      for {ask, answer} <- [
            {fn -> Infrastructure.configure_protection(key, @config) end, :ok},
            {fn -> Infrastructure.get_protection_config(key) end, {:error, :not_found}},
            {fn -> Infrastructure.list_protection_keys() end, []}
          ] do
        if pid = Process.whereis(agent) do
          Process.unlink(pid)
          Agent.stop(pid)
        end

        test = self()

        spawn(fn ->
          Process.register(self(), agent)
          send(test, :registered)
          receive do: (_call -> exit(:shutdown))
        end)

        assert_receive :registered
        assert ask.() == answer
      end
    end

    test "engines" do
      assert Infrastructure.initialize_all_infra_components() == {:ok, []}

      assert {:ok, %{fuse: :running, hammer: :configured, timestamp: _}} =
               Infrastructure.get_infrastructure_status()
    end
  end
end

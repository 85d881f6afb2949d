defmodule Foundation.EventsTest do
  use ExUnit.Case
  @moduletag :integration

  alias Foundation.Events
  alias Foundation.Logic.EventLogic
  alias Foundation.Services.EventStore
  alias Foundation.Types.Error

  setup do
    :ok = EventStore.reset_state()
  end

  defp event(opts \\ []) do
    {:ok, event} =
      Events.new_event(Keyword.get(opts, :type, :x), opts[:data], Keyword.delete(opts, :type))

    event
  end

  test "stores and gets" do
    event = event()
    assert Events.store(event) == {:ok, event.event_id}
    assert Events.get(event.event_id) == {:ok, event}
    assert {:ok, id} = Events.new_event(:piped, 1) |> Events.store()
    assert {:ok, %{event_type: :piped}} = Events.get(id)
    assert Events.store({:error, :passed}) == {:error, :passed}

    assert {:error, %Error{error_type: :invalid_argument, code: 2005, context: %{received: :odd}}} =
             Events.store(:odd)

    assert {:error, %Error{error_type: :not_found, code: 3001, severity: :low}} = Events.get(1)
    for odd <- [0, -1, "1"], do: assert_raise(FunctionClauseError, fn -> Events.get(odd) end)
  end

  test "each call looks the store up once, settled or not" do
    test = self()
    handler = fn _event, _measurements, metadata, _config -> send(test, metadata.service) end
    event = event(correlation_id: "c")

    :ok =
      Foundation.Host.Telemetry.attach(
        :lookups,
        [:foundation, :foundation, :registry, :lookup],
        # The services look each other up, too.
        &if(self() == test, do: handler.(&1, &2, &3, &4)),
        nil
      )

    on_exit(fn -> Foundation.Host.Telemetry.detach(:lookups) end)

    for call <- [
          fn -> Events.store(event) end,
          fn -> Events.query(%{event_type: :x}) end,
          fn -> Events.get_by_correlation("c") end,
          fn -> Events.get(event.event_id) end
        ] do
      assert {:ok, _found} = call.()
      assert_received :event_store
      refute_received :event_store
    end
  end

  test "a batch is stored whole or not at all" do
    events = [event(), event()]
    assert Events.store_batch(events) == {:ok, Enum.map(events, & &1.event_id)}

    assert {:error, %Error{code: 2001}} =
             Events.store_batch([event(), %{event() | event_type: nil}])

    assert {:ok, %{current_event_count: 2, events_stored: 2}} = Events.stats()
    assert Events.store_batch([]) == {:ok, []}
  end

  test "finds the events of a correlation id, whenever they were stored" do
    assert Events.get_by_correlation("c") == {:ok, []}
    late = event(correlation_id: "c", timestamp: 20)
    early = event(correlation_id: "c", timestamp: 10)
    {:ok, _} = Events.store(late)
    {:ok, _} = Events.store(event(correlation_id: "other"))
    assert Events.get_by_correlation("c") == {:ok, [late]}
    {:ok, _} = Events.store_batch([early, event(correlation_id: nil)])
    assert Events.get_by_correlation("c") == {:ok, [early, late]}
    assert Events.get_correlation_chain("c") == {:ok, [early, late]}

    # Stored anew, also under another correlation id.
    {:ok, _} = Events.store(early)
    assert Events.get_by_correlation("c") == {:ok, [early, late]}
    {:ok, _} = Events.store(%{early | correlation_id: "d"})
    assert Events.get_by_correlation("c") == {:ok, [late]}
    assert {:ok, [%{correlation_id: "d"}]} = Events.get_by_correlation("d")
  end

  test "queries" do
    times = [3, 1, 2, 5, 4]

    events =
      for {time, n} <- Enum.with_index(times),
          do: event(type: Enum.at([:a, :b], rem(n, 2)), timestamp: time)

    {:ok, ids} = Events.store_batch(events)

    query = fn opts ->
      with {:ok, found} <- Events.query(opts), do: Enum.map(found, & &1.timestamp)
    end

    assert query.(order_by: :timestamp) == [1, 2, 3, 4, 5]
    assert query.(%{event_type: :a, order_by: :timestamp}) == [2, 3, 4]
    assert query.(time_range: {2, 4}, order_by: :timestamp) == [2, 3, 4]
    assert query.(order_by: :timestamp, offset: 1, limit: 2) == [2, 3]
    assert query.(order_by: :timestamp, limit: 0) == [1, 2, 3, 4, 5]
    assert query.(order_by: :timestamp, offset: 9) == []
    assert query.(event_type: :never) == []
    assert {:ok, found} = Events.query(order_by: :event_id)
    assert Enum.map(found, & &1.event_id) == Enum.sort(ids)
    assert {:ok, [%{timestamp: 1}, %{timestamp: 2}]} = Events.get_recent(2)
    assert {:ok, [%{timestamp: 4}, %{timestamp: 5}]} = Events.get_time_range(4, 9)
  end

  test "without an order a limit gives the latest, settled or not" do
    {:ok, _} = Events.store_batch(for n <- 1..40, do: event(timestamp: n))

    latest = fn ->
      with {:ok, found} <- Events.query(limit: 3, offset: 1), do: Enum.map(found, & &1.timestamp)
    end

    assert latest.() == [39, 38, 37]
    {:ok, pid} = Foundation.ServiceRegistry.lookup(:production, :event_store)
    send(pid, {EventStore, :more})
    assert :sys.get_state(pid).recent == %{}
    assert latest.() == [39, 38, 37]
    {:ok, _} = Events.store(event(timestamp: 41))
    assert latest.() == [40, 39, 38]
    assert {:ok, all} = Events.query(%{})
    assert length(all) == 41
  end

  test "a process that may not have much memory is given what fits" do
    {:ok, _} = Events.store_batch(for n <- 1..1000, do: event(timestamp: n))
    me = self()

    limited = fn ->
      Process.flag(:max_heap_size, %{size: 20_000, kill: false, error_logger: false})
      {:ok, events} = Events.query(%{event_type: :x, order_by: :timestamp})
      send(me, {:found, length(events), Process.flag(:min_heap_size, 233)})
    end

    {_, default} = :erlang.system_info(:min_heap_size)

    for fun <- [
          limited,
          fn -> send(me, {:found, length(elem(Events.query(%{}), 1)), default}) end
        ] do
      spawn_link(fun)
      assert_receive {:found, 1000, ^default}
    end
  end

  test "prunes" do
    kept = event(correlation_id: "c", timestamp: 10)
    {:ok, _} = Events.store_batch([event(correlation_id: "c", timestamp: 9), kept])
    assert Events.prune_before(10) == {:ok, 1}
    assert Events.get_by_correlation("c") == {:ok, [kept]}
    assert {:ok, stats} = Events.stats()

    assert %{
             events_pruned: 1,
             current_event_count: 1,
             events_stored: 2,
             memory_usage_estimate: 1000
           } = stats

    assert is_integer(stats.start_time) and stats.uptime_ms >= 0
  end

  test "the next id is above every id" do
    {:ok, _} = Events.store(event(event_id: 41))
    assert {:ok, %{status: :running, event_count: 1, next_id: 42}} = Events.status()
  end

  test "an id that is false gets the next one, as in 1.x" do
    {:ok, [41, 42, 43]} =
      Events.store_batch([
        event(event_id: 41),
        event(event_id: false, timestamp: 7),
        event(event_id: false)
      ])

    assert {:ok, %{event_id: 42, timestamp: 7}} = Events.get(42)
    assert {:ok, 44} = Events.store(event(event_id: false))
    assert {:ok, %{event_count: 4, next_id: 45}} = Events.status()
  end

  test "the latest of several events with one id is kept, more of them than can wait" do
    events = for n <- 1..25_000, do: event(event_id: 1 + rem(n, 20_000), timestamp: n)

    for batch <- Enum.chunk_every(events, 3_000),
        do: assert({:ok, [_ | _]} = Events.store_batch(batch))

    assert {:ok, %{event_count: 20_000}} = Events.status()
    assert {:ok, %{timestamp: 20_001}} = Events.get(2)
    assert {:ok, %{timestamp: 6_000}} = Events.get(6_001)

    for time <- 1..2,
        do: assert({:ok, [_]} = Events.store_batch([event(event_id: 2, timestamp: time)]))

    assert {:ok, %{timestamp: 2}} = Events.get(2)
    assert {:ok, [%{timestamp: 2}]} = Events.query(%{time_range: {0, 10}})
  end

  test "every raw call is answered, in any namespace" do
    namespace = {:test, make_ref()}
    {:ok, pid} = start_supervised({EventStore, namespace: namespace})
    e = event(correlation_id: "c")
    assert {:ok, id} = GenServer.call(pid, {:store_event, e})
    assert {:ok, [^id]} = GenServer.call(pid, {:store_batch, [e]})
    assert {:ok, ^e} = GenServer.call(pid, {:get_event, id})
    assert {:ok, [^e]} = GenServer.call(pid, {:query_events, %{}})
    assert {:ok, [^e]} = GenServer.call(pid, {:get_by_correlation, "c"})
    assert {:ok, 0} = GenServer.call(pid, {:prune_before, -1_000_000_000_000})
    assert {:ok, %{current_event_count: 1}} = GenServer.call(pid, :get_stats)
    assert {:ok, %{event_count: 1}} = GenServer.call(pid, :get_status)
    assert :ok = GenServer.call(pid, :reset_state)
    assert Events.get_by_correlation("c") == {:ok, []}

    assert {:error,
            %Error{error_type: :operation_not_supported, code: 4001, context: %{operation: :drop}}} =
             GenServer.call(pid, {:drop, :all})
  end

  test "is unavailable while it restarts, and back afterwards" do
    {:ok, pid} = Foundation.ServiceRegistry.lookup(:production, :event_store)
    e = event(correlation_id: "c")
    {:ok, _} = Events.store(e)
    {:ok, _} = Events.get_by_correlation("c")
    ref = Process.monitor(pid)
    Process.exit(pid, :kill)
    assert_receive {:DOWN, ^ref, :process, ^pid, :killed}

    case Events.get_by_correlation("c") do
      {:ok, []} -> :ok
      {:error, error} -> assert error.error_type == :service_unavailable
    end

    {:ok, _} = Foundation.ServiceRegistry.wait_for_service(:production, :event_store)
    assert Events.get_by_correlation("c") == {:ok, []}
    assert {:ok, _} = Events.store(e)
  end

  @tag :property
  test "agrees with a plain list under random operations" do
    :rand.seed(:exsss, {1, 2, 3})

    {:ok, pid} = Foundation.ServiceRegistry.lookup(:production, :event_store)

    for ids <- [60, 1500], reduce: %{} do
      model -> Enum.reduce(1..400, model, &random_operation(&1, &2, ids, pid))
    end
  end

  defp random_operation(_n, model, ids, pid) do
    case :rand.uniform(7) do
      1 ->
        e = random_event(ids)
        {:ok, _} = Events.store(e)
        Map.put(model, e.event_id, e)

      2 ->
        batch = for _n <- 1..:rand.uniform(div(ids, 10)), do: random_event(ids)
        {:ok, _} = Events.store_batch(batch)
        Map.merge(model, Map.new(batch, &{&1.event_id, &1}))

      3 ->
        id = correlation()
        expected = model |> sorted(:timestamp) |> EventLogic.extract_correlation_chain(id)
        assert Events.get_by_correlation(id) == {:ok, expected}
        id = :rand.uniform(ids)

        case Events.get(id) do
          {:ok, e} -> assert e == model[id]
          {:error, _not_found} -> refute is_map_key(model, id)
        end

        model

      4 ->
        {first, last} = Enum.min_max([:rand.uniform(30), :rand.uniform(30)])
        expected = model |> sorted(:timestamp) |> EventLogic.filter_by_time_range(first, last)
        assert Events.get_time_range(first, last) == {:ok, expected}
        model

      5 ->
        cutoff = :rand.uniform(6)
        {gone, kept} = Enum.split_with(model, fn {_id, e} -> e.timestamp < cutoff end)
        assert Events.prune_before(cutoff) == {:ok, length(gone)}
        Map.new(kept)

      6 ->
        assert {:ok, found} = Events.query(%{})
        assert Enum.sort(found) == model |> Map.values() |> Enum.sort()
        type = Enum.random([nil, :t1, :t2, :rare])
        order = Enum.random([:timestamp, :event_id])
        {offset, limit} = {:rand.uniform(50) - 1, :rand.uniform(300)}
        expected = for e <- sorted(model, order), type == nil or e.event_type == type, do: e
        query = %{event_type: type, order_by: order, offset: offset}
        assert Events.query(query) == {:ok, Enum.drop(expected, offset)}

        assert Events.query(Map.put(query, :limit, limit)) ==
                 {:ok, Enum.slice(expected, offset, limit)}

        model

      7 ->
        send(pid, {EventStore, :more})
        model
    end
  end

  defp random_event(ids) do
    event(
      event_id: :rand.uniform(ids),
      event_type: Enum.random([:t1, :t2]),
      timestamp: :rand.uniform(30),
      correlation_id: correlation()
    )
  end

  defp sorted(model, :timestamp),
    do: model |> Map.values() |> Enum.sort_by(&{&1.timestamp, &1.event_id})

  defp sorted(model, :event_id), do: model |> Map.values() |> Enum.sort_by(& &1.event_id)

  defp correlation, do: "c#{:rand.uniform(5)}"
end

defmodule Foundation.ChannelsTest do
  use ExUnit.Case
  @moduletag :integration

  alias Foundation.{Channels, Host, PubSub}

  test "without clustering, errors name the facade, the tool and its error" do
    refute Foundation.Cluster.enabled?()
    assert Foundation.Cluster.size() == 1

    for result <- [
          Channels.broadcast(:events, 1),
          Channels.subscribe(:events),
          Channels.subscribe(:events, spawn(fn -> :ok end)),
          Channels.route_message(1)
        ] do
      assert {:error, %{error_type: :pubsub_unavailable, message: message}} = result

      assert message =~
               ~r/Foundation\.Channels\..*: Phoenix\.PubSub Foundation\.PubSub: not running/
    end

    # A cluster of one.
    assert Foundation.Config.set_cluster_wide([:dev, :verbose_logging], false) == :ok
    assert {:ok, <<_::binary-36>>} = Foundation.Events.emit_distributed(:thing, 1)
    assert_raise FunctionClauseError, fn -> apply(Channels, :broadcast, [:nothing, 1]) end
  end

  test "without clustering there is no mesh" do
    assert {:error, %{error_type: :mesh_unavailable, message: message}} =
             Foundation.ServiceMesh.register_service(:a, self())

    assert message =~ "Foundation.ServiceMesh.register_service/4: :pg"
    assert Foundation.ServiceMesh.discover_services(name: :a) == []
  end

  test "alone, this node is the cluster" do
    assert %{
             status: :healthy,
             nodes: [{node, :healthy, %{native: true}}],
             services: services,
             last_check: _
           } = Foundation.HealthMonitor.cluster_health()

    assert node == node()
    assert {:event_store, :healthy, 1} in services
    Foundation.Telemetry.emit_counter([:alone, :count], %{})

    assert {:ok, %{alone: %{count: %{count: 1}}, cluster: %{nodes: [^node], unknown: []}}} =
             Foundation.Telemetry.get_cluster_metrics()
  end

  describe "on one node" do
    setup do
      start_supervised!(PubSub)
      :ok
    end

    test "subscribers get the bare message" do
      assert Channels.subscribe(:control) == :ok
      assert Channels.broadcast(:control, {:hello, 1}) == :ok
      assert_receive {:hello, 1}
      assert Channels.broadcast(:data, :other) == :ok
      refute_receive :other, 20
      assert Channels.unsubscribe(:control) == :ok
      Channels.broadcast(:control, :gone)
      refute_receive :gone, 20
    end

    test "another process can be subscribed, once" do
      test = self()
      pid = spawn(fn -> receive(do: (message -> send(test, {:got, message}))) end)
      assert Channels.subscribe(:events, pid) == :ok
      assert Channels.subscribe(:events, pid) == :ok
      :ok = Channels.broadcast(:events, 7)
      assert_receive {:got, 7}
      refute_receive {:got, 7}, 20
    end

    test "routing" do
      for channel <- Channels.channels(), do: :ok = Channels.subscribe(channel)
      test = self()

      :ok =
        Host.Telemetry.attach(
          :routing,
          [:foundation, :message, :sent],
          fn _, sizes, meta, _ -> send(test, {:sent, meta.channel, sizes.size}) end,
          nil
        )

      on_exit(fn -> Host.Telemetry.detach(:routing) end)

      for {message, opts, channel} <- [
            {:x, [], :events},
            {:x, [priority: :high], :control},
            {:x, [channel: :telemetry, priority: :high], :telemetry},
            {String.duplicate("x", 20_000), [], :data},
            {String.duplicate("x", 20_000), [priority: :high], :control}
          ] do
        assert Channels.route_message(message, opts) == :ok
        size = :erlang.external_size(message)
        assert_receive {:sent, ^channel, ^size}
        assert_receive ^message
      end
    end

    test "speaks the protocol of Phoenix.PubSub" do
      :ok = Channels.subscribe(:events)
      member = Process.whereis(Foundation.PubSub.Adapter)
      assert :pg.get_members(Phoenix.PubSub, Foundation.PubSub.Adapter) == [member]
      send(member, {:forward_to_local, "foundation:events", :from_afar, Phoenix.PubSub})
      assert_receive :from_afar

      # Nothing that arrives harms it.
      for odd <- [
            {:forward_to_local, "foundation:events", 1, No.Such.Dispatcher},
            {:forward_to_local, :no_topic, 1, Phoenix.PubSub},
            {:forward_to_local, "foundation:events", 1, "text"},
            :odd
          ] do
        send(member, odd)
      end

      send(member, {:forward_to_local, "foundation:events", :still_there, Phoenix.PubSub})
      assert_receive :still_there
      assert PubSub.nodes() == [node()]
    end
  end

  describe "service mesh" do
    alias Foundation.ServiceMesh

    setup do
      start_supervised!(PubSub)
      start_supervised!(ServiceMesh.Registrar)
      :ok
    end

    defp service do
      pid = spawn(fn -> Process.sleep(:infinity) end)
      on_exit(fn -> Process.exit(pid, :kill) end)
      pid
    end

    test "finds services by every criterion" do
      :ok = Channels.subscribe(:events)
      [a, b] = [service(), service()]

      assert ServiceMesh.register_service(:pay, a, [:refunds, :cards], %{security_level: :high}) ==
               :ok

      assert_receive {:service_registered, :pay,
                      %{pid: ^a, capabilities: [:refunds, :cards], node: _, registered_at: _}}

      assert ServiceMesh.register_service(:pay, b) == :ok

      pids = fn criteria ->
        criteria |> ServiceMesh.discover_services() |> Enum.map(& &1.pid) |> Enum.sort()
      end

      assert pids.([]) == Enum.sort([a, b])
      assert pids.(name: :pay) == Enum.sort([a, b])
      assert pids.(name: :other) == []
      assert pids.(capabilities: [:cards]) == [a]
      assert pids.(capabilities: [:cards, :loans]) == []
      assert pids.(security_level: :high) == [a]
      assert pids.(security_level: :low) == []
      assert pids.(node: node(), capabilities: [:refunds]) == [a]
      assert pids.(node: :far@away) == []
      assert pids.(health_check: &(&1.pid == b)) == [b]

      assert ServiceMesh.register_service(:pay, a, [:loans]) == :ok

      assert [%{capabilities: [:loans], metadata: %{}}] =
               ServiceMesh.discover_services(capabilities: [:loans])

      assert pids.(capabilities: [:cards]) == []
      assert ServiceMesh.deregister_service(:pay, a) == :ok
      assert ServiceMesh.deregister_service(:pay, a) == :ok
      assert pids.([]) == [b]
    end

    test "a service that dies is gone, and telemetry hears of both" do
      test = self()
      events = for event <- [:registered, :deregistered], do: [:foundation, :service, event]

      :ok =
        Host.Telemetry.attach_many(
          :mesh,
          events,
          fn [_, _, event], _, meta, _ -> send(test, {event, meta.name}) end,
          nil
        )

      on_exit(fn -> Host.Telemetry.detach(:mesh) end)
      pid = service()
      :ok = ServiceMesh.register_service({:any, "term"}, pid)
      assert_receive {:registered, {:any, "term"}}
      Process.exit(pid, :kill)
      assert_receive {:deregistered, {:any, "term"}}

      gone =
        Foundation.Utils.retry(
          fn -> if ServiceMesh.discover_services() == [], do: :ok, else: {:error, :there} end,
          max_attempts: 50,
          base_delay: 10,
          max_delay: 10
        )

      assert gone == {:ok, :ok}
      assert {:error, %{error_type: :process_dead}} = ServiceMesh.register_service(:x, pid)
      remote = :erlang.binary_to_term(<<131, 88, 119, 3, "a@b", 7::32, 0::32, 1::32>>)
      assert {:error, %{error_type: :remote_process}} = ServiceMesh.register_service(:x, remote)
    end
  end
end

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
    assert_raise FunctionClauseError, fn -> Channels.broadcast(:nothing, 1) end
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
end

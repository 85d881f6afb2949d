defmodule Foundation.GracefulDegradationTest do
  use ExUnit.Case
  @moduletag :integration

  alias Foundation.Config.GracefulDegradation, as: Config
  alias Foundation.Events.GracefulDegradation, as: Events
  alias Foundation.Services.ConfigServer
  alias Foundation.Types.{Error, Event}

  @table :config_fallback_cache

  describe "configuration" do
    setup do
      :ok = Config.initialize_fallback_system()
      on_exit(&Config.cleanup_fallback_system/0)
      :ok = ConfigServer.reset_state()
    end

    defp without_server(fun) do
      :ok = Supervisor.terminate_child(Foundation.Supervisor, ConfigServer)

      try do
        fun.()
      after
        {:ok, _pid} = Supervisor.restart_child(Foundation.Supervisor, ConfigServer)
      end
    end

    test "values read last serve while the server is down" do
      assert Config.initialize_fallback_system() == :ok
      assert Config.get_with_fallback([:ai, :provider]) == {:ok, :mock}

      without_server(fn ->
        assert Config.get_with_fallback([:ai, :provider]) == {:ok, :mock}

        assert {:error, %Error{error_type: :config_unavailable, code: nil}} =
                 Config.get_with_fallback([:ai, :model])

        :ets.insert(
          @table,
          {{:config_cache, [:ai, :provider]}, :mock, System.system_time(:second) - 400}
        )

        assert {:error, %Error{message: "Configuration cache expired"}} =
                 Config.get_with_fallback([:ai, :provider])
      end)
    end

    test "updates that failed are tried again" do
      without_server(fn ->
        assert {:error, %Error{error_type: :service_unavailable}} =
                 Config.update_with_fallback([:dev, :debug_mode], true)

        assert %{pending_update_entries: 1, config_cache_entries: 0, total_entries: 1} =
                 Config.get_cache_stats()
      end)

      assert Config.retry_pending_updates() == :ok
      assert Foundation.Config.get([:dev, :debug_mode]) == {:ok, true}
      assert %{pending_update_entries: 0} = Config.get_cache_stats()
      assert Config.update_with_fallback([:dev, :debug_mode], false) == :ok
    end

    test "old entries go" do
      now = System.system_time(:second)

      :ets.insert(@table, [
        {{:config_cache, [:old]}, 1, now - 301},
        {{:config_cache, [:new]}, 1, now}
      ])

      assert Config.cleanup_expired_cache() == :ok
      assert [{{:config_cache, [:new]}, 1, ^now}] = :ets.tab2list(@table)
      assert Config.cleanup_fallback_system() == :ok
      assert Config.cleanup_fallback_system() == :ok
      assert Config.get_cache_stats() == %{error: :table_not_found}
    end
  end

  describe "events" do
    test "there is always an event" do
      assert %Event{event_type: :x, data: %{a: 1}} = Events.new_event_safe(:x, %{a: 1})

      assert %Event{event_type: nil, data: %{original_data_error: _, fallback_info: info}} =
               Events.new_event_safe(nil, %{})

      assert %{original_data_type: :map, sanitization_attempted: true} = info
    end

    test "and always bytes" do
      event = Events.new_event_safe(:x, %{a: 1})
      assert {:ok, ^event} = event |> Events.serialize_safe() |> Events.deserialize_safe()
      # No event: the serializer raises, JSON serves.
      assert {:json_fallback, ~S({"a":1})} =
               :erlang.binary_to_term(Events.serialize_safe(%{a: 1}))

      json = :erlang.term_to_binary({:json_fallback, ~S({"event_type":"x","event_id":1})})
      assert {:error, %Error{error_type: :deserialization_failed}} = Events.deserialize_safe(json)
      assert {:error, %Error{}} = Events.deserialize_safe(<<0>>)
    end

    test "stores and queries" do
      event = Events.new_event_safe(:x, %{})
      assert {:ok, _id} = Events.store_safe(event)
      assert {:ok, [_ | _]} = Events.query_safe(%{event_type: :x})
      assert {:ok, [], %{warning: _}} = Events.query_safe(:no_query)
    end
  end
end

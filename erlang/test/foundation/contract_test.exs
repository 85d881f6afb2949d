defmodule Foundation.ContractTest do
  # Every public function of 1.x is there with its arities.
  use ExUnit.Case, async: true
  @moduletag :contract

  @functions %{
    Foundation => [
      initialize: 0,
      initialize: 1,
      status: 0,
      available?: 0,
      version: 0,
      start_link: 0,
      start_link: 1,
      shutdown: 0,
      health: 0
    ],
    Foundation.Config => [
      initialize: 0,
      initialize: 1,
      status: 0,
      available?: 0,
      reset: 0,
      get: 0,
      get: 1,
      update: 2,
      safe_update: 2,
      get_with_default: 2,
      validate: 1,
      updatable_paths: 0,
      subscribe: 0,
      unsubscribe: 0
    ],
    Foundation.Events => [
      initialize: 0,
      status: 0,
      available?: 0,
      new_event: 2,
      new_event: 3,
      debug_new_event: 2,
      debug_new_event: 3,
      serialize: 1,
      deserialize: 1,
      serialized_size: 1,
      function_entry: 4,
      function_entry: 5,
      function_exit: 7,
      state_change: 4,
      state_change: 5,
      store: 1,
      store_batch: 1,
      get: 1,
      query: 1,
      get_by_correlation: 1,
      get_correlation_chain: 1,
      get_time_range: 2,
      get_recent: 0,
      get_recent: 1,
      prune_before: 1,
      stats: 0,
      new_user_event: 3,
      new_system_event: 2,
      new_error_event: 2
    ],
    Foundation.Telemetry => [
      initialize: 0,
      status: 0,
      available?: 0,
      execute: 3,
      measure: 3,
      emit_counter: 2,
      emit_gauge: 3,
      emit_histogram: 2,
      emit_histogram: 3,
      get_metrics: 0,
      get_metrics_for: 1,
      attach_handlers: 1,
      detach_handlers: 1,
      time_function: 3,
      emit_performance: 2,
      emit_performance: 3,
      emit_system_event: 1,
      emit_system_event: 2
    ],
    Foundation.ServiceRegistry => [
      register: 3,
      lookup: 2,
      unregister: 2,
      list_services: 1,
      health_check: 2,
      health_check: 3,
      wait_for_service: 2,
      wait_for_service: 3,
      get_service_info: 1,
      cleanup_test_namespace: 1,
      via_tuple: 2
    ],
    Foundation.ProcessRegistry => [
      child_spec: 1,
      register: 3,
      lookup: 2,
      unregister: 2,
      list_services: 1,
      get_all_services: 1,
      registered?: 2,
      count_services: 1,
      via_tuple: 2,
      cleanup_test_namespace: 1,
      stats: 0
    ],
    Foundation.Infrastructure => [
      initialize_all_infra_components: 0,
      get_infrastructure_status: 0,
      execute_protected: 3,
      configure_protection: 2,
      get_protection_config: 1,
      get_protection_status: 1,
      list_protection_keys: 0,
      initialize_circuit_breaker: 1,
      initialize_circuit_breaker: 2
    ],
    Foundation.Infrastructure.CircuitBreaker => [
      start_fuse_instance: 1,
      start_fuse_instance: 2,
      execute: 2,
      execute: 3,
      get_status: 1,
      reset: 1
    ],
    Foundation.Infrastructure.RateLimiter => [
      check_rate: 4,
      check_rate: 5,
      execute_with_limit: 5,
      execute_with_limit: 6,
      get_status: 2,
      reset: 2
    ],
    Foundation.Infrastructure.RateLimiter.HammerBackend => [
      child_spec: 1,
      start_link: 0,
      start_link: 1,
      hit: 3,
      hit: 4,
      inc: 2,
      inc: 3,
      set: 3,
      get: 2
    ],
    Foundation.Infrastructure.ConnectionManager => [
      start_link: 0,
      start_link: 1,
      start_pool: 2,
      stop_pool: 1,
      with_connection: 2,
      with_connection: 3,
      get_pool_status: 1,
      list_pools: 0
    ],
    Foundation.Infrastructure.PoolWorkers.HttpWorker => [
      start_link: 1,
      get: 2,
      get: 3,
      post: 3,
      post: 4,
      get_status: 1
    ],
    Foundation.Error => [
      new: 1,
      new: 2,
      new: 3,
      error_result: 1,
      error_result: 2,
      error_result: 3,
      wrap_error: 2,
      wrap_error: 3,
      wrap_error: 4,
      is_retryable?: 1,
      retry_delay: 2,
      should_escalate?: 1,
      to_string: 1,
      collect_error_metrics: 1
    ],
    Foundation.ErrorContext => [
      new: 2,
      new: 3,
      child_context: 3,
      child_context: 4,
      add_breadcrumb: 3,
      add_breadcrumb: 4,
      add_metadata: 2,
      with_context: 2,
      enhance_error: 2,
      add_context: 2,
      add_context: 3,
      get_current_context: 0,
      format_breadcrumbs: 1,
      get_operation_duration: 1
    ],
    Foundation.Utils => [
      generate_id: 0,
      generate_correlation_id: 0,
      monotonic_timestamp: 0,
      wall_timestamp: 0,
      truncate_if_large: 1,
      truncate_if_large: 2,
      deep_size: 1,
      safe_inspect: 1,
      deep_merge: 2,
      get_nested: 2,
      get_nested: 3,
      put_nested: 3,
      sanitize_string: 1,
      atomize_keys: 1,
      stringify_keys: 1,
      retry: 1,
      retry: 2,
      blank?: 1,
      present?: 1,
      format_duration: 1,
      format_bytes: 1,
      measure: 1,
      measure_memory: 1,
      process_stats: 0,
      system_stats: 0,
      valid_positive_integer?: 1
    ],
    Foundation.Config.GracefulDegradation => [
      initialize_fallback_system: 0,
      cleanup_fallback_system: 0,
      get_with_fallback: 1,
      update_with_fallback: 2,
      cleanup_expired_cache: 0,
      retry_pending_updates: 0,
      get_cache_stats: 0
    ],
    Foundation.Events.GracefulDegradation => [
      new_event_safe: 2,
      serialize_safe: 1,
      deserialize_safe: 1,
      store_safe: 1,
      query_safe: 1
    ],
    Foundation.Types.Config => [new: 0, new: 1, fetch: 2, get_and_update: 3, pop: 2],
    Foundation.Types.Event => [new: 0, new: 1, empty: 0],
    Foundation.Types.Error => [new: 0, new: 1],
    Foundation.Logic.ConfigLogic => [
      updatable_paths: 0,
      updatable_path?: 1,
      update_config: 3,
      get_config_value: 2,
      merge_env_config: 2,
      merge_opts_config: 2,
      build_config: 0,
      build_config: 1,
      reset_config: 0,
      diff_configs: 2
    ],
    Foundation.Logic.EventLogic => [
      create_event: 2,
      create_event: 3,
      create_function_entry: 4,
      create_function_entry: 5,
      create_function_exit: 7,
      create_state_change: 4,
      create_state_change: 5,
      serialize_event: 1,
      serialize_event: 2,
      deserialize_event: 1,
      calculate_serialized_size: 1,
      extract_correlation_chain: 2,
      group_by_correlation: 1,
      filter_by_time_range: 3,
      transform_event_data: 2
    ],
    Foundation.Validation.ConfigValidator => [
      validate: 1,
      validate_ai_config: 1,
      validate_capture_config: 1,
      validate_storage_config: 1,
      validate_interface_config: 1,
      validate_dev_config: 1,
      validate_infrastructure_config: 1
    ],
    Foundation.Validation.EventValidator => [
      validate: 1,
      validate_required_fields: 1,
      validate_field_types: 1,
      validate_data_size: 1,
      validate_event_type: 1
    ],
    Foundation.Services.ConfigServer => [
      start_link: 0,
      start_link: 1,
      stop: 0,
      initialize: 0,
      initialize: 1,
      status: 0,
      get: 0,
      get: 1,
      update: 2,
      validate: 1,
      updatable_paths: 0,
      reset: 0,
      available?: 0,
      reset_state: 0,
      subscribe: 0,
      subscribe: 1,
      unsubscribe: 0,
      unsubscribe: 1
    ],
    Foundation.Services.EventStore => [
      start_link: 0,
      start_link: 1,
      stop: 0,
      initialize: 0,
      initialize: 1,
      status: 0,
      store: 1,
      store_batch: 1,
      get: 1,
      query: 1,
      get_by_correlation: 1,
      prune_before: 1,
      stats: 0,
      available?: 0,
      reset_state: 0
    ],
    Foundation.Services.TelemetryService => [
      start_link: 0,
      start_link: 1,
      stop: 0,
      initialize: 0,
      initialize: 1,
      status: 0,
      execute: 3,
      measure: 3,
      emit_counter: 2,
      emit_counter: 3,
      emit_gauge: 3,
      emit_histogram: 2,
      emit_histogram: 3,
      get_metrics: 0,
      attach_handlers: 1,
      detach_handlers: 1,
      available?: 0,
      reset_metrics: 0,
      reset_state: 0
    ],
    Foundation.BEAM.Processes => [
      spawn_ecosystem: 1,
      shutdown_ecosystem: 1,
      ecosystem_info: 1,
      isolate_memory_intensive_work: 1,
      isolate_memory_intensive_work: 2
    ]
  }

  test "every function of 1.x is exported" do
    missing =
      for {module, functions} <- @functions,
          {:module, ^module} = Code.ensure_loaded(module),
          {name, arity} <- functions,
          not function_exported?(module, name, arity) do
        Exception.format_mfa(module, name, arity)
      end

    assert missing == []
  end

  test "every public function is documented and specified" do
    gaps =
      for {module, _functions} <- @functions,
          {:docs_v1, _, :elixir, _, doc, _, entries} = Code.fetch_docs(module) do
        {:ok, specs} = Code.Typespec.fetch_specs(module)
        specified = MapSet.new(specs, &elem(&1, 0))

        for {:behaviour, behaviours} <- module.module_info(:attributes),
            behaviour <- behaviours,
            callback <- behaviour.behaviour_info(:callbacks) do
          callback
        end
        |> then(fn callbacks ->
          for {{:function, name, arity}, _, _, doc, meta} <- entries,
              doc != :hidden,
              {name, arity} not in [{:child_spec, 1} | callbacks] do
            arities = (arity - Map.get(meta, :defaults, 0))..arity
            documented = is_map(doc)

            if not (documented and Enum.any?(arities, &MapSet.member?(specified, {name, &1}))),
              do: Exception.format_mfa(module, name, arity)
          end
        end)
        |> Enum.reject(&is_nil/1)
        |> then(&if is_map(doc), do: &1, else: [inspect(module) | &1])
      end

    assert List.flatten(gaps) == []
  end

  test "the behaviours have the callbacks of 1.x" do
    callbacks = fn module -> Enum.sort(module.behaviour_info(:callbacks)) end

    assert callbacks.(Foundation.Contracts.Configurable) ==
             Enum.sort(
               get: 0,
               get: 1,
               update: 2,
               validate: 1,
               updatable_paths: 0,
               reset: 0,
               available?: 0
             )

    assert callbacks.(Foundation.Contracts.EventStore) ==
             Enum.sort(
               store: 1,
               store_batch: 1,
               get: 1,
               query: 1,
               get_by_correlation: 1,
               prune_before: 1,
               stats: 0,
               available?: 0,
               initialize: 0,
               status: 0
             )

    assert callbacks.(Foundation.Contracts.Telemetry) ==
             Enum.sort(
               execute: 3,
               measure: 3,
               emit_counter: 2,
               emit_gauge: 3,
               emit_histogram: 3,
               emit_histogram: 2,
               get_metrics: 0,
               attach_handlers: 1,
               detach_handlers: 1,
               available?: 0,
               initialize: 0,
               status: 0
             )
  end

  test "the structs have the fields of 1.x" do
    fields = [
      :category,
      :code,
      :context,
      :correlation_id,
      :error_type,
      :message,
      :recovery_actions,
      :retry_strategy,
      :severity,
      :stacktrace,
      :subcategory,
      :timestamp
    ]

    for module <- [Foundation.Error, Foundation.Types.Error],
        do:
          assert(module.__struct__() |> Map.from_struct() |> Map.keys() |> Enum.sort() == fields)

    assert Foundation.Types.Event.__struct__() |> Map.from_struct() |> Map.keys() |> Enum.sort() ==
             [
               :correlation_id,
               :data,
               :event_id,
               :event_type,
               :node,
               :parent_id,
               :pid,
               :timestamp,
               :wall_time
             ]

    assert Foundation.Types.Config.new() |> Map.from_struct() |> Map.keys() |> Enum.sort() ==
             [:ai, :capture, :dev, :infrastructure, :interface, :storage]
  end
end

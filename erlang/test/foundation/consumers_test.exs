defmodule Foundation.ConsumersTest do
  # What the two known applications on 1.x call when they start and while they run.
  use ExUnit.Case
  @moduletag :smoke

  alias Foundation.{Config, Events, Infrastructure, ServiceRegistry, Telemetry, Utils}
  alias Foundation.Types.Error

  test "DSPEx starts" do
    assert Foundation.available?()
    assert :ok = ServiceRegistry.register(:production, :config_server, self())
    assert :ok = ServiceRegistry.register(:production, :telemetry_service, self())

    for name <- [:dspex_client_gemini, :dspex_client_openai] do
      assert Infrastructure.initialize_circuit_breaker(name, %{
               failure_threshold: 5,
               recovery_time: 30_000
             }) == :ok
    end

    events =
      for area <- [:client, :predict, :adapter, :program],
          kind <- [:start, :stop, :exception],
          do: [:dspex, area, kind]

    assert Telemetry.attach_handlers(events) == :ok
    on_exit(fn -> Telemetry.detach_handlers(events) end)

    ServiceRegistry.unregister(:production, :config_server)
    ServiceRegistry.unregister(:production, :telemetry_service)
    assert {:ok, _} = Config.get([])
  end

  test "DSPEx records" do
    id = Utils.generate_correlation_id()

    for type <- [:api_error, :network_error, :field_extraction_success] do
      assert {:ok, _} =
               Events.new_event(
                 type,
                 %{body: Utils.truncate_if_large(String.duplicate("x", 900), 500)},
                 correlation_id: id
               )
               |> Events.store()
    end

    assert {:ok, [_, _, _]} = Events.get_by_correlation(id)

    assert :ok =
             Telemetry.emit_counter([:dspex, :predict, :success], %{
               program: "p",
               correlation_id: id
             })

    assert :ok = Telemetry.emit_histogram([:dspex, :predict, :duration], 123_456, %{})
    assert :ok = Telemetry.emit_gauge([:dspex, :client, :active], 3, %{})

    assert {:ok, "answer"} =
             Infrastructure.execute_protected(:dspex_call, [rate_limiter: {:api, id}], fn ->
               "answer"
             end)
  end

  test "ElixirScope asks for settings that are not there" do
    assert {:error, %Error{}} = Config.get([:elixir_scope])

    assert :ok =
             Telemetry.emit_counter([:elixir_scope, :graph, :operations], %{
               operation: :centrality
             })

    assert :ok = Telemetry.emit_gauge([:elixir_scope, :graph, :nodes], 10, %{})
  end
end

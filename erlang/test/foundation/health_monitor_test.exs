defmodule Foundation.HealthMonitorTest do
  use ExUnit.Case
  @moduletag :integration

  import Foundation.Eventually
  alias Foundation.{HealthMonitor, LogCollector, Optimizer, PubSub, ServiceMesh}

  describe "health checks" do
    setup do
      Application.put_env(:foundation, :health_check_interval, 20)
      Application.put_env(:foundation, :health_check_timeout, 500)

      on_exit(fn ->
        Application.delete_env(:foundation, :health_check_interval)
        Application.delete_env(:foundation, :health_check_timeout)
      end)

      start_supervised!(PubSub)
      start_supervised!(ServiceMesh.Registrar)
      start_supervised!(HealthMonitor.Checker)
      :ok
    end

    defp health(name) do
      [%{metadata: metadata}] = ServiceMesh.discover_services(name: name)
      metadata[:health]
    end

    test "a service that fails three times is marked, and no more when it is well" do
      LogCollector.attach(self())
      {:ok, agent} = start_supervised({Agent, fn -> :bad end})

      :ok =
        ServiceMesh.register_service(:user_service, agent, [], %{
          health_check: fn %{pid: pid} -> Agent.get(pid, & &1) end
        })

      for {count, action} <- [{1, :retrying}, {2, :retrying}, {3, :marking_unhealthy}] do
        assert_receive {:logged, :warning, "Service health check failed",
                        %{service: :user_service, consecutive_failures: ^count} = metadata}

        assert metadata.action == action
        assert metadata.node == node()
      end

      eventually(fn -> health(:user_service) == :unhealthy end)
      assert {:user_service, :degraded, 1} in HealthMonitor.cluster_health().services
      Agent.update(agent, fn _bad -> :ok end)
      eventually(fn -> health(:user_service) == nil end)
      assert {:user_service, :healthy, 1} in HealthMonitor.cluster_health().services

      refute_received {:logged, :warning, "Service health check failed",
                       %{consecutive_failures: 4}}
    end

    test "a check that crashes, hangs or is none fails; others go on" do
      LogCollector.attach(self())
      Application.put_env(:foundation, :health_check_timeout, 20)
      pid = Process.whereis(HealthMonitor.Checker)
      Process.exit(pid, :kill)
      eventually(fn -> Process.whereis(HealthMonitor.Checker) not in [nil, pid] end)
      agents = for n <- 1..4, do: start_supervised!({Agent, fn -> n end}, id: n)

      checks = [
        fn _service -> raise "broken" end,
        fn _service -> Process.sleep(:infinity) end,
        :nonsense,
        {__MODULE__, :well?, [1]}
      ]

      for {agent, check} <- Enum.zip(agents, checks),
          do: :ok = ServiceMesh.register_service(:many, agent, [], %{health_check: check})

      eventually(fn ->
        for(s <- ServiceMesh.discover_services(name: :many), do: s.metadata[:health])
        |> Enum.frequencies() == %{nil => 1, :unhealthy => 3}
      end)
    end

    test "metrics count registrations and their ends" do
      {:ok, agent} = start_supervised({Agent, fn -> 0 end})
      for _n <- 1..30, do: :ok = ServiceMesh.register_service(:busy, agent)
      assert ServiceMesh.Registrar.changes() == 30
      for _n <- 1..20, do: ServiceMesh.deregister_service(:busy, agent)
      assert ServiceMesh.Registrar.changes() == 31
    end
  end

  def well?(%{name: :many}, 1), do: {:ok, :fine}

  @tag :unit
  test "cluster_metrics of one node" do
    assert %{node_count: 1, registry_churn: 0, registry_churn_rate: :low, unknown: []} =
             metrics = HealthMonitor.cluster_metrics()

    assert metrics.nodes == [node()]
    assert metrics.memory > 0
  end

  @tag :unit
  test "the optimizer's rule" do
    for {nodes, churn, value} <- [
          {51, :low, 5000},
          {51, :high, 1000},
          {9, :high, 250},
          {9, :low, 1000},
          {10, :high, 1000}
        ] do
      metrics = %{node_count: nodes, registry_churn_rate: churn}

      assert [%{type: :set_horde_sync_interval, value: ^value}] =
               Optimizer.recommendations(metrics, 300)

      assert Optimizer.recommendations(metrics, value) == []
    end

    # No Horde here: nothing to recommend.
    assert Optimizer.optimize() == []
  end
end

defmodule Foundation.Messaging do
  @moduledoc """
  Plain messages to services by name, wherever they run.

  A name is looked for in `Foundation.ServiceMesh`, then among `Foundation.ProcessManager`'s singletons, then in
  `Foundation.ServiceRegistry` under `:production`. Delivery is at most once, as of `send/2`.
  """

  alias Foundation.{ProcessManager, ServiceMesh, ServiceRegistry}
  alias Foundation.Types.Error

  @doc """
  Sends to all instances of a service, or with `to: :one` to one of them: of this node if there is one. `node:` or `nodes:` narrows
  where.

  Instances that are marked unhealthy get messages only when there are no others. `{:error, error}` of type `:service_not_found`, code 5001,
  if there is none.
  """
  @spec send_message(term(), term(), keyword()) :: :ok | {:error, Error.t()}
  def send_message(service, message, opts \\ []) do
    nodes = opts[:nodes] || if(opts[:node], do: [opts[:node]])

    case Enum.filter(instances(service), &(nodes == nil or node(&1) in nodes)) do
      [] ->
        not_found(service)

      pids ->
        targets = if Keyword.get(opts, :to, :all) == :one, do: [nearest(pids)], else: pids
        for pid <- targets, do: send(pid, message)
        :ok
    end
  end

  @doc """
  The instances of a service.
  """
  @spec instances(term()) :: [pid()]
  def instances(service) do
    with [] <- in_mesh(service), [] <- singleton(service), do: registered(service)
  end

  defp in_mesh(service) do
    all = ServiceMesh.discover_services(name: service)
    well = Enum.reject(all, &(&1.metadata[:health] == :unhealthy))
    Enum.map(if(well == [], do: all, else: well), & &1.pid)
  end

  defp singleton(service) do
    case ProcessManager.lookup_singleton(service) do
      {:ok, pid} -> [pid]
      :not_found -> []
    end
  end

  defp registered(service) do
    case ServiceRegistry.lookup(:production, service) do
      {:ok, pid} -> [pid]
      {:error, _not_found} -> []
    end
  end

  defp nearest(pids), do: Enum.find(pids, &(node(&1) == node())) || Enum.random(pids)

  defp not_found(service) do
    {:error,
     Error.new(
       code: 5001,
       error_type: :service_not_found,
       message: "Foundation.Messaging.send_message/3: no instance of #{inspect(service)}",
       severity: :medium,
       category: :system,
       subcategory: :discovery,
       context: %{service: service}
     )}
  end
end

defmodule Foundation.ServiceMesh do
  @moduledoc """
  Services of the whole cluster, found by name, capabilities, node or metadata.

      :ok = Foundation.ServiceMesh.register_service(:payment, self(), [:refunds], %{security_level: :high})
      [%{pid: pid} | _] = Foundation.ServiceMesh.discover_services(capabilities: [:refunds], security_level: :high)

  A name may have many instances, on one node and on several. A service that dies, or whose node goes, is gone. The nodes tell
  each other through the `:pg` scope of this name, so all see the same after a moment, and each side of a partition its own.
  Runs only with clustering on (`Foundation.ClusterConfig`).

  A registration broadcasts `{:service_registered, name, info}` on the `:events` channel and executes
  `[:foundation, :service, :registered]`; its end executes `[:foundation, :service, :deregistered]`; measurements `%{count: 1}`, metadata
  `%{name: name, node: node}`.

  A service whose metadata has `health_check:`, a function of its info or `{module, function, arguments}` before which the info is put, is
  checked by its own node (`Foundation.HealthMonitor`). After three failures in a row its metadata has `health: :unhealthy` until a check
  succeeds; `discover_services/1` lists it all the same.

  Errors are `Foundation.Types.Error`, whose message names the facade, the tool and the tool's error.
  """

  alias Foundation.ServiceMesh.Registrar
  alias Foundation.Types.Error

  @type service_info :: %{
          name: term(),
          pid: pid(),
          node: node(),
          capabilities: [term()],
          metadata: map(),
          # Milliseconds since 1970, by the clock of the service's node.
          registered_at: integer()
        }

  @doc """
  Registers a process of this node. The same name and process again replaces capabilities and metadata.

  | error | when |
  |---|---|
  | `:mesh_unavailable` | clustering is off |
  | `:remote_process` | the process is of another node: register it there |
  | `:process_dead` | the process has ended |
  """
  @spec register_service(term(), pid(), [term()], map()) :: :ok | {:error, Error.t()}
  def register_service(name, pid, capabilities \\ [], metadata \\ %{})
      when is_pid(pid) and is_list(capabilities) and is_map(metadata) do
    cond do
      node(pid) != node() ->
        error("register_service/4", :remote_process, "#{inspect(pid)} is of #{node(pid)}")

      not Process.alive?(pid) ->
        error("register_service/4", :process_dead, "#{inspect(pid)} has ended")

      true ->
        call("register_service/4", {:register, name, pid, capabilities, metadata})
    end
  end

  @doc """
  Ends a registration. `:ok` also if there is none.
  """
  @spec deregister_service(term(), pid()) :: :ok | {:error, Error.t()}
  def deregister_service(name, pid \\ self()),
    do: call("deregister_service/2", {:deregister, name, pid})

  @doc """
  The services that meet all criteria, the one registered first in front. Without clustering, none.

  `name:`; `capabilities:`, all of which the service must have; `node:`; `health_check:`, a function of the service's info that returns
  `true`, run here in the calling process; any other key must equal that key of the metadata.
  """
  @spec discover_services(keyword()) :: [service_info()]
  def discover_services(criteria \\ []) when is_list(criteria) do
    for {:service, name, capabilities, metadata, registered_at} = group <- groups(),
        criteria |> Keyword.get(:name, name) |> Kernel.==(name),
        Enum.all?(Keyword.get(criteria, :capabilities, []), &(&1 in capabilities)),
        pid <- :pg.get_members(__MODULE__, group),
        info = %{
          name: name,
          pid: pid,
          node: node(pid),
          capabilities: capabilities,
          metadata: metadata,
          registered_at: registered_at
        },
        Enum.all?(criteria, &meets?(&1, info)) do
      info
    end
    |> Enum.sort_by(&{&1.registered_at, &1.pid})
  end

  defp meets?({key, _value}, _info) when key in [:name, :capabilities], do: true
  defp meets?({:node, node}, info), do: info.node == node
  defp meets?({:health_check, check}, info), do: check.(info) == true
  defp meets?({key, value}, info), do: Map.fetch(info.metadata, key) == {:ok, value}

  defp groups, do: if(Process.whereis(__MODULE__), do: :pg.which_groups(__MODULE__), else: [])

  defp call(function, request) do
    GenServer.call(Registrar, request)
  catch
    :exit, {:noproc, _call} ->
      error(
        function,
        :mesh_unavailable,
        "not running; clustering is off, see Foundation.ClusterConfig"
      )

    :exit, reason ->
      error(function, :mesh_unavailable, Exception.format_exit(reason))
  end

  defp error(function, error_type, reason) do
    {:error,
     Error.new(
       error_type: error_type,
       message: "Foundation.ServiceMesh.#{function}: :pg #{inspect(__MODULE__)}: #{reason}",
       severity: :high,
       category: :system,
       subcategory: :cluster
     )}
  end
end

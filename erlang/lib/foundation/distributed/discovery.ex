defmodule Foundation.Distributed.Discovery do
  @moduledoc """
  `Foundation.ServiceMesh` with results in tuples.
  """

  alias Foundation.ServiceMesh

  @doc "`Foundation.ServiceMesh.discover_services/1` as `{:ok, services}`; `capability:` is a single one of `capabilities:`."
  @spec discover_services(keyword()) :: {:ok, [ServiceMesh.service_info()]}
  def discover_services(criteria \\ []),
    do: {:ok, ServiceMesh.discover_services(criteria(criteria))}

  @doc "Registers the calling process; see `Foundation.ServiceMesh.register_service/4`."
  @spec register_service(term(), [term()] | keyword()) :: :ok | {:error, term()}
  def register_service(name, capabilities \\ []),
    do: ServiceMesh.register_service(name, self(), capabilities(capabilities))

  @doc """
  `{:ok, :healthy}` if an instance is not marked unhealthy, `{:ok, :unhealthy}` if all are, `{:error, :service_not_found}`.
  """
  @spec get_service_health(term()) :: {:ok, :healthy | :unhealthy} | {:error, :service_not_found}
  def get_service_health(name) do
    case ServiceMesh.discover_services(name: name) do
      [] ->
        {:error, :service_not_found}

      all ->
        {:ok,
         if(Enum.all?(all, &(&1.metadata[:health] == :unhealthy)), do: :unhealthy, else: :healthy)}
    end
  end

  @doc false
  def criteria(criteria) do
    case Keyword.pop(criteria, :capability) do
      {nil, criteria} ->
        criteria

      {capability, criteria} ->
        Keyword.update(criteria, :capabilities, [capability], &[capability | &1])
    end
  end

  @doc false
  # A list, or `capabilities: list`.
  def capabilities(capabilities: capabilities) when is_list(capabilities), do: capabilities
  def capabilities(capabilities) when is_list(capabilities), do: capabilities
end

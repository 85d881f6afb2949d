defmodule Foundation.ClusterConfig.Options do
  @moduledoc false
  # What each strategy takes, by its short name. libcluster reads the keys that it knows and says nothing of others, so a misspelt one, or a secret that
  # is none, would be found out by whom it lets in. The strategies that only the program foundation has are checked by it. A strategy that is given by its
  # module, and the topologies of `config :libcluster`, are passed on as they are.

  alias Foundation.Settings.Type

  @name {:either, [:string, :atom]}
  @node_list {:such_as, {:list, :atom}, [:a@host]}

  @dns %{
    polling_interval: :milliseconds,
    resolver: {:function, 1},
    timeout: :milliseconds,
    servers: {:list, :any}
  }

  @epmd %{
    hosts: @node_list,
    timeout: {:either, [:milliseconds, {:one_of, [:infinity]}]}
  }

  @options %{
    gossip: %{
      port: {:integer, 1..65_535},
      if_addr: :ip_address,
      multicast_if: :ip_address,
      multicast_addr: :ip_address,
      multicast_ttl: {:integer, 0..255},
      broadcast_only: :boolean,
      secret: :string
    },
    epmd: @epmd,
    static: @epmd,
    local_epmd: %{polling_interval: :milliseconds},
    erlang_hosts: %{timeout: :milliseconds, polling_interval: :milliseconds, file: :string},
    dns:
      Map.merge(@dns, %{
        query: {:either, [:string, {:some, :string}]},
        node_basename: @name,
        basename: @name,
        interval: :milliseconds,
        poll_interval: :milliseconds,
        resource_types: {:list, :any}
      }),
    kubernetes: %{
      mode: :atom,
      kubernetes_selector: :string,
      selector: :string,
      kubernetes_node_basename: @name,
      node_basename: @name,
      basename: @name,
      kubernetes_namespace: :string,
      namespace: :string,
      kubernetes_ip_lookup_mode: :atom,
      lookup: :atom,
      kubernetes_service_name: :string,
      service: :string,
      kubernetes_cluster_name: @name,
      kubernetes_master: :string,
      master: :string,
      kubernetes_service_account_path: :string,
      service_account_path: :string,
      kubernetes_use_cached_resources: :boolean,
      ready_only: :boolean,
      watch: :boolean,
      request_timeout: :milliseconds,
      polling_interval: :milliseconds
    },
    kubernetes_dns:
      Map.merge(@dns, %{service: :string, application_name: @name, basename: @name}),
    kubernetes_dns_srv:
      Map.merge(@dns, %{
        service: :string,
        namespace: :string,
        application_name: @name,
        basename: @name,
        cluster_domain: :string
      }),
    consul: %{
      base_url: :string,
      access_token: :string,
      cacert: :string,
      service: {:such_as, :keyword, [name: "shop"]},
      node_basename: @name,
      basename: @name,
      list_using: {:list, :any},
      dc: :any,
      datacenters: :any,
      filter: :string,
      passing: :boolean,
      expected: :any,
      register: :boolean,
      tags: {:list, :any},
      check: :any,
      ttl: :milliseconds,
      async_initial_connection: :boolean,
      async_initial_connection?: :boolean,
      disable_verify_ssl: :boolean,
      disable_verify_ssl?: :boolean,
      polling_interval: :milliseconds
    },
    rancher: %{
      node_basename: @name,
      basename: @name,
      endpoint: :string,
      polling_interval: :milliseconds
    },
    mdns_lite: %{polling_interval: :milliseconds, local: :boolean}
  }

  # Of every strategy: what the library makes others of, and what the companion alone knows.
  @common %{prune: :any}
  @made_of %{app_name: @name, dns_query: :string, consul_url: :string}
  @secrets [:secret, :access_token]

  @doc false
  # All mistakes in one text: each names its key and what would be right. A secret is not shown.
  @spec check(atom(), keyword()) :: :ok | {:error, String.t()}
  def check(strategy, options) do
    case @options do
      %{^strategy => known} ->
        known = Map.merge(known, @common)
        types = Map.merge(known, @made_of)

        case for(
               {key, value} <- options,
               mistake = mistake(key, value, known, types),
               do: mistake
             ) do
          [] ->
            :ok

          mistakes ->
            {:error, "cluster strategy #{inspect(strategy)}: #{Enum.join(mistakes, "; ")}"}
        end

      _the_programs_own ->
        :ok
    end
  end

  defp mistake(key, value, known, types) do
    case types do
      %{^key => type} ->
        unless Type.right?(type, value) do
          given = if key in @secrets, do: "not what it must be", else: inspect(value)
          "#{key}: is #{given}; it may be #{Type.describe(type)}"
        end

      _unknown ->
        "there is no option #{key}:; it takes #{known |> Map.keys() |> Enum.sort() |> Enum.map_join(", ", &"#{&1}:")}"
    end
  end
end

defmodule Foundation.ClusterConfig.Options do
  @moduledoc false
  # What each strategy takes, by its short name. libcluster reads the keys that it knows and says nothing of others, so a misspelt one, or a secret that
  # is none, would be found out by whom it lets in. The strategies that only the program foundation has are checked by it. A strategy that is given by its
  # module, and the topologies of `config :libcluster`, are passed on as they are.

  @text "a string"
  @name "a string or an atom"
  @ms "a number of milliseconds above 0"
  @flag "true or false"
  @address "an IP address, as a string or a tuple"
  @list "a list"
  @any "anything"

  @dns %{
    polling_interval: @ms,
    resolver: "a function of one argument",
    timeout: @ms,
    servers: @list
  }

  @epmd %{
    hosts: "a list of node names, as [:\"a@host\"]",
    timeout: "a number of milliseconds, or :infinity"
  }

  @options %{
    gossip: %{
      port: "a number from 1 to 65535",
      if_addr: @address,
      multicast_if: @address,
      multicast_addr: @address,
      multicast_ttl: "a number from 0 to 255",
      broadcast_only: @flag,
      secret: @text
    },
    epmd: @epmd,
    static: @epmd,
    local_epmd: %{polling_interval: @ms},
    erlang_hosts: %{timeout: @ms, polling_interval: @ms, file: @text},
    dns:
      Map.merge(@dns, %{
        query: "a string, or a list of strings",
        node_basename: @name,
        basename: @name,
        interval: @ms,
        poll_interval: @ms,
        resource_types: @list
      }),
    kubernetes: %{
      mode: "an atom",
      kubernetes_selector: @text,
      selector: @text,
      kubernetes_node_basename: @name,
      node_basename: @name,
      basename: @name,
      kubernetes_namespace: @text,
      namespace: @text,
      kubernetes_ip_lookup_mode: "an atom",
      lookup: "an atom",
      kubernetes_service_name: @text,
      service: @text,
      kubernetes_cluster_name: @name,
      kubernetes_master: @text,
      master: @text,
      kubernetes_service_account_path: @text,
      service_account_path: @text,
      kubernetes_use_cached_resources: @flag,
      ready_only: @flag,
      watch: @flag,
      request_timeout: @ms,
      polling_interval: @ms
    },
    kubernetes_dns: Map.merge(@dns, %{service: @text, application_name: @name, basename: @name}),
    kubernetes_dns_srv:
      Map.merge(@dns, %{
        service: @text,
        namespace: @text,
        application_name: @name,
        basename: @name,
        cluster_domain: @text
      }),
    consul: %{
      base_url: @text,
      access_token: @text,
      cacert: @text,
      service: "a keyword list, as [name: \"shop\"]",
      node_basename: @name,
      basename: @name,
      list_using: @list,
      dc: @any,
      datacenters: @any,
      filter: @text,
      passing: @flag,
      expected: @any,
      register: @flag,
      tags: @list,
      check: @any,
      ttl: @ms,
      async_initial_connection: @flag,
      async_initial_connection?: @flag,
      disable_verify_ssl: @flag,
      disable_verify_ssl?: @flag,
      polling_interval: @ms
    },
    rancher: %{node_basename: @name, basename: @name, endpoint: @text, polling_interval: @ms},
    mdns_lite: %{polling_interval: @ms, local: @flag}
  }

  # Of every strategy: what the library makes others of, and what the companion alone knows.
  @common %{prune: @any}
  @made_of %{app_name: @name, dns_query: @text, consul_url: @text}
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
      %{^key => right} ->
        unless right?(right, value) do
          given = if key in @secrets, do: "not what it must be", else: inspect(value)
          "#{key}: is #{given}; it is #{right}"
        end

      _unknown ->
        "there is no option #{key}:; it takes #{known |> Map.keys() |> Enum.sort() |> Enum.map_join(", ", &"#{&1}:")}"
    end
  end

  defp right?(@any, _value), do: true
  defp right?(@text, value), do: is_binary(value)
  defp right?(@name, value), do: is_binary(value) or is_atom(value)
  defp right?("an atom", value), do: is_atom(value)
  defp right?(@ms, value), do: is_integer(value) and value > 0
  defp right?(@flag, value), do: is_boolean(value)
  defp right?(@list, value), do: is_list(value)
  defp right?("a keyword list" <> _example, value), do: Keyword.keyword?(value)
  defp right?("a number from 1 to 65535", value), do: value in 1..65_535
  defp right?("a number from 0 to 255", value), do: value in 0..255
  defp right?("a function" <> _arity, value), do: is_function(value, 1)

  defp right?("a number of milliseconds, or :infinity", value),
    do: value == :infinity or right?(@ms, value)

  defp right?("a list of node names" <> _example, value),
    do: is_list(value) and Enum.all?(value, &is_atom/1)

  defp right?("a string, or a list of strings", value),
    do: is_binary(value) or (is_list(value) and value != [] and Enum.all?(value, &is_binary/1))

  defp right?(@address, value) when is_binary(value),
    do: match?({:ok, _address}, :inet.parse_address(String.to_charlist(value)))

  defp right?(@address, value), do: :inet.is_ip_address(value)
end

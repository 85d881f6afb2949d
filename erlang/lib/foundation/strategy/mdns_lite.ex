defmodule Foundation.Strategy.MdnsLite do
  @moduledoc """
  A `Cluster.Strategy` for development: nodes of the local network find each other by multicast DNS (RFC 6762), without a list of
  hosts. For applications that have libcluster and mdns_lite (0.8 or later, OTP 25 or later).

      config :foundation, cluster: :mdns_lite

      config :libcluster, topologies: [dev: [strategy: Foundation.Strategy.MdnsLite]]

  Each node announces an instance of the service `_foundation._tcp` (RFC 6763):

  | record | content |
  |---|---|
  | instance | the node's name, with `-` for its dots |
  | SRV | the port of the epmd that the node is registered with |
  | TXT | `node=<name>` and `version=<version of Foundation>` |

  and connects to the names in the TXT records that it sees. It never disconnects any: Erlang's distribution notices who has gone.

  | option | default | |
  |---|---|---|
  | `polling_interval` | 5000 | milliseconds between two queries |
  | `local` | `true` | also connect to the nodes that are registered with the epmd of this host. mdns_lite does not hear what its own host sends, so this is how nodes of one host meet |

  Anybody on the network can announce a name, and whoever makes a node connect learns a digest of its cookie: this is for networks that are
  trusted. A name that is not `name@host` is left alone, and so is every name after the first 1000, because a name becomes an atom.
  """

  # libcluster is the host application's, so neither its behaviour nor its macros can be named here. `Cluster.Supervisor` starts
  # the module with a list of one `Cluster.Strategy.State`.
  use GenServer
  require Logger

  @service :foundation_cluster
  @domain ~c"_foundation._tcp.local"
  @polling_interval_ms 5_000
  # Answers to the first query come within this; RFC 6762 section 6 lets a responder wait for 120 ms.
  @first_ms 500
  @max_names 1000

  @doc false
  @spec start_link([map()]) :: GenServer.on_start()
  def start_link([state]), do: GenServer.start_link(__MODULE__, state)

  @impl true
  def init(%{topology: topology, config: config} = state) do
    cond do
      not Node.alive?() ->
        Logger.error("#{prefix(topology)}this node is not alive: start it with --sname or --name")
        :ignore

      not available?() ->
        Logger.error(
          "#{prefix(topology)}it needs mdns_lite, which the application does not have. " <>
            "Add {:mdns_lite, \"~> 0.8\"} to its dependencies"
        )

        :ignore

      true ->
        # So that terminate/2 takes the announcement back.
        Process.flag(:trap_exit, true)
        {:ok, %{cluster: state, config: config || [], names: %{}}, {:continue, :announce}}
    end
  end

  defp available? do
    Code.ensure_loaded?(mdns()) and match?({:ok, _}, Application.ensure_all_started(:mdns_lite))
  end

  @impl true
  def handle_continue(:announce, state) do
    mdns().add_mdns_service(service())
    ask()
    schedule(@first_ms)
    {:noreply, state}
  end

  @doc false
  # What mdns_lite is told.
  def service do
    %{
      id: @service,
      instance_name: node() |> Atom.to_string() |> String.replace(".", "-"),
      protocol: "foundation",
      transport: "tcp",
      port: epmd_port(),
      txt_payload: ["node=#{node()}", "version=#{Foundation.version()}"]
    }
  end

  @impl true
  def handle_info(:poll, state) do
    {announced, state} = announced(state)
    connect(state.cluster, Enum.uniq(announced ++ local(state.config)) -- [node()])
    ask()
    schedule(Keyword.get(state.config, :polling_interval, @polling_interval_ms))
    {:noreply, state}
  end

  def handle_info(_message, state), do: {:noreply, state}

  @impl true
  def terminate(_reason, _state) do
    mdns().remove_mdns_service(@service)
  catch
    # mdns_lite stops first when the VM does.
    :exit, _reason -> :ok
  end

  defp schedule(milliseconds), do: Process.send_after(self(), :poll, milliseconds)

  # `MdnsLite.query/2` would answer with this node's own record and ask nobody, so the question goes to the responders of the interfaces.
  defp ask, do: guarded(fn -> responder().multicast_all(question()) end, :ok)

  defp announced(state) do
    %{additional: records} =
      guarded(fn -> responder().query_all_caches(question()) end, %{additional: []})

    records
    |> Enum.filter(&(:inet_dns.rr(&1, :type) == :txt))
    |> Enum.flat_map(&:inet_dns.rr(&1, :data))
    |> Enum.flat_map(&name/1)
    |> Enum.uniq()
    |> Enum.flat_map_reduce(state, &remember/2)
  end

  defp name(text) do
    with "node=" <> name <- IO.iodata_to_binary(text),
         true <- byte_size(name) <= 255 and name =~ ~r/\A[\w.-]+@[\w.:-]+\z/ do
      [name]
    else
      _other -> []
    end
  rescue
    # Not text at all.
    ArgumentError -> []
  end

  defp remember(name, state) do
    case state.names do
      %{^name => node} ->
        {[node], state}

      names when map_size(names) < @max_names ->
        node = String.to_atom(name)
        {[node], %{state | names: Map.put(names, name, node)}}

      _full ->
        {[], state}
    end
  end

  defp local(config) do
    if Keyword.get(config, :local, true), do: Foundation.Cluster.Epmd.registered(), else: []
  end

  defp connect(cluster, nodes) do
    # Written so that the compiler does not look for libcluster.
    strategy = Module.concat(Cluster, Strategy)
    strategy.connect_nodes(cluster.topology, cluster.connect, cluster.list_nodes, nodes)
  end

  defp question, do: :inet_dns.make_dns_query(domain: @domain, type: :ptr, class: :in)

  # The process of an interface ends with the interface.
  defp guarded(fun, otherwise) do
    fun.()
  catch
    :exit, _reason -> otherwise
  end

  defp epmd_port do
    text =
      case :init.get_argument(:erl_epmd_port) do
        {:ok, [[port | _] | _]} -> List.to_string(port)
        _none -> System.get_env("ERL_EPMD_PORT", "")
      end

    case Integer.parse(text) do
      {port, ""} -> port
      _default -> 4369
    end
  end

  defp prefix(topology), do: "Foundation.Strategy.MdnsLite (topology #{inspect(topology)}): "

  defp mdns, do: Module.concat([MdnsLite])
  defp responder, do: Module.concat([MdnsLite, Responder])
end

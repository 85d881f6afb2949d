defmodule Foundation.Cluster.Companion do
  @moduledoc """
  Discovery by the program `foundation`, which runs beside this node as `foundation companion`: every strategy of the Rust nodes, for
  topologies as libcluster has them. The program only finds; connecting is done here.

  The program is looked for in `config :foundation, binary:`, in the environment variable `FOUNDATION_BIN`, in `priv/bin/foundation`
  of this application (`mix foundation.build` puts it there, and `mix compile` with `config :foundation, build_companion: true`), and on
  `PATH`.

  It is started as a port, so it ends with this node, and is started again when it ends by itself: nodes stay connected in the
  meantime. A topology's `connect`, `disconnect` and `list_nodes` are called as libcluster calls them. Events and lines of the log are
  libcluster's:

  | event | measurements | metadata |
  |---|---|---|
  | `[:libcluster, :connect_node, :ok]` | `%{duration: native time}` | `%{node, topology}` |
  | `[:libcluster, :connect_node, :error]` | | `%{node, topology, reason}` |
  | `[:libcluster, :disconnect_node, :ok]` | `%{duration: native time}` | `%{node, topology}` |
  | `[:libcluster, :disconnect_node, :error]` | | `%{node, topology, reason}` |
  | `[:foundation, :discovery, :refused]` | | `%{node, topology, evidence}`: a name that anybody on the network can send; `node` is a string |
  | `[:foundation, :discovery, :source_failed]` | | `%{topology, reason}` |
  | `[:foundation, :discovery, :source_recovered]` | | `%{topology}` |

  What multicast DNS, and gossip without a secret, find is dialled in development on this host and its networks, elsewhere if
  `config :foundation, allow: [...]` has an entry for it: `"app@host"`, `"app@"`, `"host"`, `"*.example.com"`, `"10.0.0.0/8"`.
  """

  use GenServer
  require Logger

  alias Foundation.Host.Telemetry

  @connect {:net_kernel, :connect_node, []}
  @disconnect {:erlang, :disconnect_node, []}
  @list_nodes {:erlang, :nodes, [:connected]}

  # The first pause before the program is started again; it doubles up to the last.
  @first_pause_ms 500
  @last_pause_ms 30_000
  # A program that ran this long had no fault of its own.
  @steady_ms 60_000
  # How often a list_nodes of the application's own is asked: nobody tells when it changes.
  @list_interval_ms 1_000
  # The longest frame that the program says (its MAX_FRAME). What says longer ones is another program, and nothing is kept for it.
  @max_frame 1_048_576
  # A program that has not answered after this long is named in the log.
  @answers_ms 10_000
  # EX_CONFIG of sysexits.h: the same configuration would be refused again.
  @refused 78

  @type mfargs :: {module(), atom(), [term()]}

  @doc """
  Where the program is.
  """
  @spec binary() :: {:ok, Path.t()} | {:error, String.t()}
  def binary do
    named = [
      {"config :foundation, binary:", Foundation.Settings.get(:binary)},
      {"FOUNDATION_BIN", System.get_env("FOUNDATION_BIN")}
    ]

    case Enum.find(named, fn {_where, path} -> path not in [nil, ""] end) do
      {where, path} ->
        path = to_string(path)

        if File.regular?(path),
          do: {:ok, path},
          else: {:error, "#{where} is #{inspect(path)}, and there is no such file"}

      nil ->
        found = [private(), System.find_executable("foundation")]

        with nil <- Enum.find(found, &(&1 != nil and File.regular?(&1))) do
          {:error,
           "neither config :foundation, binary: nor FOUNDATION_BIN names it, and it is neither in priv/bin nor on PATH"}
        else
          path -> {:ok, path}
        end
    end
  end

  defp private do
    case :code.priv_dir(:foundation) do
      {:error, :bad_name} -> nil
      directory -> Path.join([directory, "bin", "foundation"])
    end
  end

  @doc """
  Options: `topologies:`, as libcluster has them; `binary:`, the path of the program; `allow:`; `development:`, the text that says why this
  is a developer's machine, or `nil`; `failover:`, topologies of which a later one runs only while those before it fail.

  Topologies that differ in `connect`, `disconnect` or `list_nodes` get a program each, under one supervisor with the name that libcluster's
  would have.
  """
  @spec child_spec(keyword()) :: Supervisor.child_spec()
  def child_spec(opts) do
    children =
      for {{mfas, topologies}, n} <- opts[:topologies] |> groups() |> Enum.with_index() do
        opts = Keyword.merge(opts, topologies: topologies, mfas: mfas)
        %{id: {__MODULE__, n}, start: {GenServer, :start_link, [__MODULE__, opts]}}
      end

    name = Keyword.get(opts, :name, Foundation.ClusterSupervisor)

    %{
      id: name,
      start: {Supervisor, :start_link, [children, [strategy: :one_for_one, name: name]]},
      type: :supervisor
    }
  end

  @doc false
  # In order, and each with what the strategies get to see.
  @spec groups(keyword()) :: [{{mfargs(), mfargs(), mfargs()}, keyword()}]
  def groups(topologies) do
    topologies
    |> Enum.map(fn {name, topology} ->
      mfas =
        {topology[:connect] || @connect, topology[:disconnect] || @disconnect,
         topology[:list_nodes] || @list_nodes}

      {mfas, {name, Keyword.drop(topology, [:connect, :disconnect, :list_nodes, :child_spec])}}
    end)
    |> Enum.group_by(&elem(&1, 0), &elem(&1, 1))
    |> Enum.sort_by(fn {_mfas, [{name, _topology} | _]} ->
      Enum.find_index(topologies, &(elem(&1, 0) == name))
    end)
  end

  @impl true
  def init(opts) do
    if Node.alive?() do
      :ok = :net_kernel.monitor_nodes(true, [:nodedown_reason, node_type: :all])
      {connect, disconnect, list_nodes} = opts[:mfas]
      if list_nodes != @list_nodes, do: Process.send_after(self(), :list, @list_interval_ms)

      state = %{
        opts: opts,
        connect: connect,
        disconnect: disconnect,
        list_nodes: list_nodes,
        port: nil,
        opened: nil,
        answered?: false,
        unread: <<>>,
        failures: 0,
        refused: nil,
        connected: MapSet.new(list(list_nodes)),
        tasks: %{}
      }

      {:ok, state, {:continue, :open}}
    else
      Logger.error(
        "Foundation clustering: this node is not alive, so nobody is looked for: start it with --sname or --name"
      )

      :ignore
    end
  end

  @impl true
  def handle_continue(:open, state), do: {:noreply, open(state)}

  @impl true
  def handle_info({port, {:data, bytes}}, %{port: port} = state),
    do: {:noreply, read(state.unread <> bytes, state)}

  def handle_info({port, {:exit_status, status}}, %{port: port} = state),
    do: {:noreply, ended(state, "exit status #{status}", status)}

  def handle_info(:open, %{port: nil} = state), do: {:noreply, open(state)}

  def handle_info({:answered?, port}, %{port: port, answered?: false} = state) do
    Logger.warning(
      "Foundation clustering: #{state.opts[:binary]} has not answered for #{div(@answers_ms, 1000)} s, and finds nobody: " <>
        "is it the program foundation?"
    )

    {:noreply, state}
  end

  def handle_info({:nodeup, _node, _info}, state), do: {:noreply, look(state)}

  def handle_info({:nodedown, node, info}, state) do
    deliberate = if info[:nodedown_reason] == :disconnect, do: [node], else: []
    {:noreply, look(state, deliberate)}
  end

  def handle_info(:list, state) do
    Process.send_after(self(), :list, @list_interval_ms)
    {:noreply, look(state)}
  end

  # What a task has brought about.
  def handle_info({ref, result}, state) when is_map_key(state.tasks, ref) do
    Process.demonitor(ref, [:flush])
    {:noreply, done(ref, result, state)}
  end

  def handle_info({:DOWN, ref, :process, _pid, reason}, state)
      when is_map_key(state.tasks, ref),
      do: {:noreply, done(ref, {:error, inspect(reason)}, state)}

  def handle_info(_message, state), do: {:noreply, state}

  ## The program

  defp open(state) do
    path = state.opts[:binary]

    port = Port.open({:spawn_executable, path}, [:binary, :exit_status, args: ["companion"]])

    Process.send_after(self(), {:answered?, port}, @answers_ms)
    state = %{state | port: port, opened: now(), answered?: false, unread: <<>>}
    tell(state, {:start, start(state)})
    state
  rescue
    error in ErlangError -> ended(state, inspect(error.original), nil)
  end

  defp start(state) do
    %{
      node: node(),
      cluster: cluster(state.opts),
      development: state.opts[:development],
      epmd_port: epmd_port(),
      listens: listens(),
      connected: MapSet.to_list(state.connected)
    }
  end

  defp cluster(opts) do
    # A text in a list is a string, also for the program; a charlist would be one, too.
    allow = for entry <- List.wrap(opts[:allow]), do: to_string(entry)
    own = Keyword.keys(opts[:topologies])
    order = for name <- opts[:failover] || [], name in own, do: Atom.to_string(name)
    %{topologies: opts[:topologies], allow: allow, failover: order}
  end

  defp epmd_port do
    case Integer.parse(System.get_env("ERL_EPMD_PORT", "")) do
      {port, ""} -> port
      _default -> 4369
    end
  end

  # A node that cannot be dialled is not announced.
  defp listens do
    [alive, _host] = node() |> Atom.to_string() |> String.split("@")

    case :erl_epmd.port_please(String.to_charlist(alive), {127, 0, 0, 1}) do
      {:port, port, _version} ->
        case Application.get_env(:kernel, :inet_dist_use_interface, {0, 0, 0, 0}) do
          address when tuple_size(address) == 8 -> ["[#{:inet.ntoa(address)}]:#{port}"]
          address -> ["#{:inet.ntoa(address)}:#{port}"]
        end

      _unknown ->
        []
    end
  end

  defp tell(%{port: nil}, _term), do: :ok

  defp tell(%{port: port}, term) do
    bytes = :erlang.term_to_binary(term)
    Port.command(port, [<<byte_size(bytes)::32>>, bytes])
    :ok
  rescue
    # It has just ended; its exit status is on its way.
    ArgumentError -> :ok
  end

  defp ended(state, why, status) do
    state = %{state | port: nil}

    if status == @refused or state.refused != nil do
      Logger.error(
        "Foundation clustering: #{state.opts[:binary]} does not take the configuration, and nobody is looked for: " <>
          (state.refused || why)
      )

      state
    else
      steady? = state.opened != nil and now() - state.opened > @steady_ms
      failures = if steady?, do: 0, else: state.failures
      pause = min(@first_pause_ms * Integer.pow(2, min(failures, 10)), @last_pause_ms)

      Logger.warning(
        "Foundation clustering: #{state.opts[:binary]} has ended (#{why}) and is started again in #{pause} ms; " <>
          "nodes stay connected"
      )

      Process.send_after(self(), :open, pause)
      %{state | failures: failures + 1}
    end
  end

  defp now, do: System.monotonic_time(:millisecond)

  ## What it says

  # Frames as of `packet: 4`, which would take what stands there for a length, up to 4 GiB, and keep as much.
  defp read(<<size::32, _rest::binary>>, state) when size > @max_frame do
    Port.close(state.port)
    why = "it said #{size} bytes at once, of at most #{@max_frame}: is it the program foundation?"
    ended(state, why, nil)
  end

  defp read(<<size::32, frame::binary-size(size), rest::binary>>, state) do
    case frame |> term() |> said(state) do
      %{port: nil} = state -> state
      state -> read(rest, %{state | answered?: true})
    end
  end

  defp read(unread, state), do: %{state | unread: unread}

  defp term(frame) do
    :erlang.binary_to_term(frame, [:safe])
  rescue
    # An atom that this version does not know, or no term at all.
    ArgumentError -> :unknown
  end

  defp said({:ready, 1, version, evidence}, state) do
    Logger.debug("Foundation clustering: #{state.opts[:binary]} #{version}")
    for line <- evidence, do: Logger.info("discovery: #{line}")
    state
  end

  defp said({:ready, other, version, _evidence}, state) do
    Port.close(state.port)
    why = "version #{version} speaks protocol #{inspect(other)}, this library speaks 1"
    ended(%{state | refused: why}, why, nil)
  end

  defp said({:error, text}, state), do: %{state | refused: text}

  defp said({:connect, name, topology}, state) do
    # The program names at most 4096 nodes at a time for a topology, and only those that may be dialled.
    node = String.to_atom(name)
    args = [topology(topology, state), node, state.connect, state.list_nodes]
    begin({:connect, node}, :connect, args, state)
  end

  defp said({:disconnect, name, topology}, state) do
    node = String.to_atom(name)
    args = [topology(topology, state), node, state.disconnect, state.list_nodes]
    begin({:disconnect, node}, :disconnect, args, state)
  end

  defp said({:report, report, info}, state) do
    report(report, info, topology(Map.get(info, :topology, ""), state))
    state
  end

  defp said(_unknown, state) do
    Logger.warning(
      "Foundation clustering: #{state.opts[:binary]} said something that this version does not know"
    )

    state
  end

  defp topology(name, state) do
    state.opts[:topologies]
    |> Keyword.keys()
    |> Enum.find(:foundation, &(Atom.to_string(&1) == name))
  end

  defp report(:refused, %{node: node, evidence: evidence}, topology) do
    event([:foundation, :discovery, :refused], %{
      node: node,
      topology: topology,
      evidence: evidence
    })

    Logger.warning(
      line(
        topology,
        "#{node} is not dialled: anybody on the network can name nodes in this way (#{evidence}). If it belongs to the " <>
          "cluster: config :foundation, allow: [#{inspect(node)}]"
      )
    )
  end

  defp report(:source_failed, %{reason: reason}, topology) do
    event([:foundation, :discovery, :source_failed], %{topology: topology, reason: reason})

    Logger.warning(line(topology, "no answer: #{reason}. What was said before stands"))
  end

  defp report(:source_recovered, _info, topology) do
    event([:foundation, :discovery, :source_recovered], %{topology: topology})
    Logger.info(line(topology, "answers again"))
  end

  defp report(:too_many, %{limit: limit}, topology),
    do: Logger.warning(line(topology, "names more than #{limit} nodes; the rest is ignored"))

  defp report(:absent, %{node: node}, topology),
    do: Logger.info(line(topology, "#{node} is not named any more"))

  defp report(:failed_over, %{sources: sources}, _topology),
    do: Logger.warning("Foundation clustering: failover: #{sources} run now")

  # Foundation.Cluster.Monitor says that the cluster has formed, whoever found it.
  defp report(_other, _info, _topology), do: :ok

  ## Connections

  defp begin(what, function, args, state) do
    task = Task.Supervisor.async_nolink(Foundation.TaskSupervisor, __MODULE__, function, args)
    put_in(state.tasks[task.ref], what)
  end

  defp done(ref, result, state) do
    {what, state} = pop_in(state.tasks[ref])

    case {what, result} do
      {{:connect, node}, :ok} ->
        # Also of one that was connected before: it waits for an answer.
        state = look(state)
        tell(state, {:up, node})
        state

      {{:connect, node}, {:error, reason}} ->
        tell(state, {:not_connected, node, to_string(reason)})
        state

      {{:disconnect, _node}, _result} ->
        look(state)
    end
  end

  # Tells the program who has come and gone.
  defp look(state, deliberate \\ []) do
    connected = MapSet.new(list(state.list_nodes))

    for node <- MapSet.difference(connected, state.connected), do: tell(state, {:up, node})

    for node <- MapSet.difference(state.connected, connected),
        do: tell(state, {:down, node, node in deliberate})

    %{state | connected: connected}
  end

  defp list({module, function, args}), do: apply(module, function, args)

  @doc false
  # As Cluster.Strategy.connect_nodes/4, for one node.
  def connect(topology, node, {module, function, args}, list_nodes) do
    if node in list(list_nodes) do
      :ok
    else
      started = System.monotonic_time()

      case apply(module, function, args ++ [node]) do
        true ->
          duration = System.monotonic_time() - started
          event([:libcluster, :connect_node, :ok], %{node: node, topology: topology}, duration)
          Logger.info(line(topology, "connected to #{inspect(node)}"))
          :ok

        false ->
          not_connected(topology, node, :unreachable, "")

        :ignored ->
          not_connected(topology, node, :not_part_of_network, ": not part of network")

        other ->
          not_connected(topology, node, inspect(other), ": #{inspect(other)}")
      end
    end
  end

  defp not_connected(topology, node, reason, why) do
    metadata = %{node: node, topology: topology, reason: reason}
    event([:libcluster, :connect_node, :error], metadata)
    Logger.warning(line(topology, "unable to connect to #{inspect(node)}#{why}"))
    {:error, reason}
  end

  @doc false
  # As Cluster.Strategy.disconnect_nodes/4, for one node.
  def disconnect(topology, node, {module, function, args}, list_nodes) do
    if node in list(list_nodes) do
      started = System.monotonic_time()

      case apply(module, function, args ++ [node]) do
        true ->
          duration = System.monotonic_time() - started
          event([:libcluster, :disconnect_node, :ok], %{node: node, topology: topology}, duration)
          Logger.info(line(topology, "disconnected from #{inspect(node)}"))
          :ok

        false ->
          not_disconnected(topology, node, :already_disconnected)

        :ignored ->
          not_disconnected(topology, node, :not_part_of_network)

        other ->
          not_disconnected(topology, node, inspect(other))
      end
    else
      :ok
    end
  end

  defp not_disconnected(topology, node, reason) do
    metadata = %{node: node, topology: topology, reason: reason}
    event([:libcluster, :disconnect_node, :error], metadata)
    Logger.warning(line(topology, "disconnect from #{inspect(node)} failed: #{reason}"))
    {:error, reason}
  end

  defp event(name, metadata, duration \\ nil) do
    measurements = if duration, do: %{duration: duration}, else: %{}
    Telemetry.execute(name, measurements, metadata)
  end

  defp line(topology, text), do: "[libcluster:#{topology}] #{text}"
end

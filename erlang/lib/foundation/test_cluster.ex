defmodule Foundation.TestCluster do
  @moduledoc """
  Several BEAM nodes on this host, for tests.

      cluster = Foundation.TestCluster.start(3, foundation: [cluster: :local_epmd])
      [a, b | _] = Foundation.TestCluster.nodes(cluster)
      Foundation.TestCluster.call(cluster, a, Node, :list, [])
      Foundation.TestCluster.stop(cluster)

  The nodes have an epmd of their own on a free port, a random cookie, names on 127.0.0.1, and the code paths of the caller. They
  are driven over their standard streams, so the caller need not be distributed, and end with the VM that started them. Needs
  OTP 25, whose `:peer` they are.
  """

  @compile {:no_warn_undefined, :peer}

  @enforce_keys [:peers, :epmd]
  defstruct @enforce_keys ++ [:coverage]

  @type t :: %__MODULE__{
          peers: [{node(), pid()}],
          epmd: {port(), non_neg_integer()},
          coverage: Path.t() | nil
        }

  @boot_ms 30_000

  @doc """
  Starts `count` nodes.

  Options: `foundation:`, the application's environment there; `start:` (true), whether to start the application; `paths:`, further
  code paths; `coverage: {directory, modules}`, count the lines of these modules that run there, and export the counts to this directory
  when a node is stopped: `mix test --cover --export-coverage name` and `mix test.coverage` add them to those of the tests themselves.
  `config :foundation, test_cluster: opts` has options for all clusters.
  """
  @spec start(pos_integer(), keyword()) :: t()
  def start(count, opts \\ []) do
    opts = Keyword.merge(Application.get_env(:foundation, :test_cluster, []), opts)
    {epmd, port} = start_epmd()
    cookie = "test#{System.unique_integer([:positive])}"

    peers =
      1..count
      |> Enum.map(&Task.async(fn -> start_peer(&1, port, cookie, boot_ms(count), opts) end))
      |> Task.await_many(2 * boot_ms(count))

    directory = with {directory, _modules} <- opts[:coverage], do: directory
    cluster = %__MODULE__{peers: peers, epmd: {epmd, port}, coverage: directory}
    for {node, _peer} <- peers, do: boot(cluster, node, opts)
    cluster
  end

  @doc """
  The nodes' names.
  """
  @spec nodes(t()) :: [node()]
  def nodes(cluster), do: Enum.map(cluster.peers, &elem(&1, 0))

  @doc """
  Calls a function on a node. Exceptions come back as such.
  """
  @spec call(t(), node(), module(), atom(), [term()]) :: term()
  def call(cluster, node, module, function, args) do
    {^node, peer} = List.keyfind(cluster.peers, node, 0)
    :peer.call(peer, module, function, args, @boot_ms)
  end

  @doc """
  Kills a node as if its machine had gone.
  """
  @spec kill(t(), node()) :: t()
  def kill(cluster, node) do
    {{^node, peer}, peers} = List.keytake(cluster.peers, node, 0)
    Process.exit(peer, :kill)
    %{cluster | peers: peers}
  end

  @doc """
  Stops all nodes.
  """
  @spec stop(t()) :: :ok
  def stop(cluster) do
    for {node, peer} <- cluster.peers do
      try do
        if cluster.coverage, do: export_coverage(peer, node, cluster.coverage)
        :peer.stop(peer)
      catch
        :exit, _reason -> :ok
      end
    end

    {epmd, _port} = cluster.epmd
    # It closes with the process that opened it anyway.
    if Port.info(epmd, :connected) == {:connected, self()}, do: Port.close(epmd)
    :ok
  end

  # They all start at once.
  defp boot_ms(count), do: @boot_ms * (div(count, 10) + 1)

  defp start_peer(number, port, cookie, boot_ms, opts) do
    paths = Keyword.get(opts, :paths, []) ++ Enum.reject(:code.get_path(), &otp?/1)

    # Not linked to this task, which ends before the node does.
    {:ok, peer, node} =
      :peer.start(%{
        name: :"n#{number}_#{System.unique_integer([:positive])}",
        host: ~c"127.0.0.1",
        longnames: true,
        connection: :standard_io,
        wait_boot: boot_ms,
        env: [{~c"ERL_EPMD_PORT", Integer.to_charlist(port)}],
        args:
          [~c"-setcookie", to_charlist(cookie), ~c"-connect_all", ~c"false"] ++
            Enum.flat_map(paths, &[~c"-pa", to_charlist(&1)])
      })

    {node, peer}
  end

  defp otp?(path),
    do:
      List.starts_with?(path, :code.lib_dir()) and
        not List.starts_with?(path, :code.lib_dir(:elixir))

  defp boot(cluster, node, opts) do
    {:ok, _} = call(cluster, node, :application, :ensure_all_started, [:elixir])
    {:ok, _} = call(cluster, node, :application, :ensure_all_started, [:logger])
    call(cluster, node, Logger, :configure, [[level: :error]])
    _ = call(cluster, node, :application, :load, [:foundation])
    with {_directory, modules} <- opts[:coverage], do: count_lines(cluster, node, modules)

    for {key, value} <- Keyword.get(opts, :foundation, []),
        do: call(cluster, node, Application, :put_env, [:foundation, key, value])

    if Keyword.get(opts, :start, true),
      do: {:ok, _} = call(cluster, node, Application, :ensure_all_started, [:foundation])
  end

  # Counted from here on; compiling takes seconds, and longer on a busy machine.
  defp count_lines(cluster, node, modules) do
    {^node, peer} = List.keyfind(cluster.peers, node, 0)
    {:ok, _pid} = :peer.call(peer, :cover, :start, [], :infinity)
    # Not by :code.which/1: here they may be counted already.
    ebin = Application.app_dir(:foundation, "ebin")
    beams = Enum.map(modules, &String.to_charlist(Path.join(ebin, "#{&1}.beam")))
    _results = :peer.call(peer, :cover, :compile_beam, [beams], :infinity)
  end

  defp export_coverage(peer, node, directory) do
    file = Path.join(directory, "#{node}-#{System.unique_integer([:positive])}.coverdata")
    :peer.call(peer, :cover, :export, [String.to_charlist(file)], :infinity)
  end

  # epmd does not look at its standard input, so a shell does and ends it with the port: also when this VM is killed.
  @epmd_script "\"$0\" -port \"$1\" -address 127.0.0.1 </dev/null >/dev/null 2>&1 & epmd=$!; cat >/dev/null; kill $epmd"

  @doc """
  An epmd on a free port of 127.0.0.1, for VMs started with `ERL_EPMD_PORT`. It ends with the process that asked for it.
  """
  @spec start_epmd() :: {port(), non_neg_integer()}
  def start_epmd do
    {:ok, socket} = :gen_tcp.listen(0, ip: {127, 0, 0, 1})
    {:ok, port} = :inet.port(socket)
    :ok = :gen_tcp.close(socket)
    path = System.find_executable("epmd") || raise "epmd is not on PATH"
    shell = System.find_executable("sh") || raise "sh is not on PATH"

    epmd =
      Port.open({:spawn_executable, shell}, [:binary, args: ["-c", @epmd_script, path, "#{port}"]])

    await_epmd(port, System.monotonic_time(:millisecond) + @boot_ms)
    {epmd, port}
  end

  # Until it answers: a refused connection is an answer at once, so a moment passes in between.
  defp await_epmd(port, deadline) do
    case :gen_tcp.connect({127, 0, 0, 1}, port, [], 1000) do
      {:ok, socket} ->
        :gen_tcp.close(socket)

      {:error, reason} ->
        if System.monotonic_time(:millisecond) > deadline,
          do: raise("epmd does not answer on port #{port}: #{inspect(reason)}")

        receive do
        after
          10 -> await_epmd(port, deadline)
        end
    end
  end
end

defmodule Foundation.TestHosts do
  @moduledoc false
  # Network namespaces on one bridge: hosts of a local network on this machine. Needs root and iproute2.

  import Foundation.Eventually

  def available? do
    System.find_executable("ip") != nil and
      match?({_output, 0}, ip(~w(netns add fprobe#{System.pid()}))) and
      match?({_output, 0}, ip(~w(netns del fprobe#{System.pid()})))
  end

  # The network is a namespace of its own, so that nothing of it shows in this one.
  def start(addresses) do
    id = System.pid()
    bridge = "fnet#{id}"
    ok(~w(netns add #{bridge}))
    ok(~w(-n #{bridge} link add br0 type bridge))
    ok(~w(-n #{bridge} link set br0 up))

    for {address, n} <- Enum.with_index(addresses) do
      host = "fhost#{id}x#{n}"
      ok(~w(netns add #{host}))
      ok(~w(-n #{bridge} link add port#{n} type veth peer name eth0 netns #{host}))
      ok(~w(-n #{bridge} link set port#{n} master br0))
      ok(~w(-n #{bridge} link set port#{n} up))
      ok(~w(-n #{host} addr add #{address}/24 dev eth0))
      ok(~w(-n #{host} link set lo up))
      ok(~w(-n #{host} link set eth0 up))
      ok(~w(-n #{host} route add 224.0.0.0/4 dev eth0))
      start_epmd({host, address})
      {host, address}
    end
  end

  # erl starts one by itself, and does not wait until it listens.
  defp start_epmd(host) do
    {_output, 0} = run(host, "epmd", ["-daemon"])
    eventually(fn -> match?({_output, 0}, run(host, "epmd", ["-names"])) end)
  end

  # What each of two hosts runs: waits for the other node, and tells it so until this one is told as well. Both know when either ends.
  def meet do
    Process.register(self(), :session)
    :ok = :net_kernel.monitor_nodes(true)
    deadline = System.monotonic_time(:millisecond) + 120_000

    other =
      case Node.list() do
        [node | _] -> node
        [] -> receive do: ({:nodeup, node} -> node), after: (120_000 -> nil)
      end

    told = if other != nil and told?(other, deadline), do: "told", else: "not told"
    "#{other} #{told}"
  end

  defp told?(other, deadline) do
    send({:session, other}, {:seen, node()})

    receive do
      {:seen, ^other} -> stay(other, deadline)
    after
      200 -> System.monotonic_time(:millisecond) < deadline and told?(other, deadline)
    end
  end

  # One ends first, once its last message has arrived: the answer to the call comes behind it.
  defp stay(other, deadline) when node() > other do
    send({:session, other}, {:seen, node()})

    try do
      :erpc.call(other, :erlang, :node, []) == other
    catch
      :error, {:erpc, _reason} -> told?(other, deadline)
    end
  end

  defp stay(other, deadline) do
    send({:session, other}, {:seen, node()})

    receive do
      {:nodedown, ^other} -> other not in Node.list() or stay(other, deadline)
    after
      200 -> System.monotonic_time(:millisecond) < deadline and stay(other, deadline)
    end
  end

  # The processes of a namespace are killed with it: its epmd does not end by itself.
  def stop(hosts) do
    for {host, _address} <- hosts do
      {pids, 0} = ip(~w(netns pids #{host}))
      for pid <- String.split(pids), do: System.cmd("kill", ["-9", pid], stderr_to_stdout: true)
      ok(~w(netns del #{host}))
    end

    ok(~w(netns del fnet#{System.pid()}))
  end

  def run({host, _address}, command, arguments) do
    System.cmd("ip", ["netns", "exec", host, command | arguments], stderr_to_stdout: true)
  end

  defp ok(arguments) do
    case ip(arguments) do
      {_output, 0} -> :ok
      {output, _status} -> raise "ip #{Enum.join(arguments, " ")}: #{output}"
    end
  end

  defp ip(arguments), do: System.cmd("ip", arguments, stderr_to_stdout: true)
end

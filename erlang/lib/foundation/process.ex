defmodule Foundation.Process do
  @moduledoc """
  Moving a process to another node.
  """

  alias Foundation.{Cluster, Host, ProcessManager}
  alias Foundation.ProcessManager.Keeper
  alias Foundation.Types.Error

  @timeout_ms 30_000

  @doc """
  Moves a singleton of `Foundation.ProcessManager` to another node, with its state.

  The process is suspended, started on the node as it was started here, given the state of the old one, and the name passes to it; then the
  old one ends with `{:name_conflict, {name, nil}, Foundation.ProcessRegistry, new_pid}`. It must be a `GenServer`, or another process that
  `:sys.get_state/1` and `:sys.replace_state/2` work on.

  Lost are: messages that wait in its mailbox or arrive meanwhile, its timers, monitors and links, and what it owns on its node (ETS
  tables, ports, files); its `init/1` runs on the new node before it gets the state.

  Options: `to_node`; `timeout`, 30,000 ms. If it fails the process goes on where it is. Errors are `Foundation.Types.Error`:

  | error | when |
  |---|---|
  | `:not_managed` | the process is no singleton here, or clustering is off |
  | `:not_supported` | the host application's Horde runs it: it decides itself where |
  | `:node_not_available` | the node has no `Foundation.ProcessManager` |
  | `:migration_failed` | the process did not give its state, or could not be started there |
  """
  @spec migrate(pid(), keyword()) :: {:ok, pid()} | {:error, Error.t()}
  def migrate(pid, opts) when is_pid(pid) do
    to_node = Keyword.fetch!(opts, :to_node)
    timeout = Keyword.get(opts, :timeout, @timeout_ms)

    cond do
      not Cluster.enabled?() ->
        error(:not_managed, "clustering is off, see Foundation.ClusterConfig")

      Host.module(:horde) ->
        error(:not_supported, "Horde.DynamicSupervisor decides where its children run")

      node(pid) == to_node ->
        {:ok, pid}

      to_node not in ProcessManager.nodes() ->
        error(:node_not_available, "#{to_node} has no Foundation.ProcessManager.Keeper")

      true ->
        case Keeper.named(pid) do
          {:ok, name, child} ->
            move(pid, name, child, to_node, timeout)

          :error ->
            error(:not_managed, "#{inspect(pid)} is no singleton of Foundation.ProcessManager")
        end
    end
  end

  defp move(pid, name, child, to_node, timeout) do
    with {:ok, state} <- freeze(pid, timeout),
         {:error, reason} <- start(to_node, name, child, state, timeout) do
      catch_exit(fn -> :sys.resume(pid, timeout) end)
      failed(reason)
    end
  end

  defp freeze(pid, timeout) do
    with {:exit, reason} <-
           catch_exit(fn ->
             :ok = :sys.suspend(pid, timeout)
             {:ok, :sys.get_state(pid, timeout)}
           end) do
      catch_exit(fn -> :sys.resume(pid, timeout) end)
      failed(reason)
    end
  end

  defp start(to_node, name, child, state, timeout) do
    with {:exit, reason} <-
           catch_exit(fn ->
             GenServer.call({Keeper, to_node}, {:move_here, name, child, state}, timeout)
           end),
         do: {:error, reason}
  end

  defp catch_exit(fun) do
    fun.()
  catch
    :exit, reason -> {:exit, reason}
  end

  defp failed(reason), do: error(:migration_failed, Exception.format_exit(reason))

  defp error(error_type, reason) do
    {:error,
     Error.new(
       error_type: error_type,
       message: "Foundation.Process.migrate/2: #{reason}",
       severity: :medium,
       category: :system,
       subcategory: :cluster
     )}
  end
end

defmodule Foundation.Host.Telemetry do
  @moduledoc """
  `execute/3`, `attach/4`, `attach_many/4` and `detach/1` with the meaning that the `:telemetry` library gives them.

  With `:telemetry` in the host application they are its functions. Without it handlers are kept in a table here, from the first call on, whether the
  application has started or not: they run in the emitting process, and one that raises is detached, logged, and told to handlers of
  `[:telemetry, :handler, :failure]`.
  """

  alias Foundation.Host
  require Logger

  @table __MODULE__

  @type handler :: ([atom()], map(), map(), term() -> term())

  @doc """
  Calls every handler attached to the event.
  """
  @spec execute([atom()], map(), map()) :: :ok
  def execute(event, measurements, metadata) do
    # A key that is a literal is found without making a hash of it.
    case :persistent_term.get({Host, :telemetry}, :unknown) do
      nil ->
        execute_own(event, measurements, metadata)

      :unknown ->
        :ok = Host.detect()
        execute(event, measurements, metadata)

      telemetry ->
        telemetry.execute(event, measurements, metadata)
    end
  end

  @doc """
  False if no handler is attached to the event, so that nothing need be measured for it. True may also mean that the library alone knows.
  """
  @spec heard?([atom()]) :: boolean()
  def heard?(event) do
    :persistent_term.get({Host, :telemetry}, :unknown) != nil or :ets.member(@table, event)
  rescue
    # No table yet.
    ArgumentError -> false
  end

  @doc """
  Attaches a handler to one event.
  """
  @spec attach(term(), [atom()], handler(), term()) :: :ok | {:error, :already_exists}
  def attach(id, event, fun, config), do: attach_many(id, [event], fun, config)

  @doc """
  Attaches a handler to several events under one id.
  """
  @spec attach_many(term(), [[atom()]], handler(), term()) :: :ok | {:error, :already_exists}
  def attach_many(id, events, fun, config) when is_function(fun, 4) do
    case Host.module(:telemetry) do
      nil -> attach_own(id, events, fun, config)
      telemetry -> telemetry.attach_many(id, events, fun, config)
    end
  end

  @doc """
  Detaches a handler from all its events.
  """
  @spec detach(term()) :: :ok | {:error, :not_found}
  def detach(id) do
    case Host.module(:telemetry) do
      nil -> detach_own(id)
      telemetry -> telemetry.detach(id)
    end
  end

  @doc false
  # The table belongs to a process of no application: handlers that are attached before this one starts are there when it has, and all survive a
  # restart of it, as with the library.
  @spec create_table() :: :ok
  def create_table do
    if :ets.whereis(@table) == :undefined do
      caller = self()
      {owner, monitor} = spawn_monitor(fn -> own_table(caller) end)

      receive do
        {^owner, :created} -> Process.demonitor(monitor, [:flush])
        # Another process made it at once.
        {:DOWN, ^monitor, :process, ^owner, _reason} -> :ok
      end
    end

    :ok
  end

  defp own_table(caller) do
    # An application that stops takes along whoever has its group leader.
    Process.group_leader(self(), Process.whereis(:init))
    :ets.new(@table, [:named_table, :public, :duplicate_bag, read_concurrency: true])
    send(caller, {self(), :created})
    Process.sleep(:infinity)
  rescue
    ArgumentError -> :ok
  end

  defp attach_own(id, events, fun, config) do
    create_table()

    if :ets.select_count(@table, own(id)) == 0 do
      :ets.insert(@table, for(event <- events, do: {event, id, fun, config}))
      :ok
    else
      {:error, :already_exists}
    end
  end

  defp execute_own(event, measurements, metadata) do
    case handlers(event) do
      [] -> :ok
      handlers -> Enum.each(handlers, &run(&1, event, measurements, metadata))
    end
  end

  defp run({_event, id, fun, config}, event, measurements, metadata) do
    fun.(event, measurements, metadata, config)
  catch
    kind, reason ->
      detach_own(id)

      execute_own(
        [:telemetry, :handler, :failure],
        %{monotonic_time: System.monotonic_time(), system_time: System.system_time()},
        %{
          event_name: event,
          handler_id: id,
          handler_config: config,
          kind: kind,
          reason: reason,
          stacktrace: __STACKTRACE__
        }
      )

      Logger.error(
        "Handler #{inspect(id)} has failed and has been detached. " <>
          Exception.format(kind, reason, __STACKTRACE__)
      )
  end

  defp handlers(event) do
    :ets.lookup(@table, event)
  rescue
    ArgumentError -> []
  end

  defp detach_own(id) do
    create_table()

    case :ets.select_delete(@table, own(id)) do
      0 -> {:error, :not_found}
      _count -> :ok
    end
  end

  # An id may be any term, so it is compared and never used as a pattern.
  defp own(id), do: [{{:_, :"$1", :_, :_}, [{:"=:=", :"$1", {:const, id}}], [true]}]
end

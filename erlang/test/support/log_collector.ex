defmodule Foundation.LogCollector do
  @moduledoc false
  # A handler of OTP's logger: sends {:logged, level, text, metadata} to a process.

  def attach(pid, level \\ :info) do
    id = :"collector_#{System.unique_integer([:positive])}"
    before = Logger.level()
    :ok = :logger.add_handler(id, __MODULE__, %{level: level, config: %{pid: pid}})
    Logger.configure(level: level)

    ExUnit.Callbacks.on_exit(fn ->
      :logger.remove_handler(id)
      Logger.configure(level: before)
    end)
  end

  def log(%{level: level, msg: {:string, text}, meta: meta}, %{config: %{pid: pid}}),
    do: send(pid, {:logged, level, IO.chardata_to_string(text), meta})

  def log(_other, _config), do: :ok
end

defmodule Foundation.Worker do
  @moduledoc false
  # A server for tests of supervision on several nodes.

  use GenServer

  def start_link(args), do: GenServer.start_link(__MODULE__, args)

  @impl true
  def init(args) do
    if args[:fail], do: {:stop, args[:fail]}, else: {:ok, args}
  end

  @impl true
  def handle_call(:args, _from, args), do: {:reply, args, args}

  def handle_call({:put, key, value}, _from, args),
    do: {:reply, :ok, Keyword.put(args, key, value)}

  def handle_call(:stop, _from, args), do: {:stop, :normal, :ok, args}
end

defmodule Foundation.Starter do
  @moduledoc false
  # A supervisor that outlives the call that starts it.

  def start(children) do
    parent = self()

    spawn(fn ->
      send(parent, Supervisor.start_link(children, strategy: :one_for_one))
      Process.sleep(:infinity)
    end)

    receive do
      {:ok, supervisor} -> {:ok, supervisor}
    after
      30_000 -> {:error, :timeout}
    end
  end
end

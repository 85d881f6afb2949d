defmodule Foundation.PubSub.Supervisor do
  @moduledoc false
  # The engine without Phoenix.PubSub. rest_for_one: a scope that restarts has forgotten its members, so the member joins again.

  use Supervisor

  def start_link, do: Supervisor.start_link(__MODULE__, [], name: __MODULE__)

  @impl true
  def init(_opts) do
    children = [
      %{id: :scope, start: {__MODULE__, :start_scope, []}},
      {Registry,
       keys: :duplicate, name: Foundation.PubSub, partitions: System.schedulers_online()},
      Foundation.PubSub.Member
    ]

    Supervisor.init(children, strategy: :rest_for_one)
  end

  @doc false
  def start_scope do
    # Another application may have started the scope; it then is that one's to keep.
    with {:error, {:already_started, _pid}} <- :pg.start_link(Phoenix.PubSub), do: :ignore
  end
end

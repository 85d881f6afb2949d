defmodule Foundation.PubSub do
  @moduledoc """
  Messages by topic to subscribers on all nodes: `Phoenix.PubSub` under this name when the host application has it, else the same
  protocol spoken here.

  A broadcast goes once to each other node that has a PubSub of this name, and from there to its subscribers. Delivery is at most
  once; messages of one process arrive in their order; `:ok` says that they were sent, not that anybody was there.

  Members without the library find each other, and members with it, through the `:pg` scope `Phoenix.PubSub`: the group
  `Foundation.PubSub.Adapter` holds one process a node, which takes `{:forward_to_local, topic, message, dispatcher}`.
  """

  alias Foundation.Host

  @scope Phoenix.PubSub
  @group Foundation.PubSub.Adapter

  @type topic :: String.t()

  @doc false
  def child_spec(_opts) do
    case Host.module(:phoenix_pubsub) do
      nil ->
        %{
          id: __MODULE__,
          start: {Foundation.PubSub.Supervisor, :start_link, []},
          type: :supervisor
        }

      pubsub ->
        # A group that every member has, whatever its pool: see `pool_size` there.
        Supervisor.child_spec({pubsub, name: __MODULE__, pool_size: 1}, id: __MODULE__)
    end
  end

  @doc """
  Subscribes the calling process. Twice is twice: each message then comes twice.
  """
  @spec subscribe(topic()) :: :ok | {:error, term()}
  def subscribe(topic) when is_binary(topic) do
    with {:ok, _owner} <- Registry.register(__MODULE__, topic, nil), do: :ok
  end

  @doc """
  Ends all subscriptions of the calling process to a topic.
  """
  @spec unsubscribe(topic()) :: :ok
  def unsubscribe(topic) when is_binary(topic), do: Registry.unregister(__MODULE__, topic)

  @doc """
  Sends to the subscribers on all nodes.
  """
  @spec broadcast(topic(), term()) :: :ok | {:error, term()}
  def broadcast(topic, message) when is_binary(topic) do
    case Host.module(:phoenix_pubsub) do
      nil ->
        for pid <- :pg.get_members(@scope, @group), node(pid) != node() do
          send(pid, {:forward_to_local, topic, message, Phoenix.PubSub})
        end

        local_broadcast(topic, message)

      pubsub ->
        pubsub.broadcast(__MODULE__, topic, message)
    end
  end

  @doc """
  Sends to the subscribers on one other node.
  """
  @spec direct_broadcast(node(), topic(), term()) :: :ok | {:error, term()}
  def direct_broadcast(node, topic, message) when is_atom(node) and is_binary(topic) do
    case Host.module(:phoenix_pubsub) do
      nil ->
        send({@group, node}, {:forward_to_local, topic, message, Phoenix.PubSub})
        :ok

      pubsub ->
        pubsub.direct_broadcast(node, __MODULE__, topic, message)
    end
  end

  @doc """
  Sends to the subscribers on this node.
  """
  @spec local_broadcast(topic(), term()) :: :ok
  def local_broadcast(topic, message) when is_binary(topic) do
    Registry.dispatch(__MODULE__, topic, fn entries ->
      for {pid, _metadata} <- entries, do: send(pid, message)
    end)
  end

  @doc """
  The nodes that have a PubSub of this name, this one included.
  """
  @spec nodes() :: [node()]
  def nodes, do: @scope |> :pg.get_members(@group) |> Enum.map(&node/1) |> Enum.uniq()

  @doc """
  Whether it is running on this node.
  """
  @spec running?() :: boolean()
  def running?, do: Process.whereis(__MODULE__) != nil
end

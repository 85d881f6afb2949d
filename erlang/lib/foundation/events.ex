defmodule Foundation.Events do
  @moduledoc """
  Making, storing and finding events.

      {:ok, event} = Foundation.Events.new_event(:api_error, %{status: 500}, correlation_id: id)
      {:ok, _id} = Foundation.Events.store(event)
      {:ok, events} = Foundation.Events.get_by_correlation(id)

  `store/1` takes the result of `new_event/3` as it is, so the two can be piped.

  | error | code | when |
  |---|---|---|
  | `:validation_failed`, `:type_mismatch`, `:data_too_large` | 2001–2003 | the event is invalid (see `Foundation.Validation.EventValidator`) |
  | `:invalid_argument` | 2005 | `store/1` of something else |
  | `:not_found` | 3001 | no event of that id |
  | `:deserialization_failed` | `nil` | the binary holds no event |
  | `:service_unavailable` | 3000 | the store is not running |
  """

  alias Foundation.{Channels, Cluster}
  alias Foundation.Logic.EventLogic
  alias Foundation.Services.EventStore
  alias Foundation.Types.{Error, Event}

  @behaviour Foundation.Contracts.EventStore

  @type event_id :: Event.event_id()
  @type correlation_id :: Event.correlation_id()
  @type event_query :: map()

  ## The service

  @doc """
  Starts the store unless it runs.
  """
  @impl true
  @spec initialize() :: :ok | {:error, Error.t()}
  defdelegate initialize(), to: EventStore

  @doc """
  `%{status: :running, event_count: _, next_id: _}`.
  """
  @impl true
  @spec status() :: {:ok, map()} | {:error, Error.t()}
  defdelegate status(), to: EventStore

  @doc """
  Whether the store is running.
  """
  @impl true
  @spec available?() :: boolean()
  defdelegate available?(), to: EventStore

  ## Making events

  @doc """
  An event of any type and data. Options: `event_id`, `timestamp` (monotonic ms), `wall_time`, `node`, `pid`,
  `correlation_id`, `parent_id`.
  """
  @spec new_event(atom(), term(), keyword()) :: {:ok, Event.t()} | {:error, Error.t()}
  def new_event(event_type, data, opts \\ []), do: EventLogic.create_event(event_type, data, opts)

  @doc """
  `new_event/3`, raising on errors.
  """
  @spec debug_new_event(atom(), term(), keyword()) :: Event.t()
  def debug_new_event(event_type, data, opts \\ []) do
    case new_event(event_type, data, opts) do
      {:ok, event} -> event
      {:error, _error} -> raise "Failed to create debug event"
    end
  end

  @doc """
  An event of something a user did, with `user_id` added to the data.
  """
  @spec new_user_event(term(), atom(), map()) :: {:ok, Event.t()} | {:error, Error.t()}
  def new_user_event(user_id, event_type, data \\ %{})
      when is_atom(event_type) and is_map(data) do
    new_event(event_type, Map.put(data, :user_id, user_id))
  end

  @doc """
  An event of something the system did.
  """
  @spec new_system_event(atom(), map()) :: {:ok, Event.t()} | {:error, Error.t()}
  def new_system_event(event_type, data \\ %{}) when is_atom(event_type) and is_map(data) do
    new_event(event_type, data)
  end

  @doc """
  An event of an error; anything but a map becomes `%{error: value}`.
  """
  @spec new_error_event(atom(), term()) :: {:ok, Event.t()} | {:error, Error.t()}
  def new_error_event(event_type, error \\ %{})

  def new_error_event(event_type, %{} = data) when is_atom(event_type) and not is_struct(data),
    do: new_event(event_type, data)

  def new_error_event(event_type, error) when is_atom(event_type),
    do: new_event(event_type, %{error: error})

  @doc """
  An event `:function_entry`. Arguments above 10,000 bytes are truncated.
  """
  @spec function_entry(module(), atom(), arity(), [term()], keyword()) ::
          {:ok, Event.t()} | {:error, Error.t()}
  def function_entry(module, function, arity, args, opts \\ []),
    do: EventLogic.create_function_entry(module, function, arity, args, opts)

  @doc """
  An event `:function_exit`. A result above 10,000 bytes is truncated.
  """
  @spec function_exit(
          module(),
          atom(),
          arity(),
          pos_integer(),
          term(),
          non_neg_integer(),
          atom()
        ) :: {:ok, Event.t()} | {:error, Error.t()}
  defdelegate function_exit(module, function, arity, call_id, result, duration_ns, exit_reason),
    to: EventLogic,
    as: :create_function_exit

  @doc """
  An event `:state_change`. States above 10,000 bytes are truncated.
  """
  @spec state_change(pid(), atom(), term(), term(), keyword()) ::
          {:ok, Event.t()} | {:error, Error.t()}
  def state_change(server_pid, callback, old_state, new_state, opts \\ []),
    do: EventLogic.create_state_change(server_pid, callback, old_state, new_state, opts)

  @doc """
  Makes an event, stores it here and broadcasts it on the `:events` channel. The correlation id comes back.

  Subscribers of the channel on all nodes get the `Foundation.Types.Event`. Options are those of `new_event/3`; `correlation: :global`
  is accepted and is what happens anyway: a correlation id names the same chain on every node.
  """
  @spec emit_distributed(atom(), term(), keyword()) ::
          {:ok, correlation_id()} | {:error, Error.t()}
  def emit_distributed(event_type, data, opts \\ []) do
    with {:ok, event} <- new_event(event_type, data, Keyword.delete(opts, :correlation)),
         {:ok, _id} <- store(event),
         :ok <- if(Cluster.enabled?(), do: Channels.broadcast(:events, event), else: :ok) do
      {:ok, event.correlation_id}
    end
  end

  @doc """
  Calls `handler:`, a function of the event, for the events of the given types that any node emits with `emit_distributed/3`.

  Types are a list, or `[event_type: type]`. The handler runs in a process of its own on this node; one that fails is logged, and the next event
  comes all the same. The id ends it with `unsubscribe_cluster_wide/1`.
  """
  @spec subscribe_cluster_wide([atom()] | keyword(), keyword()) :: {:ok, pid()} | {:error, term()}
  def subscribe_cluster_wide(types, opts \\ []) do
    {given, types} =
      if Keyword.keyword?(types), do: {types, List.wrap(types[:event_type])}, else: {opts, types}

    handler = opts[:handler] || given[:handler]

    unless is_function(handler, 1),
      do: raise(ArgumentError, "handler: must be a function of one argument")

    DynamicSupervisor.start_child(
      Foundation.TaskSupervisor,
      Supervisor.child_spec({Foundation.Events.Subscriber, {types, handler}}, restart: :temporary)
    )
  end

  @doc """
  Ends a subscription.
  """
  @spec unsubscribe_cluster_wide(pid()) :: :ok
  def unsubscribe_cluster_wide(subscriber) when is_pid(subscriber) do
    _ = DynamicSupervisor.terminate_child(Foundation.TaskSupervisor, subscriber)
    :ok
  end

  ## Encoding

  @doc """
  The event in the external term format, deflated.
  """
  @spec serialize(Event.t()) :: {:ok, binary()} | {:error, Error.t()}
  def serialize(event), do: EventLogic.serialize_event(event)

  @doc """
  The event of a serialized one.
  """
  @spec deserialize(binary()) :: {:ok, Event.t()} | {:error, Error.t()}
  defdelegate deserialize(binary), to: EventLogic, as: :deserialize_event

  @doc """
  The bytes of the serialized event.
  """
  @spec serialized_size(Event.t()) :: {:ok, non_neg_integer()} | {:error, Error.t()}
  defdelegate serialized_size(event), to: EventLogic, as: :calculate_serialized_size

  ## Storing and finding

  @doc """
  Stores an event or the one of `{:ok, event}`; `{:error, _}` passes through.
  """
  @impl true
  @spec store(Event.t() | {:ok, Event.t()} | {:error, term()}) ::
          {:ok, event_id()} | {:error, term()}
  defdelegate store(event_or_tuple), to: EventStore

  @doc """
  Stores all of the events or, if one is invalid, none.
  """
  @impl true
  @spec store_batch([Event.t()]) :: {:ok, [event_id()]} | {:error, Error.t()}
  defdelegate store_batch(events), to: EventStore

  @doc """
  The event of an id, which must be a positive integer.
  """
  @impl true
  @spec get(event_id()) :: {:ok, Event.t()} | {:error, Error.t()}
  defdelegate get(event_id), to: EventStore

  @doc """
  The events that match a map or keyword list; see `Foundation.Services.EventStore.query/1` for the keys.
  """
  @impl true
  @spec query(event_query() | keyword()) :: {:ok, [Event.t()]} | {:error, Error.t()}
  def query(query) when is_map(query), do: EventStore.query(query)
  def query(query) when is_list(query), do: query |> Map.new() |> EventStore.query()

  @doc """
  The events of a correlation id, by timestamp.
  """
  @impl true
  @spec get_by_correlation(correlation_id()) :: {:ok, [Event.t()]} | {:error, Error.t()}
  defdelegate get_by_correlation(correlation_id), to: EventStore

  @doc """
  The same as `get_by_correlation/1`.
  """
  @spec get_correlation_chain(correlation_id()) :: {:ok, [Event.t()]} | {:error, Error.t()}
  def get_correlation_chain(correlation_id), do: get_by_correlation(correlation_id)

  @doc """
  The events between two timestamps, both included, by timestamp.
  """
  @spec get_time_range(integer(), integer()) :: {:ok, [Event.t()]} | {:error, Error.t()}
  def get_time_range(start_time, end_time),
    do: query(%{time_range: {start_time, end_time}, order_by: :timestamp})

  @doc """
  Events by timestamp, the oldest first, at most `limit` of them: in spite of the name these are the oldest ones, as in 1.x.
  """
  @spec get_recent(non_neg_integer()) :: {:ok, [Event.t()]} | {:error, Error.t()}
  def get_recent(limit \\ 100), do: query(%{order_by: :timestamp, limit: limit})

  @doc """
  Removes the events with an earlier timestamp; their number comes back.
  """
  @impl true
  @spec prune_before(integer()) :: {:ok, non_neg_integer()} | {:error, Error.t()}
  defdelegate prune_before(timestamp), to: EventStore

  @doc """
  `%{events_stored: _, events_pruned: _, start_time: _, current_event_count: _, uptime_ms: _, memory_usage_estimate: bytes}`.
  """
  @impl true
  @spec stats() :: {:ok, map()} | {:error, Error.t()}
  defdelegate stats(), to: EventStore
end

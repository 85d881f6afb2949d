defmodule Foundation.Contracts.EventStore do
  @moduledoc """
  What a store of events offers. `Foundation.Events` and `Foundation.Services.EventStore` implement it.
  """

  alias Foundation.Types.{Error, Event}

  @type event_id :: Event.event_id()
  @type correlation_id :: Event.correlation_id()
  @type event_filter :: keyword()
  @type event_query :: map()

  @doc "Stores an event; its id comes back. An error in its place passes through, whatever its reason is."
  @callback store(Event.t() | {:ok, Event.t()} | {:error, term()}) ::
              {:ok, event_id()} | {:error, term()}

  @doc "Stores all of the events or, if one is invalid, none."
  @callback store_batch([Event.t()]) :: {:ok, [event_id()]} | {:error, Error.t()}

  @doc "The event of an id."
  @callback get(event_id()) :: {:ok, Event.t()} | {:error, Error.t()}

  @doc "The events that a query selects."
  @callback query(event_query()) :: {:ok, [Event.t()]} | {:error, Error.t()}

  @doc "The events of one correlation id, by timestamp."
  @callback get_by_correlation(correlation_id()) :: {:ok, [Event.t()]} | {:error, Error.t()}

  @doc "Removes the events before a timestamp; their number comes back."
  @callback prune_before(integer()) :: {:ok, non_neg_integer()} | {:error, Error.t()}

  @doc "Counters since the start."
  @callback stats() :: {:ok, map()} | {:error, Error.t()}

  @doc "Whether the service is running."
  @callback available?() :: boolean()

  @doc "Starts the service if it is not running."
  @callback initialize() :: :ok | {:error, Error.t()}

  @doc "The state of the service."
  @callback status() :: {:ok, map()} | {:error, Error.t()}
end

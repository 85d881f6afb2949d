defmodule Foundation.Types.Event do
  @moduledoc """
  An event, as plain data.

  Events made by `Foundation.Events.new_event/3` carry a `timestamp` of the monotonic clock in milliseconds, a `wall_time`
  in UTC, and a random UUID as `correlation_id` unless one was given. `new/1` here fills in only the three
  enforced fields, with the monotonic clock in native units.
  """

  @type event_id :: pos_integer()
  @type correlation_id :: String.t()

  @enforce_keys [:event_type, :event_id, :timestamp]
  defstruct [
    :event_type,
    :event_id,
    :timestamp,
    :wall_time,
    :node,
    :pid,
    :correlation_id,
    :parent_id,
    :data
  ]

  @type t :: %__MODULE__{
          event_type: atom() | nil,
          event_id: event_id() | nil,
          timestamp: integer() | nil,
          wall_time: DateTime.t() | nil,
          node: node() | nil,
          pid: pid() | nil,
          correlation_id: correlation_id() | nil,
          parent_id: event_id() | nil,
          data: term()
        }

  @doc """
  An event of type `:default`.
  """
  @spec new() :: t()
  def new, do: new([])

  @doc """
  An event of the given fields, or of the given type.

      iex> Foundation.Types.Event.new(:process_started).event_type
      :process_started
  """
  @spec new(keyword() | atom()) :: t()
  def new(fields) when is_list(fields) do
    [
      event_type: :default,
      event_id: System.unique_integer([:positive]),
      timestamp: System.monotonic_time()
    ]
    |> Keyword.merge(fields)
    |> then(&struct(__MODULE__, &1))
  end

  def new(event_type) when is_atom(event_type), do: new(event_type: event_type)

  @doc """
  An event without any field, enforced ones included. For tests of validation.
  """
  @spec empty() :: t()
  def empty, do: struct(__MODULE__)
end

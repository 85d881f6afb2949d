defmodule Foundation.ProcessManager.Shared do
  @moduledoc false
  # The names of singletons in a `Foundation.Registry` of this name with unique keys, which Rust nodes share. The keepers decide among themselves which
  # node runs a name, and say here who it is, with the value `:singleton`. A name with any other value is another program's, on a
  # Rust node or on this one: it is found, and no keeper starts a process under it.

  alias Foundation.Registry

  @value :singleton

  @doc false
  # A keeper's process that loses its name is not ended but told to the listener: the keepers have a rule of their own for two of theirs.
  def child_spec(listener) do
    Registry.child_spec(
      name: __MODULE__,
      keys: :unique,
      listeners: [listener],
      on_conflict: {:listeners, @value}
    )
  end

  @doc false
  @spec holder(term()) :: :none | {:keeper | :other, pid()}
  def holder(name) do
    case Registry.lookup(__MODULE__, name) do
      [{pid, value}] -> if here?(pid), do: {whose(value), pid}, else: :none
      [] -> :none
    end
  rescue
    # Clustering is just being stopped.
    ArgumentError -> :none
  end

  @doc false
  @spec all_of_others() :: %{term() => pid()}
  def all_of_others do
    for {name, pid, value} <- Registry.to_list(__MODULE__),
        whose(value) == :other and here?(pid),
        into: %{},
        do: {name, pid}
  rescue
    ArgumentError -> %{}
  end

  defp whose(@value), do: :keeper
  defp whose(_value), do: :other

  # The registry may have yet to hear that a node has gone.
  defp here?(pid), do: node(pid) == node() or node(pid) in Node.list(:connected)

  @doc false
  # For a process of this node. `:later` if a keeper's process still has it: the keeper hears when that has lost it.
  @spec claim(term(), pid()) :: :ok | :later | {:other, pid()} | {:error, term()}
  def claim(name, pid) do
    case Registry.register(__MODULE__, name, @value, pid) do
      {:ok, _registry} -> :ok
      {:error, {:already_registered, ^pid}} -> :ok
      {:error, {:already_registered, _other}} -> with_holder(name)
      {:error, reason} -> {:error, reason}
    end
  catch
    :exit, reason -> {:error, reason}
  end

  defp with_holder(name) do
    case holder(name) do
      {:other, pid} -> {:other, pid}
      _keeper_or_gone -> :later
    end
  end
end

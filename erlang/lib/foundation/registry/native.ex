defmodule Foundation.Registry.Native do
  @moduledoc false
  # The machine that Rust nodes run (crates/cluster/src/names). Events and actions cross as terms in the external format.

  alias Foundation.Native.Loader

  # Bytes of events that 100 microseconds suffice for, if they are of the light kind.
  @dirty_above 4 * 1024

  # Their work does not grow with the number of names.
  @light_calls [:register, :unregister, :update_value, :lookup, :whereis_name, :wait_until_all]
  @light_messages [:writes, :head, :unknown]

  @doc false
  @spec new(atom(), pid(), map()) :: {:ok, reference()} | {:error, :not_loaded}
  def new(name, pid, options) do
    if Foundation.Native.loaded?() do
      {:ok, _machine} = Loader.machine_new(:erlang.term_to_binary({name, pid, options}))
    else
      {:error, :not_loaded}
    end
  end

  @doc false
  @spec handle(reference(), integer(), [term()]) ::
          {:ok, reference(), [tuple()], integer() | nil} | {:error, :badarg}
  def handle(machine, now, events) do
    bytes = :erlang.term_to_binary(events)

    result =
      if byte_size(bytes) <= @dirty_above and Enum.all?(events, &light?/1),
        do: Loader.machine_handle(machine, now, bytes),
        else: Loader.machine_handle_dirty(machine, now, bytes)

    # Another error leaves the machine in no known state: the registry's process then ends, and begins anew.
    case result do
      {:ok, {actions, due}} -> {:ok, machine, :erlang.binary_to_term(actions), due}
      {:error, :badarg} -> {:error, :badarg}
    end
  end

  # The rest (a node that comes or goes, a process with many keys, a member that asks for what it lacks) can be more than 100 microseconds.
  defp light?({:message, {:"$gen_call", _from, request}, _wall}) when is_tuple(request),
    do: tuple_size(request) > 0 and elem(request, 0) in @light_calls

  defp light?({:message, message, _wall}) when is_tuple(message),
    do: elem(message, 0) in @light_messages

  defp light?(_event), do: false
end

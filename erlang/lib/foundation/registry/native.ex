defmodule Foundation.Registry.Native do
  @moduledoc false
  # The machine that Rust nodes run (crates/cluster/src/names). Events and actions cross as terms in the external format.

  alias Foundation.Native.Loader

  # Bytes of events that 100 microseconds suffice for, if they are of the light kind.
  @dirty_above 2 * 1024
  # Looking up a duplicate key that many processes have gives all of them. After a call that gave more bytes than this the next are on a dirty scheduler.
  @heavy_above 8 * 1024
  @heavy_calls 100

  # Their work does not grow with the number of names.
  @light_calls [:register, :unregister, :update_value, :lookup, :whereis_name, :wait_until_all]
  @light_messages [:writes, :head, :unknown]

  # How many calls are to be on a dirty scheduler because of what an earlier one gave.
  @type machine :: {reference(), non_neg_integer()}

  @doc false
  @spec new(atom(), pid(), map()) :: {:ok, machine()} | {:error, :not_loaded}
  def new(name, pid, options) do
    if Foundation.Native.loaded?() do
      {:ok, machine} = Loader.machine_new(:erlang.term_to_binary({name, pid, options}))
      {:ok, {machine, 0}}
    else
      {:error, :not_loaded}
    end
  end

  @doc false
  @spec handle(machine(), integer(), [term()]) ::
          {:ok, machine(), [tuple()], integer() | nil} | {:error, :badarg}
  def handle({machine, heavy}, now, events) do
    bytes = :erlang.term_to_binary(events)

    result =
      if heavy == 0 and byte_size(bytes) <= @dirty_above and Enum.all?(events, &light?/1),
        do: Loader.machine_handle(machine, now, bytes),
        else: Loader.machine_handle_dirty(machine, now, bytes)

    # Another error leaves the machine in no known state: the registry's process then ends, and begins anew.
    case result do
      {:ok, {actions, due}} ->
        heavy = if byte_size(actions) > @heavy_above, do: @heavy_calls, else: max(heavy - 1, 0)
        {:ok, {machine, heavy}, :erlang.binary_to_term(actions), due}

      {:error, :badarg} ->
        {:error, :badarg}
    end
  end

  # The rest (a node that comes or goes, a process with many keys, a member that asks for what it lacks) can be more than 100 microseconds.
  defp light?({:message, {:"$gen_call", _from, request}, _wall}) when is_tuple(request),
    do: tuple_size(request) > 0 and elem(request, 0) in @light_calls

  defp light?({:message, message, _wall}) when is_tuple(message),
    do: elem(message, 0) in @light_messages

  defp light?(_event), do: false
end

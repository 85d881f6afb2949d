defmodule Foundation.Distributed.Context do
  @moduledoc """
  A map that goes along with work: request ids, trace ids.

      require Foundation.Distributed.Context, as: Context

      Context.with_global_context %{request_id: id} do
        Foundation.Distributed.coordinate_work(:parse, modules)
      end

  It is in the process dictionary and goes where this library carries it: `Foundation.Distributed` (`call/5`, `map_reduce/4`,
  `coordinate_work/3`) and `carry/1`. Plain messages, `:rpc` and `GenServer.call/2` do not carry it; distribution has no place for it.
  Nested contexts are merged, the inner one wins; after the block the outer one is back.
  """

  alias Foundation.Host
  require Logger

  @key :foundation_global_context

  @type t :: %{optional(term()) => term()}

  @doc """
  Runs a block with more context. Its value is the block's.
  """
  defmacro with_global_context(context, do: block) do
    quote do
      unquote(__MODULE__).within(unquote(context), fn -> unquote(block) end)
    end
  end

  @doc """
  The same for a function.
  """
  @spec within(t(), Foundation.Types.work(result)) :: result when result: var
  def within(%{} = context, fun) when is_function(fun, 0) do
    outer = get()
    Process.put(@key, Map.merge(outer, context))

    try do
      fun.()
    after
      if outer == %{}, do: Process.delete(@key), else: Process.put(@key, outer)
    end
  end

  @doc """
  The context of this process.
  """
  @spec get() :: t()
  def get, do: Process.get(@key, %{})

  @doc """
  A function that runs with the context of the process that called this: for `Task.async/1` and the like.
  """
  @spec carry(Foundation.Types.work(result)) :: Foundation.Types.work(result) when result: var
  def carry(fun) when is_function(fun, 0) do
    context = get()
    fn -> within(context, fun) end
  end

  @doc false
  # On the other node.
  @spec run(t(), module(), atom(), [term()]) :: term()
  def run(context, module, function, args) when is_map(context) do
    if :persistent_term.get({__MODULE__, :debug}, false) do
      Logger.debug(
        "Foundation context #{inspect(context)} for #{inspect(module)}.#{function}/#{length(args)}"
      )

      Host.Telemetry.execute([:foundation, :context, :received], %{count: 1}, %{context: context})
    end

    within(context, fn -> apply(module, function, args) end)
  end

  @doc """
  From now on this node logs each context that arrives, at level debug, and executes `[:foundation, :context, :received]` with it as
  metadata.
  """
  @spec enable_debug_mode() :: :ok
  def enable_debug_mode, do: :persistent_term.put({__MODULE__, :debug}, true)

  @doc """
  Undoes `enable_debug_mode/0`.
  """
  @spec disable_debug_mode() :: :ok
  def disable_debug_mode do
    _ = :persistent_term.erase({__MODULE__, :debug})
    :ok
  end
end

defmodule Foundation.Distributed do
  @moduledoc """
  Work on many nodes by `:erpc`.

      Foundation.Distributed.map_reduce(examples, &MyApp.Evaluate.run/1, &Enum.sum/1)

      Foundation.Distributed.coordinate_work(:parse_modules, modules, %{job: {MyApp.Parser, :parse}})
      #=> [{:ok, ast}, {:error, reason}, ...]

  A function must be there on every node that is to run it. A captured one, `&Module.function/1`, or `{module, function}` only needs the
  module; a closure needs the very same version of the module that made it.

  Nodes are asked directly, so no clustering is needed beyond connected nodes; by default the work goes to the nodes of
  `Foundation.ProcessManager`. A node that goes away, or that has no such function, gets no more; what it had is done by others. An item may
  therefore be done twice, and at most `retries` (3) times again. The context of `Foundation.Distributed.Context` goes along.
  """

  alias Foundation.{Cluster, ProcessManager}
  alias Foundation.Distributed.{Context, Work}

  @type job :: (term() -> term()) | {module(), atom()}
  @type result :: {:ok, term()} | {:error, term()}

  @doc """
  Whether there are other nodes to work with: clustering is on and the node is alive.
  """
  @spec available?() :: boolean()
  def available?, do: Node.alive?() and Cluster.enabled?()

  @doc """
  Splits data into chunks, maps each on some node, and reduces the list of results here, which is in the order of the chunks.

  Options: `nodes`; `chunk_size`, by default such that each node gets three; `timeout` for one chunk, `:infinity`; `retries`. What the map
  raises is raised here, as `ErlangError` of `{:map_failed, reason}`.
  """
  @spec map_reduce(Enumerable.t(), ([term()] -> mapped), ([mapped] -> reduced), keyword()) ::
          reduced
        when mapped: term(), reduced: term()
  def map_reduce(data, map, reduce, opts \\ []) when is_function(reduce, 1) do
    data = Enum.to_list(data)
    nodes = opts[:nodes] || ProcessManager.nodes()
    size = opts[:chunk_size] || max(div(length(data), max(length(nodes), 1) * 3), 1)

    data
    |> Enum.chunk_every(size)
    |> Work.run(job(map), nodes, opts)
    |> Enum.map(fn
      {:ok, mapped} -> mapped
      {:error, reason} -> :erlang.error({:map_failed, reason})
    end)
    |> reduce.()
  end

  @doc """
  Does one job for many items; the results are in the order of the items.

  Settings, a map or keyword list:

  - `job`: a function of an item, or `{module, function}`. By default what `register_job/2` put under the name on the node that
    does the item.
  - `nodes`.
  - `strategy`: `:work_stealing`, the only one. Each node starts with an equal share, and takes from the node with the most left when
    its own is done.
  - `concurrency`: how many items at once on one node, by default its number of schedulers; `timeout` for one item, `:infinity`; `retries`.

  Other settings are ignored.
  """
  @spec coordinate_work(atom(), Enumerable.t(), map() | keyword()) :: [result()]
  def coordinate_work(name, items, settings \\ %{}) when is_atom(name) do
    opts = Enum.to_list(settings)

    unless Keyword.get(opts, :strategy, :work_stealing) == :work_stealing do
      raise ArgumentError,
            "strategy: is #{inspect(opts[:strategy])}; it may be :work_stealing"
    end

    job = job(opts[:job] || {__MODULE__, :run_job, [name]})
    items |> Enum.to_list() |> Work.run(job, opts[:nodes] || ProcessManager.nodes(), opts)
  end

  defp job(fun) when is_function(fun, 1) do
    # A captured function goes by its name: a node that does not have it then says so, and so can a node that is no BEAM.
    case Function.info(fun, :type) do
      {:type, :external} ->
        info = Function.info(fun)
        {info[:module], info[:name], []}

      {:type, :local} ->
        {__MODULE__, :apply_to, [fun]}
    end
  end

  defp job({module, function}) when is_atom(module) and is_atom(function),
    do: {module, function, []}

  defp job({module, function, args}), do: {module, function, args}

  @doc """
  Says how this node does the jobs of a name. Again replaces it.
  """
  @spec register_job(atom(), job()) :: :ok
  def register_job(name, job) when is_atom(name) and (is_function(job, 1) or is_tuple(job)),
    do: :persistent_term.put({__MODULE__, name}, job(job))

  @doc false
  # On the node that does an item. A node without the job answers as one without the function.
  @spec run_job(atom(), term()) :: term()
  def run_job(name, item) do
    case :persistent_term.get({__MODULE__, name}, nil) do
      nil -> exit({:foundation_no_job, name})
      {module, function, args} -> apply(module, function, args ++ [item])
    end
  end

  @doc false
  def apply_to(fun, item), do: fun.(item)

  @doc """
  Calls a function on a node with the context of this process. Errors are those of `:erpc.call/5`.
  """
  @spec call(node(), module(), atom(), [term()], timeout()) :: term()
  def call(node, module, function, args, timeout \\ :infinity),
    do: :erpc.call(node, Context, :run, [Context.get(), module, function, args], timeout)
end

defmodule Foundation.BEAM do
  @moduledoc """
  Short names for `Foundation.BEAM.Processes`, `Foundation.BEAM.Messages`, `Foundation.BEAM.Schedulers` and `Foundation.BEAM.Memory`.
  """

  alias Foundation.BEAM.{Memory, Messages, Processes, Schedulers}

  @doc "See `Foundation.BEAM.Processes.spawn_ecosystem/1`."
  @spec spawn_ecosystem(Processes.ecosystem_config()) ::
          {:ok, Processes.ecosystem()} | {:error, term()}
  defdelegate spawn_ecosystem(config), to: Processes

  @doc "See `Foundation.BEAM.Messages.send_optimized/3`."
  @spec send_optimized(pid(), term(), keyword()) :: Messages.result()
  defdelegate send_optimized(pid, message, opts \\ []), to: Messages

  @doc "See `Foundation.BEAM.Schedulers.cpu_intensive/3`."
  @spec cpu_intensive(term(), (term() -> term()), keyword()) :: term()
  defdelegate cpu_intensive(data, fun, opts \\ []), to: Schedulers

  @doc "See `Foundation.BEAM.Memory.optimize_memory/2`."
  @spec optimize_memory(Memory.strategy(), keyword()) :: {:ok, map()}
  defdelegate optimize_memory(strategy, opts \\ []), to: Memory
end

defmodule Foundation.Distributed.Coordination do
  @moduledoc """
  `coordinate_work/3` under the name that it also has in the specification; see `Foundation.Distributed`.
  """

  @doc "See `Foundation.Distributed.coordinate_work/3`."
  @spec coordinate_work(atom(), Enumerable.t(), map() | keyword()) :: [
          Foundation.Distributed.result()
        ]
  defdelegate coordinate_work(name, items, settings \\ %{}), to: Foundation.Distributed
end

defmodule Foundation.Types do
  @moduledoc """
  Types that several modules use.
  """

  # As a term: formatters before Elixir 1.17 write `Foundation.Types.work(result)`, later ones `(-> result)`.
  @typedoc "A function without arguments."
  @type work(result) :: unquote([{:->, [], [[], {:result, [], nil}]}])
end

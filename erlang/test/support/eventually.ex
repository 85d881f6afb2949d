defmodule Foundation.Eventually do
  @moduledoc false
  # Waits for a condition. The deadline is for a busy machine; nothing waits that long when all is well.

  import ExUnit.Assertions

  @deadline_ms 60_000

  def eventually(fun, deadline \\ System.monotonic_time(:millisecond) + @deadline_ms) do
    cond do
      fun.() ->
        :ok

      System.monotonic_time(:millisecond) > deadline ->
        flunk("did not come true within #{@deadline_ms} ms")

      true ->
        receive do
        after
          20 -> eventually(fun, deadline)
        end
    end
  end
end

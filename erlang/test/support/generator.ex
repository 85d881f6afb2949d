defmodule Foundation.Generator do
  @moduledoc false
  # Random terms from a seed. No hash order, no clock: the same seed gives the same terms.

  @doc "Every kind of term, `depth` levels deep at most."
  def term(depth \\ 4) do
    kinds = if depth == 0, do: 12, else: 18

    case :rand.uniform(kinds) do
      1 -> :rand.uniform(512) - 257
      2 -> :rand.uniform(0xFFFF_FFFF) - 0x8000_0000
      3 -> (:rand.uniform(2) * 2 - 3) * big()
      4 -> float()
      5 -> atom()
      6 -> binary()
      7 -> bitstring()
      8 -> Enum.random([[], {}, %{}, "", <<>>, true, nil])
      9 -> self()
      10 -> make_ref()
      11 -> Enum.random([&String.length/1, &:lists.map/2])
      12 -> ~c"text #{:rand.uniform(99)}"
      13 -> List.to_tuple(terms(depth))
      14 -> terms(depth)
      15 -> improper(depth)
      16 -> Map.new(terms(depth), &{term(depth - 1), &1})
      17 -> Map.new(1..:rand.uniform(60), &{&1 * :rand.uniform(1000), atom()})
      18 -> closure(term(depth - 1))
    end
  end

  def terms(depth), do: for(_n <- 1..:rand.uniform(6)//1, do: term(depth - 1))

  def binary, do: :rand.bytes(:rand.uniform(40) - 1)

  @doc "A string of ASCII, Latin-1, other and control characters."
  def string do
    for _n <- 1..:rand.uniform(20)//1, into: "" do
      <<Enum.random([?a, ?Z, ?", ?\\, ?/, ?\n, ?\t, 0x01, 0x7F, ?é, ?ž, ?語, 0x1F600])::utf8>>
    end
  end

  @doc "What JSON can express."
  def json(depth \\ 4) do
    case :rand.uniform(if depth == 0, do: 6, else: 8) do
      1 -> nil
      2 -> Enum.random([true, false])
      3 -> :rand.uniform(1_000_000) - 500_000
      4 -> float()
      5 -> string()
      6 -> Enum.random([[], %{}, ""])
      7 -> for _n <- 1..:rand.uniform(4), do: json(depth - 1)
      8 -> Map.new(1..:rand.uniform(4), fn _n -> {string(), json(depth - 1)} end)
    end
  end

  defp big, do: :rand.uniform(256) ** :rand.uniform(60)
  defp float, do: (:rand.uniform() - 0.5) * Enum.random([0.0, 1.0, 1.0e-300, 1.0e300, 4.0e9])

  defp atom do
    Enum.random([:ok, :error, nil, true, :"", :foundation, :"with space", :é, :語, Foundation, :a])
  end

  defp bitstring do
    bits = :rand.uniform(70)
    <<:rand.uniform(1_000_000)::size(bits)>>
  end

  defp improper(depth), do: [term(depth - 1) | Enum.random([:tail, 1, "tail", {1, 2}])]
  defp closure(value), do: fn other -> {value, other} end
end

defmodule Foundation.PlacementTest do
  use ExUnit.Case, async: true
  @moduletag :unit

  alias Foundation.{Generator, Ring}

  # What libring 1.7.0 said on OTP 25 of `HashRing.add_nodes(["a", {"b", 64}, {"c", 32}])` and the keys 0 to 99.
  @libring "baabaaaaaaccccababaaaaaaabaacaabbaaaaaaaaaaaaaacbbccaabbcacacaccbaaabbbaaabcacabaaaaaacbccacaabbaaab"

  test "places keys as libring does" do
    nodes = ["a", {"b", 64}, {"c", 32}]

    for ring <- [Ring.new(nodes), Ring.in_elixir(nodes)] do
      assert Ring.nodes(ring) == ["a", "b", "c"]
      assert {:ok, owners} = Ring.owners(ring, Enum.to_list(0..99))
      assert Enum.join(owners) == @libring
      assert Enum.map_join(0..99, fn key -> elem(Ring.owner(ring, key), 1) end) == @libring
    end
  end

  test "of no nodes nobody has a key, and there is an end to them" do
    for ring <- [Ring.new([]), Ring.in_elixir([])] do
      assert Ring.owner(ring, 1) == {:error, :no_nodes}
      assert Ring.owners(ring, [1]) == {:error, :no_nodes}
    end

    assert_raise ArgumentError, fn -> Ring.new([{:a, 1_048_577}]) end
    assert Ring.new([:a, {:a, 7}]) |> Ring.nodes() == [:a]
    assert inspect(Ring.new([:a])) == "#Foundation.Ring<1 nodes>"
    alias Foundation.Native.Loader
    assert Loader.ring_new("no term") == {:error, :badarg}
    assert Loader.ring_new(:erlang.term_to_binary([{:a, -1}])) == {:error, :badarg}
    assert Loader.ring_new(:erlang.term_to_binary([{:a, 2_000_000}])) == {:error, :system_limit}
  end

  @tag :property
  test "native code and Elixir place all terms alike" do
    for seed <- 1..60 do
      :rand.seed(:exsss, {1, 7, seed})

      nodes =
        for _n <- 1..:rand.uniform(8),
            do: Enum.random([Generator.term(2), {Generator.term(1), :rand.uniform(200)}])

      {native, elixir} = {Ring.new(nodes), Ring.in_elixir(nodes)}
      assert native.resource != nil and elixir.resource == nil
      keys = for _n <- 1..50, do: Generator.term(3)
      assert Ring.owners(native, keys) == Ring.owners(elixir, keys), "seed #{seed}"

      for key <- keys,
          do:
            assert(
              Ring.owner(native, key) == Ring.owner(elixir, key),
              "seed #{seed}: #{inspect(key)}"
            )
    end

    many = Enum.to_list(1..2000)
    ring = Ring.new([:a@h, :b@h, :c@h])
    assert Ring.owners(ring, many) == {:ok, for(key <- many, do: elem(Ring.owner(ring, key), 1))}
  end
end

defmodule Foundation.Ring do
  @moduledoc """
  Which of several nodes has a key, by consistent hashing: all that know the same nodes place a key alike, without asking each other, and a node that
  comes or goes moves its own share of the keys only.

      ring = Foundation.Ring.new(Foundation.Cluster.nodes())
      Foundation.Ring.owner(ring, {:user, 17})

  The ring is that of libring's `HashRing`, with which Horde places its processes: the same nodes with the same weights give the same
  owner, and Rust nodes compute it too (`foundation_cluster::ring`). Nodes are any terms.

  It is done in native code if that is loaded, else in Elixir, with the same results. On a ring of 100 nodes native code finds the owner of a key in
  about half of the time, of many keys at once in a third, and builds the ring in less than half.
  """

  alias Foundation.Native.Loader

  @enforce_keys [:nodes, :points]
  defstruct [:nodes, :points, :resource]

  @opaque t :: %__MODULE__{nodes: tuple(), points: tuple() | nil, resource: reference() | nil}

  # The default weight of libring.
  @weight 128
  @max_points 1_048_576
  # Of all hashes on the ring: libring takes 2^32 - 1, not 2^32.
  @range 4_294_967_295
  # Keys that 100 microseconds suffice for.
  @dirty_above 500

  @doc """
  The ring of these nodes, each alone or as `{node, weight}`: a node has as many points as its weight, 128 if none is given.

  A node that is given twice counts once, with its first weight. At most 1,048,576 points in all; more raise an `ArgumentError`. A node that is itself a pair
  with a positive integer has to be given with its weight.
  """
  @spec new([term() | {term(), pos_integer()}]) :: t()
  def new(nodes) when is_list(nodes) do
    weighted = nodes |> Enum.map(&weighted/1) |> Enum.uniq_by(&elem(&1, 0))

    if weighted |> Enum.map(&elem(&1, 1)) |> Enum.sum() > @max_points,
      do: raise(ArgumentError, "a ring has at most #{@max_points} points")

    names = weighted |> Enum.map(&elem(&1, 0)) |> List.to_tuple()

    with true <- Foundation.Native.loaded?(),
         {:ok, resource} <- Loader.ring_new(:erlang.term_to_binary(weighted)) do
      %__MODULE__{nodes: names, points: nil, resource: resource}
    else
      # Not loaded, or a term beyond what is decoded there.
      _in_elixir -> %__MODULE__{nodes: names, points: points(weighted)}
    end
  end

  defp weighted({node, weight}) when is_integer(weight) and weight > 0, do: {node, weight}
  defp weighted(node), do: {node, @weight}

  @doc """
  The nodes of a ring.
  """
  @spec nodes(t()) :: [term()]
  def nodes(%__MODULE__{nodes: nodes}), do: Tuple.to_list(nodes)

  @doc """
  The node that has a key; `{:error, :no_nodes}` if the ring is empty.

  An atom is hashed by its external format, as libring does: releases before OTP 26 place it differently.
  """
  @spec owner(t(), term()) :: {:ok, term()} | {:error, :no_nodes}
  def owner(%__MODULE__{nodes: {}}, _key), do: {:error, :no_nodes}

  def owner(%__MODULE__{resource: nil} = ring, key),
    do: {:ok, elem(ring.nodes, find(ring.points, place(key)))}

  def owner(%__MODULE__{} = ring, key),
    do: {:ok, elem(ring.nodes, Loader.ring_owner(ring.resource, place(key)))}

  @doc """
  The nodes that have these keys, in their order.
  """
  @spec owners(t(), [term()]) :: {:ok, [term()]} | {:error, :no_nodes}
  def owners(%__MODULE__{nodes: {}}, _keys), do: {:error, :no_nodes}

  def owners(%__MODULE__{resource: nil} = ring, keys) when is_list(keys),
    do: {:ok, for(key <- keys, do: elem(ring.nodes, find(ring.points, place(key))))}

  def owners(%__MODULE__{} = ring, keys) when is_list(keys) do
    places = Enum.map(keys, &place/1)

    numbers =
      if length(places) > @dirty_above,
        do: Loader.ring_owners_dirty(ring.resource, places),
        else: Loader.ring_owners(ring.resource, places)

    {:ok, for(number <- numbers, do: elem(ring.nodes, number))}
  end

  @doc false
  # As without native functions.
  @spec in_elixir([term() | {term(), pos_integer()}]) :: t()
  def in_elixir(nodes) do
    weighted = nodes |> Enum.map(&weighted/1) |> Enum.uniq_by(&elem(&1, 0))

    %__MODULE__{
      nodes: weighted |> Enum.map(&elem(&1, 0)) |> List.to_tuple(),
      points: points(weighted)
    }
  end

  # Not evenly distributed by phash2.
  defp place(key) when is_atom(key), do: key |> :erlang.term_to_binary() |> place()
  defp place(key), do: :erlang.phash2(key, @range)

  # Place and number of each point, in the order of places. Of two nodes that meet in one place, the one that was given first has it.
  defp points(weighted) do
    weighted
    |> Enum.with_index()
    |> Enum.flat_map(fn {{node, weight}, number} ->
      for i <- 1..weight, do: {:erlang.phash2({node, i}, @range), number}
    end)
    |> Enum.sort()
    |> Enum.dedup_by(&elem(&1, 0))
    |> List.to_tuple()
  end

  # The first point at a place or after it, around the ring.
  defp find(points, place) do
    at = find(points, place, 0, tuple_size(points))
    elem(elem(points, if(at == tuple_size(points), do: 0, else: at)), 1)
  end

  defp find(_points, _place, low, high) when low == high, do: low

  defp find(points, place, low, high) do
    middle = div(low + high, 2)

    if elem(elem(points, middle), 0) < place,
      do: find(points, place, middle + 1, high),
      else: find(points, place, low, middle)
  end

  defimpl Inspect do
    def inspect(ring, _opts), do: "#Foundation.Ring<#{tuple_size(ring.nodes)} nodes>"
  end
end

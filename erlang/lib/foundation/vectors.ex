defmodule Foundation.Vectors do
  @moduledoc """
  The nearest of many vectors by cosine, for retrieval by embeddings.

      {:ok, vectors} = Foundation.Vectors.new([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
      {:ok, [{1, 0.8}, {2, _}]} = Foundation.Vectors.top(vectors, [0.0, 1.0], 2)

  Numbers are kept with 32 bits and added with 64. With the native functions the vectors are outside of the process's heap and are freed when
  nothing refers to them; without, they are a binary. The results are the same bits either way.
  """

  alias Foundation.Native.Loader

  @enforce_keys [:dimensions, :size]
  defstruct [:dimensions, :size, :resource, :values, :norms]

  @opaque t :: %__MODULE__{}
  @type reason :: :dimensions | :not_finite | :zero_vector

  # Numbers that 100 microseconds suffice for, on a busy machine; and what a row, and a row of the answer, cost in numbers.
  @dirty_above 60_000
  @row 40
  @answer 128

  @doc """
  Keeps vectors, all of one length: lists of numbers, or a binary of 32-bit floats, little endian, with `dimensions:`.

  Errors: `:dimensions`, they are not of one length or there are none; `:not_finite`, a number that 32 bits do not hold.
  """
  @spec new([[number()]] | binary(), keyword()) :: {:ok, t()} | {:error, reason()}
  def new(rows, opts \\ [])

  def new(values, opts) when is_binary(values) do
    dimensions = Keyword.fetch!(opts, :dimensions)

    if is_integer(dimensions) and dimensions > 0 and byte_size(values) > 0 and
         rem(byte_size(values), dimensions * 4) == 0 do
      build(values, dimensions, Keyword.get(opts, :native, true))
    else
      {:error, :dimensions}
    end
  end

  def new([[_ | _] = first | _] = rows, opts) do
    dimensions = length(first)

    with true <- Enum.all?(rows, &(length(&1) == dimensions)) || {:error, :dimensions},
         {:ok, values} <- encode(rows) do
      new(values, Keyword.put(opts, :dimensions, dimensions))
    end
  end

  def new(_none, _opts), do: {:error, :dimensions}

  defp build(values, dimensions, native?) do
    vectors = %__MODULE__{dimensions: dimensions, size: div(byte_size(values), dimensions * 4)}

    if native? and Foundation.Native.loaded?() do
      with {:ok, resource} <- Loader.vectors_new(values, dimensions),
           do: {:ok, %{vectors | resource: resource}}
    else
      width = dimensions * 4
      rows = for row <- 0..(vectors.size - 1), do: binary_part(values, row * width, width)

      if finite?(values),
        do: {:ok, %{vectors | values: rows, norms: Enum.map(rows, &norm/1)}},
        else: {:error, :not_finite}
    end
  end

  # Lists of numbers. A number too large for 32 bits cannot be encoded.
  defp encode(rows) do
    {:ok, for(row <- rows, number <- row, into: <<>>, do: <<number::float-little-32>>)}
  rescue
    ArgumentError -> {:error, :not_finite}
  end

  # Not-a-number and infinity do not match a float.
  defp finite?(<<_::float-little-32, rest::binary>>), do: finite?(rest)
  defp finite?(rest), do: rest == <<>>

  @doc """
  The `count` nearest to a query, the nearest first: `{index, cosine}`, the first vector being 0; of equal ones the lower index first. A vector of
  zeros has the cosine 0.0.

  Errors: `:dimensions`, the query is of another length; `:not_finite`; `:zero_vector`, the query has no direction.
  """
  @spec top(t(), [number()] | binary(), non_neg_integer()) ::
          {:ok, [{non_neg_integer(), float()}]} | {:error, reason()}
  def top(%__MODULE__{} = vectors, query, count) when is_list(query) do
    with {:ok, values} <- encode([query]), do: top(vectors, values, count)
  end

  def top(%__MODULE__{dimensions: dimensions}, query, _count)
      when is_binary(query) and byte_size(query) != dimensions * 4,
      do: {:error, :dimensions}

  def top(%__MODULE__{resource: nil} = vectors, query, count)
      when is_integer(count) and count >= 0 do
    query_norm = if finite?(query), do: norm(query), else: :not_finite

    cond do
      query_norm == :not_finite ->
        {:error, :not_finite}

      query_norm == 0.0 ->
        {:error, :zero_vector}

      true ->
        {:ok,
         vectors.values
         |> Enum.zip(vectors.norms)
         |> Enum.with_index(fn {row, norm}, index ->
           {index, if(norm == 0.0, do: 0.0, else: dot(row, query) / (norm * query_norm))}
         end)
         |> Enum.sort_by(fn {index, cosine} -> {-cosine, index} end)
         |> Enum.take(count)}
    end
  end

  def top(%__MODULE__{} = vectors, query, count) when is_integer(count) and count >= 0 do
    numbers = vectors.size * (vectors.dimensions + @row) + min(count, vectors.size) * @answer

    if numbers > @dirty_above,
      do: Loader.vectors_top_dirty(vectors.resource, query, count),
      else: Loader.vectors_top(vectors.resource, query, count)
  end

  defp norm(row), do: :math.sqrt(dot(row, row))

  # Eight lanes, whose sums are added in pairs: the order of the native function.
  defp dot(left, right), do: dot(left, right, {0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0})

  defp dot(
         <<l0::float-little-32, l1::float-little-32, l2::float-little-32, l3::float-little-32,
           l4::float-little-32, l5::float-little-32, l6::float-little-32, l7::float-little-32,
           left::binary>>,
         <<r0::float-little-32, r1::float-little-32, r2::float-little-32, r3::float-little-32,
           r4::float-little-32, r5::float-little-32, r6::float-little-32, r7::float-little-32,
           right::binary>>,
         {a, b, c, d, e, f, g, h}
       ) do
    dot(
      left,
      right,
      {a + l0 * r0, b + l1 * r1, c + l2 * r2, d + l3 * r3, e + l4 * r4, f + l5 * r5, g + l6 * r6,
       h + l7 * r7}
    )
  end

  defp dot(left, right, sums) do
    left = for <<number::float-little-32 <- left>>, do: number
    right = for <<number::float-little-32 <- right>>, do: number
    products = Enum.zip_with(left, right, &(&1 * &2))
    zeros = List.duplicate(nil, 8 - length(products))

    [a, b, c, d, e, f, g, h] =
      Enum.zip_with(Tuple.to_list(sums), products ++ zeros, fn
        sum, nil -> sum
        sum, product -> sum + product
      end)

    a + b + (c + d) + (e + f + (g + h))
  end

  defimpl Inspect do
    def inspect(vectors, _opts),
      do: "#Foundation.Vectors<#{vectors.size} of #{vectors.dimensions}>"
  end
end

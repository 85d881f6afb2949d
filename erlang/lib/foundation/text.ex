defmodule Foundation.Text do
  @moduledoc """
  How alike texts are, by their words.
  """

  alias Foundation.Native.Loader

  # Bytes that 100 microseconds suffice for, on a busy machine and with short words, and what a text costs beside its bytes.
  @dirty_above 4096
  @text 8

  @doc """
  0.8 × the share of common words among all words + 0.2 × the ratio of the numbers of words: 1.0 for the same words, case aside.

      iex> Foundation.Text.similarity("The cat sat", "the cat ran")
      0.6000000000000001
  """
  @spec similarity(String.t(), String.t()) :: float()
  def similarity(text, other) when is_binary(text) and is_binary(other),
    do: hd(similarities(text, [other]))

  @doc """
  The same of one text and each of many.

  ASCII texts are compared by the native function if it is loaded; others, and all without it, in Elixir. The results are the same.
  """
  @spec similarities(String.t(), [String.t()]) :: [float()]
  def similarities(text, others) when is_binary(text) and is_list(others) do
    with true <- Foundation.Native.loaded?(),
         {:ok, similarities} <- native(text, others) do
      similarities
    else
      _not_loaded_or_not_ascii -> in_elixir(text, others)
    end
  end

  defp native(text, others) do
    if IO.iodata_length([text | others]) + @text * length(others) > @dirty_above,
      do: Loader.text_similarities_dirty(text, others),
      else: Loader.text_similarities(text, others)
  end

  @doc false
  def in_elixir(text, others) do
    words = words(text)
    Enum.map(others, &compare(words, words(&1)))
  end

  defp words(text) do
    words = text |> String.downcase() |> String.split()
    {length(words), MapSet.new(words)}
  end

  defp compare({count1, set1}, {count2, set2}) do
    common = MapSet.intersection(set1, set2) |> MapSet.size()
    all = MapSet.size(set1) + MapSet.size(set2) - common
    jaccard = if all == 0, do: 1.0, else: common / all
    length = 1.0 - abs(count1 - count2) / Enum.max([count1, count2, 1])
    jaccard * 0.8 + length * 0.2
  end
end

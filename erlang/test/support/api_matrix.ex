defmodule Foundation.ApiMatrix do
  @moduledoc false
  # The table of docs/elixir-api.md: every public function, whether 1.x has it, and its first sentence.

  @head """
  # The API of the Elixir library

  Every public function. *1.x* says since when: **1.x** are those of Foundation 0.1.4 (with `Foundation.BEAM.Processes` and `Foundation.Integrations.GeminiAdapter` of 0.1.5), which
  keep their arguments, results and errors; **2.0** are new. What the founding documents name beyond this is in [not-offered.md](not-offered.md).

  Made by `UPDATE=1 mix test test/foundation/api_matrix_test.exs` in `erlang`; the test fails when it is not current.
  """

  def names_of_1x(file),
    do: file |> File.read!() |> String.split("\n", trim: true) |> MapSet.new()

  def modules do
    for module <- Application.spec(:foundation, :modules),
        module |> Module.split() |> hd() == "Foundation",
        source = to_string(module.module_info(:compile)[:source]),
        String.contains?(source, "/erlang/lib/"),
        do: module
  end

  # {module, [{name, arity, doc}]} of what is documented.
  def functions do
    for module <- Enum.sort(modules()),
        {:docs_v1, _, :elixir, _, %{"en" => _}, _, docs} <- [Code.fetch_docs(module)] do
      {module,
       for {{kind, name, arity}, _, _, doc, meta} <- docs,
           kind in [:function, :macro],
           doc != :hidden,
           lower <- (arity - Map.get(meta, :defaults, 0))..arity,
           reduce: [] do
         list -> [{name, lower, doc} | list]
       end
       |> Enum.sort()}
    end
  end

  def render(names_of_1x) do
    sections =
      for {module, [_ | _] = functions} <- functions() do
        rows =
          for {name, arity, doc} <- functions do
            full = "#{inspect(module)}.#{name}/#{arity}"
            since = if full in names_of_1x, do: "1.x", else: "2.0"
            "| `#{name}/#{arity}` | #{since} | #{sentence(doc)} |\n"
          end

        "\n## #{inspect(module)}\n\n| function | since | |\n|---|---|---|\n#{rows}"
      end

    IO.iodata_to_binary([@head, sections])
  end

  defp sentence(%{"en" => text}) do
    text
    |> String.split("\n\n")
    |> hd()
    |> String.replace(~r/\s+/, " ")
    |> String.replace("|", "\\|")
    |> String.split(~r/(?<=\.)\s/, parts: 2)
    |> hd()
    |> String.trim_trailing(":")
  end

  defp sentence(_none), do: ""
end

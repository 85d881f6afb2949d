defmodule Foundation.NotOfferedTest do
  # Holds docs/not-offered.md against the library and against the names of the documents from which the project started.
  use ExUnit.Case, async: true
  @moduletag :unit

  @names Path.expand("../fixtures/promised_names.txt", __DIR__)
  @document Path.expand("../../../docs/not-offered.md", __DIR__)

  defp listed do
    for line <- File.stream!(@document),
        [_all, name, reason] <- [Regex.run(~r/^\| `(Foundation[^`]*)` \| (.+) \|$/, line)] do
      assert String.length(reason) > 5, name
      name
    end
  end

  defp promised, do: @names |> File.read!() |> String.split("\n", trim: true)

  # A function has a last segment in lower case.
  defp offered?(name) do
    case name |> String.split(".") |> List.pop_at(-1) do
      {<<first, _::binary>> = function, module} when first in ?a..?z ->
        module = Module.concat(module)

        Code.ensure_loaded?(module) and
          Enum.any?(module.__info__(:functions) ++ module.__info__(:macros), fn {exported, _arity} ->
            Atom.to_string(exported) == function
          end)

      _module ->
        # Tests have modules, too.
        Module.concat([name]) in Application.spec(:foundation, :modules)
    end
  end

  test "every name that was promised is offered or listed" do
    listed = listed()

    missing =
      Enum.reject(promised(), fn name ->
        offered?(name) or Enum.any?(listed, &(name == &1 or String.starts_with?(name, &1 <> ".")))
      end)

    assert missing == []
  end

  test "every name that is listed was promised, is not offered, and is listed once" do
    listed = listed()
    promised = promised()
    assert Enum.filter(listed, &offered?/1) == []
    assert listed -- Enum.uniq(listed) == []

    assert Enum.reject(listed, fn name ->
             Enum.any?(promised, &(&1 == name or String.starts_with?(&1, name <> ".")))
           end) == []
  end
end

defmodule Foundation.ApiMatrixTest do
  use ExUnit.Case, async: true
  @moduletag :contract

  alias Foundation.ApiMatrix

  @names Path.expand("../fixtures/api_1x.txt", __DIR__)
  @document Path.expand("../../../docs/elixir-api.md", __DIR__)

  test "every function of 1.x is there" do
    missing =
      Enum.reject(ApiMatrix.names_of_1x(@names), fn full ->
        [_all, module, name, arity] = Regex.run(~r/^(.*)\.([^.\/]+)\/(\d+)$/, full)

        {module, name, arity} =
          {Module.concat([module]), String.to_atom(name), String.to_integer(arity)}

        Code.ensure_loaded?(module) and function_exported?(module, name, arity)
      end)

    assert missing == []
  end

  test "every public function says what it does" do
    undocumented =
      for {module, functions} <- ApiMatrix.functions(),
          {name, arity, doc} <- functions,
          not is_map(doc),
          # What a behaviour describes is documented there.
          {name, arity} not in callbacks(module),
          do: "#{inspect(module)}.#{name}/#{arity}"

    assert undocumented == []
  end

  defp callbacks(module) do
    for {:behaviour, behaviours} <- module.module_info(:attributes),
        behaviour <- behaviours,
        callback <- behaviour.behaviour_info(:callbacks),
        do: callback
  end

  test "the table is current" do
    table = ApiMatrix.render(ApiMatrix.names_of_1x(@names))
    if System.get_env("UPDATE"), do: File.write!(@document, table)
    assert File.read!(@document) == table
  end
end

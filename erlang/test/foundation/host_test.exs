defmodule Foundation.HostTest do
  use ExUnit.Case, async: true

  alias Foundation.Host.Json

  @moduletag :unit

  test "JSON" do
    assert Json.encode!(%{a: [1, 2.5, nil, true, :b, "q\"\\\n\u0001é"]}) ==
             ~S({"a":[1,2.5,null,true,"b","q\"\\\n\u0001é"]})

    assert Json.encode!(~U[2026-01-02 03:04:05Z]) == ~S("2026-01-02T03:04:05Z")

    assert Json.decode!(
             ~S( {"a" : [1, -2.5e3, null, true, {"b": ""}], "c": "\u00e9\ud83d\ude00\/"} )
           ) ==
             %{"a" => [1, -2500.0, nil, true, %{"b" => ""}], "c" => "é😀/"}

    assert Json.decode!(~S({"a":1}), keys: :atoms) == %{a: 1}

    for bad <- ["", "{", "[1,]", "{\"a\"}", "01", "nul", "\"a", "[1] x", "\"\u0001\"", ~S("\x")] do
      assert is_exception(catch_error(Json.decode!(bad)))
    end

    assert_raise Protocol.UndefinedError, fn -> Json.encode!(self()) end
  end

  @tag :property
  test "JSON comes back as it was" do
    for seed <- 1..2000 do
      :rand.seed(:exsss, {1, 1, seed})
      term = Foundation.Generator.json()
      assert Json.decode!(Json.encode!(term)) == term, "seed #{seed}"
    end
  end
end

defmodule Foundation.NativeTest do
  use ExUnit.Case, async: true
  @moduletag :unit

  alias Foundation.Native

  test "is loaded, and says so" do
    assert Native.loaded?()
    assert Native.status() == :ok
    assert Native.load() == :ok
  end

  test "a panic becomes an exception, and the functions go on working" do
    assert_raise ErlangError, ~r/nif_panicked/, fn -> Native.Loader.panic_probe() end
    assert Native.loaded?()
  end

  test "a VM without the library says what is missing and how to mend it" do
    ebin = Application.app_dir(:foundation, "ebin")
    directory = Path.join(System.tmp_dir!(), "foundation_#{System.unique_integer([:positive])}")
    File.mkdir_p!(directory)
    File.cp_r!(ebin, Path.join(directory, "ebin"))
    on_exit(fn -> File.rm_rf!(directory) end)

    {output, 0} =
      System.cmd("elixir", [
        "-pa",
        Path.join(directory, "ebin"),
        "-e",
        "{:error, message} = Foundation.Native.load(); IO.puts(message); " <>
          "IO.inspect({Foundation.Native.loaded?(), elem(Foundation.Native.status(), 0)})"
      ])

    assert output =~ "native functions are not loaded"
    assert output =~ "priv/native/foundation_native"
    assert output =~ "mix compile"
    assert output =~ "Elixir fallbacks serve"
    assert output =~ "{false, :error}"
  end
end

defmodule Foundation.BuildCompanionTest do
  use ExUnit.Case

  alias Mix.Tasks.Compile.FoundationCompanion

  @moduletag :unit

  # A workspace of its own, where `cargo` is a script that says what it was given.
  setup do
    directory =
      Path.join(System.tmp_dir!(), "foundation-build-#{System.unique_integer([:positive])}")

    for folder <- ["bin", "erlang", "node"], do: File.mkdir_p!(Path.join(directory, folder))
    File.write!(Path.join(directory, "node/Cargo.toml"), "")

    before =
      for name <- ["PATH", "CARGO_TARGET_DIR", "FOUNDATION_COMPANION_BUILD"],
          do: {name, System.get_env(name)}

    here = File.cwd!()
    shell = Mix.shell()
    Mix.shell(Mix.Shell.Process)
    System.delete_env("CARGO_TARGET_DIR")
    File.cd!(Path.join(directory, "erlang"))

    on_exit(fn ->
      File.cd!(here)
      Mix.shell(shell)

      for {name, value} <- before,
          do: if(value, do: System.put_env(name, value), else: System.delete_env(name))

      Application.delete_env(:foundation, :build_companion)
      File.rm_rf!(directory)
    end)

    %{directory: directory}
  end

  defp cargo(directory, script) do
    path = Path.join(directory, "bin/cargo")
    File.write!(path, "#!/bin/sh\n" <> script)
    File.chmod!(path, 0o755)
    System.put_env("PATH", Path.dirname(path) <> ":/usr/bin:/bin")
  end

  @works "mkdir -p target/release && echo \"$@\" > target/release/foundation"

  test "mix compile builds the program only where that is asked for", %{directory: directory} do
    cargo(directory, @works)
    System.delete_env("FOUNDATION_COMPANION_BUILD")
    assert FoundationCompanion.run([]) == {:noop, []}
    refute File.exists?("priv/bin/foundation")

    Application.put_env(:foundation, :build_companion, true)
    System.put_env("FOUNDATION_COMPANION_BUILD", "0")
    assert FoundationCompanion.run([]) == {:noop, []}
    refute File.exists?("priv/bin/foundation")

    System.delete_env("FOUNDATION_COMPANION_BUILD")
    assert FoundationCompanion.run([]) == {:ok, []}

    assert File.read!("priv/bin/foundation") ==
             "build --release --package foundation-node --bin foundation --quiet\n"

    assert Bitwise.band(File.stat!("priv/bin/foundation").mode, 0o111) == 0o111
    # The second time nothing has changed.
    assert FoundationCompanion.run([]) == {:noop, []}

    assert FoundationCompanion.clean() == :ok
    refute File.exists?("priv/bin/foundation")
    System.put_env("FOUNDATION_COMPANION_BUILD", "1")
    Application.delete_env(:foundation, :build_companion)
    assert FoundationCompanion.run([]) == {:ok, []}
    refute_received {:mix_shell, :info, _message}
  end

  test "what is missing is said, and compilation goes on", %{directory: directory} do
    System.put_env("FOUNDATION_COMPANION_BUILD", "1")
    System.put_env("PATH", Path.join(directory, "bin"))
    assert FoundationCompanion.run([]) == {:noop, []}
    assert_received {:mix_shell, :info, [message]}
    assert message =~ "cargo is not installed (https://rustup.rs)"
    assert message =~ "FOUNDATION_BIN"

    cargo(directory, "exit 101")
    assert FoundationCompanion.run([]) == {:noop, []}
    assert_received {:mix_shell, :info, [message]}
    assert message =~ "cargo build exited with status 101"

    # Built, but not where it should be.
    cargo(directory, "exit 0")
    assert FoundationCompanion.run([]) == {:noop, []}
    assert_received {:mix_shell, :info, [message]}
    assert message =~ "cannot install"
    assert message =~ "no such file"

    # Nor can it be put there: as on a full disk, nothing is left half written.
    built = Path.join(directory, "built")
    File.write!(built, "program")
    File.mkdir_p!(Path.join(directory, "taken/by a directory"))
    assert {:error, message} = Mix.Foundation.Cargo.install(built, Path.join(directory, "taken"))
    assert message =~ "cannot install"
    assert Path.wildcard(Path.join(directory, "*.new")) == []

    File.rm!(Path.join(directory, "node/Cargo.toml"))
    assert FoundationCompanion.run([]) == {:noop, []}
    assert_received {:mix_shell, :info, [message]}
    assert message =~ "the source of the program is not at"

    assert_raise Mix.Error, ~r/source of the program/, fn ->
      Mix.Tasks.Foundation.Build.run([])
    end
  end
end

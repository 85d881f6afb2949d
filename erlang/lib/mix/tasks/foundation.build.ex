defmodule Mix.Tasks.Foundation.Build do
  @shortdoc "Builds the program foundation into priv/bin"
  @moduledoc """
  Builds the program `foundation` with cargo, release profile, and puts it into `priv/bin`, where `Foundation.Cluster.Companion`
  finds it. It takes some minutes the first time. Arguments are given to cargo: `mix foundation.build --target x86_64-unknown-linux-musl`.

  Without cargo, put a program that was built elsewhere there, or name it by `config :foundation, binary:` or `FOUNDATION_BIN`.
  """
  use Mix.Task

  @impl true
  def run(args) do
    root = root()
    workspace = Path.expand("..", root)

    unless File.regular?(Path.join(workspace, "node/Cargo.toml")),
      do: Mix.raise("the source of the program is not at #{workspace}")

    unless System.find_executable("cargo"),
      do: Mix.raise("cargo is not installed (https://rustup.rs)")

    build = ["build", "--release", "--package", "foundation-node", "--bin", "foundation"] ++ args
    into = IO.stream(:stdio, :line)

    case System.cmd("cargo", build, cd: workspace, into: into, stderr_to_stdout: true) do
      {_output, 0} -> install(built(workspace, args), Path.join(root, "priv/bin/foundation"))
      {_output, status} -> Mix.raise("cargo build exited with status #{status}")
    end
  end

  # Of this project, or of the dependency that it is of the current one.
  defp root do
    case Mix.Project.config()[:app] do
      :foundation -> File.cwd!()
      _other -> Map.fetch!(Mix.Project.deps_paths(), :foundation)
    end
  end

  defp built(workspace, args) do
    target = System.get_env("CARGO_TARGET_DIR") || Path.join(workspace, "target")

    triple =
      case Enum.drop_while(args, &(&1 != "--target")) do
        ["--target", triple | _rest] -> triple
        _none -> ""
      end

    Path.join([target, triple, "release", "foundation"])
  end

  # A running program has the old file mapped: it is replaced by renaming, never overwritten.
  defp install(built, target) do
    File.mkdir_p!(Path.dirname(target))
    File.cp!(built, target <> ".new")
    File.chmod!(target <> ".new", 0o755)
    File.rename!(target <> ".new", target)
    Mix.shell().info("#{target} is built")
  end
end

defmodule Mix.Tasks.Foundation.Build do
  @shortdoc "Builds the program foundation into priv/bin"
  @moduledoc """
  Builds the program `foundation` with cargo, release profile, and puts it into `priv/bin`, where `Foundation.Cluster.Companion`
  finds it. It takes some minutes the first time. Arguments are given to cargo: `mix foundation.build --target x86_64-unknown-linux-musl`.

  `mix compile` does the same with `config :foundation, build_companion: true` or `FOUNDATION_COMPANION_BUILD=1`
  (`Mix.Tasks.Compile.FoundationCompanion`).

  Without cargo, put a program that was built elsewhere there, or name it by `config :foundation, binary:` or `FOUNDATION_BIN`.
  """
  use Mix.Task

  @impl true
  def run(args) do
    case build(root(), args) do
      {:ok, _status, target} -> Mix.shell().info("#{target} is built")
      {:error, message} -> Mix.raise(message)
    end
  end

  @doc """
  Builds it for the project at `root`: whether the file in `priv/bin` is another now, and its path; or what is missing.
  """
  @spec build(Path.t(), [String.t()]) :: {:ok, :new | :same, Path.t()} | {:error, String.t()}
  def build(root, args) do
    workspace = Path.expand("..", root)

    cond do
      not File.regular?(Path.join(workspace, "node/Cargo.toml")) ->
        {:error, "the source of the program is not at #{workspace}"}

      System.find_executable("cargo") == nil ->
        {:error, "cargo is not installed (https://rustup.rs)"}

      true ->
        cargo(workspace, Path.join(root, "priv/bin/foundation"), args)
    end
  end

  defp cargo(workspace, target, args) do
    build = ["build", "--release", "--package", "foundation-node", "--bin", "foundation"] ++ args
    into = IO.stream(:stdio, :line)

    case System.cmd("cargo", build, cd: workspace, into: into, stderr_to_stdout: true) do
      {_output, 0} -> install(built(workspace, args), target)
      {_output, status} -> {:error, "cargo build exited with status #{status}"}
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
    with {:ok, bytes} <- File.read(built),
         false <- File.read(target) == {:ok, bytes},
         :ok <- File.mkdir_p(Path.dirname(target)),
         new = target <> ".new",
         :ok <- File.write(new, bytes),
         :ok <- File.chmod(new, 0o755),
         :ok <- File.rename(new, target) do
      {:ok, :new, target}
    else
      true -> {:ok, :same, target}
      {:error, reason} -> {:error, "cannot install #{built}: #{:file.format_error(reason)}"}
    end
  end
end

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

  alias Mix.Foundation.Cargo

  @impl true
  def run(args) do
    root = root()

    case build(root, args) do
      {:ok, _status} -> Mix.shell().info("#{target(root)} is built")
      {:error, message} -> Mix.raise(message)
    end
  end

  @doc """
  Builds it for the project at `root`: whether the file in `priv/bin` is another now; or what is missing.
  """
  @spec build(Path.t(), [String.t()]) :: {:ok, :new | :same} | {:error, String.t()}
  def build(root, args) do
    workspace = Path.expand("..", root)
    build = ["--release", "--package", "foundation-node", "--bin", "foundation" | args]

    if File.regular?(Path.join(workspace, "node/Cargo.toml")) do
      with :ok <- Cargo.build(workspace, build),
           do: Cargo.install(built(workspace, args), target(root))
    else
      {:error, "the source of the program is not at #{workspace}"}
    end
  end

  @doc """
  Where the program of the project at `root` is.
  """
  @spec target(Path.t()) :: Path.t()
  def target(root), do: Path.join(root, "priv/bin/foundation")

  # Of this project, or of the dependency that it is of the current one.
  defp root do
    case Mix.Project.config()[:app] do
      :foundation -> File.cwd!()
      _other -> Map.fetch!(Mix.Project.deps_paths(), :foundation)
    end
  end

  defp built(workspace, args) do
    triple =
      case Enum.drop_while(args, &(&1 != "--target")) do
        ["--target", triple | _rest] -> triple
        _none -> ""
      end

    Path.join([Cargo.target_dir(workspace), triple, "release", "foundation"])
  end
end

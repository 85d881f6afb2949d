defmodule Mix.Foundation.Cargo do
  @moduledoc false
  # What the tasks that build Rust code share: cargo's run, putting its file into place, and saying that it was not built.

  @doc false
  @spec build(Path.t(), [String.t()]) :: :ok | {:error, String.t()}
  def build(directory, args) do
    into = IO.stream(:stdio, :line)

    case System.find_executable("cargo") &&
           System.cmd("cargo", ["build" | args], cd: directory, into: into, stderr_to_stdout: true) do
      nil -> {:error, "cargo is not installed (https://rustup.rs)"}
      {_output, 0} -> :ok
      {_output, status} -> {:error, "cargo build exited with status #{status}"}
    end
  end

  @doc false
  # Where cargo puts what it builds for the workspace.
  @spec target_dir(Path.t()) :: Path.t()
  def target_dir(workspace),
    do: System.get_env("CARGO_TARGET_DIR") || Path.join(workspace, "target")

  @doc false
  # A running program or VM has the old file mapped: it is replaced by renaming, never overwritten.
  @spec install(Path.t(), Path.t()) :: {:ok, :new | :same} | {:error, String.t()}
  def install(built, target) do
    with {:ok, bytes} <- File.read(built),
         false <- File.read(target) == {:ok, bytes},
         :ok <- File.mkdir_p(Path.dirname(target)),
         :ok <- replace(target, bytes) do
      {:ok, :new}
    else
      true -> {:ok, :same}
      {:error, reason} -> {:error, "cannot install #{built}: #{:file.format_error(reason)}"}
    end
  end

  # Of a file that did not get whole, on a full disk, nothing is left.
  defp replace(target, bytes) do
    new = target <> ".new"

    with :ok <- File.write(new, bytes),
         :ok <- File.chmod(new, 0o755),
         :ok <- File.rename(new, target) do
      :ok
    else
      error ->
        _ = File.rm(new)
        error
    end
  end

  @doc false
  # The result of a compiler's task. What is missing is said, but not as a diagnostic of severity :warning:
  # --warnings-as-errors must not turn a missing cargo into a failed build.
  @spec result({:ok, :new | :same} | {:error, String.t()}, (String.t() -> String.t())) ::
          {:ok | :noop, []}
  def result({:ok, :new}, _message), do: {:ok, []}
  def result({:ok, :same}, _message), do: {:noop, []}

  def result({:error, reason}, message) do
    Mix.shell().info([:yellow, "warning: ", :reset, message.(reason)])
    {:noop, []}
  end
end

defmodule Mix.Tasks.Compile.FoundationNative do
  @moduledoc """
  Builds the native functions with cargo and puts them into `priv/native`.

  Release profile in `:prod`, dev profile otherwise. In `:test` the crate's `probe` feature adds the function that
  panics on purpose.

  Without cargo, or without the crate's source, the task warns and compilation goes on: every pure function has an
  Elixir fallback (see `Foundation.Native`). A build that cargo fails is a warning too, with cargo's output above it.
  """
  use Mix.Task.Compiler

  @library "foundation_native"

  @impl true
  def run(_args) do
    crate = Path.expand("../nif", File.cwd!())

    cond do
      System.get_env("FOUNDATION_NIF_BUILD") == "0" ->
        {:noop, []}

      not File.regular?(Path.join(crate, "Cargo.toml")) ->
        warn("the source of the native functions is not at #{crate}")

      System.find_executable("cargo") == nil ->
        warn("cargo is not installed (https://rustup.rs)")

      true ->
        build(crate)
    end
  end

  @impl true
  def clean do
    _ = File.rm(target())
    :ok
  end

  defp build(crate) do
    {profile, folder} = if Mix.env() == :prod, do: {["--release"], "release"}, else: {[], "debug"}
    features = if Mix.env() == :test, do: ["--features", "probe"], else: []
    args = ["build", "--quiet", "--message-format", "short"] ++ profile ++ features

    case System.cmd("cargo", args,
           cd: crate,
           into: IO.stream(:stdio, :line),
           stderr_to_stdout: true
         ) do
      {_output, 0} -> install(Path.join([target_dir(crate), folder, artefact()]))
      {_output, status} -> warn("cargo build exited with status #{status}")
    end
  end

  # A running VM has the old file mapped: it is replaced by renaming, never overwritten.
  defp install(built) do
    with {:ok, bytes} <- File.read(built),
         false <- File.read(target()) == {:ok, bytes},
         :ok <- File.mkdir_p(Path.dirname(target())),
         new = target() <> ".new",
         :ok <- File.write(new, bytes),
         :ok <- File.rename(new, target()) do
      {:ok, []}
    else
      true -> {:noop, []}
      {:error, reason} -> warn("cannot install #{built}: #{:file.format_error(reason)}")
    end
  end

  defp target do
    extension = if match?({:win32, _}, :os.type()), do: ".dll", else: ".so"
    Path.join([File.cwd!(), "priv", "native", @library <> extension])
  end

  defp artefact do
    case :os.type() do
      {:win32, _} -> "foundation_nif.dll"
      {:unix, :darwin} -> "libfoundation_nif.dylib"
      _ -> "libfoundation_nif.so"
    end
  end

  defp target_dir(crate) do
    System.get_env("CARGO_TARGET_DIR") || Path.expand("../target", crate)
  end

  defp warn(message) do
    message =
      "native functions not built: #{message}. Foundation runs on its Elixir fallbacks; " <>
        "FOUNDATION_NIF_BUILD=0 silences this."

    Mix.shell().info([:yellow, "warning: ", :reset, message])

    # Reported, but not as a diagnostic of severity :warning: --warnings-as-errors must not turn a missing cargo into a
    # failed build.
    {:noop, []}
  end
end

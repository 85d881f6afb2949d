defmodule Mix.Tasks.Compile.FoundationNative do
  @moduledoc """
  Builds the native functions with cargo: in `:prod` with profile `dist` into `priv/native`, which goes into a release; else with profile `dev`
  into `native` beside the build's `ebin`, where no other build finds them. A build that has its own uses those, one that has none what is in
  `priv/native`. In `:test` the crate's `probe` feature adds the function that
  panics on purpose.

  Without cargo, or without the crate's source, the task warns and compilation goes on: every pure function has an
  Elixir fallback (see `Foundation.Native`). A build that cargo fails is a warning too, with cargo's output above it.
  """
  use Mix.Task.Compiler

  alias Mix.Foundation.Cargo

  @library "foundation_native"

  @impl true
  def run(_args) do
    crate = Path.expand("../nif", File.cwd!())

    if System.get_env("FOUNDATION_NIF_BUILD") == "0" do
      # What an earlier run has built here is not what priv has.
      if Mix.env() != :prod, do: clean()
      {:noop, []}
    else
      Cargo.result(build(crate), fn reason ->
        "native functions not built: #{reason}. Foundation runs on its Elixir fallbacks; " <>
          "FOUNDATION_NIF_BUILD=0 silences this."
      end)
    end
  end

  @impl true
  def clean do
    _ = File.rm(target())
    :ok
  end

  defp build(crate) do
    {profile, folder} =
      if Mix.env() == :prod, do: {["--profile", "dist"], "dist"}, else: {[], "debug"}

    features = if Mix.env() == :test, do: ["--features", "probe"], else: []
    args = ["--quiet", "--message-format", "short"] ++ profile ++ features

    if File.regular?(Path.join(crate, "Cargo.toml")) do
      built = Path.join([Cargo.target_dir(Path.dirname(crate)), folder, artefact()])
      with :ok <- Cargo.build(crate, args), do: Cargo.install(built, target())
    else
      {:error, "the source of the native functions is not at #{crate}"}
    end
  end

  defp target do
    extension = if match?({:win32, _}, :os.type()), do: ".dll", else: ".so"

    directory =
      if Mix.env() == :prod, do: Path.join(File.cwd!(), "priv"), else: Mix.Project.app_path()

    Path.join([directory, "native", @library <> extension])
  end

  defp artefact do
    case :os.type() do
      {:win32, _} -> "foundation_nif.dll"
      {:unix, :darwin} -> "libfoundation_nif.dylib"
      _ -> "libfoundation_nif.so"
    end
  end
end

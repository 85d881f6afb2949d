defmodule Mix.Tasks.Compile.FoundationCompanion do
  @moduledoc """
  Builds the program `foundation`, the companion of `Foundation.Cluster.Companion`, as `mix foundation.build` does, if
  `config :foundation, build_companion: true` or `FOUNDATION_COMPANION_BUILD=1` asks for it; `FOUNDATION_COMPANION_BUILD=0` wins over the configuration.

  Not by itself, because the first release build of the node takes minutes, and an application with libcluster needs none. The configuration is looked at when this library is compiled: afterwards
  `mix deps.compile foundation --force`, or `mix foundation.build`.

  Without cargo, without the source, and if cargo fails, the task warns and compilation goes on: everything but discovery by the companion works.
  """
  use Mix.Task.Compiler

  alias Mix.Foundation.Cargo
  alias Mix.Tasks.Foundation.Build

  @impl true
  def run(_args), do: if(wanted?(), do: build(), else: {:noop, []})

  @impl true
  def clean do
    _ = if wanted?(), do: File.rm(Build.target(File.cwd!()))
    :ok
  end

  defp wanted? do
    case System.get_env("FOUNDATION_COMPANION_BUILD") do
      nil -> Application.get_env(:foundation, :build_companion, false) == true
      asked -> asked == "1"
    end
  end

  defp build do
    Cargo.result(Build.build(File.cwd!(), ["--quiet"]), fn reason ->
      "the program foundation is not built: #{reason}. Put one that was built elsewhere into priv/bin, or name it by " <>
        "config :foundation, binary: or FOUNDATION_BIN. Until then nodes are found by libcluster, or from a list or this host's epmd only."
    end)
  end
end

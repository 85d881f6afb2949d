defmodule Foundation.MixProject do
  use Mix.Project

  def project do
    [
      app: :foundation,
      version: "2.0.0",
      elixir: "~> 1.14",
      elixirc_paths: elixirc_paths(Mix.env()),
      # After :elixir, because the task is itself a module of this project.
      compilers: Mix.compilers() ++ [:foundation_native],
      start_permanent: Mix.env() == :prod,
      description: "Infrastructure services and clustering for Elixir applications",
      aliases: aliases(),
      preferred_cli_env: preferred_cli_env(),
      deps: []
    ]
  end

  def application do
    [
      mod: {Foundation.Application, []},
      # What the host application may bring is found and started by `Foundation.Host`: naming it here as optional would
      # make Elixir 1.20 warn about each that is not there.
      extra_applications: [:logger, :crypto]
    ]
  end

  defp elixirc_paths(:test), do: ["lib", "test/support", "examples"]
  defp elixirc_paths(_env), do: ["lib"]

  defp aliases do
    [
      "test.unit": ["test --only unit"],
      "test.contract": ["test --only contract"],
      "test.smoke": ["test --only smoke"],
      "test.integration": ["test --only integration"],
      "test.property": ["test --only property"],
      "test.stress": ["test --only stress"],
      "test.benchmark": ["test --only benchmark"]
    ]
  end

  defp preferred_cli_env do
    for tag <- ~w(unit contract smoke integration property stress benchmark)a,
        do: {:"test.#{tag}", :test}
  end
end

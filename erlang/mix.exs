defmodule Foundation.MixProject do
  use Mix.Project

  def project do
    [
      app: :foundation,
      version: "2.0.0",
      elixir: "~> 1.14",
      elixirc_paths: elixirc_paths(Mix.env()),
      # After :elixir, because the tasks are themselves modules of this project.
      compilers: Mix.compilers() ++ [:foundation_native, :foundation_companion],
      start_permanent: Mix.env() == :prod,
      description: "Infrastructure services and clustering for Elixir applications",
      aliases: aliases(),
      test_coverage: [ignore_modules: not_covered(), summary: [threshold: 85]],
      deps: []
    ] ++ cli_before_1_15()
  end

  def cli, do: [preferred_envs: preferred_envs()]

  # Where it was before Elixir 1.15, and what later ones warn about.
  defp cli_before_1_15 do
    if Version.match?(System.version(), "< 1.15.0"),
      do: [preferred_cli_env: preferred_envs()],
      else: []
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
      dialyzer: ["compile", &dialyzer/1],
      coverage: [&coverage/1, "test --cover --export-coverage tests", "test.coverage"],
      sla: ["run --no-start bench/sla.exs"],
      native: ["run bench/native.exs"],
      operations: ["run bench/operations.exs"],
      "test.unit": ["test --only unit"],
      "test.contract": ["test --only contract"],
      "test.smoke": ["test --only smoke"],
      "test.integration": ["test --only integration"],
      "test.property": ["test --only property"],
      "test.stress": ["test --only stress"],
      "test.benchmark": ["test --only benchmark"]
    ]
  end

  # What the tests' nodes export is added to what the tests themselves ran. Native functions are not Elixir; the tests' own modules and
  # the compiler that runs before them are not the library.
  defp coverage(_args) do
    File.rm_rf!("cover")
    File.mkdir_p!("cover")
    System.put_env("FOUNDATION_COVERAGE", Path.expand("cover"))
  end

  defp not_covered do
    tests = for file <- Path.wildcard("test/support/*.ex"), do: modules(file)
    [Mix.Tasks.Compile.FoundationNative, Foundation.Native.Loader | Enum.concat(tests)]
  end

  defp modules(file) do
    for [_all, name] <- Regex.scan(~r/^defmodule (\S+) do/m, File.read!(file)),
        do: Module.concat([name])
  end

  # In a VM of its own: Mix takes applications that no dependency names from the code path.
  defp dialyzer(_args) do
    ebin = Path.join(Mix.Project.app_path(), "ebin")

    case System.cmd("elixir", ["script/dialyzer.exs", ebin], into: IO.stream(:stdio, :line)) do
      {_output, 0} -> :ok
      {_output, status} -> exit({:shutdown, status})
    end
  end

  # The measurements need what the tests run on their nodes.
  defp preferred_envs do
    # The native functions are measured as a host application has them.
    [coverage: :test, sla: :test, native: :prod, operations: :prod] ++
      for tag <- ~w(unit contract smoke integration property stress benchmark)a,
          do: {:"test.#{tag}", :test}
  end
end

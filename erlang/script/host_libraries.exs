# Compiles the ecosystem's libraries for the running release, unmodified and without Hex, for the tests that run with them:
#
#     elixir script/host_libraries.exs SOURCES TARGET
#     FOUNDATION_HOST_LIBRARIES=TARGET mix test
#
# SOURCES holds one folder a library (interop-tests/ecosystem.toml). What is not there is said and left out; TARGET gets <library>/ebin.

[sources, target] = System.argv()
for application <- [:mix, :logger], do: {:ok, _} = Application.ensure_all_started(application)
Mix.env(:prod)

# Each after those that it needs. A name that differs from the folder's stands behind it.
libraries = [
  telemetry: "telemetry",
  telemetry_poller: "telemetry_poller",
  merkle_map: "merkle_map",
  delta_crdt: "delta_crdt_ex",
  libring: "libring",
  jason: "jason",
  phoenix_pubsub: "phoenix_pubsub",
  libcluster: "libcluster",
  horde: "horde",
  mdns_lite: "mdns_lite"
]

compile = fn source, ebin ->
  erlang =
    for file <- Path.wildcard(Path.join(source, "src/*.erl")) do
      {:ok, module} = :compile.file(String.to_charlist(file), outdir: String.to_charlist(ebin))
      module
    end

  # Tasks of Mix are for the projects that use the library.
  files =
    Path.wildcard(Path.join(source, "lib/**/*.ex")) --
      Path.wildcard(Path.join(source, "lib/mix/**/*.ex"))

  case Kernel.ParallelCompiler.compile_to_path(files, ebin, return_diagnostics: true) do
    {:ok, elixir, _warnings} -> {:ok, erlang ++ elixir}
    {:error, errors, _warnings} -> {:error, errors}
  end
end

# What `mix compile.app` writes, from the library's own project; its dependencies are those above.
application = fn library, source, modules ->
  Mix.Project.in_project(library, source, fn project ->
    config = Mix.Project.config()
    application = project.application()
    named = Keyword.get(application, :extra_applications, [])

    properties =
      [
        vsn: String.to_charlist(config[:version]),
        modules: modules,
        registered: [],
        applications: Enum.uniq([:kernel, :stdlib, :elixir, :logger] ++ named)
      ] ++ Keyword.take(application, [:mod, :env])

    {:application, library, properties}
  end)
end

for {library, folder} <- libraries, source = Path.expand(folder, sources) do
  ebin = Path.join([Path.expand(target), "#{library}", "ebin"])

  cond do
    not File.regular?(Path.join(source, "mix.exs")) and
        not File.regular?(Path.join(source, "rebar.config")) ->
      IO.puts("#{library}: source absent")

    File.regular?(Path.join(ebin, "#{library}.app")) ->
      Code.prepend_path(ebin)
      IO.puts("#{library}: compiled before")

    true ->
      File.mkdir_p!(ebin)
      Code.prepend_path(ebin)

      with {:ok, modules} <- compile.(source, ebin) do
        app =
          case :file.consult(String.to_charlist(Path.join(source, "src/#{library}.app.src"))) do
            {:ok, [{:application, ^library, properties}]} ->
              {:application, library, Keyword.put(properties, :modules, modules)}

            {:error, _not_erlang} ->
              application.(library, source, modules)
          end

        File.write!(Path.join(ebin, "#{library}.app"), :io_lib.format("~tp.~n", [app]))
        IO.puts("#{library}: #{length(modules)} modules")
      else
        {:error, errors} ->
          IO.puts("#{library}: not compiled: #{inspect(errors, limit: 5, printable_limit: 300)}")
      end
  end
end

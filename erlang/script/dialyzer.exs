# Dialyzer over the compiled library: `mix dialyzer` (or `elixir script/dialyzer.exs EBIN`). Prints every warning and ends with status 2 if
# there is one.
#
# What it knows of OTP and Elixir is kept under _build, one file a release; the first run takes minutes. Debian has Dialyzer in a package of
# its own, erlang-dialyzer.

[ebin] = System.argv()

unless Code.ensure_loaded?(:dialyzer) do
  IO.puts(:stderr, "Dialyzer is not installed (Debian: erlang-dialyzer)")
  System.halt(1)
end

for application <- [:mix, :logger], do: Application.load(application)

known =
  Enum.map([:erts, :kernel, :stdlib, :crypto], &Path.join(:code.lib_dir(&1), "ebin")) ++
    Enum.map([:elixir, :logger, :mix], &Application.app_dir(&1, "ebin"))

plt =
  Path.join(
    "_build",
    "dialyzer-otp#{System.otp_release()}-elixir#{System.version()}.plt"
  )

File.mkdir_p!("_build")
paths = &Enum.map(&1, fn path -> String.to_charlist(path) end)

unless File.regular?(plt) do
  IO.puts("Dialyzer reads OTP and Elixir")

  :dialyzer.run(
    analysis_type: :plt_build,
    output_plt: String.to_charlist(plt),
    files_rec: paths.(known)
  )
end

warnings =
  :dialyzer.run(
    analysis_type: :succ_typings,
    init_plt: String.to_charlist(plt),
    files_rec: paths.([ebin]),
    warnings: [:unknown]
  )

# What the host application may bring is not there to be looked at.
optional = ["Elixir.Horde."]

warnings =
  Enum.reject(warnings, fn {_tag, _place, message} ->
    match?({:unknown_function, _}, message) and
      String.starts_with?(message |> elem(1) |> elem(0) |> Atom.to_string(), optional)
  end)

for warning <- warnings, do: IO.puts(:dialyzer.format_warning(warning, filename_opt: :fullpath))

IO.puts(
  "Dialyzer: #{length(warnings)} warnings, OTP #{System.otp_release()}, Elixir #{System.version()}"
)

if warnings != [], do: System.halt(2)

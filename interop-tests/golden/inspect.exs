# How terms print in Elixir: `elixir inspect.exs otp-25/print.tsv > otp-25/inspect.tsv`.
#
# Of each term in the first column of a file that print.escript wrote, one line of three columns: the external term format as
# this Elixir writes it, and what inspect/2 makes of it at 80 and at 20 columns.
[file] = System.argv()

inspect = fn term, width ->
  term
  |> inspect(pretty: true, limit: :infinity, printable_limit: :infinity, width: width)
  |> String.replace("\\", "\\\\")
  |> String.replace("\n", "\\n")
end

for line <- File.stream!(file) do
  [hex | _] = String.split(line, "\t")
  term = :erlang.binary_to_term(Base.decode16!(hex, case: :lower))
  encoded = Base.encode16(:erlang.term_to_binary(term), case: :lower)
  IO.puts(Enum.join([encoded, inspect.(term, 80), inspect.(term, 20)], "\t"))
end

defmodule Foundation.TestProgram do
  @moduledoc false
  # `foundation start` beside the nodes of a test, and a name server for it.

  # Ends with the process that starts it: its shell waits for the end of the standard input.
  @script "\"$0\" start --log-format logfmt --config \"$1\" </dev/null >/dev/null 2>\"$2\" & node=$!; cat >/dev/null; kill $node"

  # The port, and the file with its log.
  def start(program, config, env) do
    file = Path.join(System.tmp_dir!(), "foundation-#{System.unique_integer([:positive])}.toml")
    log = file <> ".log"
    File.write!(file, config)
    ExUnit.Callbacks.on_exit(fn -> Enum.each([file, log], &File.rm/1) end)

    port =
      Port.open(
        {:spawn_executable, System.find_executable("sh")},
        [:binary, args: ["-c", @script, program, file, log]] ++
          [
            env:
              for(
                {name, value} <- env,
                do: {to_charlist(name), value |> to_string() |> to_charlist()}
              )
          ]
      )

    {port, log}
  end

  def logged?(log, words) do
    case File.read(log) do
      {:ok, text} ->
        text |> String.split("\n") |> Enum.any?(fn line -> Enum.all?(words, &(line =~ &1)) end)

      {:error, _not_yet} ->
        false
    end
  end

  # A name server that knows one address, or says that there is no such name. It ends with the process.
  def name_server do
    parent = self()

    pid =
      spawn(fn ->
        {:ok, socket} = :gen_udp.open(0, [:binary, active: true, ip: {127, 0, 0, 1}])
        {:ok, port} = :inet.port(socket)
        send(parent, {self(), port})
        answer(socket, 0)
      end)

    receive do
      {^pid, port} -> {pid, port}
    end
  end

  defp answer(socket, code) do
    receive do
      {:code, code} ->
        answer(socket, code)

      {:udp, ^socket, address, port, <<id::16, _flags::16, _counts::64, rest::binary>>} ->
        [name, <<0, type::16, class::16, _additional::binary>>] = split(rest, "")
        question = <<name::binary, 0, type::16, class::16>>
        answers = if type == 1 and code == 0, do: 1, else: 0
        # For a second (RFC 1035 section 4).
        record =
          if answers == 1, do: <<0xC00C::16, 1::16, 1::16, 1::32, 4::16, 127, 0, 0, 1>>, else: ""

        head = <<id::16, 0x81, Bitwise.bor(0x80, code), 1::16, answers::16, 0::32>>
        :ok = :gen_udp.send(socket, address, port, head <> question <> record)
        answer(socket, code)
    end
  end

  defp split(<<0, _rest::binary>> = end_of_name, name), do: [name, end_of_name]

  defp split(<<length, label::binary-size(length), rest::binary>>, name),
    do: split(rest, name <> <<length>> <> label)
end

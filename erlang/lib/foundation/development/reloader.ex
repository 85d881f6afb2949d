defmodule Foundation.Development.Reloader do
  @moduledoc """
  With `config :foundation, profile: :development`: a module that is compiled on one node is loaded on all nodes of that profile.

  Every second (`config :foundation, reload_interval: 1000`) the beam files of the code path, OTP's and Elixir's own aside, are looked at. A file
  that has changed is loaded here, if it is not yet, and goes to the others on the `:control` channel; they load it if they have another
  version. Nothing is written to their disks. A process that still runs the version before the last one is killed, as it is by
  `:code.purge/1`.

  Whoever can connect to a node can run code on it anyway; still this is for development, and each node says for itself whether it
  takes part.
  """

  use GenServer

  alias Foundation.Channels
  require Logger

  # A file this young can be written again with the same time and size, so it is read once more.
  @young_s 3

  @doc false
  def start_link(_opts), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  # files: path => {mtime, size}. sums: module => md5 of what was last sent or received.
  @impl true
  def init(_opts) do
    with :ok <- Channels.subscribe(:control) do
      interval = Foundation.Settings.get(:reload_interval)
      Process.send_after(self(), :look, interval)
      {:ok, %{interval: interval, files: files(), sums: %{}}}
    end
  end

  @impl true
  def handle_info(:look, state) do
    Process.send_after(self(), :look, state.interval)
    files = files()
    young = System.os_time(:second) - @young_s

    state =
      files
      |> Enum.sort()
      |> Enum.reduce(state, fn {path, {mtime, _size} = stamp}, state ->
        cond do
          state.files[path] != stamp -> changed(path, state, true)
          mtime > young -> changed(path, state, false)
          true -> state
        end
      end)

    {:noreply, %{state | files: files}}
  end

  def handle_info({:foundation_code, 1, module, file, binary, origin}, state)
      when origin != node() and is_atom(module) and is_binary(binary) do
    case :beam_lib.md5(binary) do
      {:ok, {^module, sum}} ->
        if load(module, file, binary, sum),
          do: Logger.info("Foundation: #{inspect(module)} loaded from #{origin}")

        {:noreply, put_in(state.sums[module], sum)}

      _not_that_module ->
        {:noreply, state}
    end
  end

  def handle_info(_message, state), do: {:noreply, state}

  # A file that is only young is news if it was sent before and is another now.
  defp changed(path, state, new?) do
    with {:ok, binary} <- File.read(path),
         {:ok, {module, sum}} <- :beam_lib.md5(binary),
         true <- state.sums[module] != sum and (new? or is_map_key(state.sums, module)) do
      file = String.to_charlist(path)
      load(module, file, binary, sum)
      Channels.broadcast(:control, {:foundation_code, 1, module, file, binary, node()})
      put_in(state.sums[module], sum)
    else
      # Known, or just being written: its time will change again.
      _nothing_new -> state
    end
  end

  defp loaded(module), do: if(:code.is_loaded(module), do: module.module_info(:md5))

  defp load(module, file, binary, sum) do
    if loaded(module) == sum or :code.is_sticky(module) or module == Foundation.Native.Loader do
      false
    else
      :code.purge(module)
      match?({:module, _}, :code.load_binary(module, file, binary))
    end
  end

  defp files do
    for directory <- :code.get_path(),
        not belongs_to_otp?(directory),
        path <- Path.wildcard("#{directory}/*.beam"),
        {:ok, %{mtime: mtime, size: size}} <- [File.stat(path, time: :posix)],
        into: %{},
        do: {path, {mtime, size}}
  end

  defp belongs_to_otp?(directory) do
    root = :code.root_dir()
    elixir = :elixir |> :code.lib_dir() |> :filename.dirname()

    directory == ~c"." or List.starts_with?(directory, root) or
      List.starts_with?(directory, elixir)
  end
end

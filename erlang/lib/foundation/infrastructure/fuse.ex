defmodule Foundation.Infrastructure.Fuse do
  @moduledoc """
  Circuit breakers' state: the `:fuse` library when the host application has it, else this process.

  A fuse installed with `{{:standard, max_melts, window_ms}, {:reset, reset_ms}}` blows at the melt after `max_melts` within
  `window_ms`, and is whole again `reset_ms` later. Installing a name again starts it afresh.
  """

  use GenServer

  alias Foundation.Host

  @table __MODULE__

  @type name :: atom()
  @type options ::
          {{:standard, non_neg_integer(), non_neg_integer()}, {:reset, non_neg_integer()}}

  defguardp is_count(value) when is_integer(value) and value >= 0

  @doc """
  Installs a fuse. Raises `ArgumentError` on options of another form.
  """
  @spec install(name(), options()) :: :ok | {:error, term()}
  def install(name, options) do
    case Host.module(:fuse) do
      nil -> install_own(name, options)
      fuse -> fuse.install(name, options)
    end
  end

  defp install_own(name, {{:standard, max, window}, {:reset, reset_ms}})
       when is_count(max) and is_count(window) and is_count(reset_ms),
       do: GenServer.call(__MODULE__, {:install, name, {max, window, reset_ms}})

  defp install_own(_name, _options), do: raise(ArgumentError)

  @doc """
  Whether a fuse is whole.
  """
  @spec ask(name()) :: :ok | :blown | {:error, :not_found}
  def ask(name) do
    case Host.module(:fuse) do
      nil -> ask_own(name)
      fuse -> fuse.ask(name, :sync)
    end
  end

  @doc """
  Records a failure.
  """
  @spec melt(name()) :: :ok
  def melt(name) do
    case Host.module(:fuse) do
      nil -> GenServer.call(__MODULE__, {:melt, name})
      fuse -> fuse.melt(name)
    end
  end

  @doc """
  Makes a fuse whole and forgets its melts.
  """
  @spec reset(name()) :: :ok | {:error, :not_found}
  def reset(name) do
    case Host.module(:fuse) do
      nil -> GenServer.call(__MODULE__, {:reset, name})
      fuse -> fuse.reset(name)
    end
  end

  @doc """
  Whether the engine is running, whichever it is.
  """
  @spec running?() :: boolean()
  def running? do
    Process.whereis(if(Host.module(:fuse), do: :fuse_sup, else: __MODULE__)) != nil
  end

  @doc false
  def start_link(_opts), do: GenServer.start_link(__MODULE__, [], name: __MODULE__)

  # Melts are calls, so whoever saw one answered reads its effect here.
  defp ask_own(name) do
    case :ets.lookup(@table, name) do
      [{^name, status}] -> status
      [] -> {:error, :not_found}
    end
  end

  ## Callbacks. State: name => {max_melts, window_ms, reset_ms, melts (latest first), timer of the reset or nil}

  @impl GenServer
  def init(_opts) do
    :ets.new(@table, [:named_table, :protected, :set, read_concurrency: true])
    {:ok, %{}}
  end

  @impl GenServer
  def handle_call({:install, name, {max, window, reset_ms}}, _from, fuses) do
    cancel(fuses[name])
    {:reply, :ok, whole(fuses, name, {max, window, reset_ms, [], nil})}
  end

  def handle_call({:melt, name}, _from, fuses) do
    case fuses do
      %{^name => {max, window, reset_ms, melts, timer}} ->
        now = System.monotonic_time(:millisecond)
        melts = Enum.take_while([now | melts], &(now - &1 <= window))

        timer =
          if length(melts) > max and timer == nil do
            :ets.insert(@table, {name, :blown})
            Process.send_after(self(), {:reset, name}, reset_ms)
          else
            timer
          end

        # A blown fuse needs no history: it starts afresh after the reset.
        melts = Enum.take(melts, max + 1)
        {:reply, :ok, Map.put(fuses, name, {max, window, reset_ms, melts, timer})}

      _unknown ->
        {:reply, :ok, fuses}
    end
  end

  def handle_call({:reset, name}, _from, fuses) do
    case fuses do
      %{^name => fuse} ->
        cancel(fuse)
        {:reply, :ok, whole(fuses, name, fuse)}

      _unknown ->
        {:reply, {:error, :not_found}, fuses}
    end
  end

  @impl GenServer
  def handle_info({:reset, name}, fuses) do
    case fuses do
      %{^name => {_max, _window, _reset, _melts, timer} = fuse} when timer != nil ->
        # A reset that was on its way when the fuse was installed anew must not count for the new one.
        if Process.read_timer(timer) == false,
          do: {:noreply, whole(fuses, name, fuse)},
          else: {:noreply, fuses}

      _unknown_or_whole ->
        {:noreply, fuses}
    end
  end

  def handle_info(_message, fuses), do: {:noreply, fuses}

  defp whole(fuses, name, {max, window, reset_ms, _melts, _timer}) do
    :ets.insert(@table, {name, :ok})
    Map.put(fuses, name, {max, window, reset_ms, [], nil})
  end

  defp cancel({_max, _window, _reset_ms, _melts, timer}) when timer != nil,
    do: Process.cancel_timer(timer)

  defp cancel(_none), do: false
end

defmodule Foundation.Native do
  @moduledoc """
  The functions written in Rust, and what happens when they cannot be loaded.

  The library is `priv/native/foundation_native.so`; one file serves OTP 22 to 29 (NIF version 2.15). It is loaded by plain
  `:erlang.load_nif/2`. If that fails the application starts all the same: pure functions run their Elixir
  fallback, which gives the same results, and `status/0` says why.
  """

  alias Foundation.Native.Loader

  @doc """
  Loads the native functions; the application does so when it starts.

  `:ok` also if they are loaded already. The error says what is missing and how to mend it, and stays available from
  `status/0`.
  """
  @spec load() :: :ok | {:error, String.t()}
  def load do
    case Loader.load() do
      :ok ->
        :ok

      {:error, reason} ->
        message =
          "Foundation's native functions are not loaded: #{reason}. " <>
            "Run `mix compile` with cargo installed, or put foundation_native.so into priv/native. " <>
            "Until then the Elixir fallbacks serve."

        :persistent_term.put({__MODULE__, :load_error}, message)
        {:error, message}
    end
  end

  @doc """
  Whether the native functions are loaded.
  """
  @spec loaded?() :: boolean()
  def loaded? do
    Loader.loaded()
  rescue
    ErlangError -> false
  end

  @doc """
  `:ok`, or why the native functions are not loaded and how to mend it.
  """
  @spec status() :: :ok | {:error, String.t()}
  def status do
    if loaded?() do
      :ok
    else
      {:error,
       :persistent_term.get(
         {__MODULE__, :load_error},
         "Foundation's native functions are not loaded: load/0 was not called yet."
       )}
    end
  end
end

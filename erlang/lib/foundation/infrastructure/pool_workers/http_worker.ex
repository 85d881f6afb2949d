defmodule Foundation.Infrastructure.PoolWorkers.HttpWorker do
  @moduledoc """
  An example of a pool worker with the shape of an HTTP client. It opens no connection.

  As in 1.x its answers are made up here, in the form of the httpbin service: what was sent comes back as JSON, after 10 to
  100 ms. Some paths behave differently: `/delay/N` answers after N seconds or, beyond the timeout, with `{:error, :timeout}`;
  `/status/N` with that status; `/bytes/N` with N random bytes; `/xml` with XML; `/nonexistent` with status 404;
  `/definitely-will-cause-error` and `/invalid-network-request` with errors. Use it to try pools out, and a real client for requests.

  Start arguments: `base_url` (required, http or https), `timeout` (30,000 ms), `headers`, `max_redirects` (5).
  """

  use GenServer

  alias Foundation.Host.Json
  require Logger

  @type worker_config :: [
          base_url: String.t(),
          timeout: pos_integer(),
          headers: [{String.t(), String.t()}],
          max_redirects: non_neg_integer()
        ]

  @exit_ms 100
  @defaults [timeout: 30_000, headers: [{"User-Agent", "Foundation/1.0"}], max_redirects: 5]

  @doc """
  Starts a worker. Stops with `{:invalid_config, reason}`: `:missing_base_url`, `:empty_base_url`, `:invalid_base_url_type`,
  `:invalid_scheme`.
  """
  @spec start_link(worker_config()) :: GenServer.on_start()
  def start_link(config) do
    with {:error, _reason} = error <- GenServer.start_link(__MODULE__, config) do
      # The worker's exit reaches the caller before this returns from OTP 26 on, and a moment later on older releases. So
      # that a caller that does not trap exits ends the same way on all of them, it is waited for.
      if Process.info(self(), :trap_exit) == {:trap_exit, false}, do: Process.sleep(@exit_ms)
      error
    end
  end

  @doc """
  An answer to GET: `{:ok, %{status_code: _, headers: _, body: _}}`. Options: `headers`, `params`.
  """
  @spec get(pid(), String.t(), keyword()) :: {:ok, map()} | {:error, term()}
  def get(worker, path, options \\ []), do: GenServer.call(worker, {:get, path, options})

  @doc """
  An answer to POST. A body that is no string is sent as JSON.
  """
  @spec post(pid(), String.t(), term(), keyword()) :: {:ok, map()} | {:error, term()}
  def post(worker, path, body, options \\ []),
    do: GenServer.call(worker, {:post, path, body, options})

  @doc """
  Settings and counters.
  """
  @spec get_status(pid()) :: {:ok, map()}
  def get_status(worker), do: GenServer.call(worker, :get_status)

  ## Callbacks

  @impl GenServer
  def init(config) do
    settings = Keyword.merge(@defaults, config)

    case check_base_url(settings[:base_url]) do
      :ok ->
        Logger.debug("HTTP worker started for #{settings[:base_url]}")

        {:ok,
         %{
           base_url: settings[:base_url],
           timeout: settings[:timeout],
           headers: settings[:headers],
           max_redirects: settings[:max_redirects],
           stats: %{requests_made: 0, last_request_at: nil, errors: 0}
         }}

      {:error, reason} ->
        {:stop, {:invalid_config, reason}}
    end
  end

  defp check_base_url(nil), do: {:error, :missing_base_url}
  defp check_base_url(""), do: {:error, :empty_base_url}
  defp check_base_url(url) when not is_binary(url), do: {:error, :invalid_base_url_type}
  defp check_base_url("http://" <> _rest), do: :ok
  defp check_base_url("https://" <> _rest), do: :ok
  defp check_base_url(_other), do: {:error, :invalid_scheme}

  @impl GenServer
  def handle_call({:get, path, options}, _from, state),
    do: request(:get, path, nil, options, state)

  def handle_call({:post, path, body, options}, _from, state),
    do: request(:post, path, body, options, state)

  def handle_call(:get_status, _from, state) do
    status =
      state
      |> Map.take([:base_url, :timeout, :headers, :stats])
      |> Map.put(:uptime, System.monotonic_time())

    {:reply, {:ok, status}, state}
  end

  defp request(method, path, body, options, state) do
    request = %{
      method: method,
      url: url(state.base_url, path, options[:params]),
      headers: state.headers |> Map.new() |> Map.merge(Map.new(options[:headers] || [])),
      body: body
    }

    {time, result} = :timer.tc(fn -> try_answer(request, state.timeout) end)

    failed =
      case result do
        {:ok, _answer} ->
          Logger.debug("HTTP #{method} #{request.url} completed in #{time}μs")
          0

        {:error, {:exception, exception}} ->
          Logger.error("HTTP #{method} #{request.url} exception: #{inspect(exception)}")
          1

        {:error, reason} ->
          Logger.warning("HTTP #{method} #{request.url} failed: #{inspect(reason)}")
          1
      end

    stats = %{
      requests_made: state.stats.requests_made + 1,
      last_request_at: DateTime.utc_now(),
      errors: state.stats.errors + failed
    }

    {:reply, result, %{state | stats: stats}}
  end

  defp url(base_url, path, params) do
    url = String.trim_trailing(base_url, "/") <> "/" <> String.trim_leading(path, "/")

    if is_list(params) do
      separator = if String.contains?(url, "?"), do: "&", else: "?"
      url <> separator <> URI.encode_query(params)
    else
      url
    end
  end

  ## The answers

  defp try_answer(request, timeout) do
    answer(request, timeout)
  rescue
    exception -> {:error, {:exception, exception}}
  end

  defp answer(%{url: url} = request, timeout) do
    cond do
      String.contains?(url, "/delay/") ->
        delay = number_after(url, "/delay/", 0) * 1000

        if delay > timeout do
          {:error, :timeout}
        else
          Process.sleep(delay)
          json(200, echo(request))
        end

      String.contains?(url, "/status/") ->
        pause()
        json(number_after(url, "/status/", 200), echo(request))

      String.contains?(url, "/bytes/") ->
        pause()
        body = :crypto.strong_rand_bytes(number_after(url, "/bytes/", 1024))
        respond(200, "application/octet-stream", body)

      String.contains?(url, "/xml") ->
        pause()
        respond(200, "application/xml", xml(request))

      String.contains?(url, "/nonexistent") ->
        pause()
        json(404, echo(request))

      String.contains?(url, "invalid://") ->
        {:error, :invalid_url}

      String.contains?(url, "definitely-will-cause-error") ->
        {:error, {:http_error, 404, "Not Found"}}

      String.contains?(url, "invalid-network-request") ->
        {:error, :timeout}

      true ->
        pause()
        json(200, httpbin(request))
    end
  end

  defp pause, do: Process.sleep(Enum.random(10..100))

  defp number_after(url, prefix, default) do
    case Regex.run(~r"#{prefix}(\d+)", url) do
      [_all, digits] -> String.to_integer(digits)
      nil -> default
    end
  end

  defp json(status, content), do: respond(status, "application/json", Json.encode!(content))

  defp respond(status, content_type, body) do
    {:ok, %{status_code: status, headers: [{"content-type", content_type}], body: body}}
  end

  defp echo(request) do
    request
    |> Map.put(:headers, headers(request))
    |> Map.put(:timestamp, DateTime.utc_now())
  end

  defp httpbin(request) do
    query = URI.parse(request.url).query

    common = %{
      "args" => if(query, do: URI.decode_query(query), else: %{}),
      "headers" => headers(request),
      "origin" => "127.0.0.1",
      "url" => request.url
    }

    case request do
      %{method: :get} ->
        common

      %{method: :post, body: body} ->
        {data, json} = if is_binary(body), do: {body, nil}, else: {Json.encode!(body), body}
        Map.merge(common, %{"data" => data, "files" => %{}, "form" => %{}, "json" => json})
    end
  end

  defp headers(request) do
    Map.new(request.headers, fn
      {key, value} when is_binary(key) and is_binary(value) -> {key, value}
      other -> {"unknown", inspect(other)}
    end)
  end

  defp xml(request) do
    """
    <?xml version="1.0" encoding="UTF-8"?>
    <response>
      <method>#{request.method}</method>
      <url>#{request.url}</url>
    </response>
    """
  end
end

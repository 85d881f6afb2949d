%% Runs what a test sends over a loopback socket, in one process that keeps its bindings, so that a test reads like a
%% shell session. The answer is the value as text (or bytes, when asked), never a term: what the test compares is then
%% independent of the codec under test.
%%
%% Request:  <<$e, Erlang/binary>> | <<$b, Erlang/binary>> | <<$x, Elixir/binary>>     {packet, 4}
%% Answer:   <<0, Value/binary>> | <<1, Error/binary>>
%%
%% When the socket closes the node halts: a test that was killed leaves no node behind.
-module(foundation_control).
-export([start/0]).

start() ->
    [Port, Host | _] = init:get_plain_arguments(),
    {ok, Address} = inet:parse_address(Host),
    spawn(fun() ->
        register(test, self()),
        {ok, Socket} = gen_tcp:connect(Address, list_to_integer(Port), [binary, {packet, 4}, {active, false}]),
        loop(Socket, erl_eval:new_bindings(), [])
    end).

loop(Socket, Erlang, Elixir) ->
    case gen_tcp:recv(Socket, 0) of
        {ok, <<Kind, Code/binary>>} ->
            {Answer, Erlang1, Elixir1} = run(Kind, Code, Erlang, Elixir),
            ok = gen_tcp:send(Socket, Answer),
            loop(Socket, Erlang1, Elixir1);
        {error, _} ->
            erlang:halt(0)
    end.

run(Kind, Code, Erlang, Elixir) ->
    try evaluate(Kind, Code, Erlang, Elixir)
    catch
        Class:Reason:Stack ->
            {[1, format("~tp:~tp~n~tp", [Class, Reason, Stack])], Erlang, Elixir}
    end.

evaluate($x, Code, Erlang, Elixir) ->
    {Value, Elixir1} = 'Elixir.Code':eval_string(Code, Elixir),
    Options = [{limit, infinity}, {printable_limit, infinity}, {width, infinity}],
    {[0, 'Elixir.Kernel':inspect(Value, Options)], Erlang, Elixir1};
evaluate(Kind, Code, Erlang, Elixir) ->
    {ok, Tokens, _} = erl_scan:string(unicode:characters_to_list(Code)),
    {ok, Expressions} = erl_parse:parse_exprs(Tokens),
    {value, Value, Erlang1} = erl_eval:exprs(Expressions, Erlang),
    Answer = case Kind of
        $e -> format("~1000000tp", [Value]);
        $b -> Value
    end,
    {[0, Answer], Erlang1, Elixir}.

format(Format, Arguments) ->
    unicode:characters_to_binary(io_lib:format(Format, Arguments)).

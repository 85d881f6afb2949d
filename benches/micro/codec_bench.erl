%% The BEAM's side of the codec bench: it makes the reference terms and times binary_to_term and term_to_binary on them.
%% Commands come as lines on standard input: `terms DIR`, `time OPERATION NAME MICROSECONDS`.
-module(codec_bench).
-export([main/0]).

main() ->
    ok = io:setopts([binary]),
    %% A process of its own, whose heap has grown to what the terms need before anything is timed.
    spawn(fun() -> loop(#{}) end),
    receive stop -> ok end.

loop(Terms) ->
    case io:get_line("") of
        eof -> halt();
        Line ->
            case binary:split(string:trim(Line), <<" ">>, [global]) of
                [<<"terms">>, Dir] ->
                    All = maps:from_list([{atom_to_binary(N), {T, encode(T)}} || {N, T} <- terms()]),
                    [ok = file:write_file(filename:join(Dir, <<N/binary, ".etf">>), B)
                        || {N, {_, B}} <- maps:to_list(All)],
                    io:format("ok ~s~n", [erlang:system_info(otp_release)]),
                    loop(All);
                [<<"time">>, Operation, Name, Micros] ->
                    {Term, Bytes} = maps:get(Name, Terms),
                    Subject = case Operation of <<"decode">> -> Bytes; <<"encode">> -> Term end,
                    Goal = binary_to_integer(Micros) * 1000,
                    io:format("~.3f~n", [time(Operation, Subject, Goal, 1)]),
                    loop(Terms)
            end
    end.

%% Nanoseconds for one operation: as many as fill the time that was asked for.
time(Operation, Subject, Goal, Count) ->
    Start = erlang:monotonic_time(nanosecond),
    run(Operation, Subject, Count),
    Spent = erlang:monotonic_time(nanosecond) - Start,
    if
        Spent >= Goal -> Spent / Count;
        true -> time(Operation, Subject, Goal, max(2 * Count, min(1000 * Count, Count * Goal div max(Spent, 1))))
    end.

run(<<"decode">>, Bytes, Count) -> decode(Bytes, Count);
run(<<"encode">>, Term, Count) -> encode(Term, Count).

decode(_, 0) -> ok;
decode(Bytes, Count) -> binary_to_term(Bytes), decode(Bytes, Count - 1).

encode(_, 0) -> ok;
encode(Term, Count) -> encode(Term), encode(Term, Count - 1).

%% The form that every release since 26 writes: atoms in UTF-8.
encode(Term) -> term_to_binary(Term, [{minor_version, 2}]).

terms() ->
    rand:seed(exsss, {1, 2, 3}),
    [
        {rpc_small,
            {'$gen_call', {self(), [alias | make_ref()]}, {call, lists, seq, [1, 10], group_leader()}}},
        {ints10k, [N rem 1000 || N <- lists:seq(1, 10000)]},
        {ints_random, [rand:uniform(1000) - 1 || _ <- lists:seq(1, 10000)]},
        {i64_1k, [(1 bsl 59) + rand:uniform(1 bsl 58) || _ <- lists:seq(1, 1000)]},
        {map1k, maps:from_list([
            {list_to_atom("key_" ++ integer_to_list(N)), <<N:128>>}
         || N <- lists:seq(1, 1000)
        ])},
        {proplist, [section(N) || N <- lists:seq(1, 50)]},
        {telemetry, [event(N) || N <- lists:seq(1, 20)]},
        {real, real()},
        {bin1m, binary:copy(<<"0123456789abcdef">>, 65536)}
    ].

section(N) ->
    {list_to_atom("section_" ++ integer_to_list(N)), [
        {enabled, N rem 2 =:= 0},
        {level, lists:nth(N rem 4 + 1, [debug, info, warning, error])},
        {limits, [{max, N * 1000}, {min, N}, {ratio, N / 7}]},
        {hosts, [
            {"host" ++ integer_to_list(H), 4000 + H, [{weight, H}, {zone, east}]}
         || H <- lists:seq(1, 3)
        ]},
        {title, <<"the section with number ", (integer_to_binary(N))/binary>>}
    ]}.

event(N) ->
    #{
        '__struct__' => 'Elixir.MyApp.Telemetry.Event',
        name => [phoenix, endpoint, stop],
        time => 1700000000000000 + N * 1234567,
        measurements => #{duration => 1234567 + N, queue_time => 4321 * N, idle_time => N / 3},
        metadata => #{
            method => <<"GET">>,
            path => <<"/api/v1/items/", (integer_to_binary(N))/binary>>,
            status => 200 + N,
            route => 'Elixir.MyAppWeb.ItemController',
            request_id => <<"F3kq9d0Xb1m2n3p4">>,
            remote_ip => {127, 0, 0, N},
            error => nil,
            pid => self()
        }
    }.

%% What the running node says of its processes and tables, its applications and its modules: about 50 kB.
real() ->
    {
        [erlang:process_info(P) || P <- processes(), P =/= self()],
        [Row || Row <- ets:tab2list(ac_tab), not has_fun(Row)],
        [{M, F, proplists:get_value(attributes, M:module_info())} || {M, F} <- code:all_loaded()],
        [ets:info(Table) || Table <- ets:all()]
    }.

has_fun(Term) when is_function(Term) -> true;
has_fun(Term) when is_tuple(Term) -> lists:any(fun has_fun/1, tuple_to_list(Term));
has_fun([Head | Tail]) -> has_fun(Head) orelse has_fun(Tail);
has_fun(_) -> false.

%% The message law, on the BEAM's side: senders and receivers of numbered messages that judge what arrives while
%% connections are killed. The same in Rust is in tests/it/law.rs.
%%
%% A receiver links to its sender, monitors it and says go. From then on until the connection is lost, each message has
%% the number after that of the one before; when it is lost, exactly one 'EXIT' and one 'DOWN' come, with noconnection,
%% after all messages that came through it. Then numbers may have been lost, but none comes that is not new.
-module(foundation_law).
-export([start/0, seats/0, violations/0, finish/0, close/1]).

-define(READY, 1).
-define(DOWNS, 2).
-define(EXITS, 3).
-define(MESSAGES, 4).
-define(DONE, 5).
-define(FIELDS, 5).

start() ->
    Starter = self(),
    spawn(fun() -> register(law, self()), ets:new(law, [named_table, public]), Starter ! law, serve() end),
    receive law -> ok end.

serve() ->
    receive
        {start, Hub, Receivers, Senders, Window, LargeEvery} ->
            Seats = atomics:new(?FIELDS * length(Senders), []),
            true = ets:insert(law, [{seats, Seats, length(Senders)}, {violations, []}]),
            Made = [spawn(fun() -> sender(Window, LargeEvery) end) || _ <- Receivers],
            [spawn(fun() -> receiver(Sender, N * ?FIELDS, Seats, Window) end) ||
                {N, Sender} <- lists:zip(lists:seq(0, length(Senders) - 1), Senders)],
            ets:insert(law, {senders, Made}),
            Hub ! {senders, Made};
        {violation, What} ->
            ets:insert(law, {violations, [What | ets:lookup_element(law, violations, 2)]})
    end,
    serve().

%% What each receiver has counted.
seats() ->
    [{_, Seats, Count}] = ets:lookup(law, seats),
    [[atomics:get(Seats, N * ?FIELDS + Field) || Field <- lists:seq(1, ?FIELDS)] || N <- lists:seq(0, Count - 1)].

violations() -> ets:lookup_element(law, violations, 2).

finish() -> [Sender ! finish || Sender <- ets:lookup_element(law, senders, 2)], ok.

%% Closes the socket under the connection to Node, as a broken network would.
close(Node) ->
    case [Port || {_, Owner} <- [lists:keyfind(owner, 1, element(2, {ok, _} = net_kernel:node_info(Node)))],
                  Port <- element(2, process_info(Owner, links)), is_port(Port)] of
        [Port | _] -> port_close(Port);
        [] -> erlang:disconnect_node(Node)
    end.

sender(Window, LargeEvery) ->
    process_flag(trap_exit, true),
    sender(nobody, 1, 0, Window, LargeEvery).

sender(To, Next, Acknowledged, Window, LargeEvery) when To =:= nobody; Next - Acknowledged > Window; Next rem 64 =:= 0 ->
    Wait = if To =:= nobody; Next - Acknowledged > Window -> infinity; true -> 0 end,
    receive
        {go, Pid} -> sender(Pid, Next, Next - 1, Window, LargeEvery);
        {ack, N} -> sender(To, Next, max(N, Acknowledged), Window, LargeEvery);
        finish -> To ! {last, Next - 1}, receive stop -> ok end;
        {'EXIT', _, noconnection} -> sender(To, Next, Acknowledged, Window, LargeEvery)
    after Wait ->
        sender(To, send(To, Next, LargeEvery), Acknowledged, Window, LargeEvery)
    end;
sender(To, Next, Acknowledged, Window, LargeEvery) ->
    sender(To, send(To, Next, LargeEvery), Acknowledged, Window, LargeEvery).

send(To, Number, LargeEvery) ->
    Copies = case Number rem LargeEvery of 0 -> 10000 + Number rem 20000; _ -> 1 + Number rem 8 end,
    To ! {m, Number, binary:copy(<<Number:64>>, Copies)},
    Number + 1.

receiver(Sender, Seat, Seats, Window) ->
    process_flag(trap_exit, true),
    link(Sender),
    Monitor = monitor(process, Sender),
    Sender ! {go, self()},
    receiver(#{sender => Sender, seat => Seat, seats => Seats, window => max(Window div 4, 1)}, Monitor, linked, 0, new).

%% Last is the number that came last; Since is `new` until one has come since the connection was lost.
receiver(#{sender := Sender, seat := Seat, seats := Seats, window := Window} = S, Monitor, Linked, Last, Since) ->
    receive
        {m, N, Body} ->
            case N =:= Last + 1 orelse (Since =:= new andalso N > Last) of
                true -> ok;
                false -> violation(S, {came, N, 'after', Last, Since})
            end,
            case Body of
                <<N:64, _/binary>> when byte_size(Body) rem 8 =:= 0 -> N = binary:decode_unsigned(binary:part(Body, byte_size(Body), -8));
                _ -> violation(S, {body, N})
            end,
            atomics:add(Seats, Seat + ?MESSAGES, 1),
            if Since =:= new, Linked =:= linked -> atomics:put(Seats, Seat + ?READY, 1); true -> ok end,
            if N rem Window =:= 0 -> Sender ! {ack, N}; true -> ok end,
            receiver(S, Monitor, Linked, N, if Linked =:= linked -> old; true -> Since end);
        {'DOWN', Monitor, process, Sender, noconnection} ->
            atomics:put(Seats, Seat + ?READY, 0),
            atomics:add(Seats, Seat + ?DOWNS, 1),
            if Since =:= new -> timer:sleep(10); true -> ok end,
            Again = monitor(process, Sender),
            Sender ! {go, self()},
            receiver(S, Again, Linked, Last, new);
        {'EXIT', Sender, noconnection} when Linked =:= linked ->
            atomics:put(Seats, Seat + ?READY, 0),
            atomics:add(Seats, Seat + ?EXITS, 1),
            self() ! relink,
            receiver(S, Monitor, unlinked, Last, Since);
        relink ->
            link(Sender),
            receiver(S, Monitor, linked, Last, Since);
        {last, N} ->
            if N =:= Last -> ok; true -> violation(S, {ended_at, N, 'after', Last}) end,
            atomics:put(Seats, Seat + ?DONE, 1),
            receiver(S, Monitor, Linked, Last, Since);
        Other ->
            violation(S, {unexpected, Other}),
            receiver(S, Monitor, Linked, Last, Since)
    end.

violation(#{seat := Seat}, What) -> law ! {violation, {Seat div ?FIELDS, What}}.

%% Random schedules of signals between processes of this node and of another, whose observations are kept as text.
%%
%% The other node is a BEAM with this module, or a Rust node that plays the same part: a process `factory` that starts
%% actors. The driver of an episode, here, tells one actor at a time (or two that cross) what to do, and goes on when
%% everything that follows from it has arrived, so that what each actor sees depends on the schedule alone. The schedule
%% depends on the seed and on what is observed; so two runs with one seed are equal, or their first difference is a
%% difference of the two nodes.
%%
%% What orders the signals of a step: the actor that acted sends a marker to every other actor behind them, which is the
%% order that Erlang guarantees. What follows from them (the answer `noproc`, exits that spread) is waited for by round
%% trips through all actors, repeated as long as an actor ends.
-module(foundation_schedule).
-export([factory/0, start/4, progress/1, differences/2, ops/1, text/2]).

-define(SLOTS, [a1, a2, a3, b1, b2, b3]).
-define(PATIENCE, 60000).

%% ---- what runs on both nodes ----

factory() ->
    Starter = self(),
    spawn(fun() -> register(factory, self()), Starter ! factory, factory_loop() end),
    receive factory -> ok end.

factory_loop() ->
    receive
        {spawn, Driver, Ref} -> Driver ! {spawned, Ref, spawn(fun() -> actor(Driver, #{}, #{}) end)};
        {sync, Driver, Ref} -> Driver ! {sync, Ref, factory}
    end,
    factory_loop().

%% Monitors: Reference => Key. Aliases: Key => Reference.
actor(Driver, Monitors, Aliases) ->
    receive
        {do, Ref, Ops} ->
            {Results, {Monitors1, Aliases1}} = lists:mapfoldl(fun act/2, {Monitors, Aliases}, Ops),
            Driver ! {done, Ref, self(), Results},
            case lists:keyfind(stop, 1, Ops) of
                {stop, Reason} -> exit(Reason);
                false -> actor(Driver, Monitors1, Aliases1)
            end;
        {sync, Ref} ->
            Driver ! {sync, Ref, self()},
            actor(Driver, Monitors, Aliases);
        {marker, Ref, From} ->
            Driver ! {marker, Ref, From, self()},
            actor(Driver, Monitors, Aliases);
        {m, From, Number, Body} ->
            Driver ! {seen, self(), {m, From, Number, byte_size(Body)}},
            actor(Driver, Monitors, Aliases);
        {'EXIT', From, Reason} ->
            Driver ! {seen, self(), {exit, From, Reason}},
            actor(Driver, Monitors, Aliases);
        {'DOWN', Monitor, process, Object, Reason} ->
            Driver ! {seen, self(), {down, maps:get(Monitor, Monitors, unknown), Object, Reason}},
            actor(Driver, Monitors, Aliases)
    end.

act(Op, {Monitors, Aliases} = State) ->
    case Op of
        {link, Pid} -> link(Pid), {ok, State};
        {unlink, Pid} -> unlink(Pid), {ok, State};
        {monitor, Key, Object} ->
            Monitor = monitor(process, Object),
            {ok, {Monitors#{Monitor => Key}, Aliases#{Key => Monitor}}};
        {monitor, Key, Object, Kind} ->
            Monitor = erlang:monitor(process, Object, [{alias, Kind}]),
            {{alias, Monitor}, {Monitors#{Monitor => Key}, Aliases#{Key => Monitor}}};
        {demonitor, Key} -> demonitor(maps:get(Key, Aliases, make_ref())), {ok, State};
        {alias, Key, Kind} ->
            Alias = erlang:alias([Kind]),
            {{alias, Alias}, {Monitors, Aliases#{Key => Alias}}};
        {unalias, Key} -> {erlang:unalias(maps:get(Key, Aliases, make_ref())), State};
        {send, To, From, Number, Size} -> To ! {m, From, Number, binary:copy(<<$x>>, Size)}, {ok, State};
        {exit, Pid, Reason} -> exit(Pid, Reason), {ok, State};
        {register, Name} -> {try register(Name, self()), ok catch error:badarg -> badarg end, State};
        {unregister, Name} ->
            {try true = self() =:= whereis(Name), unregister(Name), ok catch error:_ -> badarg end, State};
        {trap, Trap} -> {process_flag(trap_exit, Trap), State};
        {links} -> {{links, element(2, process_info(self(), links))}, State};
        {marker, Pid, Ref} -> Pid ! {marker, Ref, self()}, {ok, State};
        {stop, _} -> {ok, State}
    end.

%% ---- the driver ----

%% Runs episodes First..Last of a seed with the actors b1..b3 on Node; at most Parallel at a time. Run names the table of results.
start(Run, Node, {Seed, First, Last, Steps, Features}, Parallel) ->
    Starter = self(),
    spawn(fun() ->
        ets:new(Run, [named_table, public, ordered_set]),
        ets:insert(Run, [{wanted, Last - First + 1}]),
        Starter ! Run,
        feed(Run, Node, Seed, Steps, Features, lists:seq(First, Last), Parallel)
    end),
    receive Run -> ok end.

%% The table lives as long as this.
feed(Run, Node, Seed, Steps, Features, [Episode | Rest], Free) when Free > 0 ->
    spawn_monitor(fun() -> ets:insert(Run, {Episode, episode(Node, Seed, Episode, Steps, Features)}) end),
    feed(Run, Node, Seed, Steps, Features, Rest, Free - 1);
feed(Run, Node, Seed, Steps, Features, Rest, Free) ->
    receive
        {'DOWN', _, process, _, normal} -> ok;
        {'DOWN', Failed, process, _, Reason} -> ets:insert(Run, {Failed, {0, [{crashed, Reason}]}})
    end,
    feed(Run, Node, Seed, Steps, Features, Rest, Free + 1).

%% {Finished, Wanted}.
progress(Run) ->
    {ets:info(Run, size) - 1, ets:lookup_element(Run, wanted, 2)}.

%% How many operations were carried out.
ops(Run) -> lists:sum([Ops || {_, {Ops, _}} <- ets:tab2list(Run)]).

text(Run, Episode) -> ets:lookup_element(Run, Episode, 2).

%% Episodes that differ, each with the first difference.
differences(One, Other) ->
    [{Episode, first_difference(Lines, case ets:lookup(Other, Episode) of [{_, {_, L}}] -> L; [] -> missing end)} ||
        {Episode, {_, Lines}} <- ets:tab2list(One), ets:lookup(Other, Episode) =/= ets:lookup(One, Episode)].

first_difference([Line | One], [Line | Other]) -> first_difference(One, Other);
first_difference(One, Other) -> {head(One), head(Other)}.

head(Lines) when is_list(Lines) -> lists:sublist(Lines, 2);
head(Other) -> Other.

%% The result: how many operations, and lines.
episode(Node, Seed, Number, Steps, Features) ->
    S0 = #{node => Node, random => rand:seed_s(exsss, {Seed, Number, 17}), features => Features, slots => #{},
           own_names => [list_to_atom(lists:concat([Name, Number rem 10000])) || Name <- [n, name]],
           pids => #{}, ended => #{}, seen => #{}, names => [], keys => [], aliases => #{}, next => 1, ops => 0,
           log => [], deaths => 0, step => 0},
    S1 = lists:foldl(fun spawn_actor/2, S0, ?SLOTS),
    S2 = steps(Steps, S1),
    %% The end: who is linked with whom, then all end, one after the other.
    S3 = lists:foldl(fun(Id, S) -> do([{Id, [{links}]}], S) end, S2, alive(S2)),
    S4 = lists:foldl(fun(Id, S) -> case is_alive(Id, S) of true -> do([{Id, [{stop, {final, Id}}]}], S); false -> S end end,
                     S3, alive(S3)),
    #{ops := Ops, log := Log, seen := Seen, ended := Ended} = S4,
    %% Whoever was ended by an exit may or may not have seen what else came of the same.
    Observed = [{saw, Id, by_sender([Event || {Step, Event} <- lists:reverse(Events),
                                              element(1, Event) =:= m orelse Step =/= maps:get({died, Id}, S4, none)])} ||
                   {Id, Events} <- lists:sort(maps:to_list(Seen))],
    {Ops, lists:reverse(Log) ++ [Line || {saw, _, [_ | _]} = Line <- Observed] ++ [{ended, lists:sort(maps:to_list(Ended))}]}.

%% What came from each sender, in order. A process that ends breaks its links and fires its monitors in no order.
by_sender(Events) ->
    Senders = lists:usort([sender(Event) || Event <- Events]),
    [{Sender, settle([Event || Event <- Events, sender(Event) =:= Sender], [])} || Sender <- Senders].

sender({m, From, _, _}) -> From;
sender({exit, From, _}) -> From;
sender({down, _, Object, _}) -> Object.

settle([{m, _, _, _} = Event | Rest], Ends) -> lists:sort(Ends) ++ [Event | settle(Rest, [])];
settle([Event | Rest], Ends) -> settle(Rest, [Event | Ends]);
settle([], Ends) -> lists:sort(Ends).

steps(0, S) -> S;
steps(N, S) ->
    {Kind, S1} = random(100, S),
    steps(N - 1, step(Kind, S1)).

step(Kind, S) ->
    Dead = [Slot || Slot <- ?SLOTS, not is_alive(current(Slot, S), S)],
    Alive = alive(S),
    if
        Dead =/= [] andalso (Kind rem 3 =:= 0 orelse length(Alive) < 3) ->
            {Slot, S1} = pick(Dead, S),
            spawn_actor(Slot, S1);
        Kind =< 15 -> own(S);
        Kind =< 27 -> crossing(S);
        Kind =< 34 -> dead_target(S);
        Kind =< 42 -> lethal(S);
        Kind =< 48 ->
            {Id, S1} = pick(Alive, S),
            {Reason, S2} = pick([normal, boom, shutdown, {r, Kind}, <<"why">>], S1),
            do([{Id, [{stop, Reason}]}], S2);
        true -> burst(S)
    end.

%% One actor does something that concerns only itself.
own(S) ->
    {Id, S1} = pick(alive(S), S),
    Aliases = case maps:get(features, S) of [aliases] -> [alias, unalias]; [] -> [] end,
    {What, S2} = pick([trap, trap, trap, register, register, unregister, links | Aliases], S1),
    {Op, S3} = case What of
        trap -> {Trap, T} = pick([true, true, false], S2), {{trap, Trap}, T};
        register -> {Name, T} = pick(maps:get(own_names, S2), S2), {{register, Name}, T};
        unregister -> {Name, T} = pick(maps:get(own_names, S2), S2), {{unregister, Name}, T};
        links -> {{links}, S2};
        alias -> {Kind, T} = pick([explicit_unalias, reply], S2), {Key, T1} = key(Id, T), {{alias, Key, Kind}, T1};
        unalias -> own_key(unalias, Id, S2)
    end,
    do([{Id, [Op]}], S3).

own_key(What, Id, S) ->
    case [Key || {Key, Owner} <- maps:get(keys, S), Owner =:= Id] of
        [] -> {{links}, S};
        Keys -> {Key, S1} = pick(Keys, S), {{What, Key}, S1}
    end.

%% One actor does several things to another, none of which can end that.
burst(S) ->
    {Id, S1} = pick(alive(S), S),
    {Target, S2} = pick(alive(S) -- [Id], S1),
    {Count, S3} = random(6, S2),
    {Ops, S4} = several(Count, Id, Target, S3),
    do([{Id, Ops}], S4).

several(0, _, _, S) -> {[], S};
several(N, Id, Target, S) ->
    {Op, S1} = harmless(Id, Target, S),
    {Ops, S2} = several(N - 1, Id, Target, S1),
    {[Op | Ops], S2}.

harmless(Id, Target, S) ->
    Aliases = case maps:get(features, S) of [aliases] -> [monitor_alias, send_alias, send_alias]; [] -> [] end,
    {What, S1} = pick([link, link, unlink, monitor, monitor, demonitor, send, send, exit_normal, exit_trapped | Aliases], S),
    case What of
        link -> {{link, Target}, S1};
        unlink -> {{unlink, Target}, S1};
        monitor ->
            {Object, S2} = object(Target, S1),
            {Key, S3} = key(Id, S2),
            {{monitor, Key, Object}, S3};
        monitor_alias ->
            {Object, S2} = object(Target, S1),
            {Key, S3} = key(Id, S2),
            {Kind, S4} = pick([explicit_unalias, demonitor, reply_demonitor], S3),
            {{monitor, Key, Object, Kind}, S4};
        demonitor -> case own_key(demonitor, Id, S1) of {{links}, S2} -> {{unlink, Target}, S2}; Found -> Found end;
        send -> {To, S2} = object(Target, S1), send(To, Id, S2);
        send_alias ->
            case [Key || {Key, Owner} <- maps:get(keys, S1), Owner =:= Target, maps:is_key(Key, maps:get(aliases, S1))] of
                [] -> send(Target, Id, S1);
                Keys -> {Key, S2} = pick(Keys, S1), send({alias, Key}, Id, S2)
            end;
        exit_normal -> {{exit, Target, normal}, S1};
        exit_trapped ->
            %% Whether it traps exits is what it said last.
            case maps:get({trap, Target}, S1, false) of
                true -> {Reason, S2} = pick([boom, shutdown, {r, 1}], S1), {{exit, Target, Reason}, S2};
                false -> {{unlink, Target}, S1}
            end
    end.

send(To, Id, S) ->
    {Large, S1} = random(60, S),
    {Number, S2} = number(S1),
    {{send, To, Id, Number, case Large of 1 -> 150000; _ -> Large end}, S2}.

%% The actor by pid, or by a name that it has.
object(Target, S) ->
    case [{name, Name, Side} || {Name, Side, Owner} <- maps:get(names, S), Owner =:= Target] of
        [] -> {Target, S};
        Names -> pick([Target | Names], S)
    end.

lethal(S) ->
    {Id, S1} = pick(alive(S), S),
    {Target, S2} = pick(alive(S) -- [Id], S1),
    {Reason, S3} = pick([kill, kill, boom, shutdown, {r, 2}], S2),
    do([{Id, [{exit, Target, Reason}]}], S3).

%% Something that is there no more, or never was.
dead_target(S) ->
    {Id, S1} = pick(alive(S), S),
    {Key, S2} = key(Id, S1),
    Side = side(Id),
    case lists:sort(maps:keys(maps:get(ended, S2))) of
        [] ->
            {Other, S3} = pick([a, b], S2),
            do([{Id, [{monitor, Key, {name, nobody, Other}}]}], S3);
        Ended ->
            {Target, S3} = pick(Ended, S2),
            %% A link to a process of the same node that is gone raises; that is no signal.
            Link = case side(Target) of Side -> [{unlink, Target}]; _ -> [{link, Target}, {link, Target}] end,
            {Op, S4} = pick([{monitor, Key, Target}, {unlink, Target}, {exit, Target, boom}, {send, Target, Id, 0, 1} | Link], S3),
            do([{Id, [Op]}], S4)
    end.

%% Two actors of different nodes act at once, in ways whose outcome does not depend on who is first.
crossing(S) ->
    case {[Id || Id <- alive(S), side(Id) =:= a], [Id || Id <- alive(S), side(Id) =:= b]} of
        {[_ | _] = As, [_ | _] = Bs} ->
            {A, S1} = pick(As, S),
            {B, S2} = pick(Bs, S1),
            {KeyA, S3} = key(A, S2),
            {KeyB, S4} = key(B, S3),
            {MA, S5} = send(B, A, S4),
            {MB, S6} = send(A, B, S5),
            Link = fun(To) -> {link, To} end,
            Unlink = fun(To) -> {unlink, To} end,
            {{OpsA, OpsB}, S7} = pick([
                {[Link(B)], [Link(A)]},
                {[Unlink(B)], [Unlink(A)]},
                {[Link(B), Unlink(B)], [Link(A), Unlink(A)]},
                {[Unlink(B), Link(B)], [Unlink(A), Link(A)]},
                {[Unlink(B), Link(B)], [Link(A)]},
                {[Link(B)], [Unlink(A), Link(A)]},
                {[Link(B), Unlink(B), Link(B)], [Unlink(A), Link(A)]},
                {[Unlink(B), Link(B), Unlink(B)], [Link(A), Unlink(A)]},
                {[{monitor, KeyA, B}, MA], [{monitor, KeyB, A}, MB]},
                {[MA, Link(B), {monitor, KeyA, B}, {demonitor, KeyA}], [MB, Link(A), MB]},
                {[{exit, B, normal}, MA, Link(B)], [MB, {monitor, KeyB, A}, {exit, A, normal}]}
            ], S6),
            do([{A, OpsA}, {B, OpsB}], S7);
        _ -> burst(S)
    end.

%% ---- carrying out ----

%% Lets the actors do what they are told, all at once, and waits until all of it has arrived.
do(Acts, #{ops := Ops, step := Step} = Now) ->
    S = Now#{step := Step + 1},
    Ref = make_ref(),
    Before = maps:get(deaths, S),
    Alive = alive(S),
    Markers = [{Id, Other} || {Id, _} <- Acts, Other <- Alive, Other =/= Id],
    [pid(Id, S) ! {do, Ref, [resolve(Op, S) || Op <- before_stop(Told)] ++
                            [{marker, pid(Other, S), Ref} || {By, Other} <- Markers, By =:= Id] ++
                            [Op || {stop, _} = Op <- Told]} || {Id, Told} <- Acts],
    S1 = wait(fun(T) -> [{done, Ref, Id} || {Id, _} <- Acts, is_alive(Id, T)] end, S),
    S2 = wait(fun(T) -> [{marker, Ref, By, Id} || {By, Id} <- Markers, is_alive(By, T), is_alive(Id, T)] end, S1),
    Lines = [{Id, Told, said(maps:get({result, Ref, Id}, S2, none), length(Told), S2)} || {Id, Told} <- Acts],
    S3 = lists:foldl(fun({Id, Told, Said}, T) -> learn(Id, Told, Said, T) end, S2, Lines),
    S4 = settled(2, Before, S3),
    Shown = [{Id, Told, [case R of {alias, _} -> alias; _ -> R end || R <- Said, is_alive(Id, S4)]} || {Id, Told, Said} <- Lines],
    Done = lists:sum([length(Told) || {_, Told} <- Acts]),
    #{log := Log} = S4,
    maps:without([Key || {result, R, _} = Key <- maps:keys(S4), R =:= Ref] ++ [{got, Ref}],
                 S4#{ops := Ops + Done, log := [{Shown, [I || I <- Alive, not is_alive(I, S4)]} | Log]}).

before_stop(Ops) -> [Op || Op <- Ops, element(1, Op) =/= stop].

%% The results of the operations, without those of the markers; an actor that ended on the way has said nothing.
said(none, _, _) -> [];
said(Results, Count, S) ->
    [case R of {links, Pids} -> {links, lists:sort([id(P, S) || P <- Pids])}; _ -> R end || R <- lists:sublist(Results, Count)].

%% What the driver has to know to choose well.
learn(Id, Ops, Results, S) ->
    lists:foldl(fun(Learnt, T) -> learn1(Id, Learnt, T) end, S, zip(Ops, Results)).

zip([A | As], [B | Bs]) -> [{A, B} | zip(As, Bs)];
zip(_, _) -> [].

learn1(Id, {{trap, Trap}, _}, S) -> S#{{trap, Id} => Trap};
learn1(Id, {{register, Name}, ok}, #{names := Names} = S) -> S#{names := [{Name, side(Id), Id} | Names]};
learn1(Id, {{unregister, Name}, ok}, #{names := Names} = S) -> S#{names := [N || N <- Names, N =/= {Name, side(Id), Id}]};
learn1(_, {Op, {alias, Alias}}, #{aliases := Aliases} = S) -> S#{aliases := Aliases#{element(2, Op) => Alias}};
learn1(_, _, S) -> S.

%% Round trips through all actors and both nodes: two after the last actor has ended.
settled(0, Deaths, #{deaths := Deaths} = S) -> S;
settled(_, Before, #{deaths := Now} = S) when Now > Before -> settled(2, Now, S);
settled(N, Before, S) ->
    Ref = make_ref(),
    {factory, maps:get(node, S)} ! {sync, self(), Ref},
    factory ! {sync, self(), Ref},
    Alive = alive(S),
    [pid(Id, S) ! {sync, Ref} || Id <- Alive],
    S1 = wait(fun(T) -> [{sync, Ref, factory, 2}] ++ [{sync, Ref, Id} || Id <- Alive, is_alive(Id, T)] end, S),
    settled(N - 1, Before, maps:remove({got, Ref}, S1)).

spawn_actor(Slot, #{slots := Slots, log := Log, pids := Pids} = S) ->
    Ref = make_ref(),
    To = case side(Slot) of a -> factory; b -> {factory, maps:get(node, S)} end,
    To ! {spawn, self(), Ref},
    Pid = receive {spawned, Ref, P} -> P after ?PATIENCE -> exit({stuck, spawn}) end,
    Id = {Slot, element(2, maps:get(Slot, Slots, {Slot, 0})) + 1},
    monitor(process, Pid),
    S#{slots := Slots#{Slot => Id}, pids := Pids#{Pid => Id, Id => Pid}, log := [{spawned, Id} | Log]}.

%% Takes in what arrives until nothing of what is wanted is missing.
wait(Wanted, S) ->
    case [W || W <- Wanted(S), not has(W, S)] of
        [] -> S;
        Missing ->
            receive Message -> wait(Wanted, take(Message, S))
            after ?PATIENCE -> exit({stuck, Missing, lists:sublist(maps:get(log, S), 3)})
            end
    end.

has({done, Ref, Id}, S) -> maps:is_key({result, Ref, Id}, S);
has({sync, Ref, factory, Count}, S) -> length([x || factory <- maps:get({got, Ref}, S, [])]) =:= Count;
has({sync, Ref, Id}, S) -> lists:member(Id, maps:get({got, Ref}, S, []));
has({marker, Ref, By, Id}, S) -> lists:member({By, Id}, maps:get({got, Ref}, S, [])).

take({done, Ref, Pid, Results}, S) -> S#{{result, Ref, id(Pid, S)} => Results};
take({sync, Ref, factory}, S) -> got(Ref, factory, S);
take({sync, Ref, Pid}, S) -> got(Ref, id(Pid, S), S);
take({marker, Ref, From, Pid}, S) -> got(Ref, {id(From, S), id(Pid, S)}, S);
take({seen, Pid, Event}, #{seen := Seen, step := Step} = S) ->
    Id = id(Pid, S),
    S#{seen := Seen#{Id => [{Step, named(Event, S)} | maps:get(Id, Seen, [])]}};
take({'DOWN', _, process, Pid, Reason}, #{ended := Ended, deaths := Deaths, names := Names, step := Step} = S) ->
    Id = id(Pid, S),
    S#{{died, Id} => Step, ended := Ended#{Id => named(Reason, S)}, deaths := Deaths + 1, names := [N || {_, _, Owner} = N <- Names, Owner =/= Id]}.

got(Ref, What, S) -> S#{{got, Ref} => [What | maps:get({got, Ref}, S, [])]}.

%% Pids as the actors that they are.
named(Pid, S) when is_pid(Pid) -> id(Pid, S);
named(Tuple, S) when is_tuple(Tuple) -> list_to_tuple([named(E, S) || E <- tuple_to_list(Tuple)]);
named(Other, _) -> Other.

resolve(Op, S) -> list_to_tuple([resolve1(E, S) || E <- resolved_first(tuple_to_list(Op))]).

%% The sender's id in a message stays what it is.
resolved_first([send, To, Id, Number, Size]) -> [send, To, {id, Id}, Number, Size];
resolved_first(Op) -> Op.

resolve1({id, Id}, _) -> Id;
resolve1({name, Name, a}, _) -> {Name, node()};
resolve1({name, Name, b}, S) -> {Name, maps:get(node, S)};
resolve1({alias, Key}, S) -> maps:get(Key, maps:get(aliases, S));
resolve1({Slot, N} = Id, S) when is_atom(Slot), is_integer(N) -> maps:get(Id, maps:get(pids, S), Id);
resolve1(Other, _) -> Other.

pid(Id, S) -> maps:get(Id, maps:get(pids, S)).
id(Pid, S) -> maps:get(Pid, maps:get(pids, S), stranger).
current(Slot, S) -> maps:get(Slot, maps:get(slots, S)).
is_alive(Id, S) -> not maps:is_key(Id, maps:get(ended, S)).
alive(S) -> [current(Slot, S) || Slot <- ?SLOTS, is_alive(current(Slot, S), S)].

side({Slot, _}) -> side(Slot);
side(Slot) -> case atom_to_list(Slot) of "a" ++ _ -> a; _ -> b end.

number(#{next := Next} = S) -> {Next, S#{next := Next + 1}}.

key(Owner, S) ->
    {Key, #{keys := Keys} = S1} = number(S),
    {Key, S1#{keys := [{Key, Owner} | Keys]}}.

random(Limit, #{random := Random} = S) ->
    {Value, Random1} = rand:uniform_s(Limit, Random),
    {Value, S#{random := Random1}}.

pick(List, S) ->
    {Index, S1} = random(length(List), S),
    {lists:nth(Index, List), S1}.

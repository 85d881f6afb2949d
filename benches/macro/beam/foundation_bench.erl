%% What a node offers to the measurements, and the measurements that it makes itself.
%%
%% Offered: `bench` (makes sinks), `echo` ({From, Message} -> Message), `server` (a gen_server), ping/0 for erpc.
%% Measurements: op/1 with a text such as "send node=b@127.0.0.1 senders=1 count=1000 size=16". The answer is a text such as
%% "us=1234 bad=0". The Rust side (src/peer.rs) offers the same and understands the same.
-module(foundation_bench).
-behaviour(gen_server).
-export([start/0, op/1, ping/0]).
-export([init/1, handle_call/3, handle_cast/2]).

-define(HORDE, 'Elixir.Horde.Registry').
-define(NAMES, 'Elixir.Bench.Names').
%% Where Horde keeps the names.
-define(NAMES_TABLE, 'keys_Elixir.Bench.Names').

start() ->
    Starter = self(),
    [spawn(fun() -> register(Name, self()), Starter ! {up, Name}, Loop() end)
     || {Name, Loop} <- [{bench, fun bench/0}, {echo, fun echo/0}]],
    [receive {up, Name} -> ok end || Name <- [bench, echo]],
    {ok, _} = gen_server:start({local, server}, ?MODULE, [], []),
    ok.

ping() -> pong.

init([]) -> {ok, nothing}.

handle_call(Request, _From, State) -> {reply, Request, State}.

handle_cast(_, State) -> {noreply, State}.

echo() ->
    receive {From, Message} -> From ! Message end,
    echo().

bench() ->
    receive
        {sink, From} -> From ! {sink, spawn(fun() -> sink(0, 0, 0) end)};
        {sink, From, PubSub, Topic} -> From ! {sink, subscribed(PubSub, Topic, fun() -> sink(0, 0, 0) end)}
    end,
    bench().

%% A process that is subscribed to a topic.
subscribed(PubSub, Topic, Loop) ->
    Self = self(),
    Pid = spawn(fun() -> ok = 'Elixir.Phoenix.PubSub':subscribe(PubSub, Topic), Self ! {subscribed, self()}, Loop() end),
    receive {subscribed, Pid} -> Pid end.

%% Counts messages and those that are out of order; -1 has no place in the order.
sink(Count, Next, Bad) ->
    receive
        {msg, Next, _} -> sink(Count + 1, Next + 1, Bad);
        {msg, -1, _} -> sink(Count + 1, Next, Bad);
        {msg, Other, _} -> sink(Count + 1, Other + 1, Bad + 1);
        {done, From} -> From ! {received, Count, Bad}
    end.

%% Operations.

op(Text) ->
    [Name | Options] = string:lexemes(Text, " "),
    Values = maps:from_list([list_to_tuple(string:split(Option, "=")) || Option <- Options]),
    Node = list_to_atom(maps:get("node", Values, "nonode@nohost")),
    Get = fun(Key) -> list_to_integer(maps:get(Key, Values)) end,
    iolist_to_binary(lists:join(" ", [[Key, "=", io_lib:format("~p", [Value])] || {Key, Value} <- op(Name, Node, Get)])).

op("link", Node, _) ->
    true = connect(Node),
    [{"ok", 1}];
op("send", Node, Get) ->
    send(fun() -> sink_of(Node) end, Get("senders"), Get("count"), Get("size"));
op("echo", Node, Get) ->
    Payload = binary:copy(<<"x">>, Get("size")),
    percentiles(in_own_process(fun() -> echoes(echo_of(Node), Payload, Get("count"), []) end));
op("call", Node, Get) ->
    callers(Get("callers"), Get("count"), fun() -> {x, 1} = gen_server:call({server, Node}, {x, 1}, 60000) end);
op("erpc", Node, Get) ->
    callers(Get("callers"), Get("count"), fun() -> pong = erpc:call(Node, ?MODULE, ping, []) end);
op("connect", Node, Get) ->
    percentiles([connect_anew(Node) || _ <- lists:seq(1, Get("count"))]);
op("hol", Node, Get) ->
    head_of_line(fun() -> sink_of(Node) end, echo_of(Node), Get("senders"), Get("size"), Get("millis"));

%% The same through Phoenix.PubSub, which the node must have.
op("open", _, Get) ->
    PubSub = pubsub(Get("pubsub")),
    {ok, Sup} = 'Elixir.Supervisor':start_link([{'Elixir.Phoenix.PubSub', [{name, PubSub}]}], [{strategy, one_for_one}]),
    true = unlink(Sup),
    subscribed(PubSub, topic(node()), fun echo/0),
    [{"ok", 1}];
op("joined", Node, Get) ->
    true = net_kernel:connect_node(Node),
    joined(Node, list_to_atom(atom_to_list(pubsub(Get("pubsub"))) ++ ".Adapter"), 500);
op("publish", Node, Get) ->
    PubSub = pubsub(Get("pubsub")),
    send(fun() -> topic_sink(Node, PubSub) end, Get("senders"), Get("count"), Get("size"));
op("topic_echo", Node, Get) ->
    Payload = binary:copy(<<"x">>, Get("size")),
    Echo = topic_echo(Node, pubsub(Get("pubsub"))),
    percentiles(in_own_process(fun() -> echoes(Echo, Payload, Get("count"), []) end));
op("topic_hol", Node, Get) ->
    PubSub = pubsub(Get("pubsub")),
    head_of_line(fun() -> topic_sink(Node, PubSub) end, topic_echo(Node, PubSub), Get("senders"), Get("size"), Get("millis"));

%% Names in Horde.Registry, which the node must have. It finds only what is on visible nodes.
op("names_link", Node, _) ->
    true = net_kernel:connect_node(Node),
    [{"ok", 1}];
op("names_open", Node, _) ->
    Options = [{name, ?NAMES}, {keys, unique}, {members, [{?NAMES, Member} || Member <- [node(), Node]]}],
    {ok, Sup} = ?HORDE:start_link(Options),
    true = unlink(Sup),
    register(names, spawn(fun names/0)),
    [{"ok", 1}];
op("names_near", Node, _) -> [{"near", boolean(lists:member(Node, nodes(connected)))}];
op("names_count", _, _) -> [{"names", ?HORDE:count(?NAMES)}];
op("names_register", _, Get) -> percentiles(names_register(Get("first"), Get("count"), 0));
op("names_paced", _, Get) -> percentiles(names_register(Get("first"), Get("count"), Get("every")));
op("names_fill", _, Get) ->
    spawn(fun() -> names_register(Get("first"), Get("count"), 0) end),
    [{"ok", 1}];
op("names_lookup", _, Get) ->
    Names = [name(N) || N <- lists:seq(Get("first"), Get("first") + Get("count") - 1)],
    Count = Get("count"),
    %% The fastest of the rounds: whatever else runs takes the processor in between.
    Fastest = lists:min([in_own_process(fun() -> names_lookup(Names) end) || _ <- lists:seq(1, Get("rounds"))]),
    [{"ns", Fastest / Count}];
op("names_seen", Node, Get) ->
    {Times, There} = lists:unzip([name_seen(Node, Get("first") + N) || N <- lists:seq(0, Get("count") - 1)]),
    {_, Middle} = lists:keyfind("p50", 1, percentiles(There)),
    [{"there", Middle} | percentiles(Times)];
op("names_memory", _, _) ->
    [erlang:garbage_collect(Pid) || Pid <- processes()],
    [{"bytes", erlang:memory(total)}].

names_lookup(Names) ->
    Start = erlang:monotonic_time(nanosecond),
    [[_] = ?HORDE:lookup(?NAMES, Name) || Name <- Names],
    erlang:monotonic_time(nanosecond) - Start.

boolean(true) -> 1;
boolean(false) -> 0.

name(N) -> <<"name:", (integer_to_binary(N))/binary>>.

%% 100 names in a row belong to one process: Horde keeps the names of a process in one list.
names_register(First, Count, Every) -> names_register(First, First + Count, Every, []).

names_register(First, End, _, Times) when First >= End -> lists:append(Times);
names_register(First, End, Every, Times) ->
    Next = min(End, (First div 100 + 1) * 100),
    Ran = run(holder(First div 100), fun() -> [name_register(N, Every) || N <- lists:seq(First, Next - 1)] end),
    names_register(Next, End, Every, [Ran | Times]).

name_register(N, Every) ->
    Every > 0 andalso timer:sleep(Every),
    Name = name(N),
    Start = now_us(),
    {ok, _} = ?HORDE:register(?NAMES, Name, nil),
    now_us() - Start.

holder(Number) ->
    Name = list_to_atom("holder" ++ integer_to_list(Number)),
    case whereis(Name) of
        undefined ->
            Pid = spawn(fun holder/0),
            true = register(Name, Pid),
            Pid;
        Pid -> Pid
    end.

holder() ->
    receive {run, From, Fun} -> From ! {self(), Fun()} end,
    holder().

run(Pid, Fun) ->
    Monitor = monitor(process, Pid),
    Pid ! {run, self(), Fun},
    receive
        {Pid, Value} -> demonitor(Monitor, [flush]), Value;
        {'DOWN', Monitor, _, _, Reason} -> error({holder, Reason})
    end.

%% Registered here, found there, and answered. The beat of who replicates does not know of this one.
name_seen(Node, N) ->
    timer:sleep(N * 137 rem 300),
    Name = name(N),
    {Start, Clock} = {now_us(), clock_us()},
    run(holder(N div 100), fun() -> {ok, _} = ?HORDE:register(?NAMES, Name, nil) end),
    {names, Node} ! {find, self(), Name},
    receive {found, Name, At} -> {now_us() - Start, At - Clock} after 60000 -> error({not_found, Name}) end.

%% All nodes of a run are on one machine, so that they have one clock.
clock_us() -> os:system_time(nanosecond) / 1000.

names() ->
    receive {find, From, Name} -> spawn(fun() -> find(From, Name) end) end,
    names().

%% When the name is there, as `select' shows it; and then until `lookup' has asked whether its process lives.
find(From, Name) ->
    case ets:member(?NAMES_TABLE, Name) of
        true -> find(From, Name, clock_us());
        false -> erlang:yield(), find(From, Name)
    end.

find(From, Name, At) ->
    case ?HORDE:lookup(?NAMES, Name) of
        [_] -> From ! {found, Name, At};
        [] -> erlang:yield(), find(From, Name, At)
    end.

pubsub(Number) -> list_to_atom("Elixir.Bench.PubSub" ++ integer_to_list(Number)).

%% Where the echo process of a node listens.
topic(Node) -> <<"echo:", (atom_to_binary(Node, utf8))/binary>>.

joined(Node, _, 0) -> error({not_joined, Node});
joined(Node, Group, Times) ->
    case lists:member(Node, [node(Pid) || Pid <- pg:get_members('Elixir.Phoenix.PubSub', Group)]) of
        true -> [{"ok", 1}];
        false -> timer:sleep(20), joined(Node, Group, Times - 1)
    end.

%% How to send to something on another node.
echo_of(Node) -> fun(Message) -> {echo, Node} ! Message end.

topic_echo(Node, PubSub) ->
    Topic = topic(Node),
    fun(Message) -> ok = 'Elixir.Phoenix.PubSub':broadcast(PubSub, Topic, Message) end.

sink_of(Node) ->
    {bench, Node} ! {sink, self()},
    receive {sink, Sink} -> fun(Message) -> Sink ! Message end end.

topic_sink(Node, PubSub) ->
    Topic = list_to_binary("sink:" ++ ref_to_list(make_ref())),
    {bench, Node} ! {sink, self(), PubSub, Topic},
    receive {sink, _} -> fun(Message) -> ok = 'Elixir.Phoenix.PubSub':broadcast(PubSub, Topic, Message) end end.

now_us() -> erlang:monotonic_time(nanosecond) / 1000.

%% A heap of its own, so that one measurement does not make the garbage collections of the next longer.
in_own_process(Fun) ->
    Self = self(),
    {Pid, Monitor} = spawn_monitor(fun() -> Self ! {self(), Fun()} end),
    receive
        {Pid, Value} -> demonitor(Monitor, [flush]), Value;
        {'DOWN', Monitor, _, _, Reason} -> error({measurement, Reason})
    end.

connect(Node) -> net_kernel:hidden_connect_node(Node).

connect_anew(Node) ->
    erlang:disconnect_node(Node),
    timer:sleep(5),
    Start = now_us(),
    true = connect(Node),
    now_us() - Start.

send(NewSink, Senders, Count, Size) ->
    Payload = binary:copy(<<"x">>, Size),
    Pids = [spawn_monitor(fun() ->
        Sink = NewSink(),
        receive go -> ok end,
        blast(Sink, 0, Count, Payload),
        exit({bad, acknowledged(Sink, Count)})
    end) || _ <- lists:seq(1, Senders)],
    timer:sleep(20),
    Start = now_us(),
    [Pid ! go || {Pid, _} <- Pids],
    Bad = lists:sum([receive {'DOWN', Ref, _, _, {bad, B}} -> B end || {_, Ref} <- Pids]),
    [{"us", now_us() - Start}, {"bad", Bad}].

blast(_, Count, Count, _) -> ok;
blast(Sink, N, Count, Payload) ->
    Sink({msg, N, Payload}),
    blast(Sink, N + 1, Count, Payload).

acknowledged(Sink, Count) ->
    Sink({done, self()}),
    receive {received, Received, Bad} -> Bad + abs(Count - Received) end.

echoes(_, _, 0, Times) -> Times;
echoes(Echo, Payload, Count, Times) ->
    Start = now_us(),
    Echo({self(), Payload}),
    receive Payload -> ok end,
    echoes(Echo, Payload, Count - 1, [now_us() - Start | Times]).

callers(Callers, Count, Call) ->
    Start = now_us(),
    Pids = [spawn_monitor(fun() -> exit({times, times(Count, Call, [])}) end) || _ <- lists:seq(1, Callers)],
    Times = lists:append([receive {'DOWN', Ref, _, _, {times, T}} -> T end || {_, Ref} <- Pids]),
    [{"us", now_us() - Start} | percentiles(Times)].

times(0, _, Times) -> Times;
times(Count, Call, Times) ->
    Start = now_us(),
    Call(),
    times(Count - 1, Call, [now_us() - Start | Times]).

%% Echoes are started every millisecond, whether or not earlier ones have come back, while others send large messages.
head_of_line(NewSink, Echo, Senders, Size, Millis) ->
    Payload = binary:copy(<<"x">>, Size),
    End = now_us() + Millis * 1000,
    Begin = now_us(),
    Pids = [spawn_monitor(fun() ->
        Sink = NewSink(),
        Count = bulk(Sink, 0, End, Payload),
        exit({sent, Count, acknowledged(Sink, Count)})
    end) || _ <- lists:seq(1, Senders)],
    Times = in_own_process(fun() -> pings(Echo, now_us() + 20000, End, 0, []) end),
    {Count, Bad} = lists:foldl(fun({_, Ref}, {Sum, Bads}) ->
        receive {'DOWN', Ref, _, _, {sent, C, B}} -> {Sum + C, Bads + B} end
    end, {0, 0}, Pids),
    [{"bulk", Count * Size / (now_us() - Begin)}, {"bad", Bad}, {"started", length(Times)} | percentiles(Times)].

bulk(Sink, N, End, Payload) ->
    case now_us() < End of
        true -> Sink({msg, N, Payload}), bulk(Sink, N + 1, End, Payload);
        false -> N
    end.

pings(Echo, Due, End, Open, Times) ->
    Now = now_us(),
    if
        Now >= End, Open =:= 0 -> Times;
        Now >= Due, Now < End ->
            %% Late by more than a timer is late: it was kept from starting, and that counts.
            Start = if Now - Due > 1500 -> Due; true -> Now end,
            Echo({self(), Start}),
            pings(Echo, Due + 1000, End, Open + 1, Times);
        true ->
            receive Start when is_float(Start) -> pings(Echo, Due, End, Open - 1, [now_us() - Start | Times])
            after 1 -> pings(Echo, Due, End, Open, Times)
            end
    end.

percentiles(Times) ->
    Sorted = lists:sort(Times),
    Length = length(Sorted),
    At = fun(Part) -> lists:nth(min(Length, trunc(Length * Part) + 1), Sorted) end,
    [{"p50", At(0.5)}, {"p99", At(0.99)}, {"p999", At(0.999)}].

%% A worker of a Phoenix.PubSub that answers what is broadcast on `control`, counts what comes on `data`, and takes the numbers on `events` down.
%%
%% Compiled, not given to erl_eval: OTP 29.1.1 crashes in its garbage collector when a fun that erl_eval interprets receives such tuples for a while,
%% about every second time, from another BEAM node as from this one. OTP 23, 25 and 27 do not.
-module(foundation_channels).
-export([worker/0]).

worker() ->
    worker(0, 0, 0).

%% Last is the last number, Gaps how many did not follow the one before.
worker(Bulk, Last, Gaps) ->
    receive
        {forward_to_local, <<"foundation:control">>, {From, N}, _} ->
            From ! N,
            worker(Bulk, Last, Gaps);
        {forward_to_local, <<"foundation:data">>, _, _} ->
            worker(Bulk + 1, Last, Gaps);
        {forward_to_local, <<"foundation:events">>, N, _} when N =:= Last + 1 ->
            worker(Bulk, N, Gaps);
        {forward_to_local, <<"foundation:events">>, N, _} ->
            worker(Bulk, N, Gaps + 1);
        {count, From} ->
            From ! {count, Bulk, Last, Gaps},
            worker(Bulk, Last, Gaps)
    end.

%% A worker of a Phoenix.PubSub that answers what is broadcast on one channel and counts what comes on another.
-module(foundation_channels).
-export([worker/0]).

worker() ->
    worker(0).

worker(Bulk) ->
    receive
        {forward_to_local, <<"foundation:control">>, {From, N}, _} ->
            From ! N,
            worker(Bulk);
        {forward_to_local, <<"foundation:data">>, _, _} ->
            worker(Bulk + 1);
        {count, From} ->
            From ! {count, Bulk},
            worker(Bulk)
    end.

%% An epmd_module that knows one other node, at the port given by -foundation_peer_port, and says that it speaks version 5 of the
%% distribution protocol: a node that was told so opens with `n`, if it still can (OTP 23 and 24).
-module(foundation_epmd_5).

-export([start_link/0, register_node/2, register_node/3, listen_port_please/2, address_please/3, port_please/2, port_please/3, names/1]).

start_link() -> erl_epmd:start_link().
register_node(Name, Port) -> erl_epmd:register_node(Name, Port).
register_node(Name, Port, Family) -> erl_epmd:register_node(Name, Port, Family).
listen_port_please(_Name, _Host) -> {ok, 0}.
address_please(_Name, _Host, _Family) -> {ok, {127, 0, 0, 1}, port(), 5}.
port_please(_Name, _Ip) -> {port, port(), 5}.
port_please(_Name, _Ip, _Timeout) -> {port, port(), 5}.
names(Host) -> erl_epmd:names(Host).

port() ->
    {ok, [[Port]]} = init:get_argument(foundation_peer_port),
    list_to_integer(Port).

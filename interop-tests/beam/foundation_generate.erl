%% Random terms from a seed, and the comparison of what came back for them: OTP is the judge.
-module(foundation_generate).
-export([batch/2, compare/3]).

%% Count terms as {packet, 4}-like pieces: <<Length:32, term_to_binary(T)/binary>>, in all the forms that OTP writes.
batch(Seed, Count) ->
    rand:seed(exsss, Seed),
    iolist_to_binary([piece(term_to_binary(T, options())) || _ <- lists:seq(1, Count), T <- [term(4)]]).

piece(Bytes) -> [<<(byte_size(Bytes)):32>>, Bytes].

options() ->
    case rand:uniform(6) of
        1 -> [{minor_version, 0}];
        2 -> [{minor_version, 1}];
        3 -> [{minor_version, 2}];
        4 -> [compressed];
        5 -> case list_to_integer(erlang:system_info(otp_release)) >= 25 of true -> [deterministic]; false -> [] end;
        6 -> []
    end.

%% How many of the pieces that came back are other terms than those of the same seed, and the first of them.
compare(Seed, Count, Back) ->
    rand:seed(exsss, Seed),
    compare(Count, Back, 0, none).

compare(0, <<>>, Different, First) -> {Different, First};
compare(Count, <<Length:32, Bytes:Length/binary, Rest/binary>>, Different, First) ->
    T = term(4),
    _ = options(),
    case catch binary_to_term(Bytes) of
        T -> compare(Count - 1, Rest, Different, First);
        Other -> compare(Count - 1, Rest, Different + 1, case First of none -> {T, Other}; _ -> First end)
    end.

term(Depth) ->
    case rand:uniform(if Depth > 0 -> 16; true -> 11 end) of
        1 -> rand:uniform(256) - 1;
        2 -> rand:uniform(1 bsl 32) - (1 bsl 31);
        3 -> sign() * (rand:uniform(1 bsl 62) bsl rand:uniform(300));
        4 -> (rand:uniform() - 0.5) * math:pow(10, rand:uniform(600) - 300);
        5 -> atom();
        6 -> << <<(rand:uniform(256) - 1)>> || _ <- lists:seq(1, rand:uniform(40) - 1) >>;
        7 -> Size = rand:uniform(70), <<(rand:uniform(1 bsl 62)):Size>>;
        8 -> [rand:uniform(256) - 1 || _ <- lists:seq(1, rand:uniform(40))];
        9 -> element(rand:uniform(4), {[], {}, #{}, ''});
        10 -> identifier();
        11 -> element(rand:uniform(3), {fun lists:map/2, fun erlang:node/0, true});
        12 -> [term(Depth - 1) || _ <- lists:seq(1, rand:uniform(6))];
        13 -> list_to_tuple([term(Depth - 1) || _ <- lists:seq(1, rand:uniform(6))]);
        14 -> maps:from_list([{term(Depth - 1), term(Depth - 1)} || _ <- lists:seq(1, rand:uniform(6))]);
        15 -> [term(Depth - 1) | term(Depth - 1)];
        16 -> maps:from_list([{{K, atom()}, term(0)} || K <- lists:seq(1, 20 + rand:uniform(40))])
    end.

sign() -> element(rand:uniform(2), {1, -1}).

%% Few different ones: a node may hold only so many atoms.
atom() ->
    element(rand:uniform(8), {a, ok, error, 'Hello World', 'åäö', '€uro', 'Elixir.Enum', undefined}).

%% None on OTP 23: it refuses V4_PORT_EXT, the form in which this side and OTP 26 and later write ports, and pids beyond 15 and 13 bits.
identifier() ->
    case list_to_integer(erlang:system_info(otp_release)) of
        23 -> atom();
        _ -> wide_identifier()
    end.

wide_identifier() ->
    Node = <<119, 13, "n29@127.0.0.1">>,
    Creation = rand:uniform(1 bsl 32) - 1,
    Bytes = case rand:uniform(3) of
        1 -> <<88, Node/binary, (rand:uniform(1 bsl 15) - 1):32, (rand:uniform(1 bsl 13) - 1):32, Creation:32>>;
        2 -> <<90, 3:16, Node/binary, Creation:32, (rand:uniform(1 bsl 18) - 1):32, (rand:uniform(1 bsl 32) - 1):32, 7:32>>;
        3 -> <<89, Node/binary, (rand:uniform(1 bsl 28) - 1):32, Creation:32>>
    end,
    binary_to_term(<<131, Bytes/binary>>).

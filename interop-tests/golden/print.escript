#!/usr/bin/env escript
%% Terms and how they print: `ERL_FLAGS="+pc unicode" escript print.escript COUNT SEED > otp-NN/print.tsv`.
%%
%% One line a term, four columns separated by tabs: the external term format in hexadecimal, and what ~w, ~p and ~tp make of
%% it at 80 columns, with \n and \\ for line breaks and backslashes. First come fixed terms, then COUNT random ones.
-mode(compile).

main([Count, Seed]) ->
    io:setopts(standard_io, [{encoding, unicode}]),
    unicode = io:printable_range(),
    rand:seed(exsss, list_to_integer(Seed)),
    [line(T) || T <- fixed()],
    [line(term(rand:uniform(rand:uniform(30)))) || _ <- lists:seq(1, list_to_integer(Count))].

line(Term) ->
    Hex = [io_lib:format("~2.16.0b", [B]) || <<B>> <= term_to_binary(Term)],
    Texts = [["\t", escape(lists:flatten(io_lib:format(F, [Term])))] || F <- ["~w", "~p", "~tp"]],
    io:put_chars([Hex, Texts, "\n"]).

escape(Text) ->
    lists:flatmap(fun($\n) -> "\\n"; ($\\) -> "\\\\"; (C) -> [C] end, Text).

%% What random terms would hardly hit.
fixed() ->
    Nested = lists:foldl(fun(N, T) -> {list_to_atom("tag" ++ integer_to_list(N)), N, T} end, x, lists:seq(1, 30)),
    Lists = lists:foldl(fun(N, T) -> [N, T] end, [], lists:seq(1, 40)),
    Maps = lists:foldl(fun(N, T) -> #{key => N, value => T} end, [], lists:seq(1, 20)),
    Free = {1, a},
    [[], {}, #{}, <<>>, "", 'maybe x', fun lists:map/2, fun 'A b':'C d'/3, fun(X) -> {X, Free} end, self(), make_ref(),
     hd(erlang:ports()), Nested, Lists, Maps, <<"latin \351">>, <<"utf8 é €"/utf8>>, "list é", [8364, $a], <<1:1>>,
     <<1, 2, 5:3>>, [a | b], [1, 2 | <<"x">>], list_to_tuple([nested | lists:duplicate(3, Nested)]), lists:seq(1, 200),
     list_to_binary(lists:seq(0, 255)), lists:seq(32, 126), lists:duplicate(100, "text"), -0.0, 1.0e22, 123456.789,
     9007199254740992.0, 1.0e-7, 1 bsl 63, -(1 bsl 63), -(1 bsl 63) - 1, 1 bsl 64, 1 bsl 2000, -(7 bsl 3000)]
        ++ [list_to_atom([C]) || C <- lists:seq(0, 255)] ++ [list_to_atom([$a, C]) || C <- lists:seq(0, 255)]
        ++ [[C] || C <- lists:seq(0, 255)] ++ [<<C>> || C <- lists:seq(0, 255)] ++ [<<C/utf8>> || C <- lists:seq(128, 300)]
        ++ ['after', 'and', 'andalso', 'band', 'begin', 'bnot', 'bor', 'bsl', 'bsr', 'bxor', 'case', 'catch', 'cond', 'div',
            'end', 'fun', 'if', 'let', 'not', 'of', 'or', 'orelse', 'receive', 'rem', 'try', 'when', 'xor', query, spec]
        ++ alias_reference() ++ records().

%% Native records exist since OTP 29, and this file is read by earlier releases, too.
records() ->
    Record = fun(Name, Value) ->
                 <<131, 67, 2:32, 1, 119, 3, "gtr", 119, (byte_size(Name)), Name/binary, 119, 1, "x", 119, 11,
                   "long field!", 97, 5, (binary_part(term_to_binary(Value), 1, byte_size(term_to_binary(Value)) - 1))/binary>>
             end,
    [binary_to_term(Record(Name, Value))
     || list_to_integer(erlang:system_info(otp_release)) >= 29,
        Name <- [<<"p">>, <<"a_rather_long_name_of_a_record">>],
        Value <- [hello, lists:seq(1, 40), [{a, lists:seq(1, 40)}], #{a => lists:seq(1, 40)}]].

alias_reference() ->
    case erlang:function_exported(erlang, alias, 0) of
        true -> [erlang:alias()];
        false -> []
    end.

%% A term of about Size leaves.
term(Size) when Size =< 1 -> leaf();
term(Size) ->
    case rand:uniform(13) of
        1 -> parts(Size);
        2 -> parts(Size);
        3 -> parts(Size);
        4 -> list_to_tuple(parts(Size));
        5 -> list_to_tuple([atom() | parts(Size)]);
        6 -> list_to_tuple([atom() | parts(Size)]);
        7 -> maps:from_list([{leaf(), T} || T <- parts(Size)]);
        8 -> maps:from_list([{atom(), T} || T <- parts(Size)]);
        9 -> maps:from_list([{T, leaf()} || T <- parts(Size)]);
        10 -> [{atom(), T} || T <- parts(Size)];
        11 -> parts(Size) ++ tail(leaf());
        12 -> [term(Size - 1)];
        13 -> {atom(), term(Size - 1)}
    end.

tail([]) -> x;
tail(Leaf) -> Leaf.

parts(Size) when Size =< 0 -> [];
parts(Size) ->
    Part = rand:uniform(Size),
    [term(Part) | parts(Size - Part)].

leaf() ->
    case rand:uniform(16) of
        1 -> atom();
        2 -> atom();
        3 -> atom();
        4 -> rand:uniform(1000);
        5 -> rand:uniform(1 bsl 40) - (1 bsl 39);
        6 -> rand:uniform(1 bsl (64 + rand:uniform(200)));
        7 -> float();
        8 -> [rand:uniform(95) + 31 || _ <- lists:seq(1, rand:uniform(60))];
        9 -> << <<(rand:uniform(95) + 31)>> || _ <- lists:seq(1, rand:uniform(60)) >>;
        10 -> rand:bytes(rand:uniform(60));
        11 -> << <<(160 + rand:uniform(95))/utf8>> || _ <- lists:seq(1, rand:uniform(10)) >>;
        12 -> <<(rand:bytes(rand:uniform(4)))/binary, (rand:uniform(128) - 1):(rand:uniform(7))>>;
        13 -> list_to_pid("<0." ++ integer_to_list(rand:uniform(30000)) ++ "." ++ integer_to_list(rand:uniform(100)) ++ ">");
        14 -> [160 + rand:uniform(200) || _ <- lists:seq(1, rand:uniform(10))];
        15 -> element(rand:uniform(4), {[], {}, #{}, <<>>});
        16 -> element(rand:uniform(3), {make_ref(), fun lists:foldl/3, nil})
    end.

float() ->
    case rand:uniform(4) of
        1 -> rand:uniform();
        2 -> rand:uniform(1000000) / 100;
        3 -> float(rand:uniform(1 bsl 60));
        4 -> (rand:uniform() - 0.5) * math:pow(10, rand:uniform(600) - 300)
    end.

atom() ->
    element(rand:uniform(12), {ok, error, a, undefined, 'Elixir.Foo', 'hello world', some_longer_name, true, 'é',
                               a_rather_long_name_of_an_atom_that_takes_room, '€', b}).

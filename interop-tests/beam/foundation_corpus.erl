%% The terms whose encodings, hashes, order and printed forms are kept as golden files: every tag that OTP emits, and
%% both sides of every boundary between two tags.
-module(foundation_corpus).
-export([corpus/0, terms/0, encodings/0, order/0, printed/0]).

%% {Name, Term}. Nothing in here depends on the node that evaluates it, except what starts with local_.
corpus() ->
    integers() ++ floats() ++ atoms() ++ containers() ++ binaries() ++ maps() ++ identifiers() ++ functions() ++
        records() ++ messages() ++ local().

integers() ->
    [{lists:concat(["integer_", Name]), N} || {Name, N} <-
        [{zero, 0}, {one, 1}, {minus_one, -1}, {byte_max, 255}, {byte_over, 256}, {int_max, 1 bsl 31 - 1},
         {int_over, 1 bsl 31}, {int_min, -(1 bsl 31)}, {int_under, -(1 bsl 31) - 1}, {phash_max, 1 bsl 27 - 1},
         {phash_over, 1 bsl 27}, {phash_min, -(1 bsl 27)}, {phash_under, -(1 bsl 27) - 1}, {u32_max, 1 bsl 32 - 1},
         {u32_over, 1 bsl 32}, {small_max, 1 bsl 59 - 1}, {small_over, 1 bsl 59}, {small_min, -(1 bsl 59)},
         {small_under, -(1 bsl 59) - 1}, {i64_max, 1 bsl 63 - 1}, {i64_over, 1 bsl 63}, {i64_min, -(1 bsl 63)},
         {i64_under, -(1 bsl 63) - 1}, {u64_max, 1 bsl 64 - 1}, {u64_over, 1 bsl 64}, {minus_u64_max, -(1 bsl 64) + 1},
         {minus_u64_over, -(1 bsl 64)}, {i128, 1 bsl 127 - 1}, {decimal, 123456789012345678901234567890},
         {small_big_max, 1 bsl 2040 - 1}, {large_big, 1 bsl 2040}, {minus_large_big, -(1 bsl 2040) - 7}]].

floats() ->
    [{float_zero, 0.0}, {float_minus_zero, external(<<70, 1:1, 0:63>>)}, {float_one, 1.0}, {float_minus, -1.5}, {float_third, 1 / 3},
     {float_tenth, 0.1}, {float_pi, 3.141592653589793}, {float_max, 1.7976931348623157e308},
     {float_min, 2.2250738585072014e-308}, {float_denormal, 5.0e-324}, {float_large_integer, 9007199254740993.0},
     {float_1e21, 1.0e21}, {float_1e22, 1.0e22}, {float_1e23, 1.0e23}, {float_small, 1.0e-7}, {float_123456, 123456.789}].

atoms() ->
    [{atom_a, a}, {atom_empty, ''}, {atom_true, true}, {atom_nil, nil}, {atom_quoted, 'Hello World'},
     {atom_latin1, 'åäö'}, {atom_utf8, '€uro'}, {atom_emoji, list_to_atom([16#1F600])}, {atom_reserved, 'receive'},
     {atom_at, 'n@host'}, {atom_escape, 'a\n\'b\\'}, {atom_elixir, 'Elixir.Foundation.Node'}, {atom_operator, '+'},
     {atom_255, list_to_atom(lists:duplicate(255, $x))}, {atom_255_latin1, list_to_atom(lists:duplicate(255, 229))},
     {atom_255_utf8, list_to_atom(lists:duplicate(255, 16#20AC))}, {atom_128_latin1, list_to_atom(lists:duplicate(128, 229))}].

containers() ->
    [{tuple_0, {}}, {tuple_1, {a}}, {tuple_2, {ok, 42}}, {tuple_255, list_to_tuple(lists:duplicate(255, 1))},
     {tuple_256, list_to_tuple(lists:duplicate(256, 1))}, {tuple_nested, {{{{}}}, {}}},
     {list_nil, []}, {list_atom, [a]}, {list_nested, [[[[]]], []]}, {list_improper, [1 | 2]},
     {list_improper_long, [a, b, c | d]}, {list_mixed, [1, 2.0, three, "four", <<"five">>, {six}, [seven], #{eight => 9}]},
     {list_negative, [-1, -2, -3]}, {list_256, [1, 2, 256]}, {list_bytes_improper, [1, 2 | 3]},
     {string_1, "a"}, {string_abc, "abc"}, {string_zero, [0]}, {string_255, [255, 254]}, {string_unicode, "h€j"},
     {string_65535, lists:duplicate(65535, $a)}, {string_65536, lists:duplicate(65536, $a)},
     {string_quotes, "a\"b\\c\n\t\e"}, {keyword, [{name, "x"}, {size, 3}, {nested, [{a, 1}]}]},
     {proplist, [compressed, {minor_version, 2}, {deterministic, true}]}].

binaries() ->
    [{binary_empty, <<>>}, {binary_1, <<0>>}, {binary_text, <<"hello">>}, {binary_utf8, <<"h€j"/utf8>>},
     {binary_bytes, <<255, 254, 0, 1>>}, {binary_256, binary:copy(<<7>>, 256)}, {binary_70000, binary:copy(<<0>>, 70000)},
     {binary_quotes, <<"a\"b\\c\n">>}] ++
        [{lists:concat(["bits_", N]), <<16#2a5:N>>} || N <- [1, 2, 3, 4, 5, 6, 7, 9, 15, 17]].

maps() ->
    [{map_0, #{}}, {map_1, #{a => 1}}, {map_mixed, #{1 => a, 1.0 => b, "k" => c, <<"k">> => d, {t} => e, [] => f}},
     {map_nested, #{a => #{b => #{c => #{}}}}}, {map_32, maps:from_list([{N, N} || N <- lists:seq(1, 32)])},
     {map_33, maps:from_list([{N, N} || N <- lists:seq(1, 33)])}, {map_100, maps:from_list([{{k, N}, N} || N <- lists:seq(1, 100)])},
     {map_atom_keys, #{zebra => 1, apple => 2, 'Mango' => 3}},
     {struct_range, #{'__struct__' => 'Elixir.Range', first => 1, last => 5, step => 1}},
     {struct_date, #{'__struct__' => 'Elixir.Date', calendar => 'Elixir.Calendar.ISO', year => 2024, month => 2, day => 29}}].

%% Identifiers of other nodes, from their bytes: the same on every release that accepts them.
identifiers() ->
    [{pid_foreign, external(<<88, (node_atom())/binary, 11:32, 0:32, 16#6b00bf45:32>>)},
     {pid_foreign_serial, external(<<88, (node_atom())/binary, 523:32, 7:32, 1:32>>)},
     {pid_old, external(<<103, (node_atom())/binary, 11:32, 0:32, 2>>)},
     {reference_3, external(<<90, 3:16, (node_atom())/binary, 16#6b00bf45:32, 16#27f16:32, 16#e4880001:32, 16#4cf0b8e7:32>>)},
     {reference_1, external(<<90, 1:16, (node_atom())/binary, 1:32, 5:32>>)},
     {reference_old, external(<<114, 3:16, (node_atom())/binary, 2, 5:32, 6:32, 7:32>>)},
     {port_foreign, external(<<89, (node_atom())/binary, 17:32, 16#6b00bf45:32>>)}] ++
        wide_identifiers().

wide_identifiers() ->
    case otp() >= 24 of
        true ->
            [{pid_wide, external(<<88, (node_atom())/binary, 16#ffffffff:32, 16#ffffffff:32, 16#ffffffff:32>>)},
             {reference_5, external(<<90, 5:16, (node_atom())/binary, 1:32, 16#27f16:32, 2:32, 3:32, 4:32, 16#ffffffff:32>>)},
             {port_wide, external(<<120, (node_atom())/binary, 16#123456789a:64, 16#6b00bf45:32>>)}];
        false -> []
    end.

functions() ->
    [{fun_export, fun lists:map/2}, {fun_export_elixir, fun 'Elixir.Enum':map/2}, {fun_export_255, fun m:f/255}].

records() ->
    case otp() >= 29 of
        true ->
            [{record_exported, external(<<67, 2:32, 1, 119, 3, "dtr", 119, 2, "pt", 119, 1, "x", 119, 1, "y", 97, 5, 119, 5, "hello">>)},
             {record_private, external(<<67, 1:32, 0, 119, 3, "dtr", 119, 4, "priv", 119, 1, "z", 119, 3, "nil">>)}];
        false -> []
    end.

%% Shapes that cross the wire all day.
messages() ->
    Pid = external(<<88, (node_atom())/binary, 11:32, 0:32, 1:32>>),
    Ref = external(<<90, 3:16, (node_atom())/binary, 1:32, 1:32, 2:32, 3:32>>),
    [{gen_call, {'$gen_call', {Pid, [alias | Ref]}, {get, <<"key">>}}}, {gen_cast, {'$gen_cast', {put, key, [1, 2, 3]}}},
     {gen_reply, {[alias | Ref], {ok, value}}}, {down, {'DOWN', Ref, process, Pid, noconnection}}, {exit, {'EXIT', Pid, {shutdown, bye}}},
     {rpc_result, {Ref, return, [1, 2, 3]}}, {error_stack, {badarith, [{erlang, '/', [1, 0], [{error_info, #{module => erl_erts_errors}}]}, {m, f, 1, [{file, "m.erl"}, {line, 7}]}]}},
     {telemetry, #{event => [vm, memory], measurements => #{total => 123456, ets => 4.5}, metadata => #{node => 'n@h', tags => [<<"a">>, <<"b">>]}}}].

%% Of the node that was captured: its own identifiers and funs.
local() ->
    N = 42,
    [{local_pid, self()}, {local_reference, make_ref()}, {local_port, hd(erlang:ports())}, {local_fun, fun(X) -> X + N end},
     {local_fun_0, fun() -> ok end}] ++
        case otp() >= 24 of true -> [{local_alias, apply(erlang, alias, [])}]; false -> [] end.

node_atom() -> <<119, 13, "n29@127.0.0.1">>.

external(Bytes) -> binary_to_term(<<131, Bytes/binary>>).

otp() -> list_to_integer(erlang:system_info(otp_release)).

%% name <TAB> phash2(T) <TAB> phash2(T, 2^32)
terms() ->
    [io_lib:format("~s\t~w\t~w\n", [Name, erlang:phash2(T), erlang:phash2(T, 1 bsl 32)]) || {Name, T} <- corpus(), not is_local(Name)].

%% name <TAB> options of term_to_binary <TAB> hex, with runs of one byte as {xx*count}
encodings() ->
    Options = [{"default", []}, {"minor_0", [{minor_version, 0}]}, {"minor_1", [{minor_version, 1}]},
               {"minor_2", [{minor_version, 2}]}, {"compressed", [compressed]}] ++
        case otp() >= 25 of true -> [{"deterministic", [deterministic]}]; false -> [] end,
    [encoding(Name, T, Options) || {Name, T} <- corpus()].

%% Equal bytes are written once, under the first option that gave them.
encoding(Name, T, Options) ->
    {Lines, _} = lists:foldl(fun({Option, List}, {Acc, Seen}) ->
        Bytes = term_to_binary(T, List),
        case lists:member(Bytes, Seen) of
            true -> {Acc, Seen};
            false -> {[Acc, io_lib:format("~s\t~s\t~s\n", [Name, Option, hex(Bytes)])], [Bytes | Seen]}
        end
    end, {[], []}, Options),
    Lines.

%% Names in Erlang's term order; equal (==) terms stand on one line.
order() ->
    Sorted = lists:sort(fun({_, A}, {_, B}) -> A =< B end, [P || {Name, _} = P <- corpus(), not is_local(Name)]),
    order(Sorted).

order([]) -> [];
order([{Name, T} | Rest]) ->
    {Equal, More} = lists:splitwith(fun({_, U}) -> U == T end, Rest),
    [lists:join(" ", [io_lib:format("~s", [N]) || {N, _} <- [{Name, T} | Equal]]), "\n" | order(More)].

%% name <TAB> ~w <TAB> ~p at 80 columns; newlines, tabs and backslashes escaped. Without what takes pages, and
%% without identifiers: they print with a number that the printing node gave their node.
printed() ->
    [io_lib:format("~s\t~ts\t~ts\n", [Name, escape(W), escape(io_lib:format("~p", [T]))])
     || {Name, T} <- corpus(), not is_local(Name), W <- [lists:flatten(io_lib:format("~w", [T]))], length(W) < 2000,
        lists:all(fun(Identifier) -> string:find(W, Identifier) =:= nomatch end, ["<8", "<9", "<1", "#Ref<", "#Port<"])].

is_local(Name) when is_atom(Name) -> lists:prefix("local_", atom_to_list(Name));
is_local(_) -> false.

escape(Text) ->
    lists:map(fun($\n) -> "\\n"; ($\t) -> "\\t"; ($\\) -> "\\\\"; (C) -> C end, lists:flatten(Text)).

hex(<<>>) -> [];
hex(<<B, Rest/binary>>) ->
    case run(B, Rest, 1) of
        {Count, After} when Count >= 32 -> [io_lib:format("{~2.16.0b*~w}", [B, Count]) | hex(After)];
        _ -> [io_lib:format("~2.16.0b", [B]) | hex(Rest)]
    end.

run(B, <<B, Rest/binary>>, Count) -> run(B, Rest, Count + 1);
run(_, Rest, Count) -> {Count, Rest}.

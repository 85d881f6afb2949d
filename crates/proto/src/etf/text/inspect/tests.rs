use crate::Limits;
use crate::etf::text::{Printer, inspect, parse_erlang};
use crate::etf::{Atom, Pid, Term};

fn term(erlang: &str) -> Term {
    parse_erlang(erlang, &Limits::default()).unwrap_or_else(|error| panic!("{erlang}: {error}"))
}

#[test]
fn terms_as_elixir_inspects_them() {
    // As printed by Elixir 1.14 and 1.20 with `limit: :infinity`, except that 1.14 writes 'abc' for ~c"abc".
    for (erlang, elixir) in [
        (
            "[ok, 'a b', nil, true, 'Elixir.Foo', 'Foo', 'Elixir.foo']",
            r#"[:ok, :"a b", nil, true, Foo, :Foo, :"Elixir.foo"]"#,
        ),
        (
            "['a?', 'a!', 'a@b', '+', '++', '', 'a?b', 'Elixir.Foo.Bar', 'Elixir']",
            r#"[:a?, :a!, :a@b, :+, :++, :"", :"a?b", Foo.Bar, Elixir]"#,
        ),
        (
            "['{}', '%{}', '<<>>', '..//', '|>', 'a-b', '1a', '//', '^^^', '=>', '[]', '\\\\\\\\', '\\n']",
            r#"[:{}, :%{}, :<<>>, :..//, :|>, :"a-b", :"1a", :"//", :"^^^", :"=>", :"[]", :\\, :"\n"]"#,
        ),
        ("[{a, 1}, {'a b', 2}, {nil, 3}, {'+', 4}, {'a?', 5}]", r#"[a: 1, "a b": 2, nil: 3, +: 4, a?: 5]"#),
        ("[{'Elixir', 1}, {'Foo', 2}]", r#"["Elixir": 1, Foo: 2]"#),
        ("[{'Elixir.A', 1}, {b, 2}]", "[{A, 1}, {:b, 2}]"),
        (
            "[1.0, 1.0e10, 1.0e15, 1.0e16, 1.5e-5, -0.0, 5.0e-324]",
            "[1.0, 10000000000.0, 1000000000000000.0, 1.0e16, 1.5e-5, -0.0, 5.0e-324]",
        ),
        (
            "{\"abc\", \"a'b\\n\", [0], [], {}, [a|b], 12345678901234567890}",
            r#"{~c"abc", ~c"a'b\n", [0], [], {}, [:a | :b], 12345678901234567890}"#,
        ),
        (
            r#"[<<"a\n\"\\#{x}">>, <<255>>, <<5:3>>, <<1,2,5:3>>, <<>>, <<"é"/utf8>>, <<0>>]"#,
            r#"["a\n\"\\\#{x}", <<255>>, <<5::size(3)>>, <<1, 2, 5::size(3)>>, "", "é", <<0>>]"#,
        ),
        ("#{a => 1, <<\"b\">> => 2}", r#"%{:a => 1, "b" => 2}"#),
        ("#{a => 1, nil => 2}", "%{a: 1, nil: 2}"),
        ("#{'Elixir.Foo' => 1}", "%{Foo => 1}"),
        ("#{}", "%{}"),
        ("fun '.':f/1", r#"&:".".f/1"#),
        ("['Elixir.Elixir.Foo', 'Elixir.Elixir']", "[Elixir.Elixir.Foo, Elixir.Elixir]"),
        ("#{'__struct__' => 'Elixir.A.B', x => 1, y => nil}", "%A.B{x: 1, y: nil}"),
        ("#{'__struct__' => 'Elixir.A.B'}", "%A.B{}"),
        ("#{'__struct__' => 1, a => 1}", "%{__struct__: 1, a: 1}"),
        (
            "[fun lists:map/2, fun 'Elixir.String':length/1, fun a:'b c'/0]",
            r#"[&:lists.map/2, &String.length/1, &:a."b c"/0]"#,
        ),
    ] {
        assert_eq!(Printer::new().line_length(200).inspect(&term(erlang)), elixir, "{erlang}");
    }
}

#[test]
fn lines_break_as_in_elixir() {
    // As printed by Elixir 1.14 with `width: 20`.
    let narrow = Printer::new().line_length(20);
    for (erlang, elixir) in [
        ("[1000,2000,3000,4000,5000]", "[1000, 2000, 3000,\n 4000, 5000]"),
        ("[{aaaa,1000},{bbbb,2000}]", "[\n  aaaa: 1000,\n  bbbb: 2000\n]"),
        ("{aaaaaaaa,bbbbbbbb,cccccccc}", "{:aaaaaaaa,\n :bbbbbbbb,\n :cccccccc}"),
        (
            "#{aaaa => 1000, bbbb => [2000, 3000, 4000, 5000]}",
            "%{\n  aaaa: 1000,\n  bbbb: [2000, 3000,\n   4000, 5000]\n}",
        ),
        ("[[1000,2000],[3000,4000]]", "[\n  [1000, 2000],\n  [3000, 4000]\n]"),
        ("<<1,2,3,4,255,255,255,255>>", "<<1, 2, 3, 4, 255,\n  255, 255, 255>>"),
    ] {
        assert_eq!(narrow.inspect(&term(erlang)), elixir, "{erlang}");
    }
    assert_eq!(Printer::new().line_length(0).inspect(&term("[{aaaa,1},{bbbb,2}]")), "[aaaa: 1, bbbb: 2]");
}

#[test]
fn identifiers_and_options() {
    let pid = |node| Term::Pid(Pid { node: Atom::new_static(node), id: 85, serial: 2, creation: 1 });
    let pids = Term::List(vec![pid("a@b"), pid("c@d"), pid("a@b")].into());
    assert_eq!(inspect(&pids), "[#PID<1.85.2>, #PID<2.85.2>, #PID<1.85.2>]");
    assert_eq!(
        Printer::new().node(Atom::new_static("c@d")).inspect(&pids),
        "[#PID<1.85.2>, #PID<0.85.2>, #PID<1.85.2>]"
    );
    assert_eq!(Printer::new().single_quoted_charlists(true).inspect(&term("\"it's\"")), r"'it\'s'");
    assert_eq!(Printer::new().strings(false).inspect(&term("[\"a\",<<\"b\">>]")), "[[97], <<98>>]");
}

#[test]
fn nesting_takes_neither_stack_nor_quadratic_time() {
    let deep = format!("{}1{}", "{a,".repeat(50_000), "}".repeat(50_000));
    let printed = inspect(&term(&deep));
    assert!(printed.len() > deep.len());
    let deep = format!("{}1,2{}", "{".repeat(50_000), "}".repeat(50_000));
    assert!(inspect(&term(&deep)).len() > deep.len());
}

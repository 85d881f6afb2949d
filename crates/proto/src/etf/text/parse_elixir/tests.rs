use crate::Limits;
use crate::etf::Term;
use crate::etf::text::{ParseError, ParseProblem, Printer, inspect, parse_elixir, parse_elixir_call};

fn parse(text: &str) -> Result<Term, ParseError> {
    parse_elixir(text, &Limits::default())
}

#[test]
fn terms_as_elixir_reads_them() {
    // Read by Code.eval_string/1 of Elixir 1.20 and written by ~tw.
    for (text, expected) in [
        (r#""\xFF""#, "<<255>>"),
        (r#""\xe9""#, "<<233>>"),
        (r#""\u00e9\u{1F600}""#, "<<195,169,240,159,152,128>>"),
        (r#"?\d"#, "127"),
        (r#"?\s"#, "32"),
        ("? ", "32"),
        (r#""\d\s\0\a\q""#, "<<127,32,0,7,113>>"),
        ("\"a\\\nb\"", "<<97,98>>"),
        (r#"~c"a\nb""#, "[97,10,98]"),
        (r#"~C"a\nb""#, "[97,92,110,98]"),
        ("~s(a b)", "<<97,32,98>>"),
        ("~w(a b  c)", "[<<97>>,<<98>>,<<99>>]"),
        ("~w(a b)a", "[a,b]"),
        ("~w[a b]c", "[[97],[98]]"),
        (r#"~W(a\n b)"#, "[<<97,92,110>>,<<98>>]"),
        (r#"~s"a\"b""#, "<<97,34,98>>"),
        (r#"~S"a\b""#, "<<97,92,98>>"),
        (r#"<<"é">>"#, "<<195,169>>"),
        (r#"<<"é"::utf16>>"#, "<<0,233>>"),
        ("<<1::16>>", "<<0,1>>"),
        ("<<1::size(16)-little>>", "<<1,0>>"),
        ("<<1::little-16>>", "<<1,0>>"),
        ("<<5::3>>", "<<5:3>>"),
        ("<<5::size(3)>>", "<<5:3>>"),
        (r#"<<"ab", 1>>"#, "<<97,98,1>>"),
        ("<<1.5::float>>", "<<63,248,0,0,0,0,0,0>>"),
        ("<<1.5>>", "<<63,248,0,0,0,0,0,0>>"),
        ("<<2::size(2)-unit(8)>>", "<<0,2>>"),
        ("<<233::utf8>>", "<<195,169>>"),
        (r#"<<"ab"::binary>>"#, "<<97,98>>"),
        ("[1, 2,]", "[1,2]"),
        ("{1, 2,}", "{1,2}"),
        ("%{a: 1,}", "#{a => 1}"),
        ("{:a, b: 1}", "{a,[{b,1}]}"),
        ("[1, a: 2]", "[1,{a,2}]"),
        ("[a: 1, b: 2]", "[{a,1},{b,2}]"),
        (r#"["a b": 1]"#, "[{'a b',1}]"),
        ("[a?: 1]", "[{'a?',1}]"),
        (r#"%{"a" => 1, b: 2}"#, "#{<<97>> => 1,b => 2}"),
        ("0x1F", "31"),
        ("0b101", "5"),
        ("0o17", "15"),
        ("1_000.5e-3", "1.0005"),
        ("-5", "-5"),
        ("- 5", "-5"),
        ("+5", "5"),
        ("1.0E3", "1.0e3"),
        (":+", "'+'"),
        (":a?", "'a?'"),
        (":nil", "nil"),
        ("nil", "nil"),
        ("Foo.Bar", "'Elixir.Foo.Bar'"),
        ("Elixir", "'Elixir'"),
        ("Elixir.Foo", "'Elixir.Foo'"),
        (r#":"Elixir.Foo""#, "'Elixir.Foo'"),
        ("&String.length/1", "fun 'Elixir.String':length/1"),
        ("&:lists.map/2", "fun lists:map/2"),
        ("[:a | :b]", "[a|b]"),
        ("[1, 2 | [3]]", "[1,2,3]"),
        (r#":"a\nb""#, r#"'a\nb'"#),
        (":'x y'", "'x y'"),
        (r#"~c(a\)b)"#, "[97,41,98]"),
        ("[nil: 1, do: 2, Foo: 3]", "[{nil,1},{do,2},{'Foo',3}]"),
        ("%{a: %{b: []}}", "#{a => #{b => []}}"),
        ("~w()", "[]"),
        ("~S(#{x})", "<<35,123,120,125>>"),
        ("~s<a>", "<<97>>"),
        ("~s|a|", "<<97>>"),
        ("~s/a/", "<<97>>"),
        ("~s'a'", "<<97>>"),
        ("[if: 1]", "[{'if',1}]"),
        ("?a", "97"),
        ("-?a", "-97"),
        ("<<>>", "<<>>"),
        ("{}", "{}"),
        ("%{}", "#{}"),
        ("[{:a, 1}, b: 2]", "[{a,1},{b,2}]"),
        (r#"'it\'s'"#, "[105,116,39,115]"),
        ("%Foo{a: 1}", "#{'__struct__' => 'Elixir.Foo',a => 1}"),
        ("%Foo{}", "#{'__struct__' => 'Elixir.Foo'}"),
        ("[a: 1, +: 2]", "[{a,1},{'+',2}]"),
        ("{ # comment\n 1 }", "{1}"),
    ] {
        let term = parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(Printer::new().unicode(true).write(&term), expected, "{text}");
        assert_eq!(parse(&inspect(&term)).as_ref(), Ok(&term), "{text}: {}", inspect(&term));
    }
}

#[test]
fn errors_say_what_and_where() {
    for (text, line, column, message) in [
        ("", 1, 1, "the text ends where a term should follow"),
        (
            "{:a,\n b}",
            2,
            2,
            "this is a variable or a call, and nothing is evaluated here; write a colon before it if an atom is meant, as in :name",
        ),
        ("[a: 1, 2]", 1, 8, "expected another `key: value`; these come last, found \"2\""),
        ("%{1}", 1, 4, "expected =>, found \"}\""),
        ("%{1 => 2, 1 => 3}", 1, 1, "a key occurs twice in this map; remove one of them"),
        ("%Foo{1 => 2}", 1, 6, "expected another `key: value`; these come last, found \"1\""),
        (
            "1 + 2",
            1,
            3,
            "expected the end of the text; only one literal term is read, and nothing is evaluated, found \"+\"",
        ),
        (
            "1..3",
            1,
            2,
            "expected the end of the text; only one literal term is read, and nothing is evaluated, found \".\"",
        ),
        (
            "\"a#{x}\"",
            1,
            3,
            "this is an interpolation, and nothing is evaluated here; write \\# if a # before { is meant",
        ),
        ("\"abc", 1, 1, "the string that begins here never ends"),
        (r#""\u{}""#, 1, 2, r"unknown escape sequence; write \\ for a backslash"),
        (r#":"\xe9""#, 1, 2, r"unknown escape sequence; write \\ for a backslash"),
        (
            "#PID<0.85.0>",
            1,
            1,
            "this is how a pid prints; only a running node has these; they cannot be read from the text they print as",
        ),
        (
            "[1, #Reference<0.1.2.3>]",
            1,
            5,
            "this is how a reference prints; only a running node has these; they cannot be read from the text they print as",
        ),
        (
            "&(&1 + 1)",
            1,
            1,
            "a function with a body cannot be made from text; only &Module.function/arity can",
        ),
        ("~r/a/", 1, 2, "expected one of the sigils ~c, ~s and ~w, found \"r\""),
        (
            "<<\"a\"::8>>",
            1,
            3,
            "a string in a binary has no size, and its type is binary, utf8, utf16 or utf32",
        ),
        ("[:a | :b, :c]", 1, 9, "expected ] after the tail of the list, found \",\""),
    ] {
        let error = parse(text).unwrap_err();
        assert_eq!(
            (error.line, error.column, error.problem.to_string().as_str()),
            (line, column, message),
            "{text}"
        );
    }
}

#[test]
fn limits_are_errors_and_nesting_is_no_recursion() {
    let limits = Limits { max_depth: 100, max_nodes: 1000, max_frame: 100, ..Limits::default() };
    let limit = |text: &str| match parse_elixir(text, &limits) {
        Err(ParseError { problem: ParseProblem::LimitExceeded { limit, .. }, .. }) => limit,
        other => panic!("{other:?}"),
    };
    assert_eq!(limit(&"[".repeat(1_000_000)), "max_depth");
    assert_eq!(limit(&format!("[{}1]", "1,".repeat(1000))), "max_nodes");
    assert_eq!(limit(&format!("'{}'", "x".repeat(1000))), "max_nodes");
    assert_eq!(limit(&format!("~w({})a", "x ".repeat(1000))), "max_nodes");
    assert_eq!(limit(&format!("\"{}\"", "x".repeat(101))), "max_frame");
    assert_eq!(limit("<<0::size(808)>>"), "max_frame");
    let deep = format!("{}{}", "{".repeat(60_000), "}".repeat(60_000));
    assert_eq!(inspect(&parse(&deep).unwrap()), deep);
    let deep = format!("{}:x{}", "[:a|".repeat(60_000), "]".repeat(60_000));
    assert!(inspect(&parse(&deep).unwrap()).ends_with("| :x]"));
}

#[test]
fn calls() {
    let call = |text: &str| parse_elixir_call(text, &Limits::default());
    for (text, module, function, arguments) in [
        (":lists.seq(1, 5)", "lists", "seq", "[1,5]"),
        ("Foo.Bar.baz(1)", "Elixir.Foo.Bar", "baz", "[1]"),
        ("Foo.baz?(1, a: 2, b: 3)", "Elixir.Foo", "baz?", "[1,[{a,2},{b,3}]]"),
        (" Node.self() # me", "Elixir.Node", "self", "[]"),
        ("Node.self", "Elixir.Node", "self", "[]"),
        (":\"Elixir.Foo\".\"a b\"([1 | 2])", "Elixir.Foo", "a b", "[[1|2]]"),
    ] {
        let call = call(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!((call.module.as_str(), call.function.as_str()), (module, function));
        assert_eq!(Printer::new().write(&Term::List(call.arguments.into())), arguments);
    }
    for (text, column) in [
        ("node()", 1),
        ("Foo", 4),
        ("Foo.bar(x)", 9),
        ("Foo.bar(1", 10),
        ("Foo.bar(1,)", 11),
        ("Foo.bar() + 1", 11),
    ] {
        let error = call(text).unwrap_err();
        assert_eq!(error.column, column, "{text}: {error}");
    }
}

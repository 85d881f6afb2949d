use crate::Limits;
use crate::etf::text::{
    ParseError, ParseProblem, Printer, parse_erlang, parse_erlang_call, parse_erlang_terms,
};
use crate::etf::{Atom, Term};

fn parse(text: &str) -> Result<Term, ParseError> {
    parse_erlang(text, &Limits::default())
}

fn written(text: &str) -> String {
    Printer::new().unicode(true).write(&parse(text).unwrap_or_else(|error| panic!("{text}: {error}")))
}

#[test]
fn terms_as_erl_parse_reads_them() {
    // Read by erl_parse:parse_term/1 and written by ~tw of OTP 29.
    for (text, expected) in [
        ("ok", "ok"),
        ("'hello world'", "'hello world'"),
        ("[]", "[]"),
        ("[1,2|3]", "[1,2|3]"),
        ("[1,2|[3]]", "[1,2,3]"),
        ("[a|[b|c]]", "[a,b|c]"),
        ("{}", "{}"),
        (r#"{a, "b", <<"c">>}"#, "{a,[98],<<99>>}"),
        (r#"#{a => 1, "b" => [2], #{} => {}}"#, "#{a => 1,[98] => [2],#{} => {}}"),
        ("1_000_000", "1000000"),
        ("16#ff", "255"),
        ("16#DEAD_beef", "3735928559"),
        ("2#1010", "10"),
        ("36#zz", "1295"),
        ("-16#ff", "-255"),
        ("- 5", "-5"),
        ("+5", "5"),
        (r#"$\s"#, "32"),
        ("-$a", "-97"),
        (r#"$\x41"#, "65"),
        (r#"$\x{20ac}"#, "8364"),
        (r#"$\101"#, "65"),
        (r#"$\\"#, "92"),
        (r#"$""#, "34"),
        ("1.5", "1.5"),
        ("-1.5e-3", "-0.0015"),
        ("1.0E+5", "1.0e5"),
        ("1_0.2_5", "10.25"),
        (r#""abc" "def""#, "[97,98,99,100,101,102]"),
        (r#""\^@\d\e\s""#, "[0,127,27,32]"),
        (r#""é€""#, "[233,8364]"),
        ("'é'", "é"),
        ("été", "été"),
        ("<<>>", "<<>>"),
        ("<<1,2,3>>", "<<1,2,3>>"),
        ("<<1,2,3:16>>", "<<1,2,0,3>>"),
        (r#"<<"abc">>"#, "<<97,98,99>>"),
        (r#"<<"é">>"#, "<<233>>"),
        (r#"<<"é"/utf8>>"#, "<<195,169>>"),
        (r#"<<"€">>"#, "<<172>>"),
        (r#"<<"€x"/utf16>>"#, "<<32,172,0,120>>"),
        (r#"<<"€x"/utf16-little>>"#, "<<172,32,120,0>>"),
        (r#"<<"ab"/utf32>>"#, "<<0,0,0,97,0,0,0,98>>"),
        ("<<5:3>>", "<<5:3>>"),
        ("<<5:3,1:5>>", "<<161>>"),
        ("<<1:16/little>>", "<<1,0>>"),
        ("<<-1:16/signed-little-integer>>", "<<255,255>>"),
        ("<<258:12/little>>", "<<2,1:4>>"),
        ("<<1.5/float>>", "<<63,248,0,0,0,0,0,0>>"),
        ("<<1.5:32/float-little>>", "<<0,0,192,63>>"),
        ("<<1/float>>", "<<63,240,0,0,0,0,0,0>>"),
        (r#"<<"ab":16>>"#, "<<0,97,0,98>>"),
        ("<<2:2/unit:8>>", "<<0,2>>"),
        ("<<18446744073709551617:72>>", "<<1,0,0,0,0,0,0,0,1>>"),
        ("<<$a, 16#62>>", "<<97,98>>"),
        ("<<300>>", "<<44>>"),
        ("fun lists:map/2", "fun lists:map/2"),
        ("fun 'a b':'c'/0", "fun 'a b':c/0"),
        ("-123456789012345678901234567890", "-123456789012345678901234567890"),
        ("9223372036854775808", "9223372036854775808"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("[[[]]]", "[[[]]]"),
        ("[{a,1},{b,2.0}]", "[{a,1},{b,2.0}]"),
        ("a@b_C", "a@b_C"),
        ("$ ", "32"),
        ("-$a", "-97"),
        ("\"a\\x41\\\nb\"", "[97,65,10,98]"),
        ("{ok, % comment\n \"x\"}.", "{ok,[120]}"),
        (r"'a\'b\x{20ac}\n\101\^A'", r"'a\'b€\nA\001'"),
        (r#"~"é""#, "<<195,169>>"),
        (r#"~S"a\n""#, r"[97,92,110]"),
    ] {
        assert_eq!(written(text), expected, "{text}");
    }
}

#[test]
fn errors_say_what_and_where() {
    for (text, line, column, message) in [
        ("", 1, 1, "the text ends where a term should follow"),
        ("{a,", 1, 4, "the text ends where a term should follow"),
        ("{a\n b}", 2, 2, "expected a comma or }, found \"b\""),
        ("[1 2]", 1, 4, "expected a comma, | or ], found \"2\""),
        ("[1|2,3]", 1, 5, "expected ] after the tail of the list, found \",\""),
        ("#{a := 1}", 1, 5, "expected =>, found \":\""),
        (
            "ok ok",
            1,
            4,
            "expected the end of the text; only one literal term is read, and nothing is evaluated, found \"ok\"",
        ),
        (
            "1 + 2",
            1,
            3,
            "expected the end of the text; only one literal term is read, and nothing is evaluated, found \"+\"",
        ),
        ("\"abc", 1, 1, "the string that begins here never ends"),
        ("'abc", 1, 1, "the quoted atom that begins here never ends"),
        ("<<1", 1, 4, "the text ends where a comma or >> should follow"),
        ("<<1.5>>", 1, 3, "a float needs the type float, as in 1.5/float"),
        ("<<0:99999999999>>", 1, 3, "this segment is larger than an integer can be"),
        (
            "{ok, Pid}",
            1,
            6,
            "this is a variable, and variables have no value here; quote it if an atom is meant, as in 'Name'",
        ),
        (
            "<0.85.0>",
            1,
            1,
            "this is how a pid prints; only a running node has these; they cannot be read from the text they print as",
        ),
        (
            "#rec{a = 1}",
            1,
            1,
            "record syntax needs the record's definition; write the tuple instead: {name, Field1, Field2}",
        ),
        (
            "fun(X) -> X end",
            1,
            1,
            "a fun with a body cannot be made from text; only fun Module:Function/Arity can",
        ),
        ("end", 1, 1, "this is a reserved word of Erlang; quote it if an atom is meant, as in 'end'"),
        ("37#1", 1, 1, "the base of a number is 2 to 36"),
        ("1.0e999", 1, 1, "a float beyond what 64 bits can hold"),
        (r"'\xZZ'", 1, 2, r"unknown escape sequence; write \\ for a backslash"),
        (
            "é€",
            1,
            2,
            "expected the end of the text; only one literal term is read, and nothing is evaluated, found \"€\"",
        ),
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
    let limits = Limits { max_depth: 100, max_nodes: 1000, ..Limits::default() };
    let limit = |text: &str| match parse_erlang(text, &limits) {
        Err(ParseError { problem: ParseProblem::LimitExceeded { limit, .. }, .. }) => limit,
        other => panic!("{other:?}"),
    };
    assert_eq!(limit(&"[".repeat(1_000_000)), "max_depth");
    assert_eq!(limit(&format!("[{}1]", "1,".repeat(1000))), "max_nodes");
    assert_eq!(limit(&format!("\"{}\"", "x".repeat(1000))), "max_nodes");
    let limits = Limits { max_frame: 100, ..Limits::default() };
    assert!(parse_erlang("<<0:808>>", &limits).is_err());
    assert!(parse_erlang(&format!("<<{}>>", "1,".repeat(99) + "1"), &limits).is_ok());
    let deep = format!("{}{}", "[".repeat(60_000), "]".repeat(60_000));
    assert_eq!(written(&deep), deep);
    let deep = format!("{}x{}", "[a|".repeat(60_000), "]".repeat(60_000));
    assert!(written(&deep).ends_with("a,a|x]"));
    assert!(parse(&"9".repeat(9_864)).is_ok());
    assert!(parse(&"9".repeat(10_000)).is_err());
}

#[test]
fn calls() {
    let call = parse_erlang_call(" lists:seq( 1, 5 ) . ", &Limits::default()).unwrap();
    assert_eq!((call.module.as_str(), call.function.as_str()), ("lists", "seq"));
    assert_eq!(call.arguments, [Term::Integer(1), Term::Integer(5)]);
    let call = parse_erlang_call("'Elixir.Foo':'bar?'([])", &Limits::default()).unwrap();
    assert_eq!(call.module, Atom::new_static("Elixir.Foo"));
    assert_eq!(call.arguments, [Term::List(Vec::new().into())]);
    assert!(parse_erlang_call("erlang:node()", &Limits::default()).unwrap().arguments.is_empty());
    assert!(parse_erlang_call("m:f({a, [1, \")\"]}, #{})", &Limits::default()).is_ok());
    for (text, column) in [
        ("node()", 5),
        ("lists:seq", 10),
        ("lists:seq(1, X)", 14),
        ("lists:seq(1", 12),
        ("a:b() + 1", 7),
        ("a:b(,)", 5),
        ("", 1),
    ] {
        let error = parse_erlang_call(text, &Limits::default()).unwrap_err();
        assert_eq!(error.column, column, "{text}: {error}");
    }
}

#[test]
fn files_of_terms() {
    let terms = parse_erlang_terms("{a, 1}.\n% comment\n\"x\".", &Limits::default()).unwrap();
    assert_eq!(terms.len(), 2);
    let error = parse_erlang_terms("{a, 1}.\n{b, 2}\n{c, 3}.", &Limits::default()).unwrap_err();
    assert_eq!((error.line, error.column), (3, 1));
    assert_eq!(parse_erlang_terms(" % nothing", &Limits::default()), Ok(Vec::new()));
}

use super::*;

const ALL: &str = "for names map
nodes 3 10
seed 18446744073709551615
set names.max_removed 2
at 0s partition lower | upper
at 1.000000001s partition 0 > 1-2,last
at 1.5s heal lower | upper
at 1.5s heal 0 > 1-2
at 2s heal
at 2s break even | odd
at 2s crash 0
at 2s start 0
at 2s restart 1
at 2s pause 2
at 2s resume 2
at 2s leave 2
at 2s join 2
at 2s skew all -90000ms
at 2s rate 0 1100
at 2s faults 10 5 20
at 3s register all key%*3
at 3s register 0 key process 17 notify
at 3s update 0 key
at 3s unregister 0 key process 17
at 3s exit 0 key
at 3s exit 0 process 17
at 3s wait 1 key
";

#[test]
fn a_scenario_is_printed_as_it_was_read() {
    let scenario = Scenario::parse(ALL).unwrap();
    assert_eq!(scenario.to_string(), ALL);
    assert_eq!(Scenario::parse(&scenario.to_string()), Ok(scenario.clone()));
    assert_eq!(scenario.settings_of("names").collect::<Vec<_>>(), [("max_removed", "2", 4)]);
    assert!(scenario.is_for("map") && !scenario.is_for("lease"));
    let loose = "nodes 1  # one\n\n  at 20ms heal\t\n at 1500000us skew 0 90s # later";
    assert_eq!(
        Scenario::parse(loose).unwrap().to_string(),
        "nodes 1\nseed 0\nat 0.02s heal\nat 1.5s skew 0 +90000ms\n"
    );
}

#[test]
fn nodes_and_keys_depend_on_the_size() {
    let of = |text: &str, size| Nodes::parse(text, size).unwrap().of(size);
    assert_eq!(of("lower", 5), [0, 1]);
    assert_eq!(of("upper", 5), [2, 3, 4]);
    assert_eq!(of("last,0-1,1", 5), [0, 1, 4]);
    assert_eq!(of("even", 5), [0, 2, 4]);
    assert_eq!(of("odd", 2), [1]);
    assert_eq!(Keys::parse("k%*2").unwrap().of(7), ["k70", "k71"]);
    assert_eq!(Keys::parse("k").unwrap().of(7), ["k"]);
}

#[test]
fn what_is_wrong_is_told_with_its_line() {
    let word = |word: &str| word.to_owned();
    let cases = [
        ("at 1s heal", 1, Problem::Missing("`nodes`, first,")),
        ("", 0, Problem::Missing("`nodes`")),
        ("nodes", 1, Problem::Missing("a number")),
        ("nodes 0", 1, Problem::NoNumber(word("0"))),
        ("nodes 1000000", 1, Problem::NoNumber(word("1000000"))),
        ("# x\nnode 3", 2, Problem::Unknown(word("node"))),
        ("for pigeons", 1, Problem::Unknown(word("pigeons"))),
        ("set duration 5", 1, Problem::Unknown(word("duration"))),
        ("set lease.duration", 1, Problem::Missing("a value")),
        ("nodes 3\nat 1s", 2, Problem::Missing("a step")),
        ("nodes 3\nat 1s explode", 2, Problem::Unknown(word("explode"))),
        ("nodes 3\nat 1h heal", 2, Problem::NoTime(word("1h"))),
        ("nodes 3\nat 1.5ns heal", 2, Problem::NoTime(word("1.5ns"))),
        ("nodes 3\nat -1s heal", 2, Problem::NoTime(word("-1s"))),
        ("nodes 3\nat 99999999999s heal", 2, Problem::NoTime(word("99999999999s"))),
        ("nodes 3\nat 2s heal\nat 1s heal", 3, Problem::Earlier),
        ("nodes 3\nat 2s heal\nseed 4", 3, Problem::Late(word("seed"))),
        ("nodes 3\nat 2s crash 3", 2, Problem::NoSuchNode(3, 3)),
        ("nodes 9 3\nat 2s crash 1-8", 2, Problem::NoSuchNode(8, 3)),
        ("nodes 3\nat 2s crash x", 2, Problem::NoNodes(word("x"))),
        ("nodes 3\nat 2s crash 2-1", 2, Problem::NoNodes(word("2-1"))),
        ("nodes 3\nat 2s crash", 2, Problem::Missing("nodes")),
        ("nodes 3\nat 2s crash 0 1", 2, Problem::TooMuch(word("1"))),
        ("nodes 3\nat 2s partition 0 1", 2, Problem::NoWay(word("1"))),
        ("nodes 3\nat 2s break 0 > 1", 2, Problem::NoWay(word(">"))),
        ("nodes 3\nat 2s faults 1 2 101", 2, Problem::NoNumber(word("101"))),
        ("nodes 3\nat 2s rate 0 0", 2, Problem::NoNumber(word("0"))),
        ("nodes 3\nat 2s register 0", 2, Problem::Missing("a key")),
        ("nodes 3\nat 2s register 0 k*9999999", 2, Problem::NoNumber(word("k*9999999"))),
        ("nodes 3\nat 2s register 0 k process x", 2, Problem::NoNumber(word("x"))),
        ("nodes 3\nat 2s register 0 k loudly", 2, Problem::TooMuch(word("loudly"))),
    ];
    for (text, line, problem) in cases {
        assert_eq!(Scenario::parse(text), Err(ParseError { line, problem }), "{text}");
    }
    let error = Scenario::parse("nodes 3\nat 2s crash 3").unwrap_err();
    assert_eq!(error.to_string(), "line 2: there is no node 3 among 3");
}

#[test]
fn the_files_can_be_read() {
    assert!(!committed().is_empty());
}

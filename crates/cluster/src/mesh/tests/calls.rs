//! What callers on a BEAM ask, and get.

use super::*;
use crate::message::{list_of, tuple, tuple_of};

fn ask_as(mesh: &mut Mesh, caller: &str, request: Term) -> Term {
    let from = Term::from((Term::from(&pid(caller, 5)), Term::Integer(1)));
    let message = tuple_of([atom("$gen_call"), from.clone(), request]);
    mesh.handle(Mono::ZERO, Event::Message { message, wall: 1000, random: 1 });
    let reply = drain(mesh).into_iter().find_map(|action| match action {
        Action::Registry(names::Action::Reply { from: to, reply }) if to == from => Some(reply),
        _ => None,
    });
    reply.expect("an answer")
}

fn ask(mesh: &mut Mesh, request: Term) -> Term {
    ask_as(mesh, "beam@h", request)
}

fn error(why: Term) -> Term {
    Term::from((atom("error"), why))
}

fn keyword<const N: usize>(pairs: [(&'static str, Term); N]) -> Term {
    list_of(pairs.map(|(key, value)| tuple_of([atom(key), value])))
}

#[test]
fn a_beam_registers_finds_and_deregisters() {
    let mut mesh = mesh();
    let own = pid("beam@h", 7);
    let register = |rest: Vec<Term>| {
        Term::tuple([atom("register_service"), atom("payment"), Term::from(&own)].into_iter().chain(rest))
    };
    assert_eq!(ask(&mut mesh, register(vec![])), atom("ok"));
    assert_eq!(ask(&mut mesh, register(vec![list_of([atom("cards")])])), atom("ok"));
    let level = Term::Map(metadata([("level", atom("high"))]));
    assert_eq!(ask(&mut mesh, register(vec![list_of([atom("cards")]), level.clone()])), atom("ok"));
    let info = Term::Map(metadata([
        ("name", atom("payment")),
        ("pid", Term::from(&own)),
        ("node", atom("beam@h")),
        ("capabilities", list_of([atom("cards")])),
        ("metadata", level),
        ("registered_at", Term::Integer(1000)),
        ("health", atom("healthy")),
    ]));
    let all = list_of([info.clone()]);
    assert_eq!(ask(&mut mesh, atom("discover_services")), all);
    for criteria in [
        keyword([]),
        keyword([("name", atom("payment")), ("level", atom("high"))]),
        keyword([("capabilities", list_of([atom("cards")])), ("node", atom("beam@h"))]),
        keyword([("capability", atom("cards")), ("health", atom("healthy"))]),
        Term::Map(metadata([("name", atom("payment"))])),
    ] {
        assert_eq!(ask(&mut mesh, tuple_of([atom("discover_services"), criteria])), all);
    }
    for criteria in [
        keyword([("name", atom("other"))]),
        keyword([("level", atom("low"))]),
        keyword([("health", atom("unhealthy"))]),
        keyword([("health", atom("splendid"))]),
    ] {
        assert_eq!(ask(&mut mesh, tuple_of([atom("discover_services"), criteria])), list_of([]));
    }
    assert_eq!(ask(&mut mesh, tuple_of([atom("pick"), atom("payment")])), Term::from((atom("ok"), info)));
    assert_eq!(ask(&mut mesh, tuple_of([atom("pick"), atom("other")])), error(atom("no_instance")));

    // Marked as the Elixir library marks.
    let mark = |health| tuple_of([atom("mark_service"), atom("payment"), Term::from(&own), atom(health)]);
    assert_eq!(ask(&mut mesh, mark("unhealthy")), atom("ok"));
    let found =
        ask(&mut mesh, tuple_of([atom("discover_services"), keyword([("health", atom("unhealthy"))])]));
    let marked = found.as_list().unwrap()[0].as_map().unwrap();
    assert_eq!(
        marked.get_atom("metadata").unwrap().as_map().unwrap().get_atom("health"),
        Some(&atom("unhealthy"))
    );
    assert_eq!(ask(&mut mesh, tuple_of([atom("pick"), atom("payment")])), error(atom("no_instance")));

    let wait = tuple_of([atom("wait_until_all"), atom("payment"), Term::from(&own), Term::Integer(0)]);
    assert_eq!(ask(&mut mesh, wait.clone()), atom("ok"));
    assert_eq!(ask(&mut mesh, atom("members")), list_of([atom("a@h")]));
    assert!(ask(&mut mesh, atom("stats")).as_map().is_some());
    for _ in 0..2 {
        let gone = tuple_of([atom("deregister_service"), atom("payment"), Term::from(&own)]);
        assert_eq!(ask(&mut mesh, gone), atom("ok"));
    }
    assert_eq!(ask(&mut mesh, mark("healthy")), error(atom("not_registered")));
    assert_eq!(ask(&mut mesh, wait), error(atom("not_registered")));
    assert_eq!(ask(&mut mesh, atom("discover_services")), list_of([]));
}

#[test]
fn pages_hold_each_instance_once() {
    let mut mesh = mesh();
    for n in 0..10u32 {
        register(&mut mesh, Registration::new(i64::from(n % 3), &pid("a@h", 100 + n)));
    }
    for limit in 1..=11 {
        let (mut after, mut found, mut pages) = (atom("first"), Vec::new(), 0);
        while !after.is_atom("end") {
            let request = tuple_of([atom("select_services"), list_of([]), after, Term::Integer(limit)]);
            let [ok, page, next] = tuple(ask(&mut mesh, request)).unwrap();
            assert!(ok.is_atom("ok"));
            let page = crate::message::list(page).unwrap();
            found.extend(page.iter().map(|info| info.as_map().unwrap().get_atom("pid").cloned().unwrap()));
            (after, pages) = (next, pages + 1);
        }
        found.sort_by(Term::cmp_exact);
        let all: Vec<Term> = (100..110).map(|n| Term::from(&pid("a@h", n))).collect();
        assert_eq!(found, all);
        assert_eq!(pages, 10_i64.div_euclid(limit) + i64::from(10 % limit > 0), "{limit}");
    }
}

#[test]
fn whoever_asks_for_many_gets_pages() {
    let mut mesh = mesh();
    for n in 0..10_001 {
        register(&mut mesh, Registration::new(atom("x"), &pid("a@h", 100 + n)));
    }
    let too_many = Term::from((atom("too_many"), Term::Integer(10_001)));
    assert_eq!(ask(&mut mesh, atom("discover_services")), error(too_many));
}

#[test]
fn nonsense_is_answered() {
    let mut mesh = mesh();
    let own = Term::from(&pid("beam@h", 7));
    let long = list_of((0..65).map(|n| tuple_of([Term::Integer(n), Term::Integer(n)])));
    let badarg = error(atom("badarg"));
    for request in [
        atom("nonsense"),
        Term::Integer(1),
        Term::tuple([]),
        Term::tuple([Term::Integer(1)]),
        tuple_of([atom("register_service"), atom("x")]),
        tuple_of([atom("register_service"), atom("x"), atom("y")]),
        tuple_of([atom("register_service"), atom("x"), own.clone(), atom("y")]),
        tuple_of([atom("register_service"), atom("x"), own.clone(), list_of([]), list_of([])]),
        tuple_of([atom("mark_service"), atom("x"), own.clone(), atom("splendid")]),
        tuple_of([atom("discover_services"), atom("x")]),
        tuple_of([atom("discover_services"), long]),
        tuple_of([atom("discover_services"), keyword([("capabilities", atom("x"))])]),
        tuple_of([atom("discover_services"), keyword([("node", Term::Integer(1))])]),
        tuple_of([atom("select_services"), list_of([]), atom("x"), Term::Integer(1)]),
        tuple_of([atom("select_services"), list_of([]), atom("first"), Term::Integer(-1)]),
        tuple_of([atom("pick"), atom("x"), keyword([("strategy", atom("x"))])]),
        tuple_of([atom("pick"), atom("x"), keyword([("size", atom("x"))])]),
        tuple_of([
            atom("pick"),
            atom("x"),
            keyword([("constraints", keyword([("cpu_usage", atom("low"))]))]),
        ]),
        tuple_of([atom("register"), atom("x"), atom("y"), own.clone()]),
        tuple_of([atom("lookup"), atom("load")]),
    ] {
        assert_eq!(ask(&mut mesh, request.clone()), badarg, "{request:?}");
    }
    // No call of OTP's shape, and no caller.
    for message in [
        atom("x"),
        tuple_of([atom("$gen_call"), atom("x")]),
        tuple_of([atom("$gen_call"), atom("x"), atom("stats")]),
    ] {
        mesh.handle(Mono::ZERO, Event::Message { message, wall: 0, random: 0 });
    }
    drain(&mut mesh);
    assert!(mesh.is_empty());
}

#[test]
fn code_is_named_only_for_processes_of_the_caller() {
    let mut mesh = mesh();
    let check = |check: Term| Term::Map(metadata([("health_check", check)]));
    let register = |node: &str, check: Term| {
        tuple_of([atom("register_service"), atom("x"), Term::from(&pid(node, 7)), list_of([]), check])
    };
    let apply = tuple_of([atom("Elixir.Shop"), atom("well?"), list_of([])]);
    let refused = error(atom("bad_health_check"));
    assert_eq!(ask(&mut mesh, register("other@h", check(apply.clone()))), refused);
    assert_eq!(ask(&mut mesh, register("a@h", check(apply.clone()))), refused);
    assert_eq!(ask(&mut mesh, register("beam@h", check(atom("magic")))), refused);
    assert!(mesh.is_empty());
    assert_eq!(ask(&mut mesh, register("beam@h", check(apply))), atom("ok"));
    assert_eq!(ask(&mut mesh, register("other@h", check(atom("alive")))), atom("ok"));
    let rules = keyword([
        ("check", atom("alive")),
        ("interval", Term::Integer(50)),
        ("unhealthy_after", Term::Integer(1)),
    ]);
    assert_eq!(ask(&mut mesh, register("third@h", check(rules))), atom("ok"));
    assert_eq!(mesh.checks.next(9), Some(at(50)));
    let function = tuple_of([
        atom("discover_services"),
        keyword([(
            "health_check",
            Term::ExportFun(Box::new(foundation_proto::etf::ExportFun {
                module: Atom::new_static("m"),
                function: Atom::new_static("f"),
                arity: 1,
            })),
        )]),
    ]);
    assert_eq!(ask(&mut mesh, function), error(Term::from((atom("unsupported"), atom("health_check")))));
}

use core::time::Duration;

use foundation_proto::etf::{Atom, Term};

use super::*;
use crate::config::{Builtins, EpmdMode, NodeConfig};
use crate::error::Error;
use crate::node::Node;

async fn node_with(builtins: Builtins) -> Node {
    let mut config = NodeConfig::new("told@127.0.0.1").cookie("secret").epmd(EpmdMode::None);
    config.dist_listen = false;
    config.builtins = builtins;
    Node::start(config).await.unwrap()
}

async fn node() -> Node {
    node_with(Builtins::Read).await
}

async fn call(node: &Node, module: &str, function: &str, args: Vec<Term>) -> Result<Term, Error> {
    node.erpc(node.name(), module, function, args, Duration::from_secs(20)).await
}

async fn value(node: &Node, module: &str, function: &str, args: Vec<Term>) -> Term {
    call(node, module, function, args).await.unwrap()
}

async fn raised(node: &Node, module: &str, function: &str, args: Vec<Term>) -> Raised {
    match call(node, module, function, args).await {
        Err(Error::Raised(raised)) => *raised,
        other => panic!("{module}:{function} gave {other:?}"),
    }
}

fn get<'a>(pairs: &'a Term, key: &str) -> &'a Term {
    let found = pairs.as_list().unwrap().iter().filter_map(Term::as_tuple).find(|pair| pair[0].is_atom(key));
    &found.unwrap_or_else(|| panic!("no {key} in {pairs:?}"))[1]
}

#[test]
fn every_function_is_listed_once() {
    let mut names = Vec::new();
    for (module, functions) in MODULES {
        for entry in *functions {
            names.push((*module, entry.function, entry.arity));
        }
    }
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[tokio::test]
async fn errors_have_erlangs_shape() {
    let node = node().await;
    for (module, function, reason) in [
        ("erlang", "system_info", "badarg"),
        ("erlang", "statistics", "badarg"),
        ("erlang", "memory", "badarg"),
        ("code", "is_loaded", "function_clause"),
        ("erlang", "halt", "undef"),
        ("nobody", "knows", "undef"),
    ] {
        let args = vec![Term::from("no atom")];
        let raised = raised(&node, module, function, args.clone()).await;
        let module = Atom::new(module).unwrap();
        let function = Atom::new(function).unwrap();
        let at = Term::from((module, function, Term::list(args), Term::nil()));
        assert_eq!((raised.class, raised.reason), (Class::Error, Term::atom(reason)));
        assert_eq!(raised.stack, Term::list([at]));
    }
    let unmeasured = raised(&node, "erlang", "memory", vec![Term::atom("ets")]).await;
    assert_eq!(unmeasured.reason, Term::atom("notsup"));
    assert_eq!(
        raised(&node, "erlang", "system_info", vec![Term::atom("otp_release")]).await.reason,
        Term::atom("badarg")
    );
}

#[tokio::test]
async fn processes_are_told_as_they_are() {
    let node = node().await;
    let (mut watched, other) = (node.mailbox("watched").unwrap(), node.process().unwrap());
    watched.trap_exit(true);
    other.link(watched.pid()).await;
    other.monitor(("watched", node.name())).await.unwrap();
    node.send_term("watched", &Term::from("a message")).await.unwrap();
    let pid = watched.pid().clone();
    let ask =
        |item: &'static str| value(&node, "erlang", "process_info", vec![Term::from(&pid), Term::atom(item)]);
    let is = |item: &'static str, value: Term| Term::from((Term::atom(item), value));
    assert_eq!(ask("registered_name").await, is("registered_name", Term::atom("watched")));
    assert_eq!(ask("message_queue_len").await, is("message_queue_len", Term::from(1)));
    assert_eq!(ask("trap_exit").await, is("trap_exit", Term::from(Atom::from(true))));
    assert_eq!(ask("links").await, is("links", Term::list([Term::from(other.pid())])));
    assert_eq!(ask("monitored_by").await, is("monitored_by", Term::list([Term::from(other.pid())])));
    let of_other = vec![Term::from(other.pid()), Term::atom("monitors")];
    let by_name = Term::from((Term::atom("watched"), Term::from(node.name())));
    assert_eq!(
        value(&node, "erlang", "process_info", of_other).await,
        is("monitors", Term::list([is("process", by_name)]))
    );
    let full = ask("memory").await;
    let _ = watched.recv().await.unwrap();
    let empty = ask("memory").await;
    let bytes = |memory: &Term| memory.as_tuple().unwrap()[1].as_i64().unwrap();
    assert!(bytes(&full) > bytes(&empty), "{full:?} {empty:?}");

    let unnamed = vec![Term::from(other.pid()), Term::atom("registered_name")];
    assert_eq!(value(&node, "erlang", "process_info", unnamed.clone()).await, Term::nil());
    assert_eq!(value(&node, "Elixir.Process", "info", unnamed).await, is("registered_name", Term::nil()));
    let bad = vec![Term::from(other.pid()), Term::atom("messages")];
    assert_eq!(raised(&node, "erlang", "process_info", bad).await.reason, Term::atom("badarg"));

    let dead = other.pid().clone();
    drop(other);
    assert_eq!(
        value(&node, "erlang", "process_info", vec![Term::from(&dead)]).await,
        Term::atom("undefined")
    );
    assert_eq!(value(&node, "Elixir.Process", "info", vec![Term::from(&dead)]).await, Term::atom("nil"));
    let no = Term::from(Atom::from(false));
    assert_eq!(value(&node, "erlang", "is_process_alive", vec![Term::from(&dead)]).await, no);
    let mut far = dead;
    far.node = Atom::new_static("far@127.0.0.1");
    let far = vec![Term::Pid(far)];
    assert_eq!(raised(&node, "Elixir.Process", "alive?", far).await.reason, Term::atom("badarg"));
}

#[tokio::test]
async fn what_is_measured_is_told_and_nothing_else() {
    let node = node().await;
    let memory = value(&node, "erlang", "memory", vec![]).await;
    let part = |key| get(&memory, key).as_i64().unwrap();
    assert_eq!(part("total"), part("processes") + part("system"));
    assert!(part("total") > 1 << 20, "the test binary alone has more");
    assert_eq!(memory.as_list().unwrap().len(), 4);
    let asked = Term::list([Term::atom("total"), Term::atom("processes")]);
    let two = value(&node, "erlang", "memory", vec![asked]).await;
    assert_eq!(two.as_list().unwrap().len(), 2);

    let statistics = |item| value(&node, "erlang", "statistics", vec![Term::atom(item)]);
    let clock = statistics("wall_clock").await;
    assert_eq!(clock.as_tuple().unwrap()[0], clock.as_tuple().unwrap()[1], "the first call");
    let io = statistics("io").await;
    assert_eq!(io, Term::from((pair("input", 0), pair("output", 0))));
    let times = statistics("scheduler_wall_time").await;
    let [id, busy, total] = times.as_list().unwrap()[0].as_tuple().unwrap() else { panic!("{times:?}") };
    assert_eq!(id.as_i64(), Some(1));
    assert!(busy.as_i64() <= total.as_i64());

    let info = value(&node, "observer_backend", "sys_info", vec![]).await;
    assert_eq!(get(&info, "process_count").as_i64(), Some(node.processes().len() as i64 + 1));
    for missing in ["otp_release", "atom_count", "ets_limit", "ets"] {
        let list = info.as_list().unwrap();
        assert!(!list.iter().any(|pair| pair.as_tuple().unwrap()[0].is_atom(missing)), "{missing}");
    }
}

#[tokio::test]
async fn times_have_every_unit() {
    let node = node().await;
    let in_unit =
        async |unit: Term| value(&node, "erlang", "system_time", vec![unit]).await.as_i64().unwrap();
    let seconds = in_unit(Term::atom("second")).await;
    let tenths = in_unit(Term::from(10)).await;
    let native = in_unit(Term::atom("native")).await;
    assert!(seconds <= tenths / 10 && tenths / 10 <= native / 1_000_000_000);
    assert!(native / 1_000_000_000 - seconds < 60);
    for bad in [Term::from(0), Term::from(-1), Term::atom("fortnight")] {
        assert_eq!(raised(&node, "erlang", "monotonic_time", vec![bad]).await.reason, Term::atom("badarg"));
    }
}

#[tokio::test]
async fn the_configuration_says_what_is_served() {
    let stop = || vec![("init", "stop", 0), ("erlang", "memory", 0)];
    for (builtins, served) in
        [(Builtins::None, [false, false]), (Builtins::Read, [false, true]), (Builtins::Stop, [true, true])]
    {
        let node = node_with(builtins).await;
        for ((module, function, arity), expected) in stop().into_iter().zip(served) {
            let found = find(node.inner(), &Atom::new_static(module), &Atom::new_static(function), arity);
            assert_eq!(found.is_some(), expected, "{builtins:?} {module}:{function}");
        }
    }
    let node = node_with(Builtins::Stop).await;
    assert_eq!(value(&node, "init", "stop", vec![]).await, Term::atom("ok"));
    let node = self::node().await;
    node.export("erlang", "memory", 0, async |_| Ok(Term::atom("mine")));
    assert_eq!(value(&node, "erlang", "memory", vec![]).await, Term::atom("mine"), "exports come first");
    let name = |text| Term::atom(text);
    let exported = value(
        &node,
        "erlang",
        "function_exported",
        vec![name("observer_backend"), name("procs_info"), Term::from(1)],
    );
    assert_eq!(exported.await, Term::from(Atom::from(true)));
}

#[tokio::test]
async fn live_dashboard_gets_its_rows() {
    let node = node().await;
    let _named = node.mailbox("Elixir.Some.Server").unwrap();
    let module = live_dashboard::MODULE;
    let rows = async |search: Term, by: &'static str, direction: &'static str, limit: i64| {
        let args = vec![search, Term::atom(by), Term::atom(direction), Term::from(limit), Term::atom("nil")];
        value(&node, module, "processes_callback", args).await
    };
    let found = rows(Term::from("some.server"), "memory", "desc", 50).await;
    let [list, count, next] = found.as_tuple().unwrap() else { panic!("{found:?}") };
    assert_eq!((count.as_i64(), list.as_list().unwrap().len()), (Some(1), 1));
    assert!(next.as_map().is_some());
    assert_eq!(get(&list.as_list().unwrap()[0], "name_or_initial_call"), &Term::from("Some.Server"));
    let all = rows(Term::atom("nil"), "message_queue_len", "asc", 2).await;
    let [list, count, _] = all.as_tuple().unwrap() else { panic!("{all:?}") };
    assert_eq!(list.as_list().unwrap().len(), 2);
    assert!(count.as_i64().unwrap() > 2);
    let bad = vec![Term::atom("nil"), Term::atom("pid"), Term::atom("desc"), Term::from(-1)];
    assert_eq!(raised(&node, module, "processes_callback", bad).await.reason, Term::atom("function_clause"));
}

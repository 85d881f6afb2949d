//! Remote calls and remote processes, both ways.

use foundation_interop_tests::{Beam, Case, Epmd, case};
use foundation_node::Error;
use foundation_node::error::{Class, Raised};

use foundation_proto::etf::{Atom, Term};

use crate::rust::{Rust, WAIT, next, shown, term};

const TOPIC: &str = "rpc, erpc, spawn";

fn exports(rust: &Rust) {
    rust.node.export("demo", "add", 2, |args| async move {
        match (args[0].as_i64(), args[1].as_i64()) {
            (Some(a), Some(b)) => Ok(Term::from(a + b)),
            _ => Err(Raised::error(Term::atom("badarith"))),
        }
    });
    rust.node.export("demo", "exit", 1, |mut args| async move { Err(Raised::exit(args.remove(0))) });
    rust.node.export("demo", "throw", 1, |mut args| async move { Err(Raised::throw(args.remove(0))) });
    rust.node.export_call("demo", "tell", 2, |call| async move {
        let [to, message] = <[Term; 2]>::try_from(call.args).expect("two arguments");
        let Term::Pid(to) = to else { return Err(Raised::error(Term::atom("badarg"))) };
        let _ = call.process.send_term(to, &message).await;
        Ok(Term::atom("told"))
    });
}

#[test]
fn the_beam_calls_us() {
    case(
        Case::Smoke,
        TOPIC,
        "rpc:call, erpc:call and erpc:cast into Rust functions, and what they raise",
        |release| {
            let epmd = Epmd::start(release);
            let rust = Rust::start(&epmd, "rust");
            exports(&rust);
            let beam = Beam::visible(release, &epmd, "beam");
            beam.eval("R = 'rust@127.0.0.1'");
            assert_eq!(beam.eval("rpc:call(R, demo, add, [40, 2])"), "42");
            assert_eq!(beam.eval("erpc:call(R, demo, add, [1, 2], 5000)"), "3");
            assert_eq!(beam.eval("rpc:multicall([R, R], demo, add, [1, 1])"), "{[2,2],[]}");

            assert_eq!(beam.eval("catch erpc:call(R, demo, throw, [{a, b}])"), "{a,b}");
            assert_eq!(
                beam.eval("try erpc:call(R, demo, exit, [why]) catch C:E -> {C, E} end"),
                "{exit,{exception,why}}"
            );
            assert_eq!(
                beam.eval(
                    "try erpc:call(R, demo, add, [a, b]) catch error:{exception, Reason, _} -> Reason end"
                ),
                "badarith"
            );
            assert_eq!(
            beam.eval("try erpc:call(R, nobody, knows, [1]) catch error:{exception, U, [{M, F, A, _} | _]} -> {U, M, F, A} end"),
            "{undef,nobody,knows,[1]}"
        );
            assert_eq!(
                beam.eval("{badrpc, {'EXIT', {undef, _}}} = rpc:call(R, nobody, knows, []), badrpc"),
                "badrpc"
            );
            assert_eq!(
                beam.eval("{badrpc, {'EXIT', why}} = rpc:call(R, demo, exit, [why]), badrpc"),
                "badrpc"
            );

            assert_eq!(
            beam.eval("erpc:cast(R, demo, tell, [self(), by_cast]), receive by_cast -> told after 5000 -> nothing end"),
            "told"
        );
            assert_eq!(beam.eval("rpc:cast(R, demo, tell, [self(), by_rpc]), receive by_rpc -> told after 5000 -> nothing end"), "told");
            Ok(())
        },
    );
}

#[test]
fn the_beam_spawns_here() {
    case(
        Case::Smoke,
        TOPIC,
        "spawn, spawn_link and spawn_monitor of Rust functions from a BEAM node",
        |release| {
            let epmd = Epmd::start(release);
            let rust = Rust::start(&epmd, "rust");
            exports(&rust);
            let beam = Beam::visible(release, &epmd, "beam");
            beam.eval("R = 'rust@127.0.0.1'");
            assert_eq!(
            beam.eval("P = spawn(R, demo, tell, [self(), spawned]), receive spawned -> node(P) after 5000 -> nothing end"),
            "'rust@127.0.0.1'"
        );
            assert_eq!(
                beam.eval(
                    "{Q, M} = spawn_monitor(R, demo, exit, [{out, 1}]), \
                 receive {'DOWN', M, process, Q, Why} -> Why after 5000 -> nothing end"
                ),
                "{out,1}"
            );
            assert_eq!(
                beam.eval(
                    "process_flag(trap_exit, true), L = spawn_link(R, demo, exit, [linked]), \
                 receive {'EXIT', L, Because} -> Because after 5000 -> nothing end"
                ),
                "linked"
            );
            Ok(())
        },
    );
}

#[test]
fn we_call_the_beam() {
    case(
        Case::Smoke,
        TOPIC,
        "Rust calls functions of a BEAM node by erpc and rpc, and gets what they raise",
        |release| {
            let epmd = Epmd::start(release);
            let rust = Rust::start(&epmd, "rust");
            let beam = Beam::visible(release, &epmd, "beam");
            let node = Atom::new(beam.name()).unwrap();
            let erpc = |module: &str, function: &str, args: &str| {
                let Term::List(args) = term(args) else { panic!("a list") };
                rust.run(rust.node.erpc(&node, module, function, args.into_vec(), WAIT))
            };
            assert_eq!(shown(&erpc("lists", "seq", "[1, 5]").unwrap()), "[1,2,3,4,5]");
            assert_eq!(shown(&erpc("maps", "from_list", "[[{a, 1}]]").unwrap()), "#{a => 1}");
            let raised = |class, reason: &str, outcome: Result<Term, Error>| match outcome {
                Err(Error::Raised(raised)) => {
                    assert_eq!((raised.class, shown(&raised.reason).as_str()), (class, reason));
                }
                other => panic!("{other:?}"),
            };
            raised(
                Class::Error,
                "badarith",
                erpc("erlang", "'/'", "[1, 0]").or_else(|_| erpc("erlang", "/", "[1, 0]")),
            );
            raised(Class::Exit, "bye", erpc("erlang", "exit", "[bye]"));
            raised(Class::Throw, "ball", erpc("erlang", "throw", "[ball]"));
            raised(Class::Error, "undef", erpc("nobody", "knows", "[]"));

            let rpc = |args: Vec<Term>| rust.run(rust.node.rpc(&node, "erlang", "exit", args, WAIT));
            assert_eq!(shown(&rpc(vec![term("why")]).unwrap()), "{badrpc,{'EXIT',why}}");

            let mut inbox = rust.node.mailbox("inbox").unwrap();
            let args = vec![Term::from((Term::atom("inbox"), Term::atom("rust@127.0.0.1"))), term("by_cast")];
            rust.run(rust.node.rpc_cast(&node, "erlang", "send", args)).unwrap();
            assert_eq!(rust.run(next(&mut inbox)), "by_cast");
            Ok(())
        },
    );
}

#[test]
fn we_spawn_there() {
    case(Case::Smoke, TOPIC, "Rust starts linked and monitored processes on a BEAM node", |release| {
        let epmd = Epmd::start(release);
        let rust = Rust::start(&epmd, "rust");
        let beam = Beam::visible(release, &epmd, "beam");
        let node = Atom::new(beam.name()).unwrap();
        let mut inbox = rust.node.mailbox("inbox").unwrap();
        inbox.trap_exit(true);
        rust.run(async {
            let spawned = inbox
                .spawn_remote(&node, "erlang", "exit", vec![term("watched")], false, true)
                .await
                .unwrap();
            assert_eq!(spawned.pid.node, "beam@127.0.0.1");
            let down = crate::rust::next_term(&mut inbox).await;
            let down = down.as_tuple().unwrap();
            assert_eq!((shown(&down[0]), shown(&down[4])), ("'DOWN'".into(), "watched".into()));
            assert_eq!(down[1].as_reference(), spawned.monitor.as_ref());

            let spawned =
                inbox.spawn_remote(&node, "erlang", "exit", vec![term("linked")], true, false).await.unwrap();
            let exit = crate::rust::next_term(&mut inbox).await;
            let exit = exit.as_tuple().unwrap();
            assert_eq!(
                (shown(&exit[0]), exit[1].as_pid(), shown(&exit[2])),
                ("'EXIT'".into(), Some(&spawned.pid), "linked".into())
            );
        });
        Ok(())
    });
}

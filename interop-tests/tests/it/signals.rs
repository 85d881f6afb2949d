//! The whole signal protocol against a BEAM: what OTP's `link_SUITE`, `monitor_SUITE`, `process_SUITE` and `signal_SUITE` hold their
//! own nodes to, between a BEAM process and a Rust process.

use foundation_interop_tests::case::Unsupported;
use foundation_interop_tests::{Beam, Case, Epmd, Release, case, eventually::eventually_true};
use foundation_node::process::{AliasKind, Message, Process, Reason};
use foundation_proto::Limits;
use foundation_proto::etf::{Atom, Pid, RawTerm, Term};

use crate::rust::{Rust, WAIT, next, next_term, shown, term};

const TOPIC: &str = "the whole signal protocol";

/// Both nodes, connected, and how the test's processes get to know each other.
struct Scene {
    rust: Rust,
    beam: Beam,
    inbox: Process,
    epmd: Epmd,
}

impl Scene {
    fn new(release: &Release) -> Self {
        let epmd = Epmd::start(release);
        let rust = Rust::start(&epmd, "rust");
        let beam = Beam::visible(release, &epmd, "beam");
        rust.run(rust.node.connect("beam@127.0.0.1")).unwrap();
        let inbox = rust.node.mailbox("inbox").unwrap();
        beam.eval("R = 'rust@127.0.0.1', I = {inbox, R}, ok");
        Self { rust, beam, inbox, epmd }
    }

    /// Lets the BEAM know a term under a name.
    fn tell(&self, name: &str, what: impl Into<Term>) {
        let told = Term::from((Term::atom("told"), what.into()));
        self.rust.run(self.inbox.send_term(("test", "beam@127.0.0.1"), &told)).unwrap();
        self.beam.eval(&format!(
            "{name} = receive {{told, T_{name}}} -> T_{name} after 10000 -> exit(nothing) end, ok"
        ));
    }

    /// The value of an expression of the BEAM, sent to the Rust node.
    fn ask(&mut self, expression: &str) -> Term {
        self.beam.eval(&format!("I ! {expression}, ok"));
        self.rust.run(next_term(&mut self.inbox))
    }

    /// A BEAM process that an expression starts.
    fn process(&mut self, expression: &str) -> Pid {
        self.ask(expression).as_pid().cloned().expect("a pid")
    }

    /// All that the BEAM sent before has arrived and was carried out; and the other way.
    fn sync(&self) {
        assert_eq!(self.beam.eval("net_adm:ping(R)"), "pong");
        assert!(self.rust.run(self.rust.node.ping("beam@127.0.0.1")));
    }
}

/// What a process receives, in words.
fn said(message: &Message) -> String {
    match message {
        Message::Exit(exit) => {
            format!("exit {}", shown(&exit.reason.to_term(&Limits::default()).unwrap()))
        }
        Message::Down(down) => format!("down {}", shown(&down.reason.to_term(&Limits::default()).unwrap())),
        other => shown(&other.to_term(&Limits::default()).unwrap()),
    }
}

async fn said_by(process: &mut Process) -> String {
    said(&process.recv().await.unwrap())
}

/// How often each side takes back a monitor of a process that ends.
const RACES: i64 = 200;

/// Ends with the reason that it is sent.
const SLEEPER: &str = "spawn(fun() -> receive {exit, Why} -> exit(Why) end end)";

#[test]
fn reasons() {
    case(
        Case::Smoke,
        TOPIC,
        "exit reasons through links and by exit/2, trapped or not, both ways; kill cannot be trapped",
        |release| {
            let mut scene = Scene::new(release);
            // The reason that a linked process ends with, and what becomes of one that does not trap exits.
            for (reason, dies) in [
                ("normal", None),
                ("shutdown", Some("shutdown")),
                ("kill", Some("kill")),
                ("{a,[1]}", Some("{a,[1]}")),
            ] {
                let theirs = scene.process(SLEEPER);
                let ours = scene.rust.node.process().unwrap();
                scene.rust.run(async {
                    ours.link(&theirs).await;
                    scene.inbox.link(&theirs).await;
                    scene.inbox.trap_exit(true);
                    scene.inbox.send_term(&theirs, &term(&format!("{{exit, {reason}}}"))).await.unwrap();
                    assert_eq!(said_by(&mut scene.inbox).await, format!("exit {reason}"));
                });
                scene.sync();
                assert_eq!(ours.exit_reason().map(|why| why.to_string()).as_deref(), dies, "{reason}");

                let ours = scene.rust.node.process().unwrap();
                let name = format!("O{}", reason.len());
                scene.tell(&name, ours.pid());
                scene.beam.eval(&format!(
                    "Me = self(), L{name} = spawn(fun() -> link({name}), Me ! linked, receive go -> ok end end), \
                     M{name} = monitor(process, L{name}), process_flag(trap_exit, true), link({name}), receive linked -> ok end"
                ));
                scene.sync();
                ours.stop(Reason::from(term(reason)));
                assert_eq!(
                    scene.beam.eval(&format!(
                        "receive {{'EXIT', {name}, W{name}}} -> W{name} after 10000 -> nothing end"
                    )),
                    reason
                );
                let expected = dies.unwrap_or("alive");
                assert_eq!(
                    scene.beam.eval(&format!(
                        "receive {{'DOWN', M{name}, _, _, D{name}}} -> D{name} after {} -> alive end",
                        if dies.is_some() { 10_000 } else { 200 }
                    )),
                    expected
                );
            }
            // By exit/2: `normal` is a message to who traps and nothing to others, `kill` is no message to anybody.
            let ours = scene.rust.node.process().unwrap();
            let mut trapping = scene.rust.node.process().unwrap();
            trapping.trap_exit(true);
            scene.tell("Ours", ours.pid());
            scene.tell("Trapping", trapping.pid());
            scene.beam.eval("[exit(P, X) || P <- [Ours, Trapping], X <- [normal, x, kill]], ok");
            scene.rust.run(async {
                // It may have been killed before it was asked.
                if let Ok(message) = trapping.recv().await {
                    assert_eq!(said(&message), "exit normal");
                }
            });
            eventually_true("both are gone", WAIT, || {
                ours.exit_reason().is_some_and(|why| why.is("x"))
                    && trapping.exit_reason().is_some_and(|why| why.is("killed"))
            });
            // Known only once it traps exits: the first exit signal may come before a spawned process has run at all.
            let theirs = scene.process(
                "(fun(Self) -> W = spawn(fun() -> process_flag(trap_exit, true), Self ! ready, \
                   (fun L() -> receive M -> I ! {got, element(3, M)}, L() end end)() end), \
                 receive ready -> W end end)(self())",
            );
            scene.rust.run(async {
                scene.inbox.monitor(&theirs).await.unwrap();
                for reason in ["normal", "x", "kill"] {
                    scene.inbox.exit(&theirs, Reason::from(term(reason))).await;
                    let expected =
                        if reason == "kill" { "down killed".into() } else { format!("{{got,{reason}}}") };
                    assert_eq!(said_by(&mut scene.inbox).await, expected);
                }
            });
            Ok(())
        },
    );
}

#[test]
fn registered_names() {
    case(
        Case::Full,
        TOPIC,
        "exits of registered processes: the name is looked up, the process ends, the name is free, both ways",
        |release| {
            let mut scene = Scene::new(release);
            let ours = scene.rust.node.mailbox("named").unwrap();
            assert_eq!(
                scene.beam.eval(
                    "N = rpc:call(R, erlang, whereis, [named]), M = monitor(process, {named, R}), exit(N, bye), \
                     receive {'DOWN', M, process, {named, R}, Why} -> Why after 10000 -> nothing end"
                ),
                "bye"
            );
            assert!(ours.exit_reason().is_some_and(|why| why.is("bye")));
            assert_eq!(scene.beam.eval("rpc:call(R, erlang, whereis, [named])"), "undefined");
            let _again = scene.rust.node.mailbox("named").unwrap();

            scene.beam.eval(&format!("register(named, {SLEEPER})"));
            let beam = Atom::new_static("beam@127.0.0.1");
            scene.rust.run(async {
                let whereis = vec![Term::atom("named")];
                let theirs =
                    scene.inbox.erpc(&beam, "erlang", "whereis", whereis.clone(), WAIT).await.unwrap();
                let theirs = theirs.as_pid().cloned().expect("a pid");
                scene.inbox.monitor(("named", "beam@127.0.0.1")).await.unwrap();
                scene.inbox.exit(&theirs, "bye").await;
                assert_eq!(said_by(&mut scene.inbox).await, "down bye");
                let gone = scene.inbox.erpc(&beam, "erlang", "whereis", whereis, WAIT).await.unwrap();
                assert!(gone.is_atom("undefined"), "{gone:?}");
            });
            Ok(())
        },
    );
}

#[test]
fn crossing_links() {
    case(
        Case::Smoke,
        TOPIC,
        "links and unlinks that cross, 300 from each side: the last word counts, acknowledgements of earlier ones do not",
        |release| {
            let mut scene = Scene::new(release);
            for (last, linked) in [("link", true), ("unlink", false)] {
                let theirs = scene.process(
                    "spawn(fun() -> process_flag(trap_exit, true), (fun L() -> receive \
                       {cross, P, To, Last} -> [begin link(P), unlink(P) end || _ <- lists:seq(1, 300)], \
                         case Last of link -> link(P); unlink -> ok end, To ! crossed, L(); \
                       {links, To} -> To ! {links, [P || P <- element(2, process_info(self(), links)), node(P) =/= node()]}, L(); \
                       {'EXIT', _, Why} -> I ! {exit, Why}, L() end end)() end)",
                );
                scene.tell(&format!("T_{last}"), &theirs);
                let ours = scene.rust.node.process().unwrap();
                ours.trap_exit(true);
                scene.tell(&format!("O_{last}"), ours.pid());
                scene.beam.eval(&format!("T_{last} ! {{cross, O_{last}, self(), {last}}}, ok"));
                scene.rust.run(async {
                    for _ in 0..300 {
                        ours.link(&theirs).await;
                        ours.unlink(&theirs);
                    }
                    if linked {
                        ours.link(&theirs).await;
                    }
                });
                assert_eq!(
                    scene.beam.eval("receive crossed -> crossed after 15000 -> nothing end"),
                    "crossed"
                );
                scene.sync();
                let links = format!(
                    "T_{last} ! {{links, self()}}, (fun() -> receive {{links, Links}} -> length(Links) after 5000 -> nothing end end)()"
                );
                let expected = usize::from(linked);
                eventually_true("both sides see the same", WAIT, || {
                    ours.links().len() == expected && scene.beam.eval(&links) == expected.to_string()
                });
                // It is a whole link, or none: the end of one side says so.
                ours.stop("over");
                scene.sync();
                scene.beam.eval(&format!(
                    "T_{last} ! {{links, self()}}, receive {{links, []}} -> I ! marker end, ok"
                ));
                let heard = scene.rust.run(next(&mut scene.inbox));
                assert_eq!(heard, if linked { "{exit,over}" } else { "marker" });
                if linked {
                    assert_eq!(scene.rust.run(next(&mut scene.inbox)), "marker");
                }
            }
            Ok(())
        },
    );
}

#[test]
fn demonitor_races() {
    case(
        Case::Full,
        TOPIC,
        "demonitor races with the end of the process, 200 times from each side: one DOWN or none, and none after a flush",
        |release| {
            let mut scene = Scene::new(release);
            // The BEAM watches ours, which end meanwhile.
            scene.beam.eval(
                "register(racer, spawn(fun() -> (fun L() -> receive {watch, P, Pause} -> \
                   A = monitor(process, P), B = monitor(process, P), [erlang:yield() || _ <- lists:seq(1, Pause)], \
                   demonitor(A, [flush]), \
                   I ! receive {'DOWN', A, _, _, _} -> late; {'DOWN', B, _, _, _} -> one after 10000 -> lost end end, L() end)() end)), ok",
            );
            for round in 0..RACES {
                scene.rust.run(async {
                    let ours = scene.rust.node.process().unwrap();
                    let told =
                        Term::from((Term::atom("watch"), Term::from(ours.pid()), Term::from(round % 7)));
                    scene.inbox.send_term(("racer", "beam@127.0.0.1"), &told).await.unwrap();
                    tokio::time::sleep(std::time::Duration::from_micros(100 * (round as u64 % 11))).await;
                    ours.stop("over");
                    assert_eq!(next(&mut scene.inbox).await, "one");
                });
            }
            scene.sync();
            assert_eq!(
                scene.beam.eval("process_info(whereis(racer), message_queue_len)"),
                "{message_queue_len,0}",
                "no late DOWN"
            );

            // Ours watch the BEAM's.
            scene.beam.eval(
                "register(starter, spawn(fun() -> (fun L() -> receive {start, To} -> \
                   To ! spawn(fun() -> receive after rand:uniform(3) - 1 -> ok end end), L() end end)() end)), ok",
            );
            let start = Term::from((Term::atom("start"), Term::from(scene.inbox.pid())));
            for _ in 0..RACES {
                scene.rust.run(async {
                    scene.inbox.send_term(("starter", "beam@127.0.0.1"), &start).await.unwrap();
                    let theirs = next_term(&mut scene.inbox).await.as_pid().cloned().expect("a pid");
                    let away = scene.inbox.monitor(&theirs).await.unwrap();
                    let stays = scene.inbox.monitor(&theirs).await.unwrap();
                    tokio::task::yield_now().await;
                    scene.inbox.demonitor_flush(&away);
                    match scene.inbox.recv().await.unwrap() {
                        Message::Down(down) => assert_eq!(down.reference, stays),
                        other => panic!("{other:?}"),
                    }
                });
            }
            scene.sync();
            assert_eq!(scene.inbox.mailbox_len(), 0, "no late DOWN");
            Ok(())
        },
    );
}

#[test]
fn aliases_of_monitors() {
    case(
        Case::Smoke,
        TOPIC,
        "the aliases of monitors, of each kind, end as OTP says: by unalias, the first reply, demonitor or the DOWN; both ways",
        |release| {
            if release.number < 24 {
                return Err(Unsupported("aliases came with OTP 24"));
            }
            let mut scene = Scene::new(release);
            // What came through the alias before and after its end, of which the second is nobody's.
            for (index, (kind, ends)) in [
                ("explicit_unalias", "unalias(A)"),
                ("demonitor", "demonitor(A)"),
                ("reply_demonitor", "ok"),
                ("reply_demonitor", "demonitor(A)"),
            ]
            .into_iter()
            .enumerate()
            {
                let ours = scene.rust.node.process().unwrap();
                scene.tell(&format!("P{index}"), ours.pid());
                let alias = scene.ask(&format!("monitor(process, P{index}, [{{alias, {kind}}}])"));
                let alias = alias.as_reference().cloned().expect("a reference");
                scene.rust.run(async {
                    ours.send_term(&alias, &term("first")).await.unwrap();
                });
                scene.tell(&format!("A{index}"), &alias);
                assert_eq!(scene.beam.eval("receive first -> got after 10000 -> nothing end"), "got");
                scene.beam.eval(&ends.replace('A', &format!("A{index}")));
                scene.sync();
                scene.rust.run(async {
                    ours.send_term(&alias, &term("second")).await.unwrap();
                    ours.send_term(("test", "beam@127.0.0.1"), &term("marker")).await.unwrap();
                });
                assert_eq!(
                    scene.beam.eval("receive second -> late; marker -> marker after 10000 -> nothing end"),
                    "marker",
                    "{kind}, {ends}"
                );
                // The monitor is gone with `reply_demonitor`, not with an unalias.
                ours.stop("over");
                let down = scene.beam.eval(&format!(
                    "receive {{'DOWN', A{index}, _, _, over}} -> down after {} -> quiet end",
                    if kind == "explicit_unalias" { 10_000 } else { 100 }
                ));
                assert_eq!(down, if kind == "explicit_unalias" { "down" } else { "quiet" }, "{kind}");
            }

            for kind in [AliasKind::ExplicitUnalias, AliasKind::Demonitor, AliasKind::ReplyDemonitor] {
                let theirs = scene.process(SLEEPER);
                let alias = scene.rust.run(scene.inbox.monitor_alias(&theirs, kind)).unwrap();
                let name = format!("A_{kind:?}");
                scene.tell(&name, &alias);
                scene.beam.eval(&format!("{name} ! first"));
                assert_eq!(scene.rust.run(next(&mut scene.inbox)), "first");
                match kind {
                    AliasKind::ExplicitUnalias => assert!(scene.inbox.unalias(&alias)),
                    AliasKind::Demonitor => assert!(scene.inbox.demonitor(&alias)),
                    _ => {}
                }
                scene.beam.eval(&format!("{name} ! second, I ! marker"));
                assert_eq!(scene.rust.run(next(&mut scene.inbox)), "marker", "{kind:?}");
                scene.tell(&format!("T_{kind:?}"), &theirs);
                scene.rust.run(scene.inbox.send_term(&theirs, &term("{exit, over}"))).unwrap();
                eventually_true("it has ended", WAIT, || {
                    scene.beam.eval(&format!("is_process_alive(T_{kind:?})")) == "false"
                });
                if kind == AliasKind::ExplicitUnalias {
                    assert_eq!(scene.rust.run(said_by(&mut scene.inbox)), "down over");
                }
                scene.beam.eval("I ! marker");
                assert_eq!(scene.rust.run(said_by(&mut scene.inbox)), "marker", "{kind:?}");
            }
            Ok(())
        },
    );
}

#[test]
fn spawn_requests() {
    case(
        Case::Smoke,
        TOPIC,
        "spawn_request with link, monitor, reply and reply_tag, abandoned requests, and functions that do not exist",
        |release| {
            let mut scene = Scene::new(release);
            scene.rust.node.export("demo", "wait", 0, |_| async {
                std::future::pending::<()>().await;
                Ok(Term::atom("never"))
            });
            // The reply has the tag that was asked for, and comes before the DOWN.
            assert_eq!(
                scene.beam.eval(
                    "process_flag(trap_exit, true), Q = erlang:spawn_request(R, demo, wait, [], [{reply_tag, {tag, 1}}, monitor, link]), \
                     P = receive {{tag, 1}, Q, ok, Child} -> Child after 10000 -> nothing end, \
                     {links, Ls} = process_info(self(), links), exit(P, over), \
                     {lists:member(P, Ls), receive {'DOWN', Q, process, P, W1} -> W1 after 10000 -> nothing end, \
                      receive {'EXIT', P, W2} -> W2 after 10000 -> nothing end}"
                ),
                "{true,over,over}"
            );
            // No reply if none is wanted; nor on success if only errors are.
            for reply in ["no", "error_only"] {
                assert_eq!(
                    scene.beam.eval(&format!(
                        "(fun() -> X = erlang:spawn_request(R, demo, wait, [], [{{reply, {reply}}}]), net_adm:ping(R), net_adm:ping(R), \
                         receive {{spawn_reply, X, _, _}} -> replied after 50 -> quiet end end)()"
                    )),
                    "quiet"
                );
            }
            // A function that does not exist is started and fails, as on a BEAM.
            assert_eq!(
                scene.beam.eval(
                    "(fun() -> X = erlang:spawn_request(R, no, such, [a, b], [monitor]), receive {spawn_reply, X, ok, C} -> \
                     receive {'DOWN', X, process, C, {undef, [{no, such, [a, b], _} | _]}} -> undef after 10000 -> nothing end \
                     after 10000 -> nothing end end)()"
                ),
                "undef"
            );
            // An abandoned request: the process that was started does not stay linked to nobody.
            let before = scene.rust.node.processes().len();
            assert_eq!(
                scene.beam.eval(
                    "(fun() -> X = erlang:spawn_request(R, demo, wait, [], [link]), erlang:spawn_request_abandon(X) end)()"
                ),
                "true"
            );
            scene.sync();
            eventually_true("the abandoned process is gone", WAIT, || {
                scene.rust.node.processes().len() == before
            });

            // The other way: a function that does not exist, and a module that is none.
            let beam = Atom::new_static("beam@127.0.0.1");
            scene.rust.run(async {
                scene.inbox.trap_exit(true);
                let spawned =
                    scene.inbox.spawn_remote(&beam, "no", "such", vec![], true, true).await.unwrap();
                assert_eq!(spawned.pid.node, beam);
                let mut heard = [said_by(&mut scene.inbox).await, said_by(&mut scene.inbox).await];
                heard.sort();
                assert!(heard[0].starts_with("down {undef,[{no,such,[],"), "{heard:?}");
                assert!(heard[1].starts_with("exit {undef,[{no,such,[],"), "{heard:?}");
            });
            Ok(())
        },
    );
}

#[test]
fn priority_links_and_monitors() {
    case(
        Case::Smoke,
        TOPIC,
        "links and monitors with the option priority: their EXIT and DOWN go before what waits, both ways",
        |release| {
            if release.number < 28 {
                return Err(Unsupported("priority messages came with OTP 28"));
            }
            let mut scene = Scene::new(release);
            let ours = scene.rust.node.process().unwrap();
            scene.tell("P", ours.pid());
            scene.beam.eval(
                "process_flag(trap_exit, true), link(P, [priority]), monitor(process, P, [priority]), \
                 [self() ! {waits, N} || N <- lists:seq(1, 3)], ok",
            );
            scene.sync();
            ours.stop("over");
            scene.beam.eval(
                "(fun W() -> case process_info(self(), message_queue_len) of {_, N} when N < 5 -> receive after 5 -> W() end; _ -> ok end end)()",
            );
            assert_eq!(
                scene.beam.eval(
                    "(fun F() -> receive {waits, N} -> [N | F()]; {'EXIT', P, over} -> [exit | F()]; \
                       {'DOWN', _, _, P, over} -> [down | F()] after 0 -> [] end end)()"
                ),
                "[exit,down,1,2,3]"
            );
            // exit/3 through an alias of ours, and monitor/3 with both a priority alias and a tag.
            let theirs = scene.process(SLEEPER);
            scene.rust.run(async {
                scene.inbox.monitor_priority(&theirs).await.unwrap();
            });
            scene.tell("T", &theirs);
            scene.beam.eval("[I ! {waits, N} || N <- lists:seq(1, 3)], T ! {exit, over}, ok");
            eventually_true("all wait", WAIT, || scene.inbox.mailbox_len() == 4);
            scene.rust.run(async {
                for expected in ["down over", "{waits,1}", "{waits,2}", "{waits,3}"] {
                    assert_eq!(said_by(&mut scene.inbox).await, expected);
                }
            });
            Ok(())
        },
    );
}

#[test]
fn our_incarnation() {
    case(
        Case::Smoke,
        TOPIC,
        "a Rust node that comes back under its name is another incarnation: pids, monitors, links and messages of the old one are dead",
        |release| {
            let scene = Scene::new(release);
            let ours = scene.rust.node.process().unwrap();
            scene.tell("Old", ours.pid());
            scene.beam.eval("process_flag(trap_exit, true), link(Old), monitor(process, Old), ok");
            scene.sync();
            let (old, epmd) = (ours.pid().clone(), scene.epmd);
            // The node first: its processes are lost with it, they do not end before it.
            drop((scene.rust, ours, scene.inbox));
            let lost = "lists:sort([receive {'DOWN', _, _, Old, A} -> {down, A}; {'EXIT', Old, B} -> {exit, B} after 10000 -> nothing end || _ <- [1, 2]])";
            assert_eq!(scene.beam.eval(lost), "[{down,noconnection},{exit,noconnection}]");

            let rust = Rust::start(&epmd, "rust");
            assert_eq!(scene.beam.eval("net_adm:ping(R)"), "pong");
            // Among them is one with the number of the old process, in all likelihood. It is somebody else.
            let others: Vec<Process> = (0..1_000).map(|_| rust.node.process().unwrap()).collect();
            assert_ne!(others[0].pid().creation, old.creation);
            scene.beam.eval("Old ! ghost, exit(Old, kill), link(Old), monitor(process, Old), ok");
            assert_eq!(scene.beam.eval(lost), "[{down,noproc},{exit,noproc}]");
            assert!(others.iter().all(|other| other.exit_reason().is_none() && other.mailbox_len() == 0));
            assert_eq!(scene.beam.eval("nodes(hidden)"), "['rust@127.0.0.1']");
            Ok(())
        },
    );
}

#[test]
fn atom_cache_entries() {
    case(
        Case::Smoke,
        "messages",
        "atom_cache_entry, contended, unicode: thousands of names share the slots of the atom cache, both ways",
        |release| {
            let mut scene = Scene::new(release);
            // 2,500 atoms in 2,048 slots, from two senders in turns, so that slots are overwritten all the time.
            scene.beam.eval(
                "Name = fun(N) -> binary_to_atom(unicode:characters_to_binary([\"n\\x{e5}\\x{3b1}\", integer_to_list(N)]), utf8) end, \
                 [begin register(Name(N), spawn(fun() -> receive {To, X} -> To ! {Name(N), X} end end)) end || N <- lists:seq(1, 2500)], ok",
            );
            let other = scene.rust.node.process().unwrap();
            let name = |n: u32| format!("n\u{e5}\u{3b1}{n}");
            scene.rust.run(async {
                for n in 1..=2_500 {
                    let sender = if n % 2 == 0 { scene.inbox.handle() } else { other.handle() };
                    let what = Term::from((Term::from(scene.inbox.pid()), Term::atom("x")));
                    let to = (Atom::new(&name(n)).unwrap(), Atom::new_static("beam@127.0.0.1"));
                    sender.send_term(to, &what).await.unwrap();
                }
                let mut back: Vec<String> = Vec::new();
                for _ in 1..=2_500 {
                    let answer = next_term(&mut scene.inbox).await;
                    back.push(answer.as_tuple().unwrap()[0].as_atom().unwrap().as_str().to_owned());
                }
                back.sort_unstable();
                let mut all: Vec<String> = (1..=2_500).map(name).collect();
                all.sort_unstable();
                assert_eq!(back, all);
            });
            Ok(())
        },
    );
}

#[test]
fn group_leaders() {
    case(
        Case::Smoke,
        TOPIC,
        "group leaders across nodes: put_chars, format and get_line from either side, and a leader that is changed",
        |release| {
            let mut scene = Scene::new(release);
            // A BEAM function that a Rust process calls prints and reads where the call came from.
            let printed = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
            scene.rust.node.set_output(Tee(printed.clone()));
            let beam = Atom::new_static("beam@127.0.0.1");
            scene.rust.run(async {
                let call = |function: &'static str, args: &str| {
                    let Term::List(args) = term(args) else { panic!("a list") };
                    scene.inbox.erpc(&beam, "io", function, args.into_vec(), WAIT)
                };
                assert_eq!(
                    shown(&call("format", "[<<\"~p ~s~n\">>, [{a,1}, <<\"b\">>]]").await.unwrap()),
                    "ok"
                );
                assert_eq!(shown(&call("put_chars", "[[955, <<\"x\">>]]").await.unwrap()), "ok");
                // Nobody types at a node.
                assert_eq!(shown(&call("get_line", "[prompt]").await.unwrap()), "eof");
                assert_eq!(shown(&call("get_chars", "[prompt, 3]").await.unwrap()), "eof");
            });
            assert_eq!(String::from_utf8_lossy(&printed.lock().unwrap()), "{a,1} b\n\u{3bb}x");

            // A Rust function that a BEAM process starts prints through the leader of that process.
            scene.rust.node.export_call("demo", "print", 1, |mut call| async move {
                let text = call.args.remove(0);
                let text = String::from_utf8_lossy(text.as_binary().expect("a binary")).into_owned();
                call.process.print(&text).await.unwrap();
                Ok(Term::atom("printed"))
            });
            let leader = "Me = self(), G = spawn(fun() -> (fun L() -> receive {io_request, F, As, Rq} -> Me ! {asked, Rq}, F ! {io_reply, As, ok}, L() end end)() end), ok";
            scene.beam.eval(leader);
            assert_eq!(
                scene.beam.eval(
                    "spawn(fun() -> group_leader(G, self()), spawn(R, demo, print, [<<\"hello\">>]), receive after infinity -> ok end end), \
                     receive {asked, {put_chars, unicode, What}} -> unicode:characters_to_binary(What) after 10000 -> nothing end"
                ),
                "<<\"hello\">>"
            );
            // GROUP_LEADER from and to the BEAM.
            let ours = scene.rust.node.process().unwrap();
            scene.tell("Ours", ours.pid());
            scene.beam.eval("group_leader(G, Ours)");
            let leader = scene.process("G");
            eventually_true("the leader is changed", WAIT, || ours.group_leader() == leader);
            scene.rust.run(ours.print("there")).unwrap();
            assert_eq!(
                scene.beam.eval("receive {asked, {put_chars, unicode, W2}} -> unicode:characters_to_binary(W2) after 10000 -> nothing end"),
                "<<\"there\">>"
            );
            let theirs = scene.process("(S = spawn(fun() -> receive stop -> ok end end))");
            scene.rust.run(ours.set_group_leader(ours.pid(), &theirs));
            eventually_true("theirs is changed", WAIT, || {
                scene.beam.eval("element(2, process_info(S, group_leader)) =:= Ours") == "true"
            });
            Ok(())
        },
    );
}

/// Keeps what a node prints.
struct Tee(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn sequential_trace() {
    case(
        Case::Smoke,
        TOPIC,
        "a sequential trace goes through a Rust process: the token comes with the message and goes back with the answer",
        |release| {
            let mut scene = Scene::new(release);
            let alias = scene.inbox.alias(AliasKind::ExplicitUnalias).unwrap();
            scene.tell("Ours", scene.inbox.pid());
            scene.tell("Alias", &alias);
            scene.beam.eval(
                "Me = self(), Tracer = spawn(fun() -> (fun L(Seen) -> receive {seen, To} when length(Seen) > 2 -> To ! {seen, lists:reverse(Seen)}, L([]); \
                   {seq_trace, Label, {What, Serial, From, To, Message}} -> L([{Label, What, Serial, From, To, Message} | Seen]); _ -> L(Seen) end end)([]) end), \
                 seq_trace:set_system_tracer(Tracer), \
                 Seen = fun() -> Tracer ! {seen, self()}, receive {seen, S} -> S after 10000 -> nothing end end, ok",
            );
            let mut destinations = vec!["Ours", "I"];
            if release.number >= 24 {
                destinations.push("Alias");
            }
            for to in destinations {
                scene.beam.eval(&format!(
                    "seq_trace:set_token(label, {{trace, 17}}), seq_trace:set_token(send, true), \
                     seq_trace:set_token('receive', true), {to} ! {{ask, self()}}, seq_trace:set_token([]), ok"
                ));
                scene.rust.run(async {
                    let asked = next_term(&mut scene.inbox).await;
                    let from = asked.as_tuple().unwrap()[1].as_pid().cloned().expect("a pid");
                    let token = scene.inbox.seq_trace_token().cloned().expect("a token");
                    let label = shown(&token.label.to_term(&Limits::default()).unwrap());
                    assert_eq!((label.as_str(), token.flags & 3), ("{trace,17}", 3));
                    assert_eq!(token.sender, from);
                    scene
                        .inbox
                        .send_traced_raw(&from, RawTerm::from_term(&term("answer")).unwrap(), &token)
                        .await
                        .unwrap();
                    // Larger than a fragment, and to a name.
                    let large = RawTerm::from_term(&Term::binary(&[7; 200_000])).unwrap();
                    scene.inbox.send_traced_raw(("test", "beam@127.0.0.1"), large, &token).await.unwrap();
                    // One without a token is not traced, and takes away the receiver's.
                    scene.inbox.send_term(&from, &term("untraced")).await.unwrap();
                });
                assert_eq!(
                    scene.beam.eval("[receive answer -> answer after 10000 -> nothing end, receive B when is_binary(B) -> byte_size(B) after 10000 -> nothing end, \
                                     receive untraced -> seq_trace:get_token() after 10000 -> nothing end]"),
                    "[answer,200000,[]]"
                );
                // The receiver's messages: the sent one has serial 1, the answers 2 and 3, both caused by 1.
                assert_eq!(
                    scene.beam.eval(
                        "(fun([{L1, send, {P, S}, Me1, _, {ask, _}}, {L2, 'receive', {S2, A}, O1, _, answer}, {L3, 'receive', {S3, A2}, O2, _, Big}]) -> \
                           {[L1, L2, L3], P < S, S2 - S, A - S, S3 - S, A2 - S, Me1 =:= Me, O1 =:= Ours, O2 =:= Ours, byte_size(Big)}; (Other) -> Other end)(Seen())"
                    ),
                    "{[{trace,17},{trace,17},{trace,17}],true,0,1,0,2,true,true,true,200000}",
                    "{to}"
                );
                scene.sync();
            }
            // Without a token there is none.
            scene.beam.eval("I ! plain");
            assert_eq!(scene.rust.run(next(&mut scene.inbox)), "plain");
            assert!(scene.inbox.seq_trace_token().is_none());
            Ok(())
        },
    );
}

//! The busy-channel and order cases of OTP's `signal_SUITE`, by their names: what may not wait is neither lost nor does it hold
//! anybody up, and signals of one process keep their order.

use std::time::{Duration, Instant};

use foundation_interop_tests::wire::Host;
use foundation_interop_tests::{Beam, Case, Epmd, Release, Wire, beam, case, eventually::eventually_true};
use foundation_node::process::{Process, Reason};
use foundation_proto::etf::{Pid, Term};

use crate::rust::{Rust, WAIT, next_term, term};

const TOPIC: &str = "busy channels";

/// No write for so long, with much to write, means that the socket takes no more.
const SETTLED: Duration = Duration::from_millis(300);

/// A Rust node and a BEAM node on a wire that can be made to take nothing more from the Rust node.
struct Scene {
    rust: Rust,
    beam: Beam,
    wire: Wire,
    inbox: Process,
    _epmd: Epmd,
}

impl Scene {
    fn new(release: &Release) -> Self {
        let epmd = Epmd::start(release);
        let wire = Wire::new(&epmd);
        let rust = Rust::on(wire.a(), "rust", |config| config);
        let beam = beam::Options::new(release, wire.b(), "beam").start();
        rust.run(rust.node.connect("beam@127.0.0.1")).unwrap();
        let inbox = rust.node.mailbox("inbox").unwrap();
        Self { rust, beam, wire, inbox, _epmd: epmd }
    }

    /// A BEAM process that the expressions start as `P`.
    fn process(&mut self, code: &str) -> Pid {
        self.beam.eval(&format!("P = {code}, {{inbox, 'rust@127.0.0.1'}} ! P, ok"));
        self.rust.run(next_term(&mut self.inbox)).as_pid().cloned().expect("a pid")
    }

    /// Lets the BEAM know a Rust process as `R`.
    fn tell(&self, pid: &Pid) {
        let told = Term::from((Term::atom("r"), Term::from(pid)));
        self.rust.run(self.inbox.send_term(("test", "beam@127.0.0.1"), &told)).unwrap();
        self.beam.eval("R = receive {r, Pid} -> Pid after 5000 -> exit(nothing) end, ok");
    }

    /// Nothing leaves the Rust node, and more waits than a sender may add to.
    fn jam(&self) {
        self.wire.stall_from(Host::A);
        let sender = self.rust.node.process().unwrap();
        self.rust.spawn(async move {
            let message = Term::binary(&[0; 30_000]);
            // Until the node stops with the scene.
            while sender.send_term(("nobody", "beam@127.0.0.1"), &message).await.is_ok() {}
        });
        let link = self.rust.node.links().pop().unwrap();
        // Sockets on the way take some megabytes before nothing leaves any more.
        let (mut left, mut since) = (link.bytes().1, Instant::now());
        eventually_true("the channel is busy and stays so", WAIT, || {
            if link.bytes().1 != left || !link.is_busy() {
                (left, since) = (link.bytes().1, Instant::now());
            }
            since.elapsed() > SETTLED
        });
    }

    /// Does something that may not wait, while the channel is busy; then lets go.
    fn while_busy(&self, what: impl FnOnce()) {
        self.jam();
        what();
        assert!(self.rust.node.links().pop().unwrap().is_busy(), "nothing of it waited for the channel");
        self.wire.heal();
    }
}

/// `Watch`, what a BEAM process does that collects what it gets, and links and monitors whom it is told to.
const WATCHER: &str = "Watch = fun Watch(Got) -> receive {got, To} -> To ! {got, lists:reverse(Got)}, Watch(Got); \
    {'DOWN', _, process, _, Why} -> Watch([{down, Why} | Got]); {'EXIT', _, Why} -> Watch([{exit, Why} | Got]); \
    {link, To} -> link(To), Watch(Got); {monitor, To} -> monitor(process, To), Watch(Got); \
    Other -> Watch([Other | Got]) end end";

fn watcher(scene: &mut Scene) -> Pid {
    scene.beam.eval(&format!("{WATCHER}, ok"));
    // Known only once it traps exits: the first exit signal may come before a spawned process has run at all.
    scene.process(
        "(fun(Self) -> W = spawn(fun() -> process_flag(trap_exit, true), Self ! ready, Watch([]) end), \
         receive ready -> W end end)(self())",
    )
}

fn has_got(scene: &Scene, expected: &str) {
    eventually_true(expected, WAIT, || {
        scene.beam.eval("P ! {got, self()}, (fun() -> receive {got, G} -> G end end)()") == expected
    });
}

#[test]
fn busy_dist_exit_signal() {
    case(
        Case::Full,
        TOPIC,
        "busy_dist_exit_signal: a linked process ends while the channel is busy",
        |release| {
            let mut scene = Scene::new(release);
            let pid = watcher(&mut scene);
            let ours = scene.rust.node.process().unwrap();
            scene.rust.run(ours.link(&pid));
            eventually_true("the link is there", WAIT, || {
                scene.beam.eval("length(element(2, process_info(P, links)))") == "1"
            });
            scene.while_busy(|| ours.stop(Reason::from(term("{busy, exit}"))));
            has_got(&scene, "[{exit,{busy,exit}}]");
            Ok(())
        },
    );
}

#[test]
fn busy_dist_down_signal() {
    case(
        Case::Full,
        TOPIC,
        "busy_dist_down_signal: a watched process ends while the channel is busy",
        |release| {
            let mut scene = Scene::new(release);
            watcher(&mut scene);
            let ours = scene.rust.node.process().unwrap();
            scene.tell(ours.pid());
            scene.beam.eval("P ! {monitor, R}, ok");
            // Behind the monitor on the same way.
            assert_eq!(scene.beam.eval("net_adm:ping('rust@127.0.0.1')"), "pong");
            scene.while_busy(|| ours.stop(Reason::from(term("{busy, down}"))));
            has_got(&scene, "[{down,{busy,down}}]");
            Ok(())
        },
    );
}

#[test]
fn busy_dist_demonitor_signal() {
    case(
        Case::Full,
        TOPIC,
        "busy_dist_demonitor_signal: a monitor is taken back while the channel is busy",
        |release| {
            let mut scene = Scene::new(release);
            let pid = watcher(&mut scene);
            let ours = scene.rust.node.process().unwrap();
            let monitor = scene.rust.run(ours.monitor(&pid)).unwrap();
            let watched =
                |scene: &Scene| scene.beam.eval("length(element(2, process_info(P, monitored_by)))");
            eventually_true("the monitor is there", WAIT, || watched(&scene) == "1");
            scene.while_busy(|| assert!(ours.demonitor(&monitor)));
            eventually_true("the monitor is gone", WAIT, || watched(&scene) == "0");
            Ok(())
        },
    );
}

#[test]
fn busy_dist_spawn_reply_signal() {
    case(
        Case::Full,
        TOPIC,
        "busy_dist_spawn_reply_signal: a spawn is answered while the channel is busy",
        |release| {
            let scene = Scene::new(release);
            scene.rust.node.export("busy", "run", 0, |_| async { Ok(Term::atom("ok")) });
            scene.while_busy(|| {
                scene.beam.eval("Q = erlang:spawn_request('rust@127.0.0.1', busy, run, [], []), ok");
            });
            let answer = "receive {spawn_reply, Q, ok, S} -> node(S) after 20000 -> nothing end";
            assert_eq!(scene.beam.eval(answer), "'rust@127.0.0.1'");
            Ok(())
        },
    );
}

#[test]
fn busy_dist_unlink_ack_signal() {
    case(
        Case::Full,
        TOPIC,
        "busy_dist_unlink_ack_signal: an unlink is acknowledged while the channel is busy",
        |release| {
            let scene = Scene::new(release);
            let ours = scene.rust.node.process().unwrap();
            ours.trap_exit(true);
            scene.tell(ours.pid());
            scene.beam.eval("link(R), ok");
            eventually_true("the link is there", WAIT, || ours.links().len() == 1);
            scene.while_busy(|| {
                scene.beam.eval("unlink(R), ok");
                eventually_true("the link is gone", WAIT, || ours.links().is_empty());
            });
            // Linked anew, which is a new link only if the old one is over on both sides.
            scene.beam.eval("process_flag(trap_exit, true), link(R), ok");
            eventually_true("the link is there again", WAIT, || ours.links().len() == 1);
            ours.stop(Reason::from(term("over")));
            assert_eq!(
                scene.beam.eval("receive {'EXIT', R, Over} -> Over after 20000 -> nothing end"),
                "over"
            );
            Ok(())
        },
    );
}

#[test]
fn xm_sig_order() {
    case(
        Case::Full,
        TOPIC,
        "xm_sig_order: messages and exit signals of one process arrive in their order",
        |release| {
            let mut scene = Scene::new(release);
            let pid = watcher(&mut scene);
            let ours = scene.rust.node.process().unwrap();
            let mut expected = Vec::new();
            scene.rust.run(async {
                for n in 0..100i64 {
                    ours.send_term(&pid, &Term::from(n)).await.unwrap();
                    ours.exit(&pid, Reason::from(Term::from(n))).await;
                    expected.push(format!("{n},{{exit,{n}}}"));
                }
            });
            has_got(&scene, &format!("[{}]", expected.join(",")));
            Ok(())
        },
    );
}

#[test]
fn monitor_order() {
    case(
        Case::Full,
        TOPIC,
        "monitor_order, monitor_named_order_remote: the DOWN of a process comes after all it has sent, watched by pid or name",
        |release| {
            for by_name in [false, true] {
                let mut scene = Scene::new(release);
                let pid = watcher(&mut scene);
                let ours = scene.rust.node.mailbox("ours").unwrap();
                scene.tell(ours.pid());
                let object = if by_name { "{ours, 'rust@127.0.0.1'}" } else { "R" };
                scene.beam.eval(&format!("P ! {{monitor, {object}}}, pong = net_adm:ping('rust@127.0.0.1')"));
                scene.rust.run(async {
                    for n in 0..50i64 {
                        ours.send_term(&pid, &Term::from(n)).await.unwrap();
                    }
                });
                ours.stop(Reason::from(term("done")));
                let numbers: Vec<String> = (0..50).map(|n| n.to_string()).collect();
                has_got(&scene, &format!("[{},{{down,done}}]", numbers.join(",")));
            }
            Ok(())
        },
    );
}

/// What paces large messages is answered by every release: with each answer late by a tick interval, this would take minutes.
#[test]
fn large_messages_go_on_as_the_peer_answers() {
    const SIZE: usize = 1 << 20;
    const COUNT: usize = 100;
    case(Case::Full, TOPIC, "large messages are paced by what the peer has read", |release| {
        let mut scene = Scene::new(release);
        let to = scene.process(
            "spawn(fun() -> Take = fun Take(N) -> receive {done, To} -> To ! {took, N}; B -> Take(N + byte_size(B)) end end, \
             Take(0) end)",
        );
        let message = Term::binary(&[7; SIZE]);
        let start = Instant::now();
        scene.rust.run(async {
            for _ in 0..COUNT {
                scene.inbox.send_term(&to, &message).await.unwrap();
            }
            let done = Term::from((Term::atom("done"), Term::from(scene.inbox.pid())));
            scene.inbox.send_term(&to, &done).await.unwrap();
        });
        let took = scene.rust.run(next_term(&mut scene.inbox));
        assert_eq!(took, Term::from((Term::atom("took"), Term::from((COUNT * SIZE) as i64))));
        assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
        Ok(())
    });
}

//! A Rust node and a BEAM node on the two hosts of a wire, with processes that are linked and monitored both ways.

use std::time::{Duration, Instant};

use foundation_interop_tests::wire::Host;
use foundation_interop_tests::{Beam, Epmd, Release, Wire, beam, eventually::eventually_true};
use foundation_node::event::{Event, Events};
use foundation_node::net_kernel::NodeType;
use foundation_node::process::{Message, Process};
use foundation_proto::Limits;
use foundation_proto::etf::{Pid, Term};

use super::TICKTIME;
use crate::rust::{Rust, next_term, shown};

/// The Rust node's host.
pub(crate) const RUST: Host = Host::A;
/// The BEAM node's host.
pub(crate) const BEAM: Host = Host::B;

/// Processes on each side, each linked to and monitored by one on the other.
const EACH: usize = 20;

pub(crate) struct Pair {
    pub(crate) rust: Rust,
    pub(crate) beam: Beam,
    pub(crate) wire: Wire,
    _epmd: Epmd,
    pub(crate) events: Events,
    inbox: Process,
    /// Held, so that they live.
    workers: Vec<Process>,
    counts: Counts,
}

/// What a node holds, to be compared.
#[derive(Debug, PartialEq)]
struct Counts {
    processes: usize,
    tasks: usize,
}

impl Pair {
    pub(crate) fn start(release: &Release) -> Self {
        let epmd = Epmd::start(release);
        let wire = Wire::new(&epmd);
        let rust = Rust::on(wire.a(), "rust", |config| config.net_ticktime(TICKTIME));
        let beam = beam::Options::new(release, wire.b(), "beam")
            .args(&format!("-kernel net_ticktime {TICKTIME} -kernel prevent_overlapping_partitions false"))
            .start();
        // Counts what it is told about, and says it when asked.
        beam.eval(&format!(
            "Collect = fun Collect(Exits, Downs, Others) -> receive \
                 {{'EXIT', P, noconnection}} -> Collect([P | Exits], Downs, Others); \
                 {{'DOWN', M, process, P, noconnection}} -> Collect(Exits, [{{M, P}} | Downs], Others); \
                 {{told, To}} -> To ! {{told, length(Exits), length(lists:usort(Exits)), \
                     length(Downs), length(lists:usort(Downs)), Others, \
                     [element(2, process_info(self(), I)) || I <- [links, monitors]]}}, Collect(Exits, Downs, Others); \
                 {{watch, Ps, To}} -> [begin link(P), monitor(process, P) end || P <- Ps], To ! watching, Collect([], [], []); \
                 Other -> Collect(Exits, Downs, [Other | Others]) end end, \
             register(watcher, spawn(fun() -> process_flag(trap_exit, true), Collect([], [], []) end)), \
             Sleepers = [spawn(fun() -> receive stop -> ok end end) || _ <- lists:seq(1, {EACH})], \
             net_kernel:monitor_nodes(true, [{{node_type, all}}, nodedown_reason]), ok"
        ));
        let inbox = rust.node.mailbox("inbox").unwrap();
        inbox.trap_exit(true);
        let workers = (0..EACH).map(|_| rust.node.process().unwrap()).collect();
        let events = rust.node.events();
        let counts = Counts { processes: rust.node.processes().len(), tasks: 0 };
        Self { rust, beam, wire, _epmd: epmd, events, inbox, workers, counts }
    }

    /// A connection, dialled by the Rust node.
    pub(crate) fn connect(&mut self) {
        self.rust.run(self.rust.node.connect("beam@127.0.0.1")).unwrap();
        assert!(matches!(self.rust.run(self.events.next()), Some(Event::NodeUp { .. })));
        self.beam_hears("nodeup", Duration::from_secs(10));
        self.counts.tasks = self.tasks();
    }

    /// A connection with links and monitors across it, both ways.
    pub(crate) fn entangle(&mut self) {
        self.connect();
        let Self { rust, beam, inbox, workers, .. } = self;
        beam.eval("{inbox, 'rust@127.0.0.1'} ! Sleepers, ok");
        let own: Vec<Term> = workers.iter().map(|worker| Term::from(worker.pid().clone())).collect();
        rust.run(async {
            for pid in pids(&next_term(inbox).await) {
                inbox.link(&pid).await;
                inbox.monitor(&pid).await.unwrap();
            }
            let watch = Term::from((Term::atom("watch"), Term::list(own), inbox.pid().clone()));
            inbox.send_term(("watcher", "beam@127.0.0.1"), &watch).await.unwrap();
            assert_eq!(shown(&next_term(inbox).await), "watching");
        });
        let linked = "lists:usort([length(element(2, process_info(P, links))) || P <- Sleepers])";
        eventually_true("the links have arrived", Duration::from_secs(10), || beam.eval(linked) == "[1]");
    }

    /// Waits for the `nodedown` of the Rust node; its reason, and how long it took.
    pub(crate) fn rust_notices(&mut self, since: Instant) -> (String, Duration) {
        match self.rust.run(self.events.next()) {
            Some(Event::NodeDown { reason, .. }) => (reason.atom().as_str().to_owned(), since.elapsed()),
            other => panic!("{other:?}"),
        }
    }

    /// Waits until the Rust node is connected again.
    pub(crate) fn rust_is_back(&mut self, since: Instant) -> Duration {
        match self.rust.run(self.events.next()) {
            Some(Event::NodeUp { .. }) => since.elapsed(),
            other => panic!("{other:?}"),
        }
    }

    /// Waits for a message of `net_kernel:monitor_nodes`; what is said of it.
    pub(crate) fn beam_hears(&self, what: &str, within: Duration) -> String {
        self.beam.eval(&format!(
            "(fun() -> receive {{{what}, 'rust@127.0.0.1', Info}} -> proplists:get_value(nodedown_reason, Info, up) \
             after {} -> nothing end end)()",
            within.as_millis()
        ))
    }

    /// All links and monitors of the Rust node's processes across the connection have fired once.
    pub(crate) fn all_fired_here(&mut self) {
        let (mut exits, mut downs) = (Vec::new(), Vec::new());
        let Self { rust, inbox, .. } = self;
        rust.run(async {
            while exits.len() + downs.len() < 2 * EACH {
                match inbox.recv().await.unwrap() {
                    Message::Exit(exit) => {
                        assert_eq!(shown(&exit.reason.to_term(&Limits::default()).unwrap()), "noconnection");
                        exits.push(exit.from);
                    }
                    Message::Down(down) => {
                        assert_eq!(shown(&down.reason.to_term(&Limits::default()).unwrap()), "noconnection");
                        downs.push(down.reference);
                    }
                    other => panic!("{other:?}"),
                }
            }
        });
        exits.sort_by_key(|pid| pid.id);
        exits.dedup();
        downs.sort_by_key(|reference| format!("{reference:?}"));
        downs.dedup();
        assert_eq!((exits.len(), downs.len()), (EACH, EACH), "each once");
        assert_eq!(self.inbox.mailbox_len(), 0, "and nothing else");
        assert_eq!(self.inbox.links(), []);
        for worker in &self.workers {
            // They do not trap exits: a lost link has ended them.
            assert!(worker.exit_reason().is_some());
        }
    }

    /// All links and monitors of the BEAM's processes across the connection have fired once.
    pub(crate) fn all_fired_there(&self) {
        eventually_true("the BEAM's links and monitors have fired", Duration::from_secs(5), || {
            let told = self
                .beam
                .eval("watcher ! {told, self()}, (fun() -> receive {told, E, E1, D, D1, O, I} -> {E, E1, D, D1, O, I} end end)()");
            told == format!("{{{EACH},{EACH},{EACH},{EACH},[],[[],[]]}}")
        });
        assert_eq!(self.beam.eval("[P || P <- Sleepers, is_process_alive(P)]"), "[]");
    }

    /// After the connection has come back: nothing of the old one arrives, and there is no more than before.
    pub(crate) fn nothing_is_left(&mut self) {
        self.beam.eval("{inbox, 'rust@127.0.0.1'} ! marker, ok");
        let Self { rust, inbox, .. } = self;
        assert_eq!(rust.run(async { shown(&next_term(inbox).await) }), "marker", "nothing fires twice");
        let alive = self.workers.iter().filter(|worker| worker.exit_reason().is_none()).count();
        assert_eq!(self.rust.node.processes().len() + EACH - alive, self.counts.processes);
        assert_eq!(self.rust.node.nodes(NodeType::Connected), ["beam@127.0.0.1"]);
        let counts = self.counts.tasks;
        eventually_true("no task is left behind", Duration::from_secs(10), || self.tasks() <= counts);
    }

    /// Tasks of the Rust node's runtime.
    pub(crate) fn tasks(&self) -> usize {
        self.rust.tasks()
    }
}

fn pids(list: &Term) -> Vec<Pid> {
    let Term::List(list) = list else { panic!("{list:?}") };
    list.clone().into_vec().iter().map(|pid| pid.as_pid().cloned().expect("a pid")).collect()
}

//! The same random schedule of names, locks, exits and partitions with two BEAM nodes, and with one of them and a visible node of ours:
//! after each step both sides must have the names that a model has, and each call must answer what it says.

use foundation_cluster::sim::Random;
use foundation_interop_tests::beam::Options;
use foundation_interop_tests::case::Unsupported;
use foundation_interop_tests::eventually::{eventually_eq, eventually_true};
use foundation_interop_tests::{Beam, Case, Epmd, Release, case};
use foundation_node::config::{DistAutoConnect, Reconnect};
use foundation_node::process::Process;
use foundation_node::service::global::Global;
use foundation_proto::etf::{Atom, Term};

use crate::rust::{Rust, WAIT};
use crate::soak::seeds;

const GLOBAL_NAMES: [&str; 4] = ["n0", "n1", "n2", "n3"];
const RESOURCES: [&str; 2] = ["r0", "r1"];
const MEMBERS: usize = 3;
const STEPS: usize = 60;
const JUDGE: &str = "judge@127.0.0.1";

/// A side of the schedule: its processes, by number.
trait Side {
    fn register(&mut self, member: usize, name: usize) -> bool;
    fn re_register(&mut self, member: usize, name: usize);
    fn unregister(&mut self, name: usize);
    /// The member ends, if it has not, and another process has its number.
    fn exit(&mut self, member: usize);
    /// Sets a lock on all nodes, trying once. The requester is the side.
    fn set_lock(&mut self, resource: usize) -> bool;
    fn del_lock(&mut self, resource: usize);
    /// Who has each name: the number of a member of this side, or the other node.
    fn view(&self) -> String;
    /// Whether it shares names with nobody else, or with one.
    fn shares(&self) -> bool;
}

struct OnBeam {
    beam: Beam,
    side: usize,
}

impl OnBeam {
    fn start(release: &Release, epmd: &Epmd, name: &str, side: usize) -> Self {
        // Nobody but this schedule connects the two.
        let beam =
            Options::new(release, epmd.port, name).arg("-kernel").args("dist_auto_connect never").start();
        beam.eval(&format!(
            "Member = fun() -> spawn(fun() -> receive stop -> ok end end) end, [put(N, Member()) || N <- lists:seq(0, {MEMBERS} - 1)], \
             Owner = fun(undefined) -> none; (P) when node(P) =:= node() -> hd([N || N <- lists:seq(0, {MEMBERS} - 1), get(N) =:= P]); (P) -> node(P) end, ok"
        ));
        Self { beam, side }
    }

    /// The judge has the connection in its hands, whoever the actor is.
    fn connected(&self, actor: &str, yes: bool) {
        let what = if yes { "net_kernel:connect_node" } else { "erlang:disconnect_node" };
        self.beam.eval(&format!("true = {what}('{actor}')"));
    }

    fn lock(&self, resource: usize) -> String {
        format!("{{{}, side{}}}, [node() | nodes()]", RESOURCES[resource], self.side)
    }
}

impl Side for OnBeam {
    fn register(&mut self, member: usize, name: usize) -> bool {
        self.beam.eval(&format!("global:register_name({}, get({member}))", GLOBAL_NAMES[name])) == "yes"
    }

    fn re_register(&mut self, member: usize, name: usize) {
        self.beam.eval(&format!("yes = global:re_register_name({}, get({member}))", GLOBAL_NAMES[name]));
    }

    fn unregister(&mut self, name: usize) {
        self.beam.eval(&format!("global:unregister_name({})", GLOBAL_NAMES[name]));
    }

    fn exit(&mut self, member: usize) {
        // Its names go before another process has its number.
        self.beam.eval(&format!(
            "(fun() -> R = monitor(process, get({member})), exit(get({member}), kill), receive {{'DOWN', R, _, _, _}} -> ok end end)(), \
             put(old, get({member})), put({member}, Member())"
        ));
        let gone = "[N || N <- global:registered_names(), global:whereis_name(N) =:= get(old)]";
        eventually_true("its names are gone", WAIT, || self.beam.eval(gone) == "[]");
    }

    fn set_lock(&mut self, resource: usize) -> bool {
        self.beam.eval(&format!("global:set_lock({}, 0)", self.lock(resource))) == "true"
    }

    fn del_lock(&mut self, resource: usize) {
        self.beam.eval(&format!("true = global:del_lock({})", self.lock(resource)));
    }

    fn view(&self) -> String {
        self.beam.eval(&format!("[Owner(global:whereis_name(N)) || N <- [{}]]", GLOBAL_NAMES.join(",")))
    }

    fn shares(&self) -> bool {
        self.beam.eval("gen_server:call(global_name_server, get_known)") != "[]"
    }
}

struct OnRust {
    rust: Rust,
    global: Global,
    members: Vec<Process>,
    /// Owns the locks.
    owner: Process,
}

impl OnRust {
    fn start(epmd: &Epmd, name: &str) -> Self {
        let rust = Rust::with(epmd, name, |config| {
            let mut config = config.hidden(false).reconnect(Reconnect::Never);
            config.dist_auto_connect = DistAutoConnect::Never;
            config
        });
        let global = rust.node.global().expect("a visible node has it");
        let members = (0..MEMBERS).map(|_| rust.node.process().unwrap()).collect();
        let owner = rust.node.process().unwrap();
        Self { rust, global, members, owner }
    }

    fn requester() -> Term {
        Term::atom("side1")
    }
}

impl Side for OnRust {
    fn register(&mut self, member: usize, name: usize) -> bool {
        let name = Term::atom(GLOBAL_NAMES[name]);
        self.rust.run(self.global.register_name(&name, self.members[member].pid())).unwrap()
    }

    fn re_register(&mut self, member: usize, name: usize) {
        let name = Term::atom(GLOBAL_NAMES[name]);
        self.rust.run(self.global.re_register_name(&name, self.members[member].pid())).unwrap();
    }

    fn unregister(&mut self, name: usize) {
        self.rust.run(self.global.unregister_name(&Term::atom(GLOBAL_NAMES[name]))).unwrap();
    }

    fn exit(&mut self, member: usize) {
        let old = self.members[member].pid().clone();
        self.members[member] = self.rust.node.process().unwrap();
        let has = |name: &Term| self.global.whereis_name(name).as_ref() == Some(&old);
        eventually_true("its names are gone", WAIT, || !self.global.registered_names().iter().any(has));
    }

    fn set_lock(&mut self, resource: usize) -> bool {
        let resource = Term::atom(RESOURCES[resource]);
        self.rust.run(self.global.set_lock(&resource, &Self::requester(), self.owner.pid(), Some(0))).unwrap()
    }

    fn del_lock(&mut self, resource: usize) {
        let resource = Term::atom(RESOURCES[resource]);
        self.rust.run(self.global.del_lock(&resource, &Self::requester(), self.owner.pid())).unwrap();
    }

    fn view(&self) -> String {
        let owners = GLOBAL_NAMES.map(|name| match self.global.whereis_name(&Term::atom(name)) {
            None => "none".to_owned(),
            Some(pid) if pid.node == *self.rust.node.name() => {
                let member = self.members.iter().position(|member| *member.pid() == pid);
                member.map_or("a stranger".to_owned(), |member| member.to_string())
            }
            Some(pid) => format!("'{}'", pid.node.as_str()),
        });
        format!("[{}]", owners.join(","))
    }

    fn shares(&self) -> bool {
        self.global.known() != [] as [Atom; 0]
    }
}

/// Who has what, as each side must see it. Apart, each has its own.
struct Model {
    nodes: [String; 2],
    connected: bool,
    /// Of each side: which member of which side has each name.
    owners: [[Option<[usize; 2]>; GLOBAL_NAMES.len()]; 2],
    /// Which side has each lock.
    locks: [Option<usize>; RESOURCES.len()],
}

impl Model {
    fn set(&mut self, side: usize, name: usize, owner: Option<[usize; 2]>) {
        self.owners[side][name] = owner;
        if self.connected {
            self.owners[1 - side][name] = owner;
        }
    }

    fn forget(&mut self, gone: impl Fn([usize; 2]) -> bool) {
        for owner in self.owners.iter_mut().flatten() {
            if owner.is_some_and(&gone) {
                *owner = None;
            }
        }
    }

    fn part(&mut self) {
        self.connected = false;
        for side in [0, 1] {
            for owner in &mut self.owners[side] {
                *owner = owner.filter(|[of, _]| *of == side);
            }
        }
    }

    /// Both sides get together. Where both have a name, `global:random_exit_name/3` kills the process on the greater node: which members
    /// that were.
    fn meet(&mut self) -> Vec<[usize; 2]> {
        self.connected = true;
        let lesser = usize::from(self.nodes[1] < self.nodes[0]);
        let mut killed = Vec::new();
        for name in 0..GLOBAL_NAMES.len() {
            let both = [self.owners[lesser][name], self.owners[1 - lesser][name]];
            if let [Some(_), Some(loser)] = both
                && !killed.contains(&loser)
            {
                killed.push(loser);
            }
            let owner = both[0].or(both[1]);
            self.owners = self.owners.map(|mut owners| {
                owners[name] = owner;
                owners
            });
        }
        self.forget(|owner| killed.contains(&owner));
        killed
    }

    fn views(&self) -> [String; 2] {
        [0, 1].map(|side| {
            let owners = self.owners[side].map(|owner| match owner {
                None => "none".to_owned(),
                Some([of, member]) if of == side => member.to_string(),
                Some([of, _]) => format!("'{}'", self.nodes[of]),
            });
            format!("[{}]", owners.join(","))
        })
    }
}

/// Runs one schedule; the transcript is what calls answered, and what both sides had after each step.
fn run(seed: u64, judge: &mut OnBeam, actor: &mut dyn Side, actor_node: &str) -> Vec<String> {
    let mut random = Random::new(seed);
    let mut below = |n: usize| random.below(n);
    let mut model = Model {
        nodes: [JUDGE.to_owned(), actor_node.to_owned()],
        connected: false,
        owners: Default::default(),
        locks: Default::default(),
    };
    let mut transcript = Vec::new();
    for step in 0..STEPS {
        let (side, member, name) = (below(2), below(MEMBERS), below(GLOBAL_NAMES.len()));
        let turn = if step == 5 { 19 } else { below(20) };
        let what =
            format!("seed {seed}, step {step}, turn {turn}, side {side}, member {member}, name {name}");
        let who: &mut dyn Side = if side == 0 { judge } else { actor };
        let mut killed = Vec::new();
        match turn {
            0..7 => {
                // A process has one name, unless it is given another with force.
                let has_name = model.owners[side].contains(&Some([side, member]));
                let free = model.owners[side][name].is_none() && !has_name;
                assert_eq!(who.register(member, name), free, "{what}");
                if free {
                    model.set(side, name, Some([side, member]));
                }
                transcript.push(free.to_string());
            }
            7..9 => {
                who.re_register(member, name);
                model.set(side, name, Some([side, member]));
            }
            9..11 => {
                who.unregister(name);
                model.set(side, name, None);
            }
            11..13 => {
                who.exit(member);
                model.forget(|owner| owner == [side, member]);
            }
            13..17 if model.connected => {
                let resource = name % RESOURCES.len();
                match model.locks[resource] {
                    Some(holder) if holder == side => {
                        who.del_lock(resource);
                        model.locks[resource] = None;
                    }
                    holder => {
                        assert_eq!(who.set_lock(resource), holder.is_none(), "{what}");
                        model.locks[resource] = holder.or(Some(side));
                        transcript.push(holder.is_none().to_string());
                    }
                }
            }
            17..20 => {
                // A lock would be kept by one side and dropped by the other, and both could not meet.
                for resource in 0..RESOURCES.len() {
                    match model.locks[resource].take() {
                        Some(0) => judge.del_lock(resource),
                        Some(_) => actor.del_lock(resource),
                        None => {}
                    }
                }
                if model.connected {
                    model.part();
                } else {
                    killed = model.meet();
                }
                judge.connected(actor_node, model.connected);
                eventually_eq(&what, WAIT, &[model.connected; 2], || [judge.shares(), actor.shares()]);
            }
            _ => {}
        }
        let expected = model.views();
        eventually_eq(&what, WAIT, &expected, || [judge.view(), actor.view()]);
        transcript.extend(expected);
        for [side, member] in killed {
            if side == 0 { judge.exit(member) } else { actor.exit(member) }
        }
    }
    transcript
}

#[test]
fn names_and_locks_are_the_same_beside_a_beam_and_beside_us() {
    case(
        Case::Full,
        "global",
        "one random schedule, played with a BEAM node and with a visible node of ours: the same names and locks after each step",
        |release| {
            if release.number < 25 {
                return Err(Unsupported(
                    "its global is older than version 7: it gets in_sync and shares no names",
                ));
            }
            for seed in seeds(1..3) {
                // Conflicts are lost by the greater node: once by this side, once by the other.
                let name = if seed % 2 == 0 { "actor" } else { "player" };
                let node = format!("{name}@127.0.0.1");
                let with = |start: &dyn Fn(&Epmd) -> Box<dyn Side>| {
                    let epmd = Epmd::start(release);
                    let mut judge = OnBeam::start(release, &epmd, "judge", 0);
                    let mut actor = start(&epmd);
                    run(seed, &mut judge, &mut *actor, &node)
                };
                let beams = with(&|epmd| Box::new(OnBeam::start(release, epmd, name, 1)));
                assert_eq!(with(&|epmd| Box::new(OnRust::start(epmd, name))), beams);
            }
            Ok(())
        },
    );
}

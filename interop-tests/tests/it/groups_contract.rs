//! The same random schedule of joins, leaves, exits, lost connections and scope restarts with a BEAM node and with nodes of ours beside a BEAM
//! node: after each step both sides must list what a model lists.

use std::collections::BTreeMap;

use foundation_cluster::sim::Random;
use foundation_interop_tests::beam::Options;
use foundation_interop_tests::eventually::{eventually_eq, eventually_true};
use foundation_interop_tests::{Beam, Case, Epmd, Release, case};
use foundation_node::config::{DistAutoConnect, Reconnect};
use foundation_node::process::Process;
use foundation_node::service::pg::Groups;
use foundation_proto::etf::Term;

use crate::rust::{Rust, WAIT};
use crate::soak::seeds;

const GROUPS: usize = 3;
const MEMBERS: usize = 3;
const STEPS: usize = 40;
const NAMES: [&str; 2] = ["judge@127.0.0.1", "actor@127.0.0.1"];

/// A side of the schedule: its members, by number.
trait Side {
    fn join(&mut self, member: usize, group: usize);
    fn leave(&mut self, member: usize, group: usize);
    /// The member ends, and another process has its number.
    fn exit(&mut self, member: usize);
    /// For each group and node, how often each of the members is in it, sorted.
    fn view(&self) -> String;
}

struct OnBeam(Beam);

impl OnBeam {
    fn start(release: &Release, epmd: &Epmd, name: &str) -> Self {
        // Nobody but this schedule connects the two.
        let options = Options::new(release, epmd.port, name).arg("-kernel").args("dist_auto_connect never");
        let beam = options.start();
        beam.eval(&format!(
            "{{ok, _}} = pg:start(sc), Member = fun() -> spawn(fun() -> receive stop -> ok end end) end, \
             Of = fun(N) -> get({{member, N}}) end, \
             [put({{member, N}}, Member()) || N <- lists:seq(0, {MEMBERS} - 1)], \
             View = fun() -> [[list_to_tuple(lists:sort([length([x || Q <- M, Q =:= P]) || P <- lists:usort(M), node(P) =:= N])) \
                || N <- ['{}', '{}']] || G <- lists:seq(0, {GROUPS} - 1), M <- [pg:get_members(sc, G)]] end, ok",
            NAMES[0], NAMES[1]
        ));
        Self(beam)
    }

    /// The judge has the connection in its hands, whoever the actor is.
    fn connected(&self, yes: bool) {
        let what = if yes { "net_kernel:connect_node" } else { "erlang:disconnect_node" };
        self.0.eval(&format!("true = {what}('{}')", NAMES[1]));
        eventually_true("the connection is as it is to be", WAIT, || {
            (self.0.eval("nodes(connected)") != "[]") == yes
        });
    }

    fn restart_scope(&self) {
        self.0.eval(
            "(fun() -> P = whereis(sc), R = monitor(process, P), exit(P, kill), receive {'DOWN', R, _, _, _} -> ok end, \
             {ok, _} = pg:start(sc) end)()",
        );
    }
}

impl Side for OnBeam {
    fn join(&mut self, member: usize, group: usize) {
        self.0.eval(&format!("ok = pg:join(sc, {group}, Of({member}))"));
    }

    fn leave(&mut self, member: usize, group: usize) {
        self.0.eval(&format!("pg:leave(sc, {group}, Of({member}))"));
    }

    fn exit(&mut self, member: usize) {
        self.0.eval(&format!("exit(Of({member}), kill), put({{member, {member}}}, Member())"));
    }

    fn view(&self) -> String {
        self.0.eval("View()")
    }
}

struct OnRust {
    rust: Rust,
    groups: Groups,
    members: Vec<Process>,
}

impl OnRust {
    fn start(epmd: &Epmd, hidden: bool) -> Self {
        let rust = Rust::with(epmd, "actor", |config| {
            let mut config = config.hidden(hidden).reconnect(Reconnect::Never);
            config.dist_auto_connect = DistAutoConnect::Never;
            config
        });
        let groups = rust.run(async { rust.node.groups("sc") }).unwrap();
        let members = (0..MEMBERS).map(|_| rust.node.process().unwrap()).collect();
        Self { rust, groups, members }
    }
}

impl Side for OnRust {
    fn join(&mut self, member: usize, group: usize) {
        let group = Term::from(group as i64);
        self.rust.run(self.groups.join(&group, self.members[member].pid())).unwrap();
    }

    fn leave(&mut self, member: usize, group: usize) {
        let group = Term::from(group as i64);
        self.rust.run(self.groups.leave(&group, self.members[member].pid())).unwrap();
    }

    fn exit(&mut self, member: usize) {
        self.members[member] = self.rust.node.process().unwrap();
    }

    fn view(&self) -> String {
        let group = |group| {
            let members = self.groups.members(&Term::from(group as i64));
            NAMES.map(|name| {
                let mut counts = BTreeMap::new();
                for pid in members.iter().filter(|pid| pid.node == name) {
                    *counts.entry(pid).or_insert(0) += 1;
                }
                counts.into_values().collect()
            })
        };
        shown((0..GROUPS).map(group))
    }
}

fn shown(groups: impl Iterator<Item = [Vec<usize>; 2]>) -> String {
    let tuple = |mut counts: Vec<usize>| {
        counts.sort_unstable();
        let counts: Vec<String> = counts.iter().map(usize::to_string).collect();
        format!("{{{}}}", counts.join(","))
    };
    let groups: Vec<String> =
        groups.map(|[judge, actor]| format!("[{},{}]", tuple(judge), tuple(actor))).collect();
    format!("[{}]", groups.join(","))
}

/// How often each member of each side is in each group.
#[derive(Default)]
struct Model([[[usize; GROUPS]; MEMBERS]; 2]);

impl Model {
    /// What a side lists; the other's members only if they are connected.
    fn view(&self, of: usize, connected: bool) -> String {
        let counts = |side: usize, group: usize| -> Vec<usize> {
            let of_side = self.0[side].iter().map(|groups| groups[group]).filter(|count| *count > 0);
            of_side.filter(|_| side == of || connected).collect()
        };
        shown((0..GROUPS).map(|group| [counts(0, group), counts(1, group)]))
    }
}

/// Runs one schedule; the transcript is what both sides listed after each step.
fn run(seed: u64, judge: &mut OnBeam, actor: &mut dyn Side) -> Vec<String> {
    let mut random = Random::new(seed);
    let mut below = |n: usize| random.below(n);
    let mut model = Model::default();
    let mut connected = true;
    let mut transcript = Vec::new();
    judge.connected(true);
    for step in 0..STEPS {
        let (side, member, group) = (below(2), below(MEMBERS), below(GROUPS));
        let who: &mut dyn Side = if side == 0 { judge } else { actor };
        let counts = &mut model.0[side][member];
        match below(20) {
            0..10 => {
                who.join(member, group);
                counts[group] += 1;
            }
            10..14 => {
                who.leave(member, group);
                counts[group] = counts[group].saturating_sub(1);
            }
            14..17 => {
                who.exit(member);
                *counts = [0; GROUPS];
            }
            17..19 => {
                connected = !connected;
                judge.connected(connected);
            }
            _ => {
                // As OTP has it, the members of this side are not back by themselves.
                judge.restart_scope();
                model.0[0] = Default::default();
            }
        }
        let expected = [model.view(0, connected), model.view(1, connected)];
        eventually_eq(&format!("seed {seed}, step {step}"), WAIT, &expected, || [judge.view(), actor.view()]);
        transcript.extend(expected);
    }
    transcript
}

#[test]
fn groups_are_the_same_beside_a_beam_and_beside_us() {
    case(
        Case::Full,
        "process groups",
        "one random schedule, played with a BEAM node, a hidden and a visible node of ours: the same members after each step",
        |release| {
            for seed in seeds(1..3) {
                let with = |start: &dyn Fn(&Epmd) -> Box<dyn Side>| {
                    let epmd = Epmd::start(release);
                    let mut judge = OnBeam::start(release, &epmd, "judge");
                    let mut actor = start(&epmd);
                    run(seed, &mut judge, &mut *actor)
                };
                let beams = with(&|epmd| Box::new(OnBeam::start(release, epmd, "actor")));
                assert_eq!(with(&|epmd| Box::new(OnRust::start(epmd, true))), beams, "hidden");
                assert_eq!(with(&|epmd| Box::new(OnRust::start(epmd, false))), beams, "visible");
            }
            Ok(())
        },
    );
}

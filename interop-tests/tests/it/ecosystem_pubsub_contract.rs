//! The same random schedule of subscriptions, broadcasts, exits and lost connections between two BEAM nodes with Phoenix.PubSub, and
//! between one of them and a node of ours: after each step every subscriber must have received, in order, what a model says.

use std::path::Path;
use std::sync::{Arc, Mutex};

use foundation_cluster::sim::Random;
use foundation_interop_tests::case::Unsupported;
use foundation_interop_tests::eventually::{eventually_eq, eventually_true};
use foundation_interop_tests::{Beam, Case, Epmd, Release, case};
use foundation_node::config::{DistAutoConnect, Reconnect};
use foundation_node::service::pubsub::PubSub;
use foundation_proto::Limits;
use foundation_proto::etf::{Pid, Term};

use crate::ecosystem::{node_with, sources};
use crate::rust::{Rust, WAIT};
use crate::soak::seeds;

const TOPICS: usize = 3;
const MEMBERS: usize = 3;
/// Behind the members of the schedule one more, alone on a topic of its own. What has reached it has been preceded by whatever was sent
/// before, also where nobody listened.
const FENCE: usize = MEMBERS;
const FENCE_TOPIC: usize = TOPICS;
const STEPS: usize = 60;
/// Messages of one broadcast step: they must not overtake each other.
const BURST: usize = 3;
const NAMES: [&str; 2] = ["judge@127.0.0.1", "actor@127.0.0.1"];

/// What a step sends with.
#[derive(Clone, Copy)]
enum Call {
    Broadcast,
    /// The member itself is left out.
    BroadcastFrom,
    Direct,
    Local,
}

/// A side of the schedule: its subscribers, by number.
trait Side {
    fn subscribe(&mut self, member: usize, topic: usize);
    fn unsubscribe(&mut self, member: usize, topic: usize);
    /// The member ends, and another process has its number.
    fn exit(&mut self, member: usize);
    /// Sends these numbers, one message each; `to` is the other node.
    fn send(&mut self, call: Call, member: usize, topic: usize, to: &str, numbers: std::ops::Range<usize>);
    /// What each member has received.
    fn received(&self) -> String;
    /// The nodes that a broadcast goes to, itself among them.
    fn nodes(&self) -> usize;
}

struct OnBeam(Beam);

impl OnBeam {
    fn start(release: &Release, epmd: &Epmd, name: &str, source: &Path) -> Self {
        let beam = node_with(release, epmd, name, &[source.to_owned()]);
        beam.elixir(&format!(
            "Application.put_env(:elixir, :ansi_enabled, false)\n\
             Application.put_env(:kernel, :dist_auto_connect, :never)\n\
             {{:ok, _}} = :pg.start_link(Phoenix.PubSub)\n\
             {{:ok, _}} = Supervisor.start_link([{{Phoenix.PubSub, name: MyApp.PubSub}}], strategy: :one_for_one)\n\
             loop = fn loop, received ->\n\
               receive do\n\
                 {{:run, from, f}} -> f.(); send(from, :done); loop.(loop, received)\n\
                 {{:received, from}} -> send(from, {{:are, Enum.reverse(received)}}); loop.(loop, received)\n\
                 {{:number, n}} -> loop.(loop, [n | received])\n\
               end\n\
             end\n\
             Process.put(:member, fn -> spawn(fn -> loop.(loop, []) end) end)\n\
             for n <- 0..{}, do: Process.put(n, Process.get(:member).())\n:ok",
            FENCE
        ));
        Self(beam)
    }

    /// The judge has the connection in its hands, whoever the actor is.
    fn connected(&self, yes: bool) {
        let what = if yes { "Node.connect" } else { "Node.disconnect" };
        self.0.elixir(&format!("true = {what}(:\"{}\")", NAMES[1]));
    }

    fn run(&self, member: usize, code: &str) {
        self.0.elixir(&format!(
            "send(Process.get({member}), {{:run, self(), fn -> {code} end}}); receive do :done -> :ok after 5000 -> raise \"no answer\" end"
        ));
    }
}

impl Side for OnBeam {
    fn subscribe(&mut self, member: usize, topic: usize) {
        self.run(member, &format!("Phoenix.PubSub.subscribe(MyApp.PubSub, \"topic:{topic}\")"));
    }

    fn unsubscribe(&mut self, member: usize, topic: usize) {
        self.run(member, &format!("Phoenix.PubSub.unsubscribe(MyApp.PubSub, \"topic:{topic}\")"));
    }

    fn exit(&mut self, member: usize) {
        self.0.elixir(&format!(
            "p = Process.get({member}); r = Process.monitor(p); Process.exit(p, :kill); receive do {{:DOWN, ^r, _, _, _}} -> :ok end\n\
             Process.put({member}, Process.get(:member).()); :ok"
        ));
    }

    fn send(&mut self, call: Call, member: usize, topic: usize, to: &str, numbers: std::ops::Range<usize>) {
        let (name, before) = match call {
            Call::Broadcast => ("broadcast", String::new()),
            Call::BroadcastFrom => ("broadcast_from", format!("Process.get({member}), ")),
            Call::Direct => ("direct_broadcast", String::new()),
            Call::Local => ("local_broadcast", String::new()),
        };
        let to = if matches!(call, Call::Direct) { format!(":\"{to}\", ") } else { String::new() };
        self.0.elixir(&format!(
            "for n <- {}..{}, do: :ok = Phoenix.PubSub.{name}({to}MyApp.PubSub, {before}\"topic:{topic}\", {{:number, n}})\n:ok",
            numbers.start,
            numbers.end - 1
        ));
    }

    fn received(&self) -> String {
        self.0.elixir(&format!(
            "for n <- 0..{} do send(Process.get(n), {{:received, self()}}); receive do {{:are, all}} -> all end end \
             |> Enum.map(&List.to_tuple/1)",
            FENCE
        ))
    }

    fn nodes(&self) -> usize {
        let nodes =
            "length(Enum.uniq(Enum.map(:pg.get_members(Phoenix.PubSub, MyApp.PubSub.Adapter), &node/1)))";
        self.0.elixir(nodes).parse().unwrap()
    }
}

/// A process of ours that notes the numbers it receives, until it is dropped.
struct Member {
    pid: Pid,
    received: Arc<Mutex<Vec<i64>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Member {
    fn start(rust: &Rust) -> Self {
        let mut process = rust.node.process().unwrap();
        let (pid, received) = (process.pid().clone(), Arc::default());
        let noted: Arc<Mutex<Vec<i64>>> = Arc::clone(&received);
        let task = rust.spawn(async move {
            while let Ok(message) = process.recv().await {
                let term = message.to_term(&Limits::default()).unwrap();
                let [_, number] = term.as_tuple().unwrap() else { panic!("{term:?}") };
                noted.lock().unwrap().push(number.as_i64().unwrap());
            }
        });
        Self { pid, received, task }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct OnRust {
    members: Vec<Member>,
    pubsub: PubSub,
    rust: Rust,
}

impl OnRust {
    fn start(epmd: &Epmd, hidden: bool) -> Self {
        let rust = Rust::with(epmd, "actor", |config| {
            let mut config = config.hidden(hidden).reconnect(Reconnect::Never);
            config.dist_auto_connect = DistAutoConnect::Never;
            config
        });
        let pubsub = rust.run(async { rust.node.pubsub("MyApp.PubSub") }).unwrap();
        let members = (0..=FENCE).map(|_| Member::start(&rust)).collect();
        Self { members, pubsub, rust }
    }
}

impl Side for OnRust {
    fn subscribe(&mut self, member: usize, topic: usize) {
        self.pubsub.subscribe_pid(&format!("topic:{topic}"), &self.members[member].pid);
    }

    fn unsubscribe(&mut self, member: usize, topic: usize) {
        self.pubsub.unsubscribe_pid(&format!("topic:{topic}"), &self.members[member].pid);
    }

    fn exit(&mut self, member: usize) {
        self.members[member] = Member::start(&self.rust);
    }

    fn send(&mut self, call: Call, member: usize, topic: usize, to: &str, numbers: std::ops::Range<usize>) {
        let (topic, from) = (format!("topic:{topic}"), &self.members[member].pid);
        self.rust.run(async {
            for number in numbers {
                let message = Term::from((Term::atom("number"), number as i64));
                match call {
                    Call::Broadcast => self.pubsub.broadcast(&topic, &message).await,
                    Call::BroadcastFrom => self.pubsub.broadcast_from(from, &topic, &message).await,
                    // As on the BEAM, it is no error that nobody is there.
                    Call::Direct => {
                        let _gone = self.pubsub.direct_broadcast(to, &topic, &message).await;
                        Ok(())
                    }
                    Call::Local => self.pubsub.local_broadcast(&topic, &message),
                }
                .unwrap();
            }
        });
    }

    fn received(&self) -> String {
        shown(self.members.iter().map(|member| member.received.lock().unwrap().clone()))
    }

    fn nodes(&self) -> usize {
        self.pubsub.nodes().len()
    }
}

/// As Elixir prints a list of tuples: it takes no list of numbers for text then.
fn shown<T: std::fmt::Display>(members: impl Iterator<Item = Vec<T>>) -> String {
    let members = members.map(|received| {
        let received: Vec<String> = received.iter().map(T::to_string).collect();
        format!("{{{}}}", received.join(", "))
    });
    format!("[{}]", members.collect::<Vec<_>>().join(", "))
}

/// How often each member of each side has subscribed to each topic, and what it has received.
#[derive(Default)]
struct Model {
    subscribed: [[[usize; TOPICS + 1]; MEMBERS + 1]; 2],
    received: [[Vec<usize>; MEMBERS + 1]; 2],
}

impl Model {
    fn deliver(&mut self, side: usize, topic: usize, numbers: &std::ops::Range<usize>, but: Option<usize>) {
        for member in (0..=FENCE).filter(|member| Some(*member) != but) {
            for number in numbers.clone() {
                let copies = std::iter::repeat_n(number, self.subscribed[side][member][topic]);
                self.received[side][member].extend(copies);
            }
        }
    }

    fn send(
        &mut self,
        call: Call,
        from: [usize; 2],
        topic: usize,
        numbers: &std::ops::Range<usize>,
        connected: bool,
    ) {
        let [side, member] = from;
        if !matches!(call, Call::Direct) {
            let but = matches!(call, Call::BroadcastFrom).then_some(member);
            self.deliver(side, topic, numbers, but);
        }
        if !matches!(call, Call::Local) && connected {
            self.deliver(1 - side, topic, numbers, None);
        }
    }

    fn views(&self) -> [String; 2] {
        [0, 1].map(|side| shown(self.received[side].iter().cloned()))
    }
}

/// Runs one schedule; the transcript is what all members had received after each step.
fn run(seed: u64, judge: &mut OnBeam, actor: &mut dyn Side) -> Vec<String> {
    let mut random = Random::new(seed);
    let mut below = |n: usize| random.below(n);
    let (mut model, mut connected, mut sent) = (Model::default(), false, 0);
    let mut transcript = Vec::new();
    for (side, who) in [judge as &mut dyn Side, actor].into_iter().enumerate() {
        who.subscribe(FENCE, FENCE_TOPIC);
        model.subscribed[side][FENCE][FENCE_TOPIC] = 1;
    }
    for step in 0..STEPS {
        let (side, member, topic) = (below(2), below(MEMBERS), below(TOPICS));
        let turn = if step == 0 { 19 } else { below(20) };
        if turn == 19 {
            connected = !connected;
            judge.connected(connected);
            let nodes = if connected { 2 } else { 1 };
            eventually_true("both know whom to send to", WAIT, || {
                [judge.nodes(), actor.nodes()] == [nodes; 2]
            });
        }
        let who: &mut dyn Side = if side == 0 { judge } else { actor };
        let call = match turn {
            0..6 => {
                who.subscribe(member, topic);
                model.subscribed[side][member][topic] += 1;
                None
            }
            6..8 => {
                who.unsubscribe(member, topic);
                model.subscribed[side][member][topic] = 0;
                None
            }
            8 => {
                who.exit(member);
                model.subscribed[side][member] = [0; TOPICS + 1];
                model.received[side][member].clear();
                None
            }
            9..13 => Some(Call::Broadcast),
            13..16 => Some(Call::BroadcastFrom),
            16..18 => Some(Call::Direct),
            18 => Some(Call::Local),
            _ => None,
        };
        if let Some(call) = call {
            let numbers = sent..sent + BURST;
            who.send(call, member, topic, NAMES[1 - side], numbers.clone());
            model.send(call, [side, member], topic, &numbers, connected);
            let fence = sent + BURST..sent + BURST + 1;
            who.send(Call::Broadcast, FENCE, FENCE_TOPIC, NAMES[1 - side], fence.clone());
            model.send(Call::Broadcast, [side, FENCE], FENCE_TOPIC, &fence, connected);
            sent = fence.end;
        }
        let expected = model.views();
        eventually_eq(&format!("seed {seed}, step {step}"), WAIT, &expected, || {
            [judge.received(), actor.received()]
        });
        transcript.extend(expected);
    }
    transcript
}

#[test]
fn topics_are_the_same_beside_a_beam_and_beside_us() {
    for source in sources("phoenix_pubsub") {
        let version = source.file_name().expect("a folder").to_string_lossy().into_owned();
        case(
            Case::Full,
            crate::ecosystem::TOPIC,
            &format!(
                "Phoenix.PubSub ({version}): one random schedule, played with a BEAM node, a hidden and a visible node of ours: \
                 the same messages after each step"
            ),
            |release| {
                if release.number < 25 {
                    return Err(Unsupported("Phoenix.PubSub wants a later Elixir"));
                }
                for seed in seeds(1..4) {
                    let with = |start: &dyn Fn(&Epmd) -> Box<dyn Side>| {
                        let epmd = Epmd::start(release);
                        let mut judge = OnBeam::start(release, &epmd, "judge", &source);
                        let mut actor = start(&epmd);
                        run(seed, &mut judge, &mut *actor)
                    };
                    let beams = with(&|epmd| Box::new(OnBeam::start(release, epmd, "actor", &source)));
                    assert_eq!(with(&|epmd| Box::new(OnRust::start(epmd, true))), beams, "hidden");
                    assert_eq!(with(&|epmd| Box::new(OnRust::start(epmd, false))), beams, "visible");
                }
                Ok(())
            },
        );
    }
}

//! Scenarios of simulations as text: which nodes there are, and what happens to them, a line a step.
//!
//! ```text
//! # Two halves write the same keys, and meet.
//! for names lease map         the machines that it is for; without this line, all
//! nodes 3 10 100              it is run with so many nodes each
//! seed 7                      of latencies and of all else that the network draws; 0 without this line
//! set names.keys duplicate    a parameter of one of the machines
//! at 1s partition lower | upper
//! at 1.5s register all job
//! at 3s heal
//! ```
//!
//! Empty lines, and what follows `#`, are passed over. Steps come in the order of their times, which are counted from the start in `s`,
//! `ms`, `us` or `ns`. After the last step the network has all its connections, and the invariants are checked.
//!
//! | step | what happens |
//! |---|---|
//! | `partition A \| B` | no node of A and no node of B have a connection |
//! | `partition A > B` | what nodes of A say does not arrive at nodes of B; nobody notices |
//! | `heal A \| B`, `heal A > B` | the opposite of each |
//! | `heal` | the opposite of all of them |
//! | `break A \| B` | the connections break, and come back by themselves |
//! | `crash A`, `start A` | nodes stop; they start without what they knew |
//! | `restart A` | the same at once; of a `map`, the member restarts and its node runs on |
//! | `pause A`, `resume A` | nodes stop; they go on with what they knew, and without their connections |
//! | `leave A`, `join A` | members leave the registry and go on beside it; they are in again; `horde` only |
//! | `skew A +90s` | the time of day there, from then on; of a `map` and of `horde`, its clock, from its next start |
//! | `rate A 1100` | how fast clocks run there, in thousandths, from the next start; only a `lease` asks |
//! | `faults 10 5 20` | per cent of messages that are lost, doubled and delayed from now on; neither for a `map` nor for `horde` |
//! | `register A KEY` | a `lease` acquires, a `map` puts; `process N` names the process, `notify` keeps it alive in a conflict |
//! | `update A KEY` | another value; `names` and `horde` only |
//! | `unregister A KEY` | a `lease` releases, a `map` removes |
//! | `exit A KEY` | the process with this key ends; also `exit A process N` |
//! | `wait A KEY` | waits until all have it; `names` only |
//!
//! Nodes are written without spaces between: `0`, `2-5`, `last`, `all`, `lower` and `upper` half, `even`, `odd`, and several with commas. In a
//! key, `%` stands for the number of the node; `job*20` are 20 keys, `job0` to `job19`.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use super::{Host, Network, NodeId};

mod parse;

pub use parse::{ParseError, Problem};

/// What happens in a simulation.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Scenario {
    /// The machines that it is for; all of them if none is named.
    pub machines: Vec<String>,
    /// How many nodes there are; it is run with each of these numbers.
    pub nodes: Vec<usize>,
    /// The seed of the network.
    pub seed: u64,
    /// Parameters: machine, name, value, and the line that they stand in.
    pub settings: Vec<(String, String, String, usize)>,
    /// The steps in the order of their times, which are counted from the start.
    pub steps: Vec<(Duration, Step)>,
}

/// One thing that happens.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Step {
    /// Nodes are kept apart.
    Partition(Between),
    /// What [`Step::Partition`] did is over.
    Heal(Between),
    /// What any [`Step::Partition`] did is over.
    HealAll,
    /// Connections break and come back.
    Break(Nodes, Nodes),
    /// Nodes stop.
    Crash(Nodes),
    /// Nodes start without what they knew.
    Start(Nodes),
    /// Both at once.
    Restart(Nodes),
    /// Nodes stop and keep what they know.
    Pause(Nodes),
    /// They go on.
    Resume(Nodes),
    /// Members leave a registry, and their nodes run on.
    Leave(Nodes),
    /// They are members again.
    Join(Nodes),
    /// How far their time of day is off, in milliseconds.
    Skew(Nodes, i64),
    /// How fast their clocks run, in thousandths.
    Rate(Nodes, i64),
    /// How many messages are lost, doubled and delayed, per cent.
    Faults([usize; 3]),
    /// Keys are registered.
    Register(Nodes, Keys, Who),
    /// Keys get another value.
    Update(Nodes, Keys, Who),
    /// Keys are given up.
    Unregister(Nodes, Keys, Who),
    /// Processes end: those that have the keys, or the one that is named.
    Exit(Nodes, Option<Keys>, Who),
    /// Somebody waits until all have the keys.
    Wait(Nodes, Keys),
}

/// Nodes that are parted.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Between {
    /// One side.
    pub from: Nodes,
    /// The other.
    pub to: Nodes,
    /// Only what the first says does not arrive.
    pub one_way: bool,
}

/// Which process, and what becomes of it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Who {
    /// Its number on its node. Without, a new one registers, and whoever has the key gives it up.
    pub process: Option<u32>,
    /// It is told of a conflict, and lives on.
    pub notify: bool,
}

/// A choice of nodes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Nodes(Vec<Part>);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Part {
    Range(NodeId, NodeId),
    Last,
    All,
    Lower,
    Upper,
    Even,
    Odd,
}

const WORDS: [(&str, Part); 6] = [
    ("last", Part::Last),
    ("all", Part::All),
    ("lower", Part::Lower),
    ("upper", Part::Upper),
    ("even", Part::Even),
    ("odd", Part::Odd),
];

impl Nodes {
    /// One node.
    pub fn one(node: NodeId) -> Self {
        Self(vec![Part::Range(node, node)])
    }

    /// All nodes.
    pub fn all() -> Self {
        Self(vec![Part::All])
    }

    /// Those of a network of so many nodes, in order.
    pub fn of(&self, size: usize) -> Vec<NodeId> {
        let has = |part: &Part, node: NodeId| match part {
            Part::Range(from, to) => (*from..=*to).contains(&node),
            Part::Last => node + 1 == size,
            Part::All => true,
            Part::Lower => node < size / 2,
            Part::Upper => node >= size / 2,
            Part::Even => node.is_multiple_of(2),
            Part::Odd => !node.is_multiple_of(2),
        };
        (0..size).filter(|node| self.0.iter().any(|part| has(part, *node))).collect()
    }
}

impl fmt::Display for Nodes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, part) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            match part {
                Part::Range(from, to) if from == to => write!(f, "{comma}{from}")?,
                Part::Range(from, to) => write!(f, "{comma}{from}-{to}")?,
                other => {
                    let word = WORDS.iter().find(|(_, part)| part == other).map_or("", |(word, _)| *word);
                    write!(f, "{comma}{word}")?;
                }
            }
        }
        Ok(())
    }
}

/// A choice of keys.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Keys {
    word: String,
    count: Option<usize>,
}

impl Keys {
    /// One key.
    pub fn one(word: impl Into<String>) -> Self {
        Self { word: word.into(), count: None }
    }

    /// Those that a node means.
    pub fn of(&self, node: NodeId) -> Vec<String> {
        let word = self.word.replace('%', &node.to_string());
        match self.count {
            None => vec![word],
            Some(count) => (0..count).map(|number| format!("{word}{number}")).collect(),
        }
    }
}

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.word)?;
        self.count.map_or(Ok(()), |count| write!(f, "*{count}"))
    }
}

impl Scenario {
    /// What happened to one machine among so many nodes, with the parameters that it had.
    pub fn recorded(
        machine: &str,
        size: usize,
        seed: u64,
        settings: &[(&str, String)],
        steps: Vec<(Duration, Step)>,
    ) -> Self {
        let set = |(name, value): &(&str, String)| (machine.to_owned(), (*name).to_owned(), value.clone(), 0);
        let settings = settings.iter().map(set).collect();
        Self { machines: vec![machine.to_owned()], nodes: vec![size], seed, settings, steps }
    }

    /// Whether it is for a machine: `names`, `lease`, `map` or `horde`.
    pub fn is_for(&self, machine: &str) -> bool {
        self.machines.is_empty() || self.machines.iter().any(|named| named == machine)
    }

    /// The parameters of a machine: name, value, line.
    pub fn settings_of(&self, machine: &str) -> impl Iterator<Item = (&str, &str, usize)> {
        let of = self.settings.iter().filter(move |(named, ..)| named == machine);
        of.map(|(_, name, value, line)| (name.as_str(), value.as_str(), *line))
    }
}

/// The shortest text of a time.
fn show_time(time: Duration) -> String {
    let text = format!("{}.{:09}", time.as_secs(), time.subsec_nanos());
    format!("{}s", text.trim_end_matches('0').trim_end_matches('.'))
}

impl fmt::Display for Between {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.from, if self.one_way { '>' } else { '|' }, self.to)
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(process) = self.process {
            write!(f, " process {process}")?;
        }
        f.write_str(if self.notify { " notify" } else { "" })
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Partition(between) => write!(f, "partition {between}"),
            Self::Heal(between) => write!(f, "heal {between}"),
            Self::HealAll => f.write_str("heal"),
            Self::Break(a, b) => write!(f, "break {a} | {b}"),
            Self::Crash(nodes) => write!(f, "crash {nodes}"),
            Self::Start(nodes) => write!(f, "start {nodes}"),
            Self::Restart(nodes) => write!(f, "restart {nodes}"),
            Self::Pause(nodes) => write!(f, "pause {nodes}"),
            Self::Resume(nodes) => write!(f, "resume {nodes}"),
            Self::Leave(nodes) => write!(f, "leave {nodes}"),
            Self::Join(nodes) => write!(f, "join {nodes}"),
            Self::Skew(nodes, millis) => {
                let sign = if *millis < 0 { '-' } else { '+' };
                write!(f, "skew {nodes} {sign}{}ms", millis.unsigned_abs())
            }
            Self::Rate(nodes, rate) => write!(f, "rate {nodes} {rate}"),
            Self::Faults([loss, double, delay]) => write!(f, "faults {loss} {double} {delay}"),
            Self::Register(nodes, keys, who) => write!(f, "register {nodes} {keys}{who}"),
            Self::Update(nodes, keys, who) => write!(f, "update {nodes} {keys}{who}"),
            Self::Unregister(nodes, keys, who) => write!(f, "unregister {nodes} {keys}{who}"),
            Self::Exit(nodes, None, who) => write!(f, "exit {nodes}{who}"),
            Self::Exit(nodes, Some(keys), who) => write!(f, "exit {nodes} {keys}{who}"),
            Self::Wait(nodes, keys) => write!(f, "wait {nodes} {keys}"),
        }
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.machines.is_empty() {
            writeln!(f, "for {}", self.machines.join(" "))?;
        }
        let nodes: Vec<String> = self.nodes.iter().map(ToString::to_string).collect();
        writeln!(f, "nodes {}\nseed {}", nodes.join(" "), self.seed)?;
        for (machine, name, value, _) in &self.settings {
            writeln!(f, "set {machine}.{name} {value}")?;
        }
        for (at, step) in &self.steps {
            writeln!(f, "at {} {step}", show_time(*at))?;
        }
        Ok(())
    }
}

impl<H: Host> Network<H> {
    /// Does what a step does to connections: `false` if it is none of those. What arrives one way only is the hosts' to tell.
    pub fn apply(&mut self, step: &Step, size: usize) -> bool {
        let pairs = |a: &Nodes, b: &Nodes| {
            let b = b.of(size);
            let pairs = a.of(size).into_iter().flat_map(move |a| b.clone().into_iter().map(move |b| (a, b)));
            pairs.filter(|(a, b)| a != b).collect::<Vec<_>>()
        };
        match step {
            Step::Partition(Between { from, to, one_way: false }) => {
                pairs(from, to).into_iter().for_each(|(a, b)| self.allow(a, b, false));
            }
            Step::Heal(Between { from, to, one_way: false }) => {
                pairs(from, to).into_iter().for_each(|(a, b)| self.allow(a, b, true));
            }
            Step::HealAll => self.allow_all(),
            Step::Break(from, to) => {
                pairs(from, to).into_iter().for_each(|(a, b)| self.disconnect(a, b));
            }
            _ => return false,
        }
        true
    }

    /// What `from` says does not arrive at `to`, or does again: `of` is where a host keeps whom it does not reach. Gives the pairs that
    /// one of them hears in again.
    pub fn mute(
        &mut self,
        from: &Nodes,
        to: &Nodes,
        size: usize,
        muted: bool,
        of: impl Fn(&mut H) -> &mut BTreeSet<NodeId>,
    ) -> Vec<(NodeId, NodeId)> {
        let to = to.of(size);
        let mut heard = Vec::new();
        for id in from.of(size) {
            self.with(id, |host, _| {
                let unreached = of(host);
                for &other in to.iter().filter(|to| **to != id) {
                    if muted {
                        unreached.insert(other);
                    } else if unreached.remove(&other) {
                        heard.push((id, other));
                    }
                }
            });
        }
        heard
    }
}

/// The files of `crates/cluster/scenarios`, by their names.
#[cfg(test)]
pub(crate) fn committed() -> Vec<(String, Scenario)> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/scenarios");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |path: &std::path::PathBuf| {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let scenario = Scenario::parse(&std::fs::read_to_string(path).unwrap());
        (name.clone(), scenario.unwrap_or_else(|error| panic!("{name}: {error}")))
    };
    files.iter().map(read).collect()
}

#[cfg(test)]
mod tests;

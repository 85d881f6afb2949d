//! What a child is: its specification, and which of the processes of that specification is meant.

use std::time::Duration;

use foundation_proto::etf::{Atom, Map, Term};

use crate::Key;
use crate::message::{atom, tuple_of};

/// The most partitions of one child.
pub const MAX_PARTITIONS: u32 = 4096;
/// The most restarts that a budget allows ([`ChildSpec::max_restarts`]): the time of each is kept.
pub const MAX_RESTARTS: u32 = 10_000;
/// The longest time that a child may take to end ([`ChildSpec::shutdown`]).
const MAX_SHUTDOWN: Duration = Duration::from_secs(3600);

/// How many processes a specification stands for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Kind {
    /// One in the cluster.
    #[default]
    Singleton,
    /// One on each node that has the factory.
    Replicated,
    /// So many in the cluster, numbered from 0: [`MAX_PARTITIONS`] at most.
    Partitioned(u32),
}

/// When a child that has ended by itself is started again, as in OTP's `supervisor`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Restart {
    /// Always.
    #[default]
    Permanent,
    /// Unless the reason was `normal`, `shutdown` or `{shutdown, _}`; also if its node is lost.
    Transient,
    /// Never, also if its node is lost. (In a partition, both sides may start it once.)
    Temporary,
}

/// Where a child is started. It stays there until its node is lost or leaves, or it is migrated.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Placement {
    /// On the node with the greatest hash of child and node: even, and few children have another place when a node comes or goes.
    #[default]
    Uniform,
    /// As `Uniform`, while more than half of the configured members are in reach; otherwise the child is stopped
    /// (`Horde.UniformQuorumDistribution`).
    Quorum,
    /// On the node that libring's ring has for it (`Horde.UniformDistribution`).
    Ring,
}

/// What counts more when the cluster is parted.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Requirement {
    /// That it runs: on both sides of a partition, until they meet.
    #[default]
    Availability,
    /// That it never runs twice at once: only where a majority of the configured members grants it a lease.
    Safety,
}

/// The specification of a child.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ChildSpec {
    /// What it is known by.
    pub id: Term,
    /// The factory that makes it, registered on the nodes that may run it.
    pub factory: Atom,
    /// What the factory is given.
    pub argument: Term,
    /// How many processes it stands for.
    pub kind: Kind,
    /// When it is started again.
    pub restart: Restart,
    /// It is given up if it has to be started again more often than this within `max_seconds` on one node: 3. At most
    /// [`MAX_RESTARTS`].
    pub max_restarts: u32,
    /// See `max_restarts`: 5.
    pub max_seconds: u32,
    /// Where it is started.
    pub placement: Placement,
    /// What counts more when the cluster is parted.
    pub requirement: Requirement,
    /// How long it may take to end when it is asked to; then it is killed. 5 s, an hour at most.
    pub shutdown: Duration,
}

impl ChildSpec {
    /// A permanent singleton without an argument, with the defaults of the fields.
    pub fn new(id: impl Into<Term>, factory: Atom) -> Self {
        Self {
            id: id.into(),
            factory,
            argument: Term::Atom(Atom::new_static("nil")),
            kind: Kind::Singleton,
            restart: Restart::Permanent,
            max_restarts: 3,
            max_seconds: 5,
            placement: Placement::Uniform,
            requirement: Requirement::Availability,
            shutdown: Duration::from_secs(5),
        }
    }

    /// With this argument.
    #[must_use]
    pub fn argument(self, argument: impl Into<Term>) -> Self {
        Self { argument: argument.into(), ..self }
    }

    /// Started again in these cases.
    #[must_use]
    pub fn restart(self, restart: Restart) -> Self {
        Self { restart, ..self }
    }

    /// Given up beyond so many restarts in so many seconds.
    #[must_use]
    pub fn budget(self, max_restarts: u32, max_seconds: u32) -> Self {
        Self { max_restarts, max_seconds, ..self }
    }

    /// Placed like this.
    #[must_use]
    pub fn placement(self, placement: Placement) -> Self {
        Self { placement, ..self }
    }

    /// With this requirement.
    #[must_use]
    pub fn requirement(self, requirement: Requirement) -> Self {
        Self { requirement, ..self }
    }

    /// With so much time to end.
    #[must_use]
    pub fn shutdown(self, shutdown: Duration) -> Self {
        Self { shutdown: shutdown.min(MAX_SHUTDOWN), ..self }
    }

    /// Whether it makes sense: a replicated child needs no lease, and partitions have a number.
    pub(super) fn is_valid(&self) -> bool {
        let fits = self.max_restarts <= MAX_RESTARTS && self.shutdown <= MAX_SHUTDOWN;
        fits && match self.kind {
            Kind::Singleton => true,
            Kind::Replicated => {
                self.requirement == Requirement::Availability && self.placement == Placement::Uniform
            }
            Kind::Partitioned(count) => (1..=MAX_PARTITIONS).contains(&count),
        }
    }

    /// Whether it needs [`Config::members`](super::Config::members).
    pub(super) fn needs_members(&self) -> bool {
        self.requirement == Requirement::Safety || self.placement == Placement::Quorum
    }

    /// As a map, the form in which it travels and in which callers give it.
    pub fn to_term(&self) -> Term {
        let kind = match self.kind {
            Kind::Singleton => atom("singleton"),
            Kind::Replicated => atom("replicated"),
            Kind::Partitioned(count) => tuple_of([atom("partitioned"), Term::Integer(count.into())]),
        };
        let restart = match self.restart {
            Restart::Permanent => "permanent",
            Restart::Transient => "transient",
            Restart::Temporary => "temporary",
        };
        let placement = match self.placement {
            Placement::Uniform => "uniform",
            Placement::Quorum => "quorum",
            Placement::Ring => "ring",
        };
        let requirement = match self.requirement {
            Requirement::Availability => "availability",
            Requirement::Safety => "safety",
        };
        let shutdown = i64::try_from(self.shutdown.as_millis()).unwrap_or(i64::MAX);
        let pairs = [
            ("argument", self.argument.clone()),
            ("factory", Term::Atom(self.factory.clone())),
            ("id", self.id.clone()),
            ("kind", kind),
            ("max_restarts", Term::Integer(self.max_restarts.into())),
            ("max_seconds", Term::Integer(self.max_seconds.into())),
            ("placement", atom(placement)),
            ("requirement", atom(requirement)),
            ("restart", atom(restart)),
            ("shutdown", Term::Integer(shutdown)),
        ];
        Term::Map(pairs.into_iter().map(|(key, value)| (atom(key), value)).collect())
    }

    /// Reads a map with `id` and `factory`, and any of the other fields; `None` if there is anything else in it.
    pub fn from_term(term: &Term) -> Option<Self> {
        let map: &Map = term.as_map()?;
        let mut spec = Self::new(map.get_atom("id")?.clone(), map.get_atom("factory")?.as_atom()?.clone());
        for (key, value) in map.iter() {
            match key.as_atom()?.as_str() {
                "id" | "factory" => {}
                "argument" => spec.argument = value.clone(),
                "kind" => spec.kind = kind(value)?,
                "restart" => {
                    spec.restart = match value.as_atom()?.as_str() {
                        "permanent" => Restart::Permanent,
                        "transient" => Restart::Transient,
                        "temporary" => Restart::Temporary,
                        _ => return None,
                    };
                }
                "max_restarts" => spec.max_restarts = number(value)?,
                "max_seconds" => spec.max_seconds = number(value)?,
                "placement" => {
                    spec.placement = match value.as_atom()?.as_str() {
                        "uniform" => Placement::Uniform,
                        "quorum" => Placement::Quorum,
                        "ring" => Placement::Ring,
                        _ => return None,
                    };
                }
                "requirement" => {
                    spec.requirement = match value.as_atom()?.as_str() {
                        "availability" => Requirement::Availability,
                        "safety" => Requirement::Safety,
                        _ => return None,
                    };
                }
                "shutdown" => {
                    let time = Duration::from_millis(u64::try_from(value.as_i64()?).ok()?);
                    spec.shutdown = Some(time).filter(|time| *time <= MAX_SHUTDOWN)?;
                }
                _ => return None,
            }
        }
        spec.is_valid().then_some(spec)
    }

    /// The processes that it stands for, as a node sees it that is called `me`.
    pub(super) fn parts(&self, me: &Atom) -> Vec<Part> {
        match self.kind {
            Kind::Singleton => vec![Part::Only],
            Kind::Replicated => vec![Part::Node(me.clone())],
            Kind::Partitioned(count) => (0..count).map(Part::Number).collect(),
        }
    }

    /// How many items it may come to with its marks.
    pub(super) fn items(&self) -> usize {
        match self.kind {
            Kind::Singleton => 2,
            Kind::Replicated => 1,
            Kind::Partitioned(count) => 1 + count as usize,
        }
    }

    /// Whether there is such a part of it.
    pub(super) fn has(&self, part: &Part) -> bool {
        match (self.kind, part) {
            (Kind::Singleton, Part::Only) | (Kind::Replicated, Part::Node(_)) => true,
            (Kind::Partitioned(count), Part::Number(number)) => *number < count,
            _ => false,
        }
    }
}

fn kind(term: &Term) -> Option<Kind> {
    match term.as_tuple() {
        Some([word, count]) if word.is_atom("partitioned") => Some(Kind::Partitioned(number(count)?)),
        Some(_) => None,
        None if term.is_atom("singleton") => Some(Kind::Singleton),
        None if term.is_atom("replicated") => Some(Kind::Replicated),
        None => None,
    }
}

fn number(term: &Term) -> Option<u32> {
    u32::try_from(term.as_i64()?).ok()
}

/// Which process of a specification.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Part {
    /// The only one: `only`.
    Only,
    /// The one of a node: its name.
    Node(Atom),
    /// A partition: its number.
    Number(u32),
}

impl Part {
    /// As others see it.
    pub fn to_term(&self) -> Term {
        match self {
            Self::Only => atom("only"),
            Self::Node(node) => Term::Atom(node.clone()),
            Self::Number(number) => Term::Integer((*number).into()),
        }
    }

    /// Reads what [`Part::to_term`] makes.
    pub fn from_term(term: &Term) -> Option<Self> {
        match term {
            Term::Atom(node) if node.as_str() == "only" => Some(Self::Only),
            Term::Atom(node) => Some(Self::Node(node.clone())),
            other => Some(Self::Number(number(other)?)),
        }
    }
}

/// One process that is to run.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Child {
    /// Its specification.
    pub id: Key,
    /// Which of its processes.
    pub part: Part,
}

impl Child {
    /// What it is registered under, and what its lease is called: `{child, Id, Part}`.
    pub(super) fn to_term(&self) -> Term {
        tuple_of([atom("child"), self.id.0.clone(), self.part.to_term()])
    }

    pub(super) fn from_term(term: &Term) -> Option<Self> {
        match term.as_tuple()? {
            [tag, id, part] if tag.is_atom("child") => {
                Some(Self { id: Key(id.clone()), part: Part::from_term(part)? })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_specification_is_what_it_was_after_a_journey() {
        let spec = ChildSpec {
            kind: Kind::Partitioned(7),
            ..ChildSpec::new(Term::from("a"), Atom::new_static("f"))
                .argument(Term::Integer(5))
                .restart(Restart::Transient)
                .budget(9, 60)
                .placement(Placement::Quorum)
                .requirement(Requirement::Safety)
                .shutdown(Duration::from_millis(250))
        };
        assert_eq!(ChildSpec::from_term(&spec.to_term()), Some(spec.clone()));
        let Term::Map(mut map) = spec.to_term() else { panic!("a map") };
        map.insert(atom("else"), atom("x"));
        assert_eq!(ChildSpec::from_term(&Term::Map(map)), None, "unknown fields are errors");
        for kind in [tuple_of([atom("partitioned"), Term::Integer(0)]), atom("many")] {
            let Term::Map(mut map) = spec.to_term() else { panic!("a map") };
            map.insert(atom("kind"), kind);
            assert_eq!(ChildSpec::from_term(&Term::Map(map)), None);
        }
    }

    #[test]
    fn a_replicated_child_takes_no_lease() {
        let spec = ChildSpec { kind: Kind::Replicated, ..ChildSpec::new(1i64, Atom::new_static("f")) };
        assert!(spec.is_valid());
        assert!(!spec.requirement(Requirement::Safety).is_valid());
    }
}

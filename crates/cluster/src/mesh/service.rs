//! One instance of a service, and how it stands in the registry.

use foundation_proto::etf::{Atom, Map, Pid, Term};

use crate::message::{atom, list_of, tuple, tuple_of};
use crate::names::Entry;

/// The form in which an instance is written. Another one is not read.
const FORM: i64 = 1;
/// Capabilities of one instance, at most: each is compared in each search for capabilities.
pub(super) const MAX_CAPABILITIES: usize = 256;
/// The greatest weight: sums of many stay far from overflowing.
pub(super) const MAX_WEIGHT: u32 = 65_535;

/// How well an instance is, as its health check says.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub enum Health {
    /// It is not checked, or its checks succeed.
    #[default]
    Healthy,
    /// Some checks in a row have failed. It is found and chosen; [`Strategy::HealthBased`](super::Strategy::HealthBased) takes it last.
    Degraded,
    /// More have. It is found, and never chosen.
    Unhealthy,
}

impl Health {
    /// The word for it on the wire and in logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }

    pub(super) fn of(term: &Term) -> Option<Self> {
        [Self::Healthy, Self::Degraded, Self::Unhealthy].into_iter().find(|one| term.is_atom(one.as_str()))
    }

    pub(super) fn term(self) -> Term {
        atom(self.as_str())
    }
}

/// A process that offers a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// The name of the service. Several instances may have it.
    pub name: Term,
    /// The process.
    pub pid: Pid,
    /// The node that registered it and checks it: its own, or the one that a BEAM node asked to.
    pub registrar: Atom,
    /// What it can do.
    pub capabilities: Vec<Term>,
    /// What else was said of it.
    pub metadata: Map,
    /// Milliseconds since 1970, by the clock of the registrar.
    pub registered_at: i64,
    /// How well it is.
    pub health: Health,
}

impl Service {
    /// The node of the process.
    pub fn node(&self) -> &Atom {
        &self.pid.node
    }

    /// How much of the work it takes with [`Strategy::Weighted`](super::Strategy::Weighted): `weight` of its metadata, from 0 to 65,535. 1
    /// without it, or with anything else in its place.
    pub fn weight(&self) -> u32 {
        let weight = self.metadata.get_atom("weight").and_then(Term::as_i64);
        match weight {
            Some(weight) if weight >= 0 => u32::try_from(weight).unwrap_or(MAX_WEIGHT).min(MAX_WEIGHT),
            _ => 1,
        }
    }

    /// What callers on a BEAM get: the map of `Foundation.ServiceMesh.discover_services/1`, and `health`. While it is not
    /// healthy, its metadata says so too, as there.
    pub fn info(&self) -> Term {
        let mut metadata = self.metadata.clone();
        if self.health != Health::Healthy {
            metadata.insert(atom("health"), self.health.term());
        }
        let pairs = [
            ("name", self.name.clone()),
            ("pid", Term::from(&self.pid)),
            ("node", Term::from(self.node())),
            ("capabilities", list_of(self.capabilities.iter().cloned())),
            ("metadata", Term::Map(metadata)),
            ("registered_at", Term::Integer(self.registered_at)),
            ("health", self.health.term()),
        ];
        Term::Map(pairs.into_iter().map(|(key, value)| (atom(key), value)).collect())
    }

    /// What is kept under the key.
    pub(super) fn value(&self) -> Term {
        tuple_of([
            Term::Integer(FORM),
            list_of(self.capabilities.iter().cloned()),
            Term::Map(self.metadata.clone()),
            Term::Integer(self.registered_at),
            self.health.term(),
        ])
    }

    /// Reads an entry of the registry; `None` if it is of no service, or in a form that is not known.
    pub(super) fn read(entry: &Entry) -> Option<Self> {
        let name = name_of(entry)?.clone();
        let [form, capabilities, Term::Map(metadata), registered_at, health] = tuple(entry.value.clone())?
        else {
            return None;
        };
        let capabilities = crate::message::list(capabilities)?;
        if form.as_i64() != Some(FORM) || capabilities.len() > MAX_CAPABILITIES {
            return None;
        }
        Some(Self {
            name,
            pid: entry.pid.clone(),
            registrar: entry.node.clone(),
            capabilities,
            metadata,
            registered_at: registered_at.as_i64()?,
            health: Health::of(&health)?,
        })
    }

    /// Which of two registrations of one process counts: the later one, then that of the lesser node.
    pub(super) fn counts_before(&self, other: &Self) -> bool {
        (other.registered_at, &self.registrar) < (self.registered_at, &other.registrar)
    }
}

/// The key of an instance. The process is part of it, so that a service of many instances costs no more than many services.
pub(super) fn key(name: &Term, pid: &Pid) -> Term {
    tuple_of([atom("service"), name.clone(), Term::from(pid)])
}

/// The name that the key of an instance says.
pub(super) fn name_of(entry: &Entry) -> Option<&Term> {
    match entry.key.0.as_tuple()? {
        [word, name, Term::Pid(pid)] if word.is_atom("service") && *pid == entry.pid => Some(name),
        _ => None,
    }
}

//! Which instance gets the next piece of work.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use foundation_proto::etf::{Atom, Pid, Term};

use super::load::Load;
use super::query::{BadQuery, Query, pairs};
use super::service::{Health, Service};
use crate::Key;
use crate::message::{atom, list_of, tuple_of};

/// How one of several instances is chosen. Unhealthy ones never are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Strategy {
    /// One of those to which this node has the fewest connections ([`Mesh::begin`](super::Mesh::begin)), in turn among equals.
    #[default]
    LeastConnections,
    /// All in turn: of n choices among the same k instances, each gets n/k, rounded up or down.
    RoundRobin,
    /// In turn, each as often as its [`weight`](Service::weight) says; instances of the weight 0 never. Of as many choices as all weights
    /// add up to, each gets exactly its weight, evenly spread.
    Weighted,
    /// A healthy one as by [`Strategy::LeastConnections`]; a degraded one only if none is healthy.
    HealthBased,
    /// Any, by chance.
    Random,
}

impl Strategy {
    const ALL: [Self; 5] =
        [Self::LeastConnections, Self::RoundRobin, Self::Weighted, Self::HealthBased, Self::Random];

    /// Its name, as `strategy:` of `Foundation.LoadBalancer` has it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LeastConnections => "least_connections",
            Self::RoundRobin => "round_robin",
            Self::Weighted => "weighted",
            Self::HealthBased => "health_based",
            Self::Random => "random",
        }
    }
}

/// What the machine of an instance has to be like, by figures that its node has measured.
///
/// A node whose figure is not known does not meet a constraint on it. If that leaves nobody, the choice is refused
/// ([`RouteError::LoadUnknown`]): nothing is assumed in the place of a figure.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Constraints {
    /// The processors are busy for less than this share of the time, in percent.
    pub cpu_under: Option<f64>,
    /// Less than this share of the memory is taken, in percent.
    pub memory_under: Option<f64>,
    /// The load average over one minute is less than this for each processor.
    pub load_under: Option<f64>,
}

/// What a constraint says of a node.
enum Meets {
    Yes,
    No,
    Unknown,
}

impl Constraints {
    /// None.
    pub const fn new() -> Self {
        Self { cpu_under: None, memory_under: None, load_under: None }
    }

    /// Processors that are busy for less than this share of the time, in percent.
    #[must_use]
    pub const fn cpu_under(mut self, percent: f64) -> Self {
        self.cpu_under = Some(percent);
        self
    }

    /// Less than this share of the memory taken, in percent.
    #[must_use]
    pub const fn memory_under(mut self, percent: f64) -> Self {
        self.memory_under = Some(percent);
        self
    }

    /// A load average over one minute of less than this for each processor.
    #[must_use]
    pub const fn load_under(mut self, average: f64) -> Self {
        self.load_under = Some(average);
        self
    }

    fn are_none(&self) -> bool {
        *self == Self::new()
    }

    fn met_by(&self, load: Option<&Load>) -> Meets {
        let Some(load) = load else { return Meets::Unknown };
        let each = [
            (self.cpu_under, load.cpu_percent()),
            (self.memory_under, load.memory_percent()),
            (self.load_under, load.average_per_processor()),
        ];
        let asked = || each.iter().filter_map(|(limit, figure)| Some(((*limit)?, *figure)));
        if asked().any(|(limit, figure)| figure.is_some_and(|figure| figure >= limit || limit.is_nan())) {
            Meets::No
        } else if asked().any(|(_, figure)| figure.is_none()) {
            Meets::Unknown
        } else {
            Meets::Yes
        }
    }
}

/// Why nobody was chosen.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RouteError {
    /// No instance meets the criteria, or all that do are unhealthy (so many) or have the weight 0.
    NoInstance {
        /// Those that meet the criteria and are unhealthy.
        unhealthy: usize,
    },
    /// No node is known to meet the constraints, and of these a figure that they ask for is not known.
    LoadUnknown {
        /// The nodes without figures.
        unknown: Vec<Atom>,
    },
    /// All nodes of which the figures are known are too busy.
    Overloaded {
        /// The nodes that are too busy.
        busy: Vec<Atom>,
        /// The nodes of which nothing is known.
        unknown: Vec<Atom>,
    },
}

impl RouteError {
    /// What callers on a BEAM get in `{:error, reason}`.
    pub(super) fn term(&self) -> Term {
        let nodes = |nodes: &[Atom]| list_of(nodes.iter().map(Term::from));
        match self {
            Self::NoInstance { .. } => atom("no_instance"),
            Self::LoadUnknown { unknown } => tuple_of([atom("load_unknown"), nodes(unknown)]),
            Self::Overloaded { busy, .. } => tuple_of([atom("overloaded"), nodes(busy)]),
        }
    }
}

impl fmt::Display for RouteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |nodes: &[Atom]| nodes.iter().map(Atom::as_str).collect::<Vec<_>>().join(", ");
        match self {
            Self::NoInstance { unhealthy: 0 } => f.write_str("no instance of the service meets the criteria"),
            Self::NoInstance { unhealthy } => {
                write!(
                    f,
                    "no instance of the service is well: {unhealthy} that meet the criteria are unhealthy"
                )
            }
            Self::LoadUnknown { unknown } => write!(
                f,
                "the constraints cannot be checked: {} tell no load; leave the constraints out, or run a mesh there",
                list(unknown)
            ),
            Self::Overloaded { busy, .. } => {
                write!(f, "the nodes of all instances are too busy: {}", list(busy))
            }
        }
    }
}

impl core::error::Error for RouteError {}

/// Those instances that may be chosen.
pub(super) fn candidates(
    found: impl IntoIterator<Item = Arc<Service>>,
    constraints: &Constraints,
    loads: &BTreeMap<Atom, Load>,
) -> Result<Vec<Arc<Service>>, RouteError> {
    let (unwell, well): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|service| service.health == Health::Unhealthy);
    if well.is_empty() {
        return Err(RouteError::NoInstance { unhealthy: unwell.len() });
    }
    if constraints.are_none() {
        return Ok(well);
    }
    let (mut busy, mut unknown) = (BTreeSet::new(), BTreeSet::new());
    let meets = |service: &Arc<Service>| match constraints.met_by(loads.get(service.node())) {
        Meets::Yes => true,
        Meets::No => {
            busy.insert(service.node().clone());
            false
        }
        Meets::Unknown => {
            unknown.insert(service.node().clone());
            false
        }
    };
    let idle: Vec<_> = well.into_iter().filter(meets).collect();
    if !idle.is_empty() {
        return Ok(idle);
    }
    let unknown = unknown.into_iter().collect();
    Err(if busy.is_empty() {
        RouteError::LoadUnknown { unknown }
    } else {
        RouteError::Overloaded { busy: busy.into_iter().collect(), unknown }
    })
}

/// What is remembered from one choice to the next: the turns of each name, and the connections of this node.
#[derive(Debug, Default)]
pub(super) struct Balancer {
    turns: BTreeMap<Key, Turn>,
    connections: BTreeMap<Pid, u32>,
}

#[derive(Debug, Default)]
struct Turn {
    last: Option<Pid>,
    /// What each instance is owed by [`Strategy::Weighted`].
    owed: BTreeMap<Pid, i64>,
}

impl Balancer {
    /// Chooses one. The candidates are of one name, in the order of their processes.
    pub(super) fn choose(
        &mut self,
        name: &Term,
        mut candidates: Vec<Arc<Service>>,
        strategy: Strategy,
        random: u64,
    ) -> Option<Arc<Service>> {
        if strategy == Strategy::Random {
            let at = usize::try_from(random % u64::try_from(candidates.len()).ok()?.max(1)).ok()?;
            return candidates.get(at).cloned();
        }
        if strategy == Strategy::Weighted {
            return self.turns.entry(Key(name.clone())).or_default().weighted(&candidates);
        }
        if strategy == Strategy::HealthBased && candidates.iter().any(|one| one.health == Health::Healthy) {
            candidates.retain(|one| one.health == Health::Healthy);
        }
        if strategy != Strategy::RoundRobin {
            let least = candidates.iter().map(|one| self.connections(&one.pid)).min()?;
            candidates.retain(|one| self.connections(&one.pid) == least);
        }
        self.turns.entry(Key(name.clone())).or_default().next(&candidates)
    }

    /// How many connections this node has to a process.
    pub(super) fn connections(&self, pid: &Pid) -> u32 {
        self.connections.get(pid).copied().unwrap_or_default()
    }

    pub(super) fn begin(&mut self, pid: &Pid) {
        let count = self.connections.entry(pid.clone()).or_default();
        *count = count.saturating_add(1);
    }

    pub(super) fn end(&mut self, pid: &Pid) {
        if let Some(count) = self.connections.get_mut(pid) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.connections.remove(pid);
            }
        }
    }

    /// An instance is gone; of its name too, if it was the last.
    pub(super) fn forget(&mut self, name: &Term, pid: &Pid, last: bool) {
        let key = Key(name.clone());
        if last {
            self.turns.remove(&key);
        } else if let Some(turn) = self.turns.get_mut(&key) {
            turn.owed.remove(pid);
        }
    }
}

impl Turn {
    /// The candidate after the one that came last, in the order of processes.
    fn next(&mut self, candidates: &[Arc<Service>]) -> Option<Arc<Service>> {
        let after = self.last.as_ref().map_or(0, |last| candidates.partition_point(|one| one.pid <= *last));
        let chosen = candidates.get(after).or_else(|| candidates.first())?;
        self.last = Some(chosen.pid.clone());
        Some(Arc::clone(chosen))
    }

    /// Each candidate is owed its weight more; who is owed most is chosen, and owed the sum less (nginx calls it smooth weighted
    /// round robin). The sum of what is owed stays 0, so nobody's part drifts.
    fn weighted(&mut self, candidates: &[Arc<Service>]) -> Option<Arc<Service>> {
        let mut sum = 0;
        let mut most: Option<(i64, &Arc<Service>)> = None;
        for one in candidates.iter().filter(|one| one.weight() > 0) {
            let weight = i64::from(one.weight());
            let owed = self.owed.entry(one.pid.clone()).or_default();
            *owed += weight;
            sum += weight;
            if most.is_none_or(|(more, _)| *owed > more) {
                most = Some((*owed, one));
            }
        }
        let (_, chosen) = most?;
        if let Some(owed) = self.owed.get_mut(&chosen.pid) {
            *owed -= sum;
        }
        self.last = Some(chosen.pid.clone());
        Some(Arc::clone(chosen))
    }
}

/// How to choose: the options of `Foundation.LoadBalancer.pick/2`.
#[derive(Clone, Debug, Default)]
pub struct Routing {
    /// How one of several is chosen.
    pub strategy: Strategy,
    /// What its machine has to be like.
    pub constraints: Constraints,
    /// What else it has to meet; a name in it is not looked at.
    pub query: Query,
}

impl Routing {
    /// By this strategy, without constraints.
    pub fn new(strategy: Strategy) -> Self {
        Self { strategy, ..Self::default() }
    }

    /// With constraints on the load of the node.
    #[must_use]
    pub fn constraints(mut self, constraints: Constraints) -> Self {
        self.constraints = constraints;
        self
    }

    /// With criteria besides the name.
    #[must_use]
    pub fn query(mut self, query: Query) -> Self {
        self.query = query;
        self
    }

    /// Reads the options `strategy:` and `constraints:`.
    pub(super) fn read(options: &Term) -> Result<Self, BadQuery> {
        let mut routing = Self::default();
        for (key, value) in pairs(options).ok_or(BadQuery::Malformed)? {
            match key.as_atom().map(Atom::as_str) {
                Some("strategy") => {
                    let known = Strategy::ALL.into_iter().find(|strategy| value.is_atom(strategy.as_str()));
                    routing.strategy = known.ok_or(BadQuery::Malformed)?;
                }
                Some("constraints") => routing.constrain(value)?,
                _ => return Err(BadQuery::Malformed),
            }
        }
        Ok(routing)
    }

    /// `cpu_usage: :under_80_percent` and `memory_usage:` likewise, `load:` a number; anything else is a criterion.
    fn constrain(&mut self, constraints: &Term) -> Result<(), BadQuery> {
        let mut criteria = Vec::new();
        for (key, value) in pairs(constraints).ok_or(BadQuery::Malformed)? {
            let percent = || percent(value).ok_or(BadQuery::Malformed);
            match key.as_atom().map(Atom::as_str) {
                Some("cpu_usage") => self.constraints.cpu_under = Some(percent()?),
                Some("memory_usage") => self.constraints.memory_under = Some(percent()?),
                Some("load") => {
                    let number = value.as_f64().or_else(|| value.as_i64().map(|n| n as f64));
                    self.constraints.load_under = Some(number.ok_or(BadQuery::Malformed)?);
                }
                _ => criteria.push(tuple_of([key.clone(), value.clone()])),
            }
        }
        self.query = Query::from_term(&list_of(criteria))?;
        Ok(())
    }
}

/// `under_1_percent` to `under_100_percent`, or the number itself.
fn percent(value: &Term) -> Option<f64> {
    let number = match value {
        Term::Atom(word) => word.as_str().strip_prefix("under_")?.strip_suffix("_percent")?.parse().ok()?,
        other => other.as_i64()?,
    };
    (1..=100).contains(&number).then_some(number as f64)
}

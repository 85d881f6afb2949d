//! What instances are looked for.

use std::fmt;
use std::sync::Arc;

use foundation_proto::etf::{Atom, Term};

use super::service::{Health, Service};

/// Criteria of one search, at most: each is compared with each instance.
pub(super) const MAX_CRITERIA: usize = 64;

/// A function of the caller that says whether it wants an instance.
pub type Wanted = Arc<dyn Fn(&Service) -> bool + Send + Sync>;

/// Criteria that an instance meets all of. Without any, it is every instance.
///
/// They filter; they do not authorize. Whoever registers says what stands in the metadata.
#[derive(Clone, Default)]
pub struct Query {
    pub(super) name: Option<Term>,
    capabilities: Vec<Term>,
    node: Option<Atom>,
    health: Option<Health>,
    metadata: Vec<(Term, Term)>,
    check: Option<Wanted>,
}

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query")
            .field("name", &self.name)
            .field("capabilities", &self.capabilities)
            .field("node", &self.node)
            .field("health", &self.health)
            .field("metadata", &self.metadata)
            .finish_non_exhaustive()
    }
}

/// Why criteria of a call cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum BadQuery {
    /// They are neither a keyword list nor a map, one has a value of a wrong kind, or there are more than 64.
    Malformed,
    /// `health_check` is a function of the caller's node: it has to filter the answer itself.
    HealthCheck,
}

impl Query {
    /// Every instance.
    pub fn new() -> Self {
        Self::default()
    }

    /// Instances of this service.
    #[must_use]
    pub fn name(mut self, name: impl Into<Term>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Those that have this capability, besides others asked for.
    #[must_use]
    pub fn capability(mut self, capability: impl Into<Term>) -> Self {
        self.capabilities.push(capability.into());
        self
    }

    /// Those that have all of these capabilities.
    #[must_use]
    pub fn capabilities(mut self, capabilities: impl IntoIterator<Item = Term>) -> Self {
        self.capabilities.extend(capabilities);
        self
    }

    /// Those whose process is on this node.
    #[must_use]
    pub fn node(mut self, node: Atom) -> Self {
        self.node = Some(node);
        self
    }

    /// Those that are in this state.
    #[must_use]
    pub fn health(mut self, health: Health) -> Self {
        self.health = Some(health);
        self
    }

    /// Those whose metadata have this value under this key, by `=:=`.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<Term>, value: impl Into<Term>) -> Self {
        self.metadata.push((key.into(), value.into()));
        self
    }

    /// Those for which this returns `true`. It runs in the caller, for what meets everything else.
    #[must_use]
    pub fn health_check(mut self, check: impl Fn(&Service) -> bool + Send + Sync + 'static) -> Self {
        self.check = Some(Arc::new(check));
        self
    }

    /// The function of [`Query::health_check`], and the query without it: for a host that must not run it while it holds a lock.
    pub fn split_health_check(&self) -> Option<(Self, Wanted)> {
        let check = self.check.clone()?;
        Some((Self { check: None, ..self.clone() }, check))
    }

    /// Whether an instance meets all criteria.
    pub fn matches(&self, service: &Service) -> bool {
        self.name.as_ref().is_none_or(|name| *name == service.name) && self.matches_but_name(service)
    }

    /// The same without the name.
    pub(super) fn matches_but_name(&self, service: &Service) -> bool {
        self.node.as_ref().is_none_or(|node| node == service.node())
            && self.health.is_none_or(|health| health == service.health)
            && self.capabilities.iter().all(|wanted| service.capabilities.contains(wanted))
            && self.metadata.iter().all(|(key, value)| service.metadata.get(key) == Some(value))
            && self.check.as_ref().is_none_or(|check| check(service))
    }

    /// Reads the criteria of `discover_services/1`: a keyword list or a map.
    ///
    /// # Errors
    /// [`BadQuery`].
    pub fn from_term(criteria: &Term) -> Result<Self, BadQuery> {
        let mut query = Self::default();
        for (key, value) in pairs(criteria).ok_or(BadQuery::Malformed)? {
            let word = key.as_atom().map(Atom::as_str);
            match (word, value) {
                (Some("name"), name) => query.name = Some(name.clone()),
                (Some("capability"), capability) => query.capabilities.push(capability.clone()),
                (Some("capabilities"), Term::List(all)) if all.len() <= MAX_CRITERIA => {
                    query.capabilities.extend(all.iter().cloned());
                }
                (Some("node"), Term::Atom(node)) => query.node = Some(node.clone()),
                (Some("capabilities" | "node"), _) => return Err(BadQuery::Malformed),
                (Some("health_check"), Term::Fun(_) | Term::ExportFun(_)) => {
                    return Err(BadQuery::HealthCheck);
                }
                (Some("health"), value) if Health::of(value).is_some() => query.health = Health::of(value),
                _ => query.metadata.push((key.clone(), value.clone())),
            }
        }
        if query.capabilities.len() > MAX_CRITERIA {
            return Err(BadQuery::Malformed);
        }
        Ok(query)
    }
}

/// The pairs of a map, or of a list of pairs; `None` for anything else, or for too many.
pub(super) fn pairs(term: &Term) -> Option<Vec<(&Term, &Term)>> {
    match term {
        Term::Map(map) if map.len() <= MAX_CRITERIA => {
            Some(map.iter().map(|(key, value)| (key, value)).collect())
        }
        Term::List(list) if list.len() <= MAX_CRITERIA => list.iter().map(pair).collect(),
        _ => None,
    }
}

fn pair(term: &Term) -> Option<(&Term, &Term)> {
    match term.as_tuple()? {
        [key, value] => Some((key, value)),
        _ => None,
    }
}

//! Which services are checked, when, and what follows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Pid, Term};

use super::query::pairs;
use super::service::Health;
use crate::Key;

/// The shortest time between two checks of a service, and the shortest that one is given.
const LEAST: Duration = Duration::from_millis(10);
/// The longest time between two checks.
const MOST: Duration = Duration::from_secs(86_400);
/// The longest time for one check: those that hang must not keep the others waiting for longer.
const MOST_FOR_ONE: Duration = Duration::from_secs(60);

/// What is asked of a service to see how it is.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Check {
    /// `is_process_alive/1` on its node, so that a node that hangs is noticed. A process that ends is always deregistered at once.
    Alive,
    /// A `GenServer.call/3` with this request.
    Call(Term),
    /// A function of the process's node, called there with the service's info in front of these arguments.
    Apply {
        /// The module.
        module: Atom,
        /// The function.
        function: Atom,
        /// The other arguments.
        args: Vec<Term>,
    },
    /// A fun of the process's node, called there with the service's info.
    Fun(Term),
    /// A function of the host, by the number under which it keeps it.
    Custom(u64),
}

/// What becomes of a service that has failed too often.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum OnFailure {
    /// It is marked, and not chosen until it is well again.
    #[default]
    Mark,
    /// It is deregistered.
    Deregister,
}

/// How a service is checked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Rules {
    /// From the start of one check to that of the next: 10 s. From 10 ms to a day.
    pub interval: Duration,
    /// A check that takes longer has failed: 5 s. From 10 ms to a minute.
    pub timeout: Duration,
    /// After so many failures in a row a service is degraded; never, if `None`, which is the default.
    pub degraded_after: Option<u32>,
    /// After so many failures in a row it is unhealthy: 3.
    pub unhealthy_after: u32,
    /// After so many successes in a row it is healthy again: 1.
    pub healthy_after: u32,
    /// What becomes of one that is unhealthy.
    pub on_failure: OnFailure,
}

impl Rules {
    /// The defaults, which are those of `Foundation.HealthMonitor`.
    pub const fn new() -> Self {
        Self {
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            degraded_after: None,
            unhealthy_after: 3,
            healthy_after: 1,
            on_failure: OnFailure::Mark,
        }
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::new()
    }
}

/// What is asked, and by which rules.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    /// What is asked.
    pub check: Check,
    /// When, and what follows; those of [`Config::checks`](super::Config::checks) if `None`.
    pub rules: Option<Rules>,
}

impl From<Check> for HealthCheck {
    fn from(check: Check) -> Self {
        Self { check, rules: None }
    }
}

impl Check {
    /// Reads `health_check` of metadata; `None` if nobody could carry it out.
    pub(super) fn read(term: &Term) -> Option<Self> {
        match term {
            Term::Atom(_) if term.is_atom("alive") => Some(Self::Alive),
            Term::Fun(fun) if fun.arity == 1 => Some(Self::Fun(term.clone())),
            Term::ExportFun(fun) if fun.arity == 1 => Some(Self::Apply {
                module: fun.module.clone(),
                function: fun.function.clone(),
                args: Vec::new(),
            }),
            Term::Tuple(elements) => match &**elements {
                [word, request] if word.is_atom("call") => Some(Self::Call(request.clone())),
                [Term::Atom(module), Term::Atom(function), Term::List(args)] => Some(Self::Apply {
                    module: module.clone(),
                    function: function.clone(),
                    args: args.to_vec(),
                }),
                _ => None,
            },
            _ => None,
        }
    }

    /// Whether it runs code that a caller has named.
    pub(super) const fn is_named_code(&self) -> bool {
        matches!(self, Self::Apply { .. } | Self::Fun(_))
    }
}

impl HealthCheck {
    /// Reads `health_check` of metadata: what [`Check::read`] reads, or that as `check` of a map or keyword list with rules.
    pub(super) fn read(term: &Term, defaults: &Rules) -> Option<Self> {
        if let Some(check) = Check::read(term) {
            return Some(Self { check, rules: None });
        }
        let (mut check, mut rules) = (None, *defaults);
        for (key, value) in pairs(term)? {
            let count = || value.as_i64().and_then(|n| u32::try_from(n).ok()).filter(|n| *n > 0);
            let time = || count().map(|millis| Duration::from_millis(millis.into()));
            match key.as_atom()?.as_str() {
                "check" => check = Some(Check::read(value)?),
                "interval" => rules.interval = time()?,
                "timeout" => rules.timeout = time()?,
                "degraded_after" => rules.degraded_after = Some(count()?),
                "unhealthy_after" => rules.unhealthy_after = count()?,
                "healthy_after" => rules.healthy_after = count()?,
                "on_failure" if value.is_atom("mark") => rules.on_failure = OnFailure::Mark,
                "on_failure" if value.is_atom("deregister") => rules.on_failure = OnFailure::Deregister,
                _ => return None,
            }
        }
        Some(Self { check: check?, rules: Some(rules) })
    }
}

/// A service: its name and process.
pub(super) type Id = (Key, Pid);

#[derive(Debug)]
struct Checked {
    check: Check,
    rules: Rules,
    failures: u32,
    successes: u32,
    /// When it is next checked, or when the check that runs is too late.
    at: Mono,
    /// When the check that runs was started.
    running: Option<(u64, Mono)>,
}

/// What follows from the end of a check.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// It has failed so many times in a row; the last word is what is done about it.
    Failed { failures: u32, mark: Option<Health>, deregister: bool, say: bool },
    /// It has succeeded so many times that it is healthy.
    Well,
    /// Nothing.
    Nothing,
}

/// The services of this node that are checked.
#[derive(Debug, Default)]
pub(super) struct Checks {
    services: BTreeMap<Id, Checked>,
    /// Those that wait, by the time at which they are checked.
    waiting: BTreeSet<(Mono, Id)>,
    /// The checks that run, by the time at which they are too late.
    running: BTreeSet<(Mono, u64)>,
    probes: BTreeMap<u64, Id>,
}

impl Checks {
    /// Checks a service from now on, or in another way; the first time after one interval.
    pub(super) fn insert(&mut self, now: Mono, id: Id, check: Check, rules: Rules) {
        let rules = Rules {
            interval: rules.interval.clamp(LEAST, MOST),
            timeout: rules.timeout.clamp(LEAST, MOST_FOR_ONE),
            ..rules
        };
        let at = now + rules.interval;
        self.waiting.insert((at, id.clone()));
        self.services.insert(id, Checked { check, rules, failures: 0, successes: 0, at, running: None });
    }

    /// Checks it no more; the check that it had, and the one of it that runs.
    pub(super) fn remove(&mut self, id: &Id) -> Option<(Check, Option<u64>)> {
        let checked = self.services.remove(id)?;
        self.waiting.remove(&(checked.at, id.clone()));
        let probe = checked.running.map(|(probe, _)| probe);
        if let Some(probe) = probe {
            self.running.remove(&(checked.at, probe));
            self.probes.remove(&probe);
        }
        Some((checked.check, probe))
    }

    /// The next service that is due, unless too many checks run.
    pub(super) fn due(&mut self, now: Mono, most: usize, probe: u64) -> Option<(Id, Check, Duration)> {
        if self.running.len() >= most || self.waiting.first().is_none_or(|(at, _)| *at > now) {
            return None;
        }
        let (_, id) = self.waiting.pop_first()?;
        let checked = self.services.get_mut(&id)?;
        checked.running = Some((probe, now));
        checked.at = now + checked.rules.timeout;
        self.running.insert((checked.at, probe));
        self.probes.insert(probe, id.clone());
        Some((id, checked.check.clone(), checked.rules.timeout))
    }

    /// The next check that runs and is too late.
    pub(super) fn late(&self, now: Mono) -> Option<u64> {
        self.running.first().filter(|(at, _)| *at <= now).map(|(_, probe)| *probe)
    }

    /// A check has ended; `None` if it is none of those that run.
    pub(super) fn ended(
        &mut self,
        now: Mono,
        probe: u64,
        well: bool,
        health: Health,
    ) -> Option<(Id, Verdict)> {
        let id = self.probes.remove(&probe)?;
        let checked = self.services.get_mut(&id)?;
        self.running.remove(&(checked.at, probe));
        let (_, started) = checked.running.take()?;
        checked.at = (started + checked.rules.interval).max(now);
        self.waiting.insert((checked.at, id.clone()));
        Some((id, checked.judge(well, health)))
    }

    /// The service of a check that runs.
    pub(super) fn of_probe(&self, probe: u64) -> Option<&Id> {
        self.probes.get(&probe)
    }

    /// When something is due.
    pub(super) fn next(&self, most: usize) -> Option<Mono> {
        let late = self.running.first().map(|(at, _)| *at);
        let due = self.waiting.first().map(|(at, _)| *at).filter(|_| self.running.len() < most);
        late.into_iter().chain(due).min()
    }
}

impl Checked {
    fn judge(&mut self, well: bool, health: Health) -> Verdict {
        let rules = &self.rules;
        if well {
            self.failures = 0;
            self.successes = self.successes.saturating_add(1);
            let again = health != Health::Healthy && self.successes >= rules.healthy_after;
            return if again { Verdict::Well } else { Verdict::Nothing };
        }
        self.successes = 0;
        self.failures = self.failures.saturating_add(1);
        let failures = self.failures;
        let unhealthy = failures >= rules.unhealthy_after;
        let degraded = rules.degraded_after.is_some_and(|after| failures >= after);
        let mark =
            if unhealthy { Some(Health::Unhealthy) } else { Some(Health::Degraded).filter(|_| degraded) };
        Verdict::Failed {
            failures,
            mark: mark.filter(|mark| *mark > health),
            deregister: unhealthy && rules.on_failure == OnFailure::Deregister,
            // It is said until the service is marked, and then only when it is over.
            say: failures <= rules.unhealthy_after,
        }
    }
}

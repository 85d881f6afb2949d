//! What any node may ask a registry with `GenServer.call({Registry, Node}, Request)`, without this library.
//!
//! | request | answer |
//! |---|---|
//! | `{:lookup, key}` | `[{pid, value}]`, as `Registry.lookup/2` |
//! | `{:whereis_name, key}` | a pid or `:undefined`; keys must be unique |
//! | `{:keys, pid}` | the keys of a process |
//! | `:count` | how many keys are found |
//! | `{:select, after, limit}` | `{:ok, [{key, pid, value}], next}`: the first `limit` (1,000 at most) whose keys come after that of `{:after, key}`, or from the beginning if `after` is `:first`; `next` is what to give the next time, or `:end` |
//! | `:members` | the nodes that share names, this one included |
//! | `{:register, key, value, pid}` | `{:ok, registry_pid}`, or `{:error, {:already_registered, pid}}`, as `Registry.register/3` |
//! | `{:update_value, key, value, pid}` | `:ok`, or `{:error, :not_registered}` |
//! | `{:unregister, key, pid}` | `:ok`, as `Registry.unregister/2` |
//! | `{:wait_until_all, key, timeout_ms}` | `:ok` once all members have what this node registered; `{:error, :not_registered}`, `{:error, {:timeout, nodes}}` |
//! | `:stats` | a map of counters |
//!
//! Further errors are `{:error, :too_large}` and `{:error, :system_limit}`. Another request is answered by `{:error, :badarg}`. A process of
//! a node without a registry is registered by the node that is called: when that is lost, the name is too.

use std::sync::Arc;
use std::time::Duration;

use foundation_proto::etf::{Map, Pid, Term};

use super::entry::{Entry, Keys};
use super::{Action, Names, OnConflict, Outcome, Waiter};
use crate::Key;
use crate::message::{atom, list_of, tuple_of};

/// The most names in one answer.
const MAX_SELECT: usize = 1000;
/// The longest wait that a call may ask for: callers give up sooner.
const MAX_WAIT: Duration = Duration::from_secs(3600);

/// An outcome as callers get it.
pub(super) fn reply(outcome: &Outcome) -> Term {
    let error = |why| tuple_of([atom("error"), why]);
    match outcome {
        Outcome::Done => atom("ok"),
        Outcome::AlreadyRegistered(pid) => error(tuple_of([atom("already_registered"), Term::from(pid)])),
        Outcome::NotRegistered => error(atom("not_registered")),
        Outcome::TooLarge => error(atom("too_large")),
        Outcome::SystemLimit => error(atom("system_limit")),
        Outcome::Timeout(nodes) => error(tuple_of([atom("timeout"), list_of(nodes.iter().map(Term::from))])),
    }
}

impl Names {
    /// Answers a call.
    pub(super) fn call(&mut self, from: Term, request: Term, wall: i64) -> Option<()> {
        let answer = match request {
            Term::Atom(word) => self.ask(word.as_str()),
            Term::Tuple(elements) => {
                let elements = elements.into_vec();
                let Some(Term::Atom(word)) = elements.first() else { return self.bad(from) };
                if let ("wait_until_all", [_, key, timeout]) = (word.as_str(), elements.as_slice()) {
                    let Some(timeout) = timeout.as_i64().and_then(|ms| u64::try_from(ms).ok()) else {
                        return self.bad(from);
                    };
                    let timeout = Duration::from_millis(timeout).min(MAX_WAIT);
                    self.wait(key.clone(), timeout, Waiter::Call(from));
                    return Some(());
                }
                self.request(word.as_str(), &elements, wall)
            }
            _ => None,
        };
        let Some(reply) = answer else { return self.bad(from) };
        self.actions.push_back(Action::Reply { from, reply });
        Some(())
    }

    fn bad(&mut self, from: Term) -> Option<()> {
        let reply = tuple_of([atom("error"), atom("badarg")]);
        self.actions.push_back(Action::Reply { from, reply });
        None
    }

    fn ask(&self, word: &str) -> Option<Term> {
        let number = |number: u64| Term::Integer(i64::try_from(number).unwrap_or(i64::MAX));
        Some(match word {
            "count" => number(self.iter().count() as u64),
            "members" => list_of(std::iter::once(&self.me.node).chain(self.members()).map(Term::from)),
            "stats" => {
                let stats = self.stats(self.now);
                let millis = |time: Duration| number(u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
                let pairs = [
                    ("behind", number(stats.behind)),
                    ("conflicts", number(stats.conflicts)),
                    ("ignored", number(stats.ignored)),
                    ("lag_ms", millis(stats.lag)),
                    ("pushed", number(stats.pushed)),
                    ("refused", number(stats.refused)),
                    ("slowest_ms", millis(stats.slowest)),
                ];
                let pairs = pairs.into_iter().map(|(name, value)| (atom(name), value));
                Term::Map(Map::from_pairs(pairs.collect()).ok()?)
            }
            _ => return None,
        })
    }

    fn request(&mut self, word: &str, elements: &[Term], wall: i64) -> Option<Term> {
        Some(match (word, elements) {
            ("lookup", [_, key]) => list_of(self.lookup(key).iter().map(|entry| pair(entry))),
            ("whereis_name", [_, key]) if self.config.keys == Keys::Unique => {
                self.lookup(key).first().map_or_else(|| atom("undefined"), |entry| Term::from(&entry.pid))
            }
            ("keys", [_, Term::Pid(pid)]) => list_of(self.keys_of(pid)),
            ("select", [_, after, limit]) => self.select(after, limit.as_i64()?)?,
            ("register", [_, key, value, Term::Pid(pid)]) => {
                let outcome =
                    self.register(key.clone(), pid.clone(), value.clone(), OnConflict::default(), wall);
                match outcome {
                    Outcome::Done => tuple_of([atom("ok"), Term::from(&self.me)]),
                    other => reply(&other),
                }
            }
            ("update_value", [_, key, value, Term::Pid(pid)]) => {
                reply(&self.update_value(key.clone(), pid, value.clone()))
            }
            ("unregister", [_, key, Term::Pid(pid)]) => {
                self.unregister(key.clone(), pid);
                atom("ok")
            }
            _ => return None,
        })
    }

    /// The keys of a process, whichever node has registered it.
    pub fn keys_of(&self, pid: &Pid) -> Vec<Term> {
        // A process is nearly always registered by its own node.
        let node = |node| self.held.get(node).filter(|held| held.visible);
        let mut keys: Vec<Term> = self.own.of_pid(pid).into_iter().map(|id| id.key.0.clone()).collect();
        if let Some(held) = node(&pid.node) {
            keys.extend(held.iter().filter(|entry| entry.pid == *pid).map(|entry| entry.key.0.clone()));
        } else {
            let elsewhere = self.iter().filter(|entry| entry.pid == *pid && entry.node != self.me.node);
            keys.extend(elsewhere.map(|entry| entry.key.0.clone()));
        }
        keys
    }

    fn select(&self, after: &Term, limit: i64) -> Option<Term> {
        let limit = usize::try_from(limit).ok()?.clamp(1, MAX_SELECT);
        let entries: Box<dyn Iterator<Item = &Arc<Entry>>> = match after.as_tuple() {
            Some([word, key]) if word.is_atom("after") => Box::new(self.index.after(&Key(key.clone()))),
            None if after.is_atom("first") => Box::new(self.iter()),
            _ => return None,
        };
        let mut found: Vec<&Arc<Entry>> = Vec::new();
        let mut next = atom("end");
        for entry in entries {
            // The processes of one key come together, whatever the limit: what follows is named by its key.
            if let Some(last) = found.last().filter(|last| found.len() >= limit && last.key != entry.key) {
                next = tuple_of([atom("after"), last.key.0.clone()]);
                break;
            }
            found.push(entry);
        }
        let found = found
            .into_iter()
            .map(|entry| tuple_of([entry.key.0.clone(), Term::from(&entry.pid), entry.value.clone()]));
        Some(tuple_of([atom("ok"), list_of(found), next]))
    }
}

fn pair(entry: &Entry) -> Term {
    tuple_of([Term::from(&entry.pid), entry.value.clone()])
}

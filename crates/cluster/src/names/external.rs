//! The registry behind one function, for a host that keeps its events and actions as terms: a process on a BEAM.
//!
//! | event | meaning |
//! |---|---|
//! | `{node_up, Node}`, `{node_down, Node}` | a connection came up, is gone |
//! | `{message, Message, Wall}` | a message or a call arrived, at this time of the wall clock in milliseconds since 1970 |
//! | `{down, Monitor}` | a monitor fired |
//! | `timeout` | what is due is to be done |
//!
//! | action | meaning |
//! |---|---|
//! | `{send, [Pid or Node], Message}` | to processes, and to the registry of this name on nodes; without connecting |
//! | `{reply, From, Reply}` | the answer to a call |
//! | `{monitor, Monitor, Pid}`, `{demonitor, Monitor}` | as [`Action::Monitor`] and [`Action::Demonitor`] |
//! | `{exit, Pid, Reason}` | an exit signal |
//! | `{pieces, New, Gone}` | `New` is `[{Number, [{Pid, Value, Own}]}]`, to be kept before `changed` is done; `Gone` are numbers that no key has once it is done |
//! | `{changed, Changes, Found}` | `Changes` are `{added, Key, Pid, Value}`, `updated`, `removed`, and `{conflict, Key, Winner, Loser}`; `Found` is `[{Key, [{Pid, Value, Own}]}]`: all that is found under each key that has changed once all events are taken in. The first has all of them, those after it none |
//!
//! A duplicate key that many processes have is `{Key, {pieces, [Number]}}` in `Found`: what is found is that of all its pieces, in this order. Pieces are
//! never changed, so a change of one process is two of its pieces at most.
//!
//! Several events go in together: what they write then reaches each member in one message.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Map, Pid, Term};

use super::pieces::{Pieces, Written};
use super::{Action, Change, Config, Entry, Event, Keys, MonitorId, Names, To};
use crate::message::{atom, list, list_of, tuple, tuple_of};
use crate::{Key, Machine};

/// A registry whose events and actions are terms; see the [module](self).
#[derive(Debug)]
pub struct External {
    pub(super) names: Names,
    pieces: Pieces,
}

enum Input {
    Event(Event),
    Timeout,
}

impl External {
    /// From `{Name, Pid, Options}`: the name of the registry, its process, and a map in which `keys` (`unique` or `duplicate`),
    /// `max_names`, `max_bytes`, `max_removed`, `max_members` and `max_waits` may stand, as in [`Config`]. `None` for anything else.
    pub fn new(term: Term) -> Option<Self> {
        let [name, me, options] = tuple(term)?;
        let (Term::Atom(name), Term::Pid(me), Term::Map(options)) = (name, me, options) else { return None };
        let mut names = Names::new(name, me, config(options)?);
        names.tell_touched();
        Some(Self { names, pieces: Pieces::default() })
    }

    /// Takes in a list of events, in their order, and gives the list of what is to be done, and when `timeout` is due. `None`, and nothing has
    /// happened, if one of them is not an event.
    pub fn handle(&mut self, now: Mono, events: Term) -> Option<(Term, Option<Mono>)> {
        for input in list(events)?.into_iter().map(read).collect::<Option<Vec<_>>>()? {
            match input {
                Input::Event(event) => self.names.handle(now, event),
                Input::Timeout => self.names.handle_timeout(now),
            }
        }
        let actions: Vec<Action> = std::iter::from_fn(|| self.names.poll_action()).collect();
        let (written, mut found) = self.found(&actions);
        let mut terms = Vec::with_capacity(actions.len() + 1);
        terms.extend(written.term(self));
        // A process that only has another place under its key is nothing to tell anybody.
        if !found.is_empty() && !actions.iter().any(|action| matches!(action, Action::Changed(_))) {
            terms.push(changed(&[], std::mem::take(&mut found)));
        }
        for action in actions {
            terms.push(self.term(action, &mut found));
        }
        Some((list_of(terms), self.names.poll_timeout()))
    }

    /// What is found under the keys that have changed, and the pieces in which it is.
    pub(super) fn found(&mut self, actions: &[Action]) -> (Written, Vec<Term>) {
        let mut written = Written::default();
        let mut found = Vec::new();
        if self.names.keys() == Keys::Duplicate {
            let mut touched: BTreeMap<Arc<Key>, Vec<Arc<Entry>>> = BTreeMap::new();
            for entry in self.names.take_touched() {
                touched.entry(Arc::clone(&entry.key)).or_default().push(entry);
            }
            for (key, touched) in touched {
                let all = self.names.index.all(&key);
                let row = match self.pieces.update(&key, all, &touched, &mut written) {
                    None => self.entries(all),
                    Some(numbers) => tuple_of([atom("pieces"), list_of(numbers.into_iter().map(number))]),
                };
                found.push(tuple_of([key.0.clone(), row]));
            }
        } else {
            let changes = actions.iter().filter_map(|action| match action {
                Action::Changed(changes) => Some(changes),
                _ => None,
            });
            let keys: BTreeSet<&Arc<Key>> = changes
                .flatten()
                .map(|change| match change {
                    Change::Added(entry) | Change::Updated(entry) | Change::Removed(entry) => &entry.key,
                    Change::Conflict { winner, .. } => &winner.key,
                })
                .collect();
            for key in keys {
                found.push(tuple_of([key.0.clone(), self.entries(self.names.index.found_of(key))]));
            }
        }
        (written, found)
    }

    fn entries(&self, entries: &[Arc<Entry>]) -> Term {
        list_of(entries.iter().map(|entry| {
            let own = if entry.node == self.names.me.node { "true" } else { "false" };
            tuple_of([Term::from(&entry.pid), entry.value.clone(), atom(own)])
        }))
    }

    /// The first change takes `found` with it.
    pub(super) fn term(&self, action: Action, found: &mut Vec<Term>) -> Term {
        let monitor = |MonitorId(id)| number(id);
        match action {
            Action::Send { to, message } => {
                let to = to.iter().map(|to| match to {
                    To::Pid(pid) => Term::from(pid),
                    To::Server(node) => Term::from(node),
                });
                tuple_of([atom("send"), list_of(to), message])
            }
            Action::Reply { from, reply } => tuple_of([atom("reply"), from, reply]),
            Action::Monitor { monitor: id, pid } => tuple_of([atom("monitor"), monitor(id), Term::Pid(pid)]),
            Action::Demonitor(id) => tuple_of([atom("demonitor"), monitor(id)]),
            Action::Exit { to, reason } => tuple_of([atom("exit"), Term::Pid(to), reason]),
            Action::Changed(changes) => changed(&changes, std::mem::take(found)),
            // There are no commands here, so none is done.
            Action::Done { command, .. } => tuple_of([atom("done"), monitor(MonitorId(command))]),
        }
    }
}

impl Written {
    fn term(self, external: &External) -> Option<Term> {
        if self.new.is_empty() && self.gone.is_empty() {
            return None;
        }
        let new = self.new.iter().map(|(id, entries)| tuple_of([number(*id), external.entries(entries)]));
        Some(tuple_of([atom("pieces"), list_of(new), list_of(self.gone.into_iter().map(number))]))
    }
}

fn number(number: u64) -> Term {
    Term::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

fn changed(changes: &[Change], found: Vec<Term>) -> Term {
    tuple_of([atom("changed"), list_of(changes.iter().map(change_term)), list_of(found)])
}

fn change_term(change: &Change) -> Term {
    let (word, entry) = match change {
        Change::Added(entry) => ("added", entry),
        Change::Updated(entry) => ("updated", entry),
        Change::Removed(entry) => ("removed", entry),
        Change::Conflict { winner, loser } => {
            let pid = |pid: &Pid| Term::from(pid);
            return tuple_of([atom("conflict"), winner.key.0.clone(), pid(&winner.pid), pid(&loser.pid)]);
        }
    };
    tuple_of([atom(word), entry.key.0.clone(), Term::from(&entry.pid), entry.value.clone()])
}

fn read(term: Term) -> Option<Input> {
    if term.is_atom("timeout") {
        return Some(Input::Timeout);
    }
    let Term::Tuple(elements) = term else { return None };
    let mut elements = elements.into_vec().into_iter();
    let (word, first, second) = (elements.next()?, elements.next()?, elements.next());
    if elements.next().is_some() {
        return None;
    }
    let node = |term: Term| -> Option<Atom> {
        match term {
            Term::Atom(node) => Some(node),
            _ => None,
        }
    };
    let event = match (word.as_atom()?.as_str(), second) {
        ("message", Some(wall)) => Event::Message { message: first, wall: wall.as_i64()? },
        ("down", None) => Event::Down(MonitorId(u64::try_from(first.as_i64()?).ok()?)),
        ("node_up", None) => Event::NodeUp(node(first)?),
        ("node_down", None) => Event::NodeDown(node(first)?),
        _ => return None,
    };
    Some(Input::Event(event))
}

fn config(options: Map) -> Option<Config> {
    let mut config = Config::new(Keys::Unique);
    for (name, value) in options.into_vec() {
        let name = name.as_atom()?.clone();
        if name.as_str() == "keys" {
            config.keys =
                [Keys::Unique, Keys::Duplicate].into_iter().find(|keys| value.is_atom(keys.text()))?;
            continue;
        }
        let limit = match name.as_str() {
            "max_names" => &mut config.max_names,
            "max_bytes" => &mut config.max_bytes,
            "max_removed" => &mut config.max_removed,
            "max_members" => &mut config.max_members,
            "max_waits" => &mut config.max_waits,
            _ => return None,
        };
        *limit = usize::try_from(value.as_i64()?).ok()?;
    }
    Some(config)
}

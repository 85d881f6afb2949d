//! What any node may ask a mesh with `GenServer.call({Mesh, Node}, Request)`, without this library.
//!
//! | request | answer |
//! |---|---|
//! | `{:register_service, name, pid}`, `{…, capabilities}`, `{…, capabilities, metadata}` | `:ok` or `{:error, reason}` |
//! | `{:deregister_service, name, pid}` | `:ok`, also if there is none |
//! | `{:mark_service, name, pid, health}` | `:ok` or `{:error, :not_registered}` |
//! | `:discover_services`, `{:discover_services, criteria}` | a list of infos, or `{:error, reason}`: `{:too_many, n}` above 10,000 |
//! | `{:select_services, criteria, after, limit}` | `{:ok, infos, next}`: the first `limit` (1,000 at most) after the one of `{:after, name, pid}`, or from the beginning if `after` is `:first`; `next` is what to give the next time, or `:end` |
//! | `{:pick, name}`, `{:pick, name, options}` | `{:ok, info}` or `{:error, reason}` |
//! | `:loads` | `%{node => figures}` of the nodes that tell theirs |
//! | `{:wait_until_all, name, pid, timeout_ms}` | `:ok`, `{:error, {:timeout, nodes}}`, `{:error, :not_registered}` |
//! | `:members`, `:stats` | as a registry answers them |
//!
//! Anything else is answered by `{:error, :badarg}`.

use std::sync::Arc;

use foundation_proto::etf::{Atom, Map, Pid, Term};

use super::event::{Action, Outcome, Registration};
use super::load::Load;
use super::query::{BadQuery, Query};
use super::route::Routing;
use super::service::{Health, Service};
use super::{Mesh, key};
use crate::message::{atom, list_of, tuple, tuple_of};

/// The most instances in one answer of `discover_services`.
const MAX_FOUND: usize = 10_000;
/// The most instances in one answer of `select_services`.
const MAX_SELECT: usize = 1000;

/// An outcome as callers get it.
fn reply(outcome: &Outcome) -> Term {
    match outcome {
        Outcome::Done => atom("ok"),
        Outcome::NotRegistered => error(atom("not_registered")),
        Outcome::RemoteProcess => error(atom("remote_process")),
        Outcome::BadHealthCheck => error(atom("bad_health_check")),
        Outcome::TooLarge => error(atom("too_large")),
        Outcome::SystemLimit => error(atom("system_limit")),
        Outcome::Timeout(nodes) => error(tuple_of([atom("timeout"), list_of(nodes.iter().map(Term::from))])),
    }
}

fn error(why: Term) -> Term {
    tuple_of([atom("error"), why])
}

fn bad_query(bad: &BadQuery) -> Term {
    match bad {
        BadQuery::Malformed => error(atom("badarg")),
        BadQuery::HealthCheck => error(tuple_of([atom("unsupported"), atom("health_check")])),
    }
}

fn infos<'a>(found: impl IntoIterator<Item = &'a Arc<Service>>) -> Term {
    list_of(found.into_iter().map(|service| service.info()))
}

impl Mesh {
    /// Answers a call; a message that is none, or a call that the registry below answers, is given back.
    pub(super) fn call(&mut self, message: Term, wall: i64, random: u64) -> Option<Term> {
        let is_call =
            message.as_tuple().and_then(<[Term]>::first).is_some_and(|tag| tag.is_atom("$gen_call"));
        if !is_call {
            return Some(message);
        }
        let Some([tag, from, request]) = tuple(message) else {
            self.ignored += 1;
            return None;
        };
        if request.is_atom("members") || request.is_atom("stats") {
            return Some(tuple_of([tag, from, request]));
        }
        if let Some([word, name, Term::Pid(pid), timeout]) = request.as_tuple()
            && word.is_atom("wait_until_all")
        {
            let request = tuple_of([word.clone(), key(name, pid), timeout.clone()]);
            return Some(tuple_of([tag, from, request]));
        }
        let caller =
            from.as_tuple().and_then(<[Term]>::first).and_then(Term::as_pid).map(|pid| pid.node.clone());
        let answer = caller.and_then(|caller| self.answer(&caller, request, wall, random));
        self.ignored += u64::from(answer.is_none());
        let reply = answer.unwrap_or_else(|| error(atom("badarg")));
        self.actions.push_back(Action::Registry(crate::names::Action::Reply { from, reply }));
        None
    }

    fn answer(&mut self, caller: &Atom, request: Term, wall: i64, random: u64) -> Option<Term> {
        let elements = match request {
            Term::Atom(word) => vec![Term::Atom(word)],
            Term::Tuple(elements) => elements.into_vec(),
            _ => return None,
        };
        let (word, arguments) = elements.split_first()?;
        Some(match (word.as_atom()?.as_str(), arguments) {
            ("register_service", [name, Term::Pid(pid), rest @ ..]) => {
                let registration = registration(name, pid, rest)?;
                reply(&self.register(registration, Some(caller), wall))
            }
            ("deregister_service", [name, Term::Pid(pid)]) => {
                self.deregister(name, pid);
                atom("ok")
            }
            ("mark_service", [name, Term::Pid(pid), health]) => {
                reply(&self.mark(name, pid, Health::of(health)?))
            }
            ("discover_services", []) => self.found(&Query::new()),
            ("discover_services", [criteria]) => match Query::from_term(criteria) {
                Ok(query) => self.found(&query),
                Err(bad) => bad_query(&bad),
            },
            ("select_services", [criteria, after, limit]) => match Query::from_term(criteria) {
                Ok(query) => self.select(&query, after, limit.as_i64()?)?,
                Err(bad) => bad_query(&bad),
            },
            ("pick", [name]) => self.picked(name, &Routing::default(), random),
            ("pick", [name, options]) => match Routing::read(options) {
                Ok(routing) => self.picked(name, &routing, random),
                Err(bad) => bad_query(&bad),
            },
            ("loads", []) => {
                let figures = |(node, load): (&Atom, &Load)| (Term::from(node), load.term());
                Term::Map(self.loads.iter().map(figures).collect())
            }
            _ => return None,
        })
    }

    fn found(&self, query: &Query) -> Term {
        let found = self.discover(query);
        if found.len() > MAX_FOUND {
            let count = i64::try_from(found.len()).unwrap_or(i64::MAX);
            return error(tuple_of([atom("too_many"), Term::Integer(count)]));
        }
        infos(&found)
    }

    fn picked(&mut self, name: &Term, routing: &Routing, random: u64) -> Term {
        match self.pick(name, routing, random) {
            Ok(service) => tuple_of([atom("ok"), service.info()]),
            Err(refused) => error(refused.term()),
        }
    }

    fn select(&self, query: &Query, after: &Term, limit: i64) -> Option<Term> {
        let limit = usize::try_from(limit).ok()?.clamp(1, MAX_SELECT);
        let all: Box<dyn Iterator<Item = &Arc<Service>>> = match after.as_tuple() {
            Some([word, name, Term::Pid(pid)]) if word.is_atom("after") => {
                Box::new(self.index.after(name.clone(), pid))
            }
            None if after.is_atom("first") => Box::new(self.index.iter()),
            _ => return None,
        };
        let mut found: Vec<&Arc<Service>> = all.filter(|one| query.matches(one)).take(limit + 1).collect();
        let more = found.len() > limit;
        found.truncate(limit);
        let next = match found.last().filter(|_| more) {
            Some(last) => tuple_of([atom("after"), last.name.clone(), Term::from(&last.pid)]),
            None => atom("end"),
        };
        Some(tuple_of([atom("ok"), infos(found), next]))
    }
}

/// The capabilities and metadata that follow name and process.
fn registration(name: &Term, pid: &Pid, rest: &[Term]) -> Option<Registration> {
    let (capabilities, metadata) = match rest {
        [] => (Vec::new(), Map::new()),
        [Term::List(capabilities)] => (capabilities.to_vec(), Map::new()),
        [Term::List(capabilities), Term::Map(metadata)] => (capabilities.to_vec(), metadata.clone()),
        _ => return None,
    };
    Some(Registration::new(name.clone(), pid).capabilities(capabilities).metadata(metadata))
}

use std::collections::{BTreeMap, BTreeSet};

use foundation_proto::etf::{Atom, Map, Term};

use super::state::{Clouds, Context, Delta, Remote, Replica, Subject, Tag};
use crate::Key;
use crate::message::{atom, tuple, tuple_of};

const STATE: &str = "Elixir.Phoenix.Tracker.State";
const MAP_SET: &str = "Elixir.MapSet";

/// What one shard tells another.
#[derive(Debug)]
pub(super) enum Message {
    Heartbeat { from: Replica, delta: Option<Remote>, clocks: (Replica, Context) },
    TransferRequest { reference: Term, from: Replica, clocks: Context },
    TransferAck { from: Replica, state: Remote },
    Permdown(Replica),
}

impl Message {
    /// Reads a message of the shard's topic; `None` if it is none of these. Says whether MapSets in it have the `version` that
    /// Elixir up to 1.14 gives them, if there are any.
    pub(super) fn decode(message: Term) -> Option<(Self, Option<bool>)> {
        let Term::Tuple(elements) = message else { return None };
        let mut elements = elements.into_vec();
        let [tag, kind, ..] = elements.as_slice() else { return None };
        if !tag.is_atom("pub") {
            return None;
        }
        let kind = kind.as_atom()?.clone();
        let rest = elements.split_off(2);
        let mut version = None;
        let message = match kind.as_str() {
            "heartbeat" => {
                let [from, delta, clocks] = rest.try_into().ok()?;
                let delta = if delta.is_atom("empty") { None } else { Some(delta_of(delta, &mut version)?) };
                Self::Heartbeat { from: replica(&from)?, delta, clocks: clocks_of(clocks)? }
            }
            "transfer_req" => {
                let [reference, from, clocks] = rest.try_into().ok()?;
                Self::TransferRequest { reference, from: replica(&from)?, clocks: clocks_of(clocks)?.1 }
            }
            "transfer_ack" => {
                let [_, from, state] = rest.try_into().ok()?;
                let from = replica(&from)?;
                let state = match state {
                    Term::Tuple(_) => {
                        let [state, values] = tuple(state)?;
                        let mut whole = state_of(&state, &mut version)?;
                        whole.values = values_of(values)?;
                        whole
                    }
                    delta => delta_of(delta, &mut version)?,
                };
                Self::TransferAck { from, state }
            }
            "graceful_permdown" => {
                let [from] = rest.try_into().ok()?;
                Self::Permdown(replica(&from)?)
            }
            _ => return None,
        };
        Some((message, version))
    }
}

/// A field of a struct.
pub(super) fn field<'a>(term: &'a Term, name: &str) -> Option<&'a Term> {
    term.as_map()?.get_atom(name)
}

fn replica(term: &Term) -> Option<Replica> {
    match term.as_tuple()? {
        [node, vsn] => Some(Replica { node: node.as_atom()?.clone(), vsn: vsn.as_i64()? }),
        _ => None,
    }
}

fn clocks_of(term: Term) -> Option<(Replica, Context)> {
    let [of, clocks] = tuple(term)?;
    Some((replica(&of)?, context_of(&clocks)?))
}

fn context_of(term: &Term) -> Option<Context> {
    let pairs = term.as_map()?.iter();
    pairs.map(|(of, clock)| Some((replica(of)?, u64::try_from(clock.as_i64()?).ok()?))).collect()
}

fn tag_of(term: &Term) -> Option<Tag> {
    match term.as_tuple()? {
        [of, clock] => Some((replica(of)?, u64::try_from(clock.as_i64()?).ok()?)),
        _ => None,
    }
}

fn clouds_of(term: &Term, version: &mut Option<bool>) -> Option<Clouds> {
    let mut clouds = Clouds::new();
    for (of, set) in term.as_map()?.iter() {
        let of = replica(of)?;
        let mut cloud = BTreeSet::new();
        for (tag, _) in field(set, "map")?.as_map()?.iter() {
            let (replica, clock) = tag_of(tag)?;
            if replica != of {
                return None;
            }
            cloud.insert(clock);
        }
        *version = Some(field(set, "version").is_some());
        clouds.insert(of, cloud);
    }
    Some(clouds)
}

fn values_of(term: Term) -> Option<BTreeMap<Tag, (Subject, Term)>> {
    let Term::Map(values) = term else { return None };
    let values = values.into_vec().into_iter().map(|(tag, value)| {
        let [pid, topic, key, meta] = tuple(value)?;
        let subject =
            Subject { topic: topic.as_binary()?.to_vec(), key: Key(key), pid: crate::message::pid(pid)? };
        Some((tag_of(&tag)?, (subject, meta)))
    });
    values.collect()
}

fn state_of(term: &Term, version: &mut Option<bool>) -> Option<Remote> {
    field(term, "__struct__").filter(|name| name.is_atom(STATE))?;
    Some(Remote {
        context: context_of(field(term, "context")?)?,
        clouds: clouds_of(field(term, "clouds")?, version)?,
        values: BTreeMap::new(),
    })
}

fn delta_of(term: Term, version: &mut Option<bool>) -> Option<Remote> {
    let mut delta = state_of(&term, version)?;
    delta.values = values_of(field(&term, "values")?.clone())?;
    Some(delta)
}

fn replica_term(replica: &Replica) -> Term {
    tuple_of([Term::Atom(replica.node.clone()), Term::Integer(replica.vsn)])
}

fn number(clock: u64) -> Term {
    Term::Integer(i64::try_from(clock).unwrap_or(i64::MAX))
}

fn tag_term((replica, clock): &Tag) -> Term {
    tuple_of([replica_term(replica), number(*clock)])
}

fn context_term(context: &Context) -> Term {
    Term::Map(context.iter().map(|(replica, clock)| (replica_term(replica), number(*clock))).collect::<Map>())
}

fn clouds_term(clouds: &Clouds, with_version: bool) -> Term {
    let sets = clouds.iter().map(|(replica, cloud)| {
        let elements = cloud.iter().map(|clock| (tag_term(&(replica.clone(), *clock)), Term::list([])));
        let mut set =
            vec![(atom("__struct__"), atom(MAP_SET)), (atom("map"), Term::Map(elements.collect::<Map>()))];
        if with_version {
            set.push((atom("version"), Term::Integer(2)));
        }
        (replica_term(replica), Term::Map(set.into_iter().collect::<Map>()))
    });
    Term::Map(sets.collect::<Map>())
}

fn values_term(values: &BTreeMap<Tag, (Subject, Term)>) -> Term {
    let values = values.iter().map(|(tag, (subject, meta))| {
        let value = tuple_of([
            Term::Pid(subject.pid.clone()),
            Term::binary(&subject.topic),
            subject.key.0.clone(),
            meta.clone(),
        ]);
        (tag_term(tag), value)
    });
    Term::Map(values.collect::<Map>())
}

/// `%Phoenix.Tracker.State{}` with all its fields.
fn state_term(replica: &Replica, mode: &'static str, fields: [(&'static str, Term); 4]) -> Term {
    let empty = || Term::Map([].into_iter().collect::<Map>());
    let mut pairs = vec![
        (atom("__struct__"), Term::Atom(Atom::new_static(STATE))),
        (atom("replica"), replica_term(replica)),
        (atom("mode"), atom(mode)),
        (atom("pids"), atom("nil")),
        (atom("delta"), atom("unset")),
        (atom("replicas"), empty()),
    ];
    pairs.extend(fields.map(|(name, value)| (atom(name), value)));
    Term::Map(pairs.into_iter().collect::<Map>())
}

pub(super) fn heartbeat(of: &Replica, delta: Option<&Delta>, clocks: &Context, with_version: bool) -> Term {
    let delta = delta.map_or_else(
        || atom("empty"),
        |delta| {
            let at = |clock| context_term(&Context::from([(of.clone(), clock)]));
            let fields = [
                ("context", context_term(&Context::new())),
                ("clouds", clouds_term(&delta.clouds, with_version)),
                ("values", values_term(&delta.values)),
                ("range", tuple_of([at(delta.range.0), at(delta.range.1)])),
            ];
            state_term(of, "delta", fields)
        },
    );
    let clocks = tuple_of([replica_term(of), context_term(clocks)]);
    tuple_of([atom("pub"), atom("heartbeat"), replica_term(of), delta, clocks])
}

pub(super) fn transfer_request(reference: Term, of: &Replica, clocks: &Context) -> Term {
    let clocks = tuple_of([replica_term(of), context_term(clocks)]);
    tuple_of([atom("pub"), atom("transfer_req"), reference, replica_term(of), clocks])
}

pub(super) fn transfer_ack(reference: Term, of: &Replica, state: &Remote, with_version: bool) -> Term {
    let empty = || context_term(&Context::new());
    let fields = [
        ("context", context_term(&state.context)),
        ("clouds", clouds_term(&state.clouds, with_version)),
        ("values", atom("nil")),
        ("range", tuple_of([empty(), empty()])),
    ];
    let state = tuple_of([state_term(of, "normal", fields), values_term(&state.values)]);
    tuple_of([atom("pub"), atom("transfer_ack"), reference, replica_term(of), state])
}

pub(super) fn permdown(of: &Replica) -> Term {
    tuple_of([atom("pub"), atom("graceful_permdown"), replica_term(of)])
}

//! The messages between members.

use std::time::Duration;

use foundation_proto::etf::{Atom, Pid, Term};

use super::MAX_DURATION;
use crate::Key;
use crate::message::{atom, tuple, tuple_of};

/// The version of this protocol.
const VERSION: i64 = 1;

/// A question for a name.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) members: i64,
    pub(super) name: Key,
    pub(super) holder: Pid,
    pub(super) claim: u64,
    pub(super) round: u64,
    pub(super) duration: Duration,
    pub(super) pid: Pid,
}

/// What a member says.
#[derive(Clone, Debug)]
pub(super) enum Message {
    Ask(Ask),
    Vote { name: Key, claim: u64, round: u64, voter: Atom, granted: bool },
    Release { name: Key, holder: Pid, claim: u64 },
}

fn number(number: u64) -> Term {
    // Numbers count single events: none comes near 2⁶³.
    Term::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

pub(super) fn ask(ask: &Ask) -> Term {
    tuple_of([
        atom("ask"),
        Term::Integer(VERSION),
        Term::Integer(ask.members),
        ask.name.0.clone(),
        Term::from(&ask.holder),
        number(ask.claim),
        number(ask.round),
        number(u64::try_from(ask.duration.as_nanos()).unwrap_or(u64::MAX)),
        Term::from(&ask.pid),
    ])
}

pub(super) fn vote(ask: &Ask, voter: &Atom, granted: bool) -> Term {
    tuple_of([
        atom("vote"),
        ask.name.0.clone(),
        number(ask.claim),
        number(ask.round),
        Term::from(voter),
        atom(if granted { "true" } else { "false" }),
    ])
}

pub(super) fn release(name: &Key, holder: &Pid, claim: u64) -> Term {
    tuple_of([atom("release"), name.0.clone(), Term::from(holder), number(claim)])
}

/// Reads a message; `None` if it is none of the protocol's, or of another version of it.
pub(super) fn read(term: Term) -> Option<Message> {
    let elements = term.as_tuple()?;
    let (word, count) = (elements.first()?.as_atom()?.clone(), elements.len());
    Some(match (word.as_str(), count) {
        ("ask", 9) => {
            let [_, version, members, name, holder, claim, round, nanos, pid] = tuple(term)?;
            if version.as_i64()? != VERSION {
                return None;
            }
            Message::Ask(Ask {
                members: members.as_i64()?,
                name: Key(name),
                holder: crate::message::pid(holder)?,
                claim: number_of(&claim)?,
                round: number_of(&round)?,
                duration: Some(Duration::from_nanos(number_of(&nanos)?)).filter(|d| *d <= MAX_DURATION)?,
                pid: crate::message::pid(pid)?,
            })
        }
        ("vote", 6) => {
            let [_, name, claim, round, voter, granted] = tuple(term)?;
            Message::Vote {
                name: Key(name),
                claim: number_of(&claim)?,
                round: number_of(&round)?,
                voter: voter.as_atom()?.clone(),
                granted: granted.as_bool()?,
            }
        }
        ("release", 4) => {
            let [_, name, holder, claim] = tuple(term)?;
            Message::Release {
                name: Key(name),
                holder: crate::message::pid(holder)?,
                claim: number_of(&claim)?,
            }
        }
        _ => return None,
    })
}

fn number_of(term: &Term) -> Option<u64> {
    u64::try_from(term.as_i64()?).ok()
}

//! The messages between supervisors.

use std::collections::BTreeSet;
use std::sync::Arc;

use foundation_proto::etf::{Atom, Pid, Term};

use super::spec::{Child, ChildSpec, Part};
use super::specs::{Context, Dot, Item, Op};
use crate::Key;
use crate::message::{atom, list, list_of, tuple_of};

/// What a supervisor says to another.
#[derive(Clone, Debug)]
pub(super) enum Message {
    Context { from: Pid, context: Context },
    Op { from: Pid, op: Op },
    Seen { from: Pid, context: Context },
    State { from: Pid, context: Context, live: BTreeSet<Dot>, items: Vec<(Dot, Item)> },
    HandOff { from: Pid, number: u64, child: Child, dot: Dot, state: Option<Term> },
    Taken { from: Pid, number: u64 },
    Refused { from: Pid, number: u64 },
    Migrate { from: Pid, number: u64, child: Child, to: Atom },
    Migrated { from: Pid, number: u64, done: bool },
    Restart { id: Key },
}

fn tagged<const N: usize>(tag: &'static str, rest: [Term; N]) -> Term {
    Term::Tuple([atom("supervisor"), atom(tag)].into_iter().chain(rest).collect())
}

fn number(number: u64) -> Term {
    // These count single writes and requests: none comes near 2⁶³.
    Term::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

fn dot_term(dot: &Dot) -> Term {
    tuple_of([Term::from(&dot.by), number(dot.number)])
}

fn context_term(context: &Context) -> Term {
    list_of(context.iter().map(|(by, seen)| tuple_of([Term::from(by), number(*seen)])))
}

fn item_term(item: &Item) -> Term {
    match item {
        Item::Spec { claim, spec } => tuple_of([atom("spec"), Term::Integer(*claim), spec.to_term()]),
        Item::Done { of, part } => tuple_of([atom("done"), dot_term(of), part.to_term()]),
    }
}

pub(super) fn context(from: &Pid, context: &Context) -> Term {
    tagged("context", [Term::from(from), context_term(context)])
}

pub(super) fn seen(from: &Pid, context: &Context) -> Term {
    tagged("seen", [Term::from(from), context_term(context)])
}

pub(super) fn op(from: &Pid, op: &Op) -> Term {
    let item = op.item.as_ref().map_or_else(|| atom("undefined"), item_term);
    let removed = list_of(op.removed.iter().map(dot_term));
    tagged("write", [Term::from(from), number(op.number), item, removed])
}

pub(super) fn state(from: &Pid, context: &Context, live: &[Dot], items: &[(Dot, Item)]) -> Term {
    let items = list_of(items.iter().map(|(dot, item)| tuple_of([dot_term(dot), item_term(item)])));
    tagged("state", [Term::from(from), context_term(context), list_of(live.iter().map(dot_term)), items])
}

pub(super) fn hand_off(from: &Pid, at: u64, child: &Child, dot: &Dot, state: Option<&Term>) -> Term {
    let state = state.map_or_else(|| atom("undefined"), |state| tuple_of([atom("state"), state.clone()]));
    tagged("hand_off", [Term::from(from), number(at), child.to_term(), dot_term(dot), state])
}

pub(super) fn taken(from: &Pid, at: u64) -> Term {
    tagged("taken", [Term::from(from), number(at)])
}

pub(super) fn refused(from: &Pid, at: u64) -> Term {
    tagged("refused", [Term::from(from), number(at)])
}

pub(super) fn migrate(from: &Pid, at: u64, child: &Child, to: &Atom) -> Term {
    tagged("migrate", [Term::from(from), number(at), child.to_term(), Term::from(to)])
}

pub(super) fn migrated(from: &Pid, at: u64, done: bool) -> Term {
    tagged("migrated", [Term::from(from), number(at), atom(if done { "true" } else { "false" })])
}

pub(super) fn restart(id: &Key) -> Term {
    tagged("restart", [id.0.clone()])
}

/// Reads a message of which the first element was `supervisor`.
pub(super) fn read(term: Term) -> Option<Message> {
    let Term::Tuple(elements) = term else { return None };
    let mut elements = elements.into_vec().into_iter().skip(1);
    let tag = elements.next()?.as_atom()?.clone();
    let mut next = || elements.next();
    let message = match tag.as_str() {
        "context" => Message::Context { from: pid(next()?)?, context: context_of(next()?)? },
        "seen" => Message::Seen { from: pid(next()?)?, context: context_of(next()?)? },
        "write" => {
            let (from, number) = (pid(next()?)?, number_of(&next()?)?);
            let item = next()?;
            let item = if item.is_atom("undefined") { None } else { Some(item_of(item)?) };
            let removed = list(next()?)?.into_iter().map(dot_of).collect::<Option<_>>()?;
            Message::Op { from, op: Op { number, item, removed } }
        }
        "state" => {
            let from = pid(next()?)?;
            let context = context_of(next()?)?;
            let live = list(next()?)?.into_iter().map(dot_of).collect::<Option<_>>()?;
            let item = |term| {
                let [dot, item] = crate::message::tuple(term)?;
                Some((dot_of(dot)?, item_of(item)?))
            };
            let items = list(next()?)?.into_iter().map(item).collect::<Option<_>>()?;
            Message::State { from, context, live, items }
        }
        "hand_off" => {
            let (from, number) = (pid(next()?)?, number_of(&next()?)?);
            let (child, dot) = (Child::from_term(&next()?)?, dot_of(next()?)?);
            let state = next()?;
            let state = if state.is_atom("undefined") {
                None
            } else {
                let [tag, state] = crate::message::tuple(state)?;
                Some(tag.is_atom("state").then_some(state)?)
            };
            Message::HandOff { from, number, child, dot, state }
        }
        "taken" => Message::Taken { from: pid(next()?)?, number: number_of(&next()?)? },
        "refused" => Message::Refused { from: pid(next()?)?, number: number_of(&next()?)? },
        "migrate" => Message::Migrate {
            from: pid(next()?)?,
            number: number_of(&next()?)?,
            child: Child::from_term(&next()?)?,
            to: next()?.as_atom()?.clone(),
        },
        "migrated" => {
            Message::Migrated { from: pid(next()?)?, number: number_of(&next()?)?, done: next()?.as_bool()? }
        }
        "restart" => Message::Restart { id: Key(next()?) },
        _ => return None,
    };
    elements.next().is_none().then_some(message)
}

fn pid(term: Term) -> Option<Pid> {
    crate::message::pid(term)
}

fn number_of(term: &Term) -> Option<u64> {
    // One below the greatest, so that the next number exists.
    u64::try_from(term.as_i64()?).ok().filter(|number| *number < i64::MAX as u64)
}

fn dot_of(term: Term) -> Option<Dot> {
    let [by, number] = crate::message::tuple(term)?;
    Some(Dot { by: pid(by)?, number: number_of(&number)? })
}

fn context_of(term: Term) -> Option<Context> {
    let seen = |term| {
        let Dot { by, number } = dot_of(term)?;
        Some((by, number))
    };
    list(term)?.into_iter().map(seen).collect()
}

fn item_of(term: Term) -> Option<Item> {
    let [tag, first, second] = crate::message::tuple(term)?;
    match tag.as_atom()?.as_str() {
        "spec" => {
            let spec = Arc::new(ChildSpec::from_term(&second)?);
            Some(Item::Spec { claim: first.as_i64()?, spec })
        }
        "done" => Some(Item::Done { of: dot_of(first)?, part: Part::from_term(&second)? }),
        _ => None,
    }
}

//! The messages between registries.

use std::sync::Arc;

use foundation_proto::etf::{Atom, Pid, Term};

use super::entry::{Entry, Id, Keys};
use super::held::Scan;
use super::own::Part;
use crate::Key;
use crate::message::{atom, list, list_of, tuple_of};

/// The version of this protocol. Members of another one do not share names.
const VERSION: i64 = 1;

/// What a member says to another.
#[derive(Clone, Debug)]
pub(super) enum Message {
    Hello {
        keys: Keys,
        pid: Pid,
        tag: u64,
    },
    Welcome {
        tag: u64,
        pid: Pid,
        session: u64,
        keys: Keys,
        version: u64,
    },
    Have {
        pid: Pid,
        session: u64,
        version: u64,
        want: Want,
    },
    Writes {
        incarnation: Pid,
        session: u64,
        base: u64,
        to: u64,
        last: bool,
        entries: Vec<Entry>,
        removed: Vec<Id>,
    },
    Scan {
        incarnation: Pid,
        scan: Scan,
        to: u64,
        entries: Vec<Entry>,
    },
    Head {
        incarnation: Pid,
        version: u64,
    },
    Unknown {
        session: u64,
    },
    Call {
        from: Term,
        request: Term,
    },
}

/// What a member that tells what it has wants to hear.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Want {
    /// Nothing: it acknowledges.
    Nothing,
    /// What was written since.
    Writes,
    /// The rest of a scan.
    Rest(Scan),
}

fn number(number: u64) -> Term {
    // Versions count single writes: none comes near 2⁶³.
    Term::Integer(i64::try_from(number).unwrap_or(i64::MAX))
}

fn keys(keys: Keys) -> Term {
    atom(keys.text())
}

pub(super) fn hello(keys_: Keys, pid: &Pid, tag: u64) -> Term {
    tuple_of([atom("hello"), Term::Integer(VERSION), keys(keys_), Term::from(pid), number(tag)])
}

pub(super) fn welcome(tag: u64, pid: &Pid, session: u64, keys_: Keys, version: u64) -> Term {
    tuple_of([
        atom("welcome"),
        Term::Integer(VERSION),
        number(tag),
        Term::from(pid),
        number(session),
        keys(keys_),
        number(version),
    ])
}

pub(super) fn have(pid: &Pid, session: u64, version: u64, want: Want) -> Term {
    let want = match want {
        Want::Nothing => atom("false"),
        Want::Writes => atom("true"),
        Want::Rest(scan) => tuple_of([number(scan.upto), number(scan.at)]),
    };
    tuple_of([atom("have"), Term::from(pid), number(session), number(version), want])
}

/// `session` is 0 in what goes to several members.
pub(super) fn writes(incarnation: &Pid, session: u64, base: u64, part: &Part, last: bool) -> Term {
    let Part { entries, removed, to } = part;
    tuple_of([
        atom("writes"),
        Term::from(incarnation),
        number(session),
        number(base),
        number(*to),
        atom(if last { "true" } else { "false" }),
        list_of(entries.iter().map(|entry| entry_term(entry))),
        list_of(removed.iter().map(|id| match &id.pid {
            Some(pid) => tuple_of([id.key.0.clone(), Term::from(pid)]),
            None => tuple_of([id.key.0.clone()]),
        })),
    ])
}

pub(super) fn scan(incarnation: &Pid, scan: Scan, to: u64, entries: &[Arc<Entry>]) -> Term {
    tuple_of([
        atom("scan"),
        Term::from(incarnation),
        number(scan.upto),
        number(scan.at),
        number(to),
        list_of(entries.iter().map(|entry| entry_term(entry))),
    ])
}

pub(super) fn head(incarnation: &Pid, version: u64) -> Term {
    tuple_of([atom("head"), Term::from(incarnation), number(version)])
}

pub(super) fn unknown(session: u64) -> Term {
    tuple_of([atom("unknown"), number(session)])
}

fn entry_term(entry: &Entry) -> Term {
    tuple_of([
        entry.key.0.clone(),
        Term::from(&entry.pid),
        entry.value.clone(),
        Term::Integer(entry.claim),
        number(entry.version),
    ])
}

/// Reads a message; `None` if it is none of the protocol's, or of another version of it.
pub(super) fn read(term: Term) -> Option<Message> {
    let Term::Tuple(elements) = term else { return None };
    let elements = elements.into_vec();
    let Some(Term::Atom(tag)) = elements.first() else { return None };
    let tag = tag.clone();
    let mut rest = elements.into_iter().skip(1);
    let mut next = || rest.next();
    let message = match tag.as_str() {
        "$gen_call" => Message::Call { from: next()?, request: next()? },
        "hello" => {
            version_of(next()?)?;
            Message::Hello { keys: keys_of(next()?)?, pid: pid_of(next()?)?, tag: number_of(next()?)? }
        }
        "welcome" => {
            version_of(next()?)?;
            Message::Welcome {
                tag: number_of(next()?)?,
                pid: pid_of(next()?)?,
                session: number_of(next()?)?,
                keys: keys_of(next()?)?,
                version: number_of(next()?)?,
            }
        }
        "have" => Message::Have {
            pid: pid_of(next()?)?,
            session: number_of(next()?)?,
            version: number_of(next()?)?,
            want: want_of(next()?)?,
        },
        "writes" => {
            let incarnation = pid_of(next()?)?;
            let session = number_of(next()?)?;
            let (base, to) = (number_of(next()?)?, number_of(next()?)?);
            let last = next()?.as_bool()?;
            let entries = entries_of(next()?, &incarnation.node)?;
            let removed = list(next()?)?.into_iter().map(id_of).collect::<Option<_>>()?;
            Message::Writes { incarnation, session, base, to, last, entries, removed }
        }
        "scan" => {
            let incarnation = pid_of(next()?)?;
            let scan = Scan { upto: number_of(next()?)?, at: number_of(next()?)? };
            let to = number_of(next()?)?;
            let entries = entries_of(next()?, &incarnation.node)?;
            Message::Scan { incarnation, scan, to, entries }
        }
        "head" => Message::Head { incarnation: pid_of(next()?)?, version: number_of(next()?)? },
        "unknown" => Message::Unknown { session: number_of(next()?)? },
        _ => return None,
    };
    next().is_none().then_some(message)
}

fn version_of(term: Term) -> Option<()> {
    (term.as_i64()? == VERSION).then_some(())
}

fn number_of(term: Term) -> Option<u64> {
    // One below the greatest, so that the next number exists.
    u64::try_from(term.as_i64()?).ok().filter(|number| *number < i64::MAX as u64)
}

fn pid_of(term: Term) -> Option<Pid> {
    crate::message::pid(term)
}

fn keys_of(term: Term) -> Option<Keys> {
    [Keys::Unique, Keys::Duplicate].into_iter().find(|keys| term.is_atom(keys.text()))
}

fn want_of(term: Term) -> Option<Want> {
    if let Some(wanted) = term.as_bool() {
        return Some(if wanted { Want::Writes } else { Want::Nothing });
    }
    let [upto, at] = crate::message::tuple(term)?;
    Some(Want::Rest(Scan { upto: number_of(upto)?, at: number_of(at)? }))
}

fn entries_of(term: Term, node: &Atom) -> Option<Vec<Entry>> {
    let entry = |term| {
        let [key, pid, value, claim, version] = crate::message::tuple(term)?;
        Some(Entry {
            key: Arc::new(Key(key)),
            pid: pid_of(pid)?,
            value,
            node: node.clone(),
            claim: claim.as_i64()?,
            version: number_of(version)?,
        })
    };
    list(term)?.into_iter().map(entry).collect()
}

fn id_of(term: Term) -> Option<Id> {
    let Term::Tuple(elements) = term else { return None };
    let mut elements = elements.into_vec().into_iter();
    let key = Arc::new(Key(elements.next()?));
    let pid = match elements.next() {
        Some(pid) => Some(pid_of(pid)?),
        None => None,
    };
    elements.next().is_none().then_some(Id { key, pid })
}

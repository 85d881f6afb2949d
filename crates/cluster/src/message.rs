//! Small words for taking messages apart and putting them together.

use foundation_proto::etf::{Atom, Pid, Term};

/// The elements of a tuple of exactly `N`.
pub(crate) fn tuple<const N: usize>(term: Term) -> Option<[Term; N]> {
    match term {
        Term::Tuple(elements) => elements.into_vec().try_into().ok(),
        _ => None,
    }
}

/// The elements of a proper list.
pub(crate) fn list(term: Term) -> Option<Vec<Term>> {
    match term {
        Term::List(elements) => Some(elements.into_vec()),
        _ => None,
    }
}

/// A pid.
pub(crate) fn pid(term: Term) -> Option<Pid> {
    match term {
        Term::Pid(pid) => Some(pid),
        _ => None,
    }
}

/// A list of pids; `None` if anything else is in it.
pub(crate) fn pids(term: Term) -> Option<Vec<Pid>> {
    list(term)?.into_iter().map(pid).collect()
}

/// One pid, or a list of pids.
pub(crate) fn pid_or_pids(term: Term) -> Option<Vec<Pid>> {
    match term {
        Term::Pid(pid) => Some(vec![pid]),
        other => pids(other),
    }
}

/// An atom of the program.
pub(crate) fn atom(text: &'static str) -> Term {
    Term::Atom(Atom::new_static(text))
}

/// A tuple.
pub(crate) fn tuple_of<const N: usize>(elements: [Term; N]) -> Term {
    Term::Tuple(Vec::from(elements).into())
}

/// A proper list.
pub(crate) fn list_of(elements: impl IntoIterator<Item = Term>) -> Term {
    Term::List(elements.into_iter().collect())
}

/// What `gen_server:cast/2` sends.
pub(crate) fn cast(message: Term) -> Term {
    tuple_of([atom("$gen_cast"), message])
}

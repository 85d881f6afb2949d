use core::fmt;

use foundation_proto::etf::{Atom, AtomRef, RawTerm, Tape, Term};
use foundation_proto::{Error, Limits};

/// Why a process ended, or is told to.
///
/// Most reasons are atoms that mean something to the runtime (`normal`, `kill`, `noproc`, …); any other term stays encoded
/// until somebody looks inside.
#[derive(Clone, Debug)]
pub enum Reason {
    /// An atom.
    Atom(Atom),
    /// Any other term.
    Term(RawTerm),
}

impl Reason {
    /// The process has done its work. Links of processes that do not trap exits ignore it.
    pub const NORMAL: Self = Self::Atom(Atom::new_static("normal"));
    /// As the reason of `exit/2`: end at once, trapping or not.
    pub const KILL: Self = Self::Atom(Atom::new_static("kill"));
    /// The process was ended by `kill`.
    pub const KILLED: Self = Self::Atom(Atom::new_static("killed"));
    /// An orderly stop asked for by a supervisor.
    pub const SHUTDOWN: Self = Self::Atom(Atom::new_static("shutdown"));
    /// There is no such process.
    pub const NOPROC: Self = Self::Atom(Atom::new_static("noproc"));
    /// The connection to the node of the process was lost, or could not be made.
    pub const NOCONNECTION: Self = Self::Atom(Atom::new_static("noconnection"));
    /// A remote spawn succeeded after nobody waited for it any more.
    pub(crate) const ABANDONED: Self = Self::Atom(Atom::new_static("abandoned"));

    /// Whether the reason is this atom.
    pub fn is(&self, atom: &str) -> bool {
        matches!(self, Self::Atom(reason) if reason == atom)
    }

    /// The reason of a received signal.
    pub(crate) fn from_raw(raw: RawTerm) -> Self {
        let mut tape = Tape::new();
        let atom = raw.view(&mut tape).ok().and_then(|view| view.as_atom()).map(AtomRef::to_atom);
        match atom {
            Some(atom) => Self::Atom(atom),
            None => Self::Term(raw),
        }
    }

    /// The reason as it is sent.
    pub fn to_raw(&self) -> RawTerm {
        match self {
            Self::Atom(atom) => match RawTerm::from_term(&Term::Atom(atom.clone())) {
                Ok(raw) => raw,
                Err(_) => unreachable!("every atom can be encoded"),
            },
            Self::Term(raw) => raw.clone(),
        }
    }

    /// The reason as a term.
    ///
    /// # Errors
    /// If it exceeds the limits.
    pub fn to_term(&self, limits: &Limits) -> Result<Term, Error> {
        match self {
            Self::Atom(atom) => Ok(Term::Atom(atom.clone())),
            Self::Term(raw) => raw.to_term(limits),
        }
    }

    /// Bytes that it occupies beside itself.
    pub(crate) fn encoded_len(&self) -> usize {
        match self {
            Self::Atom(_) => 0,
            Self::Term(raw) => raw.as_bytes().len(),
        }
    }
}

impl From<Atom> for Reason {
    fn from(atom: Atom) -> Self {
        Self::Atom(atom)
    }
}

impl From<Term> for Reason {
    fn from(term: Term) -> Self {
        match term {
            Term::Atom(atom) => Self::Atom(atom),
            // What cannot be encoded could not be sent either.
            term => RawTerm::from_term(&term).map_or_else(|_| Self::from("badarg"), Self::Term),
        }
    }
}

impl From<&'static str> for Reason {
    /// The atom of this text.
    fn from(atom: &'static str) -> Self {
        match Atom::new(atom) {
            Ok(atom) => Self::Atom(atom),
            Err(_) => Self::Atom(Atom::new_static("badarg")),
        }
    }
}

impl PartialEq for Reason {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Atom(a), Self::Atom(b)) => a == b,
            _ => {
                let limits = Limits::default();
                matches!((self.to_term(&limits), other.to_term(&limits)), (Ok(a), Ok(b)) if a == b)
            }
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Atom(atom) => f.write_str(atom.as_str()),
            Self::Term(raw) => match raw.to_term(&Limits::default()) {
                Ok(term) => write!(f, "{term:?}"),
                Err(error) => write!(f, "unreadable reason ({error})"),
            },
        }
    }
}

use foundation_proto::etf::serde::from_raw;
use foundation_proto::etf::{Atom, Pid, RawTerm, Reference, Term};
use foundation_proto::{Error, Limits};
use serde::de::DeserializeOwned;

use super::reason::Reason;

/// What a process receives.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Message {
    /// An ordinary message, still encoded.
    Term(RawTerm),
    /// `{'EXIT', From, Reason}`: an exit signal that the process traps.
    Exit(Box<Exit>),
    /// `{'DOWN', Ref, process, Object, Reason}`: a process that is monitored has ended.
    Down(Box<Down>),
}

/// A linked process has ended, or one has called `exit/2`.
#[derive(Clone, Debug)]
pub struct Exit {
    /// The process that ended, or that called `exit/2`.
    pub from: Pid,
    /// Why.
    pub reason: Reason,
}

/// A monitored process has ended, could not be found, or cannot be reached any more.
#[derive(Clone, Debug)]
pub struct Down {
    /// What `monitor` returned.
    pub reference: Reference,
    /// What was monitored.
    pub object: Monitored,
    /// Why it ended; `noproc` if it did not exist, `noconnection` if its node is out of reach.
    pub reason: Reason,
}

/// What a monitor watches, in the form it was asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Monitored {
    /// A process.
    Pid(Pid),
    /// A registered name on a node.
    Name {
        /// The name.
        name: Atom,
        /// The node.
        node: Atom,
    },
}

impl Message {
    /// The message as the term that an Erlang process would receive.
    ///
    /// # Errors
    /// If it exceeds the limits.
    pub fn to_term(&self, limits: &Limits) -> Result<Term, Error> {
        Ok(match self {
            Self::Term(raw) => return raw.to_term(limits),
            Self::Exit(exit) => tuple([
                Term::Atom(Atom::new_static("EXIT")),
                Term::Pid(exit.from.clone()),
                exit.reason.to_term(limits)?,
            ]),
            Self::Down(down) => tuple([
                Term::Atom(Atom::new_static("DOWN")),
                Term::Reference(Box::new(down.reference.clone())),
                Term::Atom(Atom::new_static("process")),
                match &down.object {
                    Monitored::Pid(pid) => Term::Pid(pid.clone()),
                    Monitored::Name { name, node } => {
                        tuple([Term::Atom(name.clone()), Term::Atom(node.clone())])
                    }
                },
                down.reason.to_term(limits)?,
            ]),
        })
    }

    /// The message as a value of a type: anything that serde knows.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] if it is not an ordinary one; else what does not fit.
    pub fn to_value<T: DeserializeOwned>(&self) -> crate::error::Result<T> {
        match self {
            Self::Term(raw) => Ok(from_raw(raw)?),
            _ => Err(Error::ApiMisuse("only ordinary messages are values").into()),
        }
    }

    /// The encoded message, if it is an ordinary one.
    pub fn as_raw(&self) -> Option<&RawTerm> {
        match self {
            Self::Term(raw) => Some(raw),
            _ => None,
        }
    }

    /// Bytes of encoded terms in it.
    #[inline]
    pub(crate) fn encoded_len(&self) -> usize {
        match self {
            Self::Term(raw) => raw.as_bytes().len(),
            Self::Exit(exit) => exit.reason.encoded_len(),
            Self::Down(down) => down.reason.encoded_len(),
        }
    }
}

fn tuple<const N: usize>(elements: [Term; N]) -> Term {
    Term::Tuple(elements.into_iter().collect())
}

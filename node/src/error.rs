//! What can go wrong with a process, a call or a node, in types.

use core::fmt;

use foundation_cluster::tracker::TrackError;
use foundation_proto::etf::{Atom, Term};

use crate::process::Reason;

/// The result of what can fail here.
pub type Result<T, E = Error> = core::result::Result<T, E>;

/// What went wrong, and what it means for the caller.
///
/// | variant | Erlang says | does a retry help? |
/// |---|---|---|
/// | [`Error::NoProc`] | `noproc` | once somebody starts it |
/// | [`Error::NoConnection`] | `noconnection` | once the node is in reach |
/// | [`Error::Timeout`] | `timeout` | perhaps; whether the request was served is unknown |
/// | [`Error::Exit`] | the reason | that depends on the reason |
/// | [`Error::Exited`] | – | no: the process in whose name this was done has ended |
/// | [`Error::Raised`] | the class and reason | that depends on the function |
/// | [`Error::Erpc`] | `{erpc, Reason}` | no |
/// | [`Error::Spawn`] | the atom | no, but for `system_limit` |
/// | [`Error::NameTaken`] | `badarg` | once the other has ended |
/// | [`Error::Full`] | `nosuspend` | yes, later |
/// | [`Error::SystemLimit`] | `system_limit` | once processes have ended, or keys are gone |
/// | [`Error::NotMember`] | – | once this node is a member again |
/// | [`Error::Track`] | `{already_tracked, …}`, `nopresence`, `badarg` | no |
/// | [`Error::Term`], [`Error::Value`] | `badarg` | no |
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// There is no such process.
    NoProc,
    /// There is no connection to the node and none can be made, or it was lost before the answer came.
    NoConnection {
        /// The node.
        node: Atom,
        /// What stood in the way, if that is known.
        why: Option<String>,
    },
    /// No answer came in time. A late one is dropped; it never appears in a mailbox.
    Timeout,
    /// The process that was asked ended before it answered.
    Exit(Reason),
    /// The process in whose name this was done has ended.
    Exited(Reason),
    /// A remote function raised.
    Raised(Box<Raised>),
    /// The remote call could not be carried out: the `Reason` of OTP's `{erpc, Reason}`.
    Erpc(Atom),
    /// The other node refused to start a process: `notsup`, `badopt`, `system_limit`, ….
    Spawn(Atom),
    /// The name belongs to another process, or the process has one.
    NameTaken(Atom),
    /// The receiver, or the connection to it, can take no more now, and the caller did not want to wait.
    Full,
    /// The node has as many processes as it may have, or a map or registry as many keys.
    SystemLimit,
    /// This node is no member of the registry: it has left it.
    NotMember,
    /// A presence could not be tracked or changed.
    Track(TrackError),
    /// A term could not be read or written.
    Term(foundation_proto::Error),
    /// A value has no term, or a term is not the value that was asked for.
    Value(foundation_proto::etf::serde::Error),
}

/// An exception of Erlang that reached the caller of a remote function.
#[derive(Clone, Debug, PartialEq)]
pub struct Raised {
    /// How it was raised.
    pub class: Class,
    /// What was raised.
    pub reason: Term,
    /// The stack trace as Erlang writes it, `[]` for other classes than [`Class::Error`].
    pub stack: Term,
}

/// The class of an exception.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Class {
    /// `erlang:error/1`.
    Error,
    /// `exit/1`.
    Exit,
    /// `throw/1`.
    Throw,
}

impl Error {
    pub(crate) fn no_connection(node: &Atom) -> Self {
        Self::NoConnection { node: node.clone(), why: None }
    }

    /// What a call makes of the reason in a `DOWN`.
    pub(crate) fn from_down(reason: Reason, node: &Atom) -> Self {
        if reason.is("noproc") {
            Self::NoProc
        } else if reason.is("noconnection") {
            Self::no_connection(node)
        } else {
            Self::Exit(reason)
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoProc => f.write_str("noproc: there is no such process"),
            Self::NoConnection { node, why } => {
                write!(f, "noconnection: node {} is out of reach", node.as_str())?;
                why.iter().try_for_each(|why| write!(f, " ({why})"))
            }
            Self::Timeout => f.write_str("timeout: no answer came in time"),
            Self::Exit(reason) => write!(f, "the process that was asked ended: {reason}"),
            Self::Exited(reason) => write!(f, "the calling process has ended: {reason}"),
            Self::Raised(raised) => {
                let class = match raised.class {
                    Class::Error => "error",
                    Class::Exit => "exit",
                    Class::Throw => "throw",
                };
                write!(f, "the function raised {class}: {:?}", raised.reason)
            }
            Self::Erpc(reason) => write!(f, "the remote call could not be carried out: {}", reason.as_str()),
            Self::Spawn(reason) => write!(f, "the node refused to start a process: {}", reason.as_str()),
            Self::NameTaken(name) => write!(f, "the name {} is taken", name.as_str()),
            Self::Full => f.write_str("the receiver can take no more now"),
            Self::SystemLimit => {
                f.write_str("system_limit: too many processes, or keys of a map or registry")
            }
            Self::NotMember => f.write_str("this node is no member of the registry: name the members again"),
            Self::Track(error) => error.fmt(f),
            Self::Term(error) => error.fmt(f),
            Self::Value(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for Error {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Track(error) => Some(error),
            Self::Term(error) => Some(error),
            Self::Value(error) => Some(error),
            _ => None,
        }
    }
}

impl From<foundation_proto::Error> for Error {
    fn from(error: foundation_proto::Error) -> Self {
        Self::Term(error)
    }
}

impl From<foundation_proto::etf::serde::Error> for Error {
    fn from(error: foundation_proto::etf::serde::Error) -> Self {
        Self::Value(error)
    }
}

impl From<TrackError> for Error {
    fn from(error: TrackError) -> Self {
        Self::Track(error)
    }
}

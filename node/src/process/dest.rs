use foundation_proto::etf::{Atom, Pid, Reference};

/// Where a message can go.
///
/// Made from a [`Pid`], a name on this node (`"worker"` or an [`Atom`]), a name on another (`("worker", "app@host")`) or an alias.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Dest {
    /// To a process.
    Pid(Pid),
    /// To a registered name of this node.
    Name(Atom),
    /// To a registered name of a node.
    Remote {
        /// The name.
        name: Atom,
        /// The node.
        node: Atom,
    },
    /// To an alias. It says itself which node made it.
    Alias(Reference),
    /// A name or node of more than 255 characters: nobody can have it.
    Nobody,
}

/// What [`Handle::send`](super::Handle::send) sends to: everything that a [`Dest`] is made from. A pid is only borrowed, because copying
/// it costs more than most of what else is done for a small message.
pub trait Recipient: Into<Dest> {
    /// The pid, if it is one.
    #[inline]
    fn as_pid(&self) -> Option<&Pid> {
        None
    }
}

impl Recipient for &Pid {
    #[inline]
    fn as_pid(&self) -> Option<&Pid> {
        Some(self)
    }
}

impl Recipient for Pid {
    #[inline]
    fn as_pid(&self) -> Option<&Pid> {
        Some(self)
    }
}

impl Recipient for Dest {
    #[inline]
    fn as_pid(&self) -> Option<&Pid> {
        match self {
            Self::Pid(pid) => Some(pid),
            _ => None,
        }
    }
}

impl Recipient for Atom {}
impl Recipient for &str {}
impl Recipient for (Atom, Atom) {}
impl Recipient for (&str, &str) {}
impl Recipient for (&str, &Atom) {}
impl Recipient for Reference {}
impl Recipient for &Reference {}

impl From<Pid> for Dest {
    fn from(pid: Pid) -> Self {
        Self::Pid(pid)
    }
}

impl From<&Pid> for Dest {
    #[inline]
    fn from(pid: &Pid) -> Self {
        Self::Pid(pid.clone())
    }
}

impl From<Atom> for Dest {
    fn from(name: Atom) -> Self {
        Self::Name(name)
    }
}

impl From<&str> for Dest {
    fn from(name: &str) -> Self {
        Atom::new(name).map_or(Self::Nobody, Self::Name)
    }
}

impl From<(Atom, Atom)> for Dest {
    fn from((name, node): (Atom, Atom)) -> Self {
        Self::Remote { name, node }
    }
}

impl From<(&str, &str)> for Dest {
    fn from((name, node): (&str, &str)) -> Self {
        match (Atom::new(name), Atom::new(node)) {
            (Ok(name), Ok(node)) => Self::Remote { name, node },
            _ => Self::Nobody,
        }
    }
}

impl From<(&str, &Atom)> for Dest {
    fn from((name, node): (&str, &Atom)) -> Self {
        Atom::new(name).map_or(Self::Nobody, |name| Self::Remote { name, node: node.clone() })
    }
}

impl From<Reference> for Dest {
    fn from(alias: Reference) -> Self {
        Self::Alias(alias)
    }
}

impl From<&Reference> for Dest {
    fn from(alias: &Reference) -> Self {
        Self::Alias(alias.clone())
    }
}

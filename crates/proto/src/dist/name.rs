//! Node names.

use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};
use core::net::IpAddr;
use core::str::FromStr;

use crate::etf::Atom;

/// The name of a node: `alive@host`.
///
/// The rules are those of `erlang:setnode/2` (`is_node_name` in `erl_dist.c`): one `@`; before it at least one character
/// and only letters and digits of ASCII, `_` and `-`; after it anything but nothing; at most 255 characters in all. Control
/// characters and white space in the host are refused as well: a name is printed in logs before its owner has proved
/// anything.
///
/// Comparison is Erlang's order of atoms; it decides which of two simultaneous connections survives.
#[derive(Clone)]
pub struct NodeName {
    atom: Atom,
    /// The byte offset of the `@`.
    at: u8,
}

/// What is wrong with a node name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum NodeNameError {
    /// No `@`.
    NoHost,
    /// Nothing before the `@`.
    EmptyAlive,
    /// Nothing after the `@`.
    EmptyHost,
    /// A character before the `@` other than letters, digits, `_` and `-`.
    BadAliveCharacter(char),
    /// An `@`, white space or a control character in the host.
    BadHostCharacter(char),
    /// More than 255 characters.
    TooLong,
}

/// How the nodes of a cluster are named. A BEAM with the one style does not dial names of the other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NameStyle {
    /// `-sname`: hosts without a dot.
    Short,
    /// `-name`: hosts with a dot, or an IP address.
    Long,
}

impl NodeName {
    /// The most characters a name can have: it is an atom.
    pub const MAX_CHARACTERS: usize = Atom::MAX_CHARACTERS;

    /// A name from its whole text.
    ///
    /// # Errors
    /// If the text breaks a rule of node names.
    pub fn parse(name: &str) -> Result<Self, NodeNameError> {
        let (alive, host) = name.split_once('@').ok_or(NodeNameError::NoHost)?;
        check_alive(alive)?;
        check_host(host)?;
        let atom = Atom::new(name).map_err(|_| NodeNameError::TooLong)?;
        // Everything before the `@` is ASCII, so its bytes are among the 255 characters.
        let at = u8::try_from(alive.len()).map_err(|_| NodeNameError::TooLong)?;
        Ok(Self { atom, at })
    }

    /// The name `alive@host`.
    ///
    /// # Errors
    /// If a part breaks a rule of node names.
    pub fn new(alive: &str, host: &str) -> Result<Self, NodeNameError> {
        check_alive(alive)?;
        check_host(host)?;
        Self::parse(&format!("{alive}@{host}"))
    }

    /// The part before the `@`: what is registered in EPMD.
    pub fn alive(&self) -> &str {
        self.as_str().get(..usize::from(self.at)).unwrap_or_default()
    }

    /// The part after the `@`.
    pub fn host(&self) -> &str {
        self.as_str().get(usize::from(self.at) + 1..).unwrap_or_default()
    }

    /// The host as an IP address, if it is one. IPv6 addresses are written without brackets.
    pub fn host_ip(&self) -> Option<IpAddr> {
        self.host().parse().ok()
    }

    /// The whole name.
    pub fn as_str(&self) -> &str {
        self.atom.as_str()
    }

    /// The name as the atom that pids and signals carry.
    pub fn as_atom(&self) -> &Atom {
        &self.atom
    }

    /// The style that the name itself has.
    pub fn style(&self) -> NameStyle {
        if self.host().contains('.') || self.host_ip().is_some() { NameStyle::Long } else { NameStyle::Short }
    }

    /// Whether a BEAM whose own name has `style` agrees to dial this name.
    ///
    /// An IPv6 address has no dot and parses as an address, so both do.
    pub fn is_dialled_by(&self, style: NameStyle) -> bool {
        match style {
            NameStyle::Short => !self.host().contains('.'),
            NameStyle::Long => self.style() == NameStyle::Long,
        }
    }
}

/// Checks the part before the `@`.
///
/// # Errors
/// If it is empty or has another character than ASCII letters, digits, `_` and `-`.
pub fn check_alive(alive: &str) -> Result<(), NodeNameError> {
    if alive.is_empty() {
        return Err(NodeNameError::EmptyAlive);
    }
    match alive.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))) {
        Some(bad) => Err(NodeNameError::BadAliveCharacter(bad)),
        None => Ok(()),
    }
}

/// Checks the part after the `@`.
///
/// # Errors
/// If it is empty, too long for a name, or has an `@`, white space or a control character.
pub fn check_host(host: &str) -> Result<(), NodeNameError> {
    if host.is_empty() {
        return Err(NodeNameError::EmptyHost);
    }
    if let Some(bad) = host.chars().find(|c| *c == '@' || c.is_whitespace() || c.is_control()) {
        return Err(NodeNameError::BadHostCharacter(bad));
    }
    // Room for the `@` and one character before it.
    if host.chars().count() > NodeName::MAX_CHARACTERS - 2 { Err(NodeNameError::TooLong) } else { Ok(()) }
}

impl FromStr for NodeName {
    type Err = NodeNameError;

    fn from_str(name: &str) -> Result<Self, NodeNameError> {
        Self::parse(name)
    }
}

impl TryFrom<&Atom> for NodeName {
    type Error = NodeNameError;

    fn try_from(name: &Atom) -> Result<Self, NodeNameError> {
        Self::parse(name.as_str())
    }
}

impl From<NodeName> for Atom {
    fn from(name: NodeName) -> Self {
        name.atom
    }
}

impl PartialEq for NodeName {
    fn eq(&self, other: &Self) -> bool {
        self.atom == other.atom
    }
}

impl Eq for NodeName {}

impl PartialOrd for NodeName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for NodeName {
    fn cmp(&self, other: &Self) -> Ordering {
        self.atom.cmp(&other.atom)
    }
}

impl Hash for NodeName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.atom.hash(state);
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeName({})", self.as_str())
    }
}

impl fmt::Display for NodeNameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHost => f.write_str("a node name has the form name@host"),
            Self::EmptyAlive => f.write_str("nothing before the @ of the node name"),
            Self::EmptyHost => f.write_str("nothing after the @ of the node name"),
            Self::BadAliveCharacter(c) => {
                write!(f, "{c:?} in the name of a node: letters, digits, _ and - are allowed before the @")
            }
            Self::BadHostCharacter(c) => write!(f, "{c:?} in the host of a node name"),
            Self::TooLong => f.write_str("a node name has at most 255 characters"),
        }
    }
}

impl core::error::Error for NodeNameError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_name() {
        for (name, alive, host, ip, style) in [
            ("a@b", "a", "b", None, NameStyle::Short),
            ("rusty-1_X@box.example.org", "rusty-1_X", "box.example.org", None, NameStyle::Long),
            ("py@127.0.0.1", "py", "127.0.0.1", Some("127.0.0.1"), NameStyle::Long),
            ("n@fdaa:0:1::3", "n", "fdaa:0:1::3", Some("fdaa:0:1::3"), NameStyle::Long),
            ("n@::1", "n", "::1", Some("::1"), NameStyle::Long),
            ("n@hôte", "n", "hôte", None, NameStyle::Short),
        ] {
            let parsed = NodeName::parse(name).unwrap();
            assert_eq!((parsed.alive(), parsed.host()), (alive, host));
            assert_eq!(parsed.host_ip(), ip.map(|ip| ip.parse().unwrap()));
            assert_eq!(parsed.style(), style);
            assert_eq!(NodeName::new(alive, host).unwrap(), parsed);
            assert_eq!(parsed.to_string(), name);
        }
    }

    #[test]
    fn names_that_break_a_rule() {
        for (name, error) in [
            ("", NodeNameError::NoHost),
            ("rusty", NodeNameError::NoHost),
            ("@host", NodeNameError::EmptyAlive),
            ("rusty@", NodeNameError::EmptyHost),
            ("a@b@c", NodeNameError::BadHostCharacter('@')),
            ("a b@c", NodeNameError::BadAliveCharacter(' ')),
            ("a.b@c", NodeNameError::BadAliveCharacter('.')),
            ("å@c", NodeNameError::BadAliveCharacter('å')),
            ("a@b\u{1b}[31m", NodeNameError::BadHostCharacter('\u{1b}')),
            ("a@b\n", NodeNameError::BadHostCharacter('\n')),
            ("a@b\0", NodeNameError::BadHostCharacter('\0')),
        ] {
            assert_eq!(NodeName::parse(name).unwrap_err(), error, "{name:?}");
        }
    }

    #[test]
    fn the_whole_name_has_at_most_255_characters() {
        assert!(NodeName::new(&"a".repeat(253), "h").is_ok());
        assert!(NodeName::new("a", &"ö".repeat(253)).is_ok());
        assert_eq!(NodeName::new(&"a".repeat(254), "h").unwrap_err(), NodeNameError::TooLong);
        assert_eq!(NodeName::new(&"a".repeat(10_000), "h").unwrap_err(), NodeNameError::TooLong);
        assert_eq!(NodeName::new("a", &"h".repeat(254)).unwrap_err(), NodeNameError::TooLong);
        assert_eq!(NodeName::new("a@b", "c").unwrap_err(), NodeNameError::BadAliveCharacter('@'));
    }

    #[test]
    fn who_dials_whom() {
        for (name, short, long) in [
            ("a@b", true, false),
            ("a@b.c", false, true),
            ("a@127.0.0.1", false, true),
            ("a@::1", true, true),
        ] {
            let name = NodeName::parse(name).unwrap();
            assert_eq!(name.is_dialled_by(NameStyle::Short), short, "{name}");
            assert_eq!(name.is_dialled_by(NameStyle::Long), long, "{name}");
        }
    }

    #[test]
    fn names_compare_as_atoms() {
        let name = |text| NodeName::parse(text).unwrap();
        assert!(name("aaa@h") < name("n25@h"));
        assert!(name("zzz@h") > name("n25@h"));
        assert!(name("a@h") < name("a@hh"));
    }
}

//! Which of the names that a source reports may be dialled.
//!
//! Whoever lures a node into dialling learns a digest of its cookie, and can pass the challenge of another node on to it. So
//! a name from a source that anybody can write to is only dialled if an entry of this list allows it.
//!
//! | entry | allows |
//! |---|---|
//! | `*` | everything |
//! | `app@host` | this node |
//! | `app@` | this name on every host |
//! | `@host`, `host` | every name on this host |
//! | `*.example.com`, `app@*.example.com` | hosts that end so |
//! | `10.0.0.0/8`, `fd00::/8`, `192.0.2.1`, `app@10.0.0.0/8` | hosts all of whose addresses are in this network |

use core::fmt;
use core::net::IpAddr;

use foundation_proto::dist::NodeName;

/// An ordered list of entries; one that matches is enough.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AllowList(Vec<Entry>);

#[derive(Clone, Debug, Eq, PartialEq)]
struct Entry {
    alive: Option<String>,
    place: Place,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Place {
    Anywhere,
    Host(String),
    /// With its leading dot.
    Suffix(String),
    Network(Network),
}

/// A range of addresses: `10.0.0.0/8`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// An entry that means nothing.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AllowError {
    /// What was written.
    pub entry: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl fmt::Display for AllowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is no entry of an allow-list: {}; write app@host, app@, host, *.example.com or a network as 10.0.0.0/8",
            self.entry, self.why
        )
    }
}

impl core::error::Error for AllowError {}

impl Network {
    /// The network of this prefix length that an address is in; `None` if the address has not so many bits.
    pub fn new(address: IpAddr, prefix: u8) -> Option<Self> {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        (prefix <= bits).then_some(Self { address, prefix })
    }

    /// Reads `10.0.0.0/8`, or an address alone.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once('/') {
            None => {
                let address: IpAddr = text.parse().ok()?;
                Self::new(address, if address.is_ipv4() { 32 } else { 128 })
            }
            Some((address, prefix)) => Self::new(address.parse().ok()?, prefix.parse().ok()?),
        }
    }

    /// Whether an address is in it.
    pub fn contains(&self, address: &IpAddr) -> bool {
        let differs = match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                u128::from(own.to_bits() ^ other.to_bits()).checked_shl(96).unwrap_or(0)
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => own.to_bits() ^ other.to_bits(),
            _ => return false,
        };
        differs.checked_shr(128 - u32::from(self.prefix)).unwrap_or(0) == 0
    }
}

impl AllowList {
    /// Nothing is allowed.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the entries.
    ///
    /// # Errors
    /// The first entry that means nothing.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, AllowError> {
        let mut list = Self::new();
        for entry in entries {
            list.add(entry)?;
        }
        Ok(list)
    }

    /// Adds one entry.
    ///
    /// # Errors
    /// If it means nothing.
    pub fn add(&mut self, entry: &str) -> Result<(), AllowError> {
        self.0.push(Entry::parse(entry)?);
        Ok(())
    }

    /// Allows every name whose host has only addresses of this network.
    pub fn add_network(&mut self, network: Network) {
        self.0.push(Entry { alive: None, place: Place::Network(network) });
    }

    /// Whether nothing is allowed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a node may be dialled whose host part leads to these addresses.
    pub fn allows(&self, node: &NodeName, addresses: &[IpAddr]) -> bool {
        self.0.iter().any(|entry| entry.allows(node, addresses))
    }
}

impl Entry {
    fn parse(entry: &str) -> Result<Self, AllowError> {
        let refuse = |why| Err(AllowError { entry: entry.to_owned(), why });
        let text = entry.trim();
        if text.is_empty() {
            return refuse("it is empty");
        }
        if text.contains(char::is_whitespace) {
            return refuse("it has a space in it");
        }
        let (alive, place) = text.split_once('@').map_or(("", text), |(alive, place)| (alive, place));
        let alive = (!alive.is_empty() && alive != "*").then(|| alive.to_owned());
        let place = match place {
            "" if alive.is_none() => return refuse("it names neither a node nor a host"),
            "" | "*" => Place::Anywhere,
            place if place.contains('/') => match Network::parse(place) {
                Some(network) => Place::Network(network),
                None => return refuse("that is no network"),
            },
            place => match (Network::parse(place), place.strip_prefix('*')) {
                (Some(network), _) => Place::Network(network),
                (None, Some(suffix)) if suffix.starts_with('.') => Place::Suffix(suffix.to_owned()),
                (None, None) if !place.contains('*') => Place::Host(place.to_owned()),
                _ => return refuse("a `*` stands alone or before a dot"),
            },
        };
        if alive.as_ref().is_some_and(|alive| alive.contains('*')) {
            return refuse("a name is written out or left away");
        }
        Ok(Self { alive, place })
    }

    fn allows(&self, node: &NodeName, addresses: &[IpAddr]) -> bool {
        let host = node.host();
        self.alive.as_ref().is_none_or(|alive| alive == node.alive())
            && match &self.place {
                Place::Anywhere => true,
                Place::Host(own) => own.eq_ignore_ascii_case(host),
                Place::Suffix(suffix) => {
                    host.len() > suffix.len()
                        && host
                            .get(host.len() - suffix.len()..)
                            .is_some_and(|end| end.eq_ignore_ascii_case(suffix))
                }
                Place::Network(network) => match host.parse() {
                    Ok(ip) => network.contains(&ip),
                    // The dialler may take any of them.
                    Err(_) => {
                        !addresses.is_empty() && addresses.iter().all(|address| network.contains(address))
                    }
                },
            }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(entry: &str, node: &str, addresses: &[&str]) -> bool {
        let addresses: Vec<IpAddr> = addresses.iter().map(|address| address.parse().unwrap()).collect();
        AllowList::parse([entry]).unwrap().allows(&NodeName::parse(node).unwrap(), &addresses)
    }

    #[test]
    fn entries_allow_what_they_say() {
        for (entry, node, addresses, expected) in [
            ("*", "a@h", &[][..], true),
            ("a@h", "a@h", &[], true),
            ("a@h", "b@h", &[], false),
            ("a@", "a@anywhere", &[], true),
            ("a@", "b@anywhere", &[], false),
            ("h", "a@H", &[], true),
            ("@h", "a@h", &[], true),
            ("h", "a@hh", &[], false),
            ("*.x.org", "a@n1.x.org", &[], true),
            ("*.x.org", "a@x.org", &[], false),
            ("*.x.org", "a@evilx.org", &[], false),
            ("a@*.x.org", "b@n1.x.org", &[], false),
            ("10.0.0.0/8", "a@10.1.2.3", &[], true),
            ("10.0.0.0/8", "a@11.1.2.3", &[], false),
            ("0.0.0.0/0", "a@11.1.2.3", &[], true),
            ("10.1.2.3", "a@10.1.2.3", &[], true),
            ("10.1.2.3/32", "a@10.1.2.2", &[], false),
            ("a@10.0.0.0/8", "b@10.1.2.3", &[], false),
            ("fd00::/8", "a@fdaa:0:1::3", &[], true),
            ("fd00::/8", "a@fe80::3", &[], false),
            ("::/0", "a@10.0.0.1", &[], false),
            ("10.0.0.0/8", "a@n1", &["10.0.0.1"], true),
            ("10.0.0.0/8", "a@n1", &["10.0.0.1", "192.0.2.1"], false),
            ("10.0.0.0/8", "a@n1", &[], false),
        ] {
            assert_eq!(allows(entry, node, addresses), expected, "{entry} {node} {addresses:?}");
        }
        assert!(!AllowList::new().allows(&NodeName::parse("a@h").unwrap(), &[]));
    }

    #[test]
    fn entries_that_mean_nothing_are_refused() {
        for entry in ["", "@", "a b", "10.0.0.0/33", "10.0.0/8", "x*y", "a*@h", "*x"] {
            assert!(AllowList::parse([entry]).is_err(), "{entry}");
        }
    }
}

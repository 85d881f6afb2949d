//! Node names by the BEAM's own rules (kernel's `net_kernel`, `inet_tcp_dist` and erts' `is_node_name`).
//!
//! A node is `Name@Host`. In a cluster of *short* names no host contains a dot, in one of *long* names every host does or
//! is an IP address; the two do not talk, because a BEAM refuses to dial a host of the other style.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use foundation_proto::dist::{NameStyle, NodeName, NodeNameError};

/// Why a name cannot be used. The first line of each text is what a BEAM says.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum NameError {
    /// This machine has no name that would do for the style asked for.
    NoHostName(NameStyle),
    /// Not a node name at all.
    Invalid {
        /// What was written.
        name: String,
        /// What is wrong with it.
        why: NodeNameError,
    },
    /// A short name was asked for and the host has a dot.
    DotInShortName(String),
    /// A peer whose host has a dot, while this node has a short name.
    PeerIsLong(String),
    /// A peer whose host has no dot and is no IP address, while this node has a long name.
    PeerIsShort(String),
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoHostName(NameStyle::Long) => f.write_str(
                "Can't set long node name!\nThis machine does not know its domain. Write the host part out \
                 (--name app@host.example.com or --name app@192.0.2.1), or use a short name (--sname app).",
            ),
            Self::NoHostName(NameStyle::Short) => f.write_str(
                "Can't set short node name!\nThis machine has no host name. Write the host part out (--sname app@host).",
            ),
            Self::DotInShortName(name) => write!(
                f,
                "Can't set short node name!\nThe host part of {name:?} has a dot. Use --name for it, or only the first \
                 label of the host with --sname."
            ),
            Self::Invalid { name, why } => write!(
                f,
                "Invalid node name!\n{name:?}: {why}. A node name is letters, digits, '_' and '-', then '@', then a host."
            ),
            Self::PeerIsLong(host) => write!(
                f,
                "System NOT running to use fully qualified hostnames; hostname {host} is illegal\nThis node has a short \
                 name and the peer a long one; start this one with --name instead of --sname, or the peer with -sname."
            ),
            Self::PeerIsShort(host) => write!(
                f,
                "System running to use fully qualified hostnames; hostname {host} is illegal\nThis node has a long name \
                 and the peer a short one; start this one with --sname instead of --name, or the peer with -name."
            ),
        }
    }
}

impl std::error::Error for NameError {}

/// Completes what the user wrote to a node name: `app` becomes `app@host`, `app@host` stays.
///
/// # Errors
/// If it is no node name a BEAM would take, or this machine has no host name of that style.
pub fn complete(wanted: &str, style: NameStyle) -> Result<NodeName, NameError> {
    complete_on(wanted, style, &Machine::read())
}

fn complete_on(wanted: &str, style: NameStyle, machine: &Machine) -> Result<NodeName, NameError> {
    let (alive, host) = match wanted.split_once('@') {
        // `-sname app@` means the same as `-sname app` to a BEAM.
        None | Some((_, "")) => {
            let host = match style {
                NameStyle::Short => machine.short(),
                NameStyle::Long => machine.long(),
            };
            (wanted.trim_end_matches('@'), host.ok_or(NameError::NoHostName(style))?)
        }
        Some((alive, host)) => (alive, host.to_owned()),
    };
    let name = NodeName::new(alive, &host)
        .map_err(|why| NameError::Invalid { name: format!("{alive}@{host}"), why })?;
    if style == NameStyle::Short && host.contains('.') {
        return Err(NameError::DotInShortName(name.to_string()));
    }
    Ok(name)
}

/// Whether a node whose own name has the style `own` may dial `peer`.
///
/// # Errors
/// If the peer's name has the other style: a BEAM would refuse to dial it, in the same words.
pub fn check_peer(peer: &NodeName, own: NameStyle) -> Result<(), NameError> {
    match own {
        _ if peer.is_dialled_by(own) => Ok(()),
        NameStyle::Short => Err(NameError::PeerIsLong(peer.host().to_owned())),
        NameStyle::Long => Err(NameError::PeerIsShort(peer.host().to_owned())),
    }
}

/// The name of a node that was given none: `foundation_<4 hex>`.
pub fn default_alive(random: u16) -> String {
    format!("foundation_{random:04x}")
}

/// The addresses of a host part, as the system's resolver gives them, `::1` after `127.0.0.1`; those of a host under `.local`
/// also by multicast DNS, which not every system asks.
///
/// # Errors
/// What the resolver said.
pub async fn resolve(host: &str) -> std::io::Result<Vec<IpAddr>> {
    if let Ok(ip) = host.parse() {
        return Ok(vec![ip]);
    }
    let mut ips = lookup(host).await?;
    // A BEAM over `inet_tcp` only has IPv4; asking there first saves a refused connection in a dual-stack cluster.
    ips.sort_by_key(IpAddr::is_ipv6);
    ips.dedup();
    Ok(ips)
}

async fn lookup(host: &str) -> std::io::Result<Vec<IpAddr>> {
    let system =
        async { Ok(tokio::net::lookup_host((host, 0)).await?.map(|a: SocketAddr| a.ip()).collect()) };
    #[cfg(feature = "mdns")]
    if host.to_ascii_lowercase().trim_end_matches('.').ends_with(".local") {
        // The system knows its hosts file and perhaps multicast DNS; where it does not, it asks servers that cannot know.
        let link = crate::discovery::mdns::resolve(host);
        tokio::pin!(system, link);
        return tokio::select! {
            biased;
            answer = &mut system => match answer {
                Ok(ips) => Ok(ips),
                Err(error) => link.await.or(Err(error)),
            },
            answer = &mut link => match answer {
                Ok(ips) => Ok(ips),
                Err(_) => system.await,
            },
        };
    }
    system.await
}

/// What this machine says about its own name.
struct Machine {
    nodename: String,
    hosts: String,
    resolv: String,
}

impl Machine {
    fn read() -> Self {
        Self {
            nodename: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            hosts: std::fs::read_to_string("/etc/hosts").unwrap_or_default(),
            resolv: std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default(),
        }
    }

    fn short(&self) -> Option<String> {
        self.nodename.split('.').next().filter(|label| !label.is_empty()).map(str::to_owned)
    }

    /// In the order of OTP's `inet_config`: the host name itself, the hosts file, the resolver's domain.
    fn long(&self) -> Option<String> {
        let short = self.short()?;
        if self.nodename.contains('.') {
            return Some(self.nodename.clone());
        }
        self.canonical_in_hosts().or_else(|| self.search_domain().map(|domain| format!("{short}.{domain}")))
    }

    fn canonical_in_hosts(&self) -> Option<String> {
        lines(&self.hosts)
            .map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>())
            .find(|names| names.contains(&self.nodename.as_str()))?
            .into_iter()
            .find(|name| name.contains('.'))
            .map(str::to_owned)
    }

    fn search_domain(&self) -> Option<String> {
        lines(&self.resolv)
            .filter_map(|line| {
                let mut words = line.split_whitespace();
                matches!(words.next(), Some("domain" | "search")).then(|| words.next()).flatten()
            })
            .map(|domain| domain.trim_matches('.').to_owned())
            .rfind(|domain| !domain.is_empty())
    }
}

fn lines(text: &str) -> impl DoubleEndedIterator<Item = &str> {
    text.lines()
        .map(|line| line.split(['#', ';']).next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty())
}

/// The host part for a node that wants to talk to `peer` and is never dialled itself: of the style of the peer's.
pub fn host_for_peer(peer: &NodeName) -> String {
    let machine = Machine::read();
    match peer.style() {
        NameStyle::Long => machine.long().unwrap_or_else(|| "127.0.0.1".to_owned()),
        NameStyle::Short => machine.short().unwrap_or_else(|| "localhost".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(nodename: &str, hosts: &str, resolv: &str) -> Machine {
        Machine { nodename: nodename.into(), hosts: hosts.into(), resolv: resolv.into() }
    }

    /// The outcomes of `erl -name`/`-sname` on OTP 25 with the host name `vm` and no domain.
    #[test]
    fn names_are_completed_and_refused_as_by_erl() {
        use NameStyle::{Long, Short};
        let vm = machine("vm", "127.0.0.1 localhost\n127.0.0.1 vm\n", "nameserver 10.0.0.1\n");
        let complete = |name, style| complete_on(name, style, &vm).map(|name| name.to_string());
        assert_eq!(complete("foo", Short).unwrap(), "foo@vm");
        assert_eq!(complete("foo@", Short).unwrap(), "foo@vm");
        assert_eq!(complete("foo", Long), Err(NameError::NoHostName(Long)));
        assert_eq!(complete("foo@a", Long).unwrap(), "foo@a");
        assert_eq!(complete("foo@a.b", Short), Err(NameError::DotInShortName("foo@a.b".into())));
        for bad in ["fo!o@a", "@a", "", "foo@a b", "a@b@c"] {
            assert!(matches!(complete(bad, Short), Err(NameError::Invalid { .. })), "{bad}");
        }
        assert!(matches!(complete(&"x".repeat(254), Short), Err(NameError::Invalid { .. })));
    }

    #[test]
    fn the_domain_comes_from_the_host_name_the_hosts_file_or_the_resolver() {
        assert_eq!(machine("vm.example.org", "", "search other.org").long().unwrap(), "vm.example.org");
        assert_eq!(machine("vm", "10.0.0.2 vm.lan vm # me", "search other.org").long().unwrap(), "vm.lan");
        assert_eq!(machine("vm", "", "domain a.org\nsearch b.org c.org\n").long().unwrap(), "vm.b.org");
        assert_eq!(machine("vm", "", "").long(), None);
        assert_eq!(machine("vm.example.org", "", "").short().unwrap(), "vm");
    }

    #[test]
    fn a_peer_of_the_other_style_is_refused_before_dialling() {
        let check = |name, own| check_peer(&NodeName::parse(name).unwrap(), own);
        assert_eq!(check("a@vm", NameStyle::Short), Ok(()));
        assert_eq!(check("a@vm.x", NameStyle::Long), Ok(()));
        assert_eq!(check("a@127.0.0.1", NameStyle::Long), Ok(()));
        assert_eq!(check("a@::1", NameStyle::Long), Ok(()));
        assert_eq!(check("a@vm.x", NameStyle::Short), Err(NameError::PeerIsLong("vm.x".into())));
        assert_eq!(check("a@vm", NameStyle::Long), Err(NameError::PeerIsShort("vm".into())));
    }
}

//! How a node is configured; the keys are named as the parameters of OTP's kernel application where those exist.
//!
//! One struct, [`NodeConfig`], is filled from a TOML file, then `RELEASE_*`, then `FOUNDATION_*` variables, then flags; each
//! later source wins. A key that does not exist is an error that names where it was written. A program of its own can
//! also fill the struct directly:
//!
//! ```
//! use foundation_node::config::{EpmdMode, NodeConfig};
//!
//! let config = NodeConfig::new("app@127.0.0.1").cookie("secret").epmd(EpmdMode::Embedded);
//! assert_eq!(config.net_ticktime, 60);
//! ```

mod effective;
mod layers;
mod security;

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use foundation_proto::Limits;
use foundation_proto::dist::{Cookie, CookieError, NameStyle};
use serde::{Deserialize, Deserializer, Serialize};

pub use self::effective::{Change, Effective};
pub use self::layers::Layers;
pub use self::security::Security;
pub(crate) use self::security::cookie_of;
use crate::discovery::ClusterConfig;
use crate::ssl_dist::SslDistOptions;

/// The configuration of a node.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct NodeConfig {
    /// `app@host`, or `app` alone: this machine's host name is then added. Default: `foundation_<4 hex>`.
    pub name: Option<String>,
    /// `longnames` (`-name`) or `shortnames` (`-sname`). Default: what the host part of `name` looks like, else short.
    pub name_domain: Option<NameDomain>,
    /// The cookie itself; a file is the quieter way. Never shown.
    #[serde(deserialize_with = "cookie")]
    pub cookie: Option<Cookie>,
    /// The file to read the cookie from. Default: `$HOME/.erlang.cookie`, then `$XDG_CONFIG_HOME/erlang/.erlang.cookie`.
    pub cookie_file: Option<PathBuf>,
    /// Cookies for single peers, by node name (`erlang:set_cookie/2`).
    #[serde(deserialize_with = "cookies")]
    pub cookies: BTreeMap<String, Cookie>,
    /// Whether this node stays out of `nodes()` and of `global` on its peers. Default: true.
    pub hidden: bool,
    /// Whether a visible node connects to the nodes that its peers know, and shares names with all of them. Default: true.
    pub connect_all: bool,
    /// Whether a visible node tells others of nodes that it has lost, and leaves those that others have lost, so that
    /// `global` stays consistent. The same on all nodes. Default: true, as OTP's since release 25.
    pub prevent_overlapping_partitions: bool,
    /// Whether a visible node answers the `Horde.DynamicSupervisor`s that take it for a member, so that it counts nowhere and gets
    /// no children. Default: true.
    pub horde: bool,
    /// Who may connect (`net_kernel:allow/1`): node names, `name@` or hosts. Empty: everybody with the cookie.
    pub allow: Vec<String>,
    /// How the port mapper is used. Default: `require` for programs, `auto` for the `foundation` binary.
    pub epmd: EpmdMode,
    /// The port of EPMD (`ERL_EPMD_PORT`). Default: 4369.
    pub epmd_port: u16,
    /// Further addresses for an EPMD served by this node (`ERL_EPMD_ADDRESS`). Default: those the node listens on.
    pub epmd_address: Vec<IpAddr>,
    /// Work without port numbers from EPMD (`-erl_epmd_port`): listen here, and expect every other node here on its host.
    pub erl_epmd_node_listen_port: Option<u16>,
    /// Whether other nodes can dial this one. `false` means no listening socket and no registration.
    pub dist_listen: bool,
    /// The addresses to listen on. Default: what the host part of the name resolves to, and the loopback ones.
    #[serde(deserialize_with = "one_or_many")]
    pub inet_dist_use_interface: Vec<IpAddr>,
    /// The lowest port to listen on. 0, the default, lets the system choose.
    pub inet_dist_listen_min: u16,
    /// The highest port to listen on. Default: `inet_dist_listen_min`.
    pub inet_dist_listen_max: Option<u16>,
    /// What carries the distribution (`-proto_dist`): plain TCP, or TLS; every connection then uses it, in both directions.
    pub proto_dist: ProtoDist,
    /// The options of TLS, in a file as OTP has it (`-ssl_dist_optfile`).
    pub ssl_dist_optfile: Option<PathBuf>,
    /// The options of TLS (`-ssl_dist_opt`), by side; what stands here wins over the file.
    pub ssl_dist_opt: SslDistOptions,
    /// Whether small writes leave at once (TCP_NODELAY). Default: true.
    pub dist_nodelay: bool,
    /// Whether a send to a node that is not connected dials it. Default: true.
    pub dist_auto_connect: DistAutoConnect,
    /// Seconds without a sign of life after which a peer is given up. Default: 60. Not negotiated: each side has its own.
    pub net_ticktime: u32,
    /// How many ticks are sent in `net_ticktime`. Default: 4; 4 to 1000.
    pub net_tickintensity: u32,
    /// Seconds that each step of a handshake may take. Default: 7; 1 to 120.
    pub net_setuptime: u32,
    /// Whether pids and references may exceed what OTP 23 accepts. Default: false, because they travel: a node of any release
    /// passes them on, and an OTP 23 node closes that connection. Worth it only for a node that starts more than 2^28
    /// processes in one run, in a cluster without OTP 23.
    pub wide_identifiers: bool,
    /// Whether a lost peer is dialled again without anybody asking. Default: `lost`.
    pub reconnect: Reconnect,
    /// Which functions of OTP this node answers of itself when others call them. Default: `read`.
    pub builtins: Builtins,
    /// Where the other nodes of the cluster are found. Default: nowhere for programs; the `foundation` binary looks at its
    /// environment.
    pub cluster: ClusterConfig,
    /// Several named clusters, for a [`Bridge`](crate::bridge::Bridge); a node of its own is in none of them.
    #[serde(deserialize_with = "crate::bridge::read")]
    pub clusters: crate::bridge::Clusters,
    /// Cookie and TLS under the names of the Elixir library.
    pub security: Security,
    /// What the `foundation` binary logs, unless a flag or a variable says it: a level, or a filter as in `RUST_LOG`. Other programs
    /// choose that themselves.
    pub log: Option<String>,
    /// Every bound on what peers and processes can use up.
    pub limits: NodeLimits,
    /// What [`NodeConfig::cookie`] was given and could not take.
    #[serde(skip)]
    bad_cookie: Option<CookieError>,
}

/// Whether host names are written in full (`name_domain` of `net_kernel:start/2`).
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum NameDomain {
    /// `-sname`: no dot in any host.
    ShortNames,
    /// `-name`: every host has a dot or is an IP address.
    LongNames,
}

impl From<NameDomain> for NameStyle {
    fn from(domain: NameDomain) -> Self {
        match domain {
            NameDomain::ShortNames => Self::Short,
            NameDomain::LongNames => Self::Long,
        }
    }
}

/// What carries the distribution (kernel's `-proto_dist`).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ProtoDist {
    /// TCP, over IPv4 and IPv6.
    #[default]
    InetTcp,
    /// TLS over TCP, over IPv4 and IPv6.
    InetTls,
    /// TCP, over IPv6 only.
    Inet6Tcp,
    /// TLS over TCP, over IPv6 only.
    Inet6Tls,
}

impl ProtoDist {
    /// Whether connections are encrypted.
    pub fn is_tls(self) -> bool {
        matches!(self, Self::InetTls | Self::Inet6Tls)
    }

    /// Whether addresses like this one are dialled and listened on.
    pub fn uses(self, ip: &IpAddr) -> bool {
        match self {
            Self::InetTcp | Self::InetTls => true,
            Self::Inet6Tcp | Self::Inet6Tls => ip.is_ipv6(),
        }
    }
}

/// How the Erlang Port Mapper Daemon is used.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum EpmdMode {
    /// The running one; else the host's own `epmd` is started; else one is served in this process.
    Auto,
    /// One is served in this process, or the running one used until its port is free.
    Embedded,
    /// The running one; starting fails without.
    #[default]
    Require,
    /// None: no registration; peers are found by `erl_epmd_node_listen_port`.
    None,
}

/// Whether sends to nodes that are not connected dial them (kernel's `dist_auto_connect`).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DistAutoConnect {
    /// Yes.
    #[default]
    #[serde(rename = "true")]
    True,
    /// Only while the node has never been connected before.
    Once,
    /// Only an explicit connect does.
    Never,
}

/// Which peers are dialled again without anybody asking.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Reconnect {
    /// Those that were connected and got lost, and those that could not be reached at the first attempt.
    Always,
    /// Those that were connected and got lost, if this node has dialled them or their EPMD knows them: every 250 to 500 ms for 10 minutes,
    /// then ever more rarely, to 30 s.
    #[default]
    Lost,
    /// None.
    Never,
}

/// Which functions of OTP a node answers of itself: those that observer, etop, LiveDashboard and operators call on any node
/// (`erlang:memory/0`, `observer_backend:sys_info/0`, ...). What the program exports is served in any case and comes first.
///
/// Whoever calls has proved the cookie, and towards a BEAM could do anything at all. Here only what is listed can be called.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Builtins {
    /// None: calls are `undef`. Not even the names of processes are told.
    None,
    /// Those that only tell: no environment, no cookie, no contents of messages.
    #[default]
    Read,
    /// These and `init:stop/0,1`, which stops the node. (`foundation start` offers `init:stop/0` as every BEAM does.)
    Stop,
}

/// Every bound on what peers and processes can use up.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct NodeLimits {
    /// What one connection may claim on the wire.
    pub wire: Limits,
    /// Connected peers. 1,024.
    pub peers: usize,
    /// Connections that have not proved the cookie yet. 256: one more takes the place of the oldest.
    pub unauthenticated: usize,
    /// The same, from one IP address. 128: a hundred nodes of one machine may begin at once.
    pub unauthenticated_per_ip: usize,
    /// Seconds that a whole handshake may take. 15; a BEAM only bounds each step.
    pub handshake_seconds: u32,
    /// Dials at once, and as many again of lost peers. 64.
    pub dials: usize,
    /// Processes of this node (`+P`). 262,144, as on a BEAM.
    pub processes: usize,
    /// Messages in one mailbox, then the process exits with `{mailbox_overflow, N}`. 100,000.
    pub mailbox_messages: usize,
    /// Bytes in one mailbox. 64 MiB.
    pub mailbox_bytes: usize,
    /// Bytes received from one peer and not yet taken from mailboxes before its connection is read no further. 64 MiB.
    pub undelivered_bytes: usize,
    /// Open connections to an EPMD served by this node. 1,280: 1,024 registrations, and 256 that ask.
    pub epmd_connections: usize,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            name: None,
            name_domain: None,
            cookie: None,
            cookie_file: None,
            cookies: BTreeMap::new(),
            hidden: true,
            connect_all: true,
            prevent_overlapping_partitions: true,
            horde: true,
            allow: Vec::new(),
            epmd: EpmdMode::default(),
            epmd_port: 4369,
            epmd_address: Vec::new(),
            erl_epmd_node_listen_port: None,
            dist_listen: true,
            inet_dist_use_interface: Vec::new(),
            inet_dist_listen_min: 0,
            inet_dist_listen_max: None,
            proto_dist: ProtoDist::default(),
            ssl_dist_optfile: None,
            ssl_dist_opt: SslDistOptions::default(),
            dist_nodelay: true,
            dist_auto_connect: DistAutoConnect::default(),
            net_ticktime: 60,
            net_tickintensity: 4,
            net_setuptime: 7,
            wide_identifiers: false,
            reconnect: Reconnect::default(),
            builtins: Builtins::default(),
            cluster: ClusterConfig::default(),
            clusters: BTreeMap::new(),
            security: Security::default(),
            log: None,
            limits: NodeLimits::default(),
            bad_cookie: None,
        }
    }
}

impl Default for NodeLimits {
    fn default() -> Self {
        Self {
            wire: Limits::default(),
            peers: 1024,
            unauthenticated: 256,
            unauthenticated_per_ip: 128,
            handshake_seconds: 15,
            dials: 64,
            processes: 262_144,
            mailbox_messages: 100_000,
            mailbox_bytes: 64 << 20,
            undelivered_bytes: 64 << 20,
            epmd_connections: 1280,
        }
    }
}

impl NodeConfig {
    /// A configuration with this name and defaults for everything else.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..Self::default() }
    }

    /// Sets the cookie; of a text that cannot be one, [`NodeConfig::check`] and with it starting a node complains.
    #[must_use]
    pub fn cookie(mut self, cookie: impl AsRef<str>) -> Self {
        match Cookie::new(cookie.as_ref()) {
            Ok(cookie) => (self.cookie, self.bad_cookie) = (Some(cookie), None),
            Err(error) => (self.cookie, self.bad_cookie) = (None, Some(error)),
        }
        self
    }

    /// Reads the cookie from this file.
    #[must_use]
    pub fn cookie_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.cookie_file = Some(path.into());
        self
    }

    /// A visible node takes part in `global` and stands in `nodes()` of its peers. Supervisors of Horde that count it are told that
    /// it runs no children ([`NodeConfig::horde`]).
    #[must_use]
    pub fn hidden(mut self, hidden: bool) -> Self {
        self.hidden = hidden;
        self
    }

    /// What carries the distribution.
    #[must_use]
    pub fn proto_dist(mut self, proto_dist: ProtoDist) -> Self {
        self.proto_dist = proto_dist;
        self
    }

    /// The options of TLS, in a file as OTP has it.
    #[must_use]
    pub fn ssl_dist_optfile(mut self, path: impl Into<PathBuf>) -> Self {
        self.ssl_dist_optfile = Some(path.into());
        self
    }

    /// How the port mapper is used.
    #[must_use]
    pub fn epmd(mut self, mode: EpmdMode) -> Self {
        self.epmd = mode;
        self
    }

    /// The port of EPMD.
    #[must_use]
    pub fn epmd_port(mut self, port: u16) -> Self {
        self.epmd_port = port;
        self
    }

    /// Seconds without a sign of life after which a peer is given up.
    #[must_use]
    pub fn net_ticktime(mut self, seconds: u32) -> Self {
        self.net_ticktime = seconds;
        self
    }

    /// Which peers are dialled again without anybody asking.
    #[must_use]
    pub fn reconnect(mut self, policy: Reconnect) -> Self {
        self.reconnect = policy;
        self
    }

    /// The time between two ticks.
    pub fn tick_interval(&self) -> Duration {
        Duration::from_secs(u64::from(self.net_ticktime)) / self.net_tickintensity.max(1)
    }

    /// Checks what no single key can tell.
    ///
    /// # Errors
    /// If a value is out of range, or two of them contradict each other.
    pub fn check(&self) -> Result<(), ConfigError> {
        let invalid = |key: &'static str, why: String| Err(ConfigError::Invalid { key, why });
        if let Some(error) = self.bad_cookie {
            return invalid("cookie", format!("cannot be used: {error}"));
        }
        if self.net_ticktime == 0 {
            return invalid("net_ticktime", "must be at least 1 second".into());
        }
        if !(4..=1000).contains(&self.net_tickintensity) {
            return invalid("net_tickintensity", format!("is {}, must be 4 to 1000", self.net_tickintensity));
        }
        if !(1..=120).contains(&self.net_setuptime) {
            return invalid("net_setuptime", format!("is {}, must be 1 to 120 seconds", self.net_setuptime));
        }
        if let Some(max) = self.inet_dist_listen_max
            && max < self.inet_dist_listen_min
        {
            return invalid(
                "inet_dist_listen_max",
                format!("is {max}, below inet_dist_listen_min ({})", self.inet_dist_listen_min),
            );
        }
        if self.erl_epmd_node_listen_port == Some(0) {
            return invalid("erl_epmd_node_listen_port", "must be a port that peers can know, not 0".into());
        }
        if self.epmd_port == 0 {
            return invalid("epmd_port", "must be a port that other nodes can know, not 0".into());
        }
        Ok(())
    }
}

/// Why a configuration cannot be used.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// A key or value in a file, a variable or a flag is wrong.
    Source {
        /// Where: `file:line`, a variable, a flag.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// A value that cannot be, wherever it came from.
    Invalid {
        /// The key.
        key: &'static str,
        /// What is wrong.
        why: String,
    },
}

impl ConfigError {
    /// Something wrong with what was written at `place`.
    pub fn source(place: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Source { place: place.into(), why: why.into() }
    }

    /// Whether it is about a key that does not exist.
    pub fn is_unknown_key(&self) -> bool {
        matches!(self, Self::Source { why, .. } if why.starts_with("unknown key"))
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { path, why } => {
                write!(f, "cannot read the configuration {}: {why}", path.display())
            }
            Self::Source { place, why } => write!(f, "{place}: {}", why.trim_end()),
            Self::Invalid { key, why } => write!(f, "{key} {why}"),
        }
    }
}

impl std::error::Error for ConfigError {}

/// A cookie that is no string must not be quoted in the error, as serde would.
fn cookie_from(value: &toml::Value) -> Result<Cookie, String> {
    let text = value.as_str().ok_or("the cookie must be a string (write it in quotes)")?;
    Cookie::new(text).map_err(|error: CookieError| error.to_string())
}

fn cookie<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Cookie>, D::Error> {
    let value = toml::Value::deserialize(deserializer)?;
    cookie_from(&value).map(Some).map_err(serde::de::Error::custom)
}

fn cookies<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, Cookie>, D::Error> {
    BTreeMap::<String, toml::Value>::deserialize(deserializer)?
        .into_iter()
        .map(|(node, value)| Ok((node, cookie_from(&value)?)))
        .collect::<Result<_, String>>()
        .map_err(serde::de::Error::custom)
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpAddr>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum OneOrMany {
        One(IpAddr),
        Many(Vec<IpAddr>),
    }
    OneOrMany::deserialize(deserializer).map_or_else(
        |_| Err(serde::de::Error::custom("must be an IP address or a list of them")),
        |value| match value {
            OneOrMany::One(ip) => Ok(vec![ip]),
            OneOrMany::Many(ips) => Ok(ips),
        },
    )
}

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

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use foundation_proto::Limits;
use foundation_proto::dist::{Cookie, CookieError, NameStyle};
use serde::{Deserialize, Deserializer};

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
    /// Every bound on what peers and processes can use up.
    pub limits: NodeLimits,
    /// What [`NodeConfig::cookie`] was given and could not take.
    #[serde(skip)]
    bad_cookie: Option<CookieError>,
}

/// Whether host names are written in full (`name_domain` of `net_kernel:start/2`).
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
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
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
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
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
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
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
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
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Reconnect {
    /// Those that were connected and got lost, and those that could not be reached at the first attempt.
    Always,
    /// Those that were connected and got lost: every 300 to 500 ms for 10 minutes, then ever more rarely, to 30 s.
    #[default]
    Lost,
    /// None.
    Never,
}

/// Which functions of OTP a node answers of itself: those that observer, etop, LiveDashboard and operators call on any node
/// (`erlang:memory/0`, `observer_backend:sys_info/0`, ...). What the program exports is served in any case and comes first.
///
/// Whoever calls has proved the cookie, and towards a BEAM could do anything at all. Here only what is listed can be called.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
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
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct NodeLimits {
    /// What one connection may claim on the wire.
    pub wire: Limits,
    /// Connected peers. 1,024.
    pub peers: usize,
    /// Connections that have not proved the cookie yet. 128: more wait in the kernel's queue.
    pub unauthenticated: usize,
    /// The same, from one IP address. 16.
    pub unauthenticated_per_ip: usize,
    /// Seconds that a whole handshake may take. 15; a BEAM only bounds each step.
    pub handshake_seconds: u32,
    /// Dials at once. 64.
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
            unauthenticated: 128,
            unauthenticated_per_ip: 16,
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

    /// A visible node takes part in `global` and stands in `nodes()` of its peers.
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

/// The sources of a configuration, laid over each other: what is set later wins.
#[derive(Default)]
pub struct Layers {
    table: toml::Table,
}

/// Variables with our prefix that are no keys: read by the command line or by other parts of the project.
const OTHER_VARIABLES: [&str; 9] =
    ["CONFIG", "LOG", "LOG_FORMAT", "BIN", "NODE", "ECOSYSTEM", "INTEROP", "ENV", "APP_NAME"];

impl Layers {
    /// Nothing set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Lays the keys of a TOML file over what is there.
    ///
    /// # Errors
    /// If it cannot be read, is not TOML, or has a key or value that does not exist; with the line.
    pub fn file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Unreadable { path: path.into(), why: error.to_string() })?;
        self.text(&text, &path.display().to_string())
    }

    /// The same for a text, with the name to use for it in errors.
    ///
    /// # Errors
    /// As for a file.
    pub fn text(&mut self, text: &str, name: &str) -> Result<(), ConfigError> {
        // Only the message and the line: the snippet that the TOML parser would print could show the cookie.
        let error = |error: toml::de::Error| {
            let line =
                error.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            ConfigError::Source {
                place: format!("{name}:{line}"),
                why: error.message().replace("field", "key"),
            }
        };
        let table = text.parse::<toml::Table>().map_err(error)?;
        if let Some(Err(mistake)) = table.get("cluster").map(ClusterConfig::from_value) {
            let line = line_of(text, &mistake.key);
            return Err(ConfigError::Source { place: format!("{name}:{line}"), why: mistake.to_string() });
        }
        let _checked: NodeConfig = toml::from_str(text).map_err(error)?;
        self.table.extend(table);
        Ok(())
    }

    /// Sets one key (`net_ticktime`, `limits.peers`); `place` is how the user wrote it.
    ///
    /// The text is read as a TOML value, and if no key can have that, as a plain string.
    ///
    /// # Errors
    /// If there is no such key or it cannot have this value.
    pub fn set(&mut self, key: &str, text: &str, place: &str) -> Result<(), ConfigError> {
        let parsed =
            format!("v = {text}").parse::<toml::Table>().ok().and_then(|mut table| table.remove("v"));
        let plain = toml::Value::String(text.to_owned());
        let result = match parsed {
            Some(value) => self.set_value(key, value).or_else(|first| {
                // The first error is the better one, unless it complains that a bare word is no string.
                self.set_value(key, plain).map_err(|_| first)
            }),
            None => self.set_value(key, plain),
        };
        result.map_err(|why| ConfigError::Source { place: place.to_owned(), why })
    }

    /// The same for a key whose value is text, which is not read as anything else: a cookie `true` is a cookie.
    ///
    /// # Errors
    /// As [`Layers::set`].
    pub fn set_text(&mut self, key: &str, text: &str, place: &str) -> Result<(), ConfigError> {
        self.set_value(key, toml::Value::String(text.to_owned()))
            .map_err(|why| ConfigError::Source { place: place.to_owned(), why })
    }

    /// Sets the cookie for one node.
    ///
    /// # Errors
    /// If it cannot be a cookie.
    pub fn set_cookie(&mut self, node: &str, cookie: &str, place: &str) -> Result<(), ConfigError> {
        // Node names have dots, so this is no key with dots.
        let mut cookies =
            self.table.get("cookies").and_then(toml::Value::as_table).cloned().unwrap_or_default();
        cookies.insert(node.to_owned(), toml::Value::String(cookie.to_owned()));
        self.set_value("cookies", toml::Value::Table(cookies))
            .map_err(|why| ConfigError::Source { place: place.to_owned(), why })
    }

    /// Adds a node to the ones to connect to, beside whatever else finds nodes.
    ///
    /// # Errors
    /// If it is no node name.
    pub fn join(&mut self, node: &str, place: &str) -> Result<(), ConfigError> {
        let key = "cluster.join";
        let known = self.table.get("cluster").and_then(|cluster| cluster.get("join"));
        let mut nodes = known.and_then(toml::Value::as_array).cloned().unwrap_or_default();
        nodes.push(toml::Value::String(node.to_owned()));
        self.set_value(key, toml::Value::Array(nodes))
            .map_err(|why| ConfigError::Source { place: place.to_owned(), why })
    }

    /// Takes back what earlier layers say about a key.
    pub fn unset(&mut self, key: &str) {
        self.table.remove(key);
    }

    fn set_value(&mut self, key: &str, value: toml::Value) -> Result<(), String> {
        let mut table = self.table.clone();
        // `cluster = "x"` is short for `strategy = "x"` under it, so what else stands there is kept.
        let key = match (key, &value, table.get("cluster")) {
            ("cluster", toml::Value::String(_), Some(toml::Value::Table(_))) => "cluster.strategy",
            _ => key,
        };
        if key.starts_with("cluster.")
            && let Some(strategy) = table.get("cluster").and_then(|written| match written {
                toml::Value::String(strategy) => Some(strategy.clone()),
                toml::Value::Boolean(true) => Some("auto".to_owned()),
                _ => None,
            })
        {
            let written = toml::Table::from_iter([("strategy".to_owned(), toml::Value::String(strategy))]);
            table.insert("cluster".to_owned(), toml::Value::Table(written));
        }
        let mut place = &mut table;
        let (parents, last) = key.rsplit_once('.').map_or(("", key), |(parents, last)| (parents, last));
        for parent in parents.split('.').filter(|parent| !parent.is_empty()) {
            place = place
                .entry(parent)
                .or_insert_with(|| toml::Value::Table(toml::Table::new()))
                .as_table_mut()
                .ok_or_else(|| format!("{parent} is no table"))?;
        }
        place.insert(last.to_owned(), value);
        table.clone().try_into::<NodeConfig>().map_err(|error| error.message().replace("field", "key"))?;
        self.table = table;
        Ok(())
    }

    /// Lays `ERL_EPMD_*`, `RELEASE_*` and then `FOUNDATION_*` variables over what is there. Of the last, each key is one:
    /// `FOUNDATION_NET_TICKTIME`, `FOUNDATION_LIMITS__PEERS`.
    ///
    /// Returns the names of variables with our prefix that mean nothing, for a warning.
    ///
    /// # Errors
    /// If a variable has a value that its key cannot have.
    pub fn environment(
        &mut self,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Vec<String>, ConfigError> {
        // By name, so that the outcome does not depend on the order of the environment.
        let variables: BTreeMap<String, String> = variables.filter(|(_, value)| !value.is_empty()).collect();
        let get = |name: &str| variables.get(name).map(String::as_str);
        if let Some(port) = get("ERL_EPMD_PORT") {
            self.set("epmd_port", port, "ERL_EPMD_PORT")?;
        }
        for (variable, key) in
            [("RELEASE_NODE", "name"), ("RELEASE_COOKIE", "cookie"), ("FOUNDATION_NODE", "name")]
        {
            if let Some(value) = get(variable) {
                self.set_text(key, value, variable)?;
            }
        }
        if let Some(addresses) = get("ERL_EPMD_ADDRESS") {
            let list: Vec<String> =
                addresses.split(',').map(|address| format!("{:?}", address.trim())).collect();
            self.set("epmd_address", &format!("[{}]", list.join(",")), "ERL_EPMD_ADDRESS")?;
        }
        match get("RELEASE_DISTRIBUTION") {
            Some("name") => self.set("name_domain", "longnames", "RELEASE_DISTRIBUTION")?,
            Some("sname") => self.set("name_domain", "shortnames", "RELEASE_DISTRIBUTION")?,
            Some("none") => self.set("dist_listen", "false", "RELEASE_DISTRIBUTION")?,
            Some(other) => {
                return Err(ConfigError::Source {
                    place: "RELEASE_DISTRIBUTION".into(),
                    why: format!("is {other:?}, must be name, sname or none"),
                });
            }
            None => {}
        }
        let mut unknown = Vec::new();
        for (variable, value) in &variables {
            let Some(key) = variable.strip_prefix("FOUNDATION_").filter(|key| !OTHER_VARIABLES.contains(key))
            else {
                continue;
            };
            let key = key.to_lowercase().replace("__", ".");
            let set = if key == "cookie" {
                self.set_text(&key, value, variable)
            } else {
                self.set(&key, value, variable)
            };
            match set {
                Err(ConfigError::Source { why, .. }) if why.starts_with("unknown key") => {
                    unknown.push(variable.clone())
                }
                result => result?,
            }
        }
        Ok(unknown)
    }

    /// The configuration that the layers add up to.
    ///
    /// # Errors
    /// As [`NodeConfig::check`].
    pub fn finish(self) -> Result<NodeConfig, ConfigError> {
        let config: NodeConfig = self.table.try_into().map_err(|error| ConfigError::Source {
            place: "configuration".into(),
            why: error.message().to_owned(),
        })?;
        config.check()?;
        Ok(config)
    }
}

/// The line of the innermost key of a path that the text has.
fn line_of(text: &str, path: &[String]) -> usize {
    let Ok(root) = toml::de::DeTable::parse(text) else { return 1 };
    let mut table = root.get_ref();
    let mut at = 0;
    for part in path {
        let Some((key, value)) = table.iter().find(|(key, _)| key.get_ref().as_ref() == part.as_str()) else {
            break;
        };
        at = key.span().start;
        let toml::de::DeValue::Table(inner) = value.get_ref() else { break };
        table = inner;
    }
    1 + text.get(..at).map_or(0, |before| before.matches('\n').count())
}

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

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(list: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
        list.iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect::<Vec<_>>()
            .into_iter()
    }

    #[test]
    fn later_sources_win() {
        let mut layers = Layers::new();
        layers
            .text("name = 'file@h'\nnet_ticktime = 8\ncookie = 'f'\n[limits]\npeers = 7\n[limits.wire]\nmax_frame = 9\n", "f.toml")
            .unwrap();
        let unknown = layers
            .environment(variables(&[
                ("RELEASE_NODE", "release@h.x"),
                ("RELEASE_COOKIE", "r"),
                ("RELEASE_DISTRIBUTION", "name"),
                ("FOUNDATION_COOKIE", "12345"),
                ("FOUNDATION_LIMITS__DIALS", "3"),
                ("FOUNDATION_RECONNECT", "always"),
                ("FOUNDATION_LOG", "debug"),
                ("FOUNDATION_TYPO", "1"),
                ("ERL_EPMD_PORT", "4370"),
                ("ERL_EPMD_ADDRESS", "127.0.0.1, ::1"),
            ]))
            .unwrap();
        assert_eq!(unknown, ["FOUNDATION_TYPO"]);
        layers.set("net_setuptime", "9", "--net-setuptime").unwrap();
        let config = layers.finish().unwrap();
        assert_eq!(config.name.as_deref(), Some("release@h.x"));
        assert_eq!(config.name_domain, Some(NameDomain::LongNames));
        assert_eq!(config.cookie, Cookie::new("12345").ok());
        assert_eq!((config.limits.peers, config.limits.dials, config.limits.wire.max_frame), (7, 3, 9));
        assert_eq!(config.limits.wire.max_depth, Limits::default().max_depth);
        assert_eq!((config.net_ticktime, config.net_setuptime), (8, 9));
        assert_eq!((config.epmd_port, config.epmd_address.len()), (4370, 2));
        assert_eq!(config.reconnect, Reconnect::Always);
    }

    #[test]
    fn mistakes_name_their_place_and_never_the_cookie() {
        for (text, place, word) in [
            ("hidden = true\nnet_tick_time = 8", "f:2", "unknown key `net_tick_time`"),
            ("[limits]\n\npears = 1", "f:3", "unknown key `pears`"),
            ("epmd = 'maybe'", "f:1", "unknown variant `maybe`"),
            ("cookie = 987654", "f:1", "must be a string"),
            ("cookie = ''", "f:1", "the cookie is empty"),
            ("hidden = true\n[cluster]\nallow = []\nstrategy = 'moon'", "f:4", "there is no strategy"),
            (
                "[cluster.topologies.a]\nstrategy = 'static'\n[cluster.topologies.a.config]\nhost = 1",
                "f:4",
                "`hosts`",
            ),
            ("inet_dist_use_interface = 'here'", "f:1", "IP address"),
            ("name = ", "f:1", ""),
        ] {
            let error = Layers::new().text(text, "f").unwrap_err();
            let ConfigError::Source { place: at, why } = &error else { panic!("{error:?}") };
            assert_eq!(at, place, "{error}");
            assert!(why.contains(word), "{error}");
            assert!(!why.contains("987654"), "{error}");
        }
        let error = Layers::new().environment(variables(&[("FOUNDATION_NET_TICKTIME", "soon")])).unwrap_err();
        assert!(error.to_string().starts_with("FOUNDATION_NET_TICKTIME: "), "{error}");
        assert!(!format!("{:?}", NodeConfig::new("a").cookie("hush")).contains("hush"));
    }

    #[test]
    fn values_that_contradict_each_other_are_refused() {
        for (key, value) in [
            ("net_tickintensity", "3"),
            ("net_setuptime", "121"),
            ("net_ticktime", "0"),
            ("epmd_port", "0"),
            ("erl_epmd_node_listen_port", "0"),
        ] {
            let mut layers = Layers::new();
            layers.set(key, value, key).unwrap();
            let error = layers.finish().unwrap_err();
            assert!(error.to_string().starts_with(key), "{error}");
        }
        let mut layers = Layers::new();
        layers.text("inet_dist_listen_min = 9100\ninet_dist_listen_max = 9000", "f").unwrap();
        assert!(layers.finish().is_err());
    }
}

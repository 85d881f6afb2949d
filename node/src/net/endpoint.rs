//! What a node has before it has peers: a name, a cookie, listening sockets, its registration. And starting and stopping it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use foundation_proto::dist::handshake::OpenChallenges;
use foundation_proto::dist::{Cookie, CookieError, DistributionFlags, NameStyle, NodeName};
use foundation_proto::epmd::NodeInfo;
use foundation_proto::etf::Atom;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tracing::{info, warn};

use super::dialer;
use super::listener::{self, HalfOpen};
use super::tls::Tls;
use super::{Clock, ConnectError, Link};
use crate::config::{ConfigError, NodeConfig, Reconnect};
use crate::cookie::{self, CookieFileError};
use crate::discovery;
use crate::epmd::{EpmdError, Registration};
use crate::names::{self, NameError};
use crate::net_kernel::{NetKernel, NodeType};
use crate::node::{Node, NodeInner};
use crate::random;
use crate::ssl_dist::SslDistError;

/// Why a node did not start. Each text says what happened and how to mend it.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration.
    Config(ConfigError),
    /// The name of the node.
    Name(NameError),
    /// The cookie.
    Cookie(CookieFileError),
    /// The host part of the name does not lead to this machine.
    Host {
        /// The host.
        host: String,
        /// What the resolver said.
        error: io::Error,
    },
    /// No socket to listen on.
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The port mapper.
    Epmd(EpmdError),
    /// The node that was to give this one its name.
    NamedBy {
        /// It.
        peer: String,
        /// Why there is no connection to it.
        error: ConnectError,
    },
    /// TLS.
    SslDist(SslDistError),
    /// The system has no random source.
    Random(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Name(error) => error.fmt(f),
            Self::Cookie(error) => error.fmt(f),
            Self::Host { host, error } => write!(
                f,
                "the host part {host:?} of the node's name cannot be resolved: {error}\nOther nodes could not find this one. \
                 Add it to DNS or /etc/hosts, write an IP address (--name app@192.0.2.1), or give the addresses to listen \
                 on (inet_dist_use_interface)."
            ),
            Self::Listen { address, error } => write!(
                f,
                "cannot listen on {address}: {error}\nThe host part of the node's name must resolve to an address of this \
                 machine, and the port must be free; inet_dist_use_interface and inet_dist_listen_min/max choose others."
            ),
            Self::Epmd(error @ EpmdError::NameTaken { .. }) => error.fmt(f),
            Self::Epmd(error) => write!(f, "register/listen error: {error}"),
            Self::NamedBy { peer, error } => write!(f, "no name from {peer}: {error}"),
            Self::SslDist(error) => error.fmt(f),
            Self::Random(error) => write!(f, "no random numbers: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

/// The cookies that handshakes use; connections that are up do not ask again.
struct Cookies {
    own: Cookie,
    of_peers: BTreeMap<String, Cookie>,
}

impl Cookies {
    /// Finds them, and leaves none in the configuration, which others may print.
    fn take(config: &mut NodeConfig) -> Result<RwLock<Self>, StartError> {
        let (own, source) = cookie::find(config).map_err(StartError::Cookie)?;
        tracing::debug!(%source, "cookie");
        config.cookie = None;
        Ok(RwLock::new(Self { own, of_peers: std::mem::take(&mut config.cookies) }))
    }
}

/// What TLS needs, if the configuration asks for it.
fn tls(config: &NodeConfig) -> Result<Option<Tls>, StartError> {
    let options =
        || config.ssl_dist_opt.with_optfile(config.ssl_dist_optfile.as_deref()).and_then(|o| Tls::new(&o));
    config.proto_dist.is_tls().then(options).transpose().map_err(StartError::SslDist)
}

/// Who a node is towards its peers.
pub(crate) struct Identity {
    pub(crate) name: NodeName,
    pub(crate) style: NameStyle,
    pub(crate) creation: u32,
    pub(crate) flags: DistributionFlags,
    cookies: RwLock<Cookies>,
    pub(crate) open_challenges: OpenChallenges,
    pub(crate) config: NodeConfig,
    /// With it, every connection is encrypted; without, none.
    pub(crate) tls: Option<Tls>,
    pub(crate) clock: Clock,
    numbers: AtomicU64,
}

impl Identity {
    /// The cookie that a handshake begun now uses with a peer.
    pub(crate) fn cookie_for(&self, peer: Option<&NodeName>) -> Cookie {
        let cookies = self.cookies.read().unwrap_or_else(PoisonError::into_inner);
        peer.and_then(|peer| cookies.of_peers.get(peer.as_str())).unwrap_or(&cookies.own).clone()
    }

    /// Takes over the cookies of another identity of the same node.
    pub(crate) fn take_cookies_of(&self, other: &Self) {
        let theirs = other.cookies.read().unwrap_or_else(PoisonError::into_inner);
        let (own, of_peers) = (theirs.own.clone(), theirs.of_peers.clone());
        drop(theirs);
        self.change_cookies(|cookies| (cookies.own, cookies.of_peers) = (own, of_peers));
    }

    fn change_cookies(&self, change: impl FnOnce(&mut Cookies)) {
        change(&mut self.cookies.write().unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn step_timeout(&self) -> Duration {
        Duration::from_secs(u64::from(self.config.net_setuptime))
    }

    pub(crate) fn total_timeout(&self) -> Duration {
        Duration::from_secs(u64::from(self.config.limits.handshake_seconds)).max(self.step_timeout())
    }

    /// A number that nobody else of this node has.
    pub(crate) fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }
}

/// A node that listens, is registered and has no peers yet.
pub(crate) struct Endpoint {
    pub(crate) identity: Identity,
    listeners: Vec<TcpListener>,
    registration: Option<Registration>,
}

/// What keeps a started node in reach; dropped, it accepts no more connections and its name is free.
#[derive(Debug, Default)]
pub(crate) struct Listening {
    _accepting: JoinSet<()>,
    registration: Option<Registration>,
    addresses: Vec<SocketAddr>,
}

impl Endpoint {
    async fn open(config: NodeConfig) -> Result<Self, StartError> {
        let mut config = config.secured().map_err(StartError::Config)?;
        config.check().map_err(StartError::Config)?;
        let name = own_name(&config)?;
        let style = config.name_domain.map_or_else(|| name.style(), NameStyle::from);
        let cookies = Cookies::take(&mut config)?;
        let tls = tls(&config)?;
        let (listeners, registration) = if config.dist_listen {
            let (ips, implicit) = listen_addresses(&config, &name).await?;
            let listeners = listen(&config, &ips, &implicit)?;
            let port =
                listeners.first().and_then(|listener| listener.local_addr().ok()).map_or(0, |a| a.port());
            let node = NodeInfo::new(name.alive(), port, config.hidden);
            let registration = Registration::start(&config, node, &ips).await.map_err(StartError::Epmd)?;
            (listeners, Some(registration))
        } else {
            (Vec::new(), None)
        };
        let creation = match &registration {
            Some(registration) => registration.creation(),
            None => random::creation().map_err(StartError::Random)?,
        };
        let flags = if config.hidden {
            DistributionFlags::HIDDEN
        } else {
            DistributionFlags::HIDDEN | DistributionFlags::PUBLISHED
        };
        let identity = Identity {
            name,
            style,
            creation,
            flags,
            cookies,
            open_challenges: OpenChallenges::new(),
            config,
            tls,
            clock: Clock::start(),
            numbers: AtomicU64::new(0),
        };
        Ok(Self { identity, listeners, registration })
    }

    /// Begins to accept connections.
    fn run(
        listeners: Vec<TcpListener>,
        registration: Option<Registration>,
        node: &Arc<NodeInner>,
    ) -> Listening {
        let limits = &node.net_kernel.identity().config.limits;
        let half_open = Arc::new(HalfOpen::new(limits.unauthenticated, limits.unauthenticated_per_ip));
        let addresses = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
        let mut accepting = JoinSet::new();
        for listener in listeners {
            accepting.spawn(listener::run(Arc::downgrade(node), listener, Arc::clone(&half_open)));
        }
        Listening { _accepting: accepting, registration, addresses }
    }
}

impl Identity {
    /// Of a node that asks for a name at `host`; what it needs for that, and no more.
    fn unnamed(mut config: NodeConfig, host: &str, style: NameStyle) -> Result<Self, StartError> {
        config.check().map_err(StartError::Config)?;
        let name = NodeName::new(UNNAMED, host).map_err(|_| StartError::Host {
            host: host.to_owned(),
            error: io::Error::new(io::ErrorKind::InvalidInput, "it is no host part of a node name"),
        })?;
        let cookies = Cookies::take(&mut config)?;
        let tls = tls(&config)?;
        // It can be found by nobody, and under this name it does not come back.
        (config.dist_listen, config.hidden, config.reconnect) = (false, true, Reconnect::Never);
        Ok(Self {
            name,
            style,
            creation: 0,
            flags: DistributionFlags::HIDDEN,
            cookies,
            open_challenges: OpenChallenges::new(),
            config,
            tls,
            clock: Clock::start(),
            numbers: AtomicU64::new(0),
        })
    }
}

/// What a node would start with.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Checked {
    /// Its name; the part before the `@` is another each time if none was configured.
    pub name: NodeName,
    /// Where its cookie comes from; `None` if one would be created.
    pub cookie: Option<String>,
    /// The addresses that it would listen on.
    pub addresses: Vec<IpAddr>,
}

/// The name that asks for another (`erl -name undefined`).
pub(crate) const UNNAMED: &str = "undefined";

pub(crate) fn own_name(config: &NodeConfig) -> Result<NodeName, StartError> {
    let wanted = match &config.name {
        Some(name) => name.clone(),
        None => match discovery::default_name(&config.cluster) {
            Some(name) => name,
            None => names::default_alive(random::bits32().map_err(StartError::Random)? as u16),
        },
    };
    let style = config.name_domain.map_or_else(
        || NodeName::parse(&wanted).map_or(NameStyle::Short, |name| name.style()),
        NameStyle::from,
    );
    names::complete(&wanted, style).map_err(StartError::Name)
}

/// The addresses to listen on; the second part says which of them may be missing on this machine.
async fn listen_addresses(
    config: &NodeConfig,
    name: &NodeName,
) -> Result<(Vec<IpAddr>, Vec<IpAddr>), StartError> {
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    if !config.inet_dist_use_interface.is_empty() {
        return Ok((config.inet_dist_use_interface.clone(), Vec::new()));
    }
    let mut ips = names::resolve(name.host())
        .await
        .map_err(|error| StartError::Host { host: name.host().to_owned(), error })?;
    ips.retain(|ip| config.proto_dist.uses(ip));
    if ips.is_empty() {
        let error =
            io::Error::new(io::ErrorKind::NotFound, "it has no IPv6 address, and proto_dist asks for one");
        return Err(StartError::Host { host: name.host().to_owned(), error });
    }
    let implicit: Vec<IpAddr> =
        loopback.into_iter().filter(|ip| !ips.contains(ip) && config.proto_dist.uses(ip)).collect();
    ips.extend(&implicit);
    Ok((ips, implicit))
}

/// Listens on all the addresses with one port: EPMD knows one port per node.
fn listen(config: &NodeConfig, ips: &[IpAddr], implicit: &[IpAddr]) -> Result<Vec<TcpListener>, StartError> {
    let ports = match config.erl_epmd_node_listen_port {
        Some(port) => port..=port,
        None => {
            let least = config.inet_dist_listen_min;
            least..=config.inet_dist_listen_max.unwrap_or(least).max(least)
        }
    };
    // With a port of the system's choice, the first address decides; the others may by chance have it taken.
    let tries = if *ports.start() == 0 { 16 } else { 1 };
    let mut failure = None;
    for port in std::iter::repeat_n(ports, tries).flatten() {
        match listen_on(ips, implicit, port) {
            Ok(listeners) => return Ok(listeners),
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.unwrap_or_else(|| StartError::Listen {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        error: io::ErrorKind::AddrNotAvailable.into(),
    }))
}

fn listen_on(ips: &[IpAddr], implicit: &[IpAddr], mut port: u16) -> Result<Vec<TcpListener>, StartError> {
    let mut listeners = Vec::new();
    for ip in ips {
        let address = SocketAddr::new(*ip, port);
        match listener::bind(address) {
            Ok(listener) => {
                port = listener.local_addr().map_err(|error| StartError::Listen { address, error })?.port();
                listeners.push(listener);
            }
            Err(_) if listener::covers(&listeners, *ip) => {}
            Err(error) if implicit.contains(ip) && error.kind() != io::ErrorKind::AddrInUse => {
                tracing::debug!(%address, %error, "not listening here");
            }
            Err(error) => return Err(StartError::Listen { address, error }),
        }
    }
    Ok(listeners)
}

impl Node {
    /// Starts a node on the current tokio runtime: finds its name and cookie, listens, registers.
    ///
    /// # Errors
    /// Why not, in words that say how to mend it.
    ///
    /// # Example
    /// ```no_run
    /// # async fn f() -> Result<(), Box<dyn std::error::Error>> {
    /// use foundation_node::Node;
    /// use foundation_node::config::NodeConfig;
    ///
    /// let node = Node::start(NodeConfig::new("app@127.0.0.1").cookie("secret")).await?;
    /// node.connect("elixir@127.0.0.1").await?;
    /// # Ok(()) }
    /// ```
    pub async fn start(config: NodeConfig) -> Result<Self, StartError> {
        let Endpoint { identity, listeners, registration } = Endpoint::open(config).await?;
        if identity.tls.is_none() {
            warn_of_open_addresses(&listeners);
        }
        let config = identity.config.clone();
        let name = identity.name.as_atom().clone();
        let creation = identity.creation;
        let inner = NodeInner::new(config, name, creation, NetKernel::new(identity));
        inner.net_kernel.attach(&inner);
        let listening = Endpoint::run(listeners, registration, &inner);
        info!(
            name = inner.name.as_str(),
            creation,
            listening = ?listening.addresses,
            hidden = inner.config.hidden,
            "node started"
        );
        inner.net_kernel.listening(listening);
        let node = Self::from_inner(inner);
        node.start_discovery(&node.config().cluster);
        Ok(node)
    }

    /// What a node with this configuration would start with, found without starting it: nothing is opened, registered or written.
    ///
    /// # Errors
    /// As starting it, as far as that can be told.
    pub async fn check(config: &NodeConfig) -> Result<Checked, StartError> {
        config.check().map_err(StartError::Config)?;
        let name = own_name(config)?;
        let cookie = cookie::look(config).map_err(StartError::Cookie)?;
        tls(config)?;
        let addresses =
            if config.dist_listen { listen_addresses(config, &name).await?.0 } else { Vec::new() };
        Ok(Checked { name, cookie, addresses })
    }

    /// Starts a node that has no name and gets one from `peer`, the first node it connects to (`erl -name undefined`): a client
    /// for a while. It is hidden, neither listens nor registers, and does not reconnect by itself. A name `undefined@host` in
    /// the configuration gives the host part; otherwise that is chosen to go with the peer's.
    ///
    /// # Errors
    /// Why not; [`StartError::NamedBy`] if there is no connection to the peer, or it gives no names (OTP before 24).
    pub async fn start_named_by(config: NodeConfig, peer: &str) -> Result<Self, StartError> {
        let failed = |error| StartError::NamedBy { peer: peer.to_owned(), error };
        let peer_name = NodeName::parse(peer)
            .map_err(|why| failed(ConnectError::BadName { name: peer.to_owned(), why }))?;
        let host = match config.name.as_deref().and_then(|name| name.split_once('@')) {
            Some((_, host)) => host.to_owned(),
            None => names::host_for_peer(&peer_name),
        };
        let mut identity = Identity::unnamed(config, &host, peer_name.style())?;
        let established = dialer::dial_unnamed(&identity, &peer_name).await.map_err(failed)?;
        (identity.name, identity.creation) = established.own();
        let (name, creation) = (identity.name.as_atom().clone(), identity.creation);
        info!(name = name.as_str(), creation, named_by = peer, "node started");
        let inner = NodeInner::new(identity.config.clone(), name, creation, NetKernel::new(identity));
        inner.net_kernel.attach(&inner);
        inner.net_kernel.install(&inner, established, None).await;
        Ok(Self::from_inner(inner))
    }

    /// Stops the node: it has left the registries of Horde ([`HordeRegistry::leave`](crate::service::horde::HordeRegistry::leave), which takes
    /// two seconds at the most), its name is free, its connections are closed, links and monitors across them have fired. Processes of
    /// this node live on, without peers.
    pub async fn stop(&self) {
        self.leave_registries().await;
        self.inner().discovery.close().await;
        let kernel = &self.inner().net_kernel;
        let listening = kernel.stop_listening();
        if let Some(registration) = &listening.registration {
            let own = kernel.identity().name.alive();
            let others: Vec<String> = registration.serves().into_iter().filter(|name| name != own).collect();
            if !others.is_empty() {
                warn!(
                    names = others.join(", "),
                    "this node served the EPMD of these; other nodes cannot find them until one that can serve takes over \
                     or an epmd is started"
                );
            }
        }
        drop(listening);
        kernel.stop().await;
        info!(name = self.name().as_str(), "node stopped");
    }

    /// Connects to a node, or finds it connected (`net_kernel:connect_node/1`).
    ///
    /// # Errors
    /// Why not, in words that say how to mend it.
    pub async fn connect(&self, node: &str) -> Result<Arc<Link>, ConnectError> {
        let name =
            NodeName::parse(node).map_err(|why| ConnectError::BadName { name: node.to_owned(), why })?;
        self.inner().net_kernel.connect(name.as_atom()).await
    }

    /// Ends the connection to a node (`erlang:disconnect_node/1`); `false` if there was none.
    pub async fn disconnect(&self, node: &str) -> bool {
        match Atom::new(node) {
            Ok(node) => self.inner().net_kernel.disconnect(&node).await,
            Err(_) => false,
        }
    }

    /// Changes this node's cookie (`erlang:set_cookie(node(), Cookie)`). Connections that are up stay; the next handshakes, in
    /// either direction, use the new one, except with peers that have one of their own.
    ///
    /// # Errors
    /// If this cannot be a cookie. Nothing has changed then.
    pub fn set_cookie(&self, cookie: &str) -> Result<(), CookieError> {
        let own = Cookie::new(cookie)?;
        self.inner().net_kernel.identity().change_cookies(|cookies| cookies.own = own);
        Ok(())
    }

    /// Changes the cookie that is used with one peer only (`erlang:set_cookie/2`).
    ///
    /// # Errors
    /// As [`Node::set_cookie`].
    pub fn set_cookie_of(&self, node: &str, cookie: &str) -> Result<(), CookieError> {
        let cookie = Cookie::new(cookie)?;
        let identity = self.inner().net_kernel.identity();
        identity.change_cookies(|cookies| drop(cookies.of_peers.insert(node.to_owned(), cookie)));
        Ok(())
    }

    /// The connected nodes (`erlang:nodes/1`), in order.
    pub fn nodes(&self, which: NodeType) -> Vec<Atom> {
        self.inner().net_kernel.nodes(which)
    }

    /// The live connections, in the order of the names of their peers.
    pub fn links(&self) -> Vec<Arc<Link>> {
        self.inner().net_kernel.links()
    }

    /// Where this node listens; the port is the same everywhere. Empty if it does not.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.inner().net_kernel.addresses()
    }
}

fn warn_of_open_addresses(listeners: &[TcpListener]) {
    let open: Vec<SocketAddr> = listeners
        .iter()
        .filter_map(|listener| listener.local_addr().ok())
        .filter(|address| !address.ip().is_loopback())
        .collect();
    if !open.is_empty() {
        warn!(
            addresses = ?open,
            "listening without TLS beyond this machine: whoever can watch or change this traffic can take over the cluster"
        );
    }
}

impl NetKernel {
    pub(crate) fn listening(&self, listening: Listening) {
        *self.listening.lock().unwrap_or_else(PoisonError::into_inner) = listening;
    }

    fn stop_listening(&self) -> Listening {
        std::mem::take(&mut *self.listening.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn addresses(&self) -> Vec<SocketAddr> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner).addresses.clone()
    }
}

/// The state of [`NetKernel`] that belongs to this module.
pub(crate) type ListeningSlot = Mutex<Listening>;

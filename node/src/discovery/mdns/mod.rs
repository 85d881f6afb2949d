//! Nodes of the local link by multicast DNS (RFC 6762) and DNS-based service discovery (RFC 6763).
//!
//! ```toml
//! [cluster]
//! strategy = "mdns"
//! allow = ["*.local", "10.0.0.0/8"]   # anybody on the link can announce a name
//! ```
//!
//! # What is announced
//! Two services with the same instance, the name of the node: `_epmd._tcp` with the port of EPMD, as Nerves has it, and
//! `_foundation._tcp`. Their TXT record has
//!
//! | key | value |
//! |---|---|
//! | `node` | `name@host`, exactly as the node calls itself |
//! | `version` | of this program |
//! | `dist_port` | the port of the node itself |
//! | `cluster` | `[cluster] name`, if there is one |
//!
//! A node that does not listen announces nothing, one that only listens on loopback addresses does so on that interface alone.
//!
//! # What is found
//! Every few seconds both services are asked for on each interface, from a port of this node's own. Responders answer such a *legacy
//! unicast query* (RFC 6762 section 6.7) to that port alone; so does `mdns_lite`, which announces nothing by itself, and two of them on
//! one host both do. Beside that, what others announce is heard, so that a node that starts is found at once and one that says
//! goodbye is given up.
//!
//! An answer with `node=` names that node. One for `_epmd._tcp` without it, which is what Nerves announces, names all nodes
//! that the EPMD at its port knows, on the host that the answer names. Answers from other networks than those this machine is on
//! are ignored, and so are nodes that say they belong to a cluster of another name.
//!
//! Nothing of this is authenticated, so what is dialled must be allowed ([`Trust::Open`](super::Trust::Open)).

mod announce;
mod message;
mod network;
mod resolve;
mod service;
mod table;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foundation_proto::dist::NodeName;
use serde::Deserialize;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use self::announce::{Announcement, Announcer};
use self::message::{MAX_MESSAGE, Type};
use self::network::{Asking, Interfaces, Listening};
pub(crate) use self::resolve::resolve;
use self::service::{EPMD, FOUNDATION, Names, Service};
use self::table::Table;
use super::config::{Context, ms};
use super::heard::Heard;
use super::local_epmd::names_at;
use super::polling::{after, jitter};
use super::{Candidate, Reports, Running, SourceError, Strategy};
use crate::random;

/// The port of multicast DNS.
const PORT: u16 = 5353;
/// The pauses after the first queries; then the interval.
const FIRST_PAUSES: [Duration; 3] =
    [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];
/// What each known node adds to the pause: all of them answer.
const PER_NODE: Duration = Duration::from_millis(50);
/// What it grows to at most.
const SLOWEST: Duration = Duration::from_secs(30);
/// How often the announcer is looked after, which bounds what a flood leaves in its cache. Its thread has to wake for it.
const TENDING: Duration = Duration::from_secs(2);
/// How long nothing is announced after a flood, so that memory that it took is not taken at once again.
const AFTER_FLOOD: Duration = Duration::from_secs(10);
/// Queries in a row that a node may leave without an answer before it is given up.
const UNANSWERED: u32 = 4;
/// EPMDs of others that are asked at once.
const MAX_LOOKUPS: usize = 8;
/// EPMDs of others that are remembered as asked.
const MAX_ASKED: usize = 256;
/// How long one of them is not asked again.
const ASKED: Duration = Duration::from_secs(4);
/// Nodes of one host that are taken from its EPMD.
const MAX_OF_HOST: usize = 64;
/// How long an EPMD has to answer.
const EPMD_ANSWER: Duration = Duration::from_secs(2);

/// The keys of this strategy.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Options {
    /// The pause between two queries, in milliseconds. 5,000.
    #[serde(with = "ms")]
    pub polling_interval: Duration,
    /// The IPv4 address of the only interface to use, over IPv4 alone then. Default: all, over IPv4 and IPv6.
    pub multicast_if: Option<Ipv4Addr>,
    /// Whether this node is announced. True.
    pub announce: bool,
    /// The UDP port. 5353, which all others use.
    pub port: u16,
}

impl Default for Options {
    fn default() -> Self {
        Self { polling_interval: Duration::from_secs(5), multicast_if: None, announce: true, port: PORT }
    }
}

/// The strategy.
#[derive(Debug)]
pub struct Mdns {
    options: Options,
    context: Context,
}

impl Mdns {
    /// The strategy for a node.
    pub fn new(options: Options, context: &Context) -> Self {
        Self { options, context: context.clone() }
    }
}

impl Strategy for Mdns {
    fn run(self: Arc<Self>, reports: Reports) -> Running {
        Box::pin(async move {
            loop {
                let error = match Browser::open(&self.options, &self.context) {
                    Ok(browser) => browser.run(&reports).await,
                    Err(error) => SourceError::new(format!("no socket for mDNS: {error}")),
                };
                reports.failed(error).await;
                tokio::time::sleep(random::between(PAUSE / 2, PAUSE)).await;
            }
        })
    }
}

/// The pause after a failure of the sockets.
const PAUSE: Duration = Duration::from_secs(5);

/// A source at work.
struct Browser<'a> {
    options: &'a Options,
    context: &'a Context,
    interfaces: Interfaces,
    asking: Asking,
    listening: Option<Listening>,
    announcer: Option<Announcer>,
    /// When it is to be started anew.
    announce_at: Option<tokio::time::Instant>,
    /// A node, and the port of the EPMD that its announcement names.
    heard: Heard<(Found, Option<u16>)>,
    table: Table,
    /// When the EPMD at an address was asked.
    asked: BTreeMap<SocketAddr, Instant>,
    lookups: JoinSet<Vec<Found>>,
}

/// A node, and what it was found by.
struct Found {
    node: NodeName,
    instance: String,
    from: IpAddr,
}

impl<'a> Browser<'a> {
    fn open(options: &'a Options, context: &'a Context) -> std::io::Result<Self> {
        let listening = Listening::open(options.port).map_err(|error| {
            warn!(port = options.port, %error, "mDNS announcements cannot be heard; nodes are found by asking only");
        });
        Ok(Self {
            options,
            context,
            interfaces: Interfaces::read(options.multicast_if)?,
            asking: Asking::open(options.port)?,
            listening: listening.ok(),
            announcer: announcer(options, context),
            announce_at: None,
            heard: Heard::default(),
            table: Table::default(),
            asked: BTreeMap::new(),
            lookups: JoinSet::new(),
        })
    }

    /// Runs until a socket fails.
    async fn run(mut self, reports: &Reports) -> SourceError {
        let Some(query) = message::query(0, &[(EPMD, Type::Ptr), (FOUNDATION, Type::Ptr)]) else {
            return SourceError::new("no query can be made for mDNS");
        };
        let mut buffers = (vec![0; MAX_MESSAGE], vec![0; MAX_MESSAGE]);
        let mut pauses = FIRST_PAUSES.into_iter();
        let mut next = tokio::time::Instant::now();
        let mut tend_at = after(TENDING);
        loop {
            let received = tokio::select! {
                () = tokio::time::sleep_until(tend_at) => {
                    self.tend();
                    tend_at = after(TENDING);
                    continue;
                }
                () = tokio::time::sleep_until(next) => {
                    self.refresh();
                    let pause = pauses.next().unwrap_or(self.options.polling_interval);
                    let nodes = u32::try_from(self.table.len()).unwrap_or(u32::MAX);
                    let pause = pause.saturating_add(PER_NODE.saturating_mul(nodes)).min(SLOWEST.max(pause));
                    match self.asking.ask(&query, &self.interfaces).await {
                        Ok(()) => {
                            for node in self.table.silent(Instant::now(), pause * UNANSWERED + ASKED) {
                                reports.gone(node).await;
                            }
                        }
                        // Who cannot ask must not wonder about the silence.
                        Err(error) => {
                            let why = format!("no mDNS query can be sent: {error}; see the interfaces of this machine");
                            reports.failed(SourceError::new(why)).await;
                        }
                    }
                    next = after(jitter(pause));
                    continue;
                }
                Some(found) = self.lookups.join_next(), if !self.lookups.is_empty() => {
                    for found in found.unwrap_or_default() {
                        self.report(found, None, reports).await;
                    }
                    continue;
                }
                (found, addresses) = self.heard.resolved() => {
                    for (found, port) in found {
                        self.resolved(found, port, addresses.clone(), reports).await;
                    }
                    continue;
                }
                received = self.asking.receive(&mut buffers.0) => received.map(|(length, from)| (buffers.0.get(..length), from)),
                received = hear(self.listening.as_ref(), &mut buffers.1) => received.map(|(length, from)| (buffers.1.get(..length), from)),
            };
            let (datagram, from) = match received {
                Ok((Some(datagram), from)) => (datagram, from.ip()),
                Ok((None, _)) => continue,
                Err(error) => return SourceError::new(format!("an mDNS socket failed: {error}")),
            };
            if !self.heard.takes() || !self.interfaces.is_on_link(&from) {
                continue;
            }
            for service in
                message::response(datagram).map(|records| service::services(&records)).unwrap_or_default()
            {
                self.take(service, from, reports).await;
            }
        }
    }

    /// Follows what has changed on this machine.
    fn refresh(&mut self) {
        match Interfaces::read(self.options.multicast_if) {
            Ok(interfaces) => self.interfaces = interfaces,
            Err(error) => debug!(%error, "the interfaces cannot be read"),
        }
        if let Some(listening) = &mut self.listening {
            listening.join(&self.interfaces);
        }
    }

    /// Looks after the announcer.
    fn tend(&mut self) {
        let now = tokio::time::Instant::now();
        if self.announcer.as_mut().is_some_and(|announcer| !announcer.look()) {
            self.announcer = None;
            self.announce_at = Some(now + AFTER_FLOOD);
        }
        if self.announce_at.take_if(|at| *at <= now).is_some() {
            self.announcer = announcer(self.options, self.context);
        }
    }

    async fn take(&mut self, service: Service, from: IpAddr, reports: &Reports) {
        let Service { instance, names, server, cluster, goodbye } = service;
        let node = match &names {
            Names::Node(node) => Some(node),
            _ => None,
        };
        if goodbye {
            for node in self.table.goodbye(Instant::now(), &instance, node, from) {
                reports.gone(node).await;
            }
            return;
        }
        if let (Some(own), Some(other)) = (&self.context.cluster, &cluster)
            && own != other
        {
            return;
        }
        match (names, server) {
            (Names::Node(node), server) => {
                let port = server.map(|(_, port)| port);
                self.report(Found { node, instance, from }, Some(port.unwrap_or(0)), reports).await;
            }
            (Names::Epmd, Some((host, port))) => self.look_up(instance, host, SocketAddr::new(from, port)),
            _ => debug!(instance, %from, "an mDNS service that names no node"),
        }
    }

    /// Asks an EPMD for the nodes of its host. The answer came from this address, so nobody else can be made to be asked.
    fn look_up(&mut self, instance: String, host: String, epmd: SocketAddr) {
        // Such an address says nothing without its interface, and no node has it in its name.
        if matches!(epmd.ip(), IpAddr::V6(ip) if ip.is_unicast_link_local()) {
            debug!(instance, %epmd, "an EPMD at a link-local address is not asked");
            return;
        }
        let now = Instant::now();
        self.asked.retain(|_, at| now.saturating_duration_since(*at) < ASKED);
        // The EPMD of this machine is the business of `local_epmd`, and its nodes do not call themselves `.local`.
        if self.asked.contains_key(&epmd)
            || self.asked.len() >= MAX_ASKED
            || self.lookups.len() >= MAX_LOOKUPS
        {
            return;
        }
        self.asked.insert(epmd, now);
        self.lookups.spawn(async move {
            let answer = tokio::time::timeout(EPMD_ANSWER, names_at(epmd.ip(), epmd.port(), &host)).await;
            match answer {
                Ok(Ok(candidates)) => {
                    let nodes = candidates.into_iter().map(|candidate| candidate.node).take(MAX_OF_HOST);
                    nodes.map(|node| Found { node, instance: instance.clone(), from: epmd.ip() }).collect()
                }
                Ok(Err(error)) => {
                    debug!(instance, %error, "no answer from the EPMD that mDNS names");
                    Vec::new()
                }
                Err(_) => Vec::new(),
            }
        });
    }

    /// Reports a node; `port` is that of the EPMD that its announcement names.
    async fn report(&mut self, found: Found, port: Option<u16>, reports: &Reports) {
        if found.node == self.context.own {
            return;
        }
        if let Some(((found, port), addresses)) = self.heard.addresses(&found.node.clone(), (found, port)) {
            self.resolved(found, port, addresses, reports).await;
        }
    }

    /// Reports a node whose host leads to these addresses.
    async fn resolved(&mut self, found: Found, port: Option<u16>, addresses: Vec<IpAddr>, reports: &Reports) {
        let Found { node, instance, from } = found;
        // Such a name means something on its own machine only, and there only to those who share its EPMD.
        let local = !addresses.is_empty() && addresses.iter().all(IpAddr::is_loopback);
        let shared = port.is_none_or(|port| port == self.context.epmd_port);
        if local && !(self.interfaces.is_own(&from) && shared) {
            return;
        }
        if !self.table.seen(Instant::now(), &node, &instance, from) {
            return;
        }
        let evidence = format!("mDNS: {instance} from {from}");
        reports.seen(Candidate { addresses, ..Candidate::new(node, evidence) }).await;
    }
}

/// The announcement of this node, if it is to be announced and can be.
fn announcer(options: &Options, context: &Context) -> Option<Announcer> {
    if !options.announce {
        return None;
    }
    let announcement = Announcement::new(context, options.port, options.multicast_if.map(IpAddr::V4));
    match announcement.and_then(|announcement| announcement.map(Announcer::start).transpose()) {
        Ok(announcer) => announcer,
        Err(error) => {
            warn!(%error, "this node cannot be announced by mDNS");
            None
        }
    }
}

async fn hear(listening: Option<&Listening>, buffer: &mut [u8]) -> std::io::Result<(usize, SocketAddr)> {
    match listening {
        Some(listening) => listening.receive(buffer).await,
        None => std::future::pending().await,
    }
}

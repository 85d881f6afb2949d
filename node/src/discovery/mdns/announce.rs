//! Announcing this node, by the crate `mdns-sd`: it probes, announces, answers, resolves conflicts, follows changes of the
//! interfaces, and says goodbye.

use std::net::IpAddr;
use std::time::Duration;

use mdns_sd::{DaemonEvent, Error, IfKind, Metrics, Receiver, ServiceDaemon, ServiceInfo};
use sha2::{Digest, Sha256};
use tracing::{debug, trace, warn};

use super::service::{EPMD, FOUNDATION};
use crate::discovery::config::Context;

/// How long the goodbye may take.
const GOODBYE: Duration = Duration::from_millis(250);
/// Records of others that `mdns-sd` may have in its cache, which has no bound of its own. Beyond, it is started anew.
const MAX_CACHED: i64 = 8192;
/// The longest label (RFC 1035 section 3.1).
const MAX_LABEL: usize = 63;
/// Events of the daemon that are looked at in one go.
const EVENTS: usize = 32;

/// What is announced.
#[derive(Clone, Debug)]
pub(super) struct Announcement {
    port: u16,
    interfaces: Vec<IfKind>,
    services: Vec<ServiceInfo>,
}

impl Announcement {
    /// That of a node; `None` if nobody can connect to it.
    ///
    /// # Errors
    /// If its name cannot stand in a record.
    pub(super) fn new(context: &Context, port: u16, only: Option<IpAddr>) -> Result<Option<Self>, Error> {
        let Some(dist_port) = context.listens.first().map(|address| address.port()) else { return Ok(None) };
        let interfaces = match only {
            Some(ip) => vec![interface(ip)],
            // Not where the node could not be reached anyway: on a laptop whose name leads to 127.0.1.1 nothing leaves it.
            None => context.listens.iter().flat_map(|address| interfaces(address.ip())).collect(),
        };
        let instance = match context.own.as_str() {
            name if name.len() <= MAX_LABEL => name,
            _ => context.own.alive().get(..MAX_LABEL).unwrap_or("foundation"),
        };
        // A host name of its own: the machine's may be announced by another responder, with which there must be no conflict.
        let digest = Sha256::digest(context.own.as_str());
        let hex: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        let host = format!("foundation-{hex}.local.");
        let dist = dist_port.to_string();
        let mut properties = vec![
            ("node", context.own.as_str()),
            ("version", env!("CARGO_PKG_VERSION")),
            ("dist_port", &dist),
        ];
        if let Some(cluster) = &context.cluster {
            properties.push(("cluster", cluster));
        }
        let mut services = Vec::new();
        let types = if context.uses_epmd {
            vec![(EPMD, context.epmd_port), (FOUNDATION, context.epmd_port)]
        } else {
            vec![(FOUNDATION, dist_port)]
        };
        for (kind, port) in types {
            let mut service =
                ServiceInfo::new(&format!("{kind}."), instance, &host, (), port, properties.as_slice())?
                    .enable_addr_auto();
            service.set_interfaces(interfaces.clone());
            services.push(service);
        }
        Ok(Some(Self { port, interfaces, services }))
    }
}

/// The interfaces that an address to listen on stands for.
fn interfaces(ip: IpAddr) -> Vec<IfKind> {
    match ip {
        IpAddr::V4(v4) if v4.is_unspecified() => vec![IfKind::IPv4],
        IpAddr::V6(v6) if v6.is_unspecified() => vec![IfKind::IPv4, IfKind::IPv6],
        ip => vec![interface(ip)],
    }
}

fn interface(ip: IpAddr) -> IfKind {
    match ip {
        IpAddr::V4(v4) if v4.is_loopback() => IfKind::LoopbackV4,
        IpAddr::V6(v6) if v6.is_loopback() => IfKind::LoopbackV6,
        ip => IfKind::Addr(ip),
    }
}

/// A node that is being announced, until this is dropped.
pub(super) struct Announcer {
    announcement: Announcement,
    daemon: ServiceDaemon,
    events: Receiver<DaemonEvent>,
    metrics: Option<Receiver<Metrics>>,
}

impl Announcer {
    /// Begins.
    ///
    /// # Errors
    /// If there is no thread or socket for it.
    pub(super) fn start(announcement: Announcement) -> Result<Self, Error> {
        let daemon = ServiceDaemon::new_with_port(announcement.port)?;
        let events = daemon.monitor()?;
        let announcer = Self { announcement, daemon, events, metrics: None };
        announcer.daemon.disable_interface(IfKind::All)?;
        announcer.daemon.enable_interface(announcer.announcement.interfaces.clone())?;
        for service in &announcer.announcement.services {
            announcer.daemon.register(service.clone())?;
        }
        Ok(announcer)
    }

    /// Looks after it, now and then; `false` if it has to be started anew.
    pub(super) fn look(&mut self) -> bool {
        for event in self.events.try_iter().take(EVENTS) {
            match event {
                DaemonEvent::Error(error) => warn!(%error, "this node may not be announced by mDNS"),
                DaemonEvent::NameChange(change) => {
                    debug!(
                        from = change.original,
                        to = change.new_name,
                        "another node has this name in mDNS"
                    );
                }
                event => trace!(?event, "mDNS"),
            }
        }
        if let Some(answer) = self.metrics.take().map(|metrics| metrics.try_recv()) {
            let Ok(metrics) = answer else { return !self.events.is_disconnected() };
            let kinds =
                ["cached-ptr", "cached-srv", "cached-addr", "cached-txt", "cached-nsec", "cached-subtype"];
            let cached: i64 = kinds.iter().filter_map(|kind| metrics.get(*kind)).sum();
            if cached > MAX_CACHED {
                warn!(
                    cached,
                    "somebody floods mDNS: the cache is emptied, and this node is not announced for a while"
                );
                return false;
            }
        }
        self.metrics = self.daemon.get_metrics().ok();
        !self.events.is_disconnected()
    }
}

impl Drop for Announcer {
    fn drop(&mut self) {
        // The thread takes a moment for it; a process that ends before would stay in the caches of others for two minutes.
        match self.daemon.shutdown() {
            Ok(done) => drop(done.recv_timeout(GOODBYE)),
            Err(error) => debug!(%error, "no goodbye by mDNS"),
        }
    }
}

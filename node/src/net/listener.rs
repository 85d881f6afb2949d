//! Listening sockets: addresses, accepting under pressure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use foundation_proto::Error;
use foundation_proto::error::{PeerIncompatible, PeerMisbehaved};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tracing::{Instrument, debug, info_span, warn};

use super::dialer;
use super::handshake::{self, Refused};
use super::stream::Stream;
use super::{Identity, TlsError};
use crate::node::NodeInner;

/// Connections that the kernel keeps for us until they are accepted.
const BACKLOG: i32 = 1024;

/// How long to wait when no file descriptor is left: by then some connection may have closed.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// A listening socket on exactly this address: one on `::` does not also take IPv4.
///
/// # Errors
/// What the system says.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A node that comes back gets its port although old connections still linger in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Whether one of the listeners already takes connections to `ip`.
pub(crate) fn covers(listeners: &[TcpListener], ip: IpAddr) -> bool {
    listeners
        .iter()
        .filter_map(|listener| listener.local_addr().ok())
        .any(|own| own.ip() == ip || (own.ip().is_unspecified() && own.is_ipv4() == ip.is_ipv4()))
}

/// The next connection. Running out of descriptors or memory is waited out: those who are connected are not concerned.
pub(crate) async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let mut said = false;
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => match error.kind() {
                // The peer has given up before we came to it.
                io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::Interrupted => {}
                _ => {
                    if !said {
                        warn!(%error, "cannot accept connections; raise the limit of open files (ulimit -n)");
                        said = true;
                    }
                    tokio::time::sleep(EXHAUSTED).await;
                }
            },
        }
    }
}

/// Accepts connections to a node until the task is aborted or the node is gone.
pub(super) async fn run(node: Weak<NodeInner>, listener: TcpListener, half_open: Arc<HalfOpen>) {
    loop {
        let (stream, address) = accept(&listener).await;
        let Some(node) = node.upgrade() else { return };
        dialer::set_options(&stream, &node.net_kernel.identity().config);
        let half_open = Arc::clone(&half_open);
        let slot = half_open.next_number();
        let span = info_span!(parent: None, "accept", %address);
        let task = tokio::spawn({
            let half_open = Arc::clone(&half_open);
            async move {
                let outcome = match encrypt(node.net_kernel.identity(), stream).await {
                    Ok(stream) => {
                        let session = stream.session().cloned();
                        // From then on no flood of strangers can push it out.
                        let proved = || half_open.leave(slot);
                        let outcome = handshake::accept(&node, stream, address, proved).await;
                        outcome.map_err(|refused| (refused, session.and_then(|session| session.failure())))
                    }
                    Err(error) => {
                        half_open.leave(slot);
                        half_open.log_tls(&error, address);
                        return;
                    }
                };
                if outcome.is_err() {
                    half_open.leave(slot);
                }
                match outcome {
                    Ok(()) => {}
                    Err((_, Some(error))) => half_open.log_tls(&error, address),
                    Err((refused, None)) => half_open.log(&refused, address),
                }
            }
            .instrument(span)
        });
        half_open.enter(slot, address.ip(), task.abort_handle());
    }
}

/// The TLS handshake, if this node has TLS.
async fn encrypt(identity: &Identity, stream: TcpStream) -> Result<Stream, TlsError> {
    match &identity.tls {
        None => Ok(Stream::plain(stream)),
        Some(tls) => tls.accept(stream, identity.step_timeout()).await,
    }
}

/// The accepted connections that have not proved the cookie yet.
///
/// There may be so many in all and so many from one address. One more takes the place of the oldest: a flood of silent
/// connections then only pushes out itself, and a peer that shakes hands in milliseconds still gets in.
#[derive(Debug)]
pub(crate) struct HalfOpen {
    most: usize,
    most_per_ip: usize,
    state: Mutex<HalfOpenState>,
}

#[derive(Debug, Default)]
struct HalfOpenState {
    next: u64,
    /// By number, so the oldest is the first. `None` until the task is known.
    open: BTreeMap<u64, (IpAddr, AbortHandle)>,
    /// Of each address, the numbers.
    by_ip: HashMap<IpAddr, BTreeSet<u64>>,
    /// Handshakes that ended before they were entered here.
    left_early: BTreeSet<u64>,
    last_line: Option<Instant>,
    unsaid: u64,
}

/// One line of the log per second is for connections that come to nothing; a flood must not fill the disk.
const LOG_EVERY: Duration = Duration::from_secs(1);

impl HalfOpen {
    pub(crate) fn new(most: usize, most_per_ip: usize) -> Self {
        Self { most: most.max(1), most_per_ip: most_per_ip.max(1), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, HalfOpenState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_number(&self) -> u64 {
        let mut state = self.state();
        state.next += 1;
        state.next
    }

    fn enter(&self, number: u64, ip: IpAddr, task: AbortHandle) {
        let mut state = self.state();
        if state.left_early.remove(&number) {
            return;
        }
        state.open.insert(number, (ip, task));
        let of_ip = state.by_ip.entry(ip).or_default();
        of_ip.insert(number);
        let oldest = if of_ip.len() > self.most_per_ip {
            of_ip.first().copied()
        } else if state.open.len() > self.most {
            state.open.first_key_value().map(|(number, _)| *number)
        } else {
            None
        };
        if let Some((_, task)) = oldest.and_then(|oldest| state.remove(oldest)) {
            task.abort();
            if let Some(unsaid) = state.may_log() {
                warn!(%ip, unsaid, "too many connections without a proof of the cookie; the oldest are closed");
            }
        }
    }

    /// The handshake has ended, one way or the other.
    fn leave(&self, number: u64) {
        let mut state = self.state();
        if state.remove(number).is_none() {
            state.left_early.insert(number);
        }
    }

    fn log_tls(&self, error: &TlsError, address: SocketAddr) {
        match (error, self.state().may_log()) {
            (TlsError::NoAnswer | TlsError::Closed, _) | (_, None) => {
                debug!(%address, %error, "connection attempt came to nothing");
            }
            (_, Some(unsaid)) => warn!(%address, unsaid, %error, "Connection attempt rejected"),
        }
    }

    fn log(&self, refused: &Refused, address: SocketAddr) {
        let peer = refused.peer.as_ref().map_or("", |peer| peer.as_str());
        let error = &refused.error;
        let Some(unsaid) = self.state().may_log() else {
            debug!(peer, %address, %error, "connection attempt came to nothing");
            return;
        };
        match error {
            Error::Closed(_) | Error::PeerIncompatible(PeerIncompatible::Nok) => {
                debug!(peer, %address, %error, "connection attempt came to nothing");
            }
            Error::PeerMisbehaved(PeerMisbehaved::WrongCookie) => warn!(
                peer, %address, unsaid,
                "Connection attempt rejected. Invalid challenge reply: the peer has another cookie"
            ),
            Error::PeerIncompatible(PeerIncompatible::NotAllowed) => {
                warn!(peer, %address, unsaid, "Connection attempt from a node that is not allowed");
            }
            _ => warn!(peer, %address, unsaid, %error, "Connection attempt rejected"),
        }
    }
}

impl HalfOpenState {
    fn remove(&mut self, number: u64) -> Option<(IpAddr, AbortHandle)> {
        let entry = self.open.remove(&number)?;
        if let Some(of_ip) = self.by_ip.get_mut(&entry.0) {
            of_ip.remove(&number);
            if of_ip.is_empty() {
                self.by_ip.remove(&entry.0);
            }
        }
        Some(entry)
    }

    /// Whether a line may be logged now, and how many were not since the last.
    fn may_log(&mut self) -> Option<u64> {
        let now = Instant::now();
        if self.last_line.is_some_and(|last| now.duration_since(last) < LOG_EVERY) {
            self.unsaid += 1;
            return None;
        }
        self.last_line = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_flood_pushes_out_itself() {
        let half_open = HalfOpen::new(5, 3);
        let mut tasks = Vec::new();
        for n in 0..10u8 {
            let number = half_open.next_number();
            let task = tokio::spawn(std::future::pending::<()>());
            // Addresses 1, 2, 3, 1, 2, 3, …: the bound of each is 3, of all 5.
            half_open.enter(number, IpAddr::from([10, 0, 0, 1 + n % 3]), task.abort_handle());
            tasks.push((number, task));
        }
        assert_eq!(half_open.state().open.len(), 5);
        let open: Vec<u64> = half_open.state().open.keys().copied().collect();
        assert_eq!(open, [6, 7, 8, 9, 10]);
        for (number, task) in tasks {
            half_open.leave(number);
            if number < 6 {
                assert!(task.await.unwrap_err().is_cancelled());
            } else {
                task.abort();
            }
        }
        assert!(half_open.state().open.is_empty() && half_open.state().by_ip.is_empty());
    }

    #[tokio::test]
    async fn one_address_cannot_take_the_places_of_others() {
        let half_open = HalfOpen::new(100, 2);
        let mut other = None;
        for n in 0..20u8 {
            let number = half_open.next_number();
            let task = tokio::spawn(std::future::pending::<()>());
            let ip = IpAddr::from([10, 0, 0, u8::from(n == 0)]);
            half_open.enter(number, ip, task.abort_handle());
            if n == 0 {
                other = Some(number);
            }
        }
        assert_eq!(half_open.state().open.len(), 3);
        assert!(half_open.state().open.contains_key(&other.unwrap()));
    }
}

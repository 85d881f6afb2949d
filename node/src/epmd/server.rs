//! An EPMD served by this process: the sockets around [`foundation_proto::epmd::Names`].

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use foundation_proto::Mono;
use foundation_proto::epmd::Names;
use foundation_proto::epmd::names::{Action, ConnectionId, NamesConfig, is_local_peer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, info};

use super::EpmdError;
use super::client::LOCAL;
use crate::net::listener;

/// How long a client may take to accept an answer.
const WRITE: Duration = Duration::from_secs(10);

/// Events that wait for the task that owns the table; readers wait when it is full.
const EVENTS: usize = 256;

/// An EPMD that serves until it is dropped.
#[derive(Debug)]
pub struct Server {
    addresses: Vec<SocketAddr>,
    registered: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

enum Event {
    Accepted(TcpStream, SocketAddr),
    Input(ConnectionId, Bytes),
    Closed(ConnectionId),
}

enum Order {
    Write(Bytes),
    Close,
}

impl Server {
    /// Listens on the loopback addresses and on `addresses`, and serves from a task of its own.
    ///
    /// As with OTP's `epmd`, an implicit loopback address that does not exist on this host is no error.
    ///
    /// # Errors
    /// If the port is taken, or an address that was asked for cannot be had.
    pub async fn start(port: u16, addresses: &[IpAddr], max_connections: usize) -> Result<Self, EpmdError> {
        let bind = |error| EpmdError::Bind { port, error };
        let mut listeners = Vec::new();
        let mut port = port;
        for ip in LOCAL.iter().chain(addresses.iter().filter(|ip| !ip.is_loopback())) {
            match listener::bind(SocketAddr::new(*ip, port)) {
                Ok(listener) => {
                    // Port 0 means any, but the same one everywhere.
                    port = listener.local_addr().map_err(bind)?.port();
                    listeners.push(listener);
                }
                Err(error)
                    if error.kind() == io::ErrorKind::AddrInUse && listener::covers(&listeners, *ip) => {}
                Err(error)
                    if ip.is_ipv6() && ip.is_loopback() && error.kind() != io::ErrorKind::AddrInUse =>
                {
                    debug!(%error, "no EPMD on ::1");
                }
                Err(error) => return Err(bind(error)),
            }
        }
        let addresses =
            listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect::<Vec<_>>();
        let mut config = NamesConfig::new(port);
        config.max_connections = max_connections;
        config.relaxed_command_check = std::env::var_os("ERL_EPMD_RELAXED_COMMAND_CHECK").is_some();
        let registered = Arc::new(Mutex::new(Vec::new()));
        let (events, inbox) = mpsc::channel(EVENTS);
        let mut tasks = JoinSet::new();
        for listener in listeners {
            let events = events.clone();
            tasks.spawn(async move {
                loop {
                    let (stream, peer) = listener::accept(&listener).await;
                    if events.send(Event::Accepted(stream, peer)).await.is_err() {
                        return;
                    }
                }
            });
        }
        info!(?addresses, "serving an EPMD");
        let task = tokio::spawn(serve(Names::new(config), events, inbox, tasks, Arc::clone(&registered)));
        Ok(Self { addresses, registered, task })
    }

    /// Where it listens; the port is the same everywhere.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The names that are registered now, the latest first.
    pub fn registered(&self) -> Vec<String> {
        self.registered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until a client has told it to stop (`epmd -kill`).
    pub async fn stopped(&mut self) {
        // The task ends in no other way: it does not panic, and it is only aborted by the drop of this value.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Owns the table of names. All tasks of the connections end with it, because it owns `tasks`.
async fn serve(
    mut names: Names,
    events: mpsc::Sender<Event>,
    mut inbox: mpsc::Receiver<Event>,
    mut tasks: JoinSet<()>,
    registered: Arc<Mutex<Vec<String>>>,
) {
    let origin = Instant::now();
    let now = || Mono::ZERO + origin.elapsed();
    let mut connections: BTreeMap<ConnectionId, mpsc::UnboundedSender<Order>> = BTreeMap::new();
    let mut next = 0;
    loop {
        let deadline = names.poll_timeout().map(|at| origin + at.saturating_since(Mono::ZERO));
        tokio::select! {
            event = inbox.recv() => match event {
                Some(Event::Accepted(stream, peer)) => {
                    let is_local = stream.local_addr().is_ok_and(|own| is_local_peer(peer.ip(), own.ip()));
                    let id = ConnectionId(next);
                    next += 1;
                    // At most one answer and one close are ever ordered of a connection, so this does not grow.
                    let (orders, order) = mpsc::unbounded_channel();
                    connections.insert(id, orders);
                    tasks.spawn(connection(id, stream, order, events.clone()));
                    names.accept(id, is_local, now());
                }
                Some(Event::Input(id, input)) => names.handle_input(id, unix_seconds(), &input),
                Some(Event::Closed(id)) => {
                    connections.remove(&id);
                    names.handle_close(id);
                }
                None => return,
            },
            () = sleep_until(deadline) => names.handle_timeout(now()),
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
        }
        while let Some(action) = names.poll_action() {
            match action {
                Action::Reply(id, bytes) => {
                    if let Some(connection) = connections.get(&id) {
                        let _gone = connection.send(Order::Write(bytes));
                    }
                }
                Action::Close(id) => {
                    if let Some(connection) = connections.remove(&id) {
                        let _gone = connection.send(Order::Close);
                    }
                }
                Action::Terminate => {
                    info!("told to stop by a client");
                    // The answer is on its way in a task of its own.
                    connections.clear();
                    let _late = timeout(Duration::from_millis(200), async {
                        while tasks.join_next().await.is_some() {}
                    })
                    .await;
                    return;
                }
            }
        }
        let mut list = registered.lock().unwrap_or_else(PoisonError::into_inner);
        list.clear();
        list.extend(names.registered().filter_map(|node| node.name().map(str::to_owned)));
    }
}

async fn connection(
    id: ConnectionId,
    mut stream: TcpStream,
    mut orders: mpsc::UnboundedReceiver<Order>,
    events: mpsc::Sender<Event>,
) {
    let mut input = BytesMut::with_capacity(128);
    loop {
        tokio::select! {
            // Orders first: what a client says after its request must not overtake the answer.
            biased;
            order = orders.recv() => match order {
                Some(Order::Write(bytes)) => {
                    if !matches!(timeout(WRITE, stream.write_all(&bytes)).await, Ok(Ok(()))) {
                        break;
                    }
                }
                Some(Order::Close) | None => {
                    let _closed_already = stream.shutdown().await;
                    return;
                }
            },
            read = stream.read_buf(&mut input) => match read {
                Ok(0) | Err(_) => break,
                Ok(_) => {
                    if events.send(Event::Input(id, input.split().freeze())).await.is_err() {
                        return;
                    }
                    input.reserve(128);
                }
            },
        }
    }
    let _stopped = events.send(Event::Closed(id)).await;
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn unix_seconds() -> u32 {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    u32::try_from(seconds).unwrap_or(u32::MAX)
}

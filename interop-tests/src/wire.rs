//! A network between two hosts that a test can hurt: both are on loopback, and whatever goes from one to the other passes
//! through a relay of this process.
//!
//! ```text
//!   host A: nodes with ERL_EPMD_PORT = wire.a()        one EPMD        host B: nodes with ERL_EPMD_PORT = wire.b()
//!        │ PORT_PLEASE2 for a node of B ── wire ── the port of a relay             │
//!        └─────────────── connection ──────────── relay ───────────────────────────┘
//! ```
//!
//! Each host has a front before the same EPMD. A front knows which names were registered through it; asked for one of the
//! other host, it answers with the port of a relay to that node. So both sides can dial, and no node knows of the wire.
//!
//! What a relay cannot do: drop a packet. A stalled direction holds its bytes and lets them go when it flows again, as TCP's
//! retransmissions would, and a connection that was begun meanwhile reaches the other side only then, and only if nobody has
//! given it up. The system's own time-outs for lost packets are tested in network namespaces instead ([`crate::netns`]).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::Epmd;

/// One of the two hosts.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Host {
    /// The first.
    A,
    /// The second.
    B,
}

impl Host {
    fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// How bytes pass, each way; the index is the host that they come from.
#[derive(Clone, Copy, Debug, Default)]
struct Passage {
    stalled: [bool; 2],
    delay: [Duration; 2],
    /// Each connection is slower than the others by up to this, so that what is sent on different ones overtakes.
    spread: Duration,
    /// Bytes a second, each way and connection.
    rate: Option<u64>,
    /// Nothing longer than this is written at once.
    piece: Option<usize>,
    /// Connections up to this number are reset.
    cut: u64,
    /// Connections up to this number are dead, and only the given host does not know it.
    forgotten: u64,
    unaware: usize,
}

impl Passage {
    fn open(&self) -> bool {
        !self.stalled.contains(&true)
    }
}

/// The wire. Connections through it end when it is dropped.
#[derive(Debug)]
pub struct Wire {
    ports: [u16; 2],
    inner: Arc<Inner>,
    // Dropped last: its tasks end with it.
    runtime: Option<Runtime>,
}

#[derive(Debug)]
struct Inner {
    epmd: u16,
    passage: watch::Sender<Passage>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The names registered through each front.
    local: [BTreeSet<String>; 2],
    /// Relays by the dialling host and the dialled name.
    relays: BTreeMap<(Host, String), u16>,
    connections: u64,
    carried: [u64; 2],
    /// What one side has forgotten and the other still holds.
    corpses: Vec<TcpStream>,
}

impl Wire {
    /// Two hosts that share an EPMD.
    pub fn new(epmd: &Epmd) -> Self {
        Self::to_epmd(epmd.port)
    }

    /// The same for whatever serves as the EPMD on this port.
    pub fn to_epmd(epmd: u16) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let inner = Arc::new(Inner { epmd, passage: watch::Sender::default(), state: Mutex::default() });
        let ports = [Host::A, Host::B].map(|host| {
            let listener = runtime.block_on(listen());
            let port = listener.local_addr().unwrap().port();
            let inner = Arc::clone(&inner);
            runtime.spawn(async move {
                while let Ok((socket, _)) = listener.accept().await {
                    let inner = Arc::clone(&inner);
                    tokio::spawn(async move {
                        // An asker that goes away is none of our concern.
                        let _ = front(&inner, host, socket).await;
                    });
                }
            });
            port
        });
        Self { ports, inner, runtime: Some(runtime) }
    }

    /// The EPMD port of nodes on host A.
    pub fn a(&self) -> u16 {
        self.ports[0]
    }

    /// The EPMD port of nodes on host B.
    pub fn b(&self) -> u16 {
        self.ports[1]
    }

    fn change(&self, change: impl FnOnce(&mut Passage)) {
        self.inner.passage.send_modify(change);
    }

    /// Nothing from this host arrives any more.
    pub fn stall_from(&self, host: Host) {
        self.change(|passage| passage.stalled[host as usize] = true);
    }

    /// Nothing arrives either way.
    pub fn partition(&self) {
        self.change(|passage| passage.stalled = [true; 2]);
    }

    /// Everything flows again, with what was held.
    pub fn heal(&self) {
        self.change(|passage| passage.stalled = [false; 2]);
    }

    /// Everything takes this long each way; each connection up to `spread` longer.
    pub fn delay(&self, delay: Duration, spread: Duration) {
        self.change(|passage| (passage.delay, passage.spread) = ([delay; 2], spread));
    }

    /// Bytes a second that a connection carries each way.
    pub fn rate(&self, bytes: u64) {
        self.change(|passage| passage.rate = Some(bytes));
    }

    /// Bytes arrive in pieces of at most this length.
    pub fn pieces(&self, length: usize) {
        self.change(|passage| passage.piece = Some(length));
    }

    /// Resets the connections that there are.
    pub fn cut(&self) {
        let last = self.connections();
        self.change(|passage| passage.cut = last);
    }

    /// The connections that there are die without a word to `unaware`: its sockets stay open and silent. The other host's are
    /// reset.
    pub fn half_open(&self, unaware: Host) {
        let last = self.connections();
        self.change(|passage| (passage.forgotten, passage.unaware) = (last, unaware as usize));
    }

    /// Connections begun so far.
    pub fn connections(&self) -> u64 {
        self.inner.state.lock().unwrap().connections
    }

    /// Bytes that have come through from a host.
    pub fn carried_from(&self, host: Host) -> u64 {
        self.inner.state.lock().unwrap().carried[host as usize]
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn listen() -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap()
}

// -- the EPMD as each host sees it -------------------------------------------------------------------------------------------

const ALIVE2_REQ: u8 = 120;
const PORT_PLEASE2_REQ: u8 = 122;

/// One request to the EPMD.
async fn front(inner: &Arc<Inner>, host: Host, mut asker: TcpStream) -> io::Result<()> {
    let length = asker.read_u16().await?;
    let mut request = vec![0; usize::from(length)];
    asker.read_exact(&mut request).await?;
    let mut epmd = TcpStream::connect((Ipv4Addr::LOCALHOST, inner.epmd)).await?;
    epmd.write_u16(length).await?;
    epmd.write_all(&request).await?;
    match request.first() {
        Some(&PORT_PLEASE2_REQ) => {
            let name = String::from_utf8_lossy(&request[1..]).into_owned();
            let mut answer = Vec::new();
            epmd.read_to_end(&mut answer).await?;
            let of_the_other = !inner.state.lock().unwrap().local[host as usize].contains(&name);
            // PORT2_RESP: tag, result, port.
            if of_the_other && answer.len() > 4 && answer[1] == 0 {
                let mut passage = inner.passage.subscribe();
                let _ = passage.wait_for(Passage::open).await;
                answer[2..4].copy_from_slice(&relay(inner, host, &name).await.to_be_bytes());
            }
            asker.write_all(&answer).await
        }
        Some(&ALIVE2_REQ) => {
            let length = usize::from(u16::from_be_bytes([request[9], request[10]]));
            let name = String::from_utf8_lossy(&request[11..11 + length]).into_owned();
            inner.state.lock().unwrap().local[host as usize].insert(name);
            tokio::io::copy_bidirectional(&mut asker, &mut epmd).await.map(|_| ())
        }
        _ => tokio::io::copy_bidirectional(&mut asker, &mut epmd).await.map(|_| ()),
    }
}

/// The port where connections of `host` to the node `name` are relayed.
async fn relay(inner: &Arc<Inner>, host: Host, name: &str) -> u16 {
    let key = (host, name.to_owned());
    if let Some(&port) = inner.state.lock().unwrap().relays.get(&key) {
        return port;
    }
    let listener = listen().await;
    let port = listener.local_addr().unwrap().port();
    inner.state.lock().unwrap().relays.insert(key, port);
    let (inner, name) = (Arc::clone(inner), name.to_owned());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let number = {
                let mut state = inner.state.lock().unwrap();
                state.connections += 1;
                state.connections
            };
            let (inner, name) = (Arc::clone(&inner), name.clone());
            tokio::spawn(async move { carry(&inner, host, &name, number, socket).await });
        }
    });
    port
}

// -- one connection ----------------------------------------------------------------------------------------------------------

/// What a side has sent, and when it may arrive.
enum Piece {
    Bytes(Instant, Vec<u8>),
    /// The side has closed, or was reset.
    End(Instant),
}

/// Pieces that a direction holds; a side that sends more is stopped by TCP, as by a full network.
const HELD: usize = 64;

async fn carry(inner: &Arc<Inner>, host: Host, name: &str, number: u64, initiator: TcpStream) {
    let mut passage = inner.passage.subscribe();
    let extra = passage.borrow().spread.mul_f64(f64::from((number * 2_654_435_761 % 97) as u32) / 97.0);
    let _ = initiator.set_nodelay(true);
    let initiator = Arc::new(initiator);
    let (sender, mut first) = mpsc::channel(HELD);
    let mut forward = tokio::spawn(take(Arc::clone(inner), Arc::clone(&initiator), sender, host, extra));
    // A connection comes about only if packets go both ways.
    let mut waiting = passage.clone();
    let begun = async {
        let _ = waiting.wait_for(Passage::open).await;
        let delay = waiting.borrow().delay[host as usize];
        tokio::time::sleep(delay + extra).await;
    };
    tokio::select! {
        () = begun => {}
        _ = &mut forward => return, // given up before the other side has heard of it
    }
    let acceptor = match port_of(inner, name).await {
        Some(port) => TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.ok(),
        None => None,
    };
    let Some(acceptor) = acceptor else {
        forward.abort();
        return reset(&initiator);
    };
    let _ = acceptor.set_nodelay(true);
    let acceptor = Arc::new(acceptor);
    let (sender, mut second) = mpsc::channel(HELD);
    let backward = tokio::spawn(take(Arc::clone(inner), Arc::clone(&acceptor), sender, host.other(), extra));
    let both = async {
        tokio::join!(
            give(inner, &mut first, &acceptor, host),
            give(inner, &mut second, &initiator, host.other())
        )
    };
    let fate = passage.wait_for(|passage| passage.cut >= number || passage.forgotten >= number);
    let unaware = tokio::select! {
        _ = both => None,
        passage = fate => passage.ok().map(|passage| (passage.cut < number).then_some(passage.unaware)),
    };
    forward.abort();
    backward.abort();
    let _ = (forward.await, backward.await);
    let sides = if host == Host::A { [initiator, acceptor] } else { [acceptor, initiator] };
    match unaware {
        None => {}
        Some(None) => sides.iter().for_each(reset),
        Some(Some(unaware)) => {
            for (index, side) in sides.into_iter().enumerate() {
                if index != unaware {
                    reset(&side);
                } else if let Ok(socket) = Arc::try_unwrap(side) {
                    inner.state.lock().unwrap().corpses.push(socket);
                }
            }
        }
    }
}

/// Closing sends a reset instead of what TCP would do.
fn reset(socket: &Arc<TcpStream>) {
    let _ = socket2::SockRef::from(&**socket).set_linger(Some(Duration::ZERO));
}

async fn port_of(inner: &Inner, name: &str) -> Option<u16> {
    let mut epmd = TcpStream::connect((Ipv4Addr::LOCALHOST, inner.epmd)).await.ok()?;
    epmd.write_u16(name.len() as u16 + 1).await.ok()?;
    epmd.write_u8(PORT_PLEASE2_REQ).await.ok()?;
    epmd.write_all(name.as_bytes()).await.ok()?;
    let mut answer = Vec::new();
    epmd.read_to_end(&mut answer).await.ok()?;
    Some(u16::from_be_bytes([*answer.get(2)?, *answer.get(3)?]))
}

/// Reads one side. Returns once it has ended.
async fn take(inner: Arc<Inner>, from: Arc<TcpStream>, to: mpsc::Sender<Piece>, host: Host, extra: Duration) {
    loop {
        let mut buffer = vec![0; 16 << 10];
        let read = loop {
            match from.try_read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if from.readable().await.is_err() {
                        break 0;
                    }
                }
                Ok(read) => break read,
                Err(_) => break 0,
            }
        };
        let due = Instant::now() + inner.passage.borrow().delay[host as usize] + extra;
        buffer.truncate(read);
        let ended = read == 0;
        let piece = if ended { Piece::End(due) } else { Piece::Bytes(due, buffer) };
        if to.send(piece).await.is_err() || ended {
            return;
        }
    }
}

/// Writes to one side what the other has sent, when it may arrive.
async fn give(inner: &Inner, pieces: &mut mpsc::Receiver<Piece>, to: &TcpStream, from: Host) {
    let mut passage = inner.passage.subscribe();
    while let Some(piece) = pieces.recv().await {
        let (due, bytes) = match piece {
            Piece::Bytes(due, bytes) => (due, bytes),
            Piece::End(due) => (due, Vec::new()),
        };
        // A timer that is due takes up to a millisecond all the same.
        if due > Instant::now() {
            tokio::time::sleep_until(due).await;
        }
        let length = passage.borrow().piece.unwrap_or(usize::MAX);
        for part in bytes.chunks(length) {
            let _ = passage.wait_for(|passage| !passage.stalled[from as usize]).await;
            let rate = passage.borrow().rate;
            if let Some(rate) = rate {
                tokio::time::sleep(Duration::from_secs_f64(part.len() as f64 / rate as f64)).await;
            }
            if write(to, part).await.is_err() {
                // Gone: what it still says is not for this direction.
                return;
            }
            inner.state.lock().unwrap().carried[from as usize] += part.len() as u64;
            if length != usize::MAX {
                tokio::task::yield_now().await;
            }
        }
        if bytes.is_empty() {
            let _ = passage.wait_for(|passage| !passage.stalled[from as usize]).await;
            let _ = socket2::SockRef::from(to).shutdown(std::net::Shutdown::Write);
            return;
        }
    }
}

async fn write(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        to.writable().await?;
        match to.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

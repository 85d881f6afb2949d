//! The server side of EPMD as a machine without sockets.
//!
//! The host accepts connections and carries bytes; everything else happens here: framing, deadlines, the table of
//! registered names, creations. The answers are those of OTP's `epmd` byte for byte.
//!
//! ```text
//! host                                         Names
//!  | accept(connection, is_local, now) ---------> |
//!  | handle_input(connection, bytes) -----------> |
//!  | handle_close(connection) ------------------> |
//!  | handle_timeout(now) -----------------------> |
//!  | <-- poll_action(): Reply | Close | Terminate |
//! ```
//!
//! A registration is its connection: when that closes, or one more byte arrives on it, the name is free again. Its
//! creation is remembered, so that the next node of that name gets the next one.

use core::net::IpAddr;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{BufMut, Bytes, BytesMut};

use super::request::{NodeInfo, Request};
use super::response::{AliveResponse, PortResponse, put_names_line};
use crate::time::Mono;

/// How long a client may take to send its request (`-packet_timeout` of OTP's `epmd`).
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// How many unregistered names keep their creation (`MAX_UNREG_COUNT` of OTP's `epmd`).
pub const MAX_OLD_NAMES: usize = 1000;

/// The least creation: 1 to 3 belong to nodes older than OTP 23.
const MIN_CREATION: u32 = 4;

/// The result code of a refused registration.
const REFUSED: u8 = 1;

/// A number by which the host knows a connection; `DUMP_REQ` shows it as `fd`.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct ConnectionId(pub u64);

/// How an EPMD behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NamesConfig {
    /// The port that it listens on. OTP's client refuses a list of names that gives another port than the one it dialled.
    pub port: u16,
    /// Whether `KILL_REQ` works while nodes are registered, and `STOP_REQ` at all
    /// (`ERL_EPMD_RELAXED_COMMAND_CHECK`).
    pub relaxed_command_check: bool,
    /// The most connections at a time, registered nodes included. 2,048; OTP's bound is `FD_SETSIZE`, 1,024.
    pub max_connections: usize,
}

impl NamesConfig {
    /// The defaults for an EPMD on `port`.
    pub fn new(port: u16) -> Self {
        Self { port, relaxed_command_check: false, max_connections: 2048 }
    }
}

/// What the host has to do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Action {
    /// Write these bytes, in one go: OTP's client expects an answer in one segment.
    Reply(ConnectionId, Bytes),
    /// Close, after what was to be written before. The connection is forgotten here.
    Close(ConnectionId),
    /// Stop serving: `KILL_REQ` was accepted.
    Terminate,
}

/// The server side of EPMD.
#[derive(Debug)]
pub struct Names {
    config: NamesConfig,
    connections: BTreeMap<ConnectionId, Connection>,
    /// The connections whose request is not complete, by the time until which they may take.
    deadlines: BTreeSet<(Mono, ConnectionId)>,
    /// Registered names, the latest last.
    active: Vec<Registration>,
    /// Names that were registered, the latest last.
    old: VecDeque<Registration>,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
struct Connection {
    is_local: bool,
    /// Until when the request has to be complete.
    deadline: Mono,
    /// The request so far, length included; `None` once a registration was answered.
    request: Option<Vec<u8>>,
}

#[derive(Debug)]
struct Registration {
    info: NodeInfo,
    connection: ConnectionId,
    /// Counts up with each registration of the name.
    counter: u32,
}

impl Registration {
    /// The creation as it is sent: older nodes know 1 to 3 only.
    fn creation(&self) -> u32 {
        if is_wide(&self.info) { self.counter } else { self.counter % 3 + 1 }
    }
}

fn is_wide(info: &NodeInfo) -> bool {
    info.highest_version >= super::VERSION
}

/// Whether a connection counts as local, so that it may register names and give orders: from a loopback address, or from
/// the same address that it came to.
pub fn is_local_peer(peer: IpAddr, own: IpAddr) -> bool {
    let peer = peer.to_canonical();
    peer.is_loopback() || peer == own.to_canonical()
}

impl Names {
    /// An EPMD that knows nobody.
    pub fn new(config: NamesConfig) -> Self {
        Self {
            config,
            connections: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            active: Vec::new(),
            old: VecDeque::new(),
            actions: VecDeque::new(),
        }
    }

    /// A client has connected. `connection` is any number that is not in use; `is_local` as by [`is_local_peer`].
    pub fn accept(&mut self, connection: ConnectionId, is_local: bool, now: Mono) {
        if self.connections.len() >= self.config.max_connections {
            self.actions.push_back(Action::Close(connection));
            return;
        }
        let deadline = now + REQUEST_TIMEOUT;
        self.connections.insert(connection, Connection { is_local, deadline, request: Some(Vec::new()) });
        self.deadlines.insert((deadline, connection));
    }

    /// Bytes have arrived. `unix_seconds` is the wall clock, from which new names take their creation.
    pub fn handle_input(&mut self, connection: ConnectionId, unix_seconds: u32, input: &[u8]) {
        let Some(state) = self.connections.get_mut(&connection) else { return };
        if input.is_empty() {
            return;
        }
        let Some(request) = &mut state.request else {
            // Whatever a registered node says, it means good-bye.
            self.close(connection);
            return;
        };
        // One byte beyond the largest request is enough to see that it is too large.
        let room = (super::request::MAX_REQUEST + 1).saturating_sub(request.len());
        request.extend_from_slice(input.get(..room).unwrap_or(input));
        let body = match Request::body(request) {
            Ok(None) => return,
            Ok(Some(body)) => Bytes::copy_from_slice(body),
            Err(_) => {
                self.close(connection);
                return;
            }
        };
        let is_local = state.is_local;
        match Request::decode(body) {
            Ok(request) if is_local || matches!(request, Request::Port(_) | Request::Names) => {
                self.answer(connection, unix_seconds, request);
            }
            _ => self.close(connection),
        }
    }

    /// The client has closed, or its connection broke.
    pub fn handle_close(&mut self, connection: ConnectionId) {
        self.forget(connection);
    }

    /// Closes the connections whose request has not come in time.
    pub fn handle_timeout(&mut self, now: Mono) {
        while let Some((deadline, connection)) = self.deadlines.first().copied()
            && deadline <= now
        {
            self.deadlines.pop_first();
            self.close(connection);
        }
    }

    /// When [`Self::handle_timeout`] wants to be called, if nothing happens before.
    pub fn poll_timeout(&self) -> Option<Mono> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// What the host has to do next.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// The registered nodes, the latest first.
    pub fn registered(&self) -> impl Iterator<Item = &NodeInfo> {
        self.active.iter().rev().map(|registration| &registration.info)
    }

    fn answer(&mut self, connection: ConnectionId, unix_seconds: u32, request: Request) {
        match request {
            Request::Alive(info) => {
                let wide = is_wide(&info);
                let creation = self.register(connection, unix_seconds, info).ok_or(REFUSED);
                let mut reply = BytesMut::new();
                AliveResponse { creation, wide }.encode(&mut reply);
                self.actions.push_back(Action::Reply(connection, reply.freeze()));
                // Also after a refusal: it is the client that closes.
                if let Some(state) = self.connections.get_mut(&connection) {
                    state.request = None;
                    self.deadlines.remove(&(state.deadline, connection));
                }
                return;
            }
            Request::Port(name) => {
                let found = self.active.iter().rev().find(|registration| registration.info.name == name);
                let reply = match found {
                    Some(registration) => PortResponse::Found(registration.info.clone()),
                    None => PortResponse::NotFound(REFUSED),
                };
                let mut out = BytesMut::new();
                reply.encode(&mut out);
                self.actions.push_back(Action::Reply(connection, out.freeze()));
            }
            Request::Names => {
                let mut out = self.reply_with_port();
                for registration in self.active.iter().rev() {
                    put_names_line(&mut out, &registration.info.name, registration.info.port);
                }
                self.actions.push_back(Action::Reply(connection, out.freeze()));
            }
            Request::Dump => {
                let reply = self.dump();
                self.actions.push_back(Action::Reply(connection, reply));
            }
            Request::Kill if self.active.is_empty() || self.config.relaxed_command_check => {
                self.actions.push_back(Action::Reply(connection, Bytes::from_static(b"OK")));
                self.close(connection);
                self.actions.push_back(Action::Terminate);
            }
            Request::Kill => {
                self.actions.push_back(Action::Reply(connection, Bytes::from_static(b"NO")));
            }
            // Without the relaxed check it is closed without an answer.
            Request::Stop(name) if self.config.relaxed_command_check => {
                let stopped = self.active.iter().find(|registration| registration.info.name == name);
                let reply: &[u8] = match stopped.map(|registration| registration.connection) {
                    Some(stopped) => {
                        self.close(stopped);
                        b"STOPPED"
                    }
                    // OTP's server goes on after NOEXIST, so both words are sent.
                    None => b"NOEXISTSTOPPED",
                };
                self.actions.push_back(Action::Reply(connection, Bytes::from_static(reply)));
            }
            Request::Stop(_) => {}
        }
        self.close(connection);
    }

    /// The creation of the node, `None` if its name is taken or not acceptable.
    fn register(&mut self, connection: ConnectionId, unix_seconds: u32, info: NodeInfo) -> Option<u32> {
        let taken = self.active.iter().any(|registration| registration.info.name == info.name);
        if taken || info.check().is_err() {
            return None;
        }
        let known = self.old.iter().position(|registration| registration.info.name == info.name);
        let counter = match known.and_then(|index| self.old.remove(index)) {
            Some(before) => before.counter,
            None => unix_seconds,
        };
        let registration =
            Registration { info, connection, counter: counter.wrapping_add(1).max(MIN_CREATION) };
        let creation = registration.creation();
        self.active.push(registration);
        Some(creation)
    }

    fn unregister(&mut self, connection: ConnectionId) {
        let index = self.active.iter().position(|registration| registration.connection == connection);
        if let Some(index) = index {
            self.old.push_back(self.active.remove(index));
            if self.old.len() > MAX_OLD_NAMES {
                self.old.pop_front();
            }
        }
    }

    fn close(&mut self, connection: ConnectionId) {
        if self.forget(connection) {
            self.actions.push_back(Action::Close(connection));
        }
    }

    /// Whether the connection was known.
    fn forget(&mut self, connection: ConnectionId) -> bool {
        let Some(state) = self.connections.remove(&connection) else { return false };
        self.deadlines.remove(&(state.deadline, connection));
        self.unregister(connection);
        true
    }

    fn reply_with_port(&self) -> BytesMut {
        let mut out = BytesMut::new();
        out.put_u32(u32::from(self.config.port));
        out
    }

    /// Each line ends with a NUL byte, which the server of OTP includes by mistake.
    fn dump(&self) -> Bytes {
        let mut out = self.reply_with_port();
        for registration in self.active.iter().rev() {
            out.put_slice(b"active name     <");
            out.put_slice(&registration.info.name);
            let (port, fd) = (registration.info.port, registration.connection.0);
            out.put_slice(format!("> at port {port}, fd = {fd}\n\0").as_bytes());
        }
        for registration in &self.old {
            out.put_slice(b"old/unused name <");
            out.put_slice(&registration.info.name);
            let (port, fd) = (registration.info.port, registration.connection.0);
            out.put_slice(format!(">, port = {port}, fd = {fd} \n\0").as_bytes());
        }
        out.freeze()
    }
}

#[cfg(test)]
mod tests;

//! One live connection, as the rest of the node sees it: who is at the other end, and sending.

use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use foundation_proto::dist::{Addressee, ControlMessage, DistributionFlags, Lane, Outbound, Queued};
use foundation_proto::etf::{Atom, Pid, PlainTerm, RawTerm, Reference};
use foundation_proto::{Error, Limits, Mono};
use tokio::sync::Notify;

use super::write_half::WriteHalf;
use super::{Clock, TlsInfo};
use crate::process::{MonLnkDist, Proc};

/// A signal that follows the last write within this time waits for the writer task, which takes all that has gathered by
/// then in one system call. A lone signal, or one of a request-response exchange, leaves from the caller's own task.
const COALESCE: Duration = Duration::from_micros(15);

/// What waits for the writer task is written by a sender itself once there is this much: the peer starts on it while more is
/// made, and the buffers are used again while they are still in the processor's cache.
const WRITE_AT: usize = 64 << 10;

/// Slices handed to the system in one write; more than the 1,024 of Linux's IOV_MAX are never useful.
pub(super) const SLICES: usize = 64;

/// The node at the other end of a connection.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PeerInfo {
    /// Its name.
    pub name: Atom,
    /// Its incarnation.
    pub creation: u32,
    /// What both sides can do.
    pub flags: DistributionFlags,
    /// Whether the connection counts as hidden: it does unless both sides are visible.
    pub hidden: bool,
    /// Where it is.
    pub address: SocketAddr,
    /// The TLS session, if the connection is encrypted.
    pub tls: Option<TlsInfo>,
}

/// Why a connection ended. [`DownReason::atom`] is the `nodedown_reason` that a BEAM would give.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum DownReason {
    /// The peer or the network closed it.
    ConnectionClosed,
    /// Nothing was heard from the peer for the whole `net_ticktime`.
    NetTickTimeout,
    /// This node was told to disconnect.
    Disconnect,
    /// This node stops.
    Shutdown,
    /// The peer has connected anew; it had lost this connection.
    Replaced,
    /// The peer broke the protocol or a limit.
    Protocol(Error),
    /// The peer takes nothing, and more is queued towards it than the limit allows.
    Overflow,
}

impl DownReason {
    /// The reason as kernel's `net_kernel` names it.
    pub fn atom(&self) -> Atom {
        Atom::new_static(match self {
            Self::NetTickTimeout => "net_tick_timeout",
            Self::Disconnect => "disconnect",
            Self::Shutdown => "shutdown",
            Self::ConnectionClosed | Self::Replaced | Self::Protocol(_) | Self::Overflow => {
                "connection_closed"
            }
        })
    }

    /// Whether this side meant it: then nobody dials the peer again unasked.
    pub fn is_deliberate(&self) -> bool {
        matches!(self, Self::Disconnect | Self::Shutdown)
    }
}

impl fmt::Display for DownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConnectionClosed => f.write_str("connection_closed"),
            Self::NetTickTimeout => f.write_str("net_tick_timeout"),
            Self::Disconnect => f.write_str("disconnect"),
            Self::Shutdown => f.write_str("shutdown"),
            Self::Replaced => f.write_str("connection_closed: the peer has connected anew"),
            Self::Protocol(error) => write!(f, "connection_closed: {error}"),
            Self::Overflow => f.write_str(
                "connection_closed: more is queued towards this peer than limits.wire.max_queued allows, and it takes \
                 nothing",
            ),
        }
    }
}

/// Why a signal was not sent.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum SendError {
    /// The connection has ended; `nodedown` follows or has come.
    Closed,
    /// The signal cannot be put on this connection.
    Refused(Error),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the connection has ended"),
            Self::Refused(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SendError {}

/// One live connection.
pub struct Link {
    peer: PeerInfo,
    mld: MonLnkDist,
    clock: Clock,
    pub(super) stream: WriteHalf,
    out: Mutex<Out>,
    /// Wakes the writer task.
    pub(super) work: Notify,
    /// Bytes queued when the lock was last released: whether it is worth asking for details.
    queued: AtomicUsize,
    busy_limit: usize,
    /// Senders that wait in [`Link::writable_for`].
    waiting: AtomicUsize,
    drained: Notify,
    /// What comes back for the requests that pace large messages.
    pace: OnceLock<Reference>,
    /// Why it ended, once somebody has decided that.
    reason: OnceLock<DownReason>,
    pub(super) closing: Notify,
    down: AtomicBool,
    is_down: Notify,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

/// What is on its way out, under one lock.
pub(super) struct Out {
    pub(super) outbound: Outbound,
    pub(super) writer: Writer,
    last_write: Mono,
}

/// What the writer task does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Writer {
    /// It sleeps: whoever adds something writes it, or wakes the task.
    Sleeps,
    /// It has been woken and takes what is there when its turn comes.
    Woken,
    /// It waits for the socket, which is full.
    WaitsForSocket,
}

impl Link {
    pub(super) fn new(
        peer: PeerInfo,
        stream: WriteHalf,
        outbound: Outbound,
        clock: Clock,
        limits: &Limits,
        undelivered: usize,
    ) -> Self {
        Self {
            peer,
            mld: MonLnkDist::new(undelivered),
            clock,
            stream,
            out: Mutex::new(Out { outbound, writer: Writer::Sleeps, last_write: Mono::ZERO }),
            work: Notify::new(),
            queued: AtomicUsize::new(0),
            busy_limit: limits.busy_limit,
            waiting: AtomicUsize::new(0),
            drained: Notify::new(),
            pace: OnceLock::new(),
            reason: OnceLock::new(),
            closing: Notify::new(),
            down: AtomicBool::new(false),
            is_down: Notify::new(),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
        }
    }

    /// The node at the other end.
    pub fn peer(&self) -> &PeerInfo {
        &self.peer
    }

    /// What must fire when this connection is lost.
    pub fn mld(&self) -> &MonLnkDist {
        &self.mld
    }

    /// Bytes received and sent so far.
    pub fn bytes(&self) -> (u64, u64) {
        (self.bytes_in.load(Ordering::Relaxed), self.bytes_out.load(Ordering::Relaxed))
    }

    /// Sends one signal, and never waits: what the socket does not take now is queued. A sender that can wait does so with
    /// [`Link::writable`] before it sends more.
    ///
    /// Signals of one [`Lane::sender`] arrive in the order of these calls. That this returns without an error says nothing
    /// about the arrival: as in Erlang, a monitor or link tells.
    ///
    /// # Errors
    /// If the connection has ended, or the signal cannot be expressed towards this peer.
    pub fn send(
        &self,
        lane: Lane,
        control: &ControlMessage,
        payload: Option<&RawTerm>,
    ) -> Result<(), SendError> {
        self.accept(|outbound| outbound.send(control, payload, lane))
    }

    /// Sends a small message that goes the way of an earlier one, if nothing stands before it; `false`, and nothing done, if it
    /// has to go by [`Link::send`], which also knows what is wrong. It says the same in less work.
    #[inline]
    pub(crate) fn send_again(
        &self,
        lane: Lane,
        from: &Proc,
        to: Addressee<'_>,
        message: PlainTerm<'_>,
    ) -> bool {
        let mut out = self.out();
        let accepted =
            !self.is_closing() && !from.has_exited() && out.outbound.send_again(&from.pid, to, message, lane);
        if accepted {
            self.after_accepting(&mut out);
        }
        accepted
    }

    /// As [`Link::send`], for a message with a sequential trace token.
    ///
    /// # Errors
    /// As [`Link::send`].
    pub fn send_traced(
        &self,
        lane: Lane,
        control: &ControlMessage,
        message: &RawTerm,
        token: &RawTerm,
    ) -> Result<(), SendError> {
        self.accept(|outbound| outbound.send_traced(control, message, token, lane))
    }

    #[inline]
    fn accept(&self, send: impl FnOnce(&mut Outbound) -> Result<Queued, Error>) -> Result<(), SendError> {
        let mut out = self.out();
        // Decided under the lock: after `close` has returned, nothing more is accepted.
        if self.reason.get().is_some() {
            return Err(SendError::Closed);
        }
        match send(&mut out.outbound) {
            // Who can wait asks before, because this is decided for one sender and one size.
            Ok(Queued::Ok | Queued::Busy) => {}
            Err(Error::LimitExceeded { limit: "max_queued", .. }) => {
                drop(out);
                self.close(DownReason::Overflow);
                return Err(SendError::Closed);
            }
            Err(error) => return Err(SendError::Refused(error)),
        }
        self.after_accepting(&mut out);
        Ok(())
    }

    /// Writes what was accepted, or sees to it that somebody does.
    #[inline]
    fn after_accepting(&self, out: &mut Out) {
        let much = out.outbound.queued_bytes() >= WRITE_AT;
        match out.writer {
            Writer::Sleeps => {
                let now = self.clock.now();
                let soon = now.saturating_since(out.last_write) < COALESCE;
                if (soon && !much) || self.flush(out, now).is_pending() {
                    out.writer = Writer::Woken;
                    self.work.notify_one();
                }
            }
            // Woken, the task finds out by itself that the socket is full or has failed; until then nobody else has to try.
            Writer::Woken if much => {
                if self.flush(out, self.clock.now()).is_pending() {
                    out.writer = Writer::WaitsForSocket;
                }
            }
            Writer::Woken | Writer::WaitsForSocket => {}
        }
        self.note_queued(out);
    }

    /// Large messages are paced from now on; see [`Outbound::pace`].
    pub(super) fn pace(&self, watcher: Pid, reference: Reference) {
        self.out().outbound.pace(watcher, reference.clone());
        // Called once, before anything is sent.
        let _again = self.pace.set(reference);
    }

    /// Whether a MONITOR_P_EXIT with this reference answers what [`Link::pace`] has asked.
    pub(crate) fn is_paced_by(&self, reference: &Reference) -> bool {
        self.pace.get() == Some(reference)
    }

    /// The peer has read more of the large messages. There may be more to write.
    pub(crate) fn paced(&self) {
        let now = self.clock.now();
        let mut out = self.out();
        out.outbound.paced(now);
        if out.writer != Writer::WaitsForSocket && self.flush(&mut out, now).is_pending() {
            out.writer = Writer::Woken;
            self.work.notify_one();
        }
        self.note_queued(&out);
    }

    /// Waits until a payload of this size may be sent without the queue growing beyond `limits.wire.busy_limit` (1 MiB), or the
    /// connection has ended. A small one does not wait for the large ones of other senders.
    ///
    /// This is what suspends a sender, as a BEAM suspends one on a busy distribution port.
    pub async fn writable_for(&self, lane: Lane, payload_bytes: usize) {
        self.wait_while(|| self.is_busy_for(lane, payload_bytes)).await;
    }

    /// Waits until less than `limits.wire.busy_limit` is queued, whosever it is, or the connection has ended.
    pub async fn writable(&self) {
        self.wait_while(|| self.is_busy()).await;
    }

    async fn wait_while(&self, is_busy: impl Fn() -> bool) {
        if !is_busy() {
            return;
        }
        let _waiting = Waiting::count(&self.waiting);
        fence(Ordering::SeqCst);
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            drained.as_mut().enable();
            if self.is_closing() || !is_busy() {
                return;
            }
            drained.await;
        }
    }

    /// Whether `limits.wire.busy_limit` or more is queued, whosever it is.
    pub fn is_busy(&self) -> bool {
        self.queued.load(Ordering::Acquire) >= self.busy_limit
    }

    /// Whether a sender that can wait should do so, with [`Link::writable_for`], before it sends a payload of this size.
    pub fn is_busy_for(&self, lane: Lane, payload_bytes: usize) -> bool {
        self.is_busy() && self.out().outbound.is_busy_for(lane, payload_bytes)
    }

    /// Bytes that wait to be written.
    pub fn queued_bytes(&self) -> usize {
        self.queued.load(Ordering::Relaxed)
    }

    /// Whether its end has been decided.
    pub fn is_closing(&self) -> bool {
        self.reason.get().is_some()
    }

    /// Ends the connection. The first reason counts. What is queued is given to the system if it takes it at once.
    pub(crate) fn close(&self, reason: DownReason) {
        let mut out = self.out();
        if self.reason.set(reason).is_err() {
            return;
        }
        out.outbound.stop_pacing();
        // The outcome of the last write and of the shutdown changes nothing: it ends here either way.
        let _ = self.flush(&mut out, self.clock.now());
        self.stream.shutdown();
        drop(out);
        self.closing.notify_waiters();
        self.work.notify_one();
        self.drained.notify_waiters();
    }

    /// Waits until `close` was called.
    pub(super) async fn closed(&self) {
        let closing = self.closing.notified();
        tokio::pin!(closing);
        closing.as_mut().enable();
        if !self.is_closing() {
            closing.await;
        }
    }

    /// The reason of its end.
    pub(super) fn reason(&self) -> DownReason {
        self.reason.get().cloned().unwrap_or(DownReason::ConnectionClosed)
    }

    /// Everything across it has fired, and nobody will find this link again.
    pub(crate) fn set_down(&self) {
        self.down.store(true, Ordering::Release);
        self.is_down.notify_waiters();
    }

    /// Waits for [`Link::set_down`].
    pub(crate) async fn wait_down(&self) {
        let down = self.is_down.notified();
        tokio::pin!(down);
        down.as_mut().enable();
        if !self.down.load(Ordering::Acquire) {
            down.await;
        }
    }

    pub(super) fn count_in(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn out(&self) -> MutexGuard<'_, Out> {
        // A panic while the lock is held would be a bug of ours; the queue itself is still whole.
        self.out.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes until nothing is queued or the socket takes no more.
    pub(super) fn flush(&self, out: &mut Out, now: Mono) -> Flushed {
        loop {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let filled = out.outbound.poll_transmit(now, &mut slices);
            if filled == 0 {
                self.note_queued(out);
                return match self.stream.try_flush() {
                    Ok(()) => Flushed::Everything,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => Flushed::Blocked,
                    Err(error) => Flushed::Failed(error),
                };
            }
            match self.stream.try_write_vectored(slices.get(..filled).unwrap_or_default()) {
                Ok(written) => {
                    out.outbound.advance(written);
                    out.last_write = now;
                    self.bytes_out.fetch_add(written as u64, Ordering::Relaxed);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.note_queued(out);
                    return Flushed::Blocked;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Flushed::Failed(error),
            }
        }
    }

    fn note_queued(&self, out: &Out) {
        let queued = out.outbound.queued_bytes();
        // Written under the lock of `out` alone, so that it need not be exchanged in one step.
        let before = self.queued.load(Ordering::Relaxed);
        self.queued.store(queued, Ordering::Release);
        if queued < before {
            // Either this sees who waits, or they see what is queued now: the other half is in `wait_while`.
            fence(Ordering::SeqCst);
            if self.waiting.load(Ordering::Acquire) > 0 {
                self.drained.notify_waiters();
            }
        }
    }
}

/// Counts one waiting sender, also one whose wait is cancelled.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn count(counter: &'a AtomicUsize) -> Self {
        counter.fetch_add(1, Ordering::AcqRel);
        Waiting(counter)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// How far a [`Link::flush`] came.
#[derive(Debug)]
pub(super) enum Flushed {
    Everything,
    Blocked,
    Failed(io::Error),
}

impl Flushed {
    fn is_pending(&self) -> bool {
        !matches!(self, Self::Everything)
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("peer", &self.peer.name.as_str())
            .field("reason", &self.reason.get())
            .finish()
    }
}

/// Links are equal if they are the same connection.
impl PartialEq for Link {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Link {}

impl Link {
    /// Whether both are the same connection.
    pub fn is(self: &Arc<Self>, other: &Arc<Self>) -> bool {
        Arc::ptr_eq(self, other)
    }
}

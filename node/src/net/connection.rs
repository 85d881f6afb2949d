//! The two tasks of a connection: one reads and delivers, one writes what could not leave at once and keeps the ticks.
//!
//! ```text
//! socket ── reader ── Inbound ── signal::deliver ── mailboxes        a sender's own task ── Link::send ── socket
//!                                                                   writer (only when the socket was full, or ticks)
//! ```
//!
//! The reader owns the life of the connection: `signal::up`, then each signal in the order of arrival, then
//! `signal::down` exactly once. It ends when anybody calls `Link::close`.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use foundation_proto::Error;
use foundation_proto::dist::{Buffers, Inbound};
use tracing::{Instrument, Span, debug, info, warn};

use super::Clock;
use super::link::{DownReason, Flushed, Link, Writer};
use super::read_half::ReadHalf;
use crate::node::NodeInner;
use crate::signal;

/// Bytes of a read. Frames of small messages come by the hundred in it; larger frames grow the buffer as they arrive.
const READ: usize = 64 << 10;

/// The same while frames arrive that are about as large as that: each end of a buffer cuts one, whose start has to be copied.
const BULK_READ: usize = 256 << 10;

/// How long a connection without traffic holds buffers.
const IDLE: Duration = Duration::from_millis(200);

/// Room that is worth a read. With less a new buffer is made: messages that nobody has received keep the old one.
const READ_AT_LEAST: usize = 16 << 10;

/// Reads after which other tasks of this thread get their turn, although more is there.
const READS_IN_A_ROW: u64 = 16;

/// The same in bytes of large messages. Whoever receives them has been woken on this thread and runs when the reader pauses: while
/// little waits, few buffers are in use, and they stay in the processor's cache.
const BULK_IN_A_ROW: usize = 256 << 10;

/// How long a connection that this side closed is still read, and everything thrown away: closing a socket with unread bytes
/// makes the kernel send a reset, which can destroy what was written last.
const LINGER: Duration = Duration::from_secs(1);

/// Starts the tasks of an established connection. `leftover` is what came behind the handshake.
pub(super) fn start(
    node: &Arc<NodeInner>,
    link: Arc<Link>,
    stream: ReadHalf,
    inbound: Inbound,
    leftover: BytesMut,
    clock: Clock,
    span: Span,
) {
    let system = node.system();
    link.pace(system.pid.clone(), node.ids.reference(system.number).1);
    tokio::spawn(write(Arc::clone(&link), clock).instrument(span.clone()));
    tokio::spawn(read(Arc::clone(node), link, stream, inbound, leftover, clock).instrument(span));
}

async fn read(
    node: Arc<NodeInner>,
    link: Arc<Link>,
    mut stream: ReadHalf,
    mut inbound: Inbound,
    mut buffer: BytesMut,
    clock: Clock,
) {
    let reason = match receive(&node, &link, &mut stream, &mut inbound, &mut buffer, clock).await {
        // Closed by this side: the reason is there already.
        Ok(()) => link.reason(),
        Err(reason) => {
            link.close(reason);
            link.reason()
        }
    };
    drop((inbound, buffer));
    // The span says which peer and where.
    match &reason {
        DownReason::Protocol(error) => {
            warn!(%error, "nodedown: the peer broke the protocol, so its connection is closed");
        }
        DownReason::Overflow | DownReason::NetTickTimeout => warn!(%reason, "nodedown"),
        reason => info!(%reason, "nodedown"),
    }
    node.net_kernel.withdraw(&link);
    signal::down(&node, &link, &reason);
    node.net_kernel.down(&link, &reason);
    // A peer that does not close in time is cut off.
    let _late = tokio::time::timeout(LINGER, stream.drain()).await;
}

/// Reads and delivers until the connection ends; `Ok` if this side has closed it.
async fn receive(
    node: &Arc<NodeInner>,
    link: &Arc<Link>,
    stream: &mut ReadHalf,
    inbound: &mut Inbound,
    buffer: &mut BytesMut,
    clock: Clock,
) -> Result<(), DownReason> {
    let undelivered = Arc::clone(link.mld().undelivered());
    let (mut reads, mut reads_then, mut bulk) = (0_u64, 0, 0);
    let (mut buffers, mut size) = (Buffers::default(), buffer.capacity());
    let mut closed = pin!(link.closed());
    // Set again when it has come, not with everything that arrives: then it is looked whether anything has.
    let mut timeout = pin!(clock.sleep_until(inbound.poll_timeout().min(clock.now() + IDLE)));
    loop {
        if !buffer.is_empty() {
            inbound.handle_input(clock.now(), buffer);
            signal::deliver_all(node, link, inbound).map_err(down_reason)?;
        }
        if link.is_closing() {
            return Ok(());
        }
        if undelivered.is_full() {
            debug!(bytes = undelivered.bytes(), "reading no further until processes have caught up");
            tokio::select! {
                () = undelivered.caught_up() => {}
                () = &mut closed => return Ok(()),
            }
        }
        let (hint, room) = (inbound.read_hint(buffer), buffer.capacity() - buffer.len());
        if room < READ_AT_LEAST || (hint > READ && room < hint) {
            let chunk = if buffer.len() < READ_AT_LEAST { READ } else { BULK_READ };
            buffers.make_room(buffer, &mut size, hint.max(chunk));
        }
        let outcome = tokio::select! {
            biased;
            outcome = poll_fn(|context| {
                let sent = link.bytes().1;
                match stream.poll_read(context, buffer, sent) {
                    Poll::Pending if stream.naps(sent) => stream.poll_read(context, buffer, sent),
                    outcome => outcome,
                }
            }) => outcome,
            () = &mut closed => return Ok(()),
            () = &mut timeout => {
                let now = clock.now();
                inbound.handle_timeout(now).map_err(down_reason)?;
                let is_idle = reads == reads_then;
                if is_idle && buffer.is_empty() {
                    // An idle connection holds no buffers.
                    *buffer = BytesMut::new();
                    buffers.clear();
                    inbound.release_buffers();
                }
                let next = if is_idle { inbound.poll_timeout() } else { now + IDLE };
                timeout.as_mut().reset(clock.instant(next));
                reads_then = reads;
                if is_idle {
                    // Nothing is reserved before there is something to read.
                    tokio::select! {
                        ready = stream.readable() => {
                            if ready.is_err() {
                                return Err(DownReason::ConnectionClosed);
                            }
                            timeout.as_mut().reset(clock.instant(clock.now() + IDLE));
                        }
                        () = &mut closed => return Ok(()),
                        () = &mut timeout => {}
                    }
                }
                continue;
            }
        };
        match outcome {
            Ok(0) => return Err(DownReason::ConnectionClosed),
            Ok(read) => {
                link.count_in(read);
                reads += 1;
                bulk += if read > READ { read } else { 0 };
                if reads % READS_IN_A_ROW == 0 || bulk >= BULK_IN_A_ROW {
                    bulk = 0;
                    tokio::task::yield_now().await;
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => {
                debug!(%error, "read");
                return Err(DownReason::ConnectionClosed);
            }
        }
    }
}

fn down_reason(error: Error) -> DownReason {
    use foundation_proto::error::PeerMisbehaved;
    match error {
        Error::PeerMisbehaved(PeerMisbehaved::TickTimeout) => DownReason::NetTickTimeout,
        Error::Closed(_) => DownReason::ConnectionClosed,
        error => DownReason::Protocol(error),
    }
}

async fn write(link: Arc<Link>, clock: Clock) {
    let mut heard_at_tick = 0;
    loop {
        let (flushed, tick_at) = {
            let mut out = link.out();
            if link.is_closing() {
                return;
            }
            let now = clock.now();
            if now >= out.outbound.poll_timeout() {
                out.outbound.handle_timeout(now);
                // A C node is hidden and does not tick by itself: it answers ticks.
                let heard = link.bytes().0;
                if link.peer().hidden && heard == heard_at_tick {
                    out.outbound.tick();
                }
                heard_at_tick = heard;
            }
            let flushed = link.flush(&mut out, now);
            out.writer = match flushed {
                Flushed::Blocked => Writer::WaitsForSocket,
                _ => Writer::Sleeps,
            };
            (flushed, out.outbound.poll_timeout())
        };
        match flushed {
            Flushed::Everything => {
                tokio::select! {
                    () = link.work.notified() => {
                        // Others of this thread may be about to send as well; all of it then leaves in one write.
                        tokio::task::yield_now().await;
                    }
                    () = clock.sleep_until(tick_at) => {}
                }
            }
            Flushed::Blocked => {
                tokio::select! {
                    ready = link.stream.writable() => {
                        if ready.is_err() {
                            link.close(DownReason::ConnectionClosed);
                        }
                    }
                    () = link.closed() => return,
                }
            }
            Flushed::Failed(error) => {
                debug!(%error, "write");
                link.close(DownReason::ConnectionClosed);
                return;
            }
        }
    }
}

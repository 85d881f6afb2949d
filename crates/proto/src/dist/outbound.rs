//! The sending half of an established connection.

mod frame_writer;
mod pace;
mod routes;
mod schedule;
mod wire;

use core::time::Duration;
use std::io::IoSlice;

use bytes::BufMut;

use self::frame_writer::FrameWriter;
use self::pace::Pace;
pub use self::routes::Addressee;
use self::schedule::{Item, Schedule, Size, Turn};
use super::frame::TICK;
use super::{ChannelConfig, ControlMessage, Lane, LaneClass, Target};
use crate::etf::{Atom, Pid, PlainTerm, RawTerm, Reference, Tape};
use crate::{Error, Mono, Result};

/// The bytes of control message and payload that go into one fragment, as in OTP. Payloads from this size on are large.
const FRAGMENT: usize = 64 << 10;

/// How much is given a settled place on the wire ahead of what the socket took. What comes later and is more urgent has to wait
/// for this much, so it is small; one write should still be worth its system call, so it is not smaller.
const SETTLED: usize = 2 * FRAGMENT;

/// Nodes of a tape that are kept for the next payload: 1 MiB.
const KEPT_NODES: usize = 64 << 10;

/// The name that is asked for to hear from the peer; nobody has it. See [`Outbound::pace`].
const PROBED: &str = "$foundation_pace";

/// The longest frame that a BEAM takes.
const MAX_SENT_FRAME: u64 = i32::MAX as u64;

/// Signals in, bytes out: the sending half of an established connection.
///
/// # Use
/// Meant to be called under a lock by whichever task has something to send; every call is short and does work for one signal
/// or one write, however much is queued.
///
/// 1. [`send`](Self::send) encodes the signal, or queues it behind others.
/// 2. [`poll_transmit`](Self::poll_transmit) lends the bytes to write next; [`advance`](Self::advance) says how many of
///    them the socket took. Repeat until nothing is lent or the socket takes no more.
/// 3. [`handle_timeout`](Self::handle_timeout) at [`poll_timeout`](Self::poll_timeout), so that ticks are sent.
///
/// # Order
/// The signals of one sender leave in the order of the calls. Between senders, urgent ones go first ([`Lane`]), small ones before
/// large ones, and large ones take turns: with FRAGMENTS a message of more than 64 KiB leaves in pieces of that size, and small
/// messages of other senders go between them. A sequence of fragments that was begun is always completed. To a quick peer, messages of up
/// to 1.25 MiB are not cut while nothing small travels.
///
/// # Back-pressure
/// Nothing here waits. [`Queued::Busy`] says that the signal was accepted, but its sender should not send the next before
/// [`is_busy_for`](Self::is_busy_for) is false, if it can wait. Signals of those who cannot wait count against `max_queued`;
/// beyond it signals are refused, and a connection that refuses a signal which cannot be given up has to be closed. A large
/// signal whose sender did wait does not count, so one of any size can be sent.
#[derive(Debug)]
pub struct Outbound {
    frames: FrameWriter,
    /// For looking into the payloads for peers before OTP 24.
    tape: Tape,
    schedule: Schedule,
    pace: Pace,
    busy_limit: usize,
    max_queued: usize,
    tick_interval: Duration,
    next_tick: Mono,
    written_since_tick: bool,
}

/// What became of a signal that was accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Queued {
    /// There is room for another one like it.
    Ok,
    /// There is not: whoever can wait, should.
    Busy,
}

impl Outbound {
    /// For a connection that was established at `now`.
    pub fn new(config: &ChannelConfig, now: Mono) -> Self {
        let tick_interval = config.tick_interval();
        Self {
            frames: FrameWriter::new(config),
            tape: Tape::new(),
            schedule: Schedule::default(),
            pace: Pace::default(),
            busy_limit: config.limits.busy_limit,
            max_queued: config.limits.max_queued,
            tick_interval,
            next_tick: now + tick_interval,
            written_since_tick: false,
        }
    }

    /// Accepts a signal. The payload has to be there exactly if [`ControlMessage::has_payload`] says so; it may come from
    /// another connection, its atoms are taken care of.
    ///
    /// # Errors
    /// The connection is untouched by any of them, and the signal is not sent.
    /// - [`Error::NotSupportedByPeer`]: there is no operation for this that the peer understands, or it has an identifier
    ///   that is too wide for the peer.
    /// - [`Error::ApiMisuse`]: a BEAM would close the connection over this signal; the text says why.
    /// - [`Error::LimitExceeded`]: `max_queued` bytes are queued, or the message is longer than a frame can be.
    #[inline]
    pub fn send(
        &mut self,
        control: &ControlMessage,
        payload: Option<&RawTerm>,
        lane: Lane,
    ) -> Result<Queued> {
        self.accept(control, payload, None, lane)
    }

    /// Sends a small message that goes the way of an earlier one, if it can have its place on the wire at once; false, and
    /// nothing done, if it has to go by [`send`](Self::send). It says the same in less work.
    #[inline]
    pub fn send_again(&mut self, from: &Pid, to: Addressee<'_>, message: PlainTerm<'_>, lane: Lane) -> bool {
        // The way is remembered only of messages that passed all checks, but the identifiers in this one are not looked at.
        let at_once = self.frames.encoder.takes_wide_identifiers()
            && self.frames.wire.len() < SETTLED
            && (self.schedule.is_empty() || !self.schedule.has_before(lane))
            && self.queued_bytes() < self.max_queued
            && self.frames.write_again(from, to, message);
        if at_once {
            self.pace.small(!self.schedule.is_empty());
        }
        at_once
    }

    /// As [`send`](Self::send), for a message that carries a sequential trace token, `{Flags, Label, Serial, Sender, LastCnt}`: it
    /// goes by the operation with `_TT`, which every release knows.
    ///
    /// # Errors
    /// As [`send`](Self::send); [`Error::ApiMisuse`] for what is not a message.
    pub fn send_traced(
        &mut self,
        control: &ControlMessage,
        message: &RawTerm,
        token: &RawTerm,
        lane: Lane,
    ) -> Result<Queued> {
        if !control.is_message() {
            return Err(Error::ApiMisuse("only messages are sent with a trace token"));
        }
        let token = self.frames.encoder.payload(&token.to_plain(), &mut self.tape)?.into_owned();
        self.accept(control, Some(message), Some(&token), lane)
    }

    #[inline]
    fn accept(
        &mut self,
        control: &ControlMessage,
        payload: Option<&RawTerm>,
        token: Option<&RawTerm>,
        lane: Lane,
    ) -> Result<Queued> {
        self.frames.encoder.check(control, payload.is_some())?;
        let fitted = match payload {
            Some(payload) => Some(self.frames.encoder.payload(payload, &mut self.tape)?),
            None => None,
        };
        self.tape.shrink_to(KEPT_NODES);
        let payload = fitted.as_deref();
        let payload_bytes = payload.map_or(0, |payload| payload.as_bytes().len());
        let size = Size::of(payload_bytes);
        let counted = self.queued_bytes() - self.schedule.bytes().exempt;
        if counted >= self.max_queued {
            return Err(Error::limit("max_queued", counted as u64, self.max_queued as u64));
        }
        let too_long = payload_bytes as u64 > MAX_SENT_FRAME - FRAGMENT as u64;
        if too_long && !self.frames.can_fragment() {
            return Err(Error::limit("max_frame", payload_bytes as u64, MAX_SENT_FRAME));
        }
        let at_once = size == Size::Small
            && self.frames.wire.len() < SETTLED
            && (self.schedule.is_empty() || !self.schedule.has_before(lane));
        if size == Size::Small && !answers_a_probe(control) {
            self.pace.small(!self.schedule.is_empty());
        }
        if at_once {
            self.frames.write_whole(control, payload, token);
        } else {
            let exempt = size == Size::Large && !self.is_busy_for(lane, payload_bytes);
            let (control, payload, token) = (control.clone(), payload.cloned(), token.cloned().map(Box::new));
            let item = Item { control, payload, token, size, class: lane.class, exempt, fragments: None };
            self.schedule.push(lane.sender, item);
        }
        Ok(if self.is_busy_for(lane, payload_bytes) { Queued::Busy } else { Queued::Ok })
    }

    /// Lends the bytes to write next, as many as fit into `out`; returns how many slices were filled, 0 if there is nothing
    /// to write now. The same bytes are lent again until [`advance`](Self::advance) says that they are written.
    pub fn poll_transmit<'a>(&'a mut self, now: Mono, out: &mut [IoSlice<'a>]) -> usize {
        self.settle(now);
        self.frames.wire.fill(out)
    }

    /// The first `n` of the bytes that were lent are written.
    pub fn advance(&mut self, n: usize) {
        self.written_since_tick |= n > 0;
        self.frames.wire.advance(n);
    }

    /// The bytes that were accepted and are not yet written.
    #[inline]
    pub fn queued_bytes(&self) -> usize {
        self.frames.wire.len() + self.schedule.bytes().all
    }

    /// Whether there is anything to write.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.frames.wire.len() == 0 && self.schedule.is_empty()
    }

    /// Whether a sender that can wait should do so before it sends a payload of this size.
    ///
    /// A large one waits while `busy_limit` bytes of anything are queued. A small one goes before the large ones of other senders,
    /// so it waits only for `busy_limit` bytes of small signals or of its own: bulk traffic does not hold it up.
    #[inline]
    pub fn is_busy_for(&self, lane: Lane, payload_bytes: usize) -> bool {
        let waiting = self.schedule.bytes();
        let in_front = match (Size::of(payload_bytes), lane.class) {
            (Size::Small, LaneClass::Control | LaneClass::Normal) => {
                waiting.small.max(self.schedule.bytes_of(lane.sender))
            }
            _ => waiting.all,
        };
        self.frames.wire.len() + in_front >= self.busy_limit
    }

    /// When [`handle_timeout`](Self::handle_timeout) has to be called.
    pub fn poll_timeout(&self) -> Mono {
        self.next_tick
    }

    /// Queues a tick if it is due and nothing was written since the last time, nor waits to be. Early calls do nothing.
    pub fn handle_timeout(&mut self, now: Mono) {
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + self.tick_interval;
        self.pace.handle_timeout(now);
        if !core::mem::take(&mut self.written_since_tick) {
            self.tick();
        }
    }

    /// Queues a tick if nothing waits to be written. For a hidden peer from which nothing was read for a tick interval: C nodes
    /// do not tick by themselves, they answer ticks.
    pub fn tick(&mut self) {
        if self.is_empty() {
            self.frames.wire.append(|out| out.put_slice(&TICK));
        }
    }

    /// Keeps large messages from filling the buffers of both kernels while small ones travel beside them. A MONITOR_P of
    /// `watcher` for a name that nobody may have follows them from time to time, always with this `reference`; call
    /// [`paced`](Self::paced) when the MONITOR_P_EXIT for it comes. Towards peers that know neither fragments nor monitors of
    /// names nothing changes.
    pub fn pace(&mut self, watcher: Pid, reference: Reference) {
        let target = Target::Name(Atom::new_static(PROBED));
        let probe = ControlMessage::MonitorP { watcher, target, reference };
        if self.frames.can_fragment() && self.frames.encoder.check(&probe, false).is_ok() {
            self.pace.start(probe);
        }
    }

    /// Nothing is paced any more: the connection ends, and what is queued is given to whoever still takes it.
    pub fn stop_pacing(&mut self) {
        self.pace = Pace::default();
    }

    /// The peer has come to the oldest of these requests. There may be more to write now.
    pub fn paced(&mut self, now: Mono) {
        self.pace.answered(now);
    }

    /// Gives waiting signals their places on the wire, as far ahead as is good.
    fn settle(&mut self, now: Mono) {
        while self.frames.wire.len() < SETTLED && !self.schedule.is_empty() {
            let (room, cut) = (self.pace.has_room(), self.pace.cut());
            let turn = self.schedule.turn(room, |item| self.frames.write_next(item, cut));
            let asks = match turn {
                Turn::Nobodys => self.pace.waits(now),
                Turn::Ordinary => false,
                Turn::Large(bytes) => self.pace.wrote(bytes, now),
            };
            if let Some(probe) = self.pace.probe().filter(|_| asks) {
                self.frames.write_whole(probe, None, None);
            }
            if turn == Turn::Nobodys {
                break;
            }
        }
    }
}

/// What a peer is told that paces its own large messages: nobody waits for it, however much traffic of small messages it looks like.
fn answers_a_probe(control: &ControlMessage) -> bool {
    matches!(control, ControlMessage::MonitorPExit { target: Target::Name(name), .. } if name.as_str() == PROBED)
}

#[cfg(test)]
mod tests;

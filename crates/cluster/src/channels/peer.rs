use core::time::Duration;
use std::collections::VecDeque;

use foundation_proto::Mono;
use foundation_proto::etf::{Pid, RawTerm};

use super::{Ack, Clock, Config};

/// How many messages are on their way to one node before the first is acknowledged. Enough for some hundred thousand messages
/// a second at the round-trip times of a local network.
const WINDOW: usize = 1024;
/// How many bytes are, unless a single message is longer.
const WINDOW_BYTES: usize = 16 << 20;
/// How long an acknowledgement is waited for at first. A connection does not lose anything, so this is for peers that are busy.
const RETRY_MIN: Duration = Duration::from_secs(1);
/// The longest pause between two attempts.
const RETRY_MAX: Duration = Duration::from_secs(8);
/// Gaps that are reported within this time of each other are the same gap.
const SAME_GAP: Duration = Duration::from_millis(200);
/// A connected node that has acknowledged nothing for this long no longer makes senders wait.
const STALLED: Duration = Duration::from_secs(10);
/// An estimate of a clock that is older than this gives way to any other: clocks drift.
const CLOCK_AGE: Duration = Duration::from_secs(60);

/// A message that may have to be sent again.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) payload: RawTerm,
    pub(super) compressed: bool,
    pub(super) sent_at: i64,
    /// Who wants to know what becomes of it.
    pub(super) ticket: Option<u64>,
}

impl Item {
    fn bytes(&self) -> usize {
        self.payload.as_bytes().len()
    }
}

/// The channel process of another node, as a receiver.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) pid: Pid,
    /// Since when it is out of reach; `None` while it is connected.
    pub(super) gone_since: Option<Mono>,
    /// The number of the next new message.
    pub(super) next: u64,
    /// Messages that were not acknowledged; the last has the number `next - 1`.
    unacked: VecDeque<Item>,
    bytes: usize,
    /// The number of the next message to put on its way.
    flight: u64,
    flight_bytes: usize,
    /// Above the numbers of all messages that were ever on their way.
    sent: u64,
    retry_at: Option<Mono>,
    pause: Duration,
    /// After a retry one message goes at a time, until an acknowledgement shows that they arrive.
    probing: bool,
    rewound_at: Option<Mono>,
    /// When the peer last made progress, or was given its first message.
    progress_at: Mono,
    clock: Option<(Clock, Mono)>,
}

impl Peer {
    pub(super) fn new(pid: Pid, first: u64, now: Mono) -> Self {
        Self {
            pid,
            gone_since: None,
            next: first,
            unacked: VecDeque::new(),
            bytes: 0,
            flight: first,
            flight_bytes: 0,
            sent: first,
            retry_at: None,
            pause: RETRY_MIN,
            probing: false,
            rewound_at: None,
            progress_at: now,
            clock: None,
        }
    }

    /// The lowest number that can be sent again.
    pub(super) fn base(&self) -> u64 {
        self.next - self.unacked.len() as u64
    }

    pub(super) fn waiting(&self) -> usize {
        self.unacked.len()
    }

    pub(super) fn retry_at(&self) -> Option<Mono> {
        self.retry_at.filter(|_| self.gone_since.is_none())
    }

    pub(super) fn clock(&self) -> Option<Clock> {
        self.clock.map(|(clock, _)| clock)
    }

    /// Whether a sender should wait before it adds a message.
    pub(super) fn is_full(&self, now: Mono, config: &Config) -> bool {
        let full = self.unacked.len() >= config.buffer_size || self.bytes >= config.buffer_bytes;
        full && self.gone_since.is_none() && now.saturating_since(self.progress_at) < STALLED
    }

    /// A number for a message that is not kept.
    pub(super) fn number(&mut self) -> u64 {
        self.next += 1;
        self.flight = self.next;
        self.sent = self.next;
        self.next - 1
    }

    /// Adds a message; returns those that have to be given up for it.
    pub(super) fn push(&mut self, now: Mono, item: Item, config: &Config) -> Vec<Item> {
        if self.unacked.is_empty() {
            self.progress_at = now;
        }
        let mut given_up = Vec::new();
        let over = |peer: &Self| {
            peer.unacked.len() >= config.buffer_size.max(1)
                || (peer.bytes >= config.buffer_bytes && !peer.unacked.is_empty())
        };
        while over(self) {
            given_up.extend(self.pop());
        }
        self.bytes += item.bytes();
        self.unacked.push_back(item);
        self.next += 1;
        given_up
    }

    /// The next message to put on its way now, with its number, and whether it was before.
    pub(super) fn transmit(&mut self, now: Mono) -> Option<(u64, Item, bool)> {
        if self.gone_since.is_some() {
            return None;
        }
        let in_flight = usize::try_from(self.flight - self.base()).ok()?;
        let window = if self.probing { 1 } else { WINDOW };
        if in_flight >= window || (in_flight > 0 && self.flight_bytes >= WINDOW_BYTES) {
            return None;
        }
        let item = self.unacked.get(in_flight)?.clone();
        self.flight += 1;
        self.flight_bytes += item.bytes();
        self.retry_at.get_or_insert(now + self.pause);
        let again = self.flight <= self.sent;
        self.sent = self.sent.max(self.flight);
        Some((self.flight - 1, item, again))
    }

    /// Everything below `expected` has arrived; returns what need not be kept any more.
    pub(super) fn acknowledged(&mut self, now: Mono, wall: i64, ack: &Ack) -> Vec<Item> {
        self.observe(now, wall, ack);
        // An acknowledgement of what was never sent is nonsense; it counts as one of everything sent.
        let expected = ack.expected.min(self.sent);
        let mut done = Vec::new();
        while self.base() < expected {
            done.extend(self.pop());
        }
        if !done.is_empty() {
            self.progress_at = now;
            self.pause = RETRY_MIN;
            self.retry_at = (self.flight > self.base()).then(|| now + self.pause);
            if core::mem::take(&mut self.probing) {
                // What followed the lost one was thrown away by the receiver, which takes them in order.
                self.rewind(now);
            }
        }
        if ack.gap && self.rewound_at.is_none_or(|at| now.saturating_since(at) >= SAME_GAP) {
            self.rewind(now);
        }
        done
    }

    /// The acknowledgement did not come in time.
    pub(super) fn handle_timeout(&mut self, now: Mono) {
        if self.retry_at().is_some_and(|at| at <= now) {
            self.pause = (self.pause * 2).min(RETRY_MAX);
            self.probing = true;
            self.rewind(now);
        }
    }

    /// It is connected, perhaps with another process.
    pub(super) fn up(&mut self, now: Mono, pid: Pid) {
        if self.pid != pid {
            self.clock = None;
        }
        self.pid = pid;
        self.gone_since = None;
        self.pause = RETRY_MIN;
        self.probing = false;
        self.progress_at = now;
        self.rewind(now);
        // A gap on a new connection is a new gap.
        self.rewound_at = None;
    }

    pub(super) fn down(&mut self, now: Mono) {
        self.gone_since.get_or_insert(now);
    }

    /// Whom to tell that a message is not on its way for now.
    pub(super) fn tickets(&mut self) -> impl Iterator<Item = u64> {
        self.unacked.iter_mut().filter_map(|item| item.ticket.take())
    }

    /// Gives up what waits.
    pub(super) fn drain(&mut self) -> Vec<Item> {
        self.flight = self.next;
        self.flight_bytes = 0;
        self.bytes = 0;
        self.unacked.drain(..).collect()
    }

    fn rewind(&mut self, now: Mono) {
        self.rewound_at = Some(now);
        self.flight = self.base();
        self.flight_bytes = 0;
        self.retry_at = None;
    }

    fn pop(&mut self) -> Option<Item> {
        let in_flight = self.flight > self.base();
        let item = self.unacked.pop_front()?;
        self.bytes -= item.bytes();
        if in_flight {
            self.flight_bytes = self.flight_bytes.saturating_sub(item.bytes());
        } else {
            self.flight = self.base();
        }
        Some(item)
    }

    /// The offset of the peer's clock, as NTP has it (RFC 5905, section 8); the closest estimate counts.
    fn observe(&mut self, now: Mono, wall: i64, ack: &Ack) {
        let there = ack.received_at.saturating_sub(ack.sent_at);
        let back = ack.acked_at.saturating_sub(wall);
        let travelled = there.saturating_sub(back);
        if travelled < 0 {
            return;
        }
        let clock = Clock { offset: there.saturating_add(back) / 2, error: travelled / 2 + 1 };
        let better = self
            .clock
            .is_none_or(|(known, at)| clock.error <= known.error || now.saturating_since(at) >= CLOCK_AGE);
        if better {
            self.clock = Some((clock, now));
        }
    }
}

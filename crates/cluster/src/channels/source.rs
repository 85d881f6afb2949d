use core::time::Duration;

use foundation_proto::Mono;
use foundation_proto::etf::Pid;

use super::{Ack, Envelope};

/// How many messages are acknowledged together at most, if the sender allows a delay.
const ACK_EVERY: u32 = 64;
/// A message of this size is acknowledged at once: it holds much of the sender's memory.
const ACK_BYTES: usize = 64 << 10;

/// The channel process of another node, as a sender.
#[derive(Debug)]
pub(super) struct Source {
    /// The number that is waited for.
    expected: u64,
    /// Messages since the last acknowledgement.
    since_ack: u32,
    pub(super) ack_at: Option<Mono>,
    gap: bool,
    sent_at: i64,
    received_at: i64,
    pub(super) heard_at: Mono,
}

/// What becomes of a message that arrived.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Verdict {
    /// It is the one that was waited for; `lost` messages before it will never come.
    Deliver { lost: u64 },
    /// It was here before.
    Duplicate,
    /// Another one has to come first, and will.
    Early,
}

impl Source {
    /// For a sender whose first message arrived.
    pub(super) fn new(envelope: &Envelope, now: Mono) -> Self {
        Self {
            expected: envelope.base,
            since_ack: 0,
            ack_at: None,
            gap: false,
            sent_at: envelope.sent_at,
            received_at: 0,
            heard_at: now,
        }
    }

    pub(super) fn receive(&mut self, now: Mono, wall: i64, envelope: &Envelope) -> Verdict {
        self.heard_at = now;
        self.sent_at = envelope.sent_at;
        self.received_at = wall;
        let lost = envelope.base.saturating_sub(self.expected);
        self.expected = self.expected.max(envelope.base);
        let verdict = match envelope.seq.cmp(&self.expected) {
            core::cmp::Ordering::Less => Verdict::Duplicate,
            core::cmp::Ordering::Equal => {
                self.expected += 1;
                Verdict::Deliver { lost }
            }
            core::cmp::Ordering::Greater => Verdict::Early,
        };
        self.since_ack += 1;
        self.gap |= verdict == Verdict::Early;
        let kept = envelope.base < envelope.seq || envelope.ack_ms < 1_000;
        let many = kept && (self.since_ack >= ACK_EVERY || envelope.payload.as_bytes().len() >= ACK_BYTES);
        let at_once = many || verdict != (Verdict::Deliver { lost }) || envelope.ack_ms == 0;
        let delay = if at_once { Duration::ZERO } else { Duration::from_millis(u64::from(envelope.ack_ms)) };
        let at = now + delay;
        self.ack_at = Some(self.ack_at.map_or(at, |known| known.min(at)));
        verdict
    }

    /// The acknowledgement, if it is due.
    pub(super) fn ack(&mut self, now: Mono, wall: i64, me: &Pid) -> Option<Ack> {
        self.ack_at.filter(|at| *at <= now)?;
        self.ack_at = None;
        self.since_ack = 0;
        Some(Ack {
            receiver: me.clone(),
            expected: self.expected,
            gap: core::mem::take(&mut self.gap),
            sent_at: self.sent_at,
            received_at: self.received_at,
            acked_at: wall,
        })
    }
}

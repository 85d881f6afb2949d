use foundation_proto::etf::{
    Atom, Pid, RawTerm, Tape, View, put_atom, put_binary, put_i64, put_pid, put_tuple_header,
};
use foundation_proto::{Limits, Result};

use super::relay::{Gossip, Relay};

const ENVELOPE: Atom = Atom::new_static("foundation_channel");
const ACK: Atom = Atom::new_static("foundation_channel_ack");
const LEAVE: Atom = Atom::new_static("foundation_channel_leave");
const PLAIN: Atom = Atom::new_static("plain");
const COMPRESSED: Atom = Atom::new_static("compressed");
const VERSION: i64 = 1;
/// The longest time that an acknowledgement is held back, whatever the sender allows.
const ACK_MS_MAX: i64 = 60_000;

/// How far the receiver's clock is ahead of the sender's, in microseconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Clock {
    /// The estimate.
    pub offset: i64,
    /// By how much it may be wrong.
    pub error: i64,
}

/// A message on its way from one channel process to another.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// The channel process that sends.
    pub sender: Pid,
    /// The number of the message.
    pub seq: u64,
    /// The lowest number that can be sent again.
    pub base: u64,
    /// When it was sent, in microseconds on the sender's clock.
    pub sent_at: i64,
    /// What the sender knows of the receiver's clock.
    pub clock: Option<Clock>,
    /// How long the acknowledgement may be held back, in milliseconds.
    pub ack_ms: u32,
    /// The message; if `compressed`, a binary that holds it.
    pub payload: RawTerm,
    /// Whether the payload is a binary with the compressed message.
    pub compressed: bool,
}

/// How far one channel process has received the messages of another.
#[derive(Clone, Debug)]
pub struct Ack {
    /// The channel process that received.
    pub receiver: Pid,
    /// The number that it waits for.
    pub expected: u64,
    /// Whether a later number arrived already.
    pub gap: bool,
    /// [`Envelope::sent_at`] of the message that arrived last.
    pub sent_at: i64,
    /// When that arrived, in microseconds on the receiver's clock.
    pub received_at: i64,
    /// When this was sent, on the same clock.
    pub acked_at: i64,
}

/// What a channel process receives.
#[derive(Clone, Debug)]
pub enum Received {
    /// A message.
    Envelope(Envelope),
    /// An acknowledgement.
    Ack(Ack),
    /// A message that is to be passed on to certain nodes.
    Relay(Relay),
    /// A message that is to be passed on to some nodes.
    Gossip(Gossip),
    /// The channel process does not come back.
    Leave(Pid),
}

impl Received {
    /// Reads what arrived; `None` if it is neither.
    ///
    /// # Errors
    /// Those of looking at the message.
    pub fn decode(raw: &RawTerm, tape: &mut Tape) -> Result<Option<Self>> {
        let view = raw.view(tape)?;
        if let Some(elements) = view.tuple::<9>() {
            return Ok(envelope(raw, elements).map(Self::Envelope));
        }
        if let Some([tag, version, sender]) = view.tuple::<3>() {
            let ours = tag.is_atom(LEAVE.as_str()) && version.as_i64() == Some(VERSION);
            return Ok(sender.as_pid().filter(|_| ours).map(Self::Leave));
        }
        let Some(elements) = view.tuple::<8>() else { return Ok(None) };
        Ok(ack(elements)
            .map(Self::Ack)
            .or_else(|| Relay::decode(raw, elements).map(Self::Relay))
            .or_else(|| Gossip::decode(raw, elements).map(Self::Gossip)))
    }
}

fn envelope(raw: &RawTerm, elements: [View<'_>; 9]) -> Option<Envelope> {
    let [tag, version, sender, seq, base, sent_at, clock, ack_ms, payload] = elements;
    let ours = tag.is_atom(ENVELOPE.as_str()) && version.as_i64() == Some(VERSION);
    if !ours {
        return None;
    }
    let (payload, compressed) = self::payload(raw, payload)?;
    let (seq, base) = (u64::try_from(seq.as_i64()?).ok()?, u64::try_from(base.as_i64()?).ok()?);
    Some(Envelope {
        sender: sender.as_pid()?,
        seq,
        base,
        sent_at: sent_at.as_i64()?,
        clock: self::clock(clock)?,
        ack_ms: self::ack_ms(ack_ms)?,
        payload,
        compressed,
    })
    .filter(|envelope| envelope.base <= envelope.seq)
}

/// The message inside, and whether it is compressed.
pub(super) fn payload(raw: &RawTerm, payload: View<'_>) -> Option<(RawTerm, bool)> {
    let [encoding, content] = payload.tuple::<2>()?;
    let compressed = encoding.is_atom(COMPRESSED.as_str()) && content.as_binary().is_some();
    (compressed || encoding.is_atom(PLAIN.as_str())).then_some((raw.inner(content)?, compressed))
}

pub(super) fn clock(clock: View<'_>) -> Option<Option<Clock>> {
    match clock.tuple::<2>() {
        Some([offset, error]) => Some(Some(Clock { offset: offset.as_i64()?, error: error.as_i64()? })),
        None => Some(None),
    }
}

pub(super) fn ack_ms(ack_ms: View<'_>) -> Option<u32> {
    u32::try_from(ack_ms.as_i64()?.clamp(0, ACK_MS_MAX)).ok()
}

pub(super) fn put_payload(bytes: &mut Vec<u8>, payload: &RawTerm, compressed: bool) {
    put_tuple_header(bytes, 2);
    let encoding = if compressed { COMPRESSED } else { PLAIN };
    put_atom(bytes, &encoding);
    bytes.extend_from_slice(payload.as_bytes());
}

pub(super) fn put_clock(bytes: &mut Vec<u8>, clock: Option<Clock>) {
    match clock {
        Some(Clock { offset, error }) => {
            put_tuple_header(bytes, 2);
            put_i64(bytes, offset);
            put_i64(bytes, error);
        }
        None => put_atom(bytes, &Atom::new_static("undefined")),
    }
}

fn ack(elements: [View<'_>; 8]) -> Option<Ack> {
    let [tag, version, receiver, expected, gap, sent_at, received_at, acked_at] = elements;
    if !tag.is_atom(ACK.as_str()) || version.as_i64() != Some(VERSION) {
        return None;
    }
    Some(Ack {
        receiver: receiver.as_pid()?,
        expected: u64::try_from(expected.as_i64()?).ok()?,
        gap: gap.as_bool()?,
        sent_at: sent_at.as_i64()?,
        received_at: received_at.as_i64()?,
        acked_at: acked_at.as_i64()?,
    })
}

impl Envelope {
    /// The message for the other channel process.
    ///
    /// # Errors
    /// If the payload is not a valid term.
    pub fn encode(&self, limits: &Limits) -> Result<RawTerm> {
        let payload = self.payload.to_plain();
        let mut bytes = Vec::with_capacity(128 + payload.as_bytes().len());
        put_tuple_header(&mut bytes, 9);
        put_atom(&mut bytes, &ENVELOPE);
        put_i64(&mut bytes, VERSION);
        put_pid(&mut bytes, &self.sender);
        put_i64(&mut bytes, number(self.seq));
        put_i64(&mut bytes, number(self.base));
        put_i64(&mut bytes, self.sent_at);
        put_clock(&mut bytes, self.clock);
        put_i64(&mut bytes, i64::from(self.ack_ms));
        put_payload(&mut bytes, &payload, self.compressed);
        RawTerm::new(bytes.into(), None, limits)
    }

    /// The message inside.
    ///
    /// # Errors
    /// If the compressed form cannot be read, or exceeds the limits.
    pub fn message(&self, limits: &Limits) -> Result<RawTerm> {
        if !self.compressed {
            return Ok(self.payload.clone());
        }
        let mut tape = Tape::new();
        let view = self.payload.view(&mut tape)?;
        RawTerm::from_external(view.as_binary().unwrap_or_default(), limits)
    }
}

/// The payload of a message that travels compressed; `None` if it would not be shorter.
pub(super) fn compressed(message: &RawTerm) -> Option<RawTerm> {
    let external = message.to_external_compressed();
    if external.len() >= message.as_bytes().len() {
        return None;
    }
    let mut bytes = Vec::with_capacity(8 + external.len());
    put_binary(&mut bytes, &external);
    RawTerm::new(bytes.into(), None, &Limits::default()).ok()
}

/// What a channel process that does not come back tells its peers.
pub(super) fn leave(me: &Pid, limits: &Limits) -> Result<RawTerm> {
    let mut bytes = Vec::with_capacity(64);
    put_tuple_header(&mut bytes, 3);
    put_atom(&mut bytes, &LEAVE);
    put_i64(&mut bytes, VERSION);
    put_pid(&mut bytes, me);
    RawTerm::new(bytes.into(), None, limits)
}

impl Ack {
    /// The message for the other channel process.
    ///
    /// # Errors
    /// None in practice.
    pub fn encode(&self, limits: &Limits) -> Result<RawTerm> {
        let mut bytes = Vec::with_capacity(96);
        put_tuple_header(&mut bytes, 8);
        put_atom(&mut bytes, &ACK);
        put_i64(&mut bytes, VERSION);
        put_pid(&mut bytes, &self.receiver);
        put_i64(&mut bytes, number(self.expected));
        put_atom(&mut bytes, &Atom::new_static(if self.gap { "true" } else { "false" }));
        put_i64(&mut bytes, self.sent_at);
        put_i64(&mut bytes, self.received_at);
        put_i64(&mut bytes, self.acked_at);
        RawTerm::new(bytes.into(), None, limits)
    }
}

/// A number of a message; it would take centuries to exceed what an `i64` holds.
pub(super) fn number(seq: u64) -> i64 {
    i64::try_from(seq).unwrap_or(i64::MAX)
}

//! Messages that nodes pass on for each other, so that a sender need not send to each node itself.

use std::collections::BTreeMap;

use foundation_proto::etf::{
    Atom, Pid, RawTerm, View, put_atom, put_i64, put_list_header, put_nil, put_pid, put_tuple_header,
};
use foundation_proto::{Limits, Mono, Result};

use super::envelope::{self, Clock, Envelope};

const RELAY: Atom = Atom::new_static("foundation_channel_relay");
const GOSSIP: Atom = Atom::new_static("foundation_channel_gossip");
const VERSION: i64 = 1;
/// How many nodes a node passes a message on to at most, whatever the message says.
const FANOUT_MAX: usize = 64;
/// How often a message is passed on at most; 2 to the power of this is more than any cluster has nodes.
const HOPS_MAX: u8 = 32;
/// How many senders of gossip are remembered, those heard of last.
const SOURCES: usize = 4096;
/// How many numbers below the highest of a sender are remembered.
const REMEMBERED: u64 = 1024;

/// For whom a message is that others pass on, with what differs between the receivers.
#[derive(Clone, Debug)]
pub(super) struct Receiver {
    pub(super) pid: Pid,
    pub(super) seq: u64,
    pub(super) base: u64,
    pub(super) clock: Option<Clock>,
}

/// A message for the first receiver, who passes it on to the others.
#[derive(Clone, Debug)]
pub struct Relay {
    /// The message, without what the receivers say.
    pub(super) body: Envelope,
    pub(super) fanout: usize,
    pub(super) receivers: Vec<Receiver>,
}

/// A message that each receiver passes on to some others.
#[derive(Clone, Debug)]
pub struct Gossip {
    /// The message; its `seq` is the same for all receivers.
    pub(super) body: Envelope,
    pub(super) fanout: usize,
    pub(super) hops: u8,
}

impl Relay {
    pub(super) fn decode(raw: &RawTerm, elements: [View<'_>; 8]) -> Option<Self> {
        let [tag, version, sender, sent_at, ack_ms, fanout, payload, receivers] = elements;
        if !tag.is_atom(RELAY.as_str()) || version.as_i64() != Some(VERSION) {
            return None;
        }
        let receivers: Option<Vec<Receiver>> = receivers.elements().map(receiver).collect();
        let (payload, compressed) = envelope::payload(raw, payload)?;
        Some(Self {
            body: Envelope {
                sender: sender.as_pid()?,
                seq: 0,
                base: 0,
                sent_at: sent_at.as_i64()?,
                clock: None,
                ack_ms: envelope::ack_ms(ack_ms)?,
                payload,
                compressed,
            },
            fanout: usize::try_from(fanout.as_i64()?).ok()?.clamp(1, FANOUT_MAX),
            receivers: receivers?,
        })
    }

    pub(super) fn encode(&self, limits: &Limits) -> Result<RawTerm> {
        let payload = self.body.payload.to_plain();
        let mut bytes = Vec::with_capacity(128 + payload.as_bytes().len() + 48 * self.receivers.len());
        put_tuple_header(&mut bytes, 8);
        put_atom(&mut bytes, &RELAY);
        put_i64(&mut bytes, VERSION);
        put_pid(&mut bytes, &self.body.sender);
        put_i64(&mut bytes, self.body.sent_at);
        put_i64(&mut bytes, i64::from(self.body.ack_ms));
        put_i64(&mut bytes, i64::try_from(self.fanout).unwrap_or(i64::MAX));
        envelope::put_payload(&mut bytes, &payload, self.body.compressed);
        // No list is longer than there are nodes.
        put_list_header(&mut bytes, u32::try_from(self.receivers.len()).unwrap_or(u32::MAX));
        for receiver in &self.receivers {
            put_tuple_header(&mut bytes, 4);
            put_pid(&mut bytes, &receiver.pid);
            put_i64(&mut bytes, envelope::number(receiver.seq));
            put_i64(&mut bytes, envelope::number(receiver.base));
            envelope::put_clock(&mut bytes, receiver.clock);
        }
        put_nil(&mut bytes);
        RawTerm::new(bytes.into(), None, limits)
    }

    /// What one receiver gets.
    pub(super) fn envelope(&self, receiver: &Receiver) -> Envelope {
        Envelope { seq: receiver.seq, base: receiver.base, clock: receiver.clock, ..self.body.clone() }
    }

    /// Cuts the receivers into at most [`fanout`](Self::fanout) parts of about the same size; the first of each passes on to the rest.
    pub(super) fn stages(&self, receivers: &[Receiver]) -> impl Iterator<Item = Self> {
        let size = receivers.len().div_ceil(self.fanout).max(1);
        receivers.chunks(size).map(|part| Self {
            body: self.body.clone(),
            fanout: self.fanout,
            receivers: part.to_vec(),
        })
    }
}

fn receiver(view: View<'_>) -> Option<Receiver> {
    let [pid, seq, base, clock] = view.tuple::<4>()?;
    let (seq, base) = (u64::try_from(seq.as_i64()?).ok()?, u64::try_from(base.as_i64()?).ok()?);
    Some(Receiver { pid: pid.as_pid()?, seq, base, clock: envelope::clock(clock)? })
        .filter(|receiver| receiver.base <= receiver.seq)
}

impl Gossip {
    pub(super) fn decode(raw: &RawTerm, elements: [View<'_>; 8]) -> Option<Self> {
        let [tag, version, sender, number, sent_at, fanout, hops, payload] = elements;
        if !tag.is_atom(GOSSIP.as_str()) || version.as_i64() != Some(VERSION) {
            return None;
        }
        let seq = u64::try_from(number.as_i64()?).ok()?;
        let (payload, compressed) = envelope::payload(raw, payload)?;
        Some(Self {
            body: Envelope {
                sender: sender.as_pid()?,
                seq,
                base: seq,
                sent_at: sent_at.as_i64()?,
                clock: None,
                ack_ms: 0,
                payload,
                compressed,
            },
            fanout: usize::try_from(fanout.as_i64()?).ok()?.clamp(1, FANOUT_MAX),
            hops: u8::try_from(hops.as_i64()?.clamp(0, i64::from(HOPS_MAX))).ok()?,
        })
    }

    pub(super) fn encode(&self, limits: &Limits) -> Result<RawTerm> {
        let payload = self.body.payload.to_plain();
        let mut bytes = Vec::with_capacity(128 + payload.as_bytes().len());
        put_tuple_header(&mut bytes, 8);
        put_atom(&mut bytes, &GOSSIP);
        put_i64(&mut bytes, VERSION);
        put_pid(&mut bytes, &self.body.sender);
        put_i64(&mut bytes, envelope::number(self.body.seq));
        put_i64(&mut bytes, self.body.sent_at);
        put_i64(&mut bytes, i64::try_from(self.fanout).unwrap_or(i64::MAX));
        put_i64(&mut bytes, i64::from(self.hops));
        envelope::put_payload(&mut bytes, &payload, self.body.compressed);
        RawTerm::new(bytes.into(), None, limits)
    }

    /// How often a message is passed on so that it can reach `nodes`, and eight times more: of two ways to a node the longer may be the
    /// faster. Each node passes a message on once, so this costs nothing.
    pub(super) fn hops(fanout: usize, nodes: usize) -> u8 {
        let (mut hops, mut reached) = (8, 1_usize);
        while reached < nodes && hops < HOPS_MAX {
            reached = reached.saturating_mul(fanout.max(2));
            hops += 1;
        }
        hops
    }

    /// Who gets it from `me`: as many of `all` as the fan-out says, other ones for each message and each node.
    pub(super) fn choose<'a>(&self, me: &Pid, all: impl Iterator<Item = &'a Pid>) -> Vec<Pid> {
        let seed = mix(hash(me) ^ mix(hash(&self.body.sender) ^ self.body.seq));
        let mut drawn: Vec<(u64, &Pid)> = all
            .filter(|pid| **pid != self.body.sender && *pid != me)
            .map(|pid| (mix(seed ^ hash(pid)), pid))
            .collect();
        drawn.sort_unstable();
        drawn.into_iter().take(self.fanout).map(|(_, pid)| pid.clone()).collect()
    }
}

fn hash(pid: &Pid) -> u64 {
    let name = pid.node.as_str().bytes().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
        // FNV-1a.
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    });
    mix(name ^ u64::from(pid.id) << 32 ^ u64::from(pid.creation))
}

/// SplitMix64.
fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Which messages of gossip were here already.
#[derive(Debug, Default)]
pub(super) struct Heard(BTreeMap<Pid, Numbers>);

#[derive(Debug)]
struct Numbers {
    highest: u64,
    /// One bit for each number below and including the highest.
    seen: [u64; (REMEMBERED / 64) as usize],
    heard_at: Mono,
}

impl Heard {
    /// Whether a message is new. One that is too old to be known counts as known.
    pub(super) fn is_new(&mut self, now: Mono, sender: &Pid, number: u64) -> bool {
        if !self.0.contains_key(sender) && self.0.len() >= SOURCES {
            let oldest = self.0.iter().min_by_key(|(_, known)| known.heard_at).map(|(pid, _)| pid.clone());
            oldest.and_then(|pid| self.0.remove(&pid));
        }
        let known = self.0.entry(sender.clone()).or_insert(Numbers {
            highest: number,
            seen: [0; (REMEMBERED / 64) as usize],
            heard_at: now,
        });
        known.heard_at = now;
        if number > known.highest {
            // What comes round again to the place of a number is not known yet.
            for next in (known.highest + 1..=number).rev().take(REMEMBERED as usize) {
                known.clear(next);
            }
            known.highest = number;
        } else if known.highest - number >= REMEMBERED {
            return false;
        }
        known.take(number)
    }

    /// Forgets senders that were heard of too long ago.
    pub(super) fn retain(&mut self, keep: impl Fn(Mono) -> bool) {
        self.0.retain(|_, known| keep(known.heard_at));
    }
}

impl Numbers {
    fn place(number: u64) -> (usize, u64) {
        let at = number % REMEMBERED;
        ((at / 64) as usize, 1 << (at % 64))
    }

    fn clear(&mut self, number: u64) {
        let (word, bit) = Self::place(number);
        if let Some(word) = self.seen.get_mut(word) {
            *word &= !bit;
        }
    }

    fn take(&mut self, number: u64) -> bool {
        let (word, bit) = Self::place(number);
        let Some(word) = self.seen.get_mut(word) else { return false };
        let new = *word & bit == 0;
        *word |= bit;
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid(id: u32) -> Pid {
        Pid { node: Atom::new(&format!("n{id}@h")).unwrap(), id, serial: 0, creation: 4 }
    }

    #[test]
    fn each_number_is_new_once_within_what_is_remembered() {
        let mut heard = Heard::default();
        for number in [5, 3, 7, 2_000] {
            assert!(heard.is_new(Mono::ZERO, &pid(1), number), "{number}");
            assert!(!heard.is_new(Mono::ZERO, &pid(1), number), "{number}");
        }
        assert!(!heard.is_new(Mono::ZERO, &pid(1), 976), "too old to be told");
        assert!(heard.is_new(Mono::ZERO, &pid(1), 977));
        assert!(heard.is_new(Mono::ZERO, &pid(1), u64::MAX));
        assert!(heard.is_new(Mono::ZERO, &pid(2), 5));
    }

    #[test]
    fn every_receiver_is_in_one_stage() {
        let body = Envelope {
            sender: pid(0),
            seq: 0,
            base: 0,
            sent_at: 0,
            clock: None,
            ack_ms: 0,
            payload: RawTerm::from_term(&foundation_proto::etf::Term::Integer(1)).unwrap(),
            compressed: false,
        };
        for count in 0..40 {
            let receivers: Vec<Receiver> =
                (1..=count).map(|id| Receiver { pid: pid(id), seq: 1, base: 1, clock: None }).collect();
            let relay = Relay { body: body.clone(), fanout: 4, receivers: receivers.clone() };
            let stages: Vec<Relay> = relay.stages(&receivers).collect();
            assert!(stages.len() <= 4);
            let all: Vec<u32> = stages.iter().flat_map(|s| s.receivers.iter().map(|r| r.pid.id)).collect();
            assert_eq!(all, (1..=count).collect::<Vec<_>>());
        }
        assert_eq!((Gossip::hops(5, 1), Gossip::hops(5, 5), Gossip::hops(5, 1_000)), (8, 9, 13));
    }
}

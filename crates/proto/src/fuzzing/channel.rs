#![allow(clippy::panic, reason = "a fuzz body reports by panicking")]

use std::collections::BTreeMap;
use std::io::IoSlice;

use bytes::{Bytes, BytesMut};

use super::splits;
use crate::dist::atom_cache::ReceiveCache;
use crate::dist::control::{Ends, decode, decode_send};
use crate::dist::fragment::Reassembly;
use crate::dist::header::{Header, HeaderMode, HeaderWriter};
use crate::dist::{
    ChannelConfig, ControlMessage, DistributionFlags as Flags, Inbound, Lane, LaneClass, Outbound, Signal,
};
use crate::error::Result;
use crate::etf::{Atom, RawTerm, Tape, Term};
use crate::{Limits, Mono};

const LOCAL: Atom = Atom::new_static("b@127.0.0.1");
const PEER: Atom = Atom::new_static("a@127.0.0.1");

/// What can be seen of a connection from outside.
#[derive(Debug, PartialEq)]
struct Seen {
    signals: Vec<(ControlMessage, Option<Term>, Option<Term>)>,
    open_sequences: usize,
    outcome: Result<()>,
}

/// An authenticated peer sends anything. The first byte chooses the flags.
///
/// Asserts that the outcome does not depend on how the bytes are split, that messages for one process which are taken together are
/// the signals one by one, and that each signal, sent on as if it were ours, is either refused or arrives as the same signal.
pub fn fuzz_inbound(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    let flags = match choice % 4 {
        0 => Flags::HIDDEN,
        1 => Flags::HIDDEN.without(Flags::DIST_HDR_ATOM_CACHE),
        2 => Flags::HIDDEN.without(Flags::FRAGMENTS),
        _ => Flags::MANDATORY_25 | Flags::DIST_MONITOR | Flags::DIST_MONITOR_NAME,
    };
    let [whole, bytes, pieces] = splits(data).map(|pieces| run(flags, &pieces));
    assert_eq!(whole, bytes, "the outcome depends on how the bytes are split");
    assert_eq!(whole, pieces, "the outcome depends on how the bytes are split");
    for pieces in splits(data) {
        by_messages(flags, &pieces, 1 + usize::from(choice / 4 % 4), &whole);
    }
}

/// Takes messages together where that can be, `most` at a time.
fn by_messages(flags: Flags, pieces: &[&[u8]], most: usize, expected: &Seen) {
    let config = ChannelConfig { limits: limits(), ..ChannelConfig::new(LOCAL, PEER, 1, flags) };
    let mut inbound = Inbound::new(&config, Mono::ZERO);
    let mut input = BytesMut::new();
    let mut signals = expected.signals.iter();
    for piece in pieces {
        input.extend_from_slice(piece);
        inbound.handle_input(Mono::ZERO, &mut input);
        loop {
            let messages = inbound.poll_messages(most);
            if let Ok(Some((to, messages))) = messages {
                assert!((1..=most).contains(&messages.len()), "{} messages", messages.len());
                assert_eq!(messages.sizes().sum::<usize>(), messages.bytes());
                for message in messages {
                    let Some((ControlMessage::Send { to: sent, .. }, Some(payload), None)) = signals.next()
                    else {
                        panic!("a message that is no SEND without a token")
                    };
                    assert_eq!((to.id, to.serial, to.creation), (sent.id, sent.serial, sent.creation));
                    assert_eq!(message.to_term(&limits()).as_ref(), Ok(payload));
                }
                continue;
            }
            match messages.and_then(|_none| inbound.poll_signal()) {
                Ok(Some(signal)) => {
                    assert_eq!(signals.next().map(|(control, ..)| control), Some(&signal.control))
                }
                Ok(None) => break,
                Err(error) => {
                    assert_eq!(expected.outcome, Err(error));
                    break;
                }
            }
        }
    }
    assert!(signals.next().is_none(), "a signal is missing");
}

/// Small enough that the input can reach them.
fn limits() -> Limits {
    Limits {
        max_frame: 4096,
        max_depth: 100,
        max_sequences: 4,
        max_fragments: 100,
        max_reassembly: 8192,
        ..Limits::default()
    }
}

fn run(flags: Flags, pieces: &[&[u8]]) -> Seen {
    let config = ChannelConfig { limits: limits(), ..ChannelConfig::new(LOCAL, PEER, 1, flags) };
    let mut inbound = Inbound::new(&config, Mono::ZERO);
    let mut onwards = Onwards::new(flags);
    let mut input = BytesMut::new();
    let mut signals = Vec::new();
    let mut outcome = Ok(());
    for piece in pieces {
        input.extend_from_slice(piece);
        inbound.handle_input(Mono::ZERO, &mut input);
        assert!(inbound.read_hint(&input) <= input.len().max(64 << 10));
        loop {
            match inbound.poll_signal() {
                Ok(Some(signal)) => {
                    onwards.send(&signal);
                    let owned = |raw: &RawTerm| raw.to_term(&limits()).ok();
                    let [payload, token] =
                        [&signal.payload, &signal.token].map(|raw| raw.as_ref().and_then(owned));
                    assert_eq!(signal.payload.is_some(), signal.control.has_payload());
                    signals.push((signal.control, payload, token));
                }
                Ok(None) => break,
                Err(error) => {
                    assert!(outcome.is_ok() || outcome == Err(error.clone()), "an error is final");
                    outcome = Err(error);
                    break;
                }
            }
        }
    }
    Seen { signals, open_sequences: inbound.open_sequences(), outcome }
}

/// A connection on which signals that arrived are sent as if the peer were this library.
struct Onwards {
    flags: Flags,
    outbound: Outbound,
    inbound: Inbound,
}

impl Onwards {
    fn new(flags: Flags) -> Self {
        let config = |local, peer| ChannelConfig::new(local, peer, 1, flags);
        Self {
            flags,
            outbound: Outbound::new(&config(PEER, LOCAL), Mono::ZERO),
            inbound: Inbound::new(&config(LOCAL, PEER), Mono::ZERO),
        }
    }

    fn send(&mut self, signal: &Signal) {
        let lane = Lane { sender: 1, class: LaneClass::Normal };
        if self.outbound.send(&signal.control, signal.payload.as_ref(), lane).is_err() {
            assert!(self.outbound.is_empty(), "what is refused leaves no trace");
            return;
        }
        let mut wire = BytesMut::new();
        while !self.outbound.is_empty() {
            let mut slices = [IoSlice::new(&[]); 8];
            let filled = self.outbound.poll_transmit(Mono::ZERO, &mut slices);
            let before = wire.len();
            for slice in slices.iter().take(filled) {
                wire.extend_from_slice(slice);
            }
            let written = wire.len() - before;
            self.outbound.advance(written);
        }
        self.inbound.handle_input(Mono::ZERO, &mut wire);
        let arrived = self.inbound.poll_signal();
        let Ok(Some(arrived)) = arrived else { panic!("{signal:?} was sent and arrived as {arrived:?}") };
        let terms = |signal: &Signal| signal.payload.as_ref().map(|raw| raw.to_term(&Limits::default()));
        assert_eq!(terms(&arrived), terms(signal));
        if self.flags == Flags::HIDDEN && !matches!(signal.control, ControlMessage::AliasSend { .. }) {
            assert_eq!(arrived.control, signal.control);
        }
    }
}

/// Distribution headers, one after the other on one connection: each two bytes of length, then the frame.
///
/// Asserts that the terms start inside the frame, and that the atoms of a header can be listed again and read back.
pub fn fuzz_header(data: &[u8]) {
    let mode = HeaderMode::new(Flags::HIDDEN);
    let mut cache = ReceiveCache::default();
    let mut writer = HeaderWriter::new(mode);
    let mut far_cache = ReceiveCache::default();
    let mut rest = data;
    while let Some((length, after)) = rest.split_first_chunk::<2>() {
        let length = usize::from(u16::from_be_bytes(*length)).min(after.len());
        let (frame, next) = after.split_at(length);
        rest = next;
        let Ok(header) = Header::read(mode, frame, &mut cache) else { return };
        let (atoms, body) = match header {
            Header::PassThrough { .. } => panic!("a mode that was not negotiated"),
            Header::Message { atoms, body } | Header::FirstFragment { atoms, body, .. } => (atoms, body),
            Header::Fragment { body, .. } => (None, body),
        };
        assert!(body <= frame.len());
        writer.clear();
        let listed: Vec<Atom> = atoms
            .iter()
            .flat_map(|atoms| atoms.iter())
            .filter_map(|atom| writer.reference(atom).map(|index| (index, atom)))
            .fold(Vec::new(), |mut listed, (index, atom)| {
                match listed.get(usize::from(index)) {
                    Some(known) => assert_eq!(known, atom),
                    None => listed.push(atom.clone()),
                }
                listed
            });
        let mut written = vec![131, 68];
        writer.write(&mut written);
        assert_eq!(written.len(), 2 + writer.len());
        match Header::read(mode, &written, &mut far_cache) {
            Ok(Header::Message { atoms, body }) => {
                assert_eq!(body, written.len());
                assert_eq!(atoms.as_deref().unwrap_or_default(), listed);
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Fragments of a few sequences: each a byte of sequence and kind, a byte of number, a byte of size.
///
/// Asserts that what comes together is what a simple model says, and that an error is an error of the model.
pub fn fuzz_fragment(data: &[u8]) {
    let limits = Limits { max_sequences: 3, max_fragments: 40, max_reassembly: 6000, ..Limits::default() };
    let mut reassembly = Reassembly::new(&limits);
    let mut model: BTreeMap<u64, (u64, Vec<u8>)> = BTreeMap::new();
    for [about, number, size] in data.as_chunks::<3>().0 {
        let (sequence, number) = (u64::from(about & 7), u64::from(*number));
        let part = vec![*size; usize::from(*size) * 4];
        if about & 8 != 0 {
            let whole = reassembly.is_whole(sequence, number);
            let expected = match (model.contains_key(&sequence), sequence, number) {
                (true, ..) | (_, _, 0) => None,
                (_, _, 1) => Some(true),
                (_, 0, _) => None,
                _ if number > 40 || model.len() >= 3 => None,
                _ => Some(false),
            };
            assert_eq!(whole.as_ref().ok(), expected.as_ref());
            match whole {
                Ok(true) => {}
                Ok(false) if reassembly.open(sequence, number, sequence, &part).is_ok() => {
                    model.insert(sequence, (number - 1, part));
                }
                _ => return,
            }
            continue;
        }
        let added = reassembly.add(sequence, number, &part);
        let Some((next, bytes)) = model.get_mut(&sequence).filter(|(next, _)| *next == number) else {
            assert!(added.is_err());
            return;
        };
        let Ok(complete) = added else { return };
        *next -= 1;
        bytes.extend(part);
        if number == 1 {
            let (_, bytes) = model.remove(&sequence).unwrap_or_default();
            assert_eq!(complete, Some((sequence, Bytes::from(bytes))));
        } else {
            assert_eq!(complete, None);
        }
        assert_eq!(reassembly.open_sequences(), model.len());
    }
}

/// A control tuple.
///
/// Asserts that one that is understood is, sent again, either refused or the same message, and that the short cut for the most
/// frequent one finds the same.
pub fn fuzz_control(data: &[u8]) {
    let atoms = [PEER, LOCAL, Atom::new_static("third@host")];
    let short_cut = decode_send(data, &atoms);
    let mut tape = Tape::new();
    let tuple = tape.parse(data, &atoms, &limits());
    let ends = Ends { local: LOCAL, peer: PEER };
    let length = tuple.as_ref().map_or(0, |tuple| tuple.encoded().len());
    let decoded = tuple.and_then(|tuple| decode(tuple, &atoms, &ends));
    if let Some((control, end)) = short_cut {
        assert_eq!(decoded.as_ref().map(|decoded| (&decoded.control, length)), Ok((&control, end)));
    }
    let Ok(decoded) = decoded else { return };
    let payload = decoded.control.has_payload().then(|| RawTerm::from_term(&Term::Integer(1)).ok()).flatten();
    let signal = Signal { control: decoded.control, payload, token: None };
    Onwards::new(Flags::HIDDEN).send(&signal);
    Onwards::new(Flags::MANDATORY_25).send(&signal);
}

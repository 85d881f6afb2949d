//! The receiving half of an established connection.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::atom_cache::ReceiveCache;
use super::control::{Decoded, Ends, LocalPid, Payload, decode, decode_receiver, decode_send};
use super::fragment::Reassembly;
use super::frame::{Deframer, Frame, LENGTH_BYTES, length_at};
use super::header::{Header, HeaderMode};
use super::messages::{Messages, Place, Places};
use super::{ChannelConfig, ControlMessage, Signal};
use crate::error::{PeerMisbehaved, Problem};
use crate::etf::tag::VERSION_MAGIC;
use crate::etf::{Atom, RawTerm, Tape};
use crate::{Error, Limits, Mono, Result};

/// Bytes in, signals out: the receiving half of an established connection.
///
/// # Use
/// 1. Read into a buffer with room for [`read_hint`](Self::read_hint) bytes, as often as the socket has something.
/// 2. [`handle_input`](Self::handle_input) takes the whole frames out of it.
/// 3. [`poll_signal`](Self::poll_signal) until there is none, or [`poll_messages`](Self::poll_messages) in front of each. What a call returns is bounded, so nothing piles up in here but the
///    bytes that were read: stop reading while signals cannot be taken on.
/// 4. [`handle_timeout`](Self::handle_timeout) at [`poll_timeout`](Self::poll_timeout), after reading what has arrived.
///
/// The first error ends the connection. Signals that came before the mistake have been returned by then.
///
/// # What is checked
/// Everything about the frame and the control message, who may speak in whose name, and that each payload is a well-formed
/// term. (OTP decodes payloads when they are looked at, and closes the connection then.) The payload shares the buffer
/// it was read into; large binaries in it are not touched.
///
/// # Memory
/// A payload keeps the whole read buffer alive, as large as the reader makes it. Who parks many small ones for long copies
/// them. Buffers of large messages are used again once their receivers are done with them; see
/// [`release_buffers`](Self::release_buffers).
#[derive(Debug)]
pub struct Inbound {
    mode: HeaderMode,
    deframer: Deframer,
    /// How many bytes of an unfinished frame were left in the read buffer.
    rest: usize,
    cache: ReceiveCache,
    tape: Tape,
    reassembly: Reassembly<Opening>,
    ends: Ends,
    limits: Limits,
    net_ticktime: core::time::Duration,
    last_heard: Mono,
    /// Why the connection has to be closed.
    failed: Option<Error>,
}

/// Memory for looking at terms of up to this many bytes is kept for the next one.
const LARGE_TERM: usize = 64 << 10;

/// What the first fragment of a message says.
#[derive(Debug)]
struct Opening {
    control: ControlMessage,
    token: Option<RawTerm>,
    atoms: Option<Arc<[Atom]>>,
    /// The payload if it came with the control message, and not behind it.
    payload: Option<RawTerm>,
}

impl Inbound {
    /// For a connection that was established at `now`.
    pub fn new(config: &ChannelConfig, now: Mono) -> Self {
        Self {
            mode: HeaderMode::new(config.flags),
            deframer: Deframer::new(&config.limits),
            rest: 0,
            cache: ReceiveCache::default(),
            tape: Tape::new(),
            reassembly: Reassembly::new(&config.limits),
            ends: Ends { local: config.local.clone(), peer: config.peer.clone() },
            limits: config.limits.clone(),
            net_ticktime: config.net_ticktime,
            last_heard: now,
            failed: None,
        }
    }

    /// Takes every whole frame out of `input`, and leaves the start of the next one there, or of a message whose few fragments are
    /// arriving side by side: it is handed over as one then, in the buffer that it was read into.
    ///
    /// Any new byte counts as a sign of life, so that one large frame on a slow network does not look like silence.
    pub fn handle_input(&mut self, now: Mono, input: &mut BytesMut) {
        if input.len() != self.rest {
            self.last_heard = now;
        }
        if self.failed.is_some() {
            input.clear();
        }
        self.deframer.take(input);
        self.rest = input.len();
    }

    /// How much room `input` should have for the next read. Grows with what was received of a frame, never with the length that
    /// it claims.
    pub fn read_hint(&self, input: &BytesMut) -> usize {
        self.deframer.read_hint(input)
    }

    /// The next signal, if a whole one has arrived.
    ///
    /// # Errors
    /// [`Error::Malformed`], [`Error::PeerMisbehaved`] or [`Error::LimitExceeded`], and from then on always the same. The
    /// connection has to be closed.
    #[inline]
    pub fn poll_signal(&mut self) -> Result<Option<Signal>> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let next = self.next_signal();
        if let Err(error) = &next {
            self.failed = Some(error.clone());
        }
        next
    }

    /// The next signals, as long as they are ordinary messages for one process of this node, in the form that almost all have: the
    /// receiver and the messages, `most` of them at the most. `None` if there is no whole frame or the next one holds anything else, which
    /// [`poll_signal`](Self::poll_signal) then returns. It says the same in less work: senders are not decoded, and what stands in
    /// front of a message is only compared with what stood in front of its neighbour.
    ///
    /// # Errors
    /// As [`poll_signal`](Self::poll_signal).
    pub fn poll_messages(&mut self, most: usize) -> Result<Option<(LocalPid, Messages)>> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let Some((run, mut at)) = self.deframer.run() else { return Ok(None) };
        let mut first: Option<(LocalPid, &Arc<[Atom]>)> = None;
        let mut front: &[u8] = &[];
        let mut places = Places::default();
        while places.len() < most {
            let Some(length) = length_at(run, at).filter(|length| *length > 0) else { break };
            let start = at + LENGTH_BYTES;
            let frame = run.get(start..start + length).unwrap_or_default();
            let (atoms, body) = match first {
                // Nothing has changed the atom cache in between, so the same bytes mean the same.
                Some((_, atoms)) if starts_with(frame, front) => (atoms, front.len()),
                _ => {
                    let Some((atoms, body)) = Header::known(self.mode, frame, &self.cache) else { break };
                    let control = frame.get(body..).unwrap_or_default();
                    let Some((to, length)) = decode_receiver(control, atoms, &self.ends.local) else { break };
                    match first {
                        Some((one, list)) if one != to || !Arc::ptr_eq(list, atoms) => break,
                        Some(_) => {}
                        None => {
                            first = Some((to, atoms));
                            // As many as there are if all are as long as this one.
                            places.reserve(most.min(1 + (run.len() - start) / (LENGTH_BYTES + frame.len())));
                        }
                    }
                    front = frame.get(..body + length).unwrap_or_default();
                    (atoms, body + length)
                }
            };
            let message = frame.get(body..).unwrap_or_default();
            match RawTerm::find(&mut self.tape, message, atoms, &self.limits) {
                Ok((term, refers)) => {
                    if term.len() > LARGE_TERM {
                        self.tape.shrink_to(LARGE_TERM);
                    }
                    let Some(place) = Place::new(start + body + term.start, term.len(), refers) else {
                        break;
                    };
                    places.push(place);
                }
                // The ones before it come first.
                Err(_) if !places.is_empty() => break,
                Err(error) => {
                    self.failed = Some(error.clone());
                    return Err(error);
                }
            }
            at = start + length;
        }
        let Some((to, atoms)) = first.filter(|_| !places.is_empty()) else { return Ok(None) };
        let messages = Messages::new(run.clone(), Arc::clone(atoms), places);
        self.deframer.skip_to(at);
        Ok(Some((to, messages)))
    }

    fn next_signal(&mut self) -> Result<Option<Signal>> {
        loop {
            let Some(frame) = self.deframer.next_frame()? else { return Ok(None) };
            let header = Header::read(self.mode, frame.data(), &mut self.cache)?;
            let mut terms = Terms { tape: &mut self.tape, ends: &self.ends, limits: &self.limits };
            match header {
                Header::Message { atoms, body } => return terms.signal(&frame, body, atoms, false).map(Some),
                Header::PassThrough { body } => return terms.signal(&frame, body, None, true).map(Some),
                Header::FirstFragment { sequence, fragment, atoms, body } => {
                    if self.reassembly.is_whole(sequence, fragment)? {
                        return terms.signal(&frame, body, atoms, false).map(Some);
                    }
                    let (opening, at) = terms.open(&frame, body, atoms)?;
                    let part = frame.data().get(at..).unwrap_or_default();
                    self.reassembly.open(sequence, fragment, opening, part)?;
                }
                Header::Fragment { sequence, fragment, body } => {
                    let part = frame.data().get(body..).unwrap_or_default();
                    if let Some((opening, payload)) = self.reassembly.add(sequence, fragment, part)? {
                        return terms.close(opening, payload).map(Some);
                    }
                }
            }
        }
    }

    /// When anything was last heard from the peer.
    pub fn last_heard(&self) -> Mono {
        self.last_heard
    }

    /// When [`handle_timeout`](Self::handle_timeout) has to be called.
    pub fn poll_timeout(&self) -> Mono {
        self.last_heard + self.net_ticktime
    }

    /// Whether the peer is still there. Call it after reading what has arrived: if this node itself was stopped for a while,
    /// the ticks of the peer wait in the socket.
    ///
    /// # Errors
    /// [`PeerMisbehaved::TickTimeout`] if nothing arrived for the whole net tick time; the connection has to be closed.
    pub fn handle_timeout(&mut self, now: Mono) -> Result<()> {
        if now < self.poll_timeout() {
            Ok(())
        } else {
            Err(Error::PeerMisbehaved(PeerMisbehaved::TickTimeout))
        }
    }

    /// Frees the buffers that are kept for large messages to come: nothing is being received.
    pub fn release_buffers(&mut self) {
        self.reassembly.release_buffers();
    }

    /// How many messages have begun to arrive in fragments and are not complete.
    pub fn open_sequences(&self) -> usize {
        self.reassembly.open_sequences()
    }
}

/// Whether `bytes` begin with `front`. A front has some 40 bytes, for which a call costs more than comparing them.
#[inline]
fn starts_with(bytes: &[u8], front: &[u8]) -> bool {
    let Some(bytes) = bytes.get(..front.len()) else { return false };
    match (bytes.last_chunk::<16>(), front.last_chunk::<16>()) {
        (Some(last), Some(end)) => {
            // The last word overlaps the one before it.
            let words = bytes.as_chunks::<16>().0.iter().zip(front.as_chunks::<16>().0);
            u128::from_le_bytes(*last) == u128::from_le_bytes(*end)
                && words.into_iter().all(|(one, other)| one == other)
        }
        _ => bytes == front,
    }
}

/// Reads the terms of frames.
struct Terms<'a> {
    tape: &'a mut Tape,
    ends: &'a Ends,
    limits: &'a Limits,
}

impl Terms<'_> {
    /// A whole message: the control tuple at `body`, and what follows it. With `versions` each starts with 131.
    fn signal(
        &mut self,
        frame: &Frame<'_>,
        body: usize,
        atoms: Option<Arc<[Atom]>>,
        versions: bool,
    ) -> Result<Signal> {
        let list = atoms.as_deref().unwrap_or_default();
        let send = decode_send(frame.data().get(body..).unwrap_or_default(), list);
        if let Some((control, length)) = send
            && !versions
        {
            let payload = self.term(frame.share_from(body + length), atoms)?;
            return Ok(Signal { control, payload: Some(payload), token: None });
        }
        let (opening, mut at) = self.open(frame, body, atoms)?;
        if opening.payload.is_none() && opening.control.has_payload() {
            if versions {
                match frame.data().get(at) {
                    Some(&VERSION_MAGIC) => at += 1,
                    Some(&other) => {
                        return Err(Error::malformed("payload", at, Problem::UnknownTag(other)));
                    }
                    None => return Err(Error::malformed("payload", at, Problem::Truncated)),
                }
            }
            return self.close(opening, frame.share_from(at));
        }
        let Opening { control, token, payload, .. } = opening;
        Ok(Signal { control, payload, token })
    }

    /// The control tuple at `body`; returns where it ends, too.
    fn open(
        &mut self,
        frame: &Frame<'_>,
        body: usize,
        atoms: Option<Arc<[Atom]>>,
    ) -> Result<(Opening, usize)> {
        let bytes = frame.data().get(body..).unwrap_or_default();
        let list = atoms.as_deref().unwrap_or_default();
        let tuple = self.tape.parse(bytes, list, self.limits)?;
        let end = body + tuple.span().end;
        let Decoded { control, token, payload } = decode(tuple, list, self.ends)?;
        let token = token.map(|token| frame.share(token.encoded()));
        let reason = match payload {
            Payload::Inline(reason) => Some(frame.share(reason.encoded())),
            Payload::None | Payload::Follows => None,
        };
        let token = token.map(|token| self.term(token, atoms.clone())).transpose()?;
        let payload = reason.map(|reason| self.term(reason, atoms.clone())).transpose()?;
        Ok((Opening { control, token, atoms, payload }, end))
    }

    /// The signal, now that all of its payload is there.
    fn close(&mut self, opening: Opening, payload: Bytes) -> Result<Signal> {
        let Opening { control, token, atoms, payload: inline } = opening;
        if inline.is_some() || !control.has_payload() {
            return Ok(Signal { control, payload: inline, token });
        }
        Ok(Signal { control, payload: Some(self.term(payload, atoms)?), token })
    }

    /// The term at the start of `bytes`. What follows it is ignored, as OTP does.
    fn term(&mut self, bytes: Bytes, atoms: Option<Arc<[Atom]>>) -> Result<RawTerm> {
        let term = RawTerm::with_tape(self.tape, bytes, atoms, self.limits)?;
        if term.as_bytes().len() > LARGE_TERM {
            self.tape.shrink_to(LARGE_TERM);
        }
        Ok(term)
    }
}

#[cfg(test)]
mod tests;

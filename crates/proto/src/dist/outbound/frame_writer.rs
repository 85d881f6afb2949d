use std::borrow::Cow;

use bytes::{BufMut, Bytes};

use super::pace::Cut;
use super::routes::{Addressee, Routes, ends};
use super::schedule::{Fragments, Item, Size};
use super::wire::Wire;
use crate::dist::control::Encoder;
use crate::dist::frame::LENGTH_BYTES;
use crate::dist::header::{
    DIST_FRAG_CONT, DIST_FRAG_HEADER, DIST_HEADER, FRAGMENT_PREFIX, HeaderMode, HeaderWriter, PASS_THROUGH,
};
use crate::dist::{ChannelConfig, ControlMessage};
use crate::etf::tag::VERSION_MAGIC;
use crate::etf::{Pid, PlainTerm, RawTerm};

/// Payloads from this size on are referred to, not copied: below it a copy costs less than a slice of a vectored write.
const SHARE_FROM: usize = 4 << 10;

/// Writes signals as frames, in the order in which they reach the peer: atom cache and sequence numbers depend on it.
#[derive(Debug)]
pub(super) struct FrameWriter {
    pub(super) encoder: Encoder,
    pub(super) wire: Wire,
    mode: HeaderMode,
    atoms: HeaderWriter,
    /// The control message that is being encoded; kept for its memory.
    control: Vec<u8>,
    routes: Routes,
    last_sequence: u64,
}

impl FrameWriter {
    pub(super) fn new(config: &ChannelConfig) -> Self {
        let mode = HeaderMode::new(config.flags);
        Self {
            encoder: Encoder::new(config),
            wire: Wire::default(),
            mode,
            atoms: HeaderWriter::new(mode),
            control: Vec::new(),
            routes: Routes::default(),
            last_sequence: 0,
        }
    }

    /// Whether large signals are cut.
    pub(super) fn can_fragment(&self) -> bool {
        matches!(self.mode, HeaderMode::Header { fragments: true, .. })
    }

    /// Writes the signal or its next fragment; if the signal is begun with it, it is cut so. Returns how many bytes that took and whether
    /// it was the last.
    pub(super) fn write_next(&mut self, item: &mut Item, cut: Cut) -> (usize, bool) {
        let before = self.wire.len();
        let complete = self.write_part(item, cut);
        (self.wire.len() - before, complete)
    }

    fn write_part(&mut self, item: &mut Item, cut: Cut) -> bool {
        let begun = item.fragments.is_some();
        let bytes = item.payload.as_ref().map_or(0, |payload| payload.as_bytes().len());
        if item.size == Size::Small || !self.can_fragment() || (!begun && bytes <= cut.whole) {
            self.write_whole(&item.control, item.payload.as_ref(), item.token.as_deref());
            return true;
        }
        match &mut item.fragments {
            Some(fragments) => self.write_fragment(fragments),
            None => {
                let token = item.token.take();
                item.fragments = self.write_first_fragment(
                    &item.control,
                    item.payload.as_ref(),
                    token.as_deref(),
                    cut.fragment,
                );
                item.payload = None;
                item.fragments.is_none()
            }
        }
    }

    /// Encodes the control message into `self.control` and collects the atoms of the message. Returns the payload as it goes
    /// on the wire, if one follows.
    #[inline]
    fn encode_control<'a>(
        &mut self,
        control: &ControlMessage,
        payload: Option<&'a RawTerm>,
        token: Option<&RawTerm>,
    ) -> Option<Cow<'a, Bytes>> {
        self.atoms.clear();
        self.control.clear();
        let payload = payload.map(|payload| {
            // A payload of another connection: either this message lists the very same atoms, or it is rewritten.
            if payload.atoms().is_empty() || self.atoms.adopt(payload.atoms()) {
                Cow::Borrowed(payload.as_bytes())
            } else {
                Cow::Owned(payload.to_plain().as_bytes().clone())
            }
        });
        let bytes: &[u8] = payload.as_deref().map_or(&[], |bytes| bytes);
        let follows = self.encoder.write(control, bytes, token, &mut self.atoms, &mut self.control);
        payload.filter(|_| follows)
    }

    /// Writes a small message behind the front of an earlier one between the same two; false if there was none.
    #[inline]
    pub(super) fn write_again(&mut self, from: &Pid, to: Addressee<'_>, payload: PlainTerm<'_>) -> bool {
        let payload = payload.as_bytes();
        if payload.len() >= SHARE_FROM {
            return false;
        }
        let Some(front) = self.routes.recall(from, to, self.atoms.changes()) else { return false };
        self.wire.append(|out| {
            out.reserve(LENGTH_BYTES + front.len() + payload.len());
            out.put_u32((front.len() + payload.len()) as u32);
            out.put_slice(front);
            out.put_slice(payload);
        });
        true
    }

    /// Writes the whole signal as one frame.
    pub(super) fn write_whole(
        &mut self,
        control: &ControlMessage,
        payload: Option<&RawTerm>,
        token: Option<&RawTerm>,
    ) {
        if token.is_none()
            && let Some((from, to)) = ends(control)
            && let Some(payload) = payload.and_then(RawTerm::as_plain)
            && self.write_again(from, to, payload)
        {
            return;
        }
        let follows = self.encode_control(control, payload, token);
        let payload_len = follows.as_deref().map_or(0, Bytes::len);
        let (atoms, encoded) = (&self.atoms, &self.control);
        let pass_through = self.mode == HeaderMode::PassThrough;
        let front =
            2 + if pass_through { usize::from(follows.is_some()) } else { atoms.len() } + encoded.len();
        let shared = payload_len >= SHARE_FROM;
        let routes = &mut self.routes;
        self.wire.append(|out| {
            out.reserve(LENGTH_BYTES + front + if shared { 0 } else { payload_len });
            out.put_u32((front + payload_len) as u32);
            let start = out.len();
            if pass_through {
                out.put_slice(&[PASS_THROUGH, VERSION_MAGIC]);
                out.put_slice(encoded);
                if follows.is_some() {
                    out.put_u8(VERSION_MAGIC);
                }
            } else {
                out.put_slice(&[VERSION_MAGIC, DIST_HEADER]);
                atoms.write(out);
                out.put_slice(encoded);
            }
            let repeats = token.is_none() && payload.is_some_and(|payload| payload.atoms().is_empty());
            if repeats && atoms.is_repeatable() {
                routes.remember(control, atoms.changes(), out.get(start..).unwrap_or_default());
            }
            if !shared && let Some(payload) = &follows {
                out.put_slice(payload);
            }
        });
        if shared && let Some(payload) = follows {
            self.wire.share(payload.into_owned());
        }
    }

    /// The frame with the header, the control message and the start of the payload; returns what is left, if anything is.
    fn write_first_fragment(
        &mut self,
        control: &ControlMessage,
        payload: Option<&RawTerm>,
        token: Option<&RawTerm>,
        size: usize,
    ) -> Option<Fragments> {
        let mut rest = self.encode_control(control, payload, token).map(Cow::into_owned).unwrap_or_default();
        let first = rest.split_to(size.saturating_sub(self.control.len()).min(rest.len()));
        let further = rest.len().div_ceil(size) as u64;
        self.last_sequence += 1;
        let sequence = self.last_sequence;
        let (atoms, control) = (&self.atoms, &self.control);
        let length = FRAGMENT_PREFIX + atoms.len() + control.len() + first.len();
        self.wire.append(|out| {
            out.put_u32(length as u32);
            out.put_slice(&[VERSION_MAGIC, DIST_FRAG_HEADER]);
            out.put_u64(sequence);
            out.put_u64(further + 1);
            atoms.write(out);
            out.put_slice(control);
        });
        self.wire.share(first);
        (further > 0).then_some(Fragments { sequence, next: further, size, rest })
    }

    /// A frame with the next part of a payload; true if it was the last.
    fn write_fragment(&mut self, fragments: &mut Fragments) -> bool {
        let part = fragments.rest.split_to(fragments.size.min(fragments.rest.len()));
        self.wire.append(|out| {
            out.put_u32((FRAGMENT_PREFIX + part.len()) as u32);
            out.put_slice(&[VERSION_MAGIC, DIST_FRAG_CONT]);
            out.put_u64(fragments.sequence);
            out.put_u64(fragments.next);
        });
        self.wire.share(part);
        fragments.next -= 1;
        fragments.next == 0
    }
}

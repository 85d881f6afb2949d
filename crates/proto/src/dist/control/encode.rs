//! From a control message to the operation that the connection allows, and its bytes.

use std::borrow::Cow;

use bytes::BufMut;

use super::operation as op;
use super::{ControlMessage, Destination, SpawnRequest, Target, altact};
use crate::dist::ChannelConfig;
use crate::dist::DistributionFlags as Flags;
use crate::dist::header::HeaderWriter;
use crate::etf::{Atom, Pid, RawTerm, Reference, Tape, tag};
use crate::{Error, Result};

/// What decides how control messages are written on one connection, and which may be.
#[derive(Clone, Debug)]
pub(crate) struct Encoder {
    /// The effective flags.
    flags: Flags,
    /// The name of this node.
    local: Atom,
    /// The name of the node at the other end.
    peer: Atom,
    /// Its incarnation.
    peer_creation: u32,
}

/// From this size on no priority message goes to an alias: OTP 28 reads beyond such a message if it is fragmented (OTP-20286).
const PRIORITY_ALIAS_MAX: usize = 32 << 10;

impl Encoder {
    pub(crate) fn new(config: &ChannelConfig) -> Self {
        Self {
            flags: config.flags,
            local: config.local.clone(),
            peer: config.peer.clone(),
            peer_creation: config.peer_creation,
        }
    }

    /// Whether this connection can carry the message: whether there is an operation for it, and whether the peer would take
    /// it and not close the connection over it.
    pub(crate) fn check(&self, control: &ControlMessage, has_payload: bool) -> Result<()> {
        use ControlMessage as C;
        if control.has_payload() != has_payload {
            return Err(Error::ApiMisuse(if has_payload {
                "this control message has no payload"
            } else {
                "this control message needs a payload"
            }));
        }
        match control {
            C::Send { from, to } => {
                if let Some(from) = from {
                    self.identifier(from)?;
                }
                self.identifier(to)
            }
            C::RegSend { from, .. } => self.identifier(from),
            C::AliasSend { from, alias } => {
                self.any_of(Flags::ALIAS, Flags::ALTACT_SIG, "ALIAS")?;
                self.identifier(from)?;
                self.reference(alias)
            }
            C::Altact { flags, from, to } => {
                self.identifier(from)?;
                let exit = flags & altact::EXIT != 0;
                match to {
                    Destination::Pid(to) if exit => {
                        self.ours(from)?;
                        self.theirs(to)
                    }
                    Destination::Pid(to) => self.identifier(to),
                    Destination::Name(_) if exit => {
                        Err(Error::ApiMisuse("an exit signal goes to a process or an alias, never to a name"))
                    }
                    Destination::Name(_) => Ok(()),
                    Destination::Alias(alias) if exit => {
                        self.negotiated(Flags::ALTACT_SIG, "ALTACT_SIG")?;
                        self.ours(from)?;
                        self.reference(alias)
                    }
                    Destination::Alias(alias) => {
                        self.any_of(Flags::ALIAS, Flags::ALTACT_SIG, "ALIAS")?;
                        self.reference(alias)
                    }
                }
            }
            C::Link { from, to } => {
                self.ours(from)?;
                self.theirs(to)
            }
            C::Unlink { from, to } => {
                if self.flags.contains(Flags::UNLINK_ID) {
                    return Err(Error::ApiMisuse("UNLINK closes a connection that has UNLINK_ID"));
                }
                self.ours(from)?;
                self.theirs_alive(to)
            }
            C::UnlinkId { id, from, to } => {
                if *id == 0 {
                    return Err(Error::ApiMisuse("the id of an UNLINK_ID is at least 1"));
                }
                self.ours(from)?;
                self.theirs_alive(to)
            }
            C::UnlinkIdAck { id, from, to } => {
                self.negotiated(Flags::UNLINK_ID, "UNLINK_ID")?;
                if *id == 0 {
                    return Err(Error::ApiMisuse("the id of an UNLINK_ID_ACK is at least 1"));
                }
                self.ours(from)?;
                self.theirs_alive(to)
            }
            C::Exit { from, to } => {
                self.ours(from)?;
                self.theirs_alive(to)
            }
            C::Exit2 { from, to } => {
                self.ours(from)?;
                self.theirs(to)
            }
            C::MonitorP { watcher, target, reference } | C::DemonitorP { watcher, target, reference } => {
                self.negotiated(Flags::DIST_MONITOR | Flags::DIST_MONITOR_NAME, "DIST_MONITOR")?;
                self.ours(watcher)?;
                self.reference(reference)?;
                match target {
                    Target::Pid(pid) => self.theirs(pid),
                    Target::Name(_) => Ok(()),
                }
            }
            C::MonitorPExit { target, watcher, reference } => {
                self.negotiated(Flags::DIST_MONITOR | Flags::DIST_MONITOR_NAME, "DIST_MONITOR")?;
                self.theirs(watcher)?;
                self.reference(reference)?;
                match target {
                    Target::Pid(pid) => self.ours(pid),
                    Target::Name(_) => Ok(()),
                }
            }
            C::GroupLeader { leader, pid } => {
                self.identifier(leader)?;
                self.identifier(pid)
            }
            C::SpawnRequest(request) => {
                self.negotiated(Flags::SPAWN, "SPAWN")?;
                self.ours(&request.from)?;
                self.reference(&request.req_id)?;
                if request.req_id.node != self.local {
                    return Err(Error::ApiMisuse("the reference of a spawn request is of this node"));
                }
                let options = RawTerm::from_term(&request.options)?;
                if let Cow::Owned(_) = self.payload(&options, &mut Tape::new())? {
                    // No option of any release has a port or a reference in it.
                    return Err(Error::NotSupportedByPeer("V4_NC"));
                }
                self.identifier(&request.group_leader)
            }
            C::SpawnReply { req_id, to, result, .. } => {
                self.negotiated(Flags::SPAWN, "SPAWN")?;
                self.theirs(to)?;
                if req_id.node != self.peer {
                    return Err(Error::ApiMisuse("the reference of a spawn reply is of the node that asked"));
                }
                result.as_ref().map_or(Ok(()), |pid| self.ours(pid))
            }
        }
    }

    /// The payload in a form that the peer reads: peers before OTP 24 close the connection over wide identifiers.
    ///
    /// # Errors
    /// [`Error::NotSupportedByPeer`] if there is no such form.
    #[inline]
    pub(crate) fn payload<'a>(&self, payload: &'a RawTerm, tape: &mut Tape) -> Result<Cow<'a, RawTerm>> {
        if self.takes_wide_identifiers() {
            return Ok(Cow::Borrowed(payload));
        }
        crate::etf::narrow(payload, tape)
    }

    /// Whether the peer takes identifiers of any width, so that no payload has to be looked into.
    #[inline]
    pub(crate) fn takes_wide_identifiers(&self) -> bool {
        self.flags.contains(Flags::V4_NC)
    }

    /// Writes a message that was [checked](Self::check). True if the payload follows; false if there is none to follow,
    /// because the operation has none or has it inside the tuple. The bytes of the payload may refer to the atoms of
    /// this message only.
    pub(crate) fn write(
        &self,
        control: &ControlMessage,
        payload: &[u8],
        token: Option<&RawTerm>,
        atoms: &mut HeaderWriter,
        out: &mut Vec<u8>,
    ) -> bool {
        use ControlMessage as C;
        let mut tuple = TupleWriter { atoms, out, token };
        match control {
            C::Send { from, to } => match from {
                Some(from) if self.flags.contains(Flags::SEND_SENDER) => {
                    tuple.start_message(op::SEND_SENDER, op::SEND_SENDER_TT, 3).pid(from).pid(to).token();
                    true
                }
                _ => {
                    tuple.start_message(op::SEND, op::SEND_TT, 3).empty_atom().pid(to).token();
                    true
                }
            },
            C::RegSend { from, to } => {
                tuple.start_message(op::REG_SEND, op::REG_SEND_TT, 4).pid(from).empty_atom().atom(to).token();
                true
            }
            C::AliasSend { from, alias } => {
                if self.flags.contains(Flags::ALTACT_SIG) {
                    tuple.start_altact(altact::ALIAS).pid(from).reference(alias).token();
                } else {
                    tuple
                        .start_message(op::ALIAS_SEND, op::ALIAS_SEND_TT, 3)
                        .pid(from)
                        .reference(alias)
                        .token();
                }
                true
            }
            C::Altact { flags, from, to } => self.write_altact(*flags, from, to, payload, tuple),
            C::Link { from, to } => {
                tuple.start(op::LINK, 3).pid(from).pid(to);
                false
            }
            C::UnlinkId { id, from, to } if self.flags.contains(Flags::UNLINK_ID) => {
                tuple.start(op::UNLINK_ID, 4).integer(*id).pid(from).pid(to);
                false
            }
            C::Unlink { from, to } | C::UnlinkId { from, to, .. } => {
                tuple.start(op::UNLINK, 3).pid(from).pid(to);
                false
            }
            C::UnlinkIdAck { id, from, to } => {
                tuple.start(op::UNLINK_ID_ACK, 4).integer(*id).pid(from).pid(to);
                false
            }
            C::Exit { from, to } => {
                if self.flags.contains(Flags::EXIT_PAYLOAD) {
                    tuple.start(op::PAYLOAD_EXIT, 3).pid(from).pid(to);
                    return true;
                }
                tuple.start(op::EXIT, 4).pid(from).pid(to).term(payload);
                false
            }
            C::Exit2 { from, to } => self.write_exit2(from, to, payload, tuple),
            C::MonitorP { watcher, target, reference } => {
                tuple.start(op::MONITOR_P, 4).pid(watcher).target(target).reference(reference);
                false
            }
            C::DemonitorP { watcher, target, reference } => {
                tuple.start(op::DEMONITOR_P, 4).pid(watcher).target(target).reference(reference);
                false
            }
            C::MonitorPExit { target, watcher, reference } => {
                if self.flags.contains(Flags::EXIT_PAYLOAD) {
                    tuple
                        .start(op::PAYLOAD_MONITOR_P_EXIT, 4)
                        .target(target)
                        .pid(watcher)
                        .reference(reference);
                    return true;
                }
                tuple
                    .start(op::MONITOR_P_EXIT, 5)
                    .target(target)
                    .pid(watcher)
                    .reference(reference)
                    .term(payload);
                false
            }
            C::GroupLeader { leader, pid } => {
                tuple.start(op::GROUP_LEADER, 3).pid(leader).pid(pid);
                false
            }
            C::SpawnRequest(request) => {
                let SpawnRequest { req_id, from, group_leader, module, function, arity, options } =
                    request.as_ref();
                tuple.start(op::SPAWN_REQUEST, 6).reference(req_id).pid(from).pid(group_leader);
                tuple.tuple(3).atom(module).atom(function).integer(u64::from(*arity));
                // Checked before; and an option list that could not be encoded would be an empty rest of the tuple.
                let _ = crate::etf::encode_term(options, tuple.out);
                true
            }
            C::SpawnReply { req_id, to, flags, result } => {
                tuple.start(op::SPAWN_REPLY, 5).reference(req_id).pid(to).integer(u64::from(*flags));
                match result {
                    Ok(pid) => tuple.pid(pid),
                    Err(why) => tuple.atom(why),
                };
                false
            }
        }
    }

    fn write_exit2(&self, from: &Pid, to: &Pid, reason: &[u8], mut tuple: TupleWriter<'_>) -> bool {
        if self.flags.contains(Flags::EXIT_PAYLOAD) {
            tuple.start(op::PAYLOAD_EXIT2, 3).pid(from).pid(to);
            return true;
        }
        tuple.start(op::EXIT2, 4).pid(from).pid(to).term(reason);
        false
    }

    /// ALTACT_SIG_SEND, or the older operation that does the same without the priority.
    fn write_altact(
        &self,
        flags: u64,
        from: &Pid,
        to: &Destination,
        payload: &[u8],
        mut tuple: TupleWriter<'_>,
    ) -> bool {
        let exit = flags & altact::EXIT;
        if self.flags.contains(Flags::ALTACT_SIG) {
            let mut priority = flags & altact::PRIORITY;
            if matches!(to, Destination::Alias(_)) && payload.len() > PRIORITY_ALIAS_MAX {
                priority = 0;
            }
            match to {
                Destination::Pid(to) => tuple.start_altact(priority | exit).pid(from).pid(to),
                Destination::Name(to) => tuple.start_altact(priority | altact::NAME).pid(from).atom(to),
                Destination::Alias(to) => {
                    tuple.start_altact(priority | exit | altact::ALIAS).pid(from).reference(to)
                }
            }
            .token();
            return true;
        }
        match to {
            Destination::Pid(to) if exit != 0 => return self.write_exit2(from, to, payload, tuple),
            Destination::Pid(to) if self.flags.contains(Flags::SEND_SENDER) => {
                tuple.start_message(op::SEND_SENDER, op::SEND_SENDER_TT, 3).pid(from).pid(to)
            }
            Destination::Pid(to) => tuple.start_message(op::SEND, op::SEND_TT, 3).empty_atom().pid(to),
            Destination::Name(to) => {
                tuple.start_message(op::REG_SEND, op::REG_SEND_TT, 4).pid(from).empty_atom().atom(to)
            }
            Destination::Alias(to) => {
                tuple.start_message(op::ALIAS_SEND, op::ALIAS_SEND_TT, 3).pid(from).reference(to)
            }
        }
        .token();
        true
    }

    fn negotiated(&self, flags: Flags, name: &'static str) -> Result<()> {
        if self.flags.contains(flags) { Ok(()) } else { Err(Error::NotSupportedByPeer(name)) }
    }

    fn any_of(&self, one: Flags, other: Flags, name: &'static str) -> Result<()> {
        if self.flags.contains(one) { Ok(()) } else { self.negotiated(other, name) }
    }

    /// An origin that the peer checks.
    fn ours(&self, pid: &Pid) -> Result<()> {
        if pid.node != self.local {
            return Err(Error::ApiMisuse(
                "this signal can only be sent in the name of a process of this node",
            ));
        }
        self.identifier(pid)
    }

    /// A receiver that has to be a process of the peer, of whatever incarnation.
    fn theirs(&self, pid: &Pid) -> Result<()> {
        if pid.node != self.peer {
            return Err(Error::ApiMisuse("this signal can only be sent to a process of the peer"));
        }
        self.identifier(pid)
    }

    /// A receiver that has to be of the peer's present incarnation.
    fn theirs_alive(&self, pid: &Pid) -> Result<()> {
        if pid.creation != self.peer_creation {
            return Err(Error::ApiMisuse("the receiver is of an earlier incarnation of the peer"));
        }
        self.theirs(pid)
    }

    /// Peers before OTP 24 close the connection over wider identifiers.
    fn identifier(&self, pid: &Pid) -> Result<()> {
        if crate::etf::is_narrow_pid(pid) { Ok(()) } else { self.negotiated(Flags::V4_NC, "V4_NC") }
    }

    fn reference(&self, reference: &Reference) -> Result<()> {
        if crate::etf::is_narrow_reference(reference) {
            Ok(())
        } else {
            self.negotiated(Flags::V4_NC, "V4_NC")
        }
    }
}

/// Writes the elements of a control tuple, with atoms as references into the header where that is possible.
struct TupleWriter<'a> {
    atoms: &'a mut HeaderWriter,
    out: &'a mut Vec<u8>,
    /// The sequential trace token of a message that has one.
    token: Option<&'a RawTerm>,
}

impl TupleWriter<'_> {
    fn start(&mut self, opcode: u8, arity: u8) -> &mut Self {
        self.out.put_slice(&[tag::SMALL_TUPLE_EXT, arity, tag::SMALL_INTEGER_EXT, opcode]);
        self
    }

    /// One of two operations: the second is the first with a token as its last element.
    fn start_message(&mut self, plain: u8, traced: u8, arity: u8) -> &mut Self {
        if self.token.is_some() { self.start(traced, arity + 1) } else { self.start(plain, arity) }
    }

    /// Here a flag says that there is a token.
    fn start_altact(&mut self, flags: u64) -> &mut Self {
        match self.token {
            Some(_) => self.start(op::ALTACT_SIG_SEND, 5).integer(flags | altact::TOKEN),
            None => self.start(op::ALTACT_SIG_SEND, 4).integer(flags),
        }
    }

    /// The last element of a message: its token, if it has one.
    fn token(&mut self) {
        if let Some(token) = self.token {
            self.out.put_slice(token.as_bytes());
        }
    }

    fn tuple(&mut self, arity: u8) -> &mut Self {
        self.out.put_slice(&[tag::SMALL_TUPLE_EXT, arity]);
        self
    }

    /// The place of the cookie in operations older than the handshake.
    fn empty_atom(&mut self) -> &mut Self {
        self.out.put_slice(&[tag::SMALL_ATOM_UTF8_EXT, 0]);
        self
    }

    fn atom(&mut self, atom: &Atom) -> &mut Self {
        match self.atoms.reference(atom) {
            Some(index) => self.out.put_slice(&[tag::ATOM_CACHE_REF, index]),
            None => crate::etf::put_atom(self.out, atom),
        }
        self
    }

    fn pid(&mut self, pid: &Pid) -> &mut Self {
        self.out.put_u8(tag::NEW_PID_EXT);
        self.atom(&pid.node);
        let mut numbers = [0; 12];
        let (id, rest) = numbers.split_at_mut(4);
        let (serial, creation) = rest.split_at_mut(4);
        id.copy_from_slice(&pid.id.to_be_bytes());
        serial.copy_from_slice(&pid.serial.to_be_bytes());
        creation.copy_from_slice(&pid.creation.to_be_bytes());
        self.out.put_slice(&numbers);
        self
    }

    fn reference(&mut self, reference: &Reference) -> &mut Self {
        self.out.put_u8(tag::NEWER_REFERENCE_EXT);
        self.out.put_u16(reference.words().len() as u16);
        self.atom(&reference.node);
        self.out.put_u32(reference.creation);
        for word in reference.words() {
            self.out.put_u32(*word);
        }
        self
    }

    fn target(&mut self, target: &Target) -> &mut Self {
        match target {
            Target::Pid(pid) => self.pid(pid),
            Target::Name(name) => self.atom(name),
        }
    }

    fn integer(&mut self, value: u64) -> &mut Self {
        crate::etf::put_u64(self.out, value);
        self
    }

    fn term(&mut self, encoded: &[u8]) -> &mut Self {
        self.out.put_slice(encoded);
        self
    }
}

//! From the control tuple to the message it stands for.

use super::operation as op;
use super::{ControlMessage, Destination, Operation, PayloadKind, SpawnRequest, Target, altact};
use crate::error::PeerMisbehaved;
use crate::etf::{Atom, AtomRef, Kind, Pid, Reference, Term, View, tag};
use crate::{Error, Result};

/// What a pid of this node says besides the node's name. It may be of an earlier incarnation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LocalPid {
    /// As [`Pid::id`].
    pub id: u32,
    /// As [`Pid::serial`].
    pub serial: u32,
    /// As [`Pid::creation`].
    pub creation: u32,
}

/// The two ends of a connection, by which origins and receivers are judged.
#[derive(Clone, Debug)]
pub(crate) struct Ends {
    /// The name of this node.
    pub(crate) local: Atom,
    /// The name of the node at the other end.
    pub(crate) peer: Atom,
}

/// A control message, and where the rest of its signal is.
#[derive(Debug)]
pub(crate) struct Decoded<'a> {
    pub(crate) control: ControlMessage,
    pub(crate) token: Option<View<'a>>,
    pub(crate) payload: Payload<'a>,
}

/// Where the payload is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Payload<'a> {
    /// There is none.
    None,
    /// Behind the control tuple.
    Follows,
    /// Inside the control tuple.
    Inline(View<'a>),
}

/// Reads the control tuple that almost every frame has, `{22, From, To}` with both nodes named by the header, and returns where
/// it ends. For any other, `None`: then [`decode`] decides.
#[inline]
pub(crate) fn decode_send(bytes: &[u8], atoms: &[Atom]) -> Option<(ControlMessage, usize)> {
    const START: [u8; 4] = [tag::SMALL_TUPLE_EXT, 3, tag::SMALL_INTEGER_EXT, op::SEND_SENDER];
    let (start, rest) = bytes.split_first_chunk()?;
    let (from, rest) = rest.split_first_chunk()?;
    let to = rest.first_chunk()?;
    if *start != START {
        return None;
    }
    let (from, to) = (cached_pid(from, atoms)?, cached_pid(to, atoms)?);
    Some((ControlMessage::Send { from: Some(from), to }, START.len() + 2 * CACHED_PID))
}

/// As [`decode_send`], but only the receiver, and only if that is a process of the node of this name.
#[inline]
pub(crate) fn decode_receiver(bytes: &[u8], atoms: &[Atom], local: &Atom) -> Option<(LocalPid, usize)> {
    const START: [u8; 4] = [tag::SMALL_TUPLE_EXT, 3, tag::SMALL_INTEGER_EXT, op::SEND_SENDER];
    let (start, rest) = bytes.split_first_chunk()?;
    let ([tag::NEW_PID_EXT, tag::ATOM_CACHE_REF, from, ..], rest) = rest.split_first_chunk::<CACHED_PID>()?
    else {
        return None;
    };
    let [tag::NEW_PID_EXT, tag::ATOM_CACHE_REF, to, numbers @ ..] = rest.first_chunk::<CACHED_PID>()? else {
        return None;
    };
    if *start != START || usize::from(*from) >= atoms.len() || atoms.get(usize::from(*to))? != local {
        return None;
    }
    let ([id, serial, creation], _) = numbers.as_chunks() else { return None };
    Some((
        LocalPid { id: number(id), serial: number(serial), creation: number(creation) },
        START.len() + 2 * CACHED_PID,
    ))
}

/// The bytes of a pid that names its node by the header.
const CACHED_PID: usize = 15;

/// A pid that names its node by the header: then its atom is shared, and not made again.
#[inline]
fn cached_pid(bytes: &[u8; CACHED_PID], atoms: &[Atom]) -> Option<Pid> {
    let [tag::NEW_PID_EXT, tag::ATOM_CACHE_REF, index, numbers @ ..] = bytes else { return None };
    let node = atoms.get(usize::from(*index))?.clone();
    let ([id, serial, creation], _) = numbers.as_chunks() else { return None };
    Some(Pid { node, id: number(id), serial: number(serial), creation: number(creation) })
}

#[inline]
fn number(bytes: &[u8; 4]) -> u32 {
    u32::from_be_bytes(*bytes)
}

/// Reads a control tuple.
///
/// What OTP closes a connection for is an error, with one exception: a receiver of an earlier incarnation of this node is
/// passed on, because a peer that has not yet noticed a restart means no harm. The receiver is then simply not there.
///
/// Beyond OTP, a process of a third node can neither end (MONITOR_P_EXIT) nor be started (SPAWN_REPLY) nor ask for a process
/// (SPAWN_REQUEST) through this connection; no BEAM sends that.
pub(crate) fn decode<'a>(tuple: View<'a>, atoms: &[Atom], ends: &Ends) -> Result<Decoded<'a>> {
    let unknown = |why| Error::bad_control("unknown", why);
    if tuple.kind() != Kind::Tuple {
        return Err(unknown("not a tuple"));
    }
    let mut rest = tuple.elements();
    let opcode = rest.next().and_then(View::as_i64).and_then(|opcode| u8::try_from(opcode).ok());
    let row = opcode.and_then(Operation::of).ok_or_else(|| unknown("no such operation"))?;
    let mut elements = Elements { row, atoms, ends, items: [None; ELEMENTS], count: 1 };
    for (slot, element) in elements.items.iter_mut().zip(&mut rest) {
        *slot = Some(element);
        elements.count += 1;
    }
    let grows = row.opcode == op::ALTACT_SIG_SEND;
    let more = rest.next().is_some();
    if elements.count < row.arity || (!grows && (more || elements.count > row.arity)) {
        return Err(elements.bad("wrong arity"));
    }
    elements.decode()
}

/// The most elements behind the opcode that any operation has.
const ELEMENTS: usize = 6;

struct Elements<'a, 'e> {
    row: &'static Operation,
    /// The atoms of the header.
    atoms: &'e [Atom],
    ends: &'e Ends,
    /// The elements behind the opcode.
    items: [Option<View<'a>>; ELEMENTS],
    /// How many elements there are, the opcode included.
    count: u32,
}

impl<'a> Elements<'a, '_> {
    /// The numbers are the positions in the tuple as OTP documents it, where the opcode is element 1.
    fn decode(&self) -> Result<Decoded<'a>> {
        let control = match self.row.opcode {
            op::SEND | op::SEND_TT => ControlMessage::Send { from: None, to: self.pid(3)? },
            op::SEND_SENDER | op::SEND_SENDER_TT => {
                ControlMessage::Send { from: Some(self.pid(2)?), to: self.pid(3)? }
            }
            op::REG_SEND | op::REG_SEND_TT => {
                ControlMessage::RegSend { from: self.pid(2)?, to: self.atom(4)? }
            }
            op::ALIAS_SEND | op::ALIAS_SEND_TT => {
                ControlMessage::AliasSend { from: self.pid(2)?, alias: self.reference(3)? }
            }
            op::ALTACT_SIG_SEND => return self.altact(),
            op::LINK => ControlMessage::Link { from: self.peers_pid(2)?, to: self.local_pid(3)? },
            op::UNLINK => ControlMessage::Unlink { from: self.peers_pid(2)?, to: self.local_pid(3)? },
            op::UNLINK_ID => ControlMessage::UnlinkId {
                id: self.unlink_id()?,
                from: self.peers_pid(3)?,
                to: self.local_pid(4)?,
            },
            op::UNLINK_ID_ACK => ControlMessage::UnlinkIdAck {
                id: self.unlink_id()?,
                from: self.peers_pid(3)?,
                to: self.local_pid(4)?,
            },
            op::EXIT | op::EXIT_TT | op::PAYLOAD_EXIT | op::PAYLOAD_EXIT_TT => {
                ControlMessage::Exit { from: self.peers_pid(2)?, to: self.local_pid(3)? }
            }
            op::EXIT2 | op::EXIT2_TT | op::PAYLOAD_EXIT2 | op::PAYLOAD_EXIT2_TT => {
                ControlMessage::Exit2 { from: self.peers_pid(2)?, to: self.local_pid(3)? }
            }
            op::MONITOR_P => ControlMessage::MonitorP {
                watcher: self.peers_pid(2)?,
                target: self.local_target(3)?,
                reference: self.reference(4)?,
            },
            op::DEMONITOR_P => ControlMessage::DemonitorP {
                watcher: self.peers_pid(2)?,
                target: self.local_target(3)?,
                reference: self.reference(4)?,
            },
            op::MONITOR_P_EXIT | op::PAYLOAD_MONITOR_P_EXIT => ControlMessage::MonitorPExit {
                target: match self.atom(2) {
                    Ok(name) => Target::Name(name),
                    Err(_) => Target::Pid(self.peers_pid(2)?),
                },
                watcher: self.local_pid(3)?,
                reference: self.reference(4)?,
            },
            op::GROUP_LEADER => ControlMessage::GroupLeader { leader: self.pid(2)?, pid: self.pid(3)? },
            op::SPAWN_REQUEST | op::SPAWN_REQUEST_TT => {
                ControlMessage::SpawnRequest(Box::new(self.spawn_request()?))
            }
            op::SPAWN_REPLY | op::SPAWN_REPLY_TT => self.spawn_reply()?,
            _ => return Err(self.bad("no such operation")),
        };
        // The token is the last element, or the last before the reason.
        let inline = self.row.payload == PayloadKind::InlineReason;
        let token = if self.row.token { self.at(self.row.arity - u32::from(inline)) } else { None };
        let payload = match self.row.payload {
            PayloadKind::None => Payload::None,
            PayloadKind::InlineReason => self.at(self.row.arity).map_or(Payload::None, Payload::Inline),
            _ => Payload::Follows,
        };
        Ok(Decoded { control, token, payload })
    }

    /// `{37, Flags, From, To}` or `{37, Flags, From, To, Token}`, and whatever a later release appends.
    fn altact(&self) -> Result<Decoded<'a>> {
        // Bits that nobody assigned are ignored, even those beyond 64.
        let flags = self.low_bits(2)?;
        let from = if flags & altact::EXIT != 0 { self.peers_pid(3)? } else { self.pid(3)? };
        let to = if flags & altact::ALIAS != 0 {
            Destination::Alias(self.reference(4)?)
        } else if flags & altact::NAME != 0 {
            Destination::Name(self.atom(4)?)
        } else if flags & altact::EXIT != 0 {
            Destination::Pid(self.local_pid(4)?)
        } else {
            Destination::Pid(self.pid(4)?)
        };
        let token = match (flags & altact::TOKEN, self.at(5)) {
            (0, _) => None,
            (_, Some(token)) => Some(token),
            (_, None) => return Err(self.bad("the token is missing")),
        };
        let flags = flags & (altact::PRIORITY | altact::EXIT);
        let control = ControlMessage::Altact { flags, from, to };
        Ok(Decoded { control, token, payload: Payload::Follows })
    }

    fn spawn_request(&self) -> Result<SpawnRequest> {
        let req_id = self.reference(2)?;
        let from = self.peers_pid(3)?;
        let group_leader = self.pid(4)?;
        let [module, function, arity] =
            self.at(5).and_then(View::tuple).ok_or_else(|| self.bad("not {Module, Function, Arity}"))?;
        let name = |view: View<'_>| self.atom_of(view).ok_or_else(|| self.bad("not an atom"));
        let (module, function) = (name(module)?, name(function)?);
        let arity = arity.as_i64().ok_or_else(|| self.bad("the arity is not an integer"))?;
        let arity = u8::try_from(arity).map_err(|_| self.bad("the arity is out of range"))?;
        let options = self.at(6).ok_or_else(|| self.bad("wrong arity"))?.to_term();
        Ok(SpawnRequest { req_id, from, group_leader, module, function, arity, options })
    }

    fn spawn_reply(&self) -> Result<ControlMessage> {
        let flags = self.at(4).and_then(View::as_i64);
        let flags = flags
            .and_then(|flags| u32::try_from(flags).ok())
            .filter(|flags| *flags < 1 << 27)
            .ok_or_else(|| self.bad("the flags are out of range"))?;
        let req_id = self.reference(2)?;
        if req_id.node != self.ends.local {
            return Err(self.bad("the reference is not of this node"));
        }
        let result = match self.atom(5) {
            Ok(why) => Err(why),
            Err(_) => Ok(self.peers_pid(5)?),
        };
        Ok(ControlMessage::SpawnReply { req_id, to: self.local_pid(3)?, flags, result })
    }

    /// 1 to 2^64 - 1.
    fn unlink_id(&self) -> Result<u64> {
        let id = self.at(2).and_then(View::as_i128).and_then(|id| u64::try_from(id).ok());
        id.filter(|id| *id != 0).ok_or_else(|| self.bad("the id is out of range"))
    }

    /// The low bits of an integer that must not be negative, however large.
    fn low_bits(&self, position: u32) -> Result<u64> {
        let view = self.at(position).ok_or_else(|| self.bad("wrong arity"))?;
        match (view.kind(), view.as_i64()) {
            (Kind::Integer, Some(bits)) if bits >= 0 => Ok(bits as u64),
            (Kind::BigInteger, _) => match view.to_term() {
                Term::BigInteger(big) if !big.is_negative() => {
                    let low = big.magnitude().iter().take(8).rev();
                    Ok(low.fold(0, |bits, byte| bits << 8 | u64::from(*byte)))
                }
                _ => Err(self.bad("the flags are negative")),
            },
            _ => Err(self.bad("the flags are not a number")),
        }
    }

    /// The element at a position; 1 is the opcode.
    #[inline]
    fn at(&self, position: u32) -> Option<View<'a>> {
        *self.items.get(position as usize - 2)?
    }

    #[inline]
    fn pid(&self, position: u32) -> Result<Pid> {
        let view = self.at(position).ok_or_else(|| self.bad("wrong arity"))?;
        if let Some(pid) = view.encoded().first_chunk().and_then(|bytes| cached_pid(bytes, self.atoms)) {
            return Ok(pid);
        }
        view.as_pid().ok_or_else(|| self.bad("not a pid where one belongs"))
    }

    fn atom(&self, position: u32) -> Result<Atom> {
        let atom = self.at(position).and_then(|view| self.atom_of(view));
        atom.ok_or_else(|| self.bad("not an atom where one belongs"))
    }

    fn atom_of(&self, view: View<'_>) -> Option<Atom> {
        match view.encoded() {
            [tag::ATOM_CACHE_REF, index] => self.atoms.get(usize::from(*index)).cloned(),
            _ => view.as_atom().map(AtomRef::to_atom),
        }
    }

    fn reference(&self, position: u32) -> Result<Reference> {
        let reference = self.at(position).and_then(View::as_reference);
        reference.ok_or_else(|| self.bad("not a reference where one belongs"))
    }

    /// A process in whose name only its own node may speak.
    fn peers_pid(&self, position: u32) -> Result<Pid> {
        let pid = self.pid(position)?;
        if pid.node != self.ends.peer {
            return Err(Error::PeerMisbehaved(PeerMisbehaved::ForgedOrigin(self.row.name)));
        }
        Ok(pid)
    }

    /// A process of this node, of whatever incarnation.
    fn local_pid(&self, position: u32) -> Result<Pid> {
        let pid = self.pid(position)?;
        if pid.node != self.ends.local {
            return Err(self.bad("the receiver is on a third node"));
        }
        Ok(pid)
    }

    fn local_target(&self, position: u32) -> Result<Target> {
        match self.atom(position) {
            Ok(name) => Ok(Target::Name(name)),
            Err(_) => self.local_pid(position).map(Target::Pid),
        }
    }

    #[cold]
    fn bad(&self, why: &'static str) -> Error {
        Error::bad_control(self.row.name, why)
    }
}

//! The messages of the handshake, both directions.
//!
//! Every message is a length (16 bits over plain TCP, 32 over TLS) and that many bytes, of which the first says what it is.
//! OTP: "Distribution Handshake" in the guide "Distribution Protocol", `send_name` to `recv_challenge_ack` in
//! `dist_util.erl`.
//!
//! ```text
//! send_name   'N', Flags:64, Creation:32, NameLength:16, Name             version 6, bytes after the name are ignored
//!             'n', Version:16, Flags:32, Name                             version 5, completed by a complement
//! status      's', Text                     ok | ok_simultaneous | nok | not_allowed | alive | true | false
//!             's', "named:", NameLength:16, Name, Creation:32             bytes after the creation are ignored
//! challenge   'N', Flags:64, Challenge:32, Creation:32, NameLength:16, Name  bytes after the name are ignored
//! complement  'c', FlagsHigh:32, Creation:32
//! reply       'r', Challenge:32, Digest:16
//! ack         'a', Digest:16
//! ```
//!
//! Names are Latin-1, except in `named:`, where they are UTF-8.

use bytes::{Buf, BufMut, BytesMut};

use super::super::flags::DistributionFlags;
use super::super::name::{NodeName, check_host};
use crate::error::{Error, PeerIncompatible, PeerMisbehaved, Problem, Result};

/// The version of the handshake that an `n` message announces.
pub const OLD_VERSION: u16 = 5;

/// The width of the length of a handshake message.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LengthPrefix {
    /// 16 bits: plain TCP.
    #[default]
    Two,
    /// 32 bits: TLS.
    Four,
}

/// Who opens a connection.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PeerName {
    /// A node with a name.
    Named(NodeName),
    /// A node that asks for a dynamic name (`NAME_ME`).
    Unnamed {
        /// The part after the `@` of the name that it is to get.
        host: String,
    },
}

/// `send_name`: the first message, from the initiator.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Name {
    /// The flags that it offers; only the low half of them in the old form.
    pub flags: DistributionFlags,
    /// Its creation; `None` in the old form, 0 if it asks for a name.
    pub creation: Option<u32>,
    /// Its name.
    pub name: PeerName,
}

/// The second message, from the acceptor, and the answer to [`Status::Alive`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Status {
    /// Go on.
    Ok,
    /// Go on; the acceptor has given up its own attempt.
    OkSimultaneous,
    /// The acceptor's own attempt goes first.
    Nok,
    /// The acceptor does not want this peer.
    NotAllowed,
    /// The acceptor already has a connection to a node of this name.
    Alive,
    /// Answer to `alive`: go on, and replace that connection.
    True,
    /// Answer to `alive`: leave it.
    False,
    /// Go on, under this name.
    Named {
        /// The name given.
        name: NodeName,
        /// The creation given.
        creation: u32,
    },
}

/// The third message, from the acceptor.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Challenge {
    /// The flags that it offers.
    pub flags: DistributionFlags,
    /// What the initiator has to compute its digest for.
    pub challenge: u32,
    /// The acceptor's creation.
    pub creation: u32,
    /// The acceptor's name.
    pub name: NodeName,
}

/// What an initiator that began with an `n` message adds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Complement {
    /// The upper 32 flags, in their place.
    pub flags: DistributionFlags,
    /// Its creation.
    pub creation: u32,
}

/// The initiator's proof.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reply {
    /// What the acceptor has to compute its digest for.
    pub challenge: u32,
    /// The digest for the acceptor's challenge.
    pub digest: [u8; 16],
}

/// The acceptor's proof.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ack {
    /// The digest for the initiator's challenge.
    pub digest: [u8; 16],
}

impl LengthPrefix {
    /// The number of bytes.
    pub const fn bytes(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Four => 4,
        }
    }

    /// The message that `input` starts with, without its length; `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`Error::LimitExceeded`] as soon as a length beyond `max` is seen; [`Error::Malformed`] for an empty message.
    pub fn message(self, input: &[u8], max: usize) -> Result<Option<&[u8]>> {
        let (length, rest) = match self {
            Self::Two => match input.split_first_chunk() {
                Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
                None => return Ok(None),
            },
            Self::Four => match input.split_first_chunk() {
                Some((length, rest)) => (u64::from(u32::from_be_bytes(*length)), rest),
                None => return Ok(None),
            },
        };
        if length == 0 {
            return Err(Error::malformed("handshake message", 0, Problem::OutOfRange("length")));
        }
        match usize::try_from(length) {
            Ok(length) if length <= max => Ok(rest.get(..length)),
            _ => Err(Error::limit("max_handshake_message", length, max as u64)),
        }
    }

    /// Appends a message with its length.
    fn put(self, out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
        let start = out.len();
        out.put_bytes(0, self.bytes());
        write(out);
        let length = out.len() - start - self.bytes();
        if let Some(mut prefix) = out.get_mut(start..start + self.bytes()) {
            // The longest message holds a name of 255 characters.
            match self {
                Self::Two => prefix.put_u16(length as u16),
                Self::Four => prefix.put_u32(length as u32),
            }
        }
    }
}

impl Name {
    /// Appends the message, in the old form if there is no creation.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] if the name has characters beyond U+00FF, which the message cannot carry.
    pub fn encode(&self, prefix: LengthPrefix, out: &mut BytesMut) -> Result<()> {
        let name = latin1(match &self.name {
            PeerName::Named(name) => name.as_str(),
            PeerName::Unnamed { host } => host,
        })?;
        prefix.put(out, |out| match self.creation {
            Some(creation) => {
                out.put_u8(b'N');
                out.put_u64(self.flags.bits());
                out.put_u32(creation);
                out.put_u16(name.len() as u16);
                out.put_slice(&name);
            }
            None => {
                out.put_u8(b'n');
                out.put_u16(OLD_VERSION);
                out.put_u32(self.flags.bits() as u32);
                out.put_slice(&name);
            }
        });
        Ok(())
    }

    /// Reads a message in either form.
    ///
    /// # Errors
    /// [`Error::Malformed`] for anything that is no name message or whose name no node can have,
    /// [`PeerIncompatible::Version`] for an old message of a version before 5.
    pub fn decode(message: &[u8]) -> Result<Self> {
        let mut input = Input::new("send_name", message);
        let (flags, creation, text) = match input.u8()? {
            b'N' => {
                let flags = input.u64()?;
                let creation = input.u32()?;
                (flags, Some(creation), input.sized()?)
            }
            b'n' => {
                // OTP 23 and later put the highest version that they speak here.
                let version = input.u16()?;
                if version < OLD_VERSION {
                    return Err(Error::PeerIncompatible(PeerIncompatible::Version(version)));
                }
                (u64::from(input.u32()?), None, input.rest())
            }
            got => return Err(unexpected("send_name ('N' or 'n')", got)),
        };
        let flags = DistributionFlags::from_bits(flags);
        let text = from_latin1(text);
        let name = if creation.is_some() && flags.contains(DistributionFlags::NAME_ME) {
            match check_host(&text) {
                Ok(()) => PeerName::Unnamed { host: text },
                Err(_) => return Err(input.bad_name()),
            }
        } else {
            PeerName::Named(NodeName::parse(&text).map_err(|_| input.bad_name())?)
        };
        Ok(Self { flags, creation, name })
    }
}

impl Status {
    /// Appends the message.
    pub fn encode(&self, prefix: LengthPrefix, out: &mut BytesMut) {
        prefix.put(out, |out| {
            out.put_u8(b's');
            out.put_slice(self.text().as_bytes());
            if let Self::Named { name, creation } = self {
                out.put_u16(name.as_str().len() as u16);
                out.put_slice(name.as_str().as_bytes());
                out.put_u32(*creation);
            }
        });
    }

    /// The text of the message, without what follows `named:`.
    pub fn text(&self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::OkSimultaneous => "ok_simultaneous",
            Self::Nok => "nok",
            Self::NotAllowed => "not_allowed",
            Self::Alive => "alive",
            Self::True => "true",
            Self::False => "false",
            Self::Named { .. } => "named:",
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`Error::Malformed`] for a text that is no status.
    pub fn decode(message: &[u8]) -> Result<Self> {
        let mut input = Input::new("status", message);
        match input.u8()? {
            b's' => {}
            got => return Err(unexpected("status ('s')", got)),
        }
        Ok(match input.rest {
            b"ok" => Self::Ok,
            b"ok_simultaneous" => Self::OkSimultaneous,
            b"nok" => Self::Nok,
            b"not_allowed" => Self::NotAllowed,
            b"alive" => Self::Alive,
            b"true" => Self::True,
            b"false" => Self::False,
            text => match text.strip_prefix(b"named:") {
                None => return Err(Error::malformed("status", 1, Problem::Other("unknown status"))),
                Some(rest) => {
                    input.rest = rest;
                    let name =
                        core::str::from_utf8(input.sized()?).ok().and_then(|name| NodeName::parse(name).ok());
                    let name = name.ok_or_else(|| input.bad_name())?;
                    Self::Named { name, creation: input.u32()? }
                }
            },
        })
    }
}

impl Challenge {
    /// Appends the message.
    ///
    /// # Errors
    /// [`Error::ApiMisuse`] if the name has characters beyond U+00FF, which the message cannot carry.
    pub fn encode(&self, prefix: LengthPrefix, out: &mut BytesMut) -> Result<()> {
        let name = latin1(self.name.as_str())?;
        prefix.put(out, |out| {
            out.put_u8(b'N');
            out.put_u64(self.flags.bits());
            out.put_u32(self.challenge);
            out.put_u32(self.creation);
            out.put_u16(name.len() as u16);
            out.put_slice(&name);
        });
        Ok(())
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`PeerIncompatible::Version`] for the challenge of a node older than OTP 23, [`Error::Malformed`] for anything else
    /// that is no challenge.
    pub fn decode(message: &[u8]) -> Result<Self> {
        let mut input = Input::new("challenge", message);
        match input.u8()? {
            b'N' => {}
            b'n' => return Err(Error::PeerIncompatible(PeerIncompatible::Version(input.u16()?))),
            got => return Err(unexpected("challenge ('N')", got)),
        }
        let flags = DistributionFlags::from_bits(input.u64()?);
        let challenge = input.u32()?;
        let creation = input.u32()?;
        let name = NodeName::parse(&from_latin1(input.sized()?)).map_err(|_| input.bad_name())?;
        Ok(Self { flags, challenge, creation, name })
    }
}

impl Complement {
    /// Appends the message.
    pub fn encode(&self, prefix: LengthPrefix, out: &mut BytesMut) {
        prefix.put(out, |out| {
            out.put_u8(b'c');
            out.put_u32((self.flags.bits() >> 32) as u32);
            out.put_u32(self.creation);
        });
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is no complement.
    pub fn decode(message: &[u8]) -> Result<Self> {
        let mut input = Input::new("complement", message);
        match input.u8()? {
            b'c' => {}
            got => return Err(unexpected("complement ('c')", got)),
        }
        let flags = DistributionFlags::from_bits(u64::from(input.u32()?) << 32);
        Ok(Self { flags, creation: input.u32()? })
    }
}

impl Reply {
    /// Appends the message.
    pub fn encode(&self, prefix: LengthPrefix, out: &mut BytesMut) {
        prefix.put(out, |out| {
            out.put_u8(b'r');
            out.put_u32(self.challenge);
            out.put_slice(&self.digest);
        });
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is no reply or has another length.
    pub fn decode(message: &[u8]) -> Result<Self> {
        let mut input = Input::new("challenge_reply", message);
        match input.u8()? {
            b'r' => {}
            got => return Err(unexpected("challenge_reply ('r')", got)),
        }
        Ok(Self { challenge: input.u32()?, digest: input.digest()? })
    }
}

impl Ack {
    /// Appends the message.
    pub fn encode(&self, prefix: LengthPrefix, out: &mut BytesMut) {
        prefix.put(out, |out| {
            out.put_u8(b'a');
            out.put_slice(&self.digest);
        });
    }

    /// Reads a message.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is no acknowledgement or has another length.
    pub fn decode(message: &[u8]) -> Result<Self> {
        let mut input = Input::new("challenge_ack", message);
        match input.u8()? {
            b'a' => {}
            got => return Err(unexpected("challenge_ack ('a')", got)),
        }
        Ok(Self { digest: input.digest()? })
    }
}

/// The bytes of a name in a message that carries Latin-1.
fn latin1(name: &str) -> Result<Vec<u8>> {
    name.chars()
        .map(|c| u8::try_from(u32::from(c)))
        .collect::<core::result::Result<_, _>>()
        .map_err(|_| Error::ApiMisuse("a node name in a handshake has Latin-1 characters only"))
}

fn from_latin1(bytes: &[u8]) -> String {
    bytes.iter().copied().map(char::from).collect()
}

fn unexpected(expected: &'static str, got: u8) -> Error {
    Error::PeerMisbehaved(PeerMisbehaved::UnexpectedHandshakeMessage { expected, got })
}

/// A message that is being read.
struct Input<'a> {
    what: &'static str,
    rest: &'a [u8],
    length: usize,
}

impl<'a> Input<'a> {
    fn new(what: &'static str, message: &'a [u8]) -> Self {
        Self { what, rest: message, length: message.len() }
    }

    fn at(&self) -> usize {
        self.length - self.rest.len()
    }

    fn truncated(&self) -> Error {
        Error::malformed(self.what, self.length, Problem::Truncated)
    }

    fn bad_name(&self) -> Error {
        Error::malformed(self.what, self.at(), Problem::OutOfRange("the node name"))
    }

    fn u8(&mut self) -> Result<u8> {
        self.rest.try_get_u8().map_err(|_| self.truncated())
    }

    fn u16(&mut self) -> Result<u16> {
        self.rest.try_get_u16().map_err(|_| self.truncated())
    }

    fn u32(&mut self) -> Result<u32> {
        self.rest.try_get_u32().map_err(|_| self.truncated())
    }

    fn u64(&mut self) -> Result<u64> {
        self.rest.try_get_u64().map_err(|_| self.truncated())
    }

    fn sized(&mut self) -> Result<&'a [u8]> {
        let length = usize::from(self.u16()?);
        let (bytes, rest) = self.rest.split_at_checked(length).ok_or_else(|| self.truncated())?;
        self.rest = rest;
        Ok(bytes)
    }

    fn rest(&mut self) -> &'a [u8] {
        core::mem::take(&mut self.rest)
    }

    /// The rest of the message, which has to be a digest and nothing more.
    fn digest(&self) -> Result<[u8; 16]> {
        match self.rest.split_first_chunk() {
            Some((digest, [])) => Ok(*digest),
            Some((_, more)) => {
                Err(Error::malformed(self.what, self.at() + 16, Problem::TrailingBytes(more.len())))
            }
            None => Err(self.truncated()),
        }
    }
}

#[cfg(test)]
mod tests;

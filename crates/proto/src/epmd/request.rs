//! What clients of EPMD send.
//!
//! Every request is a length of 16 bits and a body of that length; its first byte says what it is.

use bytes::{Buf, BufMut, Bytes};

use crate::error::{Error, Problem, Result};

/// The most bytes of a request with its length field: OTP's server has a buffer of 3,060 and needs one for itself.
pub const MAX_REQUEST: usize = 3059;

/// The most bytes of a name and of extra data (`MAXSYMLEN`): 255 characters of four bytes.
pub const MAX_NAME_BYTES: usize = 4 * 255;

/// The most characters of a name.
pub const MAX_NAME_CHARACTERS: usize = 255;

const ALIVE2_REQ: u8 = b'x';
const PORT2_REQ: u8 = b'z';
const NAMES_REQ: u8 = b'n';
const DUMP_REQ: u8 = b'd';
const KILL_REQ: u8 = b'k';
const STOP_REQ: u8 = b's';

/// The bytes of an `ALIVE2_REQ` around its name and extra data.
const ALIVE2_FIXED: usize = 13;

/// One request.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Request {
    /// `ALIVE2_REQ`: register a node for as long as this connection stays open.
    Alive(NodeInfo),
    /// `PORT2_REQ`: where does the node of this name listen? The name is UTF-8 without NUL if it is valid at all.
    Port(Bytes),
    /// `NAMES_REQ`: all names and ports.
    Names,
    /// `DUMP_REQ`: all names and ports, also the unregistered ones.
    Dump,
    /// `KILL_REQ`: terminate.
    Kill,
    /// `STOP_REQ`: unregister somebody else's name.
    Stop(Bytes),
}

/// What is registered for a node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NodeInfo {
    /// The part of its name before the `@`. UTF-8 if the registration was accepted.
    pub name: Bytes,
    /// The port that it listens on.
    pub port: u16,
    /// Stored and handed out, but without a meaning: OTP registers hidden nodes as normal ones.
    pub node_type: NodeType,
    /// 0: TCP over IPv4, which OTP also sends for IPv6.
    pub protocol: u8,
    /// The highest version of the handshake that it speaks: 6 since OTP 23.
    pub highest_version: u16,
    /// The lowest version of the handshake that it speaks: 5 in OTP 23 to 29.
    pub lowest_version: u16,
    /// Up to 1,020 bytes of anything.
    pub extra: Bytes,
}

/// The kind of a node as EPMD stores it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NodeType(pub u8);

impl NodeType {
    /// `M`: an Erlang node, and what OTP's client sends for hidden ones as well.
    pub const NORMAL: Self = Self(77);
    /// `H`: a hidden node, such as a C node.
    pub const HIDDEN: Self = Self(72);
}

impl NodeInfo {
    /// What a node of this library registers.
    pub fn new(name: &str, port: u16, hidden: bool) -> Self {
        Self {
            name: Bytes::copy_from_slice(name.as_bytes()),
            port,
            node_type: if hidden { NodeType::HIDDEN } else { NodeType::NORMAL },
            protocol: 0,
            highest_version: super::VERSION,
            lowest_version: 5,
            extra: Bytes::new(),
        }
    }

    /// The name as text, if it is any.
    pub fn name(&self) -> Option<&str> {
        core::str::from_utf8(&self.name).ok()
    }

    /// Whether the node speaks version 6 of the handshake, as every OTP release since 23 does.
    pub fn speaks_version_6(&self) -> bool {
        (self.lowest_version..=self.highest_version).contains(&super::VERSION)
    }

    /// Checks lengths and encoding by EPMD's rules.
    ///
    /// # Errors
    /// [`Error::Malformed`] where OTP's server refuses the registration.
    pub fn check(&self) -> Result<()> {
        check_length("ALIVE2_REQ", 9, "the length of the name", self.name.len(), MAX_NAME_BYTES)?;
        check_length("ALIVE2_REQ", 11, "the length of the extra data", self.extra.len(), MAX_NAME_BYTES)?;
        match self.name() {
            None => Err(Error::malformed("ALIVE2_REQ", 11, Problem::NotUtf8)),
            Some(name) => check_length(
                "ALIVE2_REQ",
                9,
                "the length of the name",
                name.chars().count(),
                MAX_NAME_CHARACTERS,
            ),
        }
    }

    /// The part that `ALIVE2_REQ` and `PORT2_RESP` have in common: from the port to the end.
    pub(super) fn encode(&self, out: &mut impl BufMut) {
        out.put_u16(self.port);
        out.put_u8(self.node_type.0);
        out.put_u8(self.protocol);
        out.put_u16(self.highest_version);
        out.put_u16(self.lowest_version);
        put_sized(out, &self.name);
        put_sized(out, &self.extra);
    }

    /// The reverse of [`Self::encode`]; `at` is the offset of `input` for errors.
    pub(super) fn decode(what: &'static str, at: usize, mut input: Bytes) -> Result<Self> {
        let truncated = || Error::malformed(what, at, Problem::Truncated);
        let port = input.try_get_u16().map_err(|_| truncated())?;
        let node_type = NodeType(input.try_get_u8().map_err(|_| truncated())?);
        let protocol = input.try_get_u8().map_err(|_| truncated())?;
        let highest_version = input.try_get_u16().map_err(|_| truncated())?;
        let lowest_version = input.try_get_u16().map_err(|_| truncated())?;
        let name = take_sized(&mut input).ok_or_else(truncated)?;
        let extra = take_sized(&mut input).ok_or_else(truncated)?;
        Ok(Self { name, port, node_type, protocol, highest_version, lowest_version, extra })
    }
}

impl Request {
    /// Appends the request with its length.
    ///
    /// # Wire format
    /// ```text
    /// Length:16, Body:Length
    /// ALIVE2_REQ  120, Port:16, NodeType:8, Protocol:8, HighestVersion:16, LowestVersion:16,
    ///             NameLength:16, Name, ExtraLength:16, Extra
    /// PORT2_REQ   122, Name          NAMES_REQ 110          DUMP_REQ 100          KILL_REQ 107
    /// STOP_REQ    115, Name
    /// ```
    ///
    /// # Errors
    /// [`Error::Malformed`] if a name or extra data are longer than an EPMD takes, or a name is empty or contains NUL.
    pub fn encode(&self, out: &mut impl BufMut) -> Result<()> {
        let body = match self {
            Self::Alive(info) => {
                info.check()?;
                check_sent_name(&info.name)?;
                ALIVE2_FIXED + info.name.len() + info.extra.len()
            }
            Self::Port(name) | Self::Stop(name) => {
                check_sent_name(name)?;
                1 + name.len()
            }
            Self::Names | Self::Dump | Self::Kill => 1,
        };
        // At most 13 + 1,020 + 1,020 by the checks above.
        out.put_u16(body as u16);
        match self {
            Self::Alive(info) => {
                out.put_u8(ALIVE2_REQ);
                info.encode(out);
            }
            Self::Port(name) => {
                out.put_u8(PORT2_REQ);
                out.put_slice(name);
            }
            Self::Stop(name) => {
                out.put_u8(STOP_REQ);
                out.put_slice(name);
            }
            Self::Names => out.put_u8(NAMES_REQ),
            Self::Dump => out.put_u8(DUMP_REQ),
            Self::Kill => out.put_u8(KILL_REQ),
        }
        Ok(())
    }

    /// Reads the body of a request (without its length).
    ///
    /// As strict and as lenient as OTP's server: bytes after the end of an `ALIVE2_REQ` and after the first byte of
    /// `NAMES_REQ`, `DUMP_REQ` and `KILL_REQ` are ignored; one NUL at the end of a `PORT2_REQ` is too, and a `STOP_REQ`
    /// ends at its first NUL.
    ///
    /// # Errors
    /// [`Error::Malformed`] where OTP's server closes the connection without an answer.
    pub fn decode(body: Bytes) -> Result<Self> {
        let Some(&code) = body.first() else {
            return Err(Error::malformed("EPMD request", 0, Problem::Truncated));
        };
        match code {
            ALIVE2_REQ => {
                // OTP wants one byte more than the fixed part before it looks at anything.
                if body.len() <= ALIVE2_FIXED {
                    return Err(Error::malformed("ALIVE2_REQ", body.len(), Problem::Truncated));
                }
                let info = NodeInfo::decode("ALIVE2_REQ", 1, body.slice(1..))?;
                without_nul("ALIVE2_REQ", 11, &info.name)?;
                Ok(Self::Alive(info))
            }
            PORT2_REQ => {
                let end = if body.last() == Some(&0) { body.len() - 1 } else { body.len() };
                let name = body.slice(1.min(end)..end);
                without_nul("PORT2_REQ", 1, &name)?;
                match core::str::from_utf8(&name) {
                    Err(_) => Err(Error::malformed("PORT2_REQ", 1, Problem::NotUtf8)),
                    Ok("") => Err(Error::malformed("PORT2_REQ", 1, Problem::Truncated)),
                    Ok(text) => {
                        check_length(
                            "PORT2_REQ",
                            1,
                            "the length of the name",
                            text.chars().count(),
                            MAX_NAME_CHARACTERS,
                        )?;
                        Ok(Self::Port(name))
                    }
                }
            }
            STOP_REQ => {
                let end = body.iter().position(|byte| *byte == 0).unwrap_or(body.len());
                if body.len() <= 1 {
                    return Err(Error::malformed("STOP_REQ", 1, Problem::Truncated));
                }
                Ok(Self::Stop(body.slice(1..end)))
            }
            NAMES_REQ => Ok(Self::Names),
            DUMP_REQ => Ok(Self::Dump),
            KILL_REQ => Ok(Self::Kill),
            other => Err(Error::malformed("EPMD request", 0, Problem::UnknownTag(other))),
        }
    }

    /// The body of the request that `input` starts with, `None` if more bytes are needed.
    ///
    /// # Errors
    /// Where OTP's server closes the connection without an answer: a length of 0 or beyond [`MAX_REQUEST`], and bytes after
    /// the end of the request, because there is one request to a connection.
    pub fn body(input: &[u8]) -> Result<Option<&[u8]>> {
        let Some((length, rest)) = input.split_first_chunk() else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes(*length));
        if length == 0 {
            return Err(Error::malformed("EPMD request", 0, Problem::OutOfRange("length")));
        }
        check_length("EPMD request", 0, "the length", length + 2, MAX_REQUEST)?;
        if rest.len() > length {
            return Err(Error::malformed(
                "EPMD request",
                length + 2,
                Problem::TrailingBytes(rest.len() - length),
            ));
        }
        Ok(if rest.len() == length { Some(rest) } else { None })
    }
}

fn check_length(what: &'static str, at: usize, field: &'static str, value: usize, max: usize) -> Result<()> {
    if value > max { Err(Error::malformed(what, at, Problem::OutOfRange(field))) } else { Ok(()) }
}

fn without_nul(what: &'static str, at: usize, name: &[u8]) -> Result<()> {
    match name.iter().position(|byte| *byte == 0) {
        Some(nul) => Err(Error::malformed(what, at + nul, Problem::OutOfRange("a character of the name"))),
        None => Ok(()),
    }
}

/// A server ignores what follows a NUL, or closes.
fn check_sent_name(name: &[u8]) -> Result<()> {
    if name.is_empty() {
        return Err(Error::malformed("EPMD request", 1, Problem::OutOfRange("the length of the name")));
    }
    check_length("EPMD request", 1, "the length of the name", name.len(), MAX_NAME_BYTES)?;
    without_nul("EPMD request", 1, name)
}

fn put_sized(out: &mut impl BufMut, bytes: &[u8]) {
    // Longer ones do not pass `NodeInfo::check`; cutting keeps the lengths true whatever happens.
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.put_u16(length);
    out.put_slice(bytes.get(..usize::from(length)).unwrap_or_default());
}

fn take_sized(input: &mut Bytes) -> Option<Bytes> {
    let length = usize::from(input.try_get_u16().ok()?);
    if input.len() < length { None } else { Some(input.split_to(length)) }
}

#[cfg(test)]
mod tests;

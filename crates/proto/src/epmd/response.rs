//! What EPMD answers.
//!
//! Answers have no length: the server closes the connection after each, except after that to `ALIVE2_REQ`.

use bytes::{BufMut, Bytes};

use super::request::NodeInfo;
use crate::error::{Error, Problem, Result};

const ALIVE2_X_RESP: u8 = b'v';
const ALIVE2_RESP: u8 = b'y';
const PORT2_RESP: u8 = b'w';

/// The creation field of a refused registration, as OTP's server sends it.
const NO_CREATION: u8 = 99;

/// The answer to `ALIVE2_REQ`.
///
/// # Wire format
/// ```text
/// ALIVE2_X_RESP  118, Result:8, Creation:32    to clients that speak version 6
/// ALIVE2_RESP    121, Result:8, Creation:16    to older ones
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AliveResponse {
    /// The creation of the node, or the result code (1 in OTP) of a refusal: the name is taken or not acceptable.
    pub creation: Result<u32, u8>,
    /// Whether the form for version 6 is used, with a creation of 32 bits.
    pub wide: bool,
}

impl AliveResponse {
    /// Appends the answer.
    pub fn encode(&self, out: &mut impl BufMut) {
        let (result, creation) = match self.creation {
            Ok(creation) => (0, creation),
            Err(result) => (result, u32::from(NO_CREATION)),
        };
        if self.wide {
            out.put_slice(&[ALIVE2_X_RESP, result]);
            out.put_u32(creation);
        } else {
            out.put_slice(&[ALIVE2_RESP, result]);
            out.put_u16(creation as u16);
        }
    }

    /// Reads an answer; `None` if more bytes are needed.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is no answer to `ALIVE2_REQ`.
    pub fn decode(input: &[u8]) -> Result<Option<Self>> {
        let (wide, result, creation) = match *input {
            [] => return Ok(None),
            [ALIVE2_X_RESP, result, a, b, c, d, ..] => (true, result, u32::from_be_bytes([a, b, c, d])),
            [ALIVE2_RESP, result, a, b, ..] => (false, result, u32::from(u16::from_be_bytes([a, b]))),
            [ALIVE2_X_RESP | ALIVE2_RESP, ..] => return Ok(None),
            [other, ..] => return Err(Error::malformed("ALIVE2_RESP", 0, Problem::UnknownTag(other))),
        };
        Ok(Some(Self { creation: if result == 0 { Ok(creation) } else { Err(result) }, wide }))
    }
}

/// The answer to `PORT2_REQ`.
///
/// # Wire format
/// ```text
/// found      119, 0, Port:16, NodeType:8, Protocol:8, HighestVersion:16, LowestVersion:16,
///            NameLength:16, Name, ExtraLength:16, Extra
/// not found  119, Result:8
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PortResponse {
    /// The node is registered.
    Found(NodeInfo),
    /// It is not; the code is 1 in OTP.
    NotFound(u8),
}

impl PortResponse {
    /// Appends the answer.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_u8(PORT2_RESP);
        match self {
            Self::Found(info) => {
                out.put_u8(0);
                info.encode(out);
            }
            Self::NotFound(code) => out.put_u8(*code),
        }
    }

    /// Reads an answer from the bytes received until the server closed. Bytes after its end are ignored.
    ///
    /// # Errors
    /// [`Error::Malformed`] if it is no answer to `PORT2_REQ` or incomplete.
    pub fn decode(input: &Bytes) -> Result<Self> {
        match *input.as_ref() {
            [] | [PORT2_RESP] => Err(Error::malformed("PORT2_RESP", input.len(), Problem::Truncated)),
            [PORT2_RESP, 0, ..] => {
                let info = NodeInfo::decode("PORT2_RESP", 2, input.slice(2..))?;
                if info.name().is_none() {
                    return Err(Error::malformed("PORT2_RESP", 12, Problem::NotUtf8));
                }
                Ok(Self::Found(info))
            }
            [PORT2_RESP, code, ..] => Ok(Self::NotFound(code)),
            [other, ..] => Err(Error::malformed("PORT2_RESP", 0, Problem::UnknownTag(other))),
        }
    }
}

/// The answer to `NAMES_REQ`: `EpmdPort:32`, then a line `name NAME at port PORT` for each node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NamesResponse {
    /// The port that this EPMD believes to listen on.
    pub epmd_port: u32,
    /// Names and ports, the latest registration first.
    pub nodes: Vec<(String, u16)>,
}

impl NamesResponse {
    /// Appends the answer.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_u32(self.epmd_port);
        for (name, port) in &self.nodes {
            put_names_line(out, name.as_bytes(), *port);
        }
    }

    /// Reads an answer from all the bytes received until the server closed.
    ///
    /// Lines of another form are skipped, as OTP's client does.
    ///
    /// # Errors
    /// [`Error::Malformed`] if not even the port is complete.
    pub fn decode(input: &[u8]) -> Result<Self> {
        let Some((epmd_port, text)) = input.split_first_chunk() else {
            return Err(Error::malformed("NAMES_RESP", input.len(), Problem::Truncated));
        };
        let nodes = text.split(|byte| *byte == b'\n').filter_map(parse_names_line).collect();
        Ok(Self { epmd_port: u32::from_be_bytes(*epmd_port), nodes })
    }
}

pub(super) fn put_names_line(out: &mut impl BufMut, name: &[u8], port: u16) {
    out.put_slice(b"name ");
    out.put_slice(name);
    out.put_slice(format!(" at port {port}\n").as_bytes());
}

fn parse_names_line(line: &[u8]) -> Option<(String, u16)> {
    let line = core::str::from_utf8(line).ok()?.strip_prefix("name ")?;
    let (name, port) = line.rsplit_once(" at port ")?;
    Some((name.to_owned(), port.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::super::request::NodeType;
    use super::*;
    use bytes::BytesMut;

    #[test]
    fn captured_answers_to_alive2_decode_and_encode() {
        for (bytes, creation, wide) in [
            (&b"v\0\x6b\0\xbd\xa3"[..], Ok(0x6b00_bda3), true),
            (b"v\x01\0\0\0\x63", Err(1), true),
            (b"y\0\0\x03", Ok(3), false),
            (b"y\x01\0\x63", Err(1), false),
        ] {
            let answer = AliveResponse { creation, wide };
            assert_eq!(AliveResponse::decode(bytes), Ok(Some(answer)));
            for end in 0..bytes.len() {
                assert_eq!(AliveResponse::decode(&bytes[..end]), Ok(None));
            }
            let mut out = BytesMut::new();
            answer.encode(&mut out);
            assert_eq!(out, bytes);
        }
        assert!(AliveResponse::decode(b"HTTP/1.1 400").is_err());
    }

    #[test]
    fn captured_answers_to_port2_decode_and_encode() {
        let rusty = NodeInfo::new("rusty", 40001, false);
        let extr = NodeInfo {
            node_type: NodeType::HIDDEN,
            extra: Bytes::from_static(b"\x01\x02hello"),
            ..NodeInfo::new("extr", 40006, true)
        };
        for (bytes, answer) in [
            (&b"w\0\x9cAM\0\0\x06\0\x05\0\x05rusty\0\0"[..], PortResponse::Found(rusty)),
            (b"w\0\x9cFH\0\0\x06\0\x05\0\x04extr\0\x07\x01\x02hello", PortResponse::Found(extr)),
            (b"w\x01", PortResponse::NotFound(1)),
        ] {
            let bytes = Bytes::from_static(bytes);
            assert_eq!(PortResponse::decode(&bytes), Ok(answer.clone()));
            for end in 0..bytes.len() {
                assert!(PortResponse::decode(&bytes.slice(..end)).is_err());
            }
            let mut out = BytesMut::new();
            answer.encode(&mut out);
            assert_eq!(out, bytes);
        }
        assert!(PortResponse::decode(&Bytes::from_static(b"w\0\0\0M\0\0\x06\0\x05\0\x01\xff\0\0")).is_err());
    }

    #[test]
    fn captured_answer_to_names() {
        let bytes =
            b"\0\0\x5f\x31name extr at port 40006\nname old5 at port 40005\nname rusty at port 40001\n";
        let nodes = [("extr", 40006), ("old5", 40005), ("rusty", 40001)];
        let answer = NamesResponse {
            epmd_port: 24369,
            nodes: nodes.map(|(name, port)| (name.to_owned(), port)).to_vec(),
        };
        assert_eq!(NamesResponse::decode(bytes), Ok(answer.clone()));
        let mut out = BytesMut::new();
        answer.encode(&mut out);
        assert_eq!(out, bytes[..]);
        assert!(NamesResponse::decode(b"\0\0\x5f").is_err());
        assert_eq!(
            NamesResponse::decode(b"\0\0\0\0name a at port 70000\nnonsense\nname ").unwrap().nodes,
            []
        );
    }
}

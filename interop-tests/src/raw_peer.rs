//! A peer made of bytes: it can shake hands correctly and then send what no correct node would.
//!
//! Written from the OTP documentation alone (erts, "Distribution Protocol" and "External Term Format"), without the
//! crates under test, so that a mistake there is not repeated here.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use md5::{Digest, Md5};

/// The flags of a hidden node of OTP 29.
pub const FLAGS: u64 = 0x6d_07df_7fbc;

/// A connection to a node's distribution port.
#[derive(Debug)]
pub struct RawPeer {
    socket: TcpStream,
    /// The peer's own name, `name@host`.
    pub name: String,
    /// Its incarnation.
    pub creation: u32,
}

/// How the acceptor answered our proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// Both digests fit: frames may follow.
    Yes,
    /// The status was something else than `ok`.
    Status(String),
    /// The connection was closed before the end of the handshake.
    Closed,
}

impl RawPeer {
    /// Connects to a distribution port on loopback.
    pub fn connect(port: u16, name: &str) -> Self {
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self { socket, name: name.to_owned(), creation: 0x1122_3344 }
    }

    /// How long a read may wait.
    pub fn patience(&mut self, patience: Duration) {
        self.socket.set_read_timeout(Some(patience)).unwrap();
    }

    /// The bytes of our `N` message.
    pub fn name_message(&self, flags: u64) -> Vec<u8> {
        let mut message = vec![b'N'];
        message.extend(flags.to_be_bytes());
        message.extend(self.creation.to_be_bytes());
        message.extend((self.name.len() as u16).to_be_bytes());
        message.extend(self.name.as_bytes());
        message
    }

    /// The whole handshake as initiator.
    pub fn handshake(&mut self, flags: u64, cookie: &str) -> Accepted {
        self.try_handshake(flags, cookie).unwrap_or(Accepted::Closed)
    }

    fn try_handshake(&mut self, flags: u64, cookie: &str) -> io::Result<Accepted> {
        self.send_message(&self.name_message(flags))?;
        let status = self.read_message()?;
        if status != b"sok" {
            return Ok(Accepted::Status(
                String::from_utf8_lossy(status.get(1..).unwrap_or_default()).into_owned(),
            ));
        }
        let challenge = self.read_message()?;
        let theirs = challenge.get(9..13).map(|b| u32::from_be_bytes(b.try_into().unwrap()));
        let ours: u32 = 0x4468_971e;
        let mut reply = vec![b'r'];
        reply.extend(ours.to_be_bytes());
        reply.extend(digest(cookie, theirs.ok_or(io::ErrorKind::InvalidData)?));
        self.send_message(&reply)?;
        let ack = self.read_message()?;
        assert_eq!(ack.get(1..), Some(&digest(cookie, ours)[..]), "the acceptor proves the cookie too");
        Ok(Accepted::Yes)
    }

    /// Sends one handshake message with its 2-byte length.
    pub fn send_message(&mut self, message: &[u8]) -> io::Result<()> {
        let mut bytes = (message.len() as u16).to_be_bytes().to_vec();
        bytes.extend(message);
        self.socket.write_all(&bytes)
    }

    /// Reads one handshake message.
    pub fn read_message(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 2];
        self.socket.read_exact(&mut length)?;
        let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
        self.socket.read_exact(&mut message)?;
        Ok(message)
    }

    /// Sends one frame with its 4-byte length.
    pub fn send_frame(&mut self, frame: &[u8]) -> io::Result<()> {
        let mut bytes = (frame.len() as u32).to_be_bytes().to_vec();
        bytes.extend(frame);
        self.socket.write_all(&bytes)
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket.write_all(bytes)
    }

    /// Reads one frame; ticks come as empty ones.
    pub fn read_frame(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.socket.read_exact(&mut length)?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.socket.read_exact(&mut frame)?;
        Ok(frame)
    }

    /// Whether the other side closes the connection within the given time; frames that still come are dropped.
    pub fn is_closed_within(&mut self, within: Duration) -> bool {
        let deadline = std::time::Instant::now() + within;
        let mut buffer = [0; 4096];
        loop {
            let left = deadline.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return false;
            }
            self.socket.set_read_timeout(Some(left)).unwrap();
            match self.socket.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return false;
                }
                Err(_) => return true,
            }
        }
    }

    /// A frame with an empty distribution header: `control` and `payload` are terms without their leading 131.
    pub fn frame(control: &[u8], payload: &[u8]) -> Vec<u8> {
        [&[131, 68, 0], control, payload].concat()
    }

    /// This peer's pid with the given id, as `NEW_PID_EXT`.
    pub fn pid(&self, id: u32) -> Vec<u8> {
        let mut term = vec![88];
        term.extend(atom(&self.name));
        term.extend(id.to_be_bytes());
        term.extend(0u32.to_be_bytes());
        term.extend(self.creation.to_be_bytes());
        term
    }

    /// A pid of a node that this peer is not.
    pub fn foreign_pid(node: &str) -> Vec<u8> {
        let mut term = vec![88];
        term.extend(atom(node));
        term.extend([0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 9]);
        term
    }

    /// A reference of this peer, as `NEWER_REFERENCE_EXT`.
    pub fn reference(&self, id: u32) -> Vec<u8> {
        let mut term = vec![90, 0, 3];
        term.extend(atom(&self.name));
        term.extend(self.creation.to_be_bytes());
        for word in [id & 0x3ffff, 7, 9] {
            term.extend(u32::to_be_bytes(word));
        }
        term
    }

    /// A REG_SEND frame from our pid 101 to a registered name.
    pub fn reg_send(&self, to: &str, payload: &[u8]) -> Vec<u8> {
        Self::frame(&tuple(&[&[97, 6], &self.pid(101), &atom(""), &atom(to)]), payload)
    }
}

/// `SMALL_ATOM_UTF8_EXT`.
pub fn atom(name: &str) -> Vec<u8> {
    let mut term = vec![119, u8::try_from(name.len()).expect("a short atom")];
    term.extend(name.as_bytes());
    term
}

/// `SMALL_TUPLE_EXT`.
pub fn tuple(elements: &[&[u8]]) -> Vec<u8> {
    let mut term = vec![104, u8::try_from(elements.len()).expect("a small tuple")];
    for element in elements {
        term.extend(*element);
    }
    term
}

/// `BINARY_EXT`.
pub fn binary(bytes: &[u8]) -> Vec<u8> {
    let mut term = vec![109];
    term.extend((bytes.len() as u32).to_be_bytes());
    term.extend(bytes);
    term
}

/// The proof of a cookie: MD5 of the cookie followed by the challenge in decimal digits.
pub fn digest(cookie: &str, challenge: u32) -> [u8; 16] {
    Md5::digest(format!("{cookie}{challenge}")).into()
}

//! Heartbeats over UDP multicast or broadcast, byte for byte those of libcluster's `Cluster.Strategy.Gossip`.
//!
//! ```toml
//! [cluster]
//! strategy = "gossip"
//! secret = { system = "GOSSIP_SECRET" }
//! ```
//!
//! # Wire format
//! One datagram, sent after a random pause of up to five seconds each; the first few, for which libcluster takes the same pause, after
//! shorter ones:
//!
//! ```text
//! plain   "heartbeat::" ++ term_to_binary(#{node => 'name@host'})
//! secret  IV (16 random bytes) ++ AES-256-CBC(key = SHA-256(secret), IV, PKCS #7 (plain))
//! ```
//!
//! There is no authentication code and no time in it: whoever has once recorded a datagram can send it again, and without a
//! secret anybody can name nodes. So without a secret the names need an entry of the allow-list.
//!
//! # Sockets
//! The port is shared with the BEAM nodes of this machine, for which all need `SO_REUSEADDR`. libcluster joins and sends on the interface that the
//! kernel chooses by its routes, unless `multicast_if` says another; this node also does so on the loopback interface, so that nodes of
//! one machine find each other without a network.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use aes::Aes256;
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit};
use foundation_proto::dist::NodeName;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;

use super::config::{Context, Secret};
use super::heard::Heard;
use super::polling::after;
use super::{Candidate, Reports, Running, SourceError, Strategy};
use crate::random;

const PREFIX: &[u8] = b"heartbeat::";
/// A node name has at most 255 characters of 4 bytes; what is longer is no heartbeat.
const MAX_DATAGRAM: usize = 1200;
/// The longest pause between two heartbeats; libcluster's.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// The longest pauses after the first heartbeats: a datagram that is lost when all begin at once is made up for soon.
const FIRST_PAUSES: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];
/// Room for a heartbeat of each of a thousand nodes, which may all begin at once while this one does something else. The system
/// may grant less.
const RECEIVE_BUFFER: usize = 1 << 20;

/// The keys of this strategy, as libcluster names them.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Options {
    /// The port. 45892.
    pub port: u16,
    /// The address to listen on. 0.0.0.0; with another one, Linux delivers no multicast.
    pub if_addr: Ipv4Addr,
    /// The address of the interface to use. Default: the kernel's choice, and the loopback interface.
    pub multicast_if: Option<Ipv4Addr>,
    /// The group, or with `broadcast_only` the address to send to. 233.252.1.32.
    pub multicast_addr: Ipv4Addr,
    /// How many networks a heartbeat may cross. 1.
    pub multicast_ttl: u32,
    /// Broadcast instead of multicast.
    pub broadcast_only: bool,
    /// What all nodes of the cluster share.
    pub secret: Option<Secret>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            port: 45892,
            if_addr: Ipv4Addr::UNSPECIFIED,
            multicast_if: None,
            multicast_addr: Ipv4Addr::new(233, 252, 1, 32),
            multicast_ttl: 1,
            broadcast_only: false,
            secret: None,
        }
    }
}

/// The strategy.
#[derive(Debug)]
pub struct Gossip {
    options: Options,
    own: NodeName,
    /// Whether anybody can connect to this node; otherwise it only hears.
    listens: bool,
}

impl Gossip {
    /// The strategy for a node.
    pub fn new(options: Options, context: &Context) -> Self {
        Self { options, own: context.own.clone(), listens: !context.listens.is_empty() }
    }

    /// The interfaces to join and send on; `None` is the kernel's choice.
    fn interfaces(&self) -> Vec<Option<Ipv4Addr>> {
        match self.options.multicast_if {
            Some(address) => vec![Some(address)],
            None if self.options.broadcast_only => vec![None],
            None => vec![None, Some(Ipv4Addr::LOCALHOST)],
        }
    }

    fn open(&self) -> io::Result<UdpSocket> {
        let options = &self.options;
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.set_broadcast(true)?;
        socket.set_multicast_loop_v4(true)?;
        socket.set_multicast_ttl_v4(options.multicast_ttl)?;
        let _less = socket.set_recv_buffer_size(RECEIVE_BUFFER);
        socket.bind(&SocketAddr::from((options.if_addr, options.port)).into())?;
        if !options.broadcast_only {
            let mut failure = None;
            let mut joined = false;
            for interface in self.interfaces() {
                let interface = interface.unwrap_or(Ipv4Addr::UNSPECIFIED);
                match socket.join_multicast_v4(&options.multicast_addr, &interface) {
                    Ok(()) => joined = true,
                    Err(error) => failure = failure.or(Some(error)),
                }
            }
            if let Some(error) = failure.filter(|_| !joined) {
                return Err(error);
            }
        }
        UdpSocket::from_std(socket.into())
    }

    async fn send(&self, socket: &UdpSocket, key: Option<&[u8; 32]>) -> Result<(), SourceError> {
        let target = SocketAddrV4::new(self.options.multicast_addr, self.options.port);
        let datagram = encode(&self.own, key)
            .map_err(|error| SourceError::new(format!("no random numbers for a heartbeat: {error}")))?;
        let mut sent = false;
        let mut failure = None;
        for interface in self.interfaces() {
            let address = interface.unwrap_or(Ipv4Addr::UNSPECIFIED);
            let result = match SockRef::from(socket).set_multicast_if_v4(&address) {
                Ok(()) => socket.send_to(&datagram, target).await.map(|_| ()),
                Err(error) => Err(error),
            };
            match result {
                Ok(()) => sent = true,
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match failure {
            Some(error) if !sent => Err(SourceError::new(format!(
                "no heartbeat can be sent to {target}: {error}; name the address of an interface (multicast_if), or add a route"
            ))),
            _ => Ok(()),
        }
    }

    async fn gossip(&self, reports: &Reports) -> Result<(), SourceError> {
        let key =
            self.options.secret.as_ref().map(|secret| <[u8; 32]>::from(Sha256::digest(secret.as_bytes())));
        let socket = self.open().map_err(|error| {
            SourceError::new(format!("UDP port {} cannot be used for gossip: {error}", self.options.port))
        })?;
        let mut heard = Heard::default();
        let mut datagram = [0_u8; MAX_DATAGRAM];
        let mut pauses = FIRST_PAUSES.into_iter();
        let mut next = tokio::time::Instant::now();
        loop {
            let (said, addresses) = tokio::select! {
                () = tokio::time::sleep_until(next), if self.listens => {
                    if let Err(error) = self.send(&socket, key.as_ref()).await {
                        reports.failed(error).await;
                    }
                    next = after(match pauses.next() {
                        Some(pause) => random::between(pause / 2, pause),
                        None => random::between(Duration::from_millis(1), HEARTBEAT),
                    });
                    continue;
                }
                received = socket.recv_from(&mut datagram) => {
                    let (length, from) = received
                        .map_err(|error| SourceError::new(format!("the gossip socket failed: {error}")))?;
                    if !heard.takes() {
                        continue;
                    }
                    let node = datagram.get(..length).and_then(|datagram| decode(datagram, key.as_ref()));
                    let Some(node) = node.filter(|node| *node != self.own) else { continue };
                    let Some((said, addresses)) = heard.addresses(&node.clone(), (node, from)) else { continue };
                    (vec![said], addresses)
                }
                resolved = heard.resolved() => resolved,
            };
            for (node, from) in said {
                let evidence = format!("heartbeat from {from}");
                let candidate = Candidate { addresses: addresses.clone(), ..Candidate::new(node, evidence) };
                reports.seen(candidate).await;
            }
        }
    }
}

impl Strategy for Gossip {
    fn run(self: Arc<Self>, reports: Reports) -> Running {
        Box::pin(async move {
            loop {
                if let Err(error) = self.gossip(&reports).await {
                    reports.failed(error).await;
                }
                tokio::time::sleep(random::between(HEARTBEAT / 2, HEARTBEAT)).await;
            }
        })
    }
}

/// A heartbeat of this node.
fn encode(own: &NodeName, key: Option<&[u8; 32]>) -> io::Result<Vec<u8>> {
    let name = own.as_str().as_bytes();
    let mut plain = PREFIX.to_vec();
    plain.extend([131, 116, 0, 0, 0, 1, 119, 4]);
    plain.extend(b"node");
    match u8::try_from(name.len()) {
        Ok(length) => plain.extend([119, length]),
        // A node name has at most 1,020 bytes.
        Err(_) => {
            plain.push(118);
            plain.extend((name.len() as u16).to_be_bytes());
        }
    }
    plain.extend(name);
    let Some(key) = key else { return Ok(plain) };
    let mut iv = [0_u8; 16];
    getrandom::fill(&mut iv).map_err(io::Error::other)?;
    let mut out = iv.to_vec();
    out.extend(cbc::Encryptor::<Aes256>::new(&(*key).into(), &iv.into()).encrypt_padded_vec::<Pkcs7>(&plain));
    Ok(out)
}

/// The node of a heartbeat; `None` for anything else.
fn decode(datagram: &[u8], key: Option<&[u8; 32]>) -> Option<NodeName> {
    let Some(key) = key else { return plain(datagram) };
    let (iv, sealed) = datagram.split_first_chunk::<16>()?;
    let opened = cbc::Decryptor::<Aes256>::new(&(*key).into(), &(*iv).into())
        .decrypt_padded_vec::<Pkcs7>(sealed)
        .ok()?;
    plain(&opened)
}

/// Exactly one map of exactly one pair: an atom `node`, and an atom that is a node name. Everything else is foreign.
fn plain(datagram: &[u8]) -> Option<NodeName> {
    let rest = datagram.strip_prefix(PREFIX)?.strip_prefix(&[131, 116, 0, 0, 0, 1])?;
    let (key, rest) = atom(rest)?;
    let (value, rest) = atom(rest)?;
    (key == "node" && rest.is_empty()).then(|| NodeName::parse(&value).ok()).flatten()
}

/// An atom in any of its four encodings, and what follows.
fn atom(bytes: &[u8]) -> Option<(String, &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (length, rest) = match tag {
        100 | 118 => {
            let (length, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*length)), rest)
        }
        115 | 119 => {
            let (length, rest) = rest.split_first()?;
            (usize::from(*length), rest)
        }
        _ => return None,
    };
    let (text, rest) = rest.split_at_checked(length)?;
    let text = match tag {
        118 | 119 => core::str::from_utf8(text).ok()?.to_owned(),
        _ => text.iter().map(|byte| char::from(*byte)).collect(),
    };
    Some((text, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeName {
        NodeName::parse(name).unwrap()
    }

    /// As captured from libcluster 3.5 on OTP 25 (atoms in Latin-1) and 27 (in UTF-8).
    const OTP_25: &[u8] = b"heartbeat::\x83t\x00\x00\x00\x01d\x00\x04noded\x00\x0cg1@127.0.0.1";
    const OTP_27: &[u8] = b"heartbeat::\x83t\x00\x00\x00\x01w\x04nodew\x0dg27@127.0.0.1";

    #[test]
    fn heartbeats_are_those_of_libcluster() {
        assert_eq!(decode(OTP_25, None), Some(node("g1@127.0.0.1")));
        assert_eq!(decode(OTP_27, None), Some(node("g27@127.0.0.1")));
        assert_eq!(encode(&node("g27@127.0.0.1"), None).unwrap(), OTP_27);
    }

    /// `openssl enc -aes-256-cbc -K $(printf s3cret | sha256sum) -iv 000102…0f` over the datagram of OTP 25.
    #[test]
    fn a_secret_seals_as_openssl_does() {
        let key = <[u8; 32]>::from(Sha256::digest(b"s3cret"));
        let iv: [u8; 16] = core::array::from_fn(|index| index as u8);
        let mut datagram = iv.to_vec();
        let sealed = "a4858114bd9d1726ed914175230bd42daf09733e6e1fd0350d767a2ef4596238768cd4d3ed539f54546093e59eeb4616";
        datagram.extend(
            (0..sealed.len() / 2).map(|i| u8::from_str_radix(&sealed[2 * i..2 * i + 2], 16).unwrap()),
        );
        assert_eq!(decode(&datagram, Some(&key)), Some(node("g1@127.0.0.1")));
        let own = encode(&node("x@h"), Some(&key)).unwrap();
        assert_eq!(decode(&own, Some(&key)), Some(node("x@h")));
        assert_eq!(decode(&own, Some(&[0; 32])), None);
        assert_eq!(decode(&own, None), None);
        assert_eq!(decode(OTP_25, Some(&key)), None);
    }

    #[test]
    fn anything_else_is_ignored() {
        for length in 0..OTP_27.len() {
            assert_eq!(decode(&OTP_27[..length], None), None);
            assert_eq!(decode(&OTP_27[..length], Some(&[7; 32])), None);
        }
        for datagram in [
            &b"heartbeat::\x83t\x00\x00\x00\x01w\x04nodew\x04abcd"[..],
            b"heartbeat::\x83t\x00\x00\x00\x01w\x04nodew\x03a@b!",
            b"heartbeat::\x83t\x00\x00\x00\x01w\x04nodem\x00\x00\x00\x03a@b",
            b"heartbeat::\x83t\x00\x00\x00\x02w\x04nodew\x03a@bw\x01aw\x01b",
            b"heartbeat::\x83t\x00\x00\x00\x01w\x03nodw\x03a@b",
            b"heartbeat::\x83t\x00\x00\x00\x01v\xff\xffnode",
        ] {
            assert_eq!(decode(datagram, None), None);
        }
    }
}

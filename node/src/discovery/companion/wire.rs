//! What a companion and its owner say to each other: one term in each frame, behind its length in four bytes
//! (`{packet, 4}` of `erlang:open_port/2`).
//!
//! | the owner says | meaning |
//! |---|---|
//! | `{start, #{node, cluster, …}}` | first and once: which node it is, and what it wants ([`Start`]) |
//! | `{up, Node}` | this node is connected, whoever dialled it |
//! | `{down, Node, Deliberate}` | it is not any more; `true` if the owner's side meant that |
//! | `{not_connected, Node, Why}` | the dial that was asked for has failed |
//!
//! | the companion says | meaning |
//! |---|---|
//! | `{ready, 1, Version, [Line]}` | the configuration is accepted; which sources there are, and why |
//! | `{error, Text}` | it is not; the companion ends |
//! | `{connect, Node, Topology}` | dial this node and say how it went |
//! | `{disconnect, Node, Topology}` | end the connection to it |
//! | `{report, Name, #{text, …}}` | for logs and telemetry |
//!
//! Names of nodes are atoms or binaries from the owner, binaries from the companion: what is only reported need not become an
//! atom. All other texts are binaries.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use foundation_proto::dist::NodeName;
use foundation_proto::etf::{self, Term};
use toml::Value;

use crate::discovery::terms;

/// The version of this protocol.
pub const VERSION: i64 = 1;
/// The longest frame in either direction. A configuration with 4,096 nodes has some 200 KiB.
pub const MAX_FRAME: usize = 1 << 20;
/// Addresses that a node can listen on.
const MAX_LISTENS: usize = 64;
/// Nodes that can be connected at the start.
const MAX_CONNECTED: usize = 65_536;

/// Who the owner is, and what it wants.
#[derive(Clone, Debug)]
pub struct Start {
    /// Its name.
    pub node: NodeName,
    /// What stands under `cluster` in a configuration file.
    pub cluster: Value,
    /// Why this is a developer's machine, if the owner knows that it is.
    pub development: Option<String>,
    /// The port of its EPMD.
    pub epmd_port: u16,
    /// Where it listens.
    pub listens: Vec<SocketAddr>,
    /// Who is connected already.
    pub connected: Vec<NodeName>,
}

/// What the owner says.
#[derive(Clone, Debug)]
pub enum Request {
    /// The beginning.
    Start(Box<Start>),
    /// A node is connected.
    Up(NodeName),
    /// It is not any more.
    Down {
        /// The node.
        node: NodeName,
        /// The owner's side meant it.
        deliberate: bool,
    },
    /// A dial has failed.
    NotConnected {
        /// The node.
        node: NodeName,
        /// Why.
        why: String,
    },
}

impl Request {
    /// Reads a frame.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(frame: &[u8]) -> Result<Self, String> {
        let term =
            etf::decode(frame, &terms::limits()).map_err(|error| format!("a frame is no term: {error}"))?;
        match term.as_tuple().unwrap_or_default() {
            [tag, start] if tag.is_atom("start") => Start::read(start).map(Box::new).map(Self::Start),
            [tag, peer] if tag.is_atom("up") => Ok(Self::Up(node(peer)?)),
            [tag, peer, deliberate] if tag.is_atom("down") => {
                Ok(Self::Down { node: node(peer)?, deliberate: deliberate.as_bool() == Some(true) })
            }
            [tag, peer, why] if tag.is_atom("not_connected") => {
                let why = text(why).unwrap_or("unknown").to_owned();
                Ok(Self::NotConnected { node: node(peer)?, why })
            }
            _ => Err("a frame is neither start, up, down nor not_connected".to_owned()),
        }
    }
}

impl Start {
    fn read(term: &Term) -> Result<Self, String> {
        let missing = |key: &str| format!("start has no {key}");
        let get = |key: &str| term.as_map().and_then(|map| map.get_atom(key));
        let epmd_port = match get("epmd_port").and_then(Term::as_i64) {
            None => 4369,
            Some(port) => u16::try_from(port).map_err(|_| format!("epmd_port is {port}"))?,
        };
        let listens = get("listens").and_then(Term::as_list).unwrap_or_default();
        let connected = get("connected").and_then(Term::as_list).unwrap_or_default();
        if listens.len() > MAX_LISTENS || connected.len() > MAX_CONNECTED {
            return Err("listens or connected is too long".to_owned());
        }
        let address = |term: &Term| {
            let written = text(term).unwrap_or_default();
            written.parse().map_err(|_| format!("{written:?} is no address with a port"))
        };
        Ok(Self {
            node: node(get("node").ok_or_else(|| missing("node"))?)?,
            cluster: terms::value(get("cluster").ok_or_else(|| missing("cluster"))?)
                .map_err(|mistake| mistake.to_string())?,
            development: get("development").and_then(text).filter(|why| *why != "nil").map(str::to_owned),
            epmd_port,
            listens: listens.iter().map(address).collect::<Result<_, _>>()?,
            connected: connected.iter().map(node).collect::<Result<_, _>>()?,
        })
    }
}

/// The text of an atom or a binary.
fn text(term: &Term) -> Option<&str> {
    term.as_atom().map(|atom| atom.as_str()).or_else(|| term.as_str())
}

fn node(term: &Term) -> Result<NodeName, String> {
    let name = text(term).ok_or("a node is neither an atom nor a binary")?;
    NodeName::parse(name).map_err(|error| format!("{name:?} is no node name: {error}"))
}

/// A text of ours.
pub fn binary(text: &str) -> Term {
    Term::binary(text.as_bytes())
}

/// What the companion says.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The configuration is accepted.
    Ready(Vec<String>),
    /// It is not.
    Error(String),
    /// Dial this node, which this topology names.
    Connect(NodeName, String),
    /// End the connection to it.
    Disconnect(NodeName, String),
    /// For logs and telemetry.
    Report(&'static str, Vec<(&'static str, Term)>),
}

impl Answer {
    /// It as a term.
    pub fn to_term(&self) -> Term {
        let name = |node: &NodeName| binary(node.as_str());
        match self {
            Self::Ready(lines) => Term::tuple([
                Term::atom("ready"),
                Term::from(VERSION),
                binary(env!("CARGO_PKG_VERSION")),
                Term::list(lines.iter().map(|line| binary(line))),
            ]),
            Self::Error(text) => Term::tuple([Term::atom("error"), binary(text)]),
            Self::Connect(node, topology) => {
                Term::tuple([Term::atom("connect"), name(node), binary(topology)])
            }
            Self::Disconnect(node, topology) => {
                Term::tuple([Term::atom("disconnect"), name(node), binary(topology)])
            }
            Self::Report(report, pairs) => {
                let pairs = pairs.iter().map(|(key, value)| (Term::atom(key), value.clone())).collect();
                // The keys are ours and all different, so there is always such a map.
                let map = etf::Map::from_pairs(pairs).map_or_else(|_| Term::list([]), Term::Map);
                Term::tuple([Term::atom("report"), Term::atom(report), map])
            }
        }
    }

    /// Writes it as a frame.
    ///
    /// # Errors
    /// If nobody reads any more.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let mut term = Vec::new();
        etf::encode(&self.to_term(), &mut term).map_err(io::Error::other)?;
        let length = u32::try_from(term.len()).map_err(io::Error::other)?;
        // In one piece: nobody else writes in between, and one write is one system call.
        let frame = [length.to_be_bytes().as_slice(), &term].concat();
        to.write_all(&frame)?;
        to.flush()
    }
}

/// Reads a frame; `None` at the end of the stream.
///
/// # Errors
/// If the stream fails, or the frame is longer than [`MAX_FRAME`].
pub fn read_frame(from: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match from.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = u32::from_be_bytes(length);
    if length as usize > MAX_FRAME {
        return Err(io::Error::other(format!("a frame of {length} bytes; {MAX_FRAME} may be sent")));
    }
    let mut frame = Vec::new();
    // By what is there, not by what is claimed.
    if from.take(u64::from(length)).read_to_end(&mut frame)? < length as usize {
        return Ok(None);
    }
    Ok(Some(frame))
}

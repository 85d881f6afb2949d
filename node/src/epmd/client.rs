//! The client's side of EPMD, as kernel's `erl_epmd` has it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use foundation_proto::epmd::{AliveResponse, NamesResponse, NodeInfo, PortResponse, Request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::EpmdError;

/// How long one exchange may take: `erl_epmd`'s own 10 s.
const EXCHANGE: Duration = Duration::from_secs(10);

/// More than any honest answer: 1,280 names of 1,020 bytes.
const MAX_ANSWER: u64 = 2 << 20;

/// The addresses at which the EPMD of this host is found.
pub(super) const LOCAL: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// Registers a node with the EPMD of this host. The name stays registered as long as the stream is open.
///
/// # Errors
/// If there is no EPMD, or it refuses the name.
pub async fn register(port: u16, node: &NodeInfo) -> Result<(TcpStream, u32), EpmdError> {
    let mut refused = None;
    for ip in LOCAL {
        let address = SocketAddr::new(ip, port);
        match exchange(address, async |stream| {
            stream.write_all(&encode(&Request::Alive(node.clone()))?).await?;
            let mut answer = BytesMut::with_capacity(8);
            loop {
                if let Some(response) = AliveResponse::decode(&answer).map_err(malformed)? {
                    return Ok(response);
                }
                if stream.read_buf(&mut answer).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        })
        .await
        {
            Ok((stream, response)) => {
                return match response.creation {
                    Ok(creation) => Ok((stream, creation)),
                    Err(_) => {
                        Err(EpmdError::NameTaken { alive: String::from_utf8_lossy(&node.name).into_owned() })
                    }
                };
            }
            Err(error @ EpmdError::Unreachable { .. }) => refused = refused.or(Some(error)),
            Err(error) => return Err(error),
        }
    }
    Err(refused.unwrap_or_else(|| EpmdError::Unreachable {
        address: SocketAddr::new(LOCAL[0], port),
        error: io::ErrorKind::NotFound.into(),
    }))
}

/// Asks the EPMD at `address` for the node of this name (the part before the `@`); `None` if it knows no such node.
///
/// # Errors
/// If there is no EPMD.
pub async fn lookup(address: SocketAddr, alive: &str) -> Result<Option<NodeInfo>, EpmdError> {
    let request = Request::Port(Bytes::copy_from_slice(alive.as_bytes()));
    let answer = ask(address, &request).await?;
    match PortResponse::decode(&answer) {
        Ok(PortResponse::Found(node)) => Ok(Some(node)),
        Ok(PortResponse::NotFound(_)) => Ok(None),
        Err(error) => Err(EpmdError::NoEpmd { address, error }),
    }
}

/// Asks the EPMD at `address` for all names and ports, the latest registration first.
///
/// # Errors
/// If there is no EPMD.
pub async fn names(address: SocketAddr) -> Result<NamesResponse, EpmdError> {
    let answer = ask(address, &Request::Names).await?;
    NamesResponse::decode(&answer).map_err(|error| EpmdError::NoEpmd { address, error })
}

/// Tells the EPMD at `address` to stop; `false` if it refuses because nodes are registered.
///
/// # Errors
/// If there is no EPMD.
pub async fn kill(address: SocketAddr) -> Result<bool, EpmdError> {
    Ok(ask(address, &Request::Kill).await?.as_ref() == b"OK")
}

/// One request, and everything until the server closes.
async fn ask(address: SocketAddr, request: &Request) -> Result<Bytes, EpmdError> {
    let (_, answer) = exchange(address, async |stream| {
        stream.write_all(&encode(request)?).await?;
        let mut answer = Vec::new();
        stream.take(MAX_ANSWER).read_to_end(&mut answer).await?;
        Ok(Bytes::from(answer))
    })
    .await?;
    Ok(answer)
}

async fn exchange<T>(
    address: SocketAddr,
    talk: impl AsyncFnOnce(&mut TcpStream) -> io::Result<T>,
) -> Result<(TcpStream, T), EpmdError> {
    let all = async {
        let mut stream = TcpStream::connect(address).await?;
        let result = talk(&mut stream).await?;
        Ok::<_, io::Error>((stream, result))
    };
    match timeout(EXCHANGE, all).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(match error.downcast::<foundation_proto::Error>() {
            Ok(error) => EpmdError::NoEpmd { address, error },
            Err(error) => EpmdError::Unreachable { address, error },
        }),
        Err(_) => Err(EpmdError::TimedOut { address }),
    }
}

fn encode(request: &Request) -> io::Result<BytesMut> {
    let mut out = BytesMut::new();
    request.encode(&mut out).map_err(malformed)?;
    Ok(out)
}

fn malformed(error: foundation_proto::Error) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

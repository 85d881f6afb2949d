//! Listening sockets: addresses, accepting under pressure.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tracing::warn;

/// Connections that the kernel keeps for us until they are accepted.
const BACKLOG: i32 = 1024;

/// How long to wait when no file descriptor is left: by then some connection may have closed.
const EXHAUSTED: Duration = Duration::from_millis(100);

/// A listening socket on exactly this address: one on `::` does not also take IPv4.
///
/// # Errors
/// What the system says.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A node that comes back gets its port although old connections still linger in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Whether one of the listeners already takes connections to `ip`.
pub(crate) fn covers(listeners: &[TcpListener], ip: IpAddr) -> bool {
    listeners
        .iter()
        .filter_map(|listener| listener.local_addr().ok())
        .any(|own| own.ip() == ip || (own.ip().is_unspecified() && own.is_ipv4() == ip.is_ipv4()))
}

/// The next connection. Running out of descriptors or memory is waited out: those who are connected are not concerned.
pub(crate) async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    let mut said = false;
    loop {
        match listener.accept().await {
            Ok(accepted) => return accepted,
            Err(error) => match error.kind() {
                // The peer has given up before we came to it.
                io::ErrorKind::ConnectionAborted
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::Interrupted => {}
                _ => {
                    if !said {
                        warn!(%error, "cannot accept connections; raise the limit of open files (ulimit -n)");
                        said = true;
                    }
                    tokio::time::sleep(EXHAUSTED).await;
                }
            },
        }
    }
}

//! The sending half of a live connection, which its senders and its writer task share.

use std::io::{self, IoSlice, Write as _};
use std::net::Shutdown;
use std::sync::Arc;

use tokio::net::TcpStream;

use super::tls::Session;

/// Where bytes for the peer go. None of the `try_` functions waits.
#[derive(Debug)]
pub(super) enum WriteHalf {
    /// A plain socket under a descriptor of its own, on no poll while it takes what it is given.
    #[cfg(unix)]
    Own(Arc<std::net::TcpStream>),
    /// A socket that the reader waits for too.
    Shared(Arc<TcpStream>),
    /// TLS over such a socket.
    Encrypted(Arc<TcpStream>, Arc<Session>),
}

impl WriteHalf {
    /// Waits until [`WriteHalf::try_write_vectored`] or [`WriteHalf::try_flush`] is worth trying, after `WouldBlock`.
    #[allow(
        deprecated,
        reason = "what tokio has against it is descriptors that change under it; this one is owned"
    )]
    pub(super) async fn writable(&self) -> io::Result<()> {
        match self {
            #[cfg(unix)]
            Self::Own(tcp) => {
                let poll =
                    tokio::io::unix::AsyncFd::with_interest(Arc::clone(tcp), tokio::io::Interest::WRITABLE)?;
                poll.writable().await.map(|_| ())
            }
            Self::Shared(tcp) | Self::Encrypted(tcp, _) => tcp.writable().await,
        }
    }

    /// Takes bytes to send. What TLS has taken may still wait for the socket: see [`WriteHalf::try_flush`].
    pub(super) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            #[cfg(unix)]
            Self::Own(tcp) => (&**tcp).write_vectored(slices),
            Self::Shared(tcp) => tcp.try_write_vectored(slices),
            Self::Encrypted(tcp, session) => session.try_write(tcp, slices),
        }
    }

    /// `Ok` if nothing that was taken waits for the socket any more.
    pub(super) fn try_flush(&self) -> io::Result<()> {
        match self {
            Self::Encrypted(tcp, session) => session.try_flush(tcp),
            _ => Ok(()),
        }
    }

    /// Nothing more will be written. The peer learns it if the socket takes the news at once.
    pub(super) fn shutdown(&self) {
        // A socket that is gone already needs no shutdown.
        let _ = match self {
            #[cfg(unix)]
            Self::Own(tcp) => tcp.shutdown(Shutdown::Write),
            Self::Shared(tcp) => socket2::SockRef::from(&**tcp).shutdown(Shutdown::Write),
            Self::Encrypted(tcp, session) => {
                session.close(tcp);
                socket2::SockRef::from(&**tcp).shutdown(Shutdown::Write)
            }
        };
    }
}

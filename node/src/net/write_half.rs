//! The sending half of a live connection, which its senders and its writer task share.

use std::io::{self, IoSlice};
use std::net::Shutdown;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;

use super::tls::Session;

/// Where bytes for the peer go. None of the `try_` functions waits.
#[derive(Debug)]
pub(super) enum WriteHalf {
    /// A plain socket.
    Plain(OwnedWriteHalf),
    /// TLS over a socket.
    Encrypted(Arc<TcpStream>, Arc<Session>),
}

impl WriteHalf {
    /// Waits until [`WriteHalf::try_write_vectored`] or [`WriteHalf::try_flush`] is worth trying, after `WouldBlock`.
    pub(super) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Plain(tcp) => tcp.writable().await,
            Self::Encrypted(tcp, _) => tcp.writable().await,
        }
    }

    /// Takes bytes to send. What TLS has taken may still wait for the socket: see [`WriteHalf::try_flush`].
    pub(super) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(tcp) => tcp.try_write_vectored(slices),
            Self::Encrypted(tcp, session) => session.try_write(tcp, slices),
        }
    }

    /// `Ok` if nothing that was taken waits for the socket any more.
    pub(super) fn try_flush(&self) -> io::Result<()> {
        match self {
            Self::Encrypted(tcp, session) => session.try_flush(tcp),
            Self::Plain(_) => Ok(()),
        }
    }

    /// Nothing more will be written. The peer learns it if the socket takes the news at once.
    pub(super) fn shutdown(&self) {
        // A socket that is gone already needs no shutdown.
        let _ = match self {
            Self::Plain(tcp) => {
                socket2::SockRef::from(AsRef::<TcpStream>::as_ref(tcp)).shutdown(Shutdown::Write)
            }
            Self::Encrypted(tcp, session) => {
                session.close(tcp);
                socket2::SockRef::from(&**tcp).shutdown(Shutdown::Write)
            }
        };
    }
}

//! The reading half of a live connection, which its reader task owns.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

use super::tls::Session;

/// Where the bytes of the peer come from.
#[derive(Debug)]
pub(super) enum ReadHalf {
    /// A plain socket that nobody else reads from or waits for.
    Own(Own),
    /// A socket that the writing half waits for too.
    Shared(Arc<TcpStream>),
    /// TLS over such a socket.
    Encrypted(Arc<TcpStream>, Arc<Session>),
}

#[derive(Debug)]
pub(super) struct Own {
    tcp: TcpStream,
    /// The last read has brought [`MUCH`].
    much: bool,
}

/// A read that brings so much is followed by another one at once.
const MUCH: usize = 4 << 10;

impl Own {
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self { tcp, much: false }
    }

    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        // After much there is often more. After little there is not, and this way of reading knows it without asking the system.
        let more =
            if self.much { self.tcp.try_read_buf(buffer) } else { Err(io::ErrorKind::WouldBlock.into()) };
        let outcome = match more {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                pin!(self.tcp.read_buf(buffer)).poll(context)
            }
            outcome => Poll::Ready(outcome),
        };
        self.much = matches!(outcome, Poll::Ready(Ok(read)) if read >= MUCH);
        outcome
    }
}

impl ReadHalf {
    /// Appends what has arrived; 0 means that the peer has closed.
    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Own(own) => own.poll_read(context, buffer),
            Self::Shared(tcp) => loop {
                match tcp.try_read_buf(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        ready!(tcp.poll_read_ready(context))?;
                    }
                    outcome => return Poll::Ready(outcome),
                }
            },
            Self::Encrypted(tcp, session) => loop {
                match session.try_read(tcp, buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        ready!(tcp.poll_read_ready(context))?;
                    }
                    outcome => return Poll::Ready(outcome),
                }
            },
        }
    }

    /// Waits until there is something to read.
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Own(own) => own.tcp.readable().await,
            Self::Shared(tcp) | Self::Encrypted(tcp, _) => tcp.readable().await,
        }
    }

    /// Reads and throws away what comes, decrypting nothing, until the peer closes.
    pub(super) async fn drain(self) {
        let tcp: &TcpStream = match &self {
            Self::Own(own) => &own.tcp,
            Self::Shared(tcp) | Self::Encrypted(tcp, _) => tcp,
        };
        let mut nothing = [0; 4096];
        while tcp.readable().await.is_ok() {
            match tcp.try_read(&mut nothing) {
                Ok(0) => return,
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return,
                _ => {}
            }
        }
    }
}

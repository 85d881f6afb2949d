//! The reading half of a live connection, which its reader task owns.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;

use super::tls::Session;

/// Where the bytes of the peer come from.
#[derive(Debug)]
pub(super) enum ReadHalf {
    /// A plain socket.
    Plain(Plain),
    /// TLS over a socket.
    Encrypted(Arc<TcpStream>, Arc<Session>),
}

/// The reading half of a plain socket.
#[derive(Debug)]
pub(super) struct Plain {
    tcp: OwnedReadHalf,
    /// The last read has brought [`MUCH`].
    much: bool,
}

/// A read that brings so much is followed by another one at once.
const MUCH: usize = 4 << 10;

impl Plain {
    pub(super) fn new(tcp: OwnedReadHalf) -> Self {
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
            Self::Plain(plain) => plain.poll_read(context, buffer),
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
            Self::Plain(plain) => plain.tcp.readable().await,
            Self::Encrypted(tcp, _) => tcp.readable().await,
        }
    }

    /// Reads and throws away what comes, decrypting nothing, until the peer closes.
    pub(super) async fn drain(self) {
        let tcp: &TcpStream = match &self {
            Self::Plain(plain) => plain.tcp.as_ref(),
            Self::Encrypted(tcp, _) => tcp,
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

//! Sockets for the crate `erl_dist`, which is a peer of the interop tests and of the benches.

use std::io::{Error, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A socket of tokio's as `erl_dist` wants it: with the traits of futures, and cloned for reading and writing.
#[derive(Clone, Debug)]
pub struct Socket(Arc<TcpStream>);

impl Socket {
    /// With `TCP_NODELAY`, because `erl_dist` writes a message in three pieces.
    ///
    /// # Errors
    /// If the socket is gone.
    pub fn new(stream: TcpStream) -> Result<Self, Error> {
        stream.set_nodelay(true)?;
        Ok(Self(Arc::new(stream)))
    }

    /// Connects to a port of this machine.
    ///
    /// # Errors
    /// If nobody listens there.
    pub async fn connect(port: u16) -> Result<Self, Error> {
        Self::new(TcpStream::connect(("127.0.0.1", port)).await?)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<Result<usize, Error>> {
        loop {
            match self.0.try_read(buf) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ready!(self.0.poll_read_ready(context))?;
                }
                done => return Poll::Ready(done),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize, Error>> {
        loop {
            match self.0.try_write(buf) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    ready!(self.0.poll_write_ready(context))?;
                }
                done => return Poll::Ready(done),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }
}

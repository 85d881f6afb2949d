//! A TLS session of this node as tokio-postgres wants it.

use std::future::Future;
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use super::WITHIN;
use crate::net::https;
use crate::net::stream::Stream;

/// What is read from the socket at once.
const CHUNK: usize = 8 << 10;

/// What a TLS session is made with.
pub(super) struct Secured {
    pub(super) host: String,
    pub(super) authorities: PathBuf,
}

impl TlsConnect<TcpStream> for Secured {
    type Stream = Socket;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Socket>> + Send>>;

    fn connect(self, tcp: TcpStream) -> Self::Future {
        Box::pin(async move {
            let stream = https(tcp, &self.host, &self.authorities, WITHIN).await.map_err(io::Error::other)?;
            Ok(Socket { stream, input: BytesMut::new() })
        })
    }
}

/// The session.
pub(super) struct Socket {
    stream: Stream,
    /// What was read and not yet taken.
    input: BytesMut,
}

impl TlsStream for Socket {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, input } = self.get_mut();
        loop {
            if !input.is_empty() {
                let taken = input.split_to(input.len().min(buffer.remaining()));
                buffer.put_slice(&taken);
                return Poll::Ready(Ok(()));
            }
            input.reserve(CHUNK);
            match stream.try_read_buf(input) {
                Ok(0) => return Poll::Ready(Ok(())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(stream.poll_readable(cx))?,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.stream.try_write_vectored(&[IoSlice::new(bytes)]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.stream.poll_writable(cx))?
                }
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.stream.try_flush() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.stream.poll_writable(cx))?
                }
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The socket is closed when this is dropped, right after.
        self.poll_flush(cx)
    }
}

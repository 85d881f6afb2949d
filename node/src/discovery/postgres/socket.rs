//! A TLS session of this node as tokio-postgres wants it.

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use super::WITHIN;
use crate::net::buffered::Buffered;
use crate::net::https;

/// What a TLS session is made with.
pub(super) struct Secured {
    pub(super) host: String,
    pub(super) authorities: PathBuf,
}

impl TlsConnect<TcpStream> for Secured {
    type Stream = Buffered;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Buffered>> + Send>>;

    fn connect(self, tcp: TcpStream) -> Self::Future {
        Box::pin(async move {
            let stream = https(tcp, &self.host, &self.authorities, WITHIN).await.map_err(io::Error::other)?;
            Ok(Buffered::new(stream))
        })
    }
}

impl TlsStream for Buffered {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Buffered {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().poll_input(cx, buffer.remaining()).map_ok(|read| buffer.put_slice(&read))
    }
}

impl AsyncWrite for Buffered {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_output(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_written(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The socket is closed when this is dropped, right after.
        self.poll_flush(cx)
    }
}

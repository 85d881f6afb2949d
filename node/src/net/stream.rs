//! The byte stream under a connection: a TCP socket, or TLS over one.
//!
//! While the connection is set up. [`Stream::split`] makes the halves of a live one of it. None of the `try_` functions waits.

use std::io::{self, IoSlice};
use std::sync::Arc;
#[cfg(feature = "http")]
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::net::TcpStream;

use super::read_half::{Own, ReadHalf};
use super::tls::Session;
use super::write_half::WriteHalf;

/// A connected socket, encrypted or not.
#[derive(Debug)]
pub(crate) struct Stream {
    tcp: TcpStream,
    tls: Option<Arc<Session>>,
}

impl Stream {
    /// Bytes leave as they are.
    pub(crate) fn plain(tcp: TcpStream) -> Self {
        Self { tcp, tls: None }
    }

    /// Bytes leave encrypted; the TLS handshake is done.
    #[cfg(feature = "tls")]
    pub(crate) fn encrypted(tcp: TcpStream, session: Session) -> Self {
        Self { tcp, tls: Some(Arc::new(session)) }
    }

    /// The TLS session, if there is one.
    pub(crate) fn session(&self) -> Option<&Arc<Session>> {
        self.tls.as_ref()
    }

    /// Waits until [`Stream::try_read_buf`] is worth trying, after it has said `WouldBlock`.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        self.tcp.readable().await
    }

    /// Waits until [`Stream::try_write_vectored`] or [`Stream::try_flush`] is worth trying, after `WouldBlock`.
    pub(crate) async fn writable(&self) -> io::Result<()> {
        self.tcp.writable().await
    }

    /// As [`Stream::readable`], for who is polled.
    #[cfg(feature = "http")]
    pub(crate) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_read_ready(cx)
    }

    /// As [`Stream::writable`], for who is polled.
    #[cfg(feature = "http")]
    pub(crate) fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_write_ready(cx)
    }

    /// Appends what has arrived; 0 means that the peer has closed.
    pub(crate) fn try_read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        match &self.tls {
            None => self.tcp.try_read_buf(buffer),
            Some(session) => session.try_read(&self.tcp, buffer),
        }
    }

    /// Takes bytes to send. What TLS has taken may still wait for the socket: see [`Stream::try_flush`].
    pub(crate) fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.tls {
            None => self.tcp.try_write_vectored(slices),
            Some(session) => session.try_write(&self.tcp, slices),
        }
    }

    /// `Ok` if nothing that was taken waits for the socket any more.
    pub(crate) fn try_flush(&self) -> io::Result<()> {
        self.tls.as_ref().map_or(Ok(()), |session| session.try_flush(&self.tcp))
    }

    /// For a live connection: one half for its reader, one for everybody who sends.
    pub(super) fn split(self) -> (ReadHalf, WriteHalf) {
        if let Some(session) = self.tls {
            let tcp = Arc::new(self.tcp);
            let read = ReadHalf::Encrypted(Arc::clone(&tcp), Arc::clone(&session));
            return (read, WriteHalf::Encrypted(tcp, session));
        }
        // A descriptor of its own, so that the reader decides what its own one waits for.
        #[cfg(unix)]
        if let Ok(own) = std::os::fd::AsFd::as_fd(&self.tcp).try_clone_to_owned()
            && is_among_the_first_half(&own)
        {
            return (ReadHalf::Own(Own::new(self.tcp)), WriteHalf::Own(Arc::new(own.into())));
        }
        let tcp = Arc::new(self.tcp);
        (ReadHalf::Shared(Arc::clone(&tcp)), WriteHalf::Shared(tcp))
    }

    /// Appends what arrives; 0 means that the peer has closed. Dropped while it waits, it has read nothing.
    pub(crate) async fn read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        loop {
            buffer.reserve(1);
            match self.try_read_buf(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable().await?,
                outcome => return outcome,
            }
        }
    }

    /// Sends all of `bytes`.
    pub(crate) async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        loop {
            let outcome = if bytes.is_empty() {
                self.try_flush().map(|()| 0)
            } else {
                self.try_write_vectored(&[IoSlice::new(bytes)])
            };
            match outcome {
                Ok(0) if bytes.is_empty() => return Ok(()),
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable().await?,
                Err(error) => return Err(error),
            }
        }
    }
}

/// Whether descriptors are plenty: a second one for each connection must not cost connections. The lowest free number is given
/// out first.
#[cfg(unix)]
fn is_among_the_first_half(descriptor: &impl std::os::fd::AsRawFd) -> bool {
    let most = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    most.is_none_or(|most| u64::try_from(descriptor.as_raw_fd()).is_ok_and(|number| number < most / 2))
}

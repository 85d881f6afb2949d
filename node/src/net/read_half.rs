//! The reading half of a live connection, which its reader task owns.

use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
#[cfg(target_os = "linux")]
use std::time::Instant;

use bytes::BytesMut;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

#[cfg(target_os = "linux")]
use super::give_way::GiveWay;
#[cfg(target_os = "linux")]
use super::nap::{self, Drowsy, Nap};
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
    /// `None` while the reader naps.
    tcp: Option<TcpStream>,
    /// The last read has brought [`MUCH`].
    much: bool,
    #[cfg(target_os = "linux")]
    drowsy: Drowsy,
    #[cfg(target_os = "linux")]
    nap: Option<Box<Nap>>,
    #[cfg(target_os = "linux")]
    give_way: GiveWay,
    /// The last read has waited for something to come.
    #[cfg(target_os = "linux")]
    waited: bool,
}

/// A read that brings so much is followed by another one at once.
const MUCH: usize = 4 << 10;

impl Own {
    pub(super) fn new(tcp: TcpStream) -> Self {
        Self {
            tcp: Some(tcp),
            much: false,
            #[cfg(target_os = "linux")]
            drowsy: Drowsy::default(),
            #[cfg(target_os = "linux")]
            nap: None,
            #[cfg(target_os = "linux")]
            give_way: GiveWay::default(),
            #[cfg(target_os = "linux")]
            waited: false,
        }
    }

    #[cfg_attr(
        not(target_os = "linux"),
        allow(unused_variables, reason = "only naps need to know what was sent")
    )]
    fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut BytesMut,
        sent: u64,
    ) -> Poll<io::Result<usize>> {
        #[cfg(target_os = "linux")]
        if let Some(nap) = &mut self.nap {
            let read = ready!(nap.poll_read(context, buffer))?;
            if let Some(over) = nap.is_over(sent) {
                let tcp = self.nap.take().map(|nap| nap.end());
                self.tcp = tcp.map(TcpStream::from_std).transpose()?;
                self.drowsy.has_woken(over);
            }
            if let Some(read) = read {
                return Poll::Ready(Ok(read));
            }
            if self.nap.is_some() {
                // The next one has begun once this is pending.
                return self.poll_read(context, buffer, sent);
            }
        }
        let Some(tcp) = &mut self.tcp else { return Poll::Ready(Ok(0)) };
        #[cfg(target_os = "linux")]
        let away = (self.waited && self.give_way.should(sent)).then(|| {
            let since = Instant::now();
            std::thread::yield_now();
            since.elapsed()
        });
        let room = buffer.capacity() - buffer.len();
        // After much there is often more. After little there is not, and this way of reading knows it without asking the system.
        let more = if self.much { tcp.try_read_buf(buffer) } else { Err(io::ErrorKind::WouldBlock.into()) };
        let outcome = match more {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                pin!(tcp.read_buf(buffer)).poll(context)
            }
            outcome => Poll::Ready(outcome),
        };
        self.much = matches!(outcome, Poll::Ready(Ok(read)) if read >= MUCH);
        #[cfg(target_os = "linux")]
        {
            self.waited = outcome.is_pending();
            if let Poll::Ready(Ok(read)) = &outcome {
                self.drowsy.has_read(*read, room);
                self.give_way.has_read(*read, away, sent);
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = room;
        outcome
    }

    #[cfg(target_os = "linux")]
    fn naps(&mut self, sent: u64) -> bool {
        if self.nap.is_some() || !self.drowsy.should_nap(sent) {
            return false;
        }
        // First what can fail, for want of descriptors.
        let Ok(timer) = nap::timer() else { return false };
        let Some(tcp) = self.tcp.take().and_then(|tcp| tcp.into_std().ok()) else { return false };
        self.nap = Some(Box::new(Nap::new(tcp, timer, sent)));
        true
    }
}

impl ReadHalf {
    /// Appends what has arrived; 0 means that the peer has closed. `sent` is what this side has sent so far.
    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut BytesMut,
        sent: u64,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Own(own) => own.poll_read(context, buffer, sent),
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

    /// Called when nothing more is there; `sent` is what this side has sent so far. True if it goes on in another way, and has to be
    /// polled again.
    pub(super) fn naps(&mut self, sent: u64) -> bool {
        #[cfg(target_os = "linux")]
        if let Self::Own(own) = self {
            return own.naps(sent);
        }
        #[cfg(not(target_os = "linux"))]
        let _ = sent;
        false
    }

    /// Waits until there is something to read.
    pub(super) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Own(Own { tcp: Some(tcp), .. }) => tcp.readable().await,
            // It has been read a moment ago.
            Self::Own(_) => Ok(()),
            Self::Shared(tcp) | Self::Encrypted(tcp, _) => tcp.readable().await,
        }
    }

    /// Reads and throws away what comes, decrypting nothing, until the peer closes.
    pub(super) async fn drain(self) {
        let own;
        let tcp: &TcpStream = match &self {
            Self::Own(Own { tcp: Some(tcp), .. }) => tcp,
            #[cfg(target_os = "linux")]
            Self::Own(_) => {
                let Self::Own(Own { nap: Some(nap), .. }) = self else { return };
                let Ok(tcp) = TcpStream::from_std(nap.end()) else { return };
                own = tcp;
                &own
            }
            #[cfg(not(target_os = "linux"))]
            Self::Own(_) => return,
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

//! A stream of this node for libraries that poll one and bring a buffer of their own for what is read.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;

use super::stream::Stream;

/// What is read from the socket at once: as much as a record of TLS has at most.
const CHUNK: usize = 16 << 10;

/// A stream and what was read from it and not yet taken.
pub(crate) struct Buffered {
    stream: Stream,
    input: BytesMut,
}

impl Buffered {
    pub(crate) fn new(stream: Stream) -> Self {
        Self { stream, input: BytesMut::new() }
    }

    /// The next bytes, at most `most`; none if the peer sends no more.
    pub(crate) fn poll_input(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<BytesMut>> {
        let Self { stream, input } = self;
        while input.is_empty() {
            input.reserve(CHUNK);
            match stream.try_read_buf(input) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(stream.poll_readable(cx))?,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
        Poll::Ready(Ok(input.split_to(input.len().min(most))))
    }

    /// Writes what fits of the bytes and says how many that were.
    pub(crate) fn poll_output(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_writing(cx, |stream| stream.try_write_vectored(&[IoSlice::new(bytes)]))
    }

    /// Brings what was written to the socket.
    pub(crate) fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_writing(cx, Stream::try_flush)
    }

    fn poll_writing<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&Stream) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            match write(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.stream.poll_writable(cx))?;
                }
                outcome => return Poll::Ready(outcome),
            }
        }
    }
}

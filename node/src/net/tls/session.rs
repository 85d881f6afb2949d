//! One TLS session over one socket: rustls' state behind a lock, fed and emptied without waiting.

use std::fmt;
use std::io::{self, BufRead, IoSlice, Write};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::{Buf, BytesMut};
use rustls::Connection;
use tokio::net::TcpStream;

use super::{TlsError, TlsInfo, error};

/// Encrypted bytes of one read: several records of 16 KiB.
const CIPHERTEXT: usize = 64 << 10;

/// One TLS session.
pub(crate) struct Session {
    state: Mutex<State>,
    /// Why it broke, in better words than an [`io::Error`] has.
    failure: OnceLock<TlsError>,
}

struct State {
    connection: Connection,
    /// Read from the socket and not yet given to rustls, which takes 4 KiB at a time.
    ciphertext: BytesMut,
    /// Whether the peer has sent anything.
    heard: bool,
}

impl Session {
    pub(super) fn new(connection: Connection) -> Self {
        let state = State { connection, ciphertext: BytesMut::new(), heard: false };
        Self { state: Mutex::new(state), failure: OnceLock::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // A panic inside rustls would leave a session that fails its next record, which ends the connection.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The TLS handshake, in either role.
    pub(super) async fn handshake(&self, tcp: &TcpStream) -> Result<(), TlsError> {
        loop {
            let flushed = self.state().flush(tcp);
            match flushed {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    tcp.writable().await.map_err(|_| TlsError::Closed)?;
                    continue;
                }
                Err(_) => return Err(self.state().closed()),
            }
            if !self.state().connection.is_handshaking() {
                return Ok(());
            }
            let progress = self.state().handshake_input(tcp);
            match progress {
                Ok(true) => {}
                Ok(false) => tcp.readable().await.map_err(|_| TlsError::Closed)?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Why a TLS handshake that has taken too long did so.
    pub(super) fn timed_out(&self) -> TlsError {
        if self.state().heard { TlsError::TimedOut } else { TlsError::NoAnswer }
    }

    /// Appends what has arrived and could be decrypted; 0 means that the peer has closed.
    pub(crate) fn try_read(&self, tcp: &TcpStream, buffer: &mut BytesMut) -> io::Result<usize> {
        self.state().try_read(tcp, buffer).map_err(|problem| match problem {
            Problem::Io(error) => error,
            Problem::Tls(error) => {
                // The first one counts: later ones follow from it.
                let _ = self.failure.set(error.clone());
                io::Error::new(io::ErrorKind::InvalidData, error)
            }
        })
    }

    /// Encrypts as much of `slices` as there is room for, many small ones into one record, and writes what the socket takes.
    pub(crate) fn try_write(&self, tcp: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.state();
        // As long as earlier records wait, later bytes stay in the queue, where what is urgent can overtake.
        state.flush(tcp)?;
        let written = state.connection.writer().write_vectored(slices)?;
        if written == 0 && slices.iter().any(|slice| !slice.is_empty()) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        match state.flush(tcp) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(written),
        }
    }

    /// Writes the records that wait.
    pub(crate) fn try_flush(&self, tcp: &TcpStream) -> io::Result<()> {
        self.state().flush(tcp)
    }

    /// Tells the peer that nothing more comes, if the socket takes it at once.
    pub(crate) fn close(&self, tcp: &TcpStream) {
        let mut state = self.state();
        state.connection.send_close_notify();
        // The connection ends here either way.
        let _ = state.flush(tcp);
    }

    /// Why the session broke, if it was about TLS: an alert of the peer, a record that cannot be decrypted.
    pub(crate) fn failure(&self) -> Option<TlsError> {
        self.failure.get().cloned()
    }

    /// What was agreed.
    pub(crate) fn info(&self) -> TlsInfo {
        let state = self.state();
        let version = match state.connection.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "tlsv1.3",
            _ => "tlsv1.2",
        };
        let suite = state.connection.negotiated_cipher_suite();
        TlsInfo {
            version,
            cipher_suite: suite.map(|suite| format!("{:?}", suite.suite())).unwrap_or_default(),
            peer_certificate: state.connection.peer_certificates().is_some(),
        }
    }

    /// The peer's own certificate, if it has sent one.
    pub(crate) fn peer_certificate(&self) -> Option<Vec<u8>> {
        self.state().connection.peer_certificates()?.first().map(|certificate| certificate.to_vec())
    }
}

/// Why bytes cannot be read.
enum Problem {
    Io(io::Error),
    Tls(TlsError),
}

impl State {
    /// Takes one read's worth of the peer's handshake; `false` if nothing is there.
    fn handshake_input(&mut self, tcp: &TcpStream) -> Result<bool, TlsError> {
        if self.ciphertext.is_empty() {
            match self.receive(tcp) {
                Ok(0) => return Err(self.closed()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(_) => return Err(self.closed()),
            }
        }
        if !self.heard && self.ciphertext.first().is_some_and(|first| !error::RECORD_TYPES.contains(first)) {
            return Err(TlsError::PlainPeer);
        }
        self.heard = true;
        self.decrypt(tcp).map_err(|problem| match problem {
            Problem::Io(_) => TlsError::Closed,
            Problem::Tls(error) => error,
        })?;
        Ok(true)
    }

    fn try_read(&mut self, tcp: &TcpStream, buffer: &mut BytesMut) -> Result<usize, Problem> {
        let mut read = 0;
        loop {
            loop {
                let mut reader = self.connection.reader();
                let length = match reader.fill_buf() {
                    Ok([]) => return Ok(read),
                    Ok(chunk) => {
                        buffer.extend_from_slice(chunk);
                        chunk.len()
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // Closed without a word. Frames have lengths: one that was cut off cannot be taken for a whole one.
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(read),
                    Err(error) => return Err(Problem::Io(error)),
                };
                reader.consume(length);
                read += length;
            }
            if self.ciphertext.is_empty() {
                if read > 0 {
                    return Ok(read);
                }
                self.receive(tcp).map_err(Problem::Io)?;
            }
            self.decrypt(tcp)?;
        }
    }

    fn receive(&mut self, tcp: &TcpStream) -> io::Result<usize> {
        self.ciphertext.reserve(CIPHERTEXT);
        let outcome = tcp.try_read_buf(&mut self.ciphertext);
        if outcome.is_err() {
            // An idle session holds no buffer.
            self.ciphertext = BytesMut::new();
        }
        outcome
    }

    /// Gives rustls a part of the ciphertext; without any, it learns that no more comes.
    fn decrypt(&mut self, tcp: &TcpStream) -> Result<(), Problem> {
        let taken = self.connection.read_tls(&mut &self.ciphertext[..]).map_err(Problem::Io)?;
        self.ciphertext.advance(taken);
        let processed = self.connection.process_new_packets();
        // An answer to a key update, or the alert that says what was wrong. What the socket does not take now leaves
        // before the next data.
        let _ = self.flush(tcp);
        processed.map(|_| ()).map_err(|error| Problem::Tls(error::from_rustls(error)))
    }

    fn flush(&mut self, tcp: &TcpStream) -> io::Result<()> {
        while self.connection.wants_write() {
            self.connection.write_tls(&mut Socket(tcp))?;
        }
        Ok(())
    }

    fn closed(&self) -> TlsError {
        if self.heard { TlsError::Closed } else { TlsError::NoAnswer }
    }
}

/// The writing half of a socket, as rustls wants it.
struct Socket<'a>(&'a TcpStream);

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("failure", &self.failure).finish_non_exhaustive()
    }
}

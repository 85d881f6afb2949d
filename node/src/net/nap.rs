//! Reading less often while a peer sends many small messages, each by a system call of its own, as a BEAM does.
//!
//! A reader that is faster than such a peer sleeps after every message, and the peer's next system call has to wake it: that is most
//! of what a message costs on either side. So when messages come in a stream, without anything that this side sends in
//! between, the socket is taken off the poll and read by the clock, every [`NAP`] or [`LONG_NAP`]. A message is later by that much at most,
//! and who waits for an answer is not kept waiting: an exchange is not a stream, and naps end when this side sends or when they bring little.

use std::io::{self, Read as _};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Time between two reads. Measured with a BEAM as sender, one processor each: with 50 µs a timer costs as much as the messages that it
/// brings, with 500 µs the sender has filled what there is room for before half of the naps are over.
const NAP: Duration = Duration::from_micros(200);

/// The same after a read that has brought less than [`LITTLE`]: a BEAM whose messages are packets of their own sends 220,000 a second, and to wake up on
/// a halted processor costs as much as to read 40 of them.
const LONG_NAP: Duration = Duration::from_micros(400);

/// What a BEAM sends in a [`NAP`] while it is faster than that.
const LITTLE: usize = 6 << 10;

/// After so many small reads in a row it is looked how long they took.
pub(super) const READS: u32 = 64;

/// What counts as a small read: some dozens of small messages.
pub(super) const SMALL: usize = 2 << 10;

/// A nap that brings less was not worth it: a dozen small messages.
pub(super) const WORTH: usize = 800;

/// A nap that brings more is too long: the peer might wait for room.
const MUCH: usize = 48 << 10;

/// So many such naps in a row, 2 ms, are the last for a while. A BEAM sends in bursts: while a process runs, its messages are queued, and
/// then all of them are sent, each by a system call.
const POOR: u8 = 10;

/// No naps for so long after that; twice as long after the next time, up to [`LONGEST`].
const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(2);

/// Whether so many bytes in that time are twice of what makes a nap worth it: 8 MB a second.
pub(super) fn is_a_stream(bytes: usize, time: Duration) -> bool {
    let naps = time.as_nanos() / NAP.as_nanos();
    bytes as u128 > 2 * WORTH as u128 * naps
}

/// When something that was not worth it is not tried again.
#[derive(Debug)]
pub(super) struct Pause {
    until: Option<Instant>,
    length: Duration,
}

impl Default for Pause {
    fn default() -> Self {
        Self { until: None, length: SHORTEST }
    }
}

impl Pause {
    /// A pause; longer than the one before, unless what has begun `since` has lasted: a stream that has lasted may come again.
    pub(super) fn begin(&mut self, since: Option<Instant>) {
        let now = Instant::now();
        let lasted = since.is_some_and(|since| now - since > self.length);
        self.length = if lasted { SHORTEST } else { (self.length * 2).min(LONGEST) };
        self.until = Some(now + self.length);
    }

    pub(super) fn is_over(&self, now: Instant) -> bool {
        self.until.is_none_or(|until| now >= until)
    }

    #[cfg(test)]
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }
}

/// Whether a nap would do.
#[derive(Debug, Default)]
pub(super) struct Drowsy {
    reads: u32,
    bytes: usize,
    since: Option<(Instant, u64)>,
    pause: Pause,
}

impl Drowsy {
    /// So many bytes were read, of so many that there was room for.
    pub(super) fn has_read(&mut self, bytes: usize, room: usize) {
        if bytes > 0 && bytes <= SMALL && bytes < room {
            self.reads += 1;
            self.bytes += bytes;
        } else {
            self.reads = 0;
            self.since = None;
        }
    }

    /// Whether to nap now. `sent` is what this side has sent so far.
    pub(super) fn should_nap(&mut self, sent: u64) -> bool {
        let Some((since, sent_then)) = self.since else {
            if self.reads > 0 {
                (self.reads, self.bytes) = (0, 0);
                self.since = Some((Instant::now(), sent));
            }
            return false;
        };
        if self.reads < READS {
            return false;
        }
        let now = Instant::now();
        let much = is_a_stream(self.bytes, now - since);
        let alone = sent == sent_then;
        (self.reads, self.bytes) = (0, 0);
        self.since = Some((now, sent));
        much && alone && self.pause.is_over(now)
    }

    /// Naps are over.
    pub(super) fn has_woken(&mut self, over: Over) {
        if over == Over::Poor {
            self.pause.begin(self.since.map(|(since, _)| since));
        }
        (self.reads, self.bytes) = (0, 0);
        self.since = None;
    }
}

/// Why a reader naps no longer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Over {
    /// Naps brought little, or too much.
    Poor,
    /// This side has sent something, and may wait for the answer.
    Sent,
}

/// A socket that is read by the clock.
#[derive(Debug)]
pub(super) struct Nap {
    tcp: TcpStream,
    timer: AsyncFd<OwnedFd>,
    asleep: bool,
    /// How long the next nap is.
    next: Duration,
    /// What this side had sent when the naps began.
    sent: u64,
    /// Naps in a row that were not worth it.
    poor: u8,
    /// Read into, so that memory of messages is only taken for what has come.
    memory: Box<[u8]>,
}

/// What ends a nap.
#[allow(
    deprecated,
    reason = "what tokio has against it is descriptors that change under it; this one is owned"
)]
pub(super) fn timer() -> io::Result<AsyncFd<OwnedFd>> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
    AsyncFd::with_interest(timer, Interest::READABLE)
}

impl Nap {
    /// With a socket that is on no poll and does not block.
    pub(super) fn new(tcp: TcpStream, timer: AsyncFd<OwnedFd>, sent: u64) -> Self {
        Self { tcp, timer, asleep: false, next: NAP, sent, poor: 0, memory: vec![0; 64 << 10].into() }
    }

    /// The socket, to be put on a poll again.
    pub(super) fn end(self) -> TcpStream {
        self.tcp
    }

    /// Why there are no more naps; `sent` is what this side has sent so far.
    pub(super) fn is_over(&self, sent: u64) -> Option<Over> {
        if self.poor >= POOR {
            return Some(Over::Poor);
        }
        (sent != self.sent).then_some(Over::Sent)
    }

    /// What has arrived in the meantime, `None` if nothing has; 0 means that the peer has closed.
    pub(super) fn poll_read(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<Option<usize>>> {
        if !self.asleep {
            let nap = Timespec { tv_sec: 0, tv_nsec: self.next.subsec_nanos().into() };
            let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: nap };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &once)?;
            self.asleep = true;
        }
        let mut over = ready!(self.timer.poll_read_ready(context))?;
        // Set again, the timer is not ready until it expires; so it need not be read.
        over.clear_ready();
        self.asleep = false;
        let read = match self.tcp.read(&mut self.memory) {
            Ok(read) => Some(read),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => return Poll::Ready(Err(error)),
        };
        buffer.extend_from_slice(self.memory.get(..read.unwrap_or_default()).unwrap_or_default());
        self.next = if read.is_some_and(|read| read < LITTLE) { LONG_NAP } else { NAP };
        let worth = read.is_some_and(|read| (WORTH..=MUCH).contains(&read));
        self.poor = if worth { 0 } else { self.poor.saturating_add(1) };
        Poll::Ready(Ok(read))
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write as _;
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_stream_makes_drowsy_and_an_exchange_does_not() {
        let mut drowsy = Drowsy::default();
        let naps = (0..1000).any(|_| {
            drowsy.has_read(40, 1000);
            drowsy.should_nap(0)
        });
        assert!(naps, "small reads at once after another");
        drowsy.has_woken(Over::Poor);
        let until = drowsy.pause.until().unwrap();
        while Instant::now() < until {
            drowsy.has_read(40, 1000);
            assert!(!drowsy.should_nap(0) || Instant::now() >= until, "a pause follows");
        }
        let mut drowsy = Drowsy::default();
        for sent in 0..1000 {
            drowsy.has_read(40, 1000);
            assert!(!drowsy.should_nap(sent), "this side sends as well");
        }
        let mut drowsy = Drowsy::default();
        for _ in 0..1000 {
            drowsy.has_read(SMALL + 1, 1 << 20);
            assert!(!drowsy.should_nap(0), "large reads are as good as naps");
        }
    }

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (far, _) = listener.accept().unwrap();
        near.set_nonblocking(true).unwrap();
        (near, far)
    }

    #[tokio::test]
    async fn a_nap_brings_everything_and_ends_when_it_brings_nothing() {
        let (near, mut far) = pair();
        let mut nap = Nap::new(near, timer().unwrap(), 0);
        let mut got = BytesMut::new();
        let mut sent = Vec::new();
        for round in 0..20_u8 {
            let part = vec![round; 1000];
            far.write_all(&part).unwrap();
            sent.extend_from_slice(&part);
            while got.len() < sent.len() {
                let read = poll_fn(|context| nap.poll_read(context, &mut got)).await.unwrap();
                assert_ne!(read, Some(0));
            }
        }
        assert_eq!(got, sent);
        assert_eq!(nap.is_over(0), None);
        assert_eq!(nap.is_over(1), Some(Over::Sent));
        for _ in 0..POOR {
            assert_eq!(poll_fn(|context| nap.poll_read(context, &mut got)).await.unwrap(), None);
        }
        assert_eq!(nap.is_over(0), Some(Over::Poor));
        drop(far);
        assert_eq!(
            poll_fn(|context| nap.poll_read(context, &mut got)).await.unwrap(),
            Some(0),
            "the peer has closed"
        );
    }
}

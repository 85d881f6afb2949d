//! Letting a peer on the same processor go on before what it sends is read.
//!
//! A BEAM sends each small message by a system call of its own, and the first of them wakes the reader. If both share a processor, the
//! reader takes it from the sender there and then, for that one message: changing between the two is most of what the message costs on
//! either side. So while messages come in a stream, without anything that this side sends in between, a reader that was woken lets
//! whoever waits for the processor run first (`sched_yield`), and finds what that has sent meanwhile. A sender on another processor
//! does not wait for this one: the reader goes on at once, finds little, and stops asking.

use std::time::{Duration, Instant};

use super::nap::{Pause, READS, SMALL, WORTH, is_a_stream};

/// Of [`READS`] reads so many are small when a stream begins. Not all: the sender now and then has its turn to the end.
const MOST: u32 = READS / 4 * 3;

/// So many times in a row that were not worth it are the last for a while.
const POOR: u8 = 10;

/// Who is away for longer gave way to others too, and keeps more than this connection waiting. Linux gives a thread 3 ms at a time.
const LONG: Duration = Duration::from_millis(5);

/// Whether to give way before a read.
#[derive(Debug, Default)]
pub(super) struct GiveWay {
    reads: u32,
    small: u32,
    bytes: usize,
    since: Option<(Instant, u64)>,
    gives: bool,
    poor: u8,
    pause: Pause,
}

impl GiveWay {
    /// Whether to give way before the next read, as this one was woken for it. `sent` is what this side has sent so far.
    pub(super) fn should(&mut self, sent: u64) -> bool {
        if self.gives && self.since.is_none_or(|(_, then)| then != sent) {
            self.gives = false;
            self.since = None;
        }
        self.gives
    }

    /// So many bytes were read. `away` is how long it gave way for them, if it did.
    pub(super) fn has_read(&mut self, bytes: usize, away: Option<Duration>, sent: u64) {
        match away {
            Some(away) => self.has_given(bytes, away),
            None if self.gives => {}
            None => self.looks(bytes, sent),
        }
    }

    fn has_given(&mut self, bytes: usize, away: Duration) {
        let worth = bytes >= WORTH && away <= LONG;
        self.poor = if worth { 0 } else { self.poor + 1 };
        if self.poor >= POOR {
            self.gives = false;
            self.pause.begin(self.since.take().map(|(since, _)| since));
        }
    }

    /// Whether this is a stream of small messages.
    fn looks(&mut self, bytes: usize, sent: u64) {
        self.reads += 1;
        self.small += u32::from(bytes <= SMALL);
        self.bytes += bytes;
        if self.reads < READS && self.since.is_some() {
            return;
        }
        let now = Instant::now();
        if let Some((since, then)) = self.since {
            let stream = self.small >= MOST && is_a_stream(self.bytes, now - since);
            self.gives = stream && then == sent && self.pause.is_over(now);
            self.poor = 0;
        }
        (self.reads, self.small, self.bytes) = (0, 0, 0);
        self.since = Some((now, sent));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Option<Duration> = Some(Duration::from_micros(500));

    fn giving() -> GiveWay {
        let mut way = GiveWay::default();
        // Not at the first sight if the machine is busy.
        let gives = (0..1000 * READS).any(|_| {
            way.has_read(40, None, 0);
            way.should(0)
        });
        assert!(gives, "small reads at once after another");
        way
    }

    #[test]
    fn a_stream_is_let_go_on_and_an_exchange_is_not() {
        giving();
        let mut way = GiveWay::default();
        for sent in 0..1000 {
            way.has_read(40, None, sent);
            assert!(!way.should(sent), "this side sends as well");
        }
        let mut way = GiveWay::default();
        for _ in 0..1000 {
            way.has_read(SMALL + 1, None, 0);
            assert!(!way.should(0), "who sends much at a time needs no time");
        }
        let mut way = giving();
        assert!(!way.should(1), "this side has sent something, and may wait for the answer");
        assert!(!way.should(1));
    }

    #[test]
    fn it_ends_when_it_brings_little_or_takes_long() {
        let ends = |bytes, away| {
            let mut way = giving();
            for _ in 0..1000 {
                way.has_read(WORTH, SOON, 0);
                way.has_read(1, None, 0);
            }
            assert!(way.should(0), "what was read without counts neither way");
            (1..POOR).for_each(|_| way.has_read(bytes, Some(away), 0));
            assert!(way.should(0));
            way.has_read(bytes, Some(away), 0);
            assert!(!way.should(0));
            let until = way.pause.until().unwrap();
            while Instant::now() < until {
                way.has_read(40, None, 0);
                assert!(!way.should(0) || Instant::now() >= until, "a pause follows");
            }
        };
        ends(WORTH - 1, Duration::from_micros(1));
        ends(WORTH, LONG + Duration::from_micros(1));
    }
}

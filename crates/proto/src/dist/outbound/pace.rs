use core::time::Duration;
use std::collections::VecDeque;

use super::FRAGMENT;
use crate::Mono;
use crate::dist::ControlMessage;

/// How much bulk data may be on its way to the peer.
///
/// What the kernel has taken stands in front of every later message, and it takes megabytes: those of its send buffer and
/// those of the peer's receive buffer. So only a window of large data is on its way. How much of it the peer has read is
/// asked within the stream itself: every so often a MONITOR_P for a name that
/// nobody has follows the data, and the peer answers it with MONITOR_P_EXIT as soon as it comes to it, because the signals of a connection
/// are taken in order. Every node since OTP 23 answers in this way, and nothing of the request stays behind.
///
/// The window is what is on its way while the peer is never idle, and little more: it follows the time of a round trip as TCP
/// Vegas does (Brakmo and Peterson, 1995). Data beyond the product of rate and shortest round trip waits in a queue
/// somewhere, and that queue is kept between two bounds: those of [`BESIDE_SMALL`] while small messages travel beside large ones, else
/// those of [`ALONE`]; on long paths, between the eighth and the third part of what is on its way.
///
/// A peer that takes long for a fragment, such as a BEAM over TLS, gets shorter ones while small messages travel beside large ones:
/// what is in front of a small message is then a matter of time, not of bytes.
///
/// A message of up to [`LONGEST_WHOLE`] is not cut for a peer that is known to be quick where nothing small travels, or where small and
/// large messages follow each other as in an exchange: what is cut is put together again by a copy, and a BEAM allocates for each piece.
///
/// A peer that leaves a probe unanswered is not paced until it has answered all of them.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// What is sent to be answered; `None` if this peer is not paced.
    probe: Option<ControlMessage>,
    /// Probes that were not answered yet, in their order.
    open: VecDeque<Probe>,
    /// Bytes of large messages that were written.
    sent: u64,
    /// Of these, the ones in front of the last probe that was answered.
    arrived: u64,
    /// `sent` at the last probe.
    probed: u64,
    window: u64,
    shortest: Option<Shortest>,
    /// The window has met its bound, and grows slowly from now on.
    settled: bool,
    pull: Pull,
    /// What the last answer said that the peer takes at least: so many bytes in this time.
    took: (u64, Duration),
    /// The length of a fragment at the last answer.
    fragment: u64,
    /// A probe was left unanswered for too long.
    silent: bool,
    /// While `sent` is below this, small messages are about.
    beside_small: u64,
    /// The same of small messages that had large ones in front of them when they came.
    behind_large: u64,
}

#[derive(Debug)]
struct Probe {
    /// `sent` when it was written, and how much was on its way then.
    sent: u64,
    on_its_way: u64,
    at: Mono,
}

/// The shortest round trip lately.
#[derive(Clone, Copy, Debug)]
struct Shortest {
    time: Duration,
    seen: Mono,
}

/// How fast the peer takes what waits for it: bytes and the time between answers, each worth less with every later one.
#[derive(Clone, Copy, Debug, Default)]
struct Pull {
    bytes: u64,
    time: Duration,
    /// When the last answer came.
    last: Option<Mono>,
}

impl Pull {
    /// Another answer, `round_trip` after it was asked for; `bytes` are those since the one before.
    fn answered(&mut self, bytes: u64, round_trip: Duration, now: Mono) {
        let Some(last) = self.last.replace(now) else { return };
        let time = now.saturating_since(last);
        // A longer pause is one of the path, or of this side, in which the peer had nothing to take.
        if time <= round_trip / 2 {
            self.bytes = self.bytes - self.bytes / 16 + bytes;
            self.time = self.time - self.time / 16 + time;
        }
    }

    /// What it takes within this time; `None` if that is not known.
    fn within(&self, time: Duration) -> Option<u64> {
        within(time, (self.bytes, self.time))
    }
}

/// What is taken within a time by who takes so many bytes in another one; `None` if that is not known.
fn within(time: Duration, (bytes, known): (u64, Duration)) -> Option<u64> {
    let known = known.as_nanos();
    (known > 0).then(|| u64::try_from(u128::from(bytes) * time.as_nanos() / known).unwrap_or(u64::MAX))
}

/// How a large message goes on the wire.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cut {
    /// The bytes of a fragment.
    pub(super) fragment: usize,
    /// A message of so many bytes is not cut.
    pub(super) whole: usize,
}

/// What is aimed at.
#[derive(Clone, Copy, Debug)]
struct Aim {
    /// No queue makes it smaller.
    window: u64,
    /// Bounds of what should wait in a queue.
    least: u64,
    most: u64,
}

/// Three fragments at least: one that the peer reads, one that waits for it, and one on its way. At the rate at which a BEAM takes
/// fragments, 1 GB/s, the queue is 64 to 192 µs long.
const BESIDE_SMALL: Aim = Aim { window: 3 << 16, least: 1 << 16, most: 3 << 16 };

/// Beside small messages, a fragment is no longer than what the peer takes in this time, as far as the next bounds allow.
const FRAGMENT_TIME: Duration = Duration::from_micros(150);

/// Shorter ones take longer: this is what a record of TLS holds, and 8 KiB halved the rate towards a BEAM.
const SHORTEST_FRAGMENT: u64 = 16 << 10;

/// Without small messages, a message is not cut if the peer takes it in this time. The first small message waits for so much more than
/// for what [`ALONE`] lets be on its way; and it is far less than the time of a tick, as a BEAM counts a frame as a sign of life when it
/// is whole.
const WHOLE_TIME: Duration = Duration::from_millis(1);

/// Longer messages are cut: without it there would be nothing that a small message could go between. 1.25 MiB: 1 MiB and what it is
/// wrapped in.
const LONGEST_WHOLE: u64 = 5 << 18;

/// Enough for both sides to work without waiting for each other, with few answers; and little enough that the first small message is
/// late by milliseconds, not by what the buffers of both kernels take.
const ALONE: Aim = Aim { window: 16 << 20, least: 4 << 20, most: 12 << 20 };

impl Aim {
    /// What is aimed at beside small messages, with fragments of this length.
    fn beside_small(fragment: u64) -> Self {
        if fragment >= FRAGMENT as u64 {
            return BESIDE_SMALL;
        }
        // One more than of whole ones, so that half as many probes are enough.
        Self { window: 4 * fragment, least: fragment, most: 4 * fragment }
    }
}

/// How many probes follow one another within a window.
const PROBES: u64 = 4;

/// A peer that owes so many answers gets no further probe.
const MOST_OPEN: usize = 64;

/// A small message counts for so many bytes of large ones after it: long enough that an exchange of requests and answers is one.
const BESIDE: u64 = 64 << 20;

/// How long a shortest round trip is believed: paths change.
const BELIEVED: Duration = Duration::from_secs(10);

/// An answer that has not come for so long is not waited for.
const PATIENCE: Duration = Duration::from_secs(5);

impl Pace {
    /// Paces large messages by this probe.
    pub(super) fn start(&mut self, probe: ControlMessage) {
        self.probe = Some(probe);
        self.window = BESIDE_SMALL.window;
    }

    /// What is to be written when [`Self::wrote`] says so.
    pub(super) fn probe(&self) -> Option<&ControlMessage> {
        self.probe.as_ref()
    }

    /// A small message was accepted, while others waited or not.
    #[inline]
    pub(super) fn small(&mut self, others_wait: bool) {
        self.beside_small = self.sent.saturating_add(BESIDE);
        if others_wait || self.on_its_way() > 0 {
            self.behind_large = self.beside_small;
        }
    }

    fn aim(&self) -> Aim {
        if self.is_beside_small() { Aim::beside_small(self.fragment() as u64) } else { ALONE }
    }

    fn is_beside_small(&self) -> bool {
        self.sent < self.beside_small
    }

    /// How large messages are cut now.
    pub(super) fn cut(&self) -> Cut {
        let fragment = self.fragment();
        let whole = if self.leaves_whole() {
            let bytes = self.pull.within(WHOLE_TIME).max(within(WHOLE_TIME, self.took));
            bytes.map_or(0, |bytes| bytes.min(LONGEST_WHOLE) as usize)
        } else {
            0
        };
        // What is hardly longer than a fragment, such as 64 KiB and their tuple, is not worth two.
        Cut { fragment, whole: whole.max(fragment + fragment / 4) }
    }

    fn leaves_whole(&self) -> bool {
        let exchange = self.on_its_way() == 0;
        let nothing_small = self.sent >= self.behind_large && (exchange || !self.is_beside_small());
        self.probe.is_some() && !self.silent && nothing_small
    }

    /// How much of a message a fragment has.
    fn fragment(&self) -> usize {
        if self.probe.is_none() || !self.is_beside_small() {
            return FRAGMENT;
        }
        let bytes = self.pull.within(FRAGMENT_TIME).map_or(FRAGMENT as u64, |bytes| {
            // Not another length with each answer.
            let power = bytes.checked_ilog2().map_or(0, |log| 1 << log);
            power.clamp(SHORTEST_FRAGMENT, FRAGMENT as u64)
        });
        bytes as usize
    }

    /// Whether another part of a large message may be written now.
    pub(super) fn has_room(&self) -> bool {
        self.probe.is_none() || self.silent || self.on_its_way() < self.window
    }

    fn on_its_way(&self) -> u64 {
        self.sent.saturating_sub(self.arrived)
    }

    /// Part of a large message was written; true if a probe has to follow it.
    pub(super) fn wrote(&mut self, bytes: usize, now: Mono) -> bool {
        self.sent = self.sent.saturating_add(bytes as u64);
        self.sent - self.probed >= self.spacing() && self.probes(now)
    }

    /// Nothing large may be written now; true if a probe has to be, because no answer is on its way.
    pub(super) fn waits(&mut self, now: Mono) -> bool {
        self.open.is_empty() && !self.has_room() && self.probes(now)
    }

    /// The bytes between two probes.
    fn spacing(&self) -> u64 {
        let fragment = self.fragment();
        // An answer costs the peer as much as a short fragment.
        (self.window / PROBES).max(if fragment < FRAGMENT { 2 * fragment } else { fragment } as u64)
    }

    fn probes(&mut self, now: Mono) -> bool {
        if self.probe.is_none() || self.silent || self.open.len() >= MOST_OPEN {
            return false;
        }
        self.probed = self.sent;
        self.open.push_back(Probe { sent: self.sent, on_its_way: self.on_its_way(), at: now });
        true
    }

    /// The peer has answered the first open probe.
    pub(super) fn answered(&mut self, now: Mono) {
        let Some(probe) = self.open.pop_front() else { return };
        let time = now.saturating_since(probe.at);
        self.pull.answered(probe.sent.saturating_sub(self.arrived), time, now);
        self.arrived = probe.sent;
        // Whatever else this time was spent with.
        self.took = (probe.on_its_way, time);
        self.silent &= !self.open.is_empty();
        let (aim, fragment) = (self.aim(), self.fragment() as u64);
        if fragment < core::mem::replace(&mut self.fragment, fragment) {
            // The round trips so far were those behind longer ones.
            (self.window, self.shortest) = (aim.window, None);
        }
        let shortest = match self.shortest {
            Some(shortest) if shortest.time <= time && now.saturating_since(shortest.seen) < BELIEVED => {
                shortest
            }
            Some(shortest) if shortest.time <= time => {
                // Seen anew with little on its way.
                self.window = Aim::beside_small(fragment).window;
                Shortest { time, seen: now }
            }
            _ => Shortest { time, seen: now },
        };
        self.shortest = Some(shortest);
        let (over, whole) = ((time - shortest.time).as_nanos(), time.as_nanos().max(1));
        let queue = (u128::from(probe.on_its_way) * over / whole) as u64;
        // A long path has room for more, and its times vary more with bursts.
        let most = aim.most.max(probe.on_its_way / 3);
        if queue > most {
            self.settled = true;
            let less = if queue > 2 * most { self.spacing() } else { self.spacing() / 4 };
            self.window = self.window.saturating_sub(less).max(aim.window);
        } else if self.window < aim.window {
            self.window += self.spacing();
        } else if queue < aim.least.max(probe.on_its_way / 8)
            && probe.on_its_way + 2 * self.spacing() >= self.window
        {
            // Twice as much with every round trip until it is enough.
            self.window += if self.settled { self.spacing() / 8 } else { self.spacing() };
        }
    }

    /// Looks whether the peer has left a probe unanswered for too long.
    pub(super) fn handle_timeout(&mut self, now: Mono) {
        self.silent |= self.open.front().is_some_and(|probe| now.saturating_since(probe.at) >= PATIENCE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dist::Target;
    use crate::etf::{Atom, Pid, Reference};

    const FRAGMENT_BYTES: u64 = FRAGMENT as u64;

    fn paced() -> Pace {
        let node = Atom::new_static("us@host");
        let mut pace = Pace::default();
        pace.start(ControlMessage::MonitorP {
            watcher: Pid { node: node.clone(), id: 1, serial: 0, creation: 1 },
            target: Target::Name(Atom::new_static("nobody")),
            reference: Reference::new(node, 1, &[1, 2, 3]).unwrap(),
        });
        pace
    }

    fn at(micros: u64) -> Mono {
        Mono::ZERO + Duration::from_micros(micros)
    }

    /// Bulk data through a path that delivers [`FRAGMENT`] bytes every `service` µs, one after the other, and answers `delay` µs after that.
    /// Returns the bytes on the way at the end, and the bytes that were written.
    fn through_a_path(
        pace: &mut Pace,
        from: u64,
        until: u64,
        (service, delay): (u64, u64),
        small: bool,
    ) -> (u64, u64) {
        let (mut now, mut free, mut answers) = (from, from, VecDeque::new());
        let before = pace.sent;
        while now < until {
            if small {
                pace.small(true);
            }
            while pace.has_room() {
                let bytes = pace.fragment();
                free = free.max(now) + (service * bytes as u64).div_ceil(FRAGMENT_BYTES);
                if pace.wrote(bytes, at(now)) {
                    answers.push_back(free + delay);
                }
            }
            now += 1;
            while answers.front().is_some_and(|time| *time <= now) {
                answers.pop_front();
                pace.answered(at(now));
            }
        }
        let on_its_way = pace.on_its_way();
        for time in answers {
            pace.answered(at(time));
        }
        (on_its_way, pace.sent - before)
    }

    #[test]
    fn a_peer_that_does_not_answer_is_not_paced_for_long() {
        let mut pace = paced();
        let mut written = 0;
        while pace.has_room() {
            pace.wrote(FRAGMENT, at(0));
            written += FRAGMENT_BYTES;
        }
        assert_eq!(written, BESIDE_SMALL.window);
        pace.handle_timeout(at(4_999_999));
        assert!(!pace.has_room());
        pace.handle_timeout(at(5_000_000));
        assert!(pace.has_room());
        assert!(!pace.wrote(64 << 20, at(5_000_000)));
        while !pace.open.is_empty() {
            assert!(pace.has_room());
            pace.answered(at(9_000_000));
        }
        assert!(!pace.has_room(), "it answers again");
        assert!(pace.waits(at(9_000_000)));
    }

    #[test]
    fn alone_there_is_more_on_its_way_than_beside_small_messages() {
        let mut pace = paced();
        let (alone, written_alone) = through_a_path(&mut pace, 0, 1_000_000, (60, 40), false);
        let (beside, written_beside) = through_a_path(&mut pace, 1_000_000, 2_000_000, (60, 40), true);
        assert!(alone <= ALONE.window + ALONE.most && alone > 2 * beside, "{alone} and {beside}");
        let possible = 1_000_000 / 60 * FRAGMENT_BYTES;
        assert!(written_alone * 100 >= possible * 97, "{written_alone} of {possible}");
        assert!(written_beside * 100 >= possible * 95, "{written_beside} of {possible}");
    }

    #[test]
    fn what_is_on_its_way_is_what_the_path_takes_and_little_more() {
        // Microseconds for a fragment and back: a BEAM on this machine, one that is slow, another data centre.
        for (service, delay) in [(60, 40), (600, 40), (30, 20_000)] {
            let mut pace = paced();
            let (on_its_way, written) = through_a_path(&mut pace, 0, 3_000_000, (service, delay), true);
            let product = (delay + service).div_ceil(service) * FRAGMENT_BYTES;
            let most = product * 3 / 2 + BESIDE_SMALL.most + BESIDE_SMALL.window;
            assert!(on_its_way <= most, "{on_its_way} for {service}, {delay}");
            let possible = 3_000_000 / service * FRAGMENT_BYTES;
            assert!(written * 10 >= possible * 7, "{written} of {possible} for {service}, {delay}");
        }
    }

    #[test]
    fn a_slow_peer_gets_shorter_fragments_while_small_messages_are_about() {
        // 94 MB/s, as a BEAM over TLS.
        let (service, delay) = (700, 100);
        let mut pace = paced();
        let (on_its_way, written) = through_a_path(&mut pace, 0, 3_000_000, (service, delay), true);
        assert_eq!(pace.fragment(), 16 << 10);
        // Less than 1.4 ms, where three whole fragments are 2.1.
        assert!(on_its_way <= 128 << 10, "{on_its_way}");
        let possible = 3_000_000 / service * FRAGMENT_BYTES;
        assert!(written * 100 >= possible * 95, "{written} of {possible}");
        // Alone, and from a peer that has become fast, fragments are whole again.
        let (_, _) = through_a_path(&mut pace, 3_000_000, 4_000_000, (service, delay), false);
        assert_eq!(pace.fragment(), FRAGMENT);
        let (_, _) = through_a_path(&mut pace, 4_000_000, 5_000_000, (60, 40), true);
        assert_eq!(pace.fragment(), FRAGMENT);
    }

    #[test]
    fn a_quick_peer_gets_messages_whole_while_nothing_small_travels() {
        let hardly_cut = FRAGMENT + FRAGMENT / 4;
        let mut pace = paced();
        assert_eq!(pace.cut().whole, hardly_cut, "nothing is known of it");
        let (_, _) = through_a_path(&mut pace, 0, 100_000, (60, 40), false);
        assert_eq!(pace.cut().whole as u64, 1_000 * FRAGMENT_BYTES / 60);
        // A small one that a large one may be in front of says that others will be.
        pace.wrote(FRAGMENT, at(100_000));
        pace.small(false);
        assert_eq!(pace.cut().whole, hardly_cut);
        let (_, _) = through_a_path(&mut pace, 100_000, 200_000, (60, 40), false);
        assert!(pace.sent > pace.behind_large, "{} bytes are no longer beside it", pace.sent);
        assert_eq!(pace.cut().whole as u64, 1_000 * FRAGMENT_BYTES / 60);

        // One that has nothing in front of it is part of an exchange, in which nothing waits while it is whole.
        let mut exchange = paced();
        exchange.small(false);
        assert!(exchange.wrote(FRAGMENT, at(0)));
        exchange.answered(at(60));
        assert_eq!(exchange.cut().whole as u64, 1_000 * FRAGMENT_BYTES / 60);
        exchange.wrote(FRAGMENT, at(100));
        assert_eq!(exchange.cut().whole, hardly_cut, "that one is not answered yet");

        // 7 MB/s: a whole message of 1 MiB would take 150 ms.
        let mut slow = paced();
        let (_, _) = through_a_path(&mut slow, 0, 3_000_000, (9_000, 100), false);
        assert_eq!(slow.cut().whole, hardly_cut);
        // A peer that has stopped to answer may not take anything.
        let mut silent = paced();
        assert!(silent.wrote(FRAGMENT, at(0)));
        silent.answered(at(60));
        assert!(silent.wrote(FRAGMENT, at(100)));
        silent.handle_timeout(at(6_000_000));
        assert_eq!(silent.cut().whole, hardly_cut);
    }

    /// Small messages come when much more than a window is on its way and every probe was answered.
    #[test]
    fn nothing_waits_for_an_answer_that_nobody_has_asked_for() {
        let mut pace = paced();
        pace.window = 32 << 20;
        let mut open = 0;
        for _ in 0..(32 << 20) / FRAGMENT - 1 {
            open += usize::from(pace.wrote(FRAGMENT, at(0)));
        }
        for _ in 0..open {
            pace.answered(at(50));
        }
        pace.small(true);
        pace.window = 0;
        assert!(!pace.has_room());
        assert!(pace.waits(at(70)));
        assert!(!pace.waits(at(80)), "one is enough");
        pace.answered(at(90));
        assert!(pace.has_room());
    }

    #[test]
    fn a_longer_path_is_learnt() {
        let mut pace = paced();
        let _ = through_a_path(&mut pace, 1_000_000, 2_000_000, (60, 40), true);
        let (_, written) = through_a_path(&mut pace, 2_000_000, 32_000_000, (60, 5_000), true);
        let possible = 30_000_000 / 60 * FRAGMENT_BYTES;
        assert!(written * 2 >= possible, "{written} of {possible}");
    }

    #[test]
    fn an_answer_to_nothing_changes_nothing() {
        let mut pace = paced();
        pace.answered(at(1));
        assert!(pace.has_room());
    }
}

use std::collections::{BTreeMap, VecDeque};

use super::FRAGMENT;
use crate::dist::{ControlMessage, Lane, LaneClass};
use crate::etf::RawTerm;

/// Signals that wait for their place on the wire: one queue per sender, and who goes next.
///
/// Senders stand in the ring of the level that their first signal belongs to. A higher level goes first, except that a level
/// that was passed over for [its share](SHARES) of bytes gets one turn. Within a level senders take turns.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// Where in `queues` the signals of a sender wait. Empty queues have no sender.
    senders: BTreeMap<u64, usize>,
    queues: Vec<Queue>,
    free: Vec<usize>,
    rings: [VecDeque<usize>; LEVELS],
    passed_over: [usize; LEVELS],
    bytes: Bytes,
}

/// The bytes of the signals in a schedule.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bytes {
    pub(super) all: usize,
    /// Those of small signals.
    pub(super) small: usize,
    /// Those of signals that are [`exempt`](Item::exempt).
    pub(super) exempt: usize,
}

/// Small signals of class Control; small signals of class Normal; large signals of both; everything of class Bulk.
const LEVELS: usize = 4;

/// The first of the levels whose signals are large, or may wait like those.
const LARGE: usize = 2;

/// After how many bytes of higher levels a level gets a turn: so that none starves, and small signals still hardly wait.
const SHARES: [usize; LEVELS] = [0, 256 << 10, 64 << 10, 512 << 10];

#[derive(Debug, Default)]
struct Queue {
    sender: u64,
    items: VecDeque<Item>,
    bytes: usize,
}

/// One signal.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) control: ControlMessage,
    pub(super) payload: Option<RawTerm>,
    pub(super) token: Option<Box<RawTerm>>,
    pub(super) size: Size,
    pub(super) class: LaneClass,
    /// A large signal whose sender had waited for its turn: it does not count against the limit for those that cannot.
    pub(super) exempt: bool,
    /// Set once the first fragment is on the wire.
    pub(super) fragments: Option<Fragments>,
}

/// Whether a signal is worth cutting into fragments.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Size {
    Small,
    Large,
}

impl Size {
    /// By the bytes of the payload.
    pub(super) fn of(payload_bytes: usize) -> Self {
        if payload_bytes < FRAGMENT { Self::Small } else { Self::Large }
    }
}

/// What came of a [`Schedule::turn`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Turn {
    /// There was nobody to have one.
    Nobodys,
    /// A small signal was written.
    Ordinary,
    /// So many bytes of a large signal, or of one that stands back like a large one, were written.
    Large(usize),
}

/// A sequence of fragments that has been begun.
#[derive(Debug)]
pub(super) struct Fragments {
    pub(super) sequence: u64,
    /// The number of the next fragment; the last is 1.
    pub(super) next: u64,
    /// The bytes of each but the last. Their number was said with the first, so it stays as it is.
    pub(super) size: usize,
    /// What is left of the payload, as it goes on the wire.
    pub(super) rest: bytes::Bytes,
}

impl Item {
    fn level(&self) -> usize {
        match (self.class, self.size) {
            (LaneClass::Control, Size::Small) => 0,
            (LaneClass::Normal, Size::Small) => 1,
            (LaneClass::Control | LaneClass::Normal, Size::Large) => 2,
            (LaneClass::Bulk, _) => 3,
        }
    }

    /// What it counts for against the limits.
    fn bytes(&self) -> usize {
        let payload = match &self.fragments {
            Some(fragments) => fragments.rest.len(),
            None => self.payload.as_ref().map_or(0, |payload| payload.as_bytes().len()),
        };
        size_of::<Self>() + payload
    }
}

impl Bytes {
    fn add(&mut self, item: &Item, bytes: usize) {
        self.all += bytes;
        self.small += if item.size == Size::Small { bytes } else { 0 };
        self.exempt += if item.exempt { bytes } else { 0 };
    }

    fn remove(&mut self, item: &Item, bytes: usize) {
        self.all -= bytes;
        self.small -= if item.size == Size::Small { bytes } else { 0 };
        self.exempt -= if item.exempt { bytes } else { 0 };
    }
}

impl Schedule {
    pub(super) fn is_empty(&self) -> bool {
        self.senders.is_empty()
    }

    /// The bytes of all signals in here.
    pub(super) fn bytes(&self) -> Bytes {
        self.bytes
    }

    /// The bytes of the signals of one sender.
    pub(super) fn bytes_of(&self, sender: u64) -> usize {
        self.senders.get(&sender).and_then(|at| self.queues.get(*at)).map_or(0, |queue| queue.bytes)
    }

    /// Whether a small signal of this lane has to wait for others: of its sender, or as urgent as itself.
    pub(super) fn has_before(&self, lane: Lane) -> bool {
        let own = match lane.class {
            LaneClass::Control => 0,
            LaneClass::Normal => 1,
            LaneClass::Bulk => 3,
        };
        self.rings.iter().take(own + 1).any(|ring| !ring.is_empty())
            || self.senders.contains_key(&lane.sender)
    }

    /// Puts a signal behind the others of its sender.
    pub(super) fn push(&mut self, sender: u64, item: Item) {
        let (bytes, level) = (item.bytes(), item.level());
        self.bytes.add(&item, bytes);
        if let Some(queue) = self.senders.get(&sender).and_then(|at| self.queues.get_mut(*at)) {
            queue.bytes += bytes;
            queue.items.push_back(item);
            return;
        }
        let at = self.free.pop().unwrap_or_else(|| {
            self.queues.push(Queue::default());
            self.queues.len() - 1
        });
        if let Some(queue) = self.queues.get_mut(at) {
            queue.sender = sender;
            queue.bytes = bytes;
            queue.items.push_back(item);
        }
        self.senders.insert(sender, at);
        if let Some(ring) = self.rings.get_mut(level) {
            ring.push_back(at);
        }
    }

    /// Gives the next sender its turn. `write` puts its first signal, or one fragment of it, on the wire; it returns how many
    /// bytes that were, and whether the signal is complete. Unless `large`, only senders with small signals have turns.
    pub(super) fn turn(&mut self, large: bool, write: impl FnOnce(&mut Item) -> (usize, bool)) -> Turn {
        let levels = if large { LEVELS } else { LARGE };
        let overdue = (1..levels).rev().find(|level| {
            let share = SHARES.get(*level).copied().unwrap_or_default();
            self.waiting_at(*level) && self.passed_over.get(*level).is_some_and(|bytes| *bytes >= share)
        });
        let Some(level) = overdue.or_else(|| (0..levels).find(|level| self.waiting_at(*level))) else {
            return Turn::Nobodys;
        };
        let Some(at) = self.rings.get_mut(level).and_then(VecDeque::pop_front) else { return Turn::Nobodys };
        let Some(queue) = self.queues.get_mut(at) else { return Turn::Nobodys };
        let Some(item) = queue.items.front_mut() else { return Turn::Nobodys };

        let before = item.bytes();
        let (written, complete) = write(item);
        let done = before - if complete { 0 } else { item.bytes() };
        self.bytes.remove(item, done);
        queue.bytes -= done;
        if complete {
            queue.items.pop_front();
        }

        match queue.items.front().map(Item::level) {
            Some(next) => {
                if let Some(ring) = self.rings.get_mut(next) {
                    ring.push_back(at);
                }
            }
            None => {
                self.senders.remove(&queue.sender);
                if queue.items.capacity() > 64 {
                    queue.items = VecDeque::new();
                }
                self.free.push(at);
            }
        }
        for (lower, passed) in self.passed_over.iter_mut().enumerate().skip(level) {
            let waits = self.rings.get(lower).is_some_and(|ring| !ring.is_empty());
            *passed = if waits && lower > level { passed.saturating_add(written) } else { 0 };
        }
        if level < LARGE { Turn::Ordinary } else { Turn::Large(written) }
    }

    fn waiting_at(&self, level: usize) -> bool {
        self.rings.get(level).is_some_and(|ring| !ring.is_empty())
    }
}

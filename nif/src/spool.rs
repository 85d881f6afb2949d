//! Events as binaries, between the processes that write them and the one that ships them.
//!
//! Bytes and not terms: nothing here is looked at by a garbage collector, and what comes out can go onto a wire as it is. The lock is held
//! for the bookkeeping only; bytes are copied outside of it.
//!
//! A call on a normal scheduler does not wait for the lock, because its holder may be a thread that is not running, and does no more than a small
//! piece of work. What it cannot do so it leaves undone, and answers `dirty`: the caller then calls the twin on a dirty scheduler.

use std::collections::{BTreeMap, VecDeque};
use std::hint::spin_loop;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use rustler::{Atom, Binary, Env, NewBinary, Resource, ResourceArc};

use crate::timeslice;

mod atoms {
    rustler::atoms! { full, dirty, all, more }
}

/// What an event costs beside its bytes and its correlation: its place, its reference counts, its share of the index.
const OVERHEAD: usize = 128;
/// Events taken out under one hold of the lock.
const AT_ONCE: usize = 16;
/// Looks at a lock before it is left to a dirty scheduler: some microseconds, several times as long as it is held.
const LOOKS: u32 = 100;
/// Events, and bytes of events, that are given out within 100 microseconds on a busy machine.
const SHORT_COUNT: usize = 32;
const SHORT_BYTES: usize = 64 * 1024;
/// Places of a queue that is moved to a larger one within less than that.
const SHORT_QUEUE: usize = 4096;

struct Spool {
    max_bytes: usize,
    state: Mutex<State>,
}

#[rustler::resource_impl]
impl Resource for Spool {}

#[derive(Default)]
struct State {
    events: VecDeque<Event>,
    /// The number of the event in front.
    first: u64,
    bytes: usize,
    refused: u64,
    /// The numbers of the events of a correlation, the oldest first.
    by_correlation: BTreeMap<Arc<[u8]>, VecDeque<u64>>,
}

struct Event {
    bytes: Arc<[u8]>,
    /// `None` is not indexed.
    correlation: Option<Arc<[u8]>>,
}

impl Event {
    fn cost(&self) -> usize {
        cost(self.bytes.len(), self.correlation.as_ref().map_or(0, |correlation| correlation.len()))
    }
}

impl Spool {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is complete before anything that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Without waiting for a thread that may not be running.
    fn state_soon(&self) -> Result<MutexGuard<'_, State>, Atom> {
        for _ in 0..LOOKS {
            match self.state.try_lock() {
                Ok(state) => return Ok(state),
                Err(TryLockError::Poisoned(poisoned)) => return Ok(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => spin_loop(),
            }
        }
        Err(atoms::dirty())
    }
}

#[rustler::nif]
fn spool_new(max_bytes: usize) -> ResourceArc<Spool> {
    ResourceArc::new(Spool { max_bytes, state: Mutex::default() })
}

/// Its number, `{error, full}`, or `{error, dirty}`. An empty correlation is none and is not indexed.
#[rustler::nif]
fn spool_append(
    env: Env<'_>,
    spool: ResourceArc<Spool>,
    bytes: Binary<'_>,
    correlation: Binary<'_>,
) -> Result<u64, Atom> {
    timeslice::charged(env, || {
        let bytes: Arc<[u8]> = bytes.as_slice().into();
        let mut state = spool.state_soon()?;
        if state.is_to_move(&correlation) {
            return Err(atoms::dirty());
        }
        state.append(spool.max_bytes, bytes, &correlation)
    })
}

/// The same on a dirty scheduler, for large events.
#[rustler::nif(schedule = "DirtyCpu")]
fn spool_append_dirty(
    spool: ResourceArc<Spool>,
    bytes: Binary<'_>,
    correlation: Binary<'_>,
) -> Result<u64, Atom> {
    if cost(bytes.len(), correlation.len()) > spool.max_bytes {
        // Not copied to no purpose.
        spool.state().refused += 1;
        return Err(atoms::full());
    }
    let bytes: Arc<[u8]> = bytes.as_slice().into();
    spool.state().append(spool.max_bytes, bytes, &correlation)
}

/// The events of a correlation that are here, the oldest first, at most `count`; or `{error, dirty}`.
#[rustler::nif]
fn spool_correlate<'a>(
    env: Env<'a>,
    spool: ResourceArc<Spool>,
    correlation: Binary<'_>,
    count: usize,
) -> Result<Vec<Binary<'a>>, Atom> {
    timeslice::charged(env, || {
        let events = spool.state_soon()?.correlate(&correlation, count.min(SHORT_COUNT + 1));
        if events.len() > SHORT_COUNT || events.iter().map(|event| event.len()).sum::<usize>() > SHORT_BYTES {
            return Err(atoms::dirty());
        }
        Ok(binaries(env, &events))
    })
}

/// The same on a dirty scheduler.
#[rustler::nif(schedule = "DirtyCpu")]
fn spool_correlate_dirty<'a>(
    env: Env<'a>,
    spool: ResourceArc<Spool>,
    correlation: Binary<'_>,
    count: usize,
) -> Vec<Binary<'a>> {
    let events = spool.state().correlate(&correlation, count);
    binaries(env, &events)
}

/// Takes the oldest events out, at most `count`: `{all, Events}`, or `{more, Events}` if the rest is for a dirty scheduler.
#[rustler::nif]
fn spool_drain<'a>(env: Env<'a>, spool: ResourceArc<Spool>, count: usize) -> (Atom, Vec<Binary<'a>>) {
    timeslice::charged(env, || {
        let Ok(mut state) = spool.state_soon() else { return (atoms::more(), Vec::new()) };
        let mut left = SHORT_BYTES;
        let wanted = count.min(state.events.len());
        let short = state.events.iter().take(wanted.min(SHORT_COUNT)).take_while(|event| {
            left = left.saturating_sub(event.bytes.len());
            left > 0
        });
        let short = short.count();
        let events = state.take(short);
        drop(state);
        (if short == wanted { atoms::all() } else { atoms::more() }, binaries(env, &events))
    })
}

/// Takes the oldest events out, at most `count`, on a dirty scheduler.
#[rustler::nif(schedule = "DirtyCpu")]
fn spool_drain_dirty<'a>(env: Env<'a>, spool: ResourceArc<Spool>, count: usize) -> Vec<Binary<'a>> {
    let mut drained = Vec::new();
    while drained.len() < count {
        let events = spool.state().take(AT_ONCE.min(count - drained.len()));
        if events.is_empty() {
            break;
        }
        drained.extend(events.iter().map(|event| to_binary(env, event)));
    }
    drained
}

impl State {
    /// Whether this event makes a long queue move to a larger place.
    fn is_to_move(&self, correlation: &[u8]) -> bool {
        let moves = |length: usize, capacity: usize| length == capacity && length >= SHORT_QUEUE;
        let numbers = self.by_correlation.get(correlation);
        moves(self.events.len(), self.events.capacity())
            || numbers.is_some_and(|numbers| moves(numbers.len(), numbers.capacity()))
    }

    fn append(&mut self, max_bytes: usize, bytes: Arc<[u8]>, correlation: &[u8]) -> Result<u64, Atom> {
        let cost = cost(bytes.len(), correlation.len());
        if self.bytes.saturating_add(cost) > max_bytes {
            self.refused += 1;
            return Err(atoms::full());
        }
        let number = self.first + self.events.len() as u64;
        let correlation = (!correlation.is_empty()).then(|| {
            // One copy of a name for all of its events.
            let known = self.by_correlation.get_key_value(correlation).map(|(known, _)| Arc::clone(known));
            let correlation = known.unwrap_or_else(|| correlation.into());
            self.by_correlation.entry(Arc::clone(&correlation)).or_default().push_back(number);
            correlation
        });
        self.bytes += cost;
        self.events.push_back(Event { bytes, correlation });
        Ok(number)
    }

    fn correlate(&self, correlation: &[u8], count: usize) -> Vec<Arc<[u8]>> {
        let numbers = self.by_correlation.get(correlation).into_iter().flatten().take(count);
        let places = numbers.map(|number| usize::try_from(number - self.first).unwrap_or(usize::MAX));
        places.filter_map(|place| self.events.get(place)).map(|event| Arc::clone(&event.bytes)).collect()
    }

    /// The oldest events, at most `count`.
    fn take(&mut self, count: usize) -> Vec<Arc<[u8]>> {
        let count = count.min(self.events.len());
        let events: Vec<Event> = self.events.drain(..count).collect();
        self.first += count as u64;
        let forget = |event: Event| {
            self.bytes -= event.cost();
            if let Some(correlation) = &event.correlation {
                self.forget(correlation);
            }
            event.bytes
        };
        events.into_iter().map(forget).collect()
    }

    /// The oldest number of a correlation: events leave in the order in which they came.
    fn forget(&mut self, correlation: &[u8]) {
        if let Some(numbers) = self.by_correlation.get_mut(correlation) {
            numbers.pop_front();
            if numbers.is_empty() {
                self.by_correlation.remove(correlation);
            }
        }
    }
}

/// `{events, bytes, correlations, appended, refused}`.
#[rustler::nif]
fn spool_stats(spool: ResourceArc<Spool>) -> Result<(usize, usize, usize, u64, u64), Atom> {
    Ok(spool.state_soon()?.stats())
}

/// The same on a dirty scheduler.
#[rustler::nif(schedule = "DirtyCpu")]
fn spool_stats_dirty(spool: ResourceArc<Spool>) -> Result<(usize, usize, usize, u64, u64), Atom> {
    Ok(spool.state().stats())
}

impl State {
    fn stats(&self) -> (usize, usize, usize, u64, u64) {
        let events = self.events.len();
        (events, self.bytes, self.by_correlation.len(), self.first + events as u64, self.refused)
    }
}

fn cost(bytes: usize, correlation: usize) -> usize {
    bytes.saturating_add(correlation).saturating_add(OVERHEAD)
}

fn binaries<'a>(env: Env<'a>, events: &[Arc<[u8]>]) -> Vec<Binary<'a>> {
    events.iter().map(|event| to_binary(env, event)).collect()
}

fn to_binary<'a>(env: Env<'a>, bytes: &[u8]) -> Binary<'a> {
    let mut binary = NewBinary::new(env, bytes.len());
    binary.as_mut_slice().copy_from_slice(bytes);
    binary.into()
}

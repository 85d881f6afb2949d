//! Events as binaries, between the processes that write them and the one that ships them.
//!
//! Bytes and not terms: nothing here is looked at by a garbage collector, and what comes out can go onto a wire as it is. The lock is held
//! for the bookkeeping only; bytes are copied outside of it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustler::{Binary, Env, NewBinary, Resource, ResourceArc};

use crate::timeslice;

mod atoms {
    rustler::atoms! { full }
}

/// What an event costs beside its bytes and its correlation: its place, its reference counts, its share of the index.
const OVERHEAD: usize = 128;
/// Events taken out under one hold of the lock.
const AT_ONCE: usize = 64;

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
    correlation: Arc<[u8]>,
}

impl Spool {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is complete before anything that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[rustler::nif]
fn spool_new(max_bytes: usize) -> ResourceArc<Spool> {
    ResourceArc::new(Spool { max_bytes, state: Mutex::default() })
}

/// Its number, or `{error, full}`. An empty correlation is none and is not indexed.
#[rustler::nif]
fn spool_append(
    env: Env<'_>,
    spool: ResourceArc<Spool>,
    bytes: Binary<'_>,
    correlation: Binary<'_>,
) -> Result<u64, rustler::Atom> {
    timeslice::charged(env, || append(&spool, bytes.as_slice(), correlation.as_slice()))
}

/// The same on a dirty scheduler, for large events.
#[rustler::nif(schedule = "DirtyCpu")]
fn spool_append_dirty(
    spool: ResourceArc<Spool>,
    bytes: Binary<'_>,
    correlation: Binary<'_>,
) -> Result<u64, rustler::Atom> {
    append(&spool, bytes.as_slice(), correlation.as_slice())
}

fn append(spool: &Spool, bytes: &[u8], correlation: &[u8]) -> Result<u64, rustler::Atom> {
    let cost = cost(bytes.len(), correlation.len());
    if cost > spool.max_bytes {
        spool.state().refused += 1;
        return Err(atoms::full());
    }
    let bytes: Arc<[u8]> = bytes.into();
    let mut correlation: Arc<[u8]> = correlation.into();
    let mut state = spool.state();
    if state.bytes + cost > spool.max_bytes {
        state.refused += 1;
        return Err(atoms::full());
    }
    let number = state.first + state.events.len() as u64;
    if !correlation.is_empty() {
        // One copy of a name for all of its events.
        if let Some((known, _)) = state.by_correlation.get_key_value(&correlation) {
            correlation = Arc::clone(known);
        }
        state.by_correlation.entry(Arc::clone(&correlation)).or_default().push_back(number);
    }
    state.bytes += cost;
    state.events.push_back(Event { bytes, correlation });
    Ok(number)
}

/// The events of a correlation that are here, the oldest first, at most `count`.
#[rustler::nif]
fn spool_correlate<'a>(
    env: Env<'a>,
    spool: ResourceArc<Spool>,
    correlation: Binary<'_>,
    count: usize,
) -> Vec<Binary<'a>> {
    timeslice::charged(env, || correlate(env, &spool, correlation.as_slice(), count))
}

/// The same on a dirty scheduler, for many.
#[rustler::nif(schedule = "DirtyCpu")]
fn spool_correlate_dirty<'a>(
    env: Env<'a>,
    spool: ResourceArc<Spool>,
    correlation: Binary<'_>,
    count: usize,
) -> Vec<Binary<'a>> {
    correlate(env, &spool, correlation.as_slice(), count)
}

fn correlate<'a>(env: Env<'a>, spool: &Spool, correlation: &[u8], count: usize) -> Vec<Binary<'a>> {
    let events: Vec<Arc<[u8]>> = {
        let state = spool.state();
        let numbers = state.by_correlation.get(correlation).into_iter().flatten().take(count);
        let places = numbers.map(|number| usize::try_from(number - state.first).unwrap_or(usize::MAX));
        places.filter_map(|place| state.events.get(place)).map(|event| Arc::clone(&event.bytes)).collect()
    };
    events.iter().map(|event| to_binary(env, event)).collect()
}

/// Takes the oldest events out, at most `count`. On a dirty scheduler: it is called for many.
#[rustler::nif(schedule = "DirtyCpu")]
fn spool_drain<'a>(env: Env<'a>, spool: ResourceArc<Spool>, count: usize) -> Vec<Binary<'a>> {
    let mut drained = Vec::new();
    while drained.len() < count {
        let events = {
            let mut state = spool.state();
            let length = state.events.len().min(AT_ONCE).min(count - drained.len());
            let events: Vec<Event> = state.events.drain(..length).collect();
            for event in &events {
                state.bytes -= cost(event.bytes.len(), event.correlation.len());
                state.forget(&event.correlation);
            }
            state.first += length as u64;
            events
        };
        if events.is_empty() {
            break;
        }
        drained.extend(events.iter().map(|event| to_binary(env, &event.bytes)));
    }
    drained
}

impl State {
    /// The oldest number of a correlation: events leave in the order in which they came.
    fn forget(&mut self, correlation: &Arc<[u8]>) {
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
fn spool_stats(spool: ResourceArc<Spool>) -> (usize, usize, usize, u64, u64) {
    let state = spool.state();
    let events = state.events.len();
    (events, state.bytes, state.by_correlation.len(), state.first + events as u64, state.refused)
}

fn cost(bytes: usize, correlation: usize) -> usize {
    bytes.saturating_add(correlation).saturating_add(OVERHEAD)
}

fn to_binary<'a>(env: Env<'a>, bytes: &[u8]) -> Binary<'a> {
    let mut binary = NewBinary::new(env, bytes.len());
    binary.as_mut_slice().copy_from_slice(bytes);
    binary.into()
}

//! The registry of names between our own nodes, driven by a process on the BEAM.
//!
//! That process hands in events and carries out actions; both are terms in the external format. It is the only one that does so, so the
//! lock is never waited for.

use std::sync::Mutex;

use foundation_cluster::names::external::External;
use foundation_proto::etf::{decode, encode};
use foundation_proto::{Limits, Mono};
use rustler::{Binary, Env, NewBinary, Resource, ResourceArc};

use crate::timeslice;

mod atoms {
    rustler::atoms! { badarg, unencodable, panicked }
}

struct Machine(Mutex<External>);

#[rustler::resource_impl]
impl Resource for Machine {}

/// From a term as `External::new` takes it. `{error, badarg}` for anything else.
#[rustler::nif]
fn machine_new(term: Binary<'_>) -> Result<ResourceArc<Machine>, rustler::Atom> {
    let term = decode(term.as_slice(), &Limits::default()).map_err(|_| atoms::badarg())?;
    let machine = External::new(term).ok_or_else(atoms::badarg)?;
    Ok(ResourceArc::new(Machine(Mutex::new(machine))))
}

/// Takes in a list of events: `{ok, {Actions, NextTimeout}}`, the time in nanoseconds from the origin of `Now`, or `nil` if nothing is due.
/// `{error, badarg}` if one of them is not an event, and then nothing has happened.
#[rustler::nif]
fn machine_handle<'a>(
    env: Env<'a>,
    machine: ResourceArc<Machine>,
    now: i64,
    events: Binary<'_>,
) -> Result<(Binary<'a>, Option<i64>), rustler::Atom> {
    timeslice::charged(env, || handle(env, &machine, now, events.as_slice()))
}

/// The same on a dirty scheduler, for what can take longer than 100 microseconds.
#[rustler::nif(schedule = "DirtyCpu")]
fn machine_handle_dirty<'a>(
    env: Env<'a>,
    machine: ResourceArc<Machine>,
    now: i64,
    events: Binary<'_>,
) -> Result<(Binary<'a>, Option<i64>), rustler::Atom> {
    handle(env, &machine, now, events.as_slice())
}

fn handle<'a>(
    env: Env<'a>,
    machine: &Machine,
    now: i64,
    events: &[u8],
) -> Result<(Binary<'a>, Option<i64>), rustler::Atom> {
    let events = decode(events, &Limits::default()).map_err(|_| atoms::badarg())?;
    // After a panic its state may be half changed: its owner is to begin anew.
    let mut machine = machine.0.lock().map_err(|_| atoms::panicked())?;
    let (actions, due) = machine.handle(Mono(now), events).ok_or_else(atoms::badarg)?;
    let mut bytes = Vec::new();
    encode(&actions, &mut bytes).map_err(|_| atoms::unencodable())?;
    let mut binary = NewBinary::new(env, bytes.len());
    binary.as_mut_slice().copy_from_slice(&bytes);
    Ok((binary.into(), due.map(|Mono(at)| at)))
}

/// Panics while it holds the lock, to show what becomes of the registry then. For tests, as `panic_probe`.
#[cfg(feature = "probe")]
#[rustler::nif]
#[expect(clippy::panic, reason = "its purpose")]
fn machine_panic(machine: ResourceArc<Machine>) -> bool {
    let _held = machine.0.lock();
    panic!("machine_panic was called")
}

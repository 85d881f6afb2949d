//! The reference terms as types of a program, read and written through serde.

use std::collections::HashMap;
use std::hash::Hash;
use std::hint::black_box;

use foundation_proto::Limits;
use foundation_proto::etf::serde::{Binary, from_bytes, from_raw, to_raw};
use foundation_proto::etf::{Atom, Pid, RawTerm};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::operation::Work;

/// `{'$gen_call', From, {call, Module, Function, Arguments, GroupLeader}}`.
#[derive(Clone, Debug, Deserialize, Serialize)]
struct GenCall(Atom, RawTerm, (Atom, Atom, Atom, Vec<i64>, Pid));

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename = "Elixir.MyApp.Telemetry.Event")]
struct Event {
    name: Vec<Atom>,
    time: i64,
    measurements: Measurements,
    metadata: Metadata,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Measurements {
    duration: i64,
    queue_time: i64,
    idle_time: f64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Metadata {
    method: String,
    path: String,
    status: u16,
    route: Atom,
    request_id: String,
    remote_ip: (u8, u8, u8, u8),
    error: Option<String>,
    pid: Pid,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Section {
    enabled: bool,
    level: Level,
    limits: MaxMin,
    hosts: Vec<(Vec<u8>, u32, Host)>,
    title: String,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Level {
    Debug,
    Info,
    Warning,
    Error,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct MaxMin {
    max: i64,
    min: i64,
    ratio: f64,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
struct Host {
    weight: u32,
    zone: Atom,
}

/// Makes the value again from another one of its type: all that a decoder of this type has to do besides decoding.
pub(crate) trait Remake {
    fn remake(&self) -> Self;
}

/// A copy of a table would keep the places of its entries; who decodes has to find them.
impl<K: Clone + Eq + Hash, V: Clone> Remake for HashMap<K, V> {
    fn remake(&self) -> Self {
        let mut made = Self::with_capacity(self.len());
        made.extend(self.iter().map(|(key, value)| (key.clone(), value.clone())));
        made
    }
}

macro_rules! remake_is_clone {
    ($($type:ty),*) => {
        $(impl Remake for $type {
            fn remake(&self) -> Self {
                self.clone()
            }
        })*
    };
}

remake_is_clone!(GenCall, Vec<i64>, Vec<Event>, Binary);

/// Runs `$then` with the type that a term has in a program; `None` if it is of no type.
macro_rules! with_type {
    ($name:expr, $then:ident($($argument:expr),*)) => {
        match $name {
            "rpc_small" => Some($then::<GenCall>($($argument),*)),
            "ints10k" | "ints_random" | "i64_1k" => Some($then::<Vec<i64>>($($argument),*)),
            "map1k" => Some($then::<HashMap<String, Binary>>($($argument),*)),
            "proplist" => Some($then::<HashMap<String, Section>>($($argument),*)),
            "telemetry" => Some($then::<Vec<Event>>($($argument),*)),
            "bin1m" => Some($then::<Binary>($($argument),*)),
            _ => None,
        }
    };
}

pub(crate) fn decoding(name: &str, raw: &RawTerm) -> Option<Work> {
    with_type!(name, decode(raw.clone()))?
}

pub(crate) fn reading(name: &str, raw: &RawTerm) -> Option<Work> {
    with_type!(name, read_checked(raw.clone()))?
}

pub(crate) fn remaking(name: &str, raw: &RawTerm) -> Option<Work> {
    with_type!(name, remake(raw))?
}

pub(crate) fn encoding(name: &str, raw: &RawTerm) -> Option<Work> {
    with_type!(name, encode(raw))?
}

fn read<T: DeserializeOwned>(raw: &RawTerm) -> Option<T> {
    from_raw(raw).ok()
}

/// `None` if the type does not fit, which would be a fault of this bench.
fn decode<T: DeserializeOwned + 'static>(raw: RawTerm) -> Option<Work> {
    let limits = Limits::default();
    let bytes = raw.as_bytes().clone();
    read::<T>(&raw)?;
    Some(Box::new(move |count| {
        for _ in 0..count {
            // From bytes that were not looked at before.
            black_box(&from_bytes::<T>(black_box(bytes.clone()), None, &limits).ok());
        }
    }))
}

/// As [`decode`], of a message that was checked when it came in.
fn read_checked<T: DeserializeOwned + 'static>(raw: RawTerm) -> Option<Work> {
    read::<T>(&raw)?;
    Some(Box::new(move |count| {
        (0..count).for_each(|_| {
            black_box(&read::<T>(black_box(&raw)));
        });
    }))
}

fn remake<T: DeserializeOwned + Remake + 'static>(raw: &RawTerm) -> Option<Work> {
    let value = read::<T>(raw)?;
    Some(Box::new(move |count| {
        (0..count).for_each(|_| {
            black_box(&black_box(&value).remake());
        });
    }))
}

fn encode<T: DeserializeOwned + Serialize + 'static>(raw: &RawTerm) -> Option<Work> {
    let value = read::<T>(raw)?;
    Some(Box::new(move |count| {
        (0..count).for_each(|_| drop(black_box(to_raw(black_box(&value)).ok())));
    }))
}

//! The reference terms as types of a program that are read through serde and borrow their text.

use std::collections::HashMap;
use std::hint::black_box;

use bytes::Bytes;
use foundation_proto::Limits;
use foundation_proto::etf::serde::from_bytes_with;
use foundation_proto::etf::{Pid, Tape};
use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::operation::Work;
use crate::typed::{Level, MaxMin, Measurements, Remake};

/// `{'$gen_call', From, {call, Module, Function, Arguments, GroupLeader}}`.
#[derive(Clone, Deserialize)]
#[allow(dead_code, reason = "read and dropped")]
struct GenCall<'a>(&'a str, IgnoredAny, #[serde(borrow)] Call<'a>);

#[derive(Clone, Deserialize)]
#[allow(dead_code, reason = "read and dropped")]
struct Call<'a>(&'a str, &'a str, &'a str, Vec<i64>, Pid);

#[derive(Clone, Deserialize)]
#[allow(dead_code, reason = "read and dropped")]
#[serde(rename = "Elixir.MyApp.Telemetry.Event")]
struct Event<'a> {
    #[serde(borrow)]
    name: Vec<&'a str>,
    time: i64,
    measurements: Measurements,
    #[serde(borrow)]
    metadata: Metadata<'a>,
}

#[derive(Clone, Deserialize)]
#[allow(dead_code, reason = "read and dropped")]
struct Metadata<'a> {
    method: &'a str,
    path: &'a str,
    status: u16,
    route: &'a str,
    request_id: &'a str,
    remote_ip: (u8, u8, u8, u8),
    error: Option<&'a str>,
    pid: Pid,
}

#[derive(Clone, Deserialize)]
#[allow(dead_code, reason = "read and dropped")]
struct Section<'a> {
    enabled: bool,
    level: Level,
    limits: MaxMin,
    #[serde(borrow)]
    hosts: Vec<(Vec<u8>, u32, Host<'a>)>,
    title: &'a str,
}

#[derive(Clone, Deserialize)]
#[allow(dead_code, reason = "read and dropped")]
struct Host<'a> {
    weight: u32,
    zone: &'a str,
}

impl Remake for GenCall<'_> {
    fn remake(&self) -> Self {
        self.clone()
    }
}

impl Remake for Vec<Event<'_>> {
    fn remake(&self) -> Self {
        self.clone()
    }
}

impl Remake for &[u8] {
    fn remake(&self) -> Self {
        self
    }
}

/// Reads the term, and makes its value again from the value.
pub(crate) fn decoding(name: &str, bytes: &Bytes) -> Option<[Work; 2]> {
    /// Checks the bytes and reads them; `None` if the type does not fit, which would be a fault of this bench.
    macro_rules! read {
        ($type:ty) => {{
            let (mut tape, limits, bytes) = (Tape::new(), Limits::default(), bytes.clone());
            from_bytes_with::<$type>(&mut tape, &bytes, None, &limits).ok()?;
            let remade = bytes.clone();
            let read: Work = Box::new(move |count| {
                for _ in 0..count {
                    black_box(&from_bytes_with::<$type>(&mut tape, black_box(&bytes), None, &limits));
                }
            });
            let remake: Work = Box::new(move |count| {
                let mut tape = Tape::new();
                if let Ok(value) = from_bytes_with::<$type>(&mut tape, &remade, None, &Limits::default()) {
                    for _ in 0..count {
                        black_box(&black_box(&value).remake());
                    }
                }
            });
            Some([read, remake])
        }};
    }
    match name {
        "rpc_small" => read!(GenCall<'_>),
        "ints10k" | "ints_random" | "i64_1k" => read!(Vec<i64>),
        "map1k" => read!(HashMap<&str, &[u8]>),
        "proplist" => read!(HashMap<&str, Section<'_>>),
        "telemetry" => read!(Vec<Event<'_>>),
        "bin1m" => read!(&[u8]),
        _ => None,
    }
}

//! The reference terms as types of a program that are read from views, without serde; text and bytes are borrowed.

use std::collections::HashMap;
use std::hint::black_box;

use bytes::Bytes;
use foundation_proto::Limits;
use foundation_proto::etf::{AtomRef, FromView, Mismatch, Pid, Tape, View};

use crate::operation::Work;

/// `{'$gen_call', From, {call, Module, Function, Arguments, GroupLeader}}`.
struct GenCall<'a> {
    _from: View<'a>,
    _call: (AtomRef<'a>, AtomRef<'a>, AtomRef<'a>, Vec<i64>, Pid),
}

impl<'a> FromView<'a> for GenCall<'a> {
    fn from_view(view: View<'a>) -> Result<Self, Mismatch> {
        match view.tuple() {
            Some([tag, from, call]) if tag.is_atom("$gen_call") => {
                Ok(Self { _from: from, _call: call.value()? })
            }
            _ => Err(Mismatch::new("a call", view)),
        }
    }
}

/// A struct whose fields have the names of the keys.
macro_rules! record {
    ($name:ident { $($field:ident: $type:ty),* $(,)? }) => {
        #[allow(dead_code, reason = "read and dropped")]
        struct $name<'a> {
            $($field: $type,)*
            life: core::marker::PhantomData<&'a ()>,
        }

        impl<'a> FromView<'a> for $name<'a> {
            fn from_view(view: View<'a>) -> Result<Self, Mismatch> {
                let [$($field),*] = view.fields([$(stringify!($field)),*])?;
                Ok(Self { $($field: $field.value()?,)* life: core::marker::PhantomData })
            }
        }
    };
}

record!(Event { name: Vec<AtomRef<'a>>, time: i64, measurements: Measurements<'a>, metadata: Metadata<'a> });
record!(Measurements { duration: i64, queue_time: i64, idle_time: f64 });
record!(Metadata {
    method: &'a str,
    path: &'a str,
    status: u16,
    route: AtomRef<'a>,
    request_id: &'a str,
    remote_ip: (u8, u8, u8, u8),
    error: Option<&'a str>,
    pid: Pid,
});
record!(Section {
    enabled: bool,
    level: Level,
    limits: MaxMin<'a>,
    hosts: Vec<(Name<'a>, u32, Host<'a>)>,
    title: &'a str,
});
record!(MaxMin { max: i64, min: i64, ratio: f64 });
record!(Host { weight: u32, zone: AtomRef<'a> });

#[derive(Clone, Copy)]
enum Level {
    Debug,
    Info,
    Warning,
    Error,
}

impl<'a> FromView<'a> for Level {
    fn from_view(view: View<'a>) -> Result<Self, Mismatch> {
        match view.as_atom().and_then(AtomRef::as_str) {
            Some("debug") => Ok(Self::Debug),
            Some("info") => Ok(Self::Info),
            Some("warning") => Ok(Self::Warning),
            Some("error") => Ok(Self::Error),
            _ => Err(Mismatch::new("a level", view)),
        }
    }
}

/// An Erlang string.
struct Name<'a>(#[allow(dead_code, reason = "read and dropped")] &'a [u8]);

impl<'a> FromView<'a> for Name<'a> {
    fn from_view(view: View<'a>) -> Result<Self, Mismatch> {
        view.as_byte_list().map(Self).ok_or_else(|| Mismatch::new("a string", view))
    }
}

/// `[{Name, Section}]`.
struct Sections<'a>(#[allow(dead_code, reason = "read and dropped")] HashMap<AtomRef<'a>, Section<'a>>);

impl<'a> FromView<'a> for Sections<'a> {
    fn from_view(view: View<'a>) -> Result<Self, Mismatch> {
        let mut sections = HashMap::with_capacity(view.len());
        for section in view.elements() {
            let (name, section) = section.value()?;
            sections.insert(name, section);
        }
        Ok(Self(sections))
    }
}

pub(crate) fn decoding(name: &str, bytes: &Bytes) -> Option<Work> {
    /// Lays the bytes out and reads them; `None` if the type does not fit, which would be a fault of this bench.
    macro_rules! read {
        ($type:ty) => {{
            let (mut tape, limits, bytes) = (Tape::new(), Limits::default(), bytes.clone());
            tape.parse(&bytes, &[], &limits).ok()?.value::<$type>().ok()?;
            Some(Box::new(move |count| {
                for _ in 0..count {
                    // Shown, not moved: a copy of the whole is no part of reading it.
                    if let Ok(view) = tape.parse(black_box(&bytes), &[], &limits) {
                        black_box(&view.value::<$type>());
                    }
                }
            }))
        }};
    }
    match name {
        "rpc_small" => read!(GenCall<'_>),
        "ints10k" | "ints_random" | "i64_1k" => read!(Vec<i64>),
        "map1k" => read!(HashMap<AtomRef<'_>, &[u8]>),
        "proplist" => read!(Sections<'_>),
        "telemetry" => read!(Vec<Event<'_>>),
        "bin1m" => read!(&[u8]),
        _ => None,
    }
}

//! A collector of events in Rust, for the example `erlang/examples/event_capture.ex`: takes compressed batches from BEAM nodes, stores their events by
//! correlation, and says of a trace which nodes took part and whether all of it is there. `collector NODE`.
//!
//! It registers `{:production, :event_collector}` among the names that Elixir nodes share, so that they find it by
//! `Foundation.ProcessRegistry.lookup(:production, :event_collector)`. It is a `GenServer`:
//!
//! | call | answer |
//! |---|---|
//! | `{:batch, node, number, batch}` | `:ok`, also if it had this batch; `{:error, :full}`, to be sent again later; `{:error, :damaged}` |
//! | `{:get_trace_data, id}` | `%{nodes: [node], events: count, complete: boolean}` |
//! | `{:get_by_correlation, id, limit}` | `{:ok, [event]}`, at most 1,000 |
//! | `{:workload, id, calls}` | `:ok`: this node takes part in the trace itself |
//! | `:figures` | `%{batches: count, bytes: compressed, events: count}` |

#[path = "collector/batch.rs"]
mod batch;

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use foundation_node::gen_server::{CallFrom, CallOutcome, GenServer};
use foundation_node::process::Process;
use foundation_node::service::registry::{Config, Keys};
use foundation_node::{Node, config::NodeConfig};
use foundation_proto::Limits;
use foundation_proto::etf::{Atom, Map, Tape, Term, View, decode, encode, tag};

/// The registry behind `Foundation.ProcessRegistry` with clustering on.
const NAMES: &str = "Foundation.ProcessRegistry.Shared";
/// Bytes of events that are stored, at most: then batches are refused until somebody begins anew.
const MAX_STORED: usize = 1 << 30;
/// The most events in one answer.
const MAX_ANSWER: usize = 1000;

#[derive(Default)]
struct Collector {
    node: Option<Atom>,
    tape: Tape,
    /// The number of the last batch of each node.
    received: BTreeMap<Atom, i64>,
    traces: BTreeMap<Bytes, Trace>,
    batches: i64,
    bytes: i64,
    events: i64,
    stored: usize,
}

#[derive(Default)]
struct Trace {
    /// Each event in the external format, without the version byte: a part of its batch's bytes.
    events: Vec<Bytes>,
    nodes: BTreeMap<Atom, Progress>,
}

#[derive(Default)]
struct Progress {
    begins: i64,
    calls: i64,
    ends: Vec<i64>,
}

impl Collector {
    fn batch(&mut self, node: Atom, number: i64, batch: &[u8]) -> Term {
        if self.received.get(&node).is_some_and(|last| *last >= number) {
            return Term::atom("ok");
        }
        if self.stored > MAX_STORED {
            return error("full");
        }
        let Some(plain) = batch::unpack(batch) else { return error("damaged") };
        if self.store(&plain).is_none() {
            return error("damaged");
        }
        self.received.insert(node, number);
        self.batches += 1;
        self.bytes += i64::try_from(batch.len()).unwrap_or(i64::MAX);
        Term::atom("ok")
    }

    /// Stores the events of a list in the external format.
    fn store(&mut self, plain: &Bytes) -> Option<()> {
        let (&tag::VERSION_MAGIC, list) = plain.split_first()? else { return None };
        let mut tape = std::mem::take(&mut self.tape);
        let parsed = tape
            .parse(list, &[], &Limits::default())
            .ok()
            .map(|list| list.elements().map(Event::read).collect());
        let events: Option<Vec<Event<'_>>> = parsed.flatten();
        let events = events.map(|events| {
            events
                .into_iter()
                .map(|event| (event.owned(), plain.slice_ref(event.encoded)))
                .collect::<Vec<_>>()
        });
        self.tape = tape;
        for ((correlation, node, kind, calls), encoded) in events? {
            self.stored += encoded.len();
            self.events += 1;
            let trace = self.traces.entry(correlation).or_default();
            trace.events.push(encoded);
            let progress = trace.nodes.entry(node).or_default();
            match kind.as_str() {
                "trace_begin" => progress.begins += 1,
                "call" => progress.calls += 1,
                "trace_end" => progress.ends.extend(calls),
                _ => {}
            }
        }
        Some(())
    }

    fn trace_data(&self, id: &[u8]) -> Term {
        let empty = Trace::default();
        let trace = self.traces.get(id).unwrap_or(&empty);
        let whole = |progress: &Progress| progress.begins == 1 && progress.ends == [progress.calls];
        let complete = !trace.nodes.is_empty() && trace.nodes.values().all(whole);
        map([
            ("nodes", Term::list(trace.nodes.keys().map(Term::from))),
            ("events", Term::Integer(i64::try_from(trace.events.len()).unwrap_or(i64::MAX))),
            ("complete", Term::atom(if complete { "true" } else { "false" })),
        ])
    }

    fn by_correlation(&self, id: &[u8], limit: i64) -> Term {
        let limit = usize::try_from(limit).unwrap_or(0).min(MAX_ANSWER);
        let events = self.traces.get(id).into_iter().flat_map(|trace| &trace.events).take(limit);
        let decoded = events.filter_map(|event| {
            let mut external = BytesMut::with_capacity(event.len() + 1);
            external.put_u8(tag::VERSION_MAGIC);
            external.extend_from_slice(event);
            decode(&external, &Limits::default()).ok()
        });
        Term::from((Term::atom("ok"), Term::list(decoded)))
    }

    /// What a BEAM node captures when it takes part, made here.
    fn workload(&mut self, id: &Term, calls: i64) -> Term {
        let Some(node) = self.node.clone() else { return error("not_started") };
        let event = |kind: &'static str, data: Term| {
            let nil = || Term::atom("nil");
            map([
                ("__struct__", Term::atom("Elixir.Foundation.Types.Event")),
                ("event_id", nil()),
                ("timestamp", nil()),
                ("wall_time", nil()),
                ("pid", nil()),
                ("parent_id", nil()),
                ("event_type", Term::atom(kind)),
                ("correlation_id", id.clone()),
                ("node", Term::Atom(node.clone())),
                ("data", data),
            ])
        };
        let mut events = vec![event("trace_begin", map([]))];
        events.extend((1..=calls).map(|n| event("call", map([("n", Term::Integer(n))]))));
        events.push(event("trace_end", map([("calls", Term::Integer(calls))])));
        let mut plain = BytesMut::new();
        match encode(&Term::list(events), &mut plain) {
            Ok(()) if self.store(&plain.freeze()).is_some() => Term::atom("ok"),
            _ => error("badarg"),
        }
    }

    fn answer(&mut self, request: &Term) -> Option<Term> {
        if request.is_atom("figures") {
            let figures = [("batches", self.batches), ("bytes", self.bytes), ("events", self.events)];
            return Some(map(figures.map(|(name, count)| (name, Term::Integer(count)))));
        }
        Some(match request.as_tuple()? {
            [word, node, number, batch] if word.is_atom("batch") => {
                self.batch(node.as_atom()?.clone(), number.as_i64()?, batch.as_binary()?)
            }
            [word, id] if word.is_atom("get_trace_data") => self.trace_data(id.as_binary()?),
            [word, id, limit] if word.is_atom("get_by_correlation") => {
                self.by_correlation(id.as_binary()?, limit.as_i64()?)
            }
            [word, id, calls] if word.is_atom("workload") => {
                // One answer has to be made within a call's time.
                self.workload(id, calls.as_i64().filter(|calls| (0..=100_000).contains(calls))?)
            }
            _ => return None,
        })
    }
}

/// What is looked at of an event: the struct `Foundation.Types.Event`.
struct Event<'a> {
    encoded: &'a [u8],
    correlation: &'a [u8],
    node: Atom,
    kind: Atom,
    calls: Option<i64>,
}

impl<'a> Event<'a> {
    fn read(view: View<'a>) -> Option<Self> {
        Some(Self {
            encoded: view.encoded(),
            // `nil`: it belongs to no trace.
            correlation: view.get("correlation_id")?.as_binary().unwrap_or_default(),
            node: view.get("node")?.to_atom()?,
            kind: view.get("event_type")?.to_atom()?,
            calls: view.get("data").and_then(|data| data.get("calls")?.as_i64()),
        })
    }

    fn owned(&self) -> (Bytes, Atom, Atom, Option<i64>) {
        (Bytes::copy_from_slice(self.correlation), self.node.clone(), self.kind.clone(), self.calls)
    }
}

fn map<const N: usize>(pairs: [(&'static str, Term); N]) -> Term {
    Term::Map(pairs.into_iter().map(|(name, value)| (Term::atom(name), value)).collect::<Map>())
}

fn error(why: &'static str) -> Term {
    Term::from((Term::atom("error"), Term::atom(why)))
}

impl GenServer for Collector {
    type Call = Term;
    type Reply = Term;
    type Cast = Term;

    async fn handle_call(&mut self, request: Term, _: CallFrom, process: &mut Process) -> CallOutcome<Term> {
        self.node.get_or_insert_with(|| process.pid().node.clone());
        CallOutcome::Reply(self.answer(&request).unwrap_or_else(|| error("badarg")))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = std::env::args().nth(1).ok_or("usage: collector NODE")?;
    let cookie = std::env::var("FOUNDATION_COOKIE")?;
    let port = std::env::var("ERL_EPMD_PORT")?.parse()?;
    let node = Node::start(NodeConfig::new(&name).cookie(&cookie).epmd_port(port)).await?;
    let collector = node.start_server(None, Collector::default())?;
    let names = node.registry_with(NAMES, Config::new(Keys::Duplicate))?;
    let key = Term::from((Term::atom("production"), Term::atom("event_collector")));
    names.register(key, Term::atom("nil"), collector.pid()).await?;
    println!("{name}");
    // Whoever started it ends it by closing its standard input.
    tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await??;
    node.stop().await;
    Ok(())
}

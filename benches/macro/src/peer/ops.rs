//! The measurements that a Rust node makes, as `op/1` of `beam/foundation_bench.erl` does.

use std::time::{Duration, Instant};

use foundation_node::process::{Message, Process};
use foundation_node::service::pubsub::PubSub;
use foundation_node::{Error, Node};
use foundation_proto::etf::serde::{Binary, to_raw};
use foundation_proto::etf::{Atom, Pid, RawTerm, Tape, Term};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{PATIENCE, tagged_pid, unbounded};
use crate::stats::{Numbers, percentiles};

pub(super) type Result<T> = std::result::Result<T, String>;

/// Payloads from this size on are encoded once and shared; smaller messages are encoded one by one.
const SHARED_FROM: usize = 16 << 10;

pub(super) async fn run(node: &Node, line: &str) -> Result<Numbers> {
    let mut words = line.split_whitespace();
    let name = words.next().unwrap_or_default();
    let options: Vec<(&str, &str)> = words.filter_map(|word| word.split_once('=')).collect();
    let text = |key: &str| options.iter().find(|(name, _)| *name == key).map(|(_, value)| *value);
    let get = |key: &str| {
        let value = text(key).ok_or_else(|| format!("{key} is missing"))?;
        value.parse::<usize>().map_err(|_| format!("{key} is no number"))
    };
    let peer = Atom::new(text("node").unwrap_or("nonode@nohost")).map_err(|_| "node")?;
    match name {
        "link" => {
            node.connect(peer.as_str()).await.map_err(why)?;
            Ok(Numbers::from([("ok".to_owned(), 1.0)]))
        }
        "send" => send(node, &Way::Direct(peer), get("senders")?, get("count")?, get("size")?).await,
        "echo" => echo(node, &Way::Direct(peer), get("count")?, get("size")?).await.map(percentiles),
        "call" => callers(node, &peer, get("callers")?, get("count")?, Call::GenServer).await,
        "erpc" => callers(node, &peer, get("callers")?, get("count")?, Call::Erpc).await,
        "connect" => connect(node, peer.as_str(), get("count")?).await.map(percentiles),
        "hol" => {
            let millis = Duration::from_millis(get("millis")? as u64);
            head_of_line(node, &Way::Direct(peer), get("senders")?, get("size")?, millis).await
        }
        "open" => open(node, get("pubsub")?),
        "joined" => joined(node, &peer, get("pubsub")?).await,
        "publish" => {
            let way = Way::topic(node, peer, get("pubsub")?)?;
            send(node, &way, get("senders")?, get("count")?, get("size")?).await
        }
        "topic_echo" => {
            let way = Way::topic(node, peer, get("pubsub")?)?;
            echo(node, &way, get("count")?, get("size")?).await.map(percentiles)
        }
        "topic_hol" => {
            let way = Way::topic(node, peer, get("pubsub")?)?;
            let millis = Duration::from_millis(get("millis")? as u64);
            head_of_line(node, &way, get("senders")?, get("size")?, millis).await
        }
        "hold" => hold(node, get("processes")?).await,
        "crowd" => crowd(node, peer.as_str(), get("first")?, get("count")?, get("epmd")? as u16).await,
        "subscribe" => subscribe(node, get("count")?),
        "join" => join(node, get("count")?).await,
        "monitor" => monitor(node, &peer, get("count")?).await,
        "form" => {
            let source = text("source").ok_or("source is missing")?;
            super::discovery::form(node, source, get("port")?, get("count")?).await
        }
        "discover" => super::discovery::discover(node, text("file").ok_or("file is missing")?).await,
        name if name.starts_with("names_") => super::names::run(node, name, &peer, &get).await,
        name if name.starts_with("jobs_") => super::jobs::run(node, name, &get).await,
        other => Err(format!("unknown operation {other}")),
    }
}

pub(super) fn why(error: impl std::fmt::Display) -> String {
    error.to_string()
}

pub(super) fn micros(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e6
}

/// A process that no task is behind but the caller's.
fn process(node: &Node) -> Result<Process> {
    node.process_opt(&unbounded()).map_err(why)
}

/// How messages go to the other node.
#[derive(Clone)]
enum Way {
    /// From process to process.
    Direct(Atom),
    /// By broadcasts, each with one subscriber, on that node.
    Topic(Atom, usize, PubSub),
}

/// Where the messages of one sender go.
#[derive(Clone)]
enum Sink {
    Pid(Pid),
    Topic(PubSub, String),
}

impl Way {
    fn topic(node: &Node, peer: Atom, number: usize) -> Result<Self> {
        Ok(Self::Topic(peer, number, node.pubsub(&pubsub_name(number)).map_err(why)?))
    }

    async fn new_sink(&self, process: &mut Process) -> Result<Sink> {
        let tag = Atom::new_static("sink");
        match self {
            Self::Direct(peer) => process.send(("bench", peer), &(tag, process.pid())).await.map_err(why)?,
            Self::Topic(peer, number, _) => {
                let name = Atom::new(&format!("Elixir.{}", pubsub_name(*number))).map_err(why)?;
                let topic = Binary::from(bytes::Bytes::from(topic_of(process.pid())));
                process.send(("bench", peer), &(tag, process.pid(), name, topic)).await.map_err(why)?;
            }
        }
        let message = process.recv_timeout(PATIENCE).await.map_err(why)?;
        let (_, sink) = tagged_pid(&message, &mut Tape::new()).ok_or("no sink")?;
        Ok(match self {
            Self::Direct(_) => Sink::Pid(sink),
            Self::Topic(_, _, pubsub) => {
                Sink::Topic(pubsub.sending_from(&process.handle()), topic_of(process.pid()))
            }
        })
    }

    /// Sends to the process that sends back what comes behind the pid.
    async fn echo(
        &self,
        process: &Process,
        message: &impl serde::Serialize,
    ) -> std::result::Result<(), Error> {
        match self {
            Self::Direct(peer) => process.send(("echo", peer), message).await,
            Self::Topic(peer, _, pubsub) => {
                let pubsub = pubsub.sending_from(&process.handle());
                pubsub.broadcast_raw(&echo_topic(peer.as_str()), to_raw(message)?, None).await
            }
        }
    }
}

impl Sink {
    async fn send(
        &self,
        process: &Process,
        message: &impl serde::Serialize,
    ) -> std::result::Result<(), Error> {
        match self {
            Self::Pid(to) => process.send(to, message).await,
            Self::Topic(pubsub, topic) => pubsub.broadcast_raw(topic, to_raw(message)?, None).await,
        }
    }

    async fn send_raw(&self, process: &Process, message: RawTerm) -> std::result::Result<(), Error> {
        match self {
            Self::Pid(to) => process.send_raw(to, message).await,
            Self::Topic(pubsub, topic) => pubsub.broadcast_raw(topic, message, None).await,
        }
    }
}

/// The topic of the sink of a process.
fn topic_of(pid: &Pid) -> String {
    format!("sink:{pid:?}")
}

/// Where the echo process of a node listens.
fn echo_topic(node: &str) -> String {
    format!("echo:{node}")
}

/// The PubSub of a pair of nodes.
fn pubsub_name(number: usize) -> String {
    format!("Bench.PubSub{number}")
}

/// Starts the PubSub of a pair on this node, with a subscriber that echoes.
fn open(node: &Node, number: usize) -> Result<Numbers> {
    let pubsub = node.pubsub(&pubsub_name(number)).map_err(why)?;
    let echo = super::spawn(node, None, super::echo);
    pubsub.subscribe_pid(&echo_topic(node.name().as_str()), echo.pid());
    Ok([("ok".to_owned(), 1.0)].into())
}

/// Waits until broadcasts go to a node.
async fn joined(node: &Node, peer: &Atom, number: usize) -> Result<Numbers> {
    let pubsub = node.pubsub(&pubsub_name(number)).map_err(why)?;
    node.connect(peer.as_str()).await.map_err(why)?;
    let deadline = Instant::now() + Duration::from_secs(10);
    while !pubsub.nodes().contains(peer) {
        if Instant::now() > deadline {
            return Err(format!("{} has not joined", peer.as_str()));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok([("ok".to_owned(), 1.0)].into())
}

/// Waits until a sink has received everything; returns how many messages were lost or out of order.
async fn acknowledged(process: &mut Process, sink: &Sink, sent: usize) -> Result<f64> {
    sink.send(process, &(Atom::new_static("done"), process.pid())).await.map_err(why)?;
    let message = process.recv_timeout(PATIENCE).await.map_err(why)?;
    let (_, received, bad): (Atom, i64, i64) = message.to_value().map_err(why)?;
    Ok((bad + (received - sent as i64).abs()) as f64)
}

/// What one sender sends.
#[derive(Clone)]
struct Payload {
    binary: Binary,
    shared: Option<RawTerm>,
}

impl Payload {
    fn new(size: usize) -> Result<Self> {
        let binary = Binary::from(bytes::Bytes::from(vec![b'x'; size]));
        let shared = (size >= SHARED_FROM)
            .then(|| to_raw(&(Atom::new_static("msg"), -1, &binary)).map_err(why))
            .transpose()?;
        Ok(Self { binary, shared })
    }

    async fn send(&self, process: &Process, to: &Sink, number: usize) -> std::result::Result<(), Error> {
        match &self.shared {
            Some(message) => to.send_raw(process, message.clone()).await,
            None => to.send(process, &(Atom::new_static("msg"), number, &self.binary)).await,
        }
    }
}

async fn send(node: &Node, way: &Way, senders: usize, count: usize, size: usize) -> Result<Numbers> {
    let (go, _) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let ready = std::sync::Arc::new(tokio::sync::Barrier::new(senders + 1));
    for _ in 0..senders {
        let (node, way, mut go, ready) = (node.clone(), way.clone(), go.subscribe(), ready.clone());
        tasks.spawn(async move {
            let mut process = process(&node)?;
            let payload = Payload::new(size)?;
            let sink = way.new_sink(&mut process).await?;
            ready.wait().await;
            go.wait_for(|go| *go).await.map_err(why)?;
            for number in 0..count {
                payload.send(&process, &sink, number).await.map_err(why)?;
            }
            acknowledged(&mut process, &sink, count).await
        });
    }
    ready.wait().await;
    let start = Instant::now();
    go.send_replace(true);
    let bad: f64 = sum(tasks).await?;
    Ok([("us".to_owned(), micros(start)), ("bad".to_owned(), bad)].into())
}

async fn sum(mut tasks: JoinSet<Result<f64>>) -> Result<f64> {
    let mut sum = 0.0;
    while let Some(outcome) = tasks.join_next().await {
        sum += outcome.map_err(why)??;
    }
    Ok(sum)
}

async fn echo(node: &Node, way: &Way, count: usize, size: usize) -> Result<Vec<f64>> {
    let mut process = process(node)?;
    let binary = Binary::from(bytes::Bytes::from(vec![b'x'; size]));
    let me = process.pid().clone();
    let request = to_raw(&(&me, &binary)).map_err(why)?;
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        let start = Instant::now();
        match way {
            Way::Direct(peer) if size >= SHARED_FROM => {
                process.send_raw(("echo", peer), request.clone()).await.map_err(why)?;
            }
            _ => way.echo(&process, &(&me, &binary)).await.map_err(why)?,
        }
        process.recv_timeout(PATIENCE).await.map_err(why)?;
        times.push(micros(start));
    }
    Ok(times)
}

/// A request that is answered.
#[derive(Clone, Copy)]
enum Call {
    GenServer,
    Erpc,
}

impl Call {
    async fn make(self, process: &Process, peer: &Atom) -> Result<()> {
        let answer = match self {
            Self::GenServer => {
                process.call_as::<RawTerm>(("server", peer), ("x", 1), PATIENCE).await.map(|_| ())
            }
            Self::Erpc => {
                process.erpc(peer, "foundation_bench", "ping", Vec::new(), PATIENCE).await.map(|_| ())
            }
        };
        answer.map_err(why)
    }
}

async fn callers(node: &Node, peer: &Atom, callers: usize, count: usize, call: Call) -> Result<Numbers> {
    let start = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (node, peer) = (node.clone(), peer.clone());
        tasks.spawn(async move {
            let process = process(&node)?;
            let mut times = Vec::with_capacity(count);
            for _ in 0..count {
                let start = Instant::now();
                call.make(&process, &peer).await?;
                times.push(micros(start));
            }
            Ok::<_, String>(times)
        });
    }
    let mut times = Vec::new();
    while let Some(outcome) = tasks.join_next().await {
        times.extend(outcome.map_err(why)??);
    }
    let us = micros(start);
    let mut numbers = percentiles(times);
    numbers.insert("us".to_owned(), us);
    Ok(numbers)
}

async fn connect(node: &Node, peer: &str, count: usize) -> Result<Vec<f64>> {
    let mut times = Vec::with_capacity(count);
    for _ in 0..count {
        node.disconnect(peer).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
        let start = Instant::now();
        node.connect(peer).await.map_err(why)?;
        times.push(micros(start));
    }
    Ok(times)
}

/// Echoes are started every millisecond, whether or not earlier ones have come back, while others send large messages.
async fn head_of_line(
    node: &Node,
    way: &Way,
    senders: usize,
    size: usize,
    duration: Duration,
) -> Result<Numbers> {
    // Made before the clock runs: it is no part of what is measured, and takes as long as some echoes.
    let payload = Payload::new(size)?;
    let begin = Instant::now();
    let end = begin + duration;
    let mut tasks: JoinSet<Result<(usize, f64)>> = JoinSet::new();
    for _ in 0..senders {
        let (node, way, payload) = (node.clone(), way.clone(), payload.clone());
        tasks.spawn(async move {
            let mut process = process(&node)?;
            let sink = way.new_sink(&mut process).await?;
            let mut count = 0;
            while Instant::now() < end {
                payload.send(&process, &sink, count).await.map_err(why)?;
                count += 1;
            }
            Ok((count, acknowledged(&mut process, &sink, count).await?))
        });
    }
    let (node, way) = (node.clone(), way.clone());
    let pings = tokio::spawn(async move { pings(&node, &way, begin + Duration::from_millis(20), end).await });
    let times = pings.await.map_err(why)??;
    let (mut count, mut bad) = (0, 0.0);
    while let Some(outcome) = tasks.join_next().await {
        let (sent, wrong) = outcome.map_err(why)??;
        count += sent;
        bad += wrong;
    }
    let bulk = (count * size) as f64 / micros(begin);
    let started = times.len() as f64;
    let mut numbers = percentiles(times);
    for (name, value) in [("bulk", bulk), ("bad", bad), ("started", started)] {
        numbers.insert(name.to_owned(), value);
    }
    Ok(numbers)
}

/// A start that is late by more than a timer is late was kept from starting, and that counts.
const TIMER: Duration = Duration::from_micros(1500);

async fn pings(node: &Node, way: &Way, first: Instant, end: Instant) -> Result<Vec<f64>> {
    let mut process = process(node)?;
    let me = process.pid().clone();
    let (mut due, mut open, mut times) = (first, 0_usize, Vec::new());
    loop {
        let now = Instant::now();
        if now >= end && open == 0 {
            return Ok(times);
        }
        if now >= due && now < end {
            let start = if now - due > TIMER { due } else { now };
            let nanos = start.duration_since(first).as_nanos() as u64;
            way.echo(&process, &(&me, nanos)).await.map_err(why)?;
            open += 1;
            due += Duration::from_millis(1);
            continue;
        }
        let next = if now < end { due } else { now + PATIENCE };
        tokio::select! {
            biased;
            message = process.recv() => {
                let nanos = start_of(&message.map_err(why)?).ok_or("not an echo")?;
                open -= 1;
                times.push(micros(first) - nanos as f64 / 1e3);
            }
            () = tokio::time::sleep_until(next.into()) => {
                if now >= end {
                    return Err(format!("{open} echoes never came back"));
                }
            }
        }
    }
}

fn start_of(message: &Message) -> Option<i64> {
    message.as_raw()?.view(&mut Tape::new()).ok()?.as_i64()
}

/// Starts processes that wait for ever, in addition to those that were started so before.
async fn hold(node: &Node, processes: usize) -> Result<Numbers> {
    for _ in 0..processes {
        node.spawn(async |mut process: Process| while process.recv().await.is_ok() {}).map_err(why)?;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    Ok([("processes".to_owned(), node.processes().len() as f64)].into())
}

/// Monitors `echo` of a node this many times, for ever.
async fn monitor(node: &Node, peer: &Atom, count: usize) -> Result<Numbers> {
    let (done, wait) = tokio::sync::oneshot::channel();
    let peer = peer.clone();
    node.spawn(async move |mut process: Process| {
        let mut made = 0;
        while made < count && process.monitor(("echo", &peer)).await.is_ok() {
            made += 1;
        }
        let _ = done.send(made);
        while process.recv().await.is_ok() {}
    })
    .map_err(why)?;
    let made = wait.await.map_err(why)?;
    Ok([("monitors".to_owned(), made as f64)].into())
}

/// Subscribes this many of the processes that wait to one topic.
fn subscribe(node: &Node, count: usize) -> Result<Numbers> {
    let pubsub = node.pubsub("Bench.PubSub").map_err(why)?;
    for pid in node.processes().iter().take(count) {
        pubsub.subscribe_pid("topic", pid);
    }
    Ok(Numbers::new())
}

/// Lets this many of the processes that wait join one group.
async fn join(node: &Node, count: usize) -> Result<Numbers> {
    let groups = node.groups("bench_groups").map_err(why)?;
    let group = Term::atom("group");
    for pid in node.processes().iter().take(count) {
        groups.join(&group, pid).await.map_err(why)?;
    }
    let members = groups.members(&group).len();
    Ok([("members".to_owned(), members as f64)].into())
}

/// Starts nodes that connect to a node and stay.
async fn crowd(keeper: &Node, hub: &str, first: usize, count: usize, epmd: u16) -> Result<Numbers> {
    let mut nodes = Vec::new();
    for number in first..first + count {
        let config = foundation_node::config::NodeConfig::new(format!("crowd{number}@127.0.0.1"))
            .cookie(foundation_interop_tests::beam::COOKIE)
            .epmd_port(epmd);
        let node = Node::start(config).await.map_err(why)?;
        node.connect(hub).await.map_err(why)?;
        nodes.push(node);
    }
    // They live as long as the process that this runs in.
    keeper
        .spawn(async move |mut process: Process| {
            let _nodes = nodes;
            while process.recv().await.is_ok() {}
        })
        .map_err(why)?;
    Ok(Numbers::new())
}

//! The Rust node under measurement: a process of its own that offers what `beam/foundation_bench.erl` offers, and makes the
//! same measurements when told to on its standard input, one a line.

mod discovery;
mod jobs;
mod names;
mod ops;

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Duration;

use foundation_interop_tests::beam::COOKIE;
use foundation_node::config::{NodeConfig, ProtoDist, Reconnect};
use foundation_node::gen_server::{CallFrom, CallOutcome, GenServer};
use foundation_node::process::{MailboxLimit, Message, Process, SpawnOptions};
use foundation_node::{Handle, Node};
use foundation_proto::etf::{Atom, Pid, RawTerm, Tape, Term};

use crate::stats;

/// With what the node is started.
#[derive(Debug, Default)]
struct Options {
    name: String,
    epmd_port: u16,
    optfile: Option<PathBuf>,
    current_thread: bool,
    /// Visible, and looking for nodes that are lost.
    visible: bool,
    /// As a node is started that nothing is said to: hidden, and looking for nodes that are lost.
    discovers: bool,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut rest = arguments.iter();
        while let Some(argument) = rest.next() {
            let mut value = || rest.next().cloned().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--name" => options.name = value()?,
                "--epmd-port" => options.epmd_port = value()?.parse().map_err(|_| "--epmd-port")?,
                "--optfile" => options.optfile = Some(value()?.into()),
                "--current-thread" => options.current_thread = true,
                "--visible" => options.visible = true,
                "--discovers" => options.discovers = true,
                other => return Err(format!("unknown: {other}")),
            }
        }
        Ok(options)
    }
}

/// Runs until standard input ends.
pub(crate) fn main(arguments: &[String]) {
    let options = Options::parse(arguments).expect("options of a peer");
    let mut builder = if options.current_thread {
        tokio::runtime::Builder::new_current_thread()
    } else {
        // As the binary `foundation` does.
        tokio::runtime::Builder::new_multi_thread()
    };
    let runtime = builder.enable_all().build().expect("a runtime");
    let mut config = NodeConfig::new(options.name).cookie(COOKIE).epmd_port(options.epmd_port);
    if options.visible {
        config.prevent_overlapping_partitions = false;
        config = config.hidden(false);
    } else if !options.discovers {
        config = config.reconnect(Reconnect::Never);
    }
    if let Some(optfile) = options.optfile {
        config = config.proto_dist(ProtoDist::InetTls).ssl_dist_optfile(optfile);
    }
    let (commands, mut queue) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let _ = commands.send(line);
        }
    });
    runtime.block_on(async {
        let node = Node::start(config).await.expect("the node starts");
        offer(&node);
        answer("ok=1");
        while let Some(line) = queue.recv().await {
            let node = node.clone();
            // On a worker, where the tasks of a program run.
            let outcome = tokio::spawn(async move { ops::run(&node, &line).await }).await;
            match outcome.unwrap_or_else(|panic| Err(panic.to_string())) {
                Ok(numbers) => answer(&stats::print(&numbers)),
                Err(why) => answer(&format!("failed: {}", why.replace('\n', " "))),
            }
        }
        node.stop().await;
    });
}

fn answer(line: &str) {
    let mut out = std::io::stdout().lock();
    let written = writeln!(out, "{line}").and_then(|()| out.flush());
    // Nobody listens any more: the end of standard input follows.
    drop(written);
}

/// A process that holds whatever comes, as those of the BEAM do; what bounds it is the back-pressure of its connection.
fn unbounded() -> SpawnOptions {
    SpawnOptions::default().mailbox(MailboxLimit::UNBOUNDED)
}

fn offer(node: &Node) {
    let pubsubs = node.clone();
    spawn(node, Some("bench"), async move |mut process: Process| {
        let mut tape = Tape::new();
        while let Ok(message) = process.recv().await {
            let (from, topic) = match tagged_pid(&message, &mut tape) {
                Some((_, from)) => (from, None),
                None => match subscriber(&message, &mut tape) {
                    Some((from, pubsub, topic)) => (from, Some((pubsub, topic))),
                    None => continue,
                },
            };
            let sink = spawn(&process.handle(), None, sink);
            if let Some((pubsub, topic)) = topic {
                let name = pubsub.as_str().trim_start_matches("Elixir.");
                pubsubs.pubsub(name).expect("a PubSub").subscribe_pid(&topic, sink.pid());
            }
            let _gone = process.send(&from, &(Atom::new_static("sink"), sink.pid())).await;
        }
    });
    spawn(node, Some("echo"), echo);
    node.start_server_opt(Some("server"), &unbounded(), Server).expect("a name that is free");
    node.export("foundation_bench", "ping", 0, |_| async { Ok(Term::atom("pong")) });
}

/// Starts a process that runs `body`.
fn spawn<F, R>(parent: &Handle, name: Option<&'static str>, body: F) -> Handle
where
    F: FnOnce(Process) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let handle = parent.spawn_opt(&unbounded(), body).expect("there is room for a process");
    if let Some(name) = name {
        handle.register(Atom::new_static(name)).expect("a name that is free");
    }
    handle
}

/// Sends back what comes with the pid of who sent it.
async fn echo(mut process: Process) {
    let mut tape = Tape::new();
    while let Ok(message) = process.recv().await {
        let Some((from, message)) = from_and_rest(&message, &mut tape) else { continue };
        let _gone = process.send_raw(from, message).await;
    }
}

/// Counts messages and those that are out of order; -1 has no place in the order.
async fn sink(mut process: Process) {
    let mut tape = Tape::new();
    let (mut count, mut next, mut bad) = (0_i64, 0, 0_i64);
    while let Ok(message) = process.recv().await {
        match number(&message, &mut tape) {
            Some(number) => {
                count += 1;
                if number >= 0 {
                    bad += i64::from(number != next);
                    next = number + 1;
                }
            }
            None => {
                let Some((_, from)) = tagged_pid(&message, &mut tape) else { continue };
                let _gone = process.send(&from, &(Atom::new_static("received"), count, bad)).await;
                return;
            }
        }
    }
}

/// N of `{msg, N, Payload}`.
fn number(message: &Message, tape: &mut Tape) -> Option<i64> {
    let [tag, number, _] = message.as_raw()?.view(tape).ok()?.tuple()?;
    if tag.is_atom("msg") { number.as_i64() } else { None }
}

/// `{Tag, Pid}`.
fn tagged_pid(message: &Message, tape: &mut Tape) -> Option<(Atom, Pid)> {
    let [tag, pid] = message.as_raw()?.view(tape).ok()?.tuple()?;
    Some((tag.as_atom()?.to_atom(), pid.as_pid()?))
}

/// Pid, PubSub and topic of `{sink, Pid, PubSub, Topic}`.
fn subscriber(message: &Message, tape: &mut Tape) -> Option<(Pid, Atom, String)> {
    let [_, from, pubsub, topic] = message.as_raw()?.view(tape).ok()?.tuple()?;
    let topic = String::from_utf8(topic.as_binary()?.to_vec()).ok()?;
    Some((from.as_pid()?, pubsub.as_atom()?.to_atom(), topic))
}

/// `{Pid, Rest}`, the rest still encoded.
fn from_and_rest(message: &Message, tape: &mut Tape) -> Option<(Pid, RawTerm)> {
    let raw = message.as_raw()?;
    let [from, rest] = raw.view(tape).ok()?.tuple()?;
    Some((from.as_pid()?, raw.inner(rest)?))
}

/// Answers each call with what it was asked.
struct Server;

impl GenServer for Server {
    type Call = RawTerm;
    type Reply = RawTerm;
    type Cast = RawTerm;

    async fn handle_call(&mut self, request: RawTerm, _: CallFrom, _: &mut Process) -> CallOutcome<RawTerm> {
        CallOutcome::Reply(request)
    }
}

/// How long a single answer may take.
const PATIENCE: Duration = Duration::from_secs(60);

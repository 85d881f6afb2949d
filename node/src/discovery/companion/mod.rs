//! Finding nodes for somebody else: `foundation companion`, the discovery of an Elixir node in a process of its own.
//!
//! The companion runs the sources of the owner's `[cluster]` and the same machine that decides for a node of ours. It opens no
//! connection of distribution: it asks its owner to dial, and is told how it went. What they say to each other is in [`wire`].
//! It ends when its owner does, which shows as the end of the input; sources that told others of the node (Consul, multicast
//! DNS) then take that back.

pub mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use foundation_cluster::Machine;
use foundation_cluster::discovery::{Action, Config, Discovery, Event, Report, Source as Rules, SourceId};
use foundation_proto::Mono;
use foundation_proto::dist::NodeName;
use foundation_proto::etf::Term;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};

use self::wire::{Answer, Request, Start, binary, read_frame};
use super::config::Context;
use super::engine::{Plan, Source};
use super::{ClusterConfig, Reports, auto};
use crate::net::Clock;
use crate::random;

/// Reports of sources, and frames of the owner, that wait for the machine; then who sends them waits.
const QUEUED: usize = 256;
/// How long the owner may take to say what it wants.
const FIRST_WORD: Duration = Duration::from_secs(30);
/// How long sources have to take back what they told others.
const TIDYING: Duration = Duration::from_secs(2);

/// Why a companion has ended.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Ended {
    /// Its owner did, or closed the stream.
    Owner,
    /// The owner broke the protocol, or its configuration cannot be used; it was told.
    Refused(String),
}

/// Runs until the owner ends. `input` and `output` are read and written by threads of their own.
pub async fn run(input: impl Read + Send + 'static, output: impl Write + Send + 'static) -> Ended {
    let (requests, mut received) = mpsc::channel(QUEUED);
    let (sender, answers) = mpsc::channel(QUEUED);
    let (written, all_written) = oneshot::channel();
    let reader = std::thread::Builder::new().name("owner-in".into()).spawn(move || listen(input, &requests));
    let writer = std::thread::Builder::new().name("owner-out".into()).spawn(move || {
        tell(output, answers);
        let _ = written.send(());
    });
    let (Ok(_), Ok(_)) = (reader, writer) else {
        return Ended::Refused("no thread can be started".to_owned());
    };
    let ended = match serve(&mut received, &sender).await {
        Err(why) => {
            let _ = sender.send(Answer::Error(why.clone())).await;
            Ended::Refused(why)
        }
        Ok(()) => Ended::Owner,
    };
    drop(sender);
    // What was said last must leave before the process does; an owner that does not read does not get it.
    let _ = tokio::time::timeout(TIDYING, all_written).await;
    ended
}

fn listen(mut input: impl Read, requests: &mpsc::Sender<Result<Request, String>>) {
    loop {
        let request = match read_frame(&mut input) {
            Ok(None) => return,
            Ok(Some(frame)) => Request::parse(&frame),
            Err(error) => Err(error.to_string()),
        };
        let broken = request.is_err();
        if requests.blocking_send(request).is_err() || broken {
            return;
        }
    }
}

fn tell(mut output: impl Write, mut answers: mpsc::Receiver<Answer>) {
    while let Some(answer) = answers.blocking_recv() {
        if answer.write(&mut output).is_err() {
            return;
        }
    }
}

async fn serve(
    requests: &mut mpsc::Receiver<Result<Request, String>>,
    answers: &mpsc::Sender<Answer>,
) -> Result<(), String> {
    let start = match tokio::time::timeout(FIRST_WORD, requests.recv()).await {
        Ok(Some(Ok(Request::Start(start)))) => start,
        Ok(Some(Ok(_))) => return Err("the first frame is not start".to_owned()),
        Ok(Some(Err(why))) => return Err(why),
        Ok(None) => return Ok(()),
        Err(_) => return Err(format!("no start within {FIRST_WORD:?}")),
    };
    let mut companion = Companion::new(*start, answers.clone())?;
    let outcome = companion.run(requests).await;
    companion.end().await;
    outcome
}

struct Companion {
    cluster: String,
    machine: Discovery,
    clock: Clock,
    evidence: Vec<String>,
    sources: Vec<Source>,
    running: BTreeMap<SourceId, AbortHandle>,
    tasks: JoinSet<()>,
    reports: (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    answers: mpsc::Sender<Answer>,
    connected: BTreeSet<NodeName>,
    /// Who was given up last, and whose name it was: the machine no longer knows when it asks to disconnect.
    absent: Option<(NodeName, SourceId)>,
}

impl Companion {
    fn new(start: Start, answers: mpsc::Sender<Answer>) -> Result<Self, String> {
        let config = ClusterConfig::from_value(&start.cluster).map_err(|mistake| mistake.to_string())?;
        let context = Context {
            listens: start.listens,
            cluster: config.name.clone(),
            ..Context::new(start.node.clone(), start.epmd_port)
        };
        let environment = auto::Environment { said: start.development.map(Ok), ..auto::Environment::read() };
        let Plan { sources, allow, evidence } = Plan::in_environment(&config, &context, &environment);
        let rules = sources.iter().map(|source| Rules {
            name: source.name.clone(),
            trust: source.trust.clone(),
            prune: source.prune,
            rank: source.rank,
            max_nodes: source.max_nodes,
        });
        // Jitter only: without a random source, the name tells nodes apart well enough.
        let seed = random::bits32().map_or_else(|_| start.node.as_str().len() as u64, u64::from);
        let clock = Clock::start();
        let cluster = config.name.unwrap_or_else(|| start.node.alive().to_owned());
        let machine = Config { own: start.node, allow, sources: rules.collect(), seed };
        Ok(Self {
            cluster,
            machine: Discovery::new(machine, clock.now()),
            clock,
            evidence,
            sources,
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            reports: mpsc::channel(QUEUED),
            answers,
            connected: start.connected.into_iter().collect(),
            absent: None,
        })
    }

    /// `Ok` when the owner ends.
    async fn run(&mut self, requests: &mut mpsc::Receiver<Result<Request, String>>) -> Result<(), String> {
        let evidence = std::mem::take(&mut self.evidence);
        self.say(Answer::Ready(evidence)).await?;
        loop {
            while let Some(action) = self.machine.poll_action() {
                self.act(action).await?;
            }
            let timeout = self.machine.poll_timeout();
            let event = tokio::select! {
                request = requests.recv() => match request {
                    None => return Ok(()),
                    Some(Err(why)) => return Err(why),
                    Some(Ok(request)) => Some(self.told(request)?),
                },
                report = self.reports.1.recv() => report,
                () = self.clock.sleep_until(timeout.unwrap_or(Mono(i64::MAX))), if timeout.is_some() => None,
                Some(_) = self.tasks.join_next(), if !self.tasks.is_empty() => None,
            };
            let now = self.clock.now();
            match event {
                Some(event) => self.machine.handle(now, event),
                None => self.machine.handle_timeout(now),
            }
        }
    }

    /// What the owner says, for the machine.
    fn told(&mut self, request: Request) -> Result<Event, String> {
        Ok(match request {
            Request::Start(_) => return Err("start came twice".to_owned()),
            Request::Up(node) => {
                self.connected.insert(node.clone());
                Event::Up(node)
            }
            Request::Down { node, deliberate } => {
                self.connected.remove(&node);
                Event::Down { node, deliberate }
            }
            Request::NotConnected { node, why } => Event::NotConnected { node, why, lasting: false },
        })
    }

    /// Ends all sources, and lets each take back what it has told others.
    async fn end(&mut self) {
        self.tasks.shutdown().await;
        let stopping = self.sources.iter().map(|source| Arc::clone(&source.strategy).stop());
        let mut stopping: JoinSet<()> = stopping.collect();
        let all = async { while stopping.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(TIDYING, all).await;
    }

    async fn say(&self, answer: Answer) -> Result<(), String> {
        self.answers.send(answer).await.map_err(|_| "the owner does not read any more".to_owned())
    }

    async fn act(&mut self, action: Action) -> Result<(), String> {
        match action {
            Action::Start(id) => {
                let Some(source) = self.sources.get(id) else { return Ok(()) };
                let reports = Reports::new(id, self.reports.0.clone());
                let task = self.tasks.spawn(Arc::clone(&source.strategy).run(reports));
                self.running.insert(id, task);
                Ok(())
            }
            Action::Stop(id) => {
                if let Some(running) = self.running.remove(&id) {
                    running.abort();
                }
                Ok(())
            }
            Action::Connect(node) if self.connected.contains(&node) => {
                // Nothing is to be dialled; the machine is told as if it had been.
                self.machine.handle(self.clock.now(), Event::Up(node));
                Ok(())
            }
            Action::Connect(node) => {
                let topology = self.topology(&node);
                self.say(Answer::Connect(node, topology)).await
            }
            Action::Disconnect(node) => {
                let topology = self.topology(&node);
                self.say(Answer::Disconnect(node, topology)).await
            }
            // Dials of the owner end by themselves.
            Action::Release(_) => Ok(()),
            Action::Report(report) => {
                if let Report::Absent { node, source, .. } = &report {
                    self.absent = Some((node.clone(), *source));
                }
                match self.report(report) {
                    Some(answer) => self.say(answer).await,
                    None => Ok(()),
                }
            }
        }
    }

    /// The first topology that names a node.
    fn topology(&self, node: &NodeName) -> String {
        let named = self.machine.nodes().find(|(name, ..)| *name == node).map(|(_, _, sources)| sources);
        let absent = self.absent.as_ref().filter(|(gone, _)| gone == node).map(|(_, source)| source);
        let first = named.as_ref().and_then(|sources| sources.first()).or(absent);
        first.and_then(|id| self.sources.get(*id)).map_or_else(String::new, |source| source.name.clone())
    }

    fn names(&self, sources: &[SourceId]) -> String {
        let names = sources.iter().filter_map(|id| self.sources.get(*id)).map(|source| source.name.as_str());
        names.collect::<Vec<_>>().join(", ")
    }

    /// What the owner is to log. Connections it logs itself.
    fn report(&self, report: Report) -> Option<Answer> {
        let topology = |source: SourceId| ("topology", binary(&self.names(&[source])));
        let (name, pairs) = match report {
            Report::Absent { node, source, disconnects } => (
                "absent",
                vec![
                    ("node", binary(node.as_str())),
                    topology(source),
                    ("disconnects", Term::from(disconnects)),
                ],
            ),
            Report::Refused { source, node, evidence } => (
                "refused",
                vec![("node", binary(node.as_str())), topology(source), ("evidence", binary(&evidence))],
            ),
            Report::TooMany { source, limit } => {
                ("too_many", vec![topology(source), ("limit", Term::from(limit as u64))])
            }
            Report::SourceFailed { source, why } => {
                ("source_failed", vec![topology(source), ("reason", binary(&why))])
            }
            Report::SourceRecovered { source } => ("source_recovered", vec![topology(source)]),
            Report::FailedOver { rank } => {
                let names: Vec<&str> = self
                    .sources
                    .iter()
                    .filter(|source| source.rank <= rank)
                    .map(|source| source.name.as_str())
                    .collect();
                ("failed_over", vec![("sources", binary(&names.join(", ")))])
            }
            Report::Formed { node_count, formation_time, sources } => (
                "formed",
                vec![
                    ("cluster_id", binary(&self.cluster)),
                    ("node_count", Term::from(node_count as u64)),
                    ("formation_time_ms", Term::from(formation_time.as_millis() as u64)),
                    ("strategy", binary(&self.names(&sources))),
                ],
            ),
            _ => return None,
        };
        Some(Answer::Report(name, pairs))
    }
}

#[cfg(test)]
mod tests;

//! Runs the sources of a node and carries out what the machine decides.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use foundation_cluster::Machine;
use foundation_cluster::discovery::{
    Action, AllowList, Config, Discovery, Event, Prune, Report, Source as Rules, SourceId, Trust,
};
use foundation_proto::Mono;
use foundation_proto::dist::NodeName;
use tokio::sync::{Notify, mpsc};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tracing::{Instrument, debug, info, info_span, warn};

use super::config::{Context, MAX_NODES, Mode, Profile};
use super::event::{DiscoveryEvent, DiscoveryEvents, Publisher};
use super::introduce::{self, Introduce};
use super::static_hosts::{self, StaticHosts};
use super::{ClusterConfig, Reports, Strategy, auto, sources};
use crate::config::{EpmdMode, NodeConfig};
use crate::event::Event as NodeEvent;
use crate::net::StartError;
use crate::net::endpoint::own_name;
use crate::net_kernel::NodeType;
use crate::node::{Node, NodeInner};
use crate::random;

/// Reports of sources that wait for the machine; then reporting waits.
const QUEUED: usize = 256;
/// Longer than any node runs.
const NEVER: Duration = Duration::from_secs(100 * 365 * 86_400);
/// How long sources have to tidy up when they end for good.
const TIDYING: Duration = Duration::from_secs(2);
/// How long sources may take to end when others take their place.
const ENDING: Duration = Duration::from_secs(2);

/// A source that is to run.
#[derive(Clone)]
#[non_exhaustive]
pub struct Source {
    /// Its name in reports.
    pub name: String,
    /// Our name of the strategy.
    pub kind: &'static str,
    /// What it does.
    pub strategy: Arc<dyn Strategy>,
    /// Which of its names may be dialled without an entry of the allow-list.
    pub trust: Trust,
    /// What happens to nodes that it names no more.
    pub prune: Prune,
    /// Its place in the order of failover.
    pub rank: usize,
    /// The most nodes that it can name.
    pub max_nodes: usize,
}

impl Source {
    /// A source of a program's own, whose names are all dialled.
    pub fn new(name: impl Into<String>, strategy: Arc<dyn Strategy>) -> Self {
        Self {
            name: name.into(),
            kind: "custom",
            strategy,
            trust: Trust::Named,
            prune: Prune::Forget,
            rank: 0,
            max_nodes: MAX_NODES,
        }
    }

    /// Which of its names may be dialled without an entry of the allow-list.
    #[must_use]
    pub fn trust(mut self, trust: Trust) -> Self {
        self.trust = trust;
        self
    }

    /// What happens to nodes that it names no more.
    #[must_use]
    pub fn prune(mut self, prune: Prune) -> Self {
        self.prune = prune;
        self
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("name", &self.name).field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// The sources that a configuration asks for, and why.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Plan {
    /// They.
    pub sources: Vec<Source>,
    /// What may be dialled whichever source names it.
    pub allow: AllowList,
    /// One line for each source.
    pub evidence: Vec<String>,
}

impl Plan {
    /// What `config` asks for on this machine.
    pub fn new(config: &ClusterConfig, context: &Context) -> Self {
        Self::in_environment(config, context, &auto::Environment::read())
    }

    /// What `config` asks for where there is this to look at.
    pub fn in_environment(
        config: &ClusterConfig,
        context: &Context,
        environment: &auto::Environment,
    ) -> Self {
        let mut plan = Self { sources: Vec::new(), allow: AllowList::new(), evidence: Vec::new() };
        let said = config.profile.map(Profile::said).or_else(|| environment.said.clone());
        let environment = &auto::Environment { said, ..environment.clone() };
        let mut entries = config.allow.clone();
        let written = match config.mode {
            Mode::Off => Vec::new(),
            Mode::Written => config.sources.clone(),
            Mode::Auto | Mode::Environment => {
                let choice = auto::choose(config.mode, environment, context);
                plan.evidence = choice.evidence;
                entries.extend(choice.allow);
                choice.sources
            }
        };
        plan.sources.extend(written.iter().map(|source| sources::build(source, context)));
        if config.mode == Mode::Written {
            let lines =
                plan.sources.iter().map(|source| format!("{}: written in the configuration", source.name));
            plan.evidence.extend(lines);
            if plan.sources.iter().any(|source| source.trust == Trust::Open) && entries.is_empty() {
                match environment.development(Mode::Environment) {
                    Ok(why) => {
                        entries.extend(environment.allowed(context));
                        plan.evidence.push(format!("allow: this host and its networks ({why})"));
                    }
                    Err(why) => plan.evidence.push(format!(
                        "allow: nothing is written and {why}, so no name is dialled that anybody can send"
                    )),
                }
            }
        }
        for entry in &entries {
            // Those of the configuration were checked when it was read.
            if let Err(error) = plan.allow.add(entry) {
                warn!(%error, "left out");
            }
        }
        if !config.join.is_empty() {
            let nodes: Vec<&str> = config.join.iter().map(NodeName::as_str).collect();
            plan.evidence.push(format!("join: {} in the configuration", nodes.join(", ")));
            let hosts = StaticHosts(static_hosts::Options { hosts: config.join.clone(), timeout: None });
            plan.sources.push(Source::new("join", Arc::new(hosts)).prune(Prune::Never));
        }
        plan
    }
}

/// The discovery of a node, while it runs.
#[derive(Default)]
pub(crate) struct Slot {
    /// What `[cluster]` asks for.
    configured: Mutex<Option<Running>>,
    /// What the program added.
    running: Mutex<Vec<AbortHandle>>,
    /// What has run and may have to tidy up, and whether the configuration asks for it.
    strategies: Mutex<Vec<(bool, Arc<dyn Strategy>)>>,
    events: Publisher,
}

/// An engine at work, and how to end it.
#[derive(Debug)]
struct Running {
    stop: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Slot {
    /// Stops all sources, and lets each take back what it has told others.
    pub(crate) async fn close(&self) {
        self.stop();
        self.tidy_up(|_| true).await;
    }

    /// Lets those strategies tidy up that are chosen by whether the configuration asks for them.
    async fn tidy_up(&self, chosen: impl Fn(bool) -> bool) {
        let strategies: Vec<_> = {
            let mut all = self.strategies.lock().unwrap_or_else(PoisonError::into_inner);
            all.extract_if(.., |(configured, _)| chosen(*configured)).map(|(_, strategy)| strategy).collect()
        };
        let mut tidying: JoinSet<()> = strategies.into_iter().map(Strategy::stop).collect();
        let all = async { while tidying.join_next().await.is_some() {} };
        if tokio::time::timeout(TIDYING, all).await.is_err() {
            debug!("a source has not tidied up within {TIDYING:?}");
        }
    }

    fn remember(&self, configured: bool, sources: &[Source]) {
        let strategies = sources.iter().map(|source| (configured, Arc::clone(&source.strategy)));
        self.strategies.lock().unwrap_or_else(PoisonError::into_inner).extend(strategies);
    }

    pub(crate) fn stop(&self) {
        drop(self.configured.lock().unwrap_or_else(PoisonError::into_inner).take());
        for running in self.running.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            running.abort();
        }
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").field("running", &self.running).finish_non_exhaustive()
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Node {
    /// Runs a source of the program's own beside the configured ones.
    pub fn discover(&self, source: Source) {
        let allow =
            AllowList::parse(self.config().cluster.allow.iter().map(String::as_str)).unwrap_or_default();
        self.inner().discovery.remember(false, std::slice::from_ref(&source));
        let (_stop, task) = self.run_sources(vec![source], allow, &self.config().cluster);
        let running = &self.inner().discovery.running;
        running.lock().unwrap_or_else(PoisonError::into_inner).push(task.abort_handle());
    }

    /// What discovery does from now on.
    pub fn discovery_events(&self) -> DiscoveryEvents {
        self.inner().discovery.events.subscribe()
    }

    /// Starts what `[cluster]` asks for.
    pub(crate) fn start_discovery(&self, config: &ClusterConfig) {
        let plan = Plan::new(config, &Context { cluster: config.name.clone(), ..Context::of(self) });
        for line in &plan.evidence {
            info!("discovery: {line}");
        }
        if !plan.sources.is_empty() {
            self.inner().discovery.remember(true, &plan.sources);
            let (stop, task) = self.run_sources(plan.sources, plan.allow, config);
            let configured = &self.inner().discovery.configured;
            *configured.lock().unwrap_or_else(PoisonError::into_inner) = Some(Running { stop, task });
        }
    }

    /// Ends the configured sources and starts those of another configuration. Connections stay as they are; a node that was
    /// disconnected on purpose is dialled again if a source names it. Sources of the program's own are not touched.
    pub async fn reload_discovery(&self, config: &ClusterConfig) {
        let running = self.inner().discovery.configured.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut running) = running {
            // What they announced is taken back before it is announced anew.
            running.stop.notify_one();
            let _ended = tokio::time::timeout(ENDING, &mut running.task).await;
        }
        self.inner().discovery.tidy_up(|configured| configured).await;
        self.start_discovery(config);
    }

    fn run_sources(
        &self,
        sources: Vec<Source>,
        allow: AllowList,
        config: &ClusterConfig,
    ) -> (Arc<Notify>, JoinHandle<()>) {
        let inner = self.inner();
        let own = inner.net_kernel.identity().name.clone();
        let cluster = config.name.as_deref().unwrap_or_else(|| own.alive()).to_owned();
        let mut engine = Engine::new(inner, own, cluster, sources, allow);
        engine.introductions = config.introduce.map(Introductions::new);
        let span = info_span!(parent: None, "discovery");
        let stop = Arc::new(Notify::new());
        let run = engine.run(self.events(), Arc::clone(&stop)).instrument(span);
        (stop, inner.runtime.spawn(run))
    }
}

impl Context {
    /// What the strategies of a node with this configuration would know of it, before it is started. As it listens nowhere, it is
    /// not announced.
    ///
    /// # Errors
    /// If it has no name.
    pub fn of_config(config: &NodeConfig) -> Result<Self, StartError> {
        Ok(Self {
            own: own_name(config)?,
            epmd_port: config.epmd_port,
            uses_epmd: config.epmd != EpmdMode::None,
            listens: Vec::new(),
            cluster: config.cluster.name.clone(),
        })
    }

    /// What the strategies of a node know of it.
    pub(crate) fn of(node: &Node) -> Self {
        let identity = node.inner().net_kernel.identity();
        Self {
            own: identity.name.clone(),
            epmd_port: identity.config.epmd_port,
            uses_epmd: identity.config.epmd != EpmdMode::None,
            listens: node.addresses(),
            cluster: identity.config.cluster.name.clone(),
        }
    }
}

/// When nodes are introduced to each other.
struct Introductions {
    rules: Introduce,
    due: Instant,
    round: Option<JoinHandle<BTreeSet<NodeName>>>,
    /// Who cannot be told anything, for as long as it is connected.
    left_out: BTreeSet<NodeName>,
    /// Who has come or gone since the round began: what it found of them is old.
    moved: BTreeSet<NodeName>,
}

impl Introductions {
    fn new(rules: Introduce) -> Self {
        // Without introductions nothing is ever due.
        let due = Instant::now() + if rules.connect { introduce::SOON } else { NEVER };
        Self { rules, due, round: None, left_out: BTreeSet::new(), moved: BTreeSet::new() }
    }

    /// When the next round begins; `None` while one is on its way.
    fn due(&self) -> Option<Instant> {
        self.round.is_none().then_some(self.due)
    }

    /// A node has come or gone.
    fn moved(&mut self, node: &NodeName) {
        self.left_out.remove(node);
        if self.round.is_some() {
            self.moved.insert(node.clone());
        }
        if self.rules.connect {
            self.due = self.due.min(Instant::now() + introduce::SOON);
        }
    }

    /// Until the round has ended, or the next is due.
    async fn wait(introductions: &mut Option<Self>, due: Option<Instant>) {
        match (introductions, due) {
            (Some(introductions), None) => {
                if let Some(round) = &mut introductions.round {
                    // What comes in while it ends is not lost: the loop begins anew.
                    introductions.left_out = round.await.unwrap_or_default();
                }
                let moved = std::mem::take(&mut introductions.moved);
                introductions.left_out.retain(|node| !moved.contains(node));
                introductions.round = None;
            }
            (Some(_), Some(due)) => tokio::time::sleep_until(due.into()).await,
            (None, _) => std::future::pending().await,
        }
    }
}

impl Drop for Introductions {
    fn drop(&mut self) {
        if let Some(round) = &self.round {
            round.abort();
        }
    }
}

/// One machine and its sources. It ends with the node.
struct Engine {
    node: Weak<NodeInner>,
    cluster: String,
    sources: Vec<Source>,
    machine: Discovery,
    running: BTreeMap<SourceId, AbortHandle>,
    tasks: JoinSet<()>,
    reports: (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    introductions: Option<Introductions>,
}

impl Engine {
    fn new(
        inner: &Arc<NodeInner>,
        own: NodeName,
        cluster: String,
        sources: Vec<Source>,
        allow: AllowList,
    ) -> Self {
        let rules = sources.iter().map(|source| Rules {
            name: source.name.clone(),
            trust: source.trust.clone(),
            prune: source.prune,
            rank: source.rank,
            max_nodes: source.max_nodes,
        });
        // Jitter only: without a random source, the name tells nodes apart well enough.
        let seed = random::bits32().map_or_else(|_| own.as_str().len() as u64, u64::from);
        let config = Config { own, allow, sources: rules.collect(), seed };
        Self {
            node: Arc::downgrade(inner),
            cluster,
            machine: Discovery::new(config, inner.net_kernel.identity().clock.now()),
            sources,
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            reports: mpsc::channel(QUEUED),
            introductions: None,
        }
    }

    async fn run(mut self, mut events: crate::event::Events, stop: Arc<Notify>) {
        loop {
            let Some(node) = self.node.upgrade() else { return };
            while let Some(action) = self.machine.poll_action() {
                self.act(&node, action);
            }
            let clock = node.net_kernel.identity().clock;
            self.introduce(&node);
            drop(node);
            let introduction = self.introductions.as_ref().and_then(Introductions::due);
            let timeout = self.machine.poll_timeout();
            let event = tokio::select! {
                report = self.reports.1.recv() => report,
                event = events.next() => match event {
                    Some(event) => self.noticed(event),
                    None => return,
                },
                () = stop.notified() => {
                    self.tasks.shutdown().await;
                    return;
                }
                () = clock.sleep_until(timeout.unwrap_or(Mono(i64::MAX))), if timeout.is_some() => None,
                Some(_) = self.tasks.join_next(), if !self.tasks.is_empty() => None,
                () = Introductions::wait(&mut self.introductions, introduction) => continue,
            };
            if let (Some(introductions), Some(Event::Up(peer) | Event::Down { node: peer, .. })) =
                (&mut self.introductions, &event)
            {
                introductions.moved(peer);
            }
            match event {
                Some(Event::Up(peer)) if !self.is_linked(&peer) => {
                    // It has come and gone already.
                    let event =
                        Event::NotConnected { node: peer, why: "it went at once".into(), lasting: false };
                    self.machine.handle(clock.now(), event);
                }
                Some(event) => self.machine.handle(clock.now(), event),
                None => self.machine.handle_timeout(clock.now()),
            }
        }
    }

    /// Begins a round of introductions if one is due.
    fn introduce(&mut self, node: &Arc<NodeInner>) {
        let Some(introductions) = &mut self.introductions else { return };
        if introductions.due().is_none_or(|due| due > Instant::now()) {
            return;
        }
        let up =
            self.machine.nodes().filter(|(_, state, _)| *state == "connected").map(|(name, ..)| name.clone());
        let nodes: Vec<NodeName> = up.collect();
        introductions.due = Instant::now() + introductions.rules.interval;
        if nodes.len() > 1 {
            let round = introduce::round(node.handle(&node.system()), nodes, introductions.left_out.clone());
            introductions.round = Some(node.runtime.spawn(round));
        }
    }

    fn is_linked(&self, peer: &NodeName) -> bool {
        self.node.upgrade().is_some_and(|node| node.net_kernel.link(peer.as_atom()).is_some())
    }

    /// What a connection that came or went means for the machine.
    fn noticed(&mut self, event: NodeEvent) -> Option<Event> {
        match event {
            NodeEvent::NodeUp { node, .. } => NodeName::try_from(&node).ok().map(Event::Up),
            NodeEvent::NodeDown { node, reason, .. } => NodeName::try_from(&node)
                .ok()
                .map(|node| Event::Down { node, deliberate: reason.is_deliberate() }),
            NodeEvent::Missed(_) => {
                self.look();
                None
            }
        }
    }

    /// Makes up for events that were missed.
    fn look(&mut self) {
        let Some(node) = self.node.upgrade() else { return };
        let now = node.net_kernel.identity().clock.now();
        let connected = node.net_kernel.nodes(NodeType::Connected);
        let named: Vec<NodeName> = self.machine.nodes().map(|(name, ..)| name.clone()).collect();
        for name in named {
            let event = if connected.contains(name.as_atom()) {
                Event::Up(name)
            } else {
                Event::Down { node: name, deliberate: false }
            };
            self.machine.handle(now, event);
        }
    }

    fn act(&mut self, node: &Arc<NodeInner>, action: Action) {
        match action {
            Action::Start(source) => self.start(node, source),
            Action::Stop(source) => {
                if let Some(running) = self.running.remove(&source) {
                    running.abort();
                }
            }
            Action::Connect(peer) => {
                let reports = self.reports.0.clone();
                let weak = Arc::downgrade(node);
                self.tasks.spawn_on(
                    async move {
                        let Some(node) = weak.upgrade() else { return };
                        let event = match node.net_kernel.connect(peer.as_atom()).await {
                            Ok(_) => Event::Up(peer),
                            Err(error) => {
                                let lasting = error.is_final();
                                Event::NotConnected { node: peer, why: error.to_string(), lasting }
                            }
                        };
                        drop(node);
                        let _ = reports.send(event).await;
                    },
                    &node.runtime,
                );
            }
            Action::Disconnect(peer) => {
                if self.introductions.as_ref().is_some_and(|introductions| introductions.rules.disconnect) {
                    let others = self
                        .machine
                        .nodes()
                        .filter(|(name, state, _)| *state == "connected" && **name != peer);
                    let others = others.map(|(name, ..)| name.clone()).collect();
                    let part = introduce::part(node.handle(&node.system()), others, peer.clone());
                    self.tasks.spawn_on(part, &node.runtime);
                }
                let weak = Arc::downgrade(node);
                self.tasks.spawn_on(
                    async move {
                        if let Some(node) = weak.upgrade() {
                            node.net_kernel.disconnect(peer.as_atom()).await;
                        }
                    },
                    &node.runtime,
                );
            }
            Action::Release(peer) => node.net_kernel.release(peer.as_atom()),
            Action::Report(report) => self.report(node, report),
        }
    }

    fn start(&mut self, node: &Arc<NodeInner>, source: SourceId) {
        let Some(spec) = self.sources.get(source) else { return };
        let strategy = Arc::clone(&spec.strategy);
        let reports = Reports::new(source, self.reports.0.clone());
        let span = info_span!("source", topology = spec.name);
        let task = self.tasks.spawn_on(strategy.run(reports).instrument(span), &node.runtime);
        self.running.insert(source, task);
    }

    fn names(&self, sources: &[SourceId]) -> String {
        let names: Vec<&str> = sources
            .iter()
            .filter_map(|id| self.sources.get(*id))
            .map(|source| source.name.as_str())
            .collect();
        names.join(", ")
    }

    fn report(&self, node: &Arc<NodeInner>, report: Report) {
        let events = &node.discovery.events;
        match report {
            Report::Connected { node, sources, duration } => {
                let topology = self.names(&sources);
                info!(topology, "connected to {node}");
                events.publish(DiscoveryEvent::Connected { node, topology, duration });
            }
            Report::NotConnected { node, sources, why, failures } => {
                let topology = self.names(&sources);
                // Who is away for a day must not fill the log.
                if failures == 1 {
                    warn!(topology, reason = why, "unable to connect to {node}");
                } else {
                    debug!(topology, reason = why, failures, "unable to connect to {node}");
                }
                events.publish(DiscoveryEvent::NotConnected { node, topology, reason: why });
            }
            Report::Lost { node, sources } => {
                debug!(topology = self.names(&sources), "lost {node}");
            }
            Report::Absent { node, source, disconnects } => {
                let topology = self.names(&[source]);
                info!(topology, disconnects, "{node} is not named any more");
                if disconnects {
                    events.publish(DiscoveryEvent::Disconnected { node, topology });
                }
            }
            Report::Refused { source, node, evidence } => {
                let topology = self.names(&[source]);
                // Quoted, so that a name cannot be a list of entries.
                let entry = format!("{:?}", node.as_str());
                warn!(
                    topology,
                    evidence,
                    "{node} is not dialled: anybody on the network can name nodes in this way. If it belongs to the cluster, \
                     add to [cluster]: allow = [{entry}]"
                );
                events.publish(DiscoveryEvent::Refused { node, topology, evidence });
            }
            Report::TooMany { source, limit } => {
                let topology = self.names(&[source]);
                warn!(
                    topology,
                    limit, "this source names more nodes than it may; the rest is ignored (max_nodes)"
                );
            }
            Report::SourceFailed { source, why } => {
                let topology = self.names(&[source]);
                warn!(topology, reason = why, "no answer; what it said before stands");
                events.publish(DiscoveryEvent::SourceFailed { topology, reason: why });
            }
            Report::SourceRecovered { source } => {
                let topology = self.names(&[source]);
                info!(topology, "answers again");
                events.publish(DiscoveryEvent::SourceRecovered { topology });
            }
            Report::FailedOver { rank } => {
                let names: Vec<&str> = self
                    .sources
                    .iter()
                    .filter(|source| source.rank <= rank)
                    .map(|source| source.name.as_str())
                    .collect();
                warn!(sources = names.join(", "), "failover: these sources run now");
            }
            Report::Formed { node_count, formation_time, sources } => {
                let strategy = self.names(&sources);
                info!(
                    cluster_id = self.cluster,
                    node_count,
                    formation_time_ms = formation_time.as_millis() as u64,
                    strategy,
                    "Foundation cluster formed"
                );
                let cluster_id = self.cluster.clone();
                events.publish(DiscoveryEvent::Formed { cluster_id, node_count, formation_time, strategy });
            }
            _ => {}
        }
    }
}

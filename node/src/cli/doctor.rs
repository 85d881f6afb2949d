//! `foundation doctor NODE`: everything that can be wrong between two nodes, step by step, each with its remedy.
//!
//! The steps are those of a connection, so that the first that fails is the cause: the two names, the host, its EPMD, the registration, the
//! port, the handshake (TLS, flags, status, cookie), and then what can differ between two nodes that are connected: flags, tick time, clock.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use foundation_node::Node;
use foundation_node::config::{DistAutoConnect, NameDomain, NodeConfig, Reconnect};
use foundation_node::discovery::ClusterConfig;
use foundation_node::epmd::client;
use foundation_node::names;
use foundation_node::net::{ConnectError, Link};
use foundation_proto::Error;
use foundation_proto::dist::{DistributionFlags, NameStyle, NodeName};
use foundation_proto::epmd::NodeInfo;
use foundation_proto::error::{ClosedBy, PeerIncompatible, PeerMisbehaved};
use foundation_proto::etf::Term;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::args::Options;
use super::exit::{self, Failure};
use super::{json, terms};

/// How long the resolver, an EPMD and the port of a node may each take.
const STEP: Duration = Duration::from_secs(7);
/// How far two clocks may be apart before it is worth a word. Nothing of Erlang's distribution depends on it.
const CLOCKS: Duration = Duration::from_secs(2);
/// Names that an EPMD knows and that are shown.
const MAX_NAMES: usize = 20;

/// How a step ended.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Ok,
    Warning,
    Failed,
    Skipped,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// What a step has found.
struct Finding {
    step: &'static str,
    state: State,
    what: String,
}

/// The steps so far.
struct Doctor {
    findings: Vec<Finding>,
    code: u8,
}

impl Doctor {
    fn add(&mut self, step: &'static str, state: State, what: impl Into<String>) {
        self.findings.push(Finding { step, state, what: what.into() });
    }

    fn ok(&mut self, step: &'static str, what: impl Into<String>) {
        self.add(step, State::Ok, what);
    }

    /// The first failure decides the exit code: what follows from it is none of its own.
    fn failed(&mut self, step: &'static str, code: u8, what: impl Into<String>) {
        if self.code == exit::OK {
            self.code = code;
        }
        self.add(step, State::Failed, what);
    }
}

pub(crate) async fn run(target: Option<&str>, as_json: bool, options: &Options) -> Result<u8, Failure> {
    let (mut config, warnings) = options.configuration()?;
    for warning in warnings {
        eprintln!("foundation: warning: {warning}");
    }
    // As for every command, a name from the environment or the file is that of the node that runs here.
    let own = options.name.as_ref().or(options.sname.as_ref()).cloned();
    let running = config.name.take();
    let target = match (target, running) {
        (Some(target), running) => {
            if own.is_none() && config.name_domain.is_none() {
                config.name_domain = running.as_deref().and_then(domain);
            }
            target.to_owned()
        }
        (None, Some(running)) if own.is_none() => running,
        _ => return Err(Failure::Usage("no node given; name the one to examine".to_owned())),
    };
    let mut doctor = Doctor { findings: Vec::new(), code: exit::OK };
    doctor.examine(&target, own, config).await;
    let Doctor { findings, code } = doctor;
    if as_json {
        let steps = findings.iter().map(|finding| {
            json::map(vec![
                ("step", json::text(finding.step)),
                ("state", json::text(finding.state.word())),
                ("finding", json::text(&finding.what)),
            ])
        });
        let healthy = Term::atom(if code == exit::OK { "true" } else { "false" });
        terms::line(&json::object(vec![
            ("node", json::text(&target)),
            ("healthy", healthy),
            ("steps", json::list(steps)),
        ]));
    } else {
        for finding in &findings {
            let what = finding.what.replace('\n', &format!("\n{:20}", ""));
            terms::line(&format!("{:8} {:10} {what}", finding.state.word(), finding.step));
        }
    }
    Ok(code)
}

/// The style that a name written out has.
fn domain(name: &str) -> Option<NameDomain> {
    NodeName::parse(name).ok().map(|name| name_domain(name.style()))
}

fn name_domain(style: NameStyle) -> NameDomain {
    match style {
        NameStyle::Long => NameDomain::LongNames,
        NameStyle::Short => NameDomain::ShortNames,
    }
}

impl Doctor {
    async fn examine(&mut self, target: &str, own: Option<String>, config: NodeConfig) {
        let Some(peer) = self.names(target, own.as_deref(), &config) else { return };
        // A name of the other style was complained of; for the rest one of the peer's own will do.
        let own = own.filter(|_| self.code == exit::OK);
        let Some(ips) = self.host(&peer, &config).await else { return };
        let Some(address) = self.lookup(&peer, &ips, &config).await else { return };
        if !self.port(address).await {
            return;
        }
        self.connect(&peer, own, config).await;
    }

    /// Both names, each by itself and together.
    fn names(&mut self, target: &str, own: Option<&str>, config: &NodeConfig) -> Option<NodeName> {
        let peer = if target.contains('@') {
            NodeName::parse(target).map_err(|why| format!("{target:?} is no node name: {why}"))
        } else {
            names::complete(target, NameStyle::Short).map_err(|error| error.to_string())
        };
        let peer = match peer {
            Ok(peer) => peer,
            Err(why) => {
                self.failed("name", exit::USAGE, why);
                return None;
            }
        };
        let style = match (config.name_domain, own.and_then(|own| NodeName::parse(own).ok())) {
            (Some(domain), _) => Some(NameStyle::from(domain)),
            (None, Some(own)) => Some(own.style()),
            (None, None) => None,
        };
        let word = |style| match style {
            NameStyle::Long => "long",
            NameStyle::Short => "short",
        };
        match style.map(|style| names::check_peer(&peer, style)) {
            Some(Err(error)) => {
                let mut text = error.to_string();
                if peer.style() == NameStyle::Short && peer.host() == "localhost" {
                    text.push_str(&format!(
                        "\nA host without a dot makes a short name, also with -name: use --sname {peer} on all sides, or \
                         --name {}@127.0.0.1.",
                        peer.alive()
                    ));
                }
                self.failed("name", exit::CONFIG, text);
            }
            Some(Ok(())) => {
                self.ok("name", format!("{peer} and this side both have {} names", word(peer.style())))
            }
            None => {
                let other = match peer.style() {
                    NameStyle::Long => "-sname",
                    NameStyle::Short => "-name",
                };
                self.ok(
                    "name",
                    format!("{peer} is a {} name; a node with {other} cannot talk to it", word(peer.style())),
                );
            }
        }
        Some(peer)
    }

    async fn host(&mut self, peer: &NodeName, config: &NodeConfig) -> Option<Vec<IpAddr>> {
        let host = peer.host();
        let ips = match timeout(STEP, names::resolve(host)).await {
            Ok(Ok(ips)) => ips,
            Ok(Err(error)) => {
                self.failed(
                    "host",
                    exit::UNREACHABLE,
                    format!(
                        "{host:?} cannot be resolved: {error}\nAdd it to DNS or to /etc/hosts of this machine, or give the \
                         node a name with an IP address."
                    ),
                );
                return None;
            }
            Err(_) => {
                self.failed(
                    "host",
                    exit::TIMEOUT,
                    format!(
                        "the resolver has not answered for {host:?} within {STEP:?}\nSee /etc/resolv.conf."
                    ),
                );
                return None;
            }
        };
        let usable: Vec<IpAddr> = ips.iter().copied().filter(|ip| config.proto_dist.uses(ip)).collect();
        let list = |ips: &[IpAddr]| ips.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if usable.is_empty() {
            self.failed(
                "host",
                exit::CONFIG,
                format!("{host} leads to {} only, and proto_dist asks for IPv6", list(&ips)),
            );
            return None;
        }
        let place = if usable.iter().all(IpAddr::is_loopback) { ", this machine itself" } else { "" };
        self.ok("host", format!("{host} leads to {}{place}", list(&usable)));
        Some(usable)
    }

    /// Where the node listens: from the EPMD of its host, or by agreement.
    async fn lookup(&mut self, peer: &NodeName, ips: &[IpAddr], config: &NodeConfig) -> Option<SocketAddr> {
        if let (Some(port), Some(ip)) = (config.erl_epmd_node_listen_port, ips.first()) {
            self.add("epmd", State::Skipped, format!("not used here: every node is expected at port {port}"));
            return Some(SocketAddr::new(*ip, port));
        }
        let mut errors = Vec::new();
        let mut without = None;
        for ip in ips {
            let epmd = SocketAddr::new(*ip, config.epmd_port);
            match timeout(STEP, client::lookup(epmd, peer.alive())).await {
                Ok(Ok(Some(node))) => {
                    self.ok("epmd", format!("it answers at {epmd}"));
                    self.registered(peer, &node);
                    return Some(SocketAddr::new(*ip, node.port));
                }
                Ok(Ok(None)) => without = without.or(Some(epmd)),
                Ok(Err(error)) => errors.push(error.to_string()),
                Err(_) => errors.push(format!("{epmd} has not answered within {STEP:?}")),
            }
        }
        let Some(epmd) = without else {
            self.failed(
                "epmd",
                exit::UNREACHABLE,
                format!(
                    "{}\nNo Erlang node with distribution runs there, or a firewall is between, or it uses another port \
                     (ERL_EPMD_PORT; here {}).",
                    errors.join("\n"),
                    config.epmd_port
                ),
            );
            return None;
        };
        self.ok("epmd", format!("it answers at {epmd}"));
        let known = client::names(epmd).await.map(|list| list.nodes).unwrap_or_default();
        let mut names: Vec<String> = known.into_iter().map(|(name, _)| name).take(MAX_NAMES).collect();
        names.sort();
        let names = if names.is_empty() { "no node at all".to_owned() } else { names.join(", ") };
        self.failed(
            "registered",
            exit::UNREACHABLE,
            format!(
                "no node named {} is registered there; it knows {names}\nStart it with -name or -sname and this name; a name is \
                 exact, also in the case of its letters.",
                peer.alive()
            ),
        );
        None
    }

    fn registered(&mut self, peer: &NodeName, node: &NodeInfo) {
        let NodeInfo { port, lowest_version, highest_version, .. } = node;
        if *highest_version < 6 {
            self.failed(
                "registered",
                exit::UNREACHABLE,
                format!(
                    "{} speaks versions {lowest_version} to {highest_version} of the handshake: that is OTP 22 or older, and \
                     OTP 23 is the oldest that works",
                    peer.alive()
                ),
            );
        } else {
            self.ok("registered", format!("{} listens at port {port}", peer.alive()));
        }
    }

    async fn port(&mut self, address: SocketAddr) -> bool {
        match timeout(STEP, TcpStream::connect(address)).await {
            Ok(Ok(_)) => {
                self.ok("port", format!("{address} accepts connections"));
                true
            }
            Ok(Err(error)) => {
                let remedy = match error.kind() {
                    std::io::ErrorKind::ConnectionRefused => {
                        "The node has just died, or does not listen on this address (inet_dist_use_interface)."
                    }
                    _ => {
                        "A firewall or a route: open the port of the node (inet_dist_listen_min and _max fix it)."
                    }
                };
                self.failed(
                    "port",
                    exit::UNREACHABLE,
                    format!("{address} cannot be reached: {error}\n{remedy}"),
                );
                false
            }
            Err(_) => {
                self.failed(
                    "port",
                    exit::TIMEOUT,
                    format!(
                        "{address} has not answered within {STEP:?}\nA firewall drops the packets: open the port of the node \
                         (inet_dist_listen_min and _max fix it)."
                    ),
                );
                false
            }
        }
    }

    async fn connect(&mut self, peer: &NodeName, own: Option<String>, mut config: NodeConfig) {
        let encrypted = config.proto_dist.is_tls();
        let ticktime = config.net_ticktime;
        let patience = Duration::from_secs(u64::from(config.limits.handshake_seconds)) + STEP;
        let own = match own {
            // Its connections would be replaced by this one.
            Some(own) if is_running(&own, peer.style(), &config).await => {
                self.ok("this side", format!("{own} is running; the rest is tried under another name"));
                None
            }
            own => own,
        };
        config.name_domain = Some(name_domain(peer.style()));
        config.name = Some(own.unwrap_or_else(|| {
            format!("foundation_doctor_{}@{}", std::process::id(), names::host_for_peer(peer))
        }));
        config.hidden = true;
        config.dist_listen = false;
        config.cluster = ClusterConfig::default();
        config.reconnect = Reconnect::Never;
        config.dist_auto_connect = DistAutoConnect::Never;
        let node = match Node::start(config).await {
            Ok(node) => node,
            Err(error) => {
                let failure = Failure::Start(error);
                let text = failure.to_string();
                self.failed("this side", failure.code(), text.trim_start_matches("foundation: "));
                return;
            }
        };
        let since = Instant::now();
        match timeout(patience, node.connect(peer.as_str())).await {
            Ok(Ok(link)) => {
                self.connected(&link, since.elapsed(), encrypted);
                self.compare(&node, peer, ticktime).await;
            }
            Ok(Err(error)) => {
                let step = step(&error);
                if step != "tls" && encrypted {
                    self.ok("tls", "the session is there");
                }
                let text = explain(&error);
                self.failed(step, Failure::Connect { node: peer.to_string(), error }.code(), text);
            }
            Err(_) => self.failed("handshake", exit::TIMEOUT, format!("it was not done within {patience:?}")),
        }
        node.stop().await;
    }

    fn connected(&mut self, link: &Link, took: Duration, encrypted: bool) {
        let info = link.peer();
        match &info.tls {
            Some(tls) => self.ok("tls", format!("{}, {}", tls.version, tls.cipher_suite)),
            None if encrypted => {}
            None => self.ok("tls", "none on both sides: whoever sees this traffic can take over the cluster"),
        }
        self.ok("handshake", format!("connected in {} ms", took.as_millis()));
        self.ok("cookie", "the same on both sides");
        let missing = DistributionFlags::HIDDEN.without(info.flags);
        if missing.is_empty() {
            self.ok("flags", "all that this program knows");
        } else {
            self.ok(
                "flags",
                format!("all that are needed; not {missing}, as the peer's release is an older one"),
            );
        }
    }

    /// What can differ without a connection failing for it.
    async fn compare(&mut self, node: &Node, peer: &NodeName, ticktime: u32) {
        let ask = |module: &'static str, function: &'static str, arguments: Vec<Term>| async move {
            node.erpc(peer.as_atom(), module, function, arguments, STEP).await
        };
        match ask("erlang", "system_info", vec![Term::atom("otp_release")]).await {
            Ok(release) => self.ok("release", format!("OTP {}", release.to_string().trim_matches('"'))),
            Err(error) => self.add("release", State::Skipped, format!("not told: {error}")),
        }
        match ask("net_kernel", "get_net_ticktime", Vec::new()).await {
            Ok(Term::Integer(theirs)) if theirs == i64::from(ticktime) => {
                self.ok("ticktime", format!("{ticktime} s on both sides"));
            }
            Ok(Term::Integer(theirs)) => self.add(
                "ticktime",
                State::Warning,
                format!(
                    "net_ticktime is {theirs} s there and {ticktime} s here\nWith the same on all nodes a lost connection is \
                     noticed by both at about the same time; the side with the smaller one gives up a quiet peer first."
                ),
            ),
            Ok(other) => self.add("ticktime", State::Warning, format!("it is being changed there: {other}")),
            Err(error) => self.add("ticktime", State::Skipped, format!("not told: {error}")),
        }
        let asked = (SystemTime::now(), Instant::now());
        match ask("erlang", "system_time", vec![Term::atom("millisecond")]).await {
            Ok(Term::Integer(theirs)) => {
                let here = asked.0.duration_since(UNIX_EPOCH).unwrap_or_default() + asked.1.elapsed() / 2;
                let theirs = Duration::from_millis(u64::try_from(theirs).unwrap_or(0));
                let apart = theirs.abs_diff(here);
                let text = format!("{:.1} s apart, the question included", apart.as_secs_f64());
                if apart > CLOCKS {
                    self.add(
                        "clock",
                        State::Warning,
                        format!("{text}\nConnections do not mind; certificates, logs and timestamps do. Run NTP on both."),
                    );
                } else {
                    self.ok("clock", text);
                }
            }
            Ok(other) => self.add("clock", State::Skipped, format!("an answer that is no time: {other}")),
            Err(error) => self.add("clock", State::Skipped, format!("not told: {error}")),
        }
    }
}

/// Whether a node of this name is registered with the EPMD of its host.
async fn is_running(own: &str, style: NameStyle, config: &NodeConfig) -> bool {
    let Ok(name) = names::complete(own, style) else { return false };
    let Ok(Ok(ips)) = timeout(STEP, names::resolve(name.host())).await else { return false };
    for ip in ips {
        let answer = timeout(STEP, client::lookup(SocketAddr::new(ip, config.epmd_port), name.alive())).await;
        if matches!(answer, Ok(Ok(Some(_)))) {
            return true;
        }
    }
    false
}

/// The step of a connection that this error belongs to.
fn step(error: &ConnectError) -> &'static str {
    match error {
        ConnectError::Tls { .. } => "tls",
        ConnectError::Handshake { error, .. } => match error {
            Error::PeerIncompatible(PeerIncompatible::SpeaksTls) => "tls",
            Error::PeerMisbehaved(PeerMisbehaved::WrongCookie) => "cookie",
            Error::PeerIncompatible(PeerIncompatible::MissingFlags(_) | PeerIncompatible::Version(_)) => {
                "flags"
            }
            _ => "handshake",
        },
        ConnectError::Resolve { .. } => "host",
        ConnectError::Epmd { .. } => "epmd",
        ConnectError::NotRegistered { .. } => "registered",
        ConnectError::PortClosed { .. } => "port",
        _ => "handshake",
    }
}

/// What the error says, and where that is not enough the remedy.
fn explain(error: &ConnectError) -> String {
    if let ConnectError::Handshake {
        address,
        error: Error::LimitExceeded { limit: "max_handshake_message", .. },
    } = error
    {
        return format!(
            "what listens at {address} does not speak Erlang's distribution\nAnother program listens on the port that the EPMD \
             has for this name; `epmd -names` there shows it."
        );
    }
    let text = error.to_string();
    let more = match error {
        ConnectError::Handshake { error, .. } => match error {
            Error::PeerIncompatible(PeerIncompatible::MissingFlags(_)) => {
                "\nIts release is too old for this program, or it is another program: OTP 23 is the oldest that works."
            }
            Error::Malformed(_)
            | Error::PeerMisbehaved(PeerMisbehaved::UnexpectedHandshakeMessage { .. }) => {
                "\nThat is no Erlang node: another program listens on the port that the EPMD has for this name."
            }
            Error::Closed(ClosedBy::Peer) => {
                "\nIf another program listens on the port that the EPMD has for this name, this is how it looks, too."
            }
            Error::PeerMisbehaved(PeerMisbehaved::HandshakeTimeout) => {
                "\nThe node stands still, or what listens there is no Erlang node."
            }
            _ => "",
        },
        ConnectError::TimedOut { .. } => "\nThe node stands still, or what listens there is no Erlang node.",
        _ => "",
    };
    text + more
}

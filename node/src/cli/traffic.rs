//! Groups, topics and channels as the other node and its neighbours have them.
//!
//! The command joins as a hidden node of its own. What a node broadcasts reaches the nodes that it is connected to, so the command also
//! connects to the nodes that its target is connected to, unless it is told not to; those that cannot be reached are left out.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use foundation_node::service::channels::{Channel, Metrics, Route};
use foundation_node::service::pubsub::PubSub;
use foundation_proto::Limits;
use foundation_proto::etf::{Atom, Term};
use tracing::debug;

use super::args::{Options, Topic};
use super::exit::Failure;
use super::remote::{failure, function, leave, rpc};
use super::session::Session;
use super::terms;

/// The PubSub of the channels.
const CHANNELS: &str = "Foundation.PubSub";
/// How long a neighbour of the target may take to connect.
const NEIGHBOUR: Duration = Duration::from_secs(3);
/// Between two looks at something that is on its way.
const LOOK: Duration = Duration::from_millis(5);

/// `foundation groups NODE SCOPE`.
pub(crate) async fn groups(node: &str, scope: &str, options: &Options) -> Result<u8, Failure> {
    let name = terms::name(scope)?;
    let session = Session::open(Some(node), options).await?;
    let result = list(&session, &name, options).await;
    leave(session, result).await
}

async fn list(session: &Session, scope: &Atom, options: &Options) -> Result<(), Failure> {
    let none = || Failure::Remote(format!("{} has no pg scope {}", session.target.as_str(), scope.as_str()));
    if is_not_registered(session, scope).await? {
        return Err(none());
    }
    let groups =
        session.node.groups(scope.as_str()).map_err(|error| failure(&error, session, "starting pg"))?;
    let known = wait(session, || groups.nodes().contains(&session.target)).await;
    if !known {
        return Err(none());
    }
    for group in groups.which_groups() {
        let members = groups.members(&group);
        let nodes: BTreeSet<&str> = members.iter().map(|pid| pid.node.as_str()).collect();
        let nodes: Vec<&str> = nodes.into_iter().collect();
        let group = one_line(&group, options, session.node.name());
        terms::line(&format!("{group}\t{}\t{}", members.len(), nodes.join(",")));
    }
    Ok(())
}

/// `foundation subscribe NODE TOPIC`.
pub(crate) async fn subscribe(topic: &Topic, count: Option<u64>, options: &Options) -> Result<u8, Failure> {
    let name = topic_name(topic)?;
    let session = Session::open(Some(&topic.node), options).await?;
    let result = listen(&session, topic, &name, count, options).await;
    leave_channels(&session, topic.pubsub.is_none());
    leave(session, result).await
}

async fn listen(
    session: &Session,
    topic: &Topic,
    name: &str,
    count: Option<u64>,
    options: &Options,
) -> Result<(), Failure> {
    let pubsub = join(session, topic.pubsub.as_deref(), topic.one).await?;
    let mut subscription = pubsub.subscribe(name).map_err(|error| failure(&error, session, "subscribing"))?;
    wait_until_known(session, &pubsub, topic.pubsub.as_deref().unwrap_or(CHANNELS)).await?;
    eprintln!("foundation: subscribed to {name} on {}", shown(&pubsub, session));
    let mut events = session.node.events();
    let mut left = count;
    while left != Some(0) {
        tokio::select! {
            message = subscription.next() => {
                let message = message.map_err(|error| failure(&error, session, "receiving"))?;
                let term = message
                    .to_term(&Limits::default())
                    .map_err(|error| Failure::Remote(format!("a message that cannot be shown: {error}")))?;
                terms::line(&one_line(&term, options, session.node.name()));
                left = left.map(|left| left - 1);
            }
            event = events.next() => lost(event, session)?,
            interrupted = tokio::signal::ctrl_c() => {
                debug!(?interrupted, "interrupted");
                return Ok(());
            }
        }
    }
    Ok(())
}

/// `foundation broadcast NODE TOPIC TERM`.
pub(crate) async fn broadcast(topic: &Topic, term: &str, options: &Options) -> Result<u8, Failure> {
    let name = topic_name(topic)?;
    let message = terms::parse(term, options.format)?;
    let session = Session::open(Some(&topic.node), options).await?;
    let result = send(&session, topic, &name, &message).await;
    leave_channels(&session, topic.pubsub.is_none());
    leave(session, result).await
}

async fn send(session: &Session, topic: &Topic, name: &str, message: &Term) -> Result<(), Failure> {
    let wrong = |error: &foundation_node::Error| failure(error, session, "broadcasting");
    let pubsub = join(session, topic.pubsub.as_deref(), topic.one).await?;
    wait_until_known(session, &pubsub, topic.pubsub.as_deref().unwrap_or(CHANNELS)).await?;
    match topic.topic.parse::<Channel>().ok().filter(|_| topic.pubsub.is_none()) {
        Some(channel) => {
            let channels = session.node.channels().map_err(|error| wrong(&error))?;
            let route = Route::default().channel(channel).timeout(session.timeout);
            let sent = channels.route_message(message, &route).await;
            let receipt = sent.map_err(|error| Failure::Remote(format!("broadcasting: {error}")))?;
            if receipt.pending > 0 {
                return Err(Failure::Timeout(format!(
                    "{} nodes did not acknowledge the message within {:?}",
                    receipt.pending, session.timeout
                )));
            }
            Ok(())
        }
        None => pubsub.broadcast(name, message).await.map_err(|error| wrong(&error)),
    }
}

/// `foundation channels NODE`.
pub(crate) async fn channels(
    node: &str,
    one: bool,
    interval: f64,
    count: Option<u64>,
    options: &Options,
) -> Result<u8, Failure> {
    let interval = Duration::try_from_secs_f64(interval)
        .ok()
        .filter(|interval| !interval.is_zero())
        .ok_or_else(|| Failure::Usage(format!("--interval {interval} is no number of seconds")))?;
    let session = Session::open(Some(node), options).await?;
    let result = watch(&session, one, interval, count).await;
    leave_channels(&session, true);
    leave(session, result).await
}

async fn watch(session: &Session, one: bool, interval: Duration, count: Option<u64>) -> Result<(), Failure> {
    let pubsub = join(session, None, one).await?;
    wait_until_known(session, &pubsub, CHANNELS).await?;
    let channels =
        session.node.channels().map_err(|error| failure(&error, session, "starting the channels"))?;
    eprintln!("foundation: watching the channels of {}", shown(&pubsub, session));
    terms::line("channel      messages         bytes      msg/s       bytes/s  latency");
    let mut before = channels.metrics();
    let mut events = session.node.events();
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + interval, interval);
    let mut left = count;
    while left != Some(0) {
        tokio::select! {
            _ = ticks.tick() => {
                let now = channels.metrics();
                for (channel, metrics) in &now {
                    let was = before.get(channel).copied().unwrap_or_default();
                    terms::line(&report(*channel, metrics, &was, interval));
                }
                before = now;
                left = left.map(|left| left - 1);
            }
            event = events.next() => lost(event, session)?,
            interrupted = tokio::signal::ctrl_c() => {
                debug!(?interrupted, "interrupted");
                return Ok(());
            }
        }
    }
    Ok(())
}

fn report(channel: Channel, now: &Metrics, before: &Metrics, interval: Duration) -> String {
    let rate = |now: u64, before: u64| now.saturating_sub(before) as f64 / interval.as_secs_f64();
    let mut line = format!(
        "{:<10} {:>10} {:>13} {:>10.1} {:>13.1}",
        channel.name(),
        now.received,
        now.bytes_received,
        rate(now.received, before.received),
        rate(now.bytes_received, before.bytes_received)
    );
    if let Some(latency) = now.latency {
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        // Writing to a string cannot fail.
        let _ = write!(line, "  {:.3} ms ±{:.3}", millis(latency.mean), millis(latency.clock_error));
    }
    line
}

/// The topic of a channel; any topic of a PubSub that is named.
fn topic_name(topic: &Topic) -> Result<String, Failure> {
    if topic.pubsub.is_some() {
        return Ok(topic.topic.clone());
    }
    let channel: Channel = topic
        .topic
        .parse()
        .map_err(|error| Failure::Usage(format!("{error}; for another topic, give --pubsub NAME")))?;
    Ok(channel.topic().to_owned())
}

/// Starts the PubSub here and connects to whom it is about.
async fn join(session: &Session, pubsub: Option<&str>, one: bool) -> Result<PubSub, Failure> {
    let wrong = |error: &foundation_node::Error| failure(error, session, "starting the PubSub");
    let pubsub = match pubsub {
        Some(name) => session.node.pubsub(name).map_err(|error| wrong(&error))?,
        None => session.node.channels().map_err(|error| wrong(&error))?.pubsub().clone(),
    };
    if !one {
        let connected = Term::Atom(Atom::new_static("connected"));
        let nodes = rpc(session, function("erlang", "nodes", vec![connected])).await?;
        for node in nodes.as_list().unwrap_or_default().iter().filter_map(Term::as_atom) {
            if node == session.node.name() {
                continue;
            }
            let connected = tokio::time::timeout(NEIGHBOUR, session.node.connect(node.as_str())).await;
            // Other commands among them, which nobody can connect to.
            debug!(node = node.as_str(), connected = matches!(connected, Ok(Ok(_))), "a neighbour");
        }
    }
    Ok(pubsub)
}

/// Waits until the target sends to us, and we to it.
async fn wait_until_known(session: &Session, pubsub: &PubSub, name: &str) -> Result<(), Failure> {
    let none = || {
        Failure::Remote(format!(
            "{} has no Phoenix.PubSub named {name} (--pubsub NAME), or did not answer within {:?}",
            session.target.as_str(),
            session.timeout
        ))
    };
    let scope = Atom::new_static("Elixir.Phoenix.PubSub");
    if is_not_registered(session, &scope).await? {
        return Err(none());
    }
    if !wait(session, || pubsub.nodes().contains(&session.target)).await {
        return Err(none());
    }
    let deadline = tokio::time::Instant::now() + session.timeout;
    loop {
        let group = Term::Atom(terms::name(&format!("{}.Adapter", name))?);
        let members =
            rpc(session, function("pg", "get_members", vec![Term::Atom(scope.clone()), group])).await;
        match members {
            Ok(Term::List(members)) => {
                let ours = |pid: &Term| pid.as_pid().is_some_and(|pid| pid.node == *session.node.name());
                if members.iter().any(ours) {
                    return Ok(());
                }
            }
            // A node of ours answers no such call; it has our members as soon as it has read what was sent before.
            _ => return Ok(()),
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(none());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Whether the target says that it has no process of that name; one that does not answer such questions may have.
async fn is_not_registered(session: &Session, name: &Atom) -> Result<bool, Failure> {
    match rpc(session, function("erlang", "whereis", vec![Term::Atom(name.clone())])).await {
        Ok(found) => Ok(found.is_atom("undefined")),
        Err(Failure::Remote(_)) => Ok(false),
        Err(failure) => Err(failure),
    }
}

async fn wait(session: &Session, condition: impl Fn() -> bool) -> bool {
    let looking = async {
        while !condition() {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(session.timeout, looking).await.is_ok()
}

fn lost(event: Option<foundation_node::event::Event>, session: &Session) -> Result<(), Failure> {
    match event {
        Some(foundation_node::event::Event::NodeDown { node, .. }) if node == session.target => {
            Err(Failure::Unreachable(format!("the connection to {} was lost", node.as_str())))
        }
        _ => Ok(()),
    }
}

/// Nobody need keep anything for this command once it is over.
fn leave_channels(session: &Session, started: bool) {
    if started && let Ok(channels) = session.node.channels() {
        channels.leave();
    }
}

fn shown(pubsub: &PubSub, session: &Session) -> String {
    let nodes = pubsub.nodes();
    let others: Vec<&str> =
        nodes.iter().filter(|node| *node != session.node.name()).map(Atom::as_str).collect();
    others.join(", ")
}

fn one_line(term: &Term, options: &Options, own: &Atom) -> String {
    terms::show_line(term, options.format, own)
}

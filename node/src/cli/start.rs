//! `foundation start`: a node that runs until it is told to stop.

use std::sync::Arc;
use std::time::Duration;

use foundation_node::Node;
use foundation_node::bridge::{Bridge, BridgeError};
use foundation_node::config::NodeConfig;
use foundation_proto::etf::Term;
use tokio::signal::unix::{Signal, SignalKind, signal as listen};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::args::{Layered, Options};
use super::exit::{self, Failure};
use super::logs::Logs;
use super::reload::Reload;
use super::terms;

/// How long the caller of `init:stop/0` has to get its answer; a BEAM takes longer than that to stop.
const ANSWER: Duration = Duration::from_millis(100);

/// Runs a node. Prints its name and port once it can be reached.
pub(crate) async fn run(options: &Options, logs: &Logs) -> Result<u8, Failure> {
    let Layered { layers, warnings, unknown } = options.layers()?;
    let config = layers.clone().finish()?;
    if config.log.is_some()
        && let Err(why) = logs.set(config.log.as_deref())
    {
        warn!(why, "the key log is not followed");
    }
    for warning in warnings {
        warn!("{warning}");
    }
    for variable in unknown {
        warn!(variable, "this variable means nothing to this version");
    }
    if !config.clusters.is_empty() {
        return bridge(config).await;
    }
    let mut reload = Reload::new(options, logs, layers);
    let node = Node::start(config).await?;
    let told = Arc::new(Notify::new());
    export(&node, &told);
    let port = node.addresses().first().map_or(0, std::net::SocketAddr::port);
    terms::line(&format!("{} is up, port {port}", node.name().as_str()));
    until_told(&told, async || reload.run(&node).await).await;
    stop(node.stop()).await;
    Ok(exit::OK)
}

/// Runs a node in each of several clusters.
async fn bridge(config: NodeConfig) -> Result<u8, Failure> {
    let bridge = Bridge::start(config).await.map_err(|error| match error {
        BridgeError::Start { error, .. } => Failure::Start(*error),
        other => Failure::Config(other.to_string()),
    })?;
    let told = Arc::new(Notify::new());
    for cluster in bridge.clusters() {
        let Some(node) = bridge.node(cluster) else { continue };
        export(node, &told);
        let port = node.addresses().first().map_or(0, std::net::SocketAddr::port);
        terms::line(&format!("{} is up in {cluster}, port {port}", node.name().as_str()));
    }
    until_told(&told, async || warn!("SIGHUP: with [clusters] nothing is read anew; start it again")).await;
    stop(bridge.stop()).await;
    Ok(exit::OK)
}

/// Waits until a signal or another node says to stop. What a hang-up means, the caller says.
async fn until_told(told: &Notify, mut hung_up: impl AsyncFnMut()) {
    // Without a handler the signal would end the process.
    let mut hangup = listen(SignalKind::hangup()).ok();
    // One listener for all turns: a signal that comes while the configuration is read must not be lost.
    let ended = signal();
    tokio::pin!(ended);
    loop {
        tokio::select! {
            signal = &mut ended => {
                info!(signal, "stopping");
                return;
            }
            () = told.notified() => {
                info!("stopping: a node called init:stop/0");
                // The answer to that node leaves first.
                tokio::time::sleep(ANSWER).await;
                return;
            }
            () = next(&mut hangup) => hung_up().await,
        }
    }
}

/// Stops, unless it is told again: whoever asks twice does not want to wait.
async fn stop(stopping: impl Future<Output = ()>) {
    tokio::select! {
        () = stopping => {}
        signal = signal() => warn!(signal, "stopping at once"),
    }
}

/// What an operator may tell any node: to stop. What it may ask is built in.
fn export(node: &Node, told: &Arc<Notify>) {
    for function in ["stop", "restart"] {
        let told = Arc::clone(told);
        node.export("init", function, 0, move |_| {
            let told = Arc::clone(&told);
            async move {
                told.notify_one();
                Ok(Term::atom("ok"))
            }
        });
    }
}

/// Waits for SIGTERM or SIGINT and says which came.
pub(crate) async fn signal() -> &'static str {
    tokio::select! {
        () = received(listen(SignalKind::terminate())) => "SIGTERM",
        () = received(listen(SignalKind::interrupt())) => "SIGINT",
    }
}

/// Waits for the next signal of a kind.
async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}

async fn received(signal: std::io::Result<Signal>) {
    match signal {
        Ok(mut signal) => {
            signal.recv().await;
        }
        // Without a handler the signal ends the process by itself, which is what is left to do.
        Err(_) => std::future::pending().await,
    }
}

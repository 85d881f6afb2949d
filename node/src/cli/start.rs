//! `foundation start`: a node that runs until it is told to stop.

use std::sync::Arc;
use std::time::Duration;

use foundation_node::Node;
use foundation_proto::etf::Term;
use tokio::signal::unix::{Signal, SignalKind, signal as listen};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::args::Options;
use super::exit::{self, Failure};
use super::terms;

/// How long the caller of `init:stop/0` has to get its answer; a BEAM takes longer than that to stop.
const ANSWER: Duration = Duration::from_millis(100);

/// Runs a node. Prints its name and port once it can be reached.
pub(crate) async fn run(options: &Options) -> Result<u8, Failure> {
    let (config, warnings) = options.configuration()?;
    for warning in warnings {
        warn!("{warning}");
    }
    let node = Node::start(config).await?;
    let told = Arc::new(Notify::new());
    export(&node, &told);
    let port = node.addresses().first().map_or(0, std::net::SocketAddr::port);
    terms::line(&format!("{} is up, port {port}", node.name().as_str()));
    tokio::select! {
        signal = signal() => info!(signal, "stopping"),
        () = told.notified() => {
            info!("stopping: a node called init:stop/0");
            // The answer to that node leaves first.
            tokio::time::sleep(ANSWER).await;
        }
    }
    tokio::select! {
        () = node.stop() => {}
        // Whoever asks twice does not want to wait.
        signal = signal() => warn!(signal, "stopping at once"),
    }
    Ok(exit::OK)
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

async fn received(signal: std::io::Result<Signal>) {
    match signal {
        Ok(mut signal) => {
            signal.recv().await;
        }
        // Without a handler the signal ends the process by itself, which is what is left to do.
        Err(_) => std::future::pending().await,
    }
}

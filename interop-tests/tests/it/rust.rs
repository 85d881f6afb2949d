//! The node under test, and terms in Erlang's own notation.

use std::future::Future;
use std::time::Duration;

use foundation_interop_tests::{Epmd, beam};
use foundation_node::Node;
use foundation_node::config::NodeConfig;
use foundation_node::net_kernel::NodeType;
use foundation_node::process::{Message, Process};
use foundation_proto::Limits;
use foundation_proto::etf::Term;
use foundation_proto::etf::text::{Printer, parse_erlang};

/// How long anything may take that a test waits for.
pub(crate) const WAIT: Duration = Duration::from_secs(20);

/// A Rust node on a runtime of its own.
pub(crate) struct Rust {
    pub(crate) node: Node,
    runtime: tokio::runtime::Runtime,
}

impl Rust {
    /// A hidden node `name@127.0.0.1` with the harness's cookie.
    pub(crate) fn start(epmd: &Epmd, name: &str) -> Self {
        Self::with(epmd, name, |config| config)
    }

    /// The same with a changed configuration.
    pub(crate) fn with(epmd: &Epmd, name: &str, change: impl FnOnce(NodeConfig) -> NodeConfig) -> Self {
        Self::on(epmd.port, name, change)
    }

    /// The same for an EPMD on this port, which may be the node's own.
    pub(crate) fn on(epmd_port: u16, name: &str, change: impl FnOnce(NodeConfig) -> NodeConfig) -> Self {
        Self::named(epmd_port, &format!("{name}@127.0.0.1"), change)
    }

    /// A node with this whole name.
    pub(crate) fn named(epmd_port: u16, name: &str, change: impl FnOnce(NodeConfig) -> NodeConfig) -> Self {
        log();
        let runtime = crate::runtime();
        let config = NodeConfig::new(name).cookie(beam::COOKIE).epmd_port(epmd_port);
        let node =
            runtime.block_on(Node::start(change(config))).unwrap_or_else(|error| panic!("{name}: {error}"));
        Self { node, runtime }
    }

    /// Runs to the end, at most [`WAIT`].
    pub(crate) fn run<T>(&self, what: impl Future<Output = T>) -> T {
        self.runtime.block_on(async { tokio::time::timeout(WAIT, what).await }).expect("in time")
    }

    /// Runs beside the test.
    pub(crate) fn spawn<F>(&self, what: F) -> tokio::task::JoinHandle<F::Output>
    where
        F: Future<Output: Send> + Send + 'static,
    {
        self.runtime.spawn(what)
    }

    /// Tasks that are alive on this node's runtime.
    pub(crate) fn tasks(&self) -> usize {
        self.runtime.metrics().num_alive_tasks()
    }

    /// A registered process that answers each `{From, Message}` with `{echo, Message}`, decoded and encoded again.
    pub(crate) fn echo(&self) {
        let mut process = self.node.mailbox("echo").unwrap();
        self.runtime.spawn(async move {
            while let Ok(message) = process.recv().await {
                let Ok(Term::Tuple(tuple)) = message.to_term(&Limits::default()) else { continue };
                if let Ok([Term::Pid(from), message]) = <[Term; 2]>::try_from(tuple.into_vec()) {
                    let _ = process.send_term(from, &Term::from((Term::atom("echo"), message))).await;
                }
            }
        });
    }

    /// Whether it has a connection to this node.
    pub(crate) fn is_connected(&self, node: &str) -> bool {
        self.node.nodes(NodeType::Connected).iter().any(|connected| connected.as_str() == node)
    }
}

impl Drop for Rust {
    fn drop(&mut self) {
        self.runtime.block_on(self.node.stop());
    }
}

/// What the node logs, for whoever looks for a fault: `FOUNDATION_LOG=debug`, or any filter of tracing-subscriber.
fn log() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        if let Ok(filter) = std::env::var("FOUNDATION_LOG") {
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
        }
    });
}

/// A term from Erlang's notation.
pub(crate) fn term(text: &str) -> Term {
    parse_erlang(text, &Limits::default()).unwrap_or_else(|error| panic!("{text}: {error}"))
}

/// A term in Erlang's notation, on one line.
pub(crate) fn shown(term: &Term) -> String {
    Printer::new().line_length(0).print(term)
}

/// The next message of a process, as Erlang would show it.
pub(crate) async fn next(process: &mut Process) -> String {
    shown(&next_term(process).await)
}

/// The next message of a process.
pub(crate) async fn next_term(process: &mut Process) -> Term {
    let message: Message = process.recv().await.expect("the process lives");
    message.to_term(&Limits::default()).unwrap()
}

//! The Rust program of the README.

use foundation_node::{Node, config::NodeConfig};
use foundation_proto::etf::{Pid, Term, serde::from_raw};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let node = Node::start(NodeConfig::new("rust@127.0.0.1").cookie("secret").epmd_port(epmd_port())).await?;
    let mut greeter = node.mailbox("greeter")?;
    while let Some(message) = greeter.recv().await?.as_raw() {
        let (from, name): (Pid, String) = from_raw(message)?;
        greeter.send_term(from, &Term::from(format!("Hello, {name}!"))).await?;
    }
    Ok(())
}

/// The test runs on an EPMD of its own; in the README the usual one is used.
fn epmd_port() -> u16 {
    std::env::var("ERL_EPMD_PORT").ok().and_then(|port| port.parse().ok()).unwrap_or(4369)
}

//! A node that is told to find others.

use std::path::Path;
use std::time::{Duration, Instant};

use foundation_node::Node;
use foundation_node::config::Layers;
use foundation_node::discovery::ClusterConfig;
use foundation_node::net_kernel::NodeType;

use super::PATIENCE;
use super::ops::{Result, why};
use crate::stats::Numbers;

/// What this configuration says of discovery.
fn cluster(text: &str) -> Result<ClusterConfig> {
    let mut layers = Layers::new();
    layers.text(text, "bench").map_err(why)?;
    Ok(layers.finish().map_err(why)?.cluster)
}

/// Begins to look for others by one source, and waits until there are `count` nodes with this one.
pub(super) async fn form(node: &Node, source: &str, port: usize, count: usize) -> Result<Numbers> {
    let text = match source {
        "gossip" => format!(
            "[cluster]\nstrategy = 'gossip'\nsecret = 'formation'\nmulticast_if = '127.0.0.1'\nport = {port}\n"
        ),
        other => format!("cluster = '{other}'\n"),
    };
    // A hundred nodes that looked every millisecond would need a processor for that alone.
    let mut events = node.events();
    node.reload_discovery(&cluster(&text)?).await;
    let began = Instant::now();
    while node.nodes(NodeType::Connected).len() + 1 < count {
        if began.elapsed() > PATIENCE / 2 {
            return Err(format!("{} of {count} nodes", node.nodes(NodeType::Connected).len() + 1));
        }
        let _later = tokio::time::timeout(Duration::from_millis(500), events.next()).await;
    }
    Ok(Numbers::new())
}

/// Runs the sources of this file from now on.
pub(super) async fn discover(node: &Node, file: &str) -> Result<Numbers> {
    let text = std::fs::read_to_string(Path::new(file)).map_err(why)?;
    let cluster = cluster(&text)?;
    let sources = cluster.sources.len() as f64;
    node.reload_discovery(&cluster).await;
    Ok(Numbers::from([("sources".to_owned(), sources)]))
}

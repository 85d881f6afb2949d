//! SIGHUP: the configuration is read anew, and what can change in a running node changes.

use foundation_node::Node;
use foundation_node::config::{Change, ConfigError, Layers, NodeConfig};
use tracing::{info, warn};

use super::args::Options;
use super::logs::Logs;

/// What the node runs with.
pub(super) struct Reload<'a> {
    options: &'a Options,
    logs: &'a Logs,
    layers: Layers,
}

impl<'a> Reload<'a> {
    pub(super) fn new(options: &'a Options, logs: &'a Logs, layers: Layers) -> Self {
        Self { options, logs, layers }
    }

    /// Reads the configuration anew.
    pub(super) async fn run(&mut self, node: &Node) {
        let (layers, changes, config) = match self.read() {
            Ok(read) => read,
            Err(error) => {
                warn!(%error, "SIGHUP: the configuration is wrong; nothing has changed");
                return;
            }
        };
        if changes.is_empty() {
            info!("SIGHUP: the configuration is the same");
        }
        let mut reloaded = [("cluster", false), ("log", false)];
        for change in changes {
            let Change { key, from, to, .. } = change;
            let top = key.split('.').next().unwrap_or_default();
            match reloaded.iter_mut().find(|(part, _)| *part == top) {
                Some((_, changed)) => *changed = true,
                None => warn!(
                    key,
                    from = from.as_deref().unwrap_or("not set"),
                    to = to.as_deref().unwrap_or("not set"),
                    "SIGHUP: this key takes effect at the next start only"
                ),
            }
        }
        let [(_, cluster), (_, log)] = reloaded;
        if log {
            match self.logs.set(config.log.as_deref()) {
                Ok(filter) => info!(filter, "SIGHUP: what is logged"),
                Err(why) => warn!(why, "SIGHUP: what is logged has not changed"),
            }
            self.layers.take("log", &layers);
        }
        if cluster {
            info!("SIGHUP: [cluster] is read anew");
            node.reload_discovery(&config.cluster).await;
            self.layers.take("cluster", &layers);
        }
    }

    fn read(&self) -> Result<(Layers, Vec<Change>, NodeConfig), ConfigError> {
        let layers = self.options.layers()?.layers;
        let changes = layers.changes_from(&self.layers)?;
        let config = layers.clone().finish()?;
        Ok((layers, changes, config))
    }
}

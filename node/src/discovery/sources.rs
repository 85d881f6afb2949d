//! From what is written to what runs.

use std::sync::Arc;

use foundation_cluster::discovery::{Prune, Trust};

use super::config::{Context, MAX_NODES, SourceConfig, StrategyConfig};
use super::erlang_hosts::ErlangHosts;
use super::local_epmd::LocalEpmd;
use super::static_hosts::StaticHosts;
use super::{Polling, Source, Strategy};

/// The source that a configuration asks for.
pub(super) fn build(config: &SourceConfig, context: &Context) -> Source {
    let (strategy, trust, prune): (Arc<dyn Strategy>, Trust, Prune) = match &config.strategy {
        StrategyConfig::Static(options) => {
            (Arc::new(StaticHosts(options.clone())), Trust::Named, Prune::Never)
        }
        StrategyConfig::LocalEpmd(options) => {
            (Arc::new(Polling(LocalEpmd::new(options.clone(), context))), Trust::Named, Prune::Forget)
        }
        StrategyConfig::ErlangHosts(options) => {
            (Arc::new(Polling(ErlangHosts::new(options.clone(), context))), Trust::Named, Prune::Forget)
        }
    };
    Source {
        name: config.name.clone(),
        kind: config.strategy.word(),
        strategy,
        trust,
        prune: config.prune.unwrap_or(prune),
        rank: config.rank,
        max_nodes: config.max_nodes.unwrap_or(MAX_NODES),
    }
}

//! From what is written to what runs.

use std::sync::Arc;

use foundation_cluster::discovery::{Prune, Trust};

#[cfg(feature = "cloud")]
use super::aws::{ec2::Ec2, ecs::Ecs};
use super::config::{Context, MAX_NODES, MAX_OPEN_NODES, SourceConfig, StrategyConfig};
#[cfg(feature = "consul")]
use super::consul::Consul;
#[cfg(feature = "dns")]
use super::dns::Dns;
use super::erlang_hosts::ErlangHosts;
#[cfg(feature = "cloud")]
use super::gcp::Gcp;
use super::gossip::Gossip;
#[cfg(feature = "kubernetes")]
use super::kubernetes::Kubernetes;
use super::local_epmd::LocalEpmd;
#[cfg(feature = "mdns")]
use super::mdns::Mdns;
#[cfg(feature = "postgres")]
use super::postgres::Postgres;
#[cfg(feature = "cloud")]
use super::rancher::Rancher;
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
        StrategyConfig::Gossip(options) => {
            // Who knows the secret may name nodes; without one anybody can.
            let trust = if options.secret.is_some() { Trust::Named } else { Trust::Open };
            (Arc::new(Gossip::new(options.clone(), context)), trust, Prune::Forget)
        }
        #[cfg(feature = "mdns")]
        StrategyConfig::Mdns(options) => {
            (Arc::new(Mdns::new(options.clone(), context)), Trust::Open, Prune::Forget)
        }
        #[cfg(feature = "consul")]
        StrategyConfig::Consul(options) => {
            // Who may register an instance chooses the address that is dialled, and so may as well choose the name.
            (Arc::new(Consul::new(options.clone(), context)), Trust::Named, Prune::Forget)
        }
        #[cfg(feature = "kubernetes")]
        StrategyConfig::Kubernetes(options) => {
            let strategy = Kubernetes::new(options.clone(), context);
            let trust = Trust::Basenames(vec![strategy.basename().to_owned()]);
            (Arc::new(strategy), trust, Prune::Forget)
        }
        #[cfg(feature = "cloud")]
        StrategyConfig::Ec2(options) => {
            let strategy = Ec2::new(options.clone(), context);
            let trust = strategy.trust();
            (Arc::new(Polling(strategy)), trust, Prune::Forget)
        }
        #[cfg(feature = "cloud")]
        StrategyConfig::Ecs(options) => {
            let strategy = Ecs::new(options.clone(), context);
            let trust = strategy.trust();
            (Arc::new(Polling(strategy)), trust, Prune::Forget)
        }
        #[cfg(feature = "cloud")]
        StrategyConfig::Gcp(options) => {
            let strategy = Gcp::new(options.clone(), context);
            let trust = strategy.trust();
            (Arc::new(Polling(strategy)), trust, Prune::Forget)
        }
        #[cfg(feature = "cloud")]
        StrategyConfig::Rancher(options) => {
            let strategy = Rancher::new(options.clone(), context);
            let trust = strategy.trust();
            (Arc::new(Polling(strategy)), trust, Prune::Forget)
        }
        #[cfg(feature = "postgres")]
        StrategyConfig::Postgres(options) => {
            // Who may enter the database may name nodes.
            (Arc::new(Postgres::new(options.clone(), context)), Trust::Named, Prune::Forget)
        }
        #[cfg(feature = "dns")]
        StrategyConfig::Dns(options) => dns(Dns::new(options.clone(), context)),
        #[cfg(feature = "dns")]
        StrategyConfig::KubernetesDns(options) => dns(Dns::kubernetes(options.clone())),
        #[cfg(feature = "dns")]
        StrategyConfig::KubernetesDnsSrv(options) => dns(Dns::kubernetes_srv(options.clone())),
    };
    let max_nodes = if trust == Trust::Open { MAX_OPEN_NODES } else { MAX_NODES };
    Source {
        name: config.name.clone(),
        kind: config.strategy.word(),
        strategy,
        trust,
        prune: config.prune.unwrap_or(prune),
        rank: config.rank,
        max_nodes: config.max_nodes.unwrap_or(max_nodes),
    }
}

#[cfg(feature = "dns")]
fn dns(strategy: Dns) -> (Arc<dyn Strategy>, Trust, Prune) {
    let trust = Trust::Basenames(vec![strategy.basename().to_owned()]);
    (Arc::new(Polling(strategy)), trust, Prune::Forget)
}

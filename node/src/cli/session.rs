//! A short-lived hidden node that speaks to another one: it neither listens nor registers, so it needs no EPMD of its own.

use std::time::Duration;

use foundation_node::Node;
use foundation_node::config::{DistAutoConnect, NameDomain, Reconnect};
use foundation_node::discovery::ClusterConfig;
use foundation_node::names;
use foundation_node::net::StartError;
use foundation_proto::dist::{NameStyle, NodeName};
use foundation_proto::etf::Atom;
use tracing::debug;

use super::args::{Options, Target};
use super::exit::Failure;

/// A connection to one node.
pub(crate) struct Session {
    pub(crate) node: Node,
    pub(crate) target: Atom,
    pub(crate) timeout: Duration,
}

impl Session {
    /// Connects to `target`, or to the node that the environment names.
    pub(crate) async fn open(target: Option<&str>, options: &Options) -> Result<Self, Failure> {
        let (mut config, warnings) = options.configuration()?;
        for warning in warnings {
            eprintln!("foundation: warning: {warning}");
        }
        // A name from the environment or the file is that of the node that runs here, which is the target, not us.
        let own = options.name.as_ref().or(options.sname.as_ref());
        let running = config.name.take();
        let target = match (target, &running) {
            (Some(target), _) => target.to_owned(),
            (None, Some(running)) if own.is_none() => running.clone(),
            _ => {
                return Err(Failure::Usage(
                    "no node given; name one, or set FOUNDATION_NODE or RELEASE_NODE".to_owned(),
                ));
            }
        };
        let target = complete(&target)?;
        config.name_domain = Some(match (own, target.style()) {
            (Some(_), _) if options.sname.is_some() => NameDomain::ShortNames,
            (Some(_), _) => NameDomain::LongNames,
            (None, NameStyle::Short) => NameDomain::ShortNames,
            (None, NameStyle::Long) => NameDomain::LongNames,
        });
        config.name = Some(match own {
            Some(name) => name.clone(),
            None => {
                let random = getrandom::u32()
                    .map_err(|error| Failure::Config(format!("no random numbers: {error}")))?;
                // The process id makes it unique on this host, the random part across a restart with the same id.
                let alive = format!("foundation_{}_{:04x}", std::process::id(), random as u16);
                format!("{alive}@{}", names::host_for_peer(&target))
            }
        });
        config.hidden = true;
        config.dist_listen = false;
        config.cluster = ClusterConfig::default();
        config.reconnect = Reconnect::Never;
        config.dist_auto_connect = DistAutoConnect::Never;
        let node = match own.filter(|own| own.split('@').next() == Some("undefined")) {
            // `-name undefined`: the target gives the name.
            Some(_) => match Node::start_named_by(config, target.as_str()).await {
                Err(StartError::NamedBy { peer, error }) => {
                    return Err(Failure::Connect { node: peer, error });
                }
                started => started?,
            },
            None => Node::start(config).await?,
        };
        let timeout = Duration::try_from_secs_f64(options.timeout)
            .map_err(|_| Failure::Usage(format!("--timeout {} is no number of seconds", options.timeout)))?;
        let connected = tokio::time::timeout(timeout, node.connect(target.as_str())).await;
        match connected {
            Ok(Ok(link)) => debug!(?link, "connected"),
            Ok(Err(error)) => return Err(Failure::Connect { node: target.to_string(), error }),
            Err(_) => return Err(Failure::Timeout(format!("no connection to {target} within {timeout:?}"))),
        }
        Ok(Self { node, target: target.into(), timeout })
    }

    /// Leaves in an orderly way: what was sent last still arrives.
    pub(crate) async fn close(self) {
        self.node.stop().await;
    }
}

/// `app` means the node of that name on this host, as `erl_call -sname` has it.
fn complete(target: &str) -> Result<NodeName, Failure> {
    if target.contains('@') {
        return NodeName::parse(target)
            .map_err(|error| Failure::Usage(format!("{target:?} is no node name: {error}")));
    }
    names::complete(target, NameStyle::Short).map_err(|error| Failure::Usage(error.to_string()))
}

impl Target {
    /// The node that was given, in either way.
    pub(crate) fn name(&self) -> Option<&str> {
        self.node.as_deref().or(self.option.as_deref())
    }
}

//! `foundation discover`: what the configured sources find, why each of it would be dialled or not, and whether it can be reached.

use std::collections::BTreeMap;
use std::time::Duration;

use foundation_node::Node;
use foundation_node::config::{DistAutoConnect, NameDomain, NodeConfig, Reconnect};
use foundation_node::discovery::config::Context;
use foundation_node::discovery::survey::{Survey, Verdict, survey};
use foundation_node::discovery::{ClusterConfig, Trust};
use foundation_node::net::ConnectError;
use foundation_proto::dist::{NameStyle, NodeName};
use foundation_proto::etf::Term;
use tokio::task::JoinSet;

use super::args::{Discover, Options};
use super::exit::{self, Failure};
use super::{json, terms};

/// Nodes that are dialled at once.
const DIALS: usize = 32;

/// How the dial of a node ended.
type Dialled = BTreeMap<NodeName, Result<Duration, ConnectError>>;

pub(crate) async fn run(command: &Discover, options: &Options) -> Result<u8, Failure> {
    let (config, warnings) = options.configuration()?;
    for warning in warnings {
        eprintln!("foundation: warning: {warning}");
    }
    let patience = Duration::try_from_secs_f64(command.seconds)
        .map_err(|_| Failure::Usage(format!("--seconds {} is no number of seconds", command.seconds)))?;
    let context = Context::of_config(&config)?;
    let style = config.name_domain.map_or_else(|| context.own.style(), NameStyle::from);
    let survey = survey(&config.cluster, &context, style, patience).await;
    let allowed: Vec<NodeName> = survey
        .nodes
        .iter()
        .filter(|(_, node)| node.verdict == Verdict::Allowed)
        .map(|(name, _)| name.clone())
        .collect();
    let dialled = if command.dry_run || allowed.is_empty() {
        Dialled::new()
    } else {
        let timeout = Duration::try_from_secs_f64(options.timeout)
            .map_err(|_| Failure::Usage(format!("--timeout {} is no number of seconds", options.timeout)))?;
        dial(config, &context.own, &allowed, timeout).await?
    };
    if command.json {
        terms::line(&json::object(report(&survey, &dialled)));
    } else {
        print(&survey, &dialled, command);
    }
    let reached = dialled.values().any(Result::is_ok);
    let good = if command.dry_run { !allowed.is_empty() } else { reached };
    Ok(if good { exit::OK } else { exit::UNREACHABLE })
}

/// Connects to each node and leaves again, under a name that is never dialled.
async fn dial(
    mut config: NodeConfig,
    own: &NodeName,
    nodes: &[NodeName],
    timeout: Duration,
) -> Result<Dialled, Failure> {
    let random = getrandom::u32().map_err(|error| Failure::Config(format!("no random numbers: {error}")))?;
    config.name_domain = Some(match own.style() {
        NameStyle::Short => NameDomain::ShortNames,
        NameStyle::Long => NameDomain::LongNames,
    });
    config.name = Some(format!("foundation_{}_{:04x}@{}", std::process::id(), random as u16, own.host()));
    config.hidden = true;
    config.dist_listen = false;
    config.cluster = ClusterConfig::default();
    config.reconnect = Reconnect::Never;
    config.dist_auto_connect = DistAutoConnect::Never;
    let node = Node::start(config).await?;
    let mut dialled = Dialled::new();
    let mut tasks = JoinSet::new();
    for name in nodes {
        let (node, name) = (node.clone(), name.clone());
        while tasks.len() >= DIALS {
            collect(&mut dialled, tasks.join_next().await);
        }
        tasks.spawn(async move {
            let since = std::time::Instant::now();
            let outcome = match tokio::time::timeout(timeout, node.connect(name.as_str())).await {
                Ok(Ok(_)) => Ok(since.elapsed()),
                Ok(Err(error)) => Err(error),
                Err(_) => Err(ConnectError::TimedOut { stage: "the connection" }),
            };
            (name, outcome)
        });
    }
    while !tasks.is_empty() {
        collect(&mut dialled, tasks.join_next().await);
    }
    node.stop().await;
    Ok(dialled)
}

type Outcome = (NodeName, Result<Duration, ConnectError>);

fn collect(dialled: &mut Dialled, outcome: Option<Result<Outcome, tokio::task::JoinError>>) {
    if let Some(Ok((name, outcome))) = outcome {
        dialled.insert(name, outcome);
    }
}

fn print(survey: &Survey, dialled: &Dialled, command: &Discover) {
    if command.explain {
        for line in &survey.evidence {
            terms::line(&format!("discovery: {line}"));
        }
        for source in &survey.sources {
            let order = if source.rank > 0 { format!(", failover {}", source.rank) } else { String::new() };
            terms::line(&format!(
                "source {} ({}{order}): {} complete answers, {} nodes seen; {}",
                source.name,
                source.kind,
                source.answers,
                source.seen,
                trust(&source.trust)
            ));
        }
    }
    if survey.sources.is_empty() {
        terms::line(
            "no source is configured, and nothing in this environment asks for one (see discover --explain)",
        );
    }
    // An error is never left out: without it an empty answer would look like an empty network.
    for source in &survey.sources {
        for error in &source.errors {
            terms::line(&format!("source {} failed: {error}", source.name));
        }
    }
    let width = survey.nodes.keys().map(|node| node.as_str().chars().count()).max().unwrap_or(0);
    for (node, sighting) in &survey.nodes {
        let state = match dialled.get(node) {
            Some(Ok(took)) => format!("connected in {} ms", took.as_millis()),
            Some(Err(error)) => format!("not connected: {}", first_line(&error.to_string())),
            None => sighting.verdict.word().to_owned(),
        };
        terms::line(&format!("{:width$}  {state}", node.as_str()));
        if command.explain {
            let addresses: Vec<String> = sighting.addresses.iter().map(ToString::to_string).collect();
            if !addresses.is_empty() {
                terms::line(&format!("    leads to {}", addresses.join(", ")));
            }
            for (source, evidence) in &sighting.evidence {
                terms::line(&format!("    {source}: {evidence}"));
            }
        }
        match &sighting.verdict {
            Verdict::Refused => terms::line(&format!(
                "    anybody on the network can name nodes in this way; if it belongs to the cluster, add to [cluster]: \
                 {}",
                entry(node)
            )),
            Verdict::OtherStyle(why) => terms::line(&format!("    {}", why.replace('\n', "\n    "))),
            _ => {}
        }
    }
    if survey.nodes.is_empty() && !survey.sources.is_empty() {
        terms::line("no node was found");
    }
}

/// The line of the configuration that allows a node; quoted, so that a name cannot be a list of entries.
fn entry(node: &NodeName) -> String {
    format!("allow = [{:?}]", node.as_str())
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn trust(trust: &Trust) -> String {
    match trust {
        Trust::Named => "its names are dialled".to_owned(),
        Trust::Basenames(names) => {
            format!("its names that begin with {}@ are dialled, others if allowed", names.join("@, "))
        }
        Trust::Open => "its names are dialled if allowed".to_owned(),
    }
}

fn report(survey: &Survey, dialled: &Dialled) -> Vec<(&'static str, Term)> {
    let sources = survey.sources.iter().map(|source| {
        json::map(vec![
            ("name", json::text(&source.name)),
            ("strategy", json::text(source.kind)),
            ("rank", Term::from(source.rank as u64)),
            ("answers", Term::from(u64::from(source.answers))),
            ("seen", Term::from(u64::from(source.seen))),
            ("trust", json::text(&trust(&source.trust))),
            ("errors", json::list(source.errors.iter().map(|error| json::text(error)))),
        ])
    });
    let nodes = survey.nodes.iter().map(|(node, sighting)| {
        let mut entries = vec![
            ("node", json::text(node.as_str())),
            ("verdict", json::text(sighting.verdict.word())),
            ("addresses", json::list(sighting.addresses.iter().map(|ip| json::text(&ip.to_string())))),
            (
                "evidence",
                json::list(sighting.evidence.iter().map(|(source, evidence)| {
                    json::map(vec![("source", json::text(source)), ("saw", json::text(evidence))])
                })),
            ),
        ];
        if sighting.verdict == Verdict::Refused {
            entries.push(("add", json::text(&entry(node))));
        }
        match dialled.get(node) {
            Some(Ok(took)) => {
                entries.push(("connected", Term::atom("true")));
                entries.push(("milliseconds", Term::from(took.as_millis() as u64)));
            }
            Some(Err(error)) => {
                entries.push(("connected", Term::atom("false")));
                entries.push(("error", json::text(&error.to_string())));
            }
            None => {}
        }
        json::map(entries)
    });
    vec![
        ("evidence", json::list(survey.evidence.iter().map(|line| json::text(line)))),
        ("sources", json::list(sources)),
        ("nodes", json::list(nodes)),
    ]
}

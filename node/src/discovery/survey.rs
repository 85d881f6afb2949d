//! Looking at what the sources of a configuration say, without connecting to anybody.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use foundation_cluster::discovery::{Candidate, Config, Discovery, Event, Source as Rules, Trust};
use foundation_proto::Mono;
use foundation_proto::dist::{NameStyle, NodeName};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::config::Context;
use super::engine::Plan;
use super::{ClusterConfig, Reports};
use crate::names;

/// Reports that wait to be looked at.
const QUEUED: usize = 256;
/// Different errors of one source that are kept.
const MAX_ERRORS: usize = 8;

/// What the sources have said.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Survey {
    /// Which sources there are, and why.
    pub evidence: Vec<String>,
    /// Each of them.
    pub sources: Vec<SurveyedSource>,
    /// All nodes that were named, in order.
    pub nodes: BTreeMap<NodeName, Sighting>,
}

/// What one source has said.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SurveyedSource {
    /// Its name.
    pub name: String,
    /// Our name of its strategy.
    pub kind: &'static str,
    /// Which of its names need no entry of the allow-list.
    pub trust: Trust,
    /// Its place in the order of failover; those after the first only run while others fail.
    pub rank: usize,
    /// Complete answers.
    pub answers: u32,
    /// Nodes that it was heard of or told of one by one.
    pub seen: u32,
    /// What went wrong, each once.
    pub errors: Vec<String>,
}

/// A node that was named.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Sighting {
    /// By whom, and what each has seen.
    pub evidence: BTreeMap<String, String>,
    /// Where its host part leads, if that is known.
    pub addresses: Vec<IpAddr>,
    /// What would become of it.
    pub verdict: Verdict,
}

/// What would become of a node.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Verdict {
    /// It would be dialled.
    Allowed,
    /// It would not: anybody can name nodes in this way, and no entry of the allow-list is for it.
    Refused,
    /// It would not: it is being shut down.
    Leaving,
    /// It would not: its name has the other style, for this reason.
    OtherStyle(String),
    /// It is the node itself.
    Own,
}

impl Verdict {
    /// It in a word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Refused => "refused",
            Self::Leaving => "leaving",
            Self::OtherStyle(_) => "other name style",
            Self::Own => "this node",
        }
    }
}

/// Runs all sources that a configuration asks for, those of a failover all at once, until each has answered, or for so long.
pub async fn survey(
    config: &ClusterConfig,
    context: &Context,
    style: NameStyle,
    patience: Duration,
) -> Survey {
    let plan = Plan::new(config, context);
    let rules = plan.sources.iter().map(|source| Rules {
        name: source.name.clone(),
        trust: source.trust.clone(),
        prune: source.prune,
        rank: source.rank,
        max_nodes: source.max_nodes,
    });
    let config =
        Config { own: context.own.clone(), allow: plan.allow.clone(), sources: rules.collect(), seed: 0 };
    let machine = Discovery::new(config, Mono::ZERO);
    let mut survey = Survey { evidence: plan.evidence, sources: Vec::new(), nodes: BTreeMap::new() };
    let (sender, mut reports) = mpsc::channel(QUEUED);
    let mut running = JoinSet::new();
    for (id, source) in plan.sources.iter().enumerate() {
        survey.sources.push(SurveyedSource {
            name: source.name.clone(),
            kind: source.kind,
            trust: source.trust.clone(),
            rank: source.rank,
            answers: 0,
            seen: 0,
            errors: Vec::new(),
        });
        running.spawn(std::sync::Arc::clone(&source.strategy).run(Reports::new(id, sender.clone())));
    }
    drop(sender);
    let limits: Vec<usize> = plan.sources.iter().map(|source| source.max_nodes).collect();
    let deadline = tokio::time::Instant::now() + patience;
    // Sources that only hear never answer completely; for them all the time is taken.
    while !survey.sources.iter().all(|source| source.answers > 0) {
        let Ok(Some(event)) = tokio::time::timeout_at(deadline, reports.recv()).await else { break };
        survey.take(event, &machine, &limits, context, style);
    }
    survey
}

impl Survey {
    fn take(
        &mut self,
        event: Event,
        machine: &Discovery,
        limits: &[usize],
        context: &Context,
        style: NameStyle,
    ) {
        let (id, candidates) = match event {
            Event::Answer { source, candidates } => {
                if let Some(surveyed) = self.sources.get_mut(source) {
                    surveyed.answers += 1;
                }
                (source, candidates)
            }
            Event::Seen { source, candidate } => {
                if let Some(surveyed) = self.sources.get_mut(source) {
                    surveyed.seen += 1;
                }
                (source, vec![candidate])
            }
            Event::Failed { source, why } => {
                if let Some(surveyed) = self.sources.get_mut(source)
                    && surveyed.errors.len() < MAX_ERRORS
                    && !surveyed.errors.contains(&why)
                {
                    surveyed.errors.push(why);
                }
                return;
            }
            Event::Gone { node, .. } => {
                self.nodes.remove(&node);
                return;
            }
            _ => return,
        };
        let Some(name) = self.sources.get(id).map(|source| source.name.clone()) else { return };
        for candidate in candidates {
            let of_source = self.nodes.values().filter(|node| node.evidence.contains_key(&name)).count();
            if of_source >= limits.get(id).copied().unwrap_or(0) && !self.nodes.contains_key(&candidate.node)
            {
                continue;
            }
            let verdict = verdict(&candidate, machine.allows(id, &candidate), context, style);
            let Candidate { node, addresses, evidence, .. } = candidate;
            let sighting = self.nodes.entry(node).or_insert_with(|| Sighting {
                evidence: BTreeMap::new(),
                addresses: Vec::new(),
                verdict: verdict.clone(),
            });
            sighting.evidence.insert(name.clone(), evidence);
            if sighting.addresses.is_empty() {
                sighting.addresses = addresses;
            }
            // One source that may name it is enough; one that says it leaves knows better than others.
            if verdict == Verdict::Leaving || sighting.verdict == Verdict::Refused {
                sighting.verdict = verdict;
            }
        }
    }
}

fn verdict(candidate: &Candidate, allowed: bool, context: &Context, style: NameStyle) -> Verdict {
    if candidate.node == context.own {
        return Verdict::Own;
    }
    if candidate.leaving {
        return Verdict::Leaving;
    }
    if let Err(error) = names::check_peer(&candidate.node, style) {
        return Verdict::OtherStyle(error.to_string());
    }
    if allowed { Verdict::Allowed } else { Verdict::Refused }
}

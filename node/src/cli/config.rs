//! `foundation config`: whether the configuration is right, and what is in force.

use foundation_node::Node;
use foundation_node::config::{Effective, NodeConfig};
use foundation_node::discovery::config::Context;
use foundation_node::discovery::engine::Plan;
use foundation_proto::etf::Term;

use super::args::{ConfigCommand, Layered, Options};
use super::exit::{self, Failure};
use super::{json, terms};

pub(crate) async fn run(command: &ConfigCommand, options: &Options) -> Result<u8, Failure> {
    match command {
        ConfigCommand::Check { json } => check(*json, options).await,
        ConfigCommand::Show { effective, json } => show(*effective, *json, options),
    }
}

/// What was found to be right, line by line.
struct Report {
    lines: Vec<(&'static str, String)>,
    warnings: Vec<String>,
}

async fn check(as_json: bool, options: &Options) -> Result<u8, Failure> {
    let outcome = examine(options).await;
    if as_json {
        terms::line(&json::object(match &outcome {
            Ok(report) => vec![
                ("ok", Term::atom("true")),
                ("warnings", json::list(report.warnings.iter().map(|warning| json::text(warning)))),
                (
                    "findings",
                    json::list(report.lines.iter().map(|(what, text)| {
                        json::map(vec![("of", json::text(what)), ("finding", json::text(text))])
                    })),
                ),
            ],
            Err(failure) => vec![
                ("ok", Term::atom("false")),
                ("error", json::text(failure.to_string().trim_start_matches("foundation: "))),
            ],
        }));
        return Ok(outcome.map_or_else(|failure| failure.code(), |_| exit::OK));
    }
    let report = outcome?;
    for warning in &report.warnings {
        eprintln!("foundation: warning: {warning}");
    }
    for (what, text) in &report.lines {
        terms::line(&format!("{what}: {text}"));
    }
    terms::line("the configuration is right");
    Ok(exit::OK)
}

async fn examine(options: &Options) -> Result<Report, Failure> {
    let Layered { layers, mut warnings, unknown } = options.layers()?;
    warnings.extend(
        unknown.iter().map(|variable| format!("the variable {variable} means nothing to this version")),
    );
    let cookie = layers.origin("cookie").map(str::to_owned);
    let config = layers.finish()?;
    let checked = Node::check(&config).await?;
    let addresses: Vec<String> = checked.addresses.iter().map(ToString::to_string).collect();
    let mut lines = vec![
        ("name", name(&config, checked.name.as_str())),
        (
            "cookie",
            cookie
                .or(checked.cookie)
                .unwrap_or_else(|| "none yet; start creates ~/.erlang.cookie".to_owned()),
        ),
        ("listens", if addresses.is_empty() { "nowhere".to_owned() } else { addresses.join(", ") }),
        ("tls", if config.proto_dist.is_tls() { "yes, and its files can be read" } else { "no" }.to_owned()),
    ];
    let plan = Plan::new(&config.cluster, &Context::of_config(&config)?);
    lines.extend(plan.evidence.into_iter().map(|line| ("discovery", line)));
    Ok(Report { lines, warnings })
}

fn name(config: &NodeConfig, name: &str) -> String {
    match &config.name {
        Some(_) => name.to_owned(),
        None => format!("{name} (none is configured; another each time)"),
    }
}

fn show(effective: bool, as_json: bool, options: &Options) -> Result<u8, Failure> {
    let Layered { layers, warnings, .. } = options.layers()?;
    for warning in warnings {
        eprintln!("foundation: warning: {warning}");
    }
    let lines: Vec<Effective> =
        layers.effective()?.into_iter().filter(|line| effective || line.origin != "default").collect();
    if as_json {
        let lines = lines.iter().map(|line| {
            json::map(vec![
                ("key", json::text(&line.key)),
                ("value", line.value.as_deref().map_or_else(|| Term::atom("null"), json::text)),
                ("origin", json::text(&line.origin)),
            ])
        });
        terms::line(&json::object(vec![("values", json::list(lines))]));
        return Ok(exit::OK);
    }
    let text = |line: &Effective| match &line.value {
        Some(value) => format!("{} = {value}", line.key),
        None => format!("# {} is not set", line.key),
    };
    let width = lines.iter().map(|line| text(line).chars().count()).filter(|width| *width <= 60).max();
    for line in &lines {
        terms::line(&format!("{:width$}  # {}", text(line), line.origin, width = width.unwrap_or(0)));
    }
    Ok(exit::OK)
}

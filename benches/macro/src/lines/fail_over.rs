//! A singleton whose node is killed: how long until it runs on another one.

use std::path::PathBuf;
use std::time::Duration;

use foundation_interop_tests::{Beam, Epmd};

use super::registry::{code, figure, until};
use super::{JOBS, Request};
use crate::placement::Placement;
use crate::stage::{Peer, Told, start_elixir_beam, start_rust_with};
use crate::stats::clock;
use crate::table::{Line, within};

/// How long each step may take.
const PATIENCE: Duration = Duration::from_secs(30);
const AVAILABLE: &str = "Rust";
const SAFE: &str = "Rust, lease";
/// The goal of both, in milliseconds.
const GOAL: f64 = 2000.0;

/// New nodes for each sample, with default settings. The process is killed, so that its connections are closed by the system: what it
/// takes to notice a machine that is gone is the tick's time besides.
pub(super) fn lines(request: &Request, show: &mut dyn FnMut(Line<'_>)) {
    let mut line = Line::new(
        "a singleton runs again after its node was killed (SIGKILL), three nodes",
        Placement::Unpinned,
        "ms",
    );
    line = match code(request) {
        Ok(code) => [("Horde", "UniformDistribution"), ("Horde, quorum", "UniformQuorumDistribution")]
            .into_iter()
            .fold(line, |line, (name, strategy)| {
                let code = code.clone();
                line.with(name, move || horde(request, &code, strategy).map(Into::into))
            }),
        Err(why) => line.with("Horde", move || Err(why.clone())),
    };
    for (name, safe) in [(AVAILABLE, 0), (SAFE, 1)] {
        line = line.with(name, move || rust(request, safe).map(Into::into));
    }
    show(line.goal(within(AVAILABLE, GOAL)).goal(within(SAFE, GOAL)));
}

/// Kills the node on which the child runs, and waits until it runs on another one; in milliseconds. `started` says when it was started on a
/// node, in microseconds of the system's clock, and 0 if it never was.
fn fail_over<N>(
    mut nodes: Vec<N>,
    started: impl Fn(&N) -> Result<f64, String>,
    kill: impl FnOnce(N),
) -> Result<f64, String> {
    let mut runs = None;
    for (at, node) in nodes.iter().enumerate() {
        if started(node)? > 0.0 {
            runs = Some(at);
        }
    }
    let node = nodes.remove(runs.ok_or("it runs nowhere")?);
    let killed = clock();
    kill(node);
    let mut again = 0.0_f64;
    until(PATIENCE, "it runs again", || {
        for node in &nodes {
            again = again.max(started(node)?);
        }
        Ok(again > killed)
    })?;
    Ok((again - killed) / 1e3)
}

fn rust(request: &Request, safe: u8) -> Result<f64, String> {
    let epmd = Epmd::start(&request.release);
    let start = |name: &&str| start_rust_with(None, epmd.port, name, None, &[]);
    let nodes = JOBS.iter().map(start).collect::<Result<Vec<Told>, String>>()?;
    for (at, node) in nodes.iter().enumerate() {
        for other in nodes.iter().skip(at + 1) {
            node.op(&format!("link node={}", other.name()))?;
        }
    }
    for node in &nodes {
        node.op("jobs_open")?;
    }
    let all = |operation: &str, name: &str, wanted: f64| -> Result<bool, String> {
        let mut all = true;
        for node in &nodes {
            all &= figure(&node.op(operation)?, name) >= wanted;
        }
        Ok(all)
    };
    until(PATIENCE, "all know each other", || all("jobs_members", "count", JOBS.len() as f64))?;
    nodes[0].op(&format!("jobs_start safe={safe}"))?;
    until(PATIENCE, "all know of the child", || all("jobs_known", "known", 1.0))?;
    // It is killed when it is dropped.
    fail_over(nodes, |node| Ok(figure(&node.op("jobs_started")?, "at")), drop)
}

fn horde(request: &Request, code: &[PathBuf], strategy: &str) -> Result<f64, String> {
    let epmd = Epmd::start(&request.release);
    let nodes: Vec<Beam> =
        JOBS.iter().map(|name| start_elixir_beam(&request.release, epmd.port, name, code)).collect();
    for node in &nodes[1..] {
        node.try_elixir(&format!("true = Node.connect(:\"{}\")", nodes[0].name()))?;
    }
    for node in &nodes {
        node.try_elixir(&format!(
            "defmodule Bench.Job do\n\
               use GenServer\n\
               def start_link(_), do: GenServer.start_link(__MODULE__, nil)\n\
               def init(_), do: (:persistent_term.put(:bench_job, System.os_time(:microsecond)); {{:ok, nil}})\n\
             end\n\
             {{:ok, _}} = Supervisor.start_link([{{Horde.DynamicSupervisor, name: Bench.Jobs, strategy: :one_for_one, members: :auto, \
             distribution_strategy: Horde.{strategy}}}], strategy: :one_for_one)\n:ok"
        ))?;
    }
    let number = |node: &Beam, text: &str| -> Result<f64, String> {
        node.try_elixir(text)?.trim().parse().map_err(|_| "no number".to_owned())
    };
    let all = |text: &str, wanted: f64| -> Result<bool, String> {
        let mut all = true;
        for node in &nodes {
            all &= number(node, text)? >= wanted;
        }
        Ok(all)
    };
    let alive = "s = :sys.get_state(Bench.Jobs)\n\
        Map.take(s.members_info, Map.keys(s.members)) |> Map.values() |> Enum.count(&(&1.status == :alive))";
    until(PATIENCE, "all know each other", || all(alive, JOBS.len() as f64))?;
    nodes[0]
        .try_elixir("{:ok, _} = Horde.DynamicSupervisor.start_child(Bench.Jobs, {Bench.Job, []})\n:ok")?;
    until(PATIENCE, "all know of the child", || {
        all("Horde.DynamicSupervisor.count_children(Bench.Jobs).active", 1.0)
    })?;
    // A node that is asked answers for all: each has to know by itself.
    let known = "Enum.count(DeltaCrdt.to_map(Bench.Jobs.Crdt), &match?({{:process, _}, _}, &1))";
    until(PATIENCE, "all have the child in their map", || all(known, 1.0))?;
    let at = ":persistent_term.get(:bench_job, 0)";
    fail_over(nodes, |node| number(node, at), |node| node.kill())
}

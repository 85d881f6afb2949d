//! `erlang:statistics/1` and `erlang:memory/0`: what is measured of a running node.

use core::time::Duration;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

use foundation_proto::Mono;
use foundation_proto::etf::Term;
use tokio::runtime::Handle;

use super::{pair, process_info};
use crate::net::Link;
use crate::node::NodeInner;

/// What a node remembers for its statistics.
#[derive(Debug, Default)]
pub(crate) struct Statistics {
    /// Bytes of connections that have ended.
    received: AtomicU64,
    sent: AtomicU64,
    /// What was reported last: connections come and go while their bytes are added up, and the sum must not go down.
    reported_in: AtomicU64,
    reported_out: AtomicU64,
    /// The milliseconds of the previous call.
    wall_clock: AtomicU64,
    runtime: AtomicU64,
    /// How long each thread of the runtime had been busy when the node was started.
    busy_before: Vec<Duration>,
}

impl Statistics {
    pub(crate) fn new(runtime: &Handle) -> Self {
        let metrics = runtime.metrics();
        let busy_before =
            (0..metrics.num_workers()).map(|worker| metrics.worker_total_busy_duration(worker)).collect();
        Self { busy_before, ..Self::default() }
    }

    /// A connection has ended.
    pub(crate) fn link_down(&self, link: &Link) {
        let (received, sent) = link.bytes();
        self.received.fetch_add(received, Ordering::Relaxed);
        self.sent.fetch_add(sent, Ordering::Relaxed);
    }
}

/// An item of `erlang:statistics/1`; `None`, which is `badarg`, for what nobody counts here: reductions, garbage collections,
/// context switches.
pub(super) fn item(node: &NodeInner, item: &Term) -> Option<Term> {
    Some(match item.as_atom()?.as_str() {
        "wall_clock" => {
            since_last(&node.statistics.wall_clock, u64::try_from(uptime(node).as_millis()).ok()?)
        }
        "runtime" => since_last(&node.statistics.runtime, u64::try_from(cpu_time().as_millis()).ok()?),
        "io" => io(node),
        "run_queue" | "total_run_queue_lengths" | "total_run_queue_lengths_all" => {
            Term::from(run_queue(node))
        }
        "run_queue_lengths" | "run_queue_lengths_all" => Term::list([Term::from(run_queue(node))]),
        "scheduler_wall_time" | "scheduler_wall_time_all" => scheduler_wall_time(node),
        _ => return None,
    })
}

/// `{Total, SinceLastCall}`.
fn since_last(last: &AtomicU64, now: u64) -> Term {
    let before = last.fetch_max(now, Ordering::Relaxed);
    Term::from((now, now.saturating_sub(before)))
}

/// The time since the node was started.
pub(super) fn uptime(node: &NodeInner) -> Duration {
    node.net_kernel.identity().clock.now().saturating_since(Mono::ZERO)
}

/// Processor time of the whole operating-system process.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Bytes received and sent on the connections of this node since it was started.
pub(super) fn io_bytes(node: &NodeInner) -> (u64, u64) {
    let statistics = &node.statistics;
    let mut received = statistics.received.load(Ordering::Relaxed);
    let mut sent = statistics.sent.load(Ordering::Relaxed);
    for link in node.net_kernel.links() {
        let (of_link_in, of_link_out) = link.bytes();
        received += of_link_in;
        sent += of_link_out;
    }
    let received = statistics.reported_in.fetch_max(received, Ordering::Relaxed).max(received);
    let sent = statistics.reported_out.fetch_max(sent, Ordering::Relaxed).max(sent);
    (received, sent)
}

/// `{{input, Input}, {output, Output}}`.
pub(super) fn io(node: &NodeInner) -> Term {
    let (received, sent) = io_bytes(node);
    Term::from((pair("input", received), pair("output", sent)))
}

/// Tasks that are ready and that no thread has taken over yet.
pub(super) fn run_queue(node: &NodeInner) -> usize {
    node.runtime.metrics().global_queue_depth()
}

/// `[{Thread, ActiveTime, TotalTime}]` in nanoseconds. It is always measured, whether or not `scheduler_wall_time` was switched
/// on.
pub(super) fn scheduler_wall_time(node: &NodeInner) -> Term {
    let metrics = node.runtime.metrics();
    let total = uptime(node).as_nanos();
    Term::list(node.statistics.busy_before.iter().enumerate().map(|(worker, before)| {
        let busy = metrics.worker_total_busy_duration(worker).saturating_sub(*before);
        Term::from((worker + 1, busy.as_nanos().min(total), total))
    }))
}

/// `erlang:memory/0`: of the keys of OTP those that are known. `total` is the resident memory of the operating-system process,
/// whatever else that does; `processes` what [`process_info::memory`] counts; `system` the rest.
pub(super) fn memory(node: &NodeInner) -> Option<Term> {
    let total = resident()?;
    let processes = processes_memory(node).min(total);
    Some(Term::list([
        pair("total", total),
        pair("processes", processes),
        pair("processes_used", processes),
        pair("system", total - processes),
    ]))
}

/// Bytes that processes hold.
pub(super) fn processes_memory(node: &NodeInner) -> u64 {
    node.processes.all().iter().map(|proc| process_info::memory(proc) as u64).sum()
}

/// Resident memory in bytes, if the operating system tells.
pub(super) fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
    kibibytes.checked_mul(1024)
}

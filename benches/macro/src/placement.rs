//! On which processors the two sides run, and what that costs them.

use std::fmt;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Where the two sides of a measurement run. It changes latency threefold on a machine whose idle processors halt.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Placement {
    /// Wherever the system puts them.
    Unpinned,
    /// Both on one processor.
    OneCpu,
    /// One processor each.
    TwoCpus,
}

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Unpinned => "unpinned",
            Self::OneCpu => "one CPU",
            Self::TwoCpus => "two CPUs",
        })
    }
}

impl Placement {
    /// Runs `start` so that threads and processes that it starts are on the processors of one side (0 or 1).
    pub(crate) fn place<T>(self, side: usize, start: impl FnOnce() -> T) -> T {
        let all = processors();
        let cpu = match self {
            Self::Unpinned => return start(),
            Self::OneCpu => all.first(),
            Self::TwoCpus => all.get(side % all.len().max(1)),
        };
        on(*cpu.expect("a processor"), start)
    }
}

fn affinity() -> CpuSet {
    sched_getaffinity(None).expect("the affinity can be read")
}

/// The processors that this program may use.
pub(crate) fn processors() -> Vec<usize> {
    let set = affinity();
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

/// Runs `start` so that threads and processes that it starts are on this processor.
pub(crate) fn on<T>(cpu: usize, start: impl FnOnce() -> T) -> T {
    let before = affinity();
    let mut set = CpuSet::new();
    set.set(cpu);
    sched_setaffinity(None, &set).expect("a processor of one's own can be chosen");
    let value = start();
    sched_setaffinity(None, &before).expect("the affinity can be restored");
    value
}

/// Processor time that all threads of a process have used so far; zero if it is gone.
pub(crate) fn cpu_time(pid: u32) -> Duration {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return Duration::ZERO };
    let nanos: u64 = tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum();
    Duration::from_nanos(nanos)
}

/// Resident memory of a process in bytes.
pub(crate) fn resident(pid: u32) -> u64 {
    status(pid, "VmRSS:")
}

/// The most resident memory that a process has had, in bytes.
pub(crate) fn resident_peak(pid: u32) -> u64 {
    status(pid, "VmHWM:")
}

fn status(pid: u32, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or_default() * 1024
}

//! `erlang:system_info/1`.

use std::fs;

use foundation_proto::etf::{Atom, Term};

use super::VERSION;
use crate::net_kernel::NodeType;
use crate::node::NodeInner;

/// An item of `erlang:system_info/1`; `None`, which is `badarg`, if this node has no such thing: an `otp_release`, a table of
/// atoms, allocators.
pub(super) fn item(node: &NodeInner, item: &Term) -> Option<Term> {
    let item = match item {
        Term::Atom(item) => item.as_str(),
        Term::Tuple(parts) => match &parts[..] {
            // A word is what it is to the processor.
            [what, kind]
                if what.is_atom("wordsize") && (kind.is_atom("internal") || kind.is_atom("external")) =>
            {
                "wordsize"
            }
            _ => return None,
        },
        _ => return None,
    };
    Some(match item {
        "system_version" => Term::charlist(&banner(node)),
        "version" => Term::charlist(VERSION),
        "machine" => Term::charlist("Foundation"),
        "system_architecture" => Term::charlist(&architecture()),
        "system_logger" => Term::atom("undefined"),
        "process_count" => Term::from(process_count(node)),
        "process_limit" => Term::from(node.process_limit),
        "port_count" => Term::from(port_count(node)),
        "port_limit" => Term::from(port_limit(node)),
        "ets_count" => Term::from(0),
        "schedulers" | "schedulers_online" => Term::from(schedulers(node)),
        "dirty_cpu_schedulers" | "dirty_cpu_schedulers_online" | "dirty_io_schedulers" => Term::from(0),
        "multi_scheduling" => Term::atom(if schedulers(node) > 1 { "enabled" } else { "disabled" }),
        "smp_support" | "threads" | "kernel_poll" => Term::from(Atom::from(true)),
        "logical_processors" => known(cpus("present")),
        "logical_processors_online" => known(cpus("online")),
        "logical_processors_available" => {
            known(std::thread::available_parallelism().ok().map(core::num::NonZero::get))
        }
        "wordsize" => Term::from(size_of::<usize>()),
        "endian" => Term::atom(if cfg!(target_endian = "big") { "big" } else { "little" }),
        "creation" => Term::from(node.creation),
        "dist_buf_busy_limit" => Term::from(node.config.limits.wire.busy_limit),
        "os_monotonic_time_source" | "os_system_time_source" => return None,
        "start_time" => Term::from(0),
        _ => return None,
    })
}

/// What a node calls itself where a BEAM would name its release.
pub(super) fn banner(node: &NodeInner) -> String {
    format!("Foundation {VERSION} [native] [{}-bit] [threads:{}]\n", usize::BITS, schedulers(node))
}

pub(super) fn architecture() -> String {
    format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS)
}

pub(super) fn process_count(node: &NodeInner) -> usize {
    node.processes.len()
}

/// Connections to other nodes: on a BEAM each of them is a port.
pub(super) fn port_count(node: &NodeInner) -> usize {
    node.net_kernel.nodes(NodeType::Connected).len()
}

pub(super) fn port_limit(node: &NodeInner) -> usize {
    node.config.limits.peers
}

/// The threads that processes run on.
pub(super) fn schedulers(node: &NodeInner) -> usize {
    node.runtime.metrics().num_workers()
}

/// `unknown` is OTP's word for what the system does not tell.
fn known(number: Option<usize>) -> Term {
    number.map_or_else(|| Term::atom("unknown"), Term::from)
}

/// How many processors a list of Linux's sysfs names (`0-3,8`).
fn cpus(list: &str) -> Option<usize> {
    count_list(&fs::read_to_string(format!("/sys/devices/system/cpu/{list}")).ok()?)
}

fn count_list(list: &str) -> Option<usize> {
    let mut count = 0_usize;
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        count = count.checked_add(last.checked_sub(first)?.checked_add(1)?)?;
    }
    Some(count)
}

#[cfg(test)]
mod tests {
    use super::count_list;

    #[test]
    fn lists_of_processors_are_counted() {
        assert_eq!(count_list("0\n"), Some(1));
        assert_eq!(count_list("0-3,8,10-11\n"), Some(7));
        assert_eq!(count_list(""), None);
        assert_eq!(count_list("3-0"), None);
        assert_eq!(count_list(&format!("0-{}", usize::MAX)), None);
    }
}

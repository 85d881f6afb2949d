//! What a node costs that does nothing: processor time and memory, and memory per process, monitor and connection.

use std::fmt::Write as _;
use std::thread::sleep;
use std::time::Duration;

use foundation_interop_tests::Epmd;

use super::Request;
use crate::placement::{cpu_time, resident};
use crate::stage::{Peer, start_beam, start_rust};
use crate::table::number;

const MIB: f64 = (1 << 20) as f64;

pub(super) fn text(request: &Request) -> String {
    measure(request).unwrap_or_else(|why| format!("\nidle — failed: {why}\n"))
}

fn measure(request: &Request) -> Result<String, String> {
    let epmd = Epmd::start(&request.release);
    let mut text = "\nmemory and idle time\n".to_owned();
    let beam = start_beam(&request.release, epmd.port, "a", None);
    let rust = start_rust(None, epmd.port, "r", None)?;
    let far = start_rust(None, epmd.port, "s", None)?;
    sleep(Duration::from_secs(1));
    let pids = [rust.pid(), beam.pid()];
    let before = pids.map(cpu_time);
    let seconds = (request.millis / 60.0).max(3.0);
    sleep(Duration::from_secs_f64(seconds));
    let [rust_cpu, beam_cpu] =
        [0, 1].map(|at: usize| (cpu_time(pids[at]) - before[at]).as_secs_f64() / seconds * 100.0);
    let [rust_memory, beam_memory] = pids.map(|pid| resident(pid) as f64 / MIB);
    let verdict = |met: bool| if met { "PASS" } else { "MISS" };
    let mut line = |met: bool, what: String| {
        let _ = writeln!(text, "  {} {what}", verdict(met));
    };
    line(
        rust_cpu < 0.1,
        format!("idle node, processor ({seconds:.0} s): {rust_cpu:.3} % (goal < 0.1; BEAM {beam_cpu:.3} %)"),
    );
    line(
        rust_memory < 8.0,
        format!(
            "idle node, resident: {} MiB (goal < 8; BEAM {} MiB)",
            number(rust_memory),
            number(beam_memory)
        ),
    );

    let grown = |op: &str, count: f64| -> Result<f64, String> {
        let before = resident(rust.pid()) as f64;
        rust.op(op)?;
        sleep(Duration::from_millis(200));
        Ok((resident(rust.pid()) as f64 - before) / count)
    };
    let process = grown("hold processes=100000", 1e5)?;
    line(process < 2048.0, format!("each of 100,000 idle processes: {process:.0} bytes (goal < 2 kB)"));
    let subscription = grown("subscribe count=50000", 5e4)?;
    line(
        subscription < 1024.0,
        format!("each of 50,000 subscriptions of processes to a topic of a PubSub: {subscription:.0} bytes"),
    );
    let member = grown("join count=50000", 5e4)?;
    line(member < 1024.0, format!("each of 50,000 members of a process group: {member:.0} bytes"));
    let link = format!("link node={}", far.name());
    rust.op(&link)?;
    let monitor = grown(&format!("monitor node={} count=10000", far.name()), 1e4)?;
    line(monitor < 1024.0, format!("each of 10,000 monitors of a remote process: {monitor:.0} bytes"));

    // A node of its own, so that the memory of the processes above is not reused.
    let hub = start_rust(None, epmd.port, "hub", None)?;
    let crowd = start_rust(None, epmd.port, "crowd", None)?;
    let connect = |first: usize, count: usize| {
        crowd.op(&format!("crowd node={} first={first} count={count} epmd={}", hub.name(), epmd.port))
    };
    connect(0, 10)?;
    let before = resident(hub.pid()) as f64;
    connect(10, 500)?;
    sleep(Duration::from_millis(500));
    let connection = (resident(hub.pid()) as f64 - before) / 500.0;
    line(
        connection < 20e3,
        format!(
            "each of 500 live idle connections: {connection:.0} bytes resident (goal < 20 kB; kernel buffers not counted)"
        ),
    );
    Ok(text)
}

//! What a node costs that does nothing: processor time and memory, the same with every source of discovery, and memory per process,
//! monitor and connection.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, UdpSocket};
use std::process::Command;
use std::thread::sleep;
use std::time::Duration;

use foundation_interop_tests::{Epmd, work_dir};

use super::Request;
use crate::placement::{cpu_time, resident};
use crate::stage::{Peer, Told, start_beam, start_rust};
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

    if let Err(why) = with_sources(request, epmd.port, &mut line) {
        line(false, format!("node with every source of discovery: failed: {why}"));
    }

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

/// The same for a node that looks for others in every way.
fn with_sources(
    request: &Request,
    epmd_port: u16,
    line: &mut impl FnMut(bool, String),
) -> Result<(), String> {
    let answering = Answering::start();
    let finder = answering.finder(epmd_port)?;
    let file = work_dir("bench").join(format!("sources-{}.toml", std::process::id()));
    std::fs::write(&file, answering.sources()).map_err(|error| error.to_string())?;
    let found = finder.op(&format!("discover file={}", file.display()));
    let _gone = std::fs::remove_file(&file);
    let sources = found?.get("sources").copied().unwrap_or(f64::NAN);
    // Until each has asked, and those that nobody answers have been given their pauses.
    sleep(Duration::from_secs(10));
    let before = cpu_time(finder.pid());
    let seconds = (request.millis / 15.0).max(20.0);
    sleep(Duration::from_secs_f64(seconds));
    let cpu = (cpu_time(finder.pid()) - before).as_secs_f64() / seconds * 100.0;
    let memory = resident(finder.pid()) as f64 / MIB;
    let what = format!("node with {sources:.0} sources of discovery");
    line(cpu < 0.1, format!("{what}, processor ({seconds:.0} s): {cpu:.3} % (goal < 0.1)"));
    line(memory < 30.0, format!("{what}, resident: {} MiB (goal < 30)", number(memory)));
    Ok(())
}

/// Servers of this program that a node's sources ask: DNS with an answer of one address, and HTTP with an empty list for Consul.
struct Answering {
    dns: u16,
    consul: u16,
    /// For heartbeats, and a port that refuses.
    free: [u16; 2],
}

impl Answering {
    /// They live as long as this program.
    fn start() -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let dns = socket.local_addr().expect("its address").port();
        std::thread::spawn(move || {
            let mut query = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut query) {
                let Some(end) =
                    query[..length].get(12..).and_then(|name| name.iter().position(|byte| *byte == 0))
                else {
                    continue;
                };
                // RFC 1035 section 4: the header, the question as it came, and 127.0.0.1 if an address is asked for.
                let question = &query[12..(12 + end + 5).min(length)];
                let is_a = question.ends_with(&[0, 1, 0, 1]);
                let mut answer = vec![query[0], query[1], 0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0];
                answer.extend(question);
                if is_a {
                    answer.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 127, 0, 0, 1]);
                }
                let _gone = socket.send_to(&answer, from);
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let consul = listener.local_addr().expect("its address").port();
        std::thread::spawn(move || {
            for mut socket in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut request = [0; 4096];
                    let length = socket.read(&mut request).unwrap_or(0);
                    // As Consul does: who names an index waits for a change.
                    if request[..length].windows(6).any(|part| part == b"index=") {
                        sleep(Duration::from_secs(20));
                    }
                    let _gone = socket.write_all(
                        b"HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n[]",
                    );
                });
            }
        });
        let free =
            || UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port();
        Self { dns, consul, free: [free(), free()] }
    }

    /// A node that asks nobody beyond this machine: with credentials, and with Google's metadata server here.
    fn finder(&self, epmd_port: u16) -> Result<Told, String> {
        let name = "finder@127.0.0.1";
        let mut command = Command::new(std::env::current_exe().map_err(|error| error.to_string())?);
        command
            .args(["peer", "--name", name, "--epmd-port", &epmd_port.to_string(), "--discovers"])
            .envs([("AWS_ACCESS_KEY_ID", "idle"), ("AWS_SECRET_ACCESS_KEY", "idle")])
            .env("GCE_METADATA_HOST", format!("127.0.0.1:{}", self.free[1]));
        Told::start(name, &mut command)
    }

    /// Every strategy, on the loopback interface. Those of the servers that are not there are refused.
    fn sources(&self) -> String {
        let Self { dns, consul, free: [heartbeats, refused] } = self;
        format!(
            "[cluster]\n\
             strategy = ['static', 'local_epmd', 'erlang_hosts', 'gossip', 'mdns', 'dns', 'kubernetes_dns', 'kubernetes_dns_srv', \
             'kubernetes', 'consul', 'ec2', 'ecs', 'gcp', 'rancher', 'postgres']\n\
             [cluster.static]\nhosts = ['absent@127.0.0.1']\n\
             [cluster.erlang_hosts]\nfile = '/dev/null'\n\
             [cluster.gossip]\nsecret = 'idle'\nmulticast_if = '127.0.0.1'\nport = {heartbeats}\n\
             [cluster.mdns]\nmulticast_if = '127.0.0.1'\n\
             [cluster.dns]\nquery = 'idle.internal'\nbasename = 'finder'\nservers = ['127.0.0.1:{dns}']\n\
             [cluster.kubernetes_dns]\nservice = 'idle.internal'\napplication_name = 'finder'\nservers = ['127.0.0.1:{dns}']\n\
             [cluster.kubernetes_dns_srv]\nservice = 'idle'\nnamespace = 'idle'\napplication_name = 'finder'\nservers = ['127.0.0.1:{dns}']\n\
             [cluster.kubernetes]\nkubernetes_selector = 'app=idle'\nkubernetes_node_basename = 'finder'\n\
             kubernetes_master = '127.0.0.1:{refused}'\n\
             [cluster.consul]\nservice = 'idle'\nnode_basename = 'finder'\nbase_url = 'http://127.0.0.1:{consul}'\n\
             [cluster.ec2]\nec2_tagname = 'app'\nec2_tagvalue = 'idle'\nregion = 'eu-central-1'\nendpoint = 'http://127.0.0.1:{refused}'\n\
             [cluster.ecs]\ncluster = 'idle'\nservice_name = 'idle'\nregion = 'eu-central-1'\nendpoint = 'http://127.0.0.1:{refused}'\n\
             [cluster.gcp]\nlabels = {{ app = 'idle' }}\nproject = 'idle'\nendpoint = 'http://127.0.0.1:{refused}'\n\
             [cluster.rancher]\nnode_basename = 'finder'\nendpoint = 'http://127.0.0.1:{refused}'\n\
             [cluster.postgres]\nurl = 'postgresql://idle:idle@127.0.0.1:{refused}/idle'\nchannel_name = 'idle'\n"
        )
    }
}

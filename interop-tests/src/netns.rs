//! Two hosts in network namespaces that a test makes for itself: real packets, and losses that only the system notices.
//!
//! A test cannot enter a namespace and come back (that needs `unsafe`), so it runs itself once more inside:
//!
//! ```text
//!   test ── unshare -nm (-Urnm when not root) ── the same test again, on host A: 10.77.0.1, with the Rust node
//!                                                   └─ nsenter ── host B: 10.77.0.2, with the BEAM node
//! ```
//!
//! A second pair of addresses (10.79.0.1, 10.79.0.2) is for the harness and is never harmed. All packets of a direction are lost
//! without a word by a false hardware address of the other host; some of them by a packet filter that takes them at random.
//! Packets overtake each other where the filter marks some for a second, slower wire (`late`): this needs no netem, which
//! many kernels lack.

use std::io::Write;
use std::process::{Child, Command, Stdio};

/// Host A as host B knows it.
pub const A: &str = "10.77.0.1";
/// Host B as host A knows it.
pub const B: &str = "10.77.0.2";
/// Where the harness listens for nodes on host B.
pub const CONTROL_A: &str = "10.79.0.1";

/// The ends of the slower wire.
const LATE_A: &str = "10.78.0.1";
const LATE_B: &str = "10.78.0.2";

/// What a line begins with that is for the run outside of the namespaces.
pub const SAID: &str = "netns: ";

const INSIDE: &str = "FOUNDATION_INSIDE_NETNS";

/// What the namespaces are made and harmed with, and the argument that makes each say its version. `script/erlang` installs
/// them as root.
const TOOLS: [(&str, &str); 5] =
    [("unshare", "-V"), ("nsenter", "-V"), ("ip", "-V"), ("tc", "-V"), ("nft", "-v")];

/// Runs `test` (its full name) of this test binary once more, in new namespaces. `None` if this is that run already.
/// `Some(Ok)` is what it has said in lines that begin with [`SAID`]; `Some(Err)` says why it is not possible here.
///
/// # Panics
/// If the inner run fails, with what it said; if root lacks a tool that root can install.
pub fn rerun(test: &str) -> Option<Result<Vec<String>, &'static str>> {
    if is_inside() {
        return None;
    }
    // Only root's path has the directories of these tools.
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let root = Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout == b"0\n");
    for (tool, version) in TOOLS {
        if Command::new(tool).arg(version).env("PATH", &path).output().is_err() {
            assert!(!root, "{tool} is missing: script/erlang installs iproute2, nftables and util-linux");
            return Some(Err(
                "iproute2, nftables or util-linux is not installed, and only root can install them",
            ));
        }
    }
    let flags = if root { "-nm" } else { "-Urnm" };
    let allowed =
        Command::new("unshare").args([flags, "ip", "link", "set", "lo", "up"]).env("PATH", &path).output();
    if !allowed.is_ok_and(|out| out.status.success()) {
        return Some(Err("the system allows no network namespaces here"));
    }
    let output = Command::new("unshare")
        .arg(flags)
        .arg(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(INSIDE, "1")
        .env("PATH", &path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "inside the namespaces:\n{said}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let said: Vec<String> =
        said.lines().filter_map(|line| line.strip_prefix(SAID)).map(str::to_owned).collect();
    said.iter().for_each(|line| println!("{line}"));
    Some(Ok(said))
}

/// Whether this process is the one inside of the namespaces.
pub fn is_inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Both hosts, seen from host A, where this process is.
#[derive(Debug)]
pub struct Hosts {
    holder: Child,
    /// Hardware addresses of A's and B's end.
    hardware: [String; 2],
}

impl Hosts {
    /// Makes host B and the wires to it. Only inside of [`rerun`].
    pub fn new() -> Self {
        // Holds the namespace of host B; it ends with this process, whose end closes its input.
        let mut holder = Command::new("unshare")
            .args(["-n", "sh", "-c", "echo; read -r _"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = [0];
        std::io::Read::read_exact(holder.stdout.as_mut().unwrap(), &mut ready).unwrap();
        let mut hosts = Self { holder, hardware: Default::default() };
        let b = hosts.holder.id().to_string();
        for (wire, own, other) in
            [("data", A, B), ("control", CONTROL_A, "10.79.0.2"), ("late", LATE_A, LATE_B)]
        {
            // A veth takes up to 64 KiB of a TCP stream as one packet, as a card does that cuts it by itself: how many there
            // are to lose would be up to how fast both nodes happen to write.
            hosts.on_a(&format!(
                "ip link add {wire} gso_max_segs 1 type veth peer name {wire} gso_max_segs 1 netns {b}"
            ));
            hosts.on_a(&format!("ip addr add {own}/24 dev {wire}"));
            hosts.on_b(&format!("ip addr add {other}/24 dev {wire}"));
            hosts.on_a(&format!("ip link set {wire} up"));
            hosts.on_b(&format!("ip link set {wire} up"));
        }
        hosts.on_a("ip link set lo up");
        hosts.on_b("ip link set lo up");
        hosts.hardware = [hosts.on_a("ip -br link show data"), hosts.on_b("ip -br link show data")];
        // `data@if7 UP 02:… <flags>`
        for hardware in &mut hosts.hardware {
            let address = hardware.split_whitespace().find(|word| word.matches(':').count() == 5);
            *hardware = address.expect("a hardware address").to_owned();
        }
        hosts.heal();
        hosts
    }

    /// What to put before a command so that it runs on host B.
    pub fn enter_b(&self) -> Vec<String> {
        ["nsenter", "-t", &self.holder.id().to_string(), "-n"].map(str::to_owned).to_vec()
    }

    fn run(&self, mut command: Command) -> String {
        let output = command.output().unwrap();
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn on_a(&self, words: &str) -> String {
        let mut words = words.split(' ');
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        self.run(command)
    }

    fn on_b(&self, words: &str) -> String {
        let enter = self.enter_b();
        let mut command = Command::new(&enter[0]);
        command.args(&enter[1..]).args(words.split(' '));
        self.run(command)
    }

    /// Nothing that A sends arrives.
    pub fn lose_from_a(&self) {
        self.on_a(&format!("ip neigh replace {B} lladdr 02:00:00:00:00:99 dev data nud permanent"));
    }

    /// Nothing that B sends arrives.
    pub fn lose_from_b(&self) {
        self.on_b(&format!("ip neigh replace {A} lladdr 02:00:00:00:00:99 dev data nud permanent"));
    }

    /// Runs words on both hosts, where `PEER` stands for the other host and `LATE` for its end of the slower wire.
    fn on_both(&self, words: &str) {
        self.on_a(&words.replace("PEER", B).replace("LATE", LATE_B));
        self.on_b(&words.replace("PEER", A).replace("LATE", LATE_A));
    }

    /// Of what arrives at either host, so many packets in a hundred are lost, at random.
    pub fn lose(&self, percent: u32) {
        self.on_both("nft add table ip loss");
        self.on_both("nft add chain ip loss arriving { type filter hook input priority 0 ; }");
        self.on_both(&format!(
            "nft add rule ip loss arriving iifname {{ data, late }} numgen random mod 100 < {percent} counter drop"
        ));
    }

    /// Of what either host sends, so many packets in a hundred take the slower wire and are overtaken, and so many are there
    /// twice.
    pub fn reorder(&self, late: u32, twice: u32) {
        // A queue of some milliseconds that is long enough to lose nothing.
        self.on_both("tc qdisc replace dev late root tbf rate 20mbit burst 2000 limit 4000000");
        self.on_both("ip route replace PEER via LATE dev late table 100");
        self.on_both("ip rule add fwmark 1 table 100");
        self.on_both("nft add table ip order");
        self.on_both("nft add chain ip order leaving { type route hook output priority mangle ; }");
        for rule in [
            format!("ip daddr PEER numgen random mod 100 < {twice} counter dup to PEER device data"),
            format!("ip daddr PEER numgen random mod 100 < {late} counter meta mark set 1"),
        ] {
            self.on_both(&format!("nft add rule ip order leaving {rule}"));
        }
    }

    /// The packets that the filter has taken on host A: lost, made twice, or sent the slower way.
    pub fn taken_on_a(&self) -> u64 {
        let rules = self.on_a("nft list ruleset");
        let words: Vec<&str> = rules.split_whitespace().collect();
        let counters = words.windows(2).filter(|pair| pair[0] == "packets");
        counters.map(|pair| pair[1].parse::<u64>().unwrap()).sum()
    }

    /// Segments that the TCP of host A has received before those that they follow.
    pub fn overtaken_on_a(&self) -> u64 {
        let counters = std::fs::read_to_string("/proc/self/net/netstat").unwrap();
        // Two lines a protocol: the names, and the values in the same order.
        let mut lines = counters.lines().filter(|line| line.starts_with("TcpExt:"));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let mut pairs = names.split(' ').zip(values.split(' '));
        pairs.find(|(name, _)| *name == "TCPOFOQueue").unwrap().1.parse().unwrap()
    }

    /// The wire is pulled out of host B, and host A sees that nothing is at its other end.
    pub fn unplug(&self) {
        self.on_b("ip link set data down");
    }

    /// Everything arrives again, at once and in order.
    pub fn heal(&self) {
        self.on_both("nft flush ruleset");
        self.on_b("ip link set data up");
        let [a, b] = &self.hardware;
        self.on_a(&format!("ip neigh replace {B} lladdr {b} dev data nud permanent"));
        self.on_b(&format!("ip neigh replace {A} lladdr {a} dev data nud permanent"));
    }
}

impl Default for Hosts {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        // Host A stays for the next release. The system takes the wires away later than the namespace of host B ends.
        let clear = "nft flush ruleset; ip rule del fwmark 1; for wire in data control late; do ip link del $wire; done";
        let _ = Command::new("sh").args(["-c", clear]).output();
        if let Some(mut input) = self.holder.stdin.take() {
            let _ = input.write_all(b"\n");
        }
        let _ = self.holder.wait();
    }
}

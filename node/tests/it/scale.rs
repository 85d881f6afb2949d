//! Figures of large clusters and many subscriptions. They are printed, not judged:
//! `cargo test --release -p foundation-node --test it scale::NAME -- --ignored --nocapture`, each in a process of its own, because
//! memory that was given back counts as in use.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use foundation_node::Node;
use foundation_node::config::{EpmdMode, NodeConfig};
use foundation_node::process::Process;
use foundation_node::service::channels::{Channel, Channels, Config, Fanout};
use foundation_node::service::pubsub::PubSub;
use foundation_proto::etf::{RawTerm, Term};

use crate::support::{DEADLINE, free_port, lonely};

const NODES: usize = 64;
/// Nodes of one process share two cores here, and all dial at once.
const PATIENCE: Duration = Duration::from_secs(120);
/// Memory that has not changed for so long is what is needed.
const SETTLED: Duration = Duration::from_millis(500);
/// In the processes that the last figure starts: the number of the node, and the port of their EPMD.
const MEMBER: &str = "FOUNDATION_SCALE_MEMBER";

/// Bytes of memory that a process has in use.
fn resident(pid: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/statm")).unwrap();
    status.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not happen in time");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Broadcasts to each topic in turn, `rounds` times, and takes everything out of the mailboxes again.
async fn broadcasts(
    pubsub: &PubSub,
    topics: &[String],
    processes: &mut [Process],
    rounds: usize,
) -> Duration {
    let message = RawTerm::from_term(&Term::from((Term::atom("price"), 42))).unwrap();
    let mut taken = Duration::ZERO;
    for _ in 0..rounds {
        let started = Instant::now();
        for topic in topics {
            pubsub.broadcast_raw(topic, message.clone(), None).await.unwrap();
        }
        taken += started.elapsed();
        for process in &mut *processes {
            while process.mailbox_len() > 0 {
                process.recv_timeout(DEADLINE).await.unwrap();
            }
        }
    }
    taken / u32::try_from(rounds * topics.len()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a figure"]
async fn a_hundred_thousand_subscriptions_in_one_node() {
    let node = lonely().await;
    let pubsub = node.pubsub("Scale").unwrap();
    let before = resident("self");
    let mut processes: Vec<Process> = (0..100_000).map(|_| node.process().unwrap()).collect();
    let with_processes = resident("self");
    let started = Instant::now();
    for process in &processes {
        pubsub.subscribe_pid("one", process.pid());
    }
    let subscribed = started.elapsed();
    // What each mailbox allocates for its first message is the process's, not the subscription's.
    let (mut with_subscriptions, mut since) = (resident("self"), Instant::now());
    until("memory stays as it is", || {
        if resident("self") != with_subscriptions {
            (with_subscriptions, since) = (resident("self"), Instant::now());
        }
        since.elapsed() > SETTLED
    })
    .await;
    let topics = ["one".to_owned()];
    let first = broadcasts(&pubsub, &topics, &mut processes, 1).await;
    let each = broadcasts(&pubsub, &topics, &mut processes, 10).await;
    println!(
        "100,000 processes: {} bytes each; subscribed to one topic: {} bytes and {:?} each; a broadcast to all {first:?} at first, then {each:?}, \
         {:?} a subscriber",
        (with_processes - before) / 100_000,
        (with_subscriptions - with_processes) / 100_000,
        subscribed / 100_000,
        each / 100_000
    );
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a figure"]
async fn a_hundred_subscriptions_of_each_of_a_thousand_processes() {
    let node = lonely().await;
    let pubsub = node.pubsub("Scale").unwrap();
    let topics: Vec<String> = (0..100).map(|n| format!("topic:{n}")).collect();
    let mut processes: Vec<Process> = (0..1_000).map(|_| node.process().unwrap()).collect();
    let before = resident("self");
    let started = Instant::now();
    for process in &processes {
        for topic in &topics {
            pubsub.subscribe_pid(topic, process.pid());
        }
    }
    let subscribed = started.elapsed();
    let with_subscriptions = resident("self");
    let each = broadcasts(&pubsub, &topics, &mut processes, 10).await;
    println!(
        "1,000 processes, each subscribed to 100 topics: {} bytes and {:?} a subscription; a broadcast to one topic {each:?}, {:?} a subscriber",
        with_subscriptions.saturating_sub(before) / 100_000,
        subscribed / 100_000,
        each / 1_000
    );
}

/// Names of 8 bytes with an integer, of processes that have 100 each.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a figure"]
async fn lookups_among_ten_and_a_hundred_thousand_names() {
    let node = lonely().await;
    let name = |n: i64| Term::from((Term::from("worker"), Term::from(n)));
    for names in [10_000, 100_000] {
        let registry = node.registry(&format!("names{names}")).unwrap();
        let processes: Vec<Process> = (0..names / 100).map(|_| node.process().unwrap()).collect();
        let before = resident("self");
        let started = Instant::now();
        for (n, process) in (0..names).zip(processes.iter().cycle()) {
            registry.register(name(n), Term::from(n), process.pid()).await.unwrap();
        }
        let registered = started.elapsed() / u32::try_from(names).unwrap();
        let bytes = resident("self").saturating_sub(before) / usize::try_from(names).unwrap();
        let (keys, rounds): (Vec<Term>, usize) = ((0..names).map(name).collect(), 5);
        let started = Instant::now();
        let found: usize =
            (0..rounds).map(|_| keys.iter().filter(|key| registry.lookup(key).is_some()).count()).sum();
        let each = started.elapsed() / u32::try_from(found).unwrap();
        assert_eq!(found, keys.len() * rounds);
        println!("{names} names: registering one {registered:?}, {bytes} bytes each; a lookup {each:?}");
    }
}

async fn member(number: usize, epmd_port: u16) -> (Node, Channels) {
    let mode = if number == 0 { EpmdMode::Embedded } else { EpmdMode::Require };
    let config =
        NodeConfig::new(format!("n{number}@127.0.0.1")).cookie("secret").epmd(mode).epmd_port(epmd_port);
    let node = Node::start(config).await.unwrap();
    let channels = node.channels().unwrap();
    (node, channels)
}

fn complete(channels: &Channels) -> bool {
    Channel::ALL.iter().all(|channel| channels.nodes(*channel).0.len() == NODES - 1)
}

/// The median time until a broadcast on `control` was acknowledged by all others.
async fn acknowledged(channels: &Channels, bytes: usize) -> Duration {
    let message = Term::binary(&vec![7; bytes]);
    let mut times = Vec::new();
    for _ in 0..50 {
        let started = Instant::now();
        let receipt = channels.broadcast(Channel::Control, &message).await.unwrap();
        times.push(started.elapsed());
        assert_eq!((receipt.acknowledged, receipt.pending), (NODES - 1, 0));
    }
    times.sort_unstable();
    times[times.len() / 2]
}

async fn print_broadcasts(channels: &Channels) {
    for bytes in [16, 64 << 10] {
        for fanout in [Fanout::Direct, Fanout::Staged(8)] {
            channels.configure(Channel::Control, Config::of(Channel::Control).fanout(fanout));
            let median = acknowledged(channels, bytes).await;
            println!(
                "a broadcast of {bytes} bytes on `control`, {fanout:?}, until all 63 have acknowledged it: {median:?} (median of 50)"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a figure"]
async fn sixty_four_nodes_in_one_process() {
    let epmd_port = free_port();
    let before = resident("self");
    let mut nodes = Vec::new();
    for number in 0..NODES {
        nodes.push(member(number, epmd_port).await);
    }
    let with_nodes = resident("self");
    let started = Instant::now();
    for (at, (node, _)) in nodes.iter().enumerate() {
        for other in at + 1..NODES {
            node.connect(&format!("n{other}@127.0.0.1")).await.unwrap();
        }
    }
    let connected = started.elapsed();
    until("all know each other", || nodes.iter().all(|(_, channels)| complete(channels))).await;
    println!(
        "64 nodes in one process: {} KiB each alone; 2,016 connections made in {connected:?}, all channels of all nodes complete after {:?}; {} KiB a node then",
        (with_nodes - before) / NODES / 1024,
        started.elapsed(),
        (resident("self") - before) / NODES / 1024
    );
    print_broadcasts(&nodes[0].1).await;
}

/// Not a figure: one of the processes of the next one. Says when it is complete, and ends when its input does.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "is started by another test"]
async fn a_member() {
    let Ok(text) = std::env::var(MEMBER) else { return };
    let (number, port) = text.split_once(' ').unwrap();
    let number: usize = number.parse().unwrap();
    let (node, channels) = member(number, port.parse().unwrap()).await;
    println!("ready");
    let mut lines = std::io::stdin().lines();
    lines.next();
    for other in number + 1..NODES {
        node.connect(&format!("n{other}@127.0.0.1")).await.unwrap();
    }
    until("all know each other", || complete(&channels)).await;
    println!("complete");
    lines.next();
    if number == 0 {
        print_broadcasts(&channels).await;
    }
    println!("done");
    lines.next();
}

struct Started {
    child: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Started {
    fn new(number: usize, epmd_port: u16) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "scale::a_member", "--ignored", "--nocapture"]);
        command.env(MEMBER, format!("{number} {epmd_port}"));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, said }
    }

    /// Waits for a line; prints what comes before it.
    fn wait_for(&mut self, expected: &str) {
        let mut line = String::new();
        while self.said.read_line(&mut line).unwrap() > 0 {
            match line.trim() {
                said if said == expected => return,
                said if said.starts_with("a broadcast") => println!("{said}"),
                _ => {}
            }
            line.clear();
        }
        panic!("a member ended before it was {expected}");
    }

    fn go_on(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
#[ignore = "a figure"]
fn sixty_four_nodes_in_processes_of_their_own() {
    let epmd_port = free_port();
    let mut members = Vec::new();
    for number in 0..NODES {
        let mut member = Started::new(number, epmd_port);
        member.wait_for("ready");
        members.push(member);
    }
    let memory = |members: &[Started]| {
        members.iter().map(|member| resident(&member.child.id().to_string())).sum::<usize>() / NODES / 1024
    };
    let alone = memory(&members);
    let started = Instant::now();
    members.iter_mut().for_each(Started::go_on);
    members.iter_mut().for_each(|member| member.wait_for("complete"));
    println!(
        "64 nodes in processes of their own: {alone} KiB each alone, {} KiB in the full mesh; all channels of all nodes complete after {:?}",
        memory(&members),
        started.elapsed()
    );
    members.iter_mut().for_each(Started::go_on);
    members.iter_mut().for_each(|member| member.wait_for("done"));
}

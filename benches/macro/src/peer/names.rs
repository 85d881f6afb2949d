//! Names: ours between Rust nodes, and those of `Horde.Registry`.

use std::time::{Duration, Instant};

use foundation_node::Node;
use foundation_node::net_kernel::NodeType;
use foundation_node::process::Process;
use foundation_node::service::horde::{self, HordeRegistry};
use foundation_node::service::registry::{self, Registry};
use foundation_proto::Limits;
use foundation_proto::etf::{Atom, Pid, Tape, Term};

use super::ops::{Result, micros, why};
use super::{PATIENCE, unbounded};
use crate::stats::{Numbers, clock, median, percentiles};

/// As the BEAM side calls it.
const NAME: &str = "Bench.Names";
/// The same of our own, so that a node can have both.
const OWN: &str = "bench_names";
/// What this node opened, if it is our own.
const OWN_MARK: &str = "bench_names_are_ours";
/// As on the BEAM side: 100 names in a row belong to one process.
const NAMES_OF_A_PROCESS: usize = 100;

/// Where names are kept.
#[derive(Clone)]
enum Names {
    Own(Registry),
    Horde(HordeRegistry),
}

impl Names {
    /// What was opened on this node.
    fn of(node: &Node) -> Result<Self> {
        if node.whereis(OWN_MARK).is_some() {
            return Ok(Self::Own(node.registry(OWN).map_err(why)?));
        }
        Ok(Self::Horde(node.horde_registry(NAME).map_err(why)?))
    }

    async fn register(&self, name: Term, pid: &Pid) -> Result<()> {
        let value = Term::atom("nil");
        let new = match self {
            Self::Own(names) => {
                names.register(name, value, pid).await.map_err(why)? == registry::Registered::Yes
            }
            Self::Horde(names) => {
                names.register(name, value, pid).await.map_err(why)? == horde::Registered::Yes
            }
        };
        if new { Ok(()) } else { Err("the name is taken".to_owned()) }
    }

    fn has(&self, name: &Term) -> bool {
        match self {
            Self::Own(names) => names.lookup(name).is_some(),
            Self::Horde(names) => names.lookup(name).is_some(),
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::Own(names) => names.len(),
            Self::Horde(names) => names.count(),
        }
    }
}

pub(super) async fn run(
    node: &Node,
    operation: &str,
    peer: &Atom,
    get: &impl Fn(&str) -> Result<usize>,
) -> Result<Numbers> {
    if operation == "names_link" {
        node.connect(peer.as_str()).await.map_err(why)?;
        return Ok([("ok".to_owned(), 1.0)].into());
    }
    if operation == "names_open" {
        return open(node, peer, get("own").is_ok()).await;
    }
    let names = Names::of(node)?;
    let one = |name: &str, value: f64| Ok(Numbers::from([(name.to_owned(), value)]));
    match operation {
        "names_near" => {
            let near = node.nodes(NodeType::Connected).contains(peer);
            one("near", f64::from(u8::from(near)))
        }
        "names_count" => one("names", names.count() as f64),
        "names_register" => {
            register(node, &names, get("first")?, get("count")?, Duration::ZERO).await.map(percentiles)
        }
        "names_paced" => {
            let every = Duration::from_millis(get("every")? as u64);
            register(node, &names, get("first")?, get("count")?, every).await.map(percentiles)
        }
        "names_fill" => {
            let (node, first, count) = (node.clone(), get("first")?, get("count")?);
            // Whoever asked counts what is there.
            tokio::spawn(async move { register(&node, &names, first, count, Duration::ZERO).await });
            one("ok", 1.0)
        }
        "names_limit" => one("ns", two_reads(get("count")?, get("rounds")?)),
        "names_lookup" => one("ns", lookup(&names, get("first")?, get("count")?, get("rounds")?)?),
        "names_seen" => {
            let (mut times, mut there) = (Vec::new(), Vec::new());
            for number in get("first")?..get("first")? + get("count")? {
                let (answered, found) = seen(node, &names, peer, number).await?;
                times.push(answered);
                there.push(found);
            }
            let mut numbers = percentiles(times);
            numbers.insert("there".to_owned(), median(&there));
            Ok(numbers)
        }
        other => Err(format!("unknown operation {other}")),
    }
}

/// Opens names that are shared with a node, and answers when one is found.
async fn open(node: &Node, peer: &Atom, own: bool) -> Result<Numbers> {
    let names = if own {
        super::spawn(
            node,
            Some(OWN_MARK),
            async |mut process: Process| while process.recv().await.is_ok() {},
        );
        Names::of(node)?
    } else {
        let names = node.horde_registry(NAME).map_err(why)?;
        names.set_members([(NAME, peer.as_str())]).await.map_err(why)?;
        Names::Horde(names)
    };
    super::spawn(node, Some("names"), async move |mut process: Process| {
        let mut tape = Tape::new();
        while let Ok(message) = process.recv().await {
            let Some(raw) = message.as_raw() else { continue };
            let Some([_, from, name]) = raw.view(&mut tape).ok().and_then(|view| view.tuple()) else {
                continue;
            };
            let (Some(from), Some(name)) = (from.as_pid(), name.as_binary()) else { continue };
            let name = Term::binary(name);
            // Whoever asks gives up then too.
            let deadline = Instant::now() + PATIENCE;
            while !names.has(&name) && Instant::now() < deadline {
                tokio::task::yield_now().await;
            }
            if !names.has(&name) {
                continue;
            }
            let found = Term::from((Term::atom("found"), name, Term::Float(clock())));
            let _gone = process.send_term(&from, &found).await;
        }
    });
    Ok([("ok".to_owned(), 1.0)].into())
}

fn name(number: usize) -> Term {
    Term::from(format!("name:{number}").as_str())
}

/// The process that has a name.
fn holder(node: &Node, number: usize) -> Result<Pid> {
    let holder = format!("holder{}", number / NAMES_OF_A_PROCESS);
    if let Some(pid) = node.whereis(&holder) {
        return Ok(pid);
    }
    let handle = node
        .spawn_opt(&unbounded(), async |mut process: Process| while process.recv().await.is_ok() {})
        .map_err(why)?;
    handle.register(Atom::new(&holder).map_err(why)?).map_err(why)?;
    Ok(handle.pid().clone())
}

async fn register(
    node: &Node,
    names: &Names,
    first: usize,
    count: usize,
    every: Duration,
) -> Result<Vec<f64>> {
    let mut times = Vec::with_capacity(count);
    for number in first..first + count {
        if !every.is_zero() {
            tokio::time::sleep(every).await;
        }
        let (holder, name) = (holder(node, number)?, name(number));
        let start = Instant::now();
        names.register(name, &holder).await?;
        times.push(micros(start));
    }
    Ok(times)
}

/// Nanoseconds of one, in the fastest of the rounds: whatever else runs takes the processor in between.
fn lookup(names: &Names, first: usize, count: usize, rounds: usize) -> Result<f64> {
    let all: Vec<Term> = (first..first + count).map(name).collect();
    let mut fastest = f64::INFINITY;
    for _ in 0..rounds {
        let start = Instant::now();
        let found = all.iter().filter(|name| names.has(name)).count();
        fastest = fastest.min(micros(start) * 1e3);
        if found != count {
            return Err(format!("{found} of {count} names were found"));
        }
    }
    Ok(fastest / count as f64)
}

/// About what a name takes on a node of `registry-heal`, in whole lines.
const BYTES_OF_A_NAME: usize = 704;

/// Nanoseconds of what no lookup can do without, in the fastest of the rounds: to read where an entry is, and a line of the entry,
/// of as many that lie as far apart. Each read waits for the one before, as the work on one name does for the name.
fn two_reads(count: usize, rounds: usize) -> f64 {
    const LINE: usize = 64;
    let mut places = vec![[0_usize; LINE / size_of::<usize>()]; count];
    let mut entries = vec![[0_usize; BYTES_OF_A_NAME / size_of::<usize>()]; count];
    // In an order that no prefetcher follows: Fisher and Yates, by a small generator (Knuth's constants).
    let mut order: Vec<usize> = (0..count).collect();
    let mut state = 1_u64;
    for at in (1..count).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        order.swap(at, (state >> 33) as usize % (at + 1));
    }
    for (at, next) in order.iter().zip(order.iter().cycle().skip(1)) {
        if let (Some(place), Some(entry)) = (places.get_mut(*at), entries.get_mut(count - 1 - at)) {
            (place[0], entry[0]) = (count - 1 - at, *next);
        }
    }
    let mut fastest = f64::INFINITY;
    for _ in 0..rounds {
        let (start, mut at) = (Instant::now(), 0);
        for _ in 0..count {
            at = places.get(at).and_then(|place| entries.get(place[0])).map_or(0, |entry| entry[0]);
        }
        fastest = fastest.min(micros(start) * 1e3);
        std::hint::black_box(at);
    }
    fastest / count as f64
}

/// Registered here, found there, and answered: until the answer, and until it was there. The beat of who replicates does not know of this
/// one.
async fn seen(node: &Node, names: &Names, peer: &Atom, number: usize) -> Result<(f64, f64)> {
    tokio::time::sleep(Duration::from_millis((number * 137 % 300) as u64)).await;
    let mut process = node.process_opt(&unbounded()).map_err(why)?;
    let (holder, name) = (holder(node, number)?, name(number));
    let ask = Term::from((Term::atom("find"), Term::Pid(process.pid().clone()), name.clone()));
    let (start, begun) = (Instant::now(), clock());
    names.register(name, &holder).await?;
    process.send_term(("names", peer), &ask).await.map_err(why)?;
    let answer = process.recv_timeout(PATIENCE).await.map_err(why)?;
    let answer = answer.to_term(&Limits::default()).map_err(why)?;
    let Some([_, _, Term::Float(at)]) = answer.as_tuple() else { return Err(format!("answered {answer}")) };
    Ok((micros(start), at - begun))
}

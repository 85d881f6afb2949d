//! Broadcasts of the unmodified Phoenix.PubSub and of ours, one topic for each subscriber.

use std::path::PathBuf;

use foundation_interop_tests::Epmd;

use super::{Request, Unit, throughput, times};
use crate::placement::Placement;
use crate::stage::{Pair, Peer, start_phoenix_beam, start_rust};
use crate::table::{Line, Sample, at_least, at_most};

pub(super) fn lines(request: &Request, show: &mut dyn FnMut(Line<'_>)) {
    let Some(source) = source() else {
        return show(Line::new("broadcasts", Placement::Unpinned, "").with("Phoenix.PubSub", || {
            Err("$FOUNDATION_ECOSYSTEM/phoenix_pubsub is not there; see make ecosystem".to_owned())
        }));
    };
    let epmd = Epmd::start(&request.release);
    let beam = |name| start_phoenix_beam(&request.release, epmd.port, name, &source);
    let (beam, far_beam) = (beam("a"), beam("b"));
    let rust = |name| start_rust(None, epmd.port, name, None).expect("a Rust node starts");
    let (rust, far_rust) = (rust("r"), rust("s"));
    // A PubSub for each pair: a broadcast goes to every node that has joined.
    let pairs: [Pair<'_>; 4] = [
        ("BEAM→BEAM".to_owned(), &beam, &far_beam),
        ("Rust→BEAM".to_owned(), &rust, &far_beam),
        ("BEAM→Rust".to_owned(), &beam, &far_rust),
        ("Rust→Rust".to_owned(), &rust, &far_rust),
    ];
    for (number, (name, from, to)) in pairs.iter().enumerate() {
        let joined =
            from.op(&format!("open pubsub={number}")).and_then(|_| to.op(&format!("open pubsub={number}")));
        let joined = joined.and_then(|_| from.op(&format!("joined node={} pubsub={number}", to.name())));
        let joined = joined.and_then(|_| to.op(&format!("joined node={} pubsub={number}", from.name())));
        if let Err(why) = joined {
            let line = Line::new("broadcasts", Placement::Unpinned, "");
            return show(line.with(name, move || Err(why.clone())));
        }
    }
    show(goals(each(
        &pairs,
        "broadcasts of 16 bytes, 1 sender, 1 subscriber",
        "messages/s",
        |number, from, to| {
            Box::new(throughput(PUBLISH[number], from, to, 1, 16, request.millis, Unit::Messages))
        },
    )));
    show(each(&pairs, "broadcasts of 16 bytes, 8 senders, 8 topics", "messages/s", |number, from, to| {
        Box::new(throughput(PUBLISH[number], from, to, 8, 16, request.millis, Unit::Messages))
    }));
    let count = (3000.0 * request.millis / 300.0).ceil().max(10.0);
    show(
        each(
            &pairs,
            "broadcast of 16 bytes, answered by its subscriber, round trip",
            "µs",
            |number, from, to| {
                Box::new(times(
                    from,
                    format!("topic_echo pubsub={number} node={} count={count} size=16", to.name()),
                ))
            },
        )
        .goal(at_most("Rust→BEAM", 1.0, "BEAM→BEAM"))
        .goal(at_most("Rust→Rust", 1.0, "BEAM→BEAM")),
    );
    let millis = (request.millis * 4.0).ceil();
    show(
        each(
            &pairs,
            "broadcast every 1 ms, answered, beside 4 senders of broadcasts of 1 MiB",
            "ms",
            |number, from, to| {
                let text = format!(
                    "topic_hol pubsub={number} node={} senders=4 size={} millis={millis}",
                    to.name(),
                    1 << 20
                );
                Box::new(move || {
                    let numbers = from.op(&text)?;
                    let get = |name: &str| numbers.get(name).copied().unwrap_or(f64::NAN);
                    if get("bad") != 0.0 {
                        return Err(format!("{} messages were lost or out of order", get("bad")));
                    }
                    let extras = vec![("p99", get("p99") / 1e3), ("bulk MB/s", get("bulk"))];
                    Ok(Sample { value: get("p50") / 1e3, extras })
                })
            },
        )
        .goal(at_most("Rust→BEAM", 1.0, "BEAM→BEAM"))
        .goal(at_most("Rust→Rust", 1.0, "BEAM→BEAM")),
    );
}

/// The operation, with the PubSub of each pair.
const PUBLISH: [&str; 4] = ["publish pubsub=0", "publish pubsub=1", "publish pubsub=2", "publish pubsub=3"];

fn goals(line: Line<'_>) -> Line<'_> {
    line.goal(at_least("Rust→BEAM", 1.0, "BEAM→BEAM")).goal(at_least("Rust→Rust", 1.0, "BEAM→BEAM"))
}

type Run<'a> = Box<dyn FnMut() -> Result<Sample, String> + 'a>;

fn each<'a>(
    pairs: &[Pair<'a>],
    title: &str,
    unit: &'static str,
    run: impl Fn(usize, &'a dyn Peer, &'a dyn Peer) -> Run<'a>,
) -> Line<'a> {
    let line = Line::new(title, Placement::Unpinned, unit);
    pairs
        .iter()
        .enumerate()
        .fold(line, |line, (number, (name, from, to))| line.with(name.clone(), run(number, *from, *to)))
}

/// The unmodified library.
fn source() -> Option<PathBuf> {
    let source = PathBuf::from(std::env::var_os("FOUNDATION_ECOSYSTEM")?).join("phoenix_pubsub");
    source.join("mix.exs").is_file().then_some(source)
}

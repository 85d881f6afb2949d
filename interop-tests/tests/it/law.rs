//! The message law under load and kills: numbered messages, small and in fragments, between many pairs of processes both ways,
//! while the connection is lost again and again. `beam/foundation_law.erl` says what the law is; here is the Rust side.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use foundation_interop_tests::{Beam, Case, Epmd, Release, case};
use foundation_node::process::{Handle, MailboxLimit, Message, Monitored, Process, Reason, SpawnOptions};
use foundation_proto::etf::{Pid, RawTerm, Tape, Term};
use tokio::sync::Notify;

use crate::rust::{Rust, next_term};
use crate::soak;

/// Messages that a sender is ahead of what its receiver has acknowledged, at most.
const WINDOW: u64 = 2000;

/// How long anything may take that is waited for, on a machine that does other things too.
const PATIENCE: Duration = Duration::from_secs(120);

/// What one receiver has seen.
#[derive(Debug, Default)]
struct Seat {
    /// A message has come through the present connection, which is monitored and linked across.
    ready: AtomicBool,
    downs: AtomicU64,
    exits: AtomicU64,
    messages: AtomicU64,
    done: AtomicBool,
    violations: Mutex<Vec<String>>,
}

impl Seat {
    fn violation(&self, what: String) {
        self.violations.lock().unwrap().push(what);
    }
}

/// What a sender has heard from its receiver.
#[derive(Debug, Default)]
struct Heard {
    to: Mutex<Option<Pid>>,
    acknowledged: AtomicU64,
    sent: AtomicU64,
    finish: AtomicBool,
    news: Notify,
}

fn body(number: u64, large_every: u64) -> Term {
    let copies = if number.is_multiple_of(large_every) { 10_000 + number % 20_000 } else { 1 + number % 8 };
    Term::binary(&number.to_be_bytes().repeat(copies as usize))
}

/// Takes in what the receiver says.
async fn hear(mut process: Process, heard: Arc<Heard>) -> Reason {
    process.trap_exit(true);
    while let Ok(message) = process.recv().await {
        let Message::Term(raw) = &message else { continue };
        let mut tape = Tape::new();
        let Some([what, value]) = raw.view(&mut tape).unwrap().tuple() else { continue };
        if what.is_atom("go") {
            *heard.to.lock().unwrap() = value.to_term().as_pid().cloned();
            heard.acknowledged.store(heard.sent.load(Relaxed), Relaxed);
        } else if let Some(number) = value.as_i64() {
            heard.acknowledged.fetch_max(number as u64, Relaxed);
        }
        heard.news.notify_one();
    }
    Reason::NORMAL
}

async fn send(process: Handle, heard: Arc<Heard>, large_every: u64) {
    let mut next = 1;
    loop {
        let to = heard.to.lock().unwrap().clone();
        let finish = heard.finish.load(Relaxed);
        let Some(to) = to.filter(|_| finish || next - heard.acknowledged.load(Relaxed) <= WINDOW) else {
            heard.news.notified().await;
            continue;
        };
        let message = if finish {
            Term::from((Term::atom("last"), next as i64 - 1))
        } else {
            let number = Term::Integer(next as i64);
            Term::Tuple([Term::atom("m"), number, body(next, large_every)].into_iter().collect())
        };
        // Counted first: whoever says go must not be told of less than was sent.
        heard.sent.store(next, Relaxed);
        match process.send_raw(&to, RawTerm::from_term(&message).unwrap()).await {
            Ok(()) if finish => return,
            Ok(()) => next += 1,
            Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
        }
    }
}

/// Judges what comes from one sender.
async fn receive(mut process: Process, sender: Pid, seat: Arc<Seat>) -> Reason {
    process.trap_exit(true);
    let go = Term::from((Term::atom("go"), process.pid()));
    process.link(&sender).await;
    let mut monitor = process.monitor(&sender).await.unwrap();
    let _ = process.send_term(&sender, &go).await;
    let mut linked = true;
    let mut last = 0;
    let mut new = true;
    let mut tape = Tape::new();
    // A second exit signal that is already there must be seen before the link is made again.
    let mut relink = false;
    loop {
        if relink && process.mailbox_len() == 0 {
            process.link(&sender).await;
            (relink, linked) = (false, true);
        }
        let Ok(message) = process.recv().await else { return Reason::NORMAL };
        match message {
            Message::Term(raw) => {
                let view = raw.view(&mut tape).unwrap();
                if let Some([what, number]) = view.tuple()
                    && what.is_atom("last")
                {
                    if number.as_i64() != Some(last) {
                        seat.violation(format!("ended at {:?} after {last}", number.as_i64()));
                    }
                    seat.done.store(true, Relaxed);
                    continue;
                }
                let Some([_, number, body]) = view.tuple() else { panic!("{raw:?}") };
                let number = number.as_i64().unwrap();
                if number != last + 1 && !(new && number > last) {
                    seat.violation(format!("{number} after {last}, {}", if new { "new" } else { "old" }));
                }
                let body = body.as_binary().unwrap();
                let (words, rest) = body.as_chunks::<8>();
                let whole = |word: Option<&[u8; 8]>| word == Some(&number.to_be_bytes());
                if !rest.is_empty() || !whole(words.first()) || !whole(words.last()) {
                    seat.violation(format!("the body of {number}"));
                }
                seat.messages.fetch_add(1, Relaxed);
                last = number;
                if new && linked {
                    new = false;
                    seat.ready.store(true, Relaxed);
                }
                if number % (WINDOW as i64 / 4) == 0 {
                    let _ = process.send_term(&sender, &Term::from((Term::atom("ack"), number))).await;
                }
            }
            Message::Down(down)
                if down.reference == monitor
                    && down.object == Monitored::Pid(sender.clone())
                    && down.reason.is("noconnection") =>
            {
                seat.ready.store(false, Relaxed);
                seat.downs.fetch_add(1, Relaxed);
                if new {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                new = true;
                monitor = process.monitor(&sender).await.unwrap();
                let _ = process.send_term(&sender, &go).await;
            }
            Message::Exit(exit) if linked && exit.from == sender && exit.reason.is("noconnection") => {
                seat.ready.store(false, Relaxed);
                seat.exits.fetch_add(1, Relaxed);
                (relink, linked) = (true, false);
            }
            other => seat.violation(format!("unexpected {other:?}")),
        }
    }
}

/// How much of everything.
#[derive(Clone, Copy, Debug)]
struct Plan {
    /// Pairs in each direction.
    pairs: usize,
    messages: u64,
    kills: u64,
    large_every: u64,
    seed: u64,
}

/// The receivers of the BEAM: ready, downs, exits, messages, done.
fn seats(beam: &Beam) -> Vec<[u64; 5]> {
    let text = beam.eval("foundation_law:seats()");
    let numbers: Vec<u64> =
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|number| number.parse().ok()).collect();
    numbers.as_chunks().0.to_vec()
}

/// Runs the plan; the messages that arrived and the connections that were lost.
fn run(release: &Release, plan: Plan) -> (u64, u64) {
    let epmd = Epmd::start(release);
    let beam = Beam::visible(release, &epmd, "beam");
    beam.eval("foundation_law:start()");
    let rust = Rust::start(&epmd, "rust");
    let mut hub = rust.node.mailbox("hub").unwrap();
    let options = SpawnOptions::default().mailbox(MailboxLimit::UNBOUNDED);

    let ours: Vec<Arc<Seat>> = (0..plan.pairs).map(|_| Arc::default()).collect();
    let heard: Vec<Arc<Heard>> = (0..plan.pairs).map(|_| Arc::default()).collect();
    let senders: Vec<Handle> = rust.run(async {
        let spawn = |heard: &Arc<Heard>| {
            let heard = Arc::clone(heard);
            hub.spawn(move |process| hear(process, heard)).unwrap()
        };
        heard.iter().map(spawn).collect()
    });
    rust.run(async {
        let pids = Term::list(senders.iter().map(|sender| Term::Pid(sender.pid().clone())));
        let nobodies = Term::list((0..plan.pairs).map(|_| Term::nil()));
        let numbers = [WINDOW, plan.large_every].map(|number| Term::Integer(number as i64));
        let [window, large_every] = numbers;
        let start = [Term::atom("start"), Term::Pid(hub.pid().clone()), nobodies, pids, window, large_every];
        hub.send_term(("law", "beam@127.0.0.1"), &Term::Tuple(start.into_iter().collect())).await.unwrap();
    });
    let theirs = rust.run(next_term(&mut hub));
    let theirs = theirs.as_tuple().unwrap()[1].as_list().unwrap().to_vec();
    rust.run(async {
        for (sender, seat) in theirs.iter().zip(&ours) {
            let (sender, seat) = (sender.as_pid().unwrap().clone(), Arc::clone(seat));
            hub.spawn_opt(&options, move |process| receive(process, sender, seat)).unwrap();
        }
        for (sender, heard) in senders.iter().zip(&heard) {
            rust.spawn(send(sender.clone(), Arc::clone(heard), plan.large_every));
        }
    });

    let judge = || {
        assert_eq!(beam.eval("foundation_law:violations()"), "[]", "{plan:?}");
        for seat in &ours {
            let violations = seat.violations.lock().unwrap();
            assert!(violations.is_empty(), "{plan:?}: {violations:?}");
        }
    };
    // All receivers of both sides: ready, downs, exits, messages, done.
    let all = || {
        let mine = ours.iter().map(|seat| {
            let flags = [&seat.ready, &seat.done].map(|flag| u64::from(flag.load(Relaxed)));
            let [downs, exits, messages] =
                [&seat.downs, &seat.exits, &seat.messages].map(|count| count.load(Relaxed));
            [flags[0], downs, exits, messages, flags[1]]
        });
        mine.chain(seats(&beam)).collect::<Vec<[u64; 5]>>()
    };
    // Waits until every receiver is as wanted; `before` are the seats of an earlier time.
    let wait = |what: &str, wanted: &dyn Fn(&[u64; 5], &[u64; 5]) -> bool, before: &[[u64; 5]]| {
        let started = Instant::now();
        loop {
            let now = all();
            if now.len() == before.len() && now.iter().zip(before).all(|(now, before)| wanted(now, before)) {
                return now;
            }
            judge();
            assert!(started.elapsed() < PATIENCE, "{plan:?}: {what}\n{before:?}\n{now:?}\n{}", beam.log());
            std::thread::sleep(Duration::from_millis(2));
        }
    };

    // Waits for so many messages. However long that takes, some must arrive all the time.
    let arrived = |wanted: u64| {
        let mut last = (0, Instant::now());
        loop {
            let now = all().iter().map(|seat| seat[3]).sum::<u64>();
            if now >= wanted {
                return;
            }
            if now > last.0 {
                last = (now, Instant::now());
            }
            judge();
            assert!(
                last.1.elapsed() < PATIENCE,
                "{plan:?}: nothing arrives after {now} of {wanted}\n{}",
                beam.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    };

    let none = vec![[0; 5]; 2 * plan.pairs];
    let mut now = wait("the first messages", &|now, _| now[0] == 1, &none);
    let mut random = plan.seed;
    for kill in 0..plan.kills {
        // Some time between two kills, and enough messages for the plan.
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let share = plan.messages * (kill + 1) / (plan.kills + 1);
        arrived(share);
        std::thread::sleep(Duration::from_micros((random >> 33) % 20_000));
        match (random >> 20) % 3 {
            0 => rust.run(async { assert!(rust.node.disconnect("beam@127.0.0.1").await) }),
            1 => assert_eq!(beam.eval("erlang:disconnect_node('rust@127.0.0.1')"), "true"),
            _ => {
                beam.eval("foundation_law:close('rust@127.0.0.1')");
            }
        }
        let lost =
            |now: &[u64; 5], before: &[u64; 5]| now[0] == 1 && now[1] > before[1] && now[2] > before[2];
        now = wait("messages through a new connection", &lost, &now);
    }
    arrived(plan.messages);
    // The last connection stays up, so everything that went through it arrives.
    beam.eval("foundation_law:finish()");
    for heard in &heard {
        heard.finish.store(true, Relaxed);
        heard.news.notify_one();
    }
    now = wait("the last messages", &|now, before| now[4] == 1 && now[1..3] == before[1..3], &now);
    judge();
    let messages = now.iter().map(|seat| seat[3]).sum();
    let lost = now.iter().map(|seat| seat[1]).max().unwrap_or_default();
    println!(
        "OTP {}: {messages} messages, {} kills, {lost} losses at most per receiver",
        release.number, plan.kills
    );
    (messages, plan.kills)
}

/// With `FOUNDATION_SOAK_MESSAGES` and `FOUNDATION_SOAK_KILLS` (`make soak`), so many in all, spread over the releases.
#[test]
fn the_message_law() {
    let releases = Case::Smoke.releases().len() as u64;
    let plan = match (soak::count("MESSAGES"), soak::count("KILLS")) {
        (None, None) => Plan { pairs: 4, messages: 20_000, kills: 6, large_every: 200, seed: soak::seed() },
        (messages, kills) => Plan {
            pairs: 16,
            messages: messages.unwrap_or(0).div_ceil(releases),
            kills: kills.unwrap_or(0).div_ceil(releases),
            large_every: 2000,
            seed: soak::seed(),
        },
    };
    let report = soak::Report::counted("message-law", "messages");
    case(
        Case::Smoke,
        "messages",
        "while connections are killed: a gap-free prefix for each pair, nothing old after new, one DOWN and EXIT per loss",
        |release| {
            let started = Instant::now();
            let (messages, kills) = run(release, plan);
            assert!(messages >= plan.messages && kills == plan.kills);
            let what = format!("seed {}, {kills} kills, {} pairs each way", plan.seed, plan.pairs);
            report.run(&release.version, &what, messages, started.elapsed());
            Ok(())
        },
    );
    if soak::count("MESSAGES").is_some() {
        report.write();
    }
}

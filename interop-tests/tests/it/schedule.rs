//! Random schedules of links, monitors, aliases, names, exits and messages between two nodes: what every process observes
//! must be the same whether the second node is a BEAM or a Rust node. `beam/foundation_schedule.erl` says how.

use std::time::{Duration, Instant};

use foundation_interop_tests::{Beam, Case, Epmd, Release, case};
use foundation_node::process::{AliasKind, Dest, Message, Process, Reason};
use foundation_proto::Limits;
use foundation_proto::etf::{Atom, Pid, Reference, Term};

use crate::rust::Rust;
use crate::soak;

/// Steps of one episode; each is up to six operations.
const STEPS: u32 = 60;

/// Operations of an episode, about.
const OPERATIONS: u64 = 130;

fn tuple<const N: usize>(elements: [Term; N]) -> Term {
    Term::Tuple(elements.into_iter().collect())
}

/// The process that starts actors, as `foundation_schedule:factory/0`.
async fn factory(mut factory: Process) {
    while let Ok(message) = factory.recv().await {
        let Ok(Term::Tuple(told)) = message.to_term(&Limits::default()) else { continue };
        let [what, Term::Pid(driver), reference] = &told[..] else { continue };
        let answer = if what.is_atom("spawn") {
            let of = driver.clone();
            let actor = factory.spawn(move |process| Actor::new(process, of).run()).unwrap();
            tuple([Term::atom("spawned"), reference.clone(), Term::Pid(actor.pid().clone())])
        } else {
            tuple([Term::atom("sync"), reference.clone(), Term::atom("factory")])
        };
        let _ = factory.send_term(driver, &answer).await;
    }
}

/// What does as it is told, as `foundation_schedule:actor/3`.
struct Actor {
    me: Process,
    driver: Pid,
    /// By the keys that the driver gave.
    references: Vec<(i64, Reference)>,
}

impl Actor {
    fn new(me: Process, driver: Pid) -> Self {
        Self { me, driver, references: Vec::new() }
    }

    fn own_pid(&self) -> Term {
        Term::Pid(self.me.pid().clone())
    }

    async fn tell(&self, term: Term) {
        let _ = self.me.send_term(&self.driver, &term).await;
    }

    async fn run(mut self) -> Reason {
        while let Ok(message) = self.me.recv().await {
            let term = message.to_term(&Limits::default()).unwrap();
            let elements = term.as_tuple().unwrap_or_default();
            match (&message, elements) {
                (Message::Term(_), [what, reference, ops]) if what.is_atom("do") => {
                    let (reference, ops) = (reference.clone(), ops.as_list().unwrap().to_vec());
                    let mut results = Vec::new();
                    let mut stop = None;
                    for op in &ops {
                        let op = op.as_tuple().unwrap();
                        if op[0].is_atom("stop") {
                            stop = Some(Reason::from(op[1].clone()));
                        }
                        results.push(self.act(op).await);
                    }
                    let done = tuple([Term::atom("done"), reference, self.own_pid(), Term::list(results)]);
                    self.tell(done).await;
                    if let Some(reason) = stop {
                        return reason;
                    }
                }
                (Message::Term(_), [what, reference]) if what.is_atom("sync") => {
                    self.tell(tuple([what.clone(), reference.clone(), self.own_pid()])).await;
                }
                (Message::Term(_), [what, reference, from]) if what.is_atom("marker") => {
                    let seen = [what.clone(), reference.clone(), from.clone(), self.own_pid()];
                    self.tell(tuple(seen)).await;
                }
                (Message::Term(_), [what, from, number, body]) if what.is_atom("m") => {
                    let size = Term::Integer(body.as_binary().unwrap().len() as i64);
                    self.seen([what.clone(), from.clone(), number.clone(), size]).await;
                }
                (Message::Exit(_), [_, from, reason]) => {
                    self.seen([Term::atom("exit"), from.clone(), reason.clone()]).await;
                }
                (Message::Down(down), [_, _, _, object, reason]) => {
                    let key = self.references.iter().find(|(_, made)| *made == down.reference);
                    let key = key.map_or(Term::atom("unknown"), |(key, _)| Term::Integer(*key));
                    self.seen([Term::atom("down"), key, object.clone(), reason.clone()]).await;
                }
                _ => panic!("{term:?}"),
            }
        }
        Reason::NORMAL
    }

    async fn seen<const N: usize>(&self, event: [Term; N]) {
        self.tell(tuple([Term::atom("seen"), self.own_pid(), tuple(event)])).await;
    }

    fn reference(&self, key: &Term) -> Option<Reference> {
        let key = key.as_i64()?;
        self.references.iter().find(|(of, _)| *of == key).map(|(_, reference)| reference.clone())
    }

    fn keep(&mut self, key: &Term, reference: Reference) -> Term {
        self.references.push((key.as_i64().unwrap(), reference.clone()));
        tuple([Term::atom("alias"), Term::Reference(Box::new(reference))])
    }

    async fn act(&mut self, op: &[Term]) -> Term {
        let ok = Term::atom("ok");
        let what = op[0].as_atom().unwrap().clone();
        match (what.as_str(), &op[1..]) {
            ("link", [Term::Pid(pid)]) => self.me.link(pid).await,
            ("unlink", [Term::Pid(pid)]) => self.me.unlink(pid),
            ("monitor", [key, object]) => {
                // A process that was ended meanwhile does nothing more.
                if let Ok(monitor) = self.me.monitor(dest(object)).await {
                    self.keep(key, monitor);
                }
            }
            ("monitor", [key, object, kind]) => {
                return match self.me.monitor_alias(dest(object), alias_kind(kind)).await {
                    Ok(monitor) => self.keep(key, monitor),
                    Err(_) => ok,
                };
            }
            ("demonitor", [key]) => {
                if let Some(monitor) = self.reference(key) {
                    self.me.demonitor(&monitor);
                }
            }
            ("alias", [key, kind]) => {
                return match self.me.alias(alias_kind(kind)) {
                    Ok(alias) => self.keep(key, alias),
                    Err(_) => ok,
                };
            }
            ("unalias", [key]) => {
                let alias = self.reference(key);
                return Term::from(alias.is_some_and(|alias| self.me.unalias(&alias)));
            }
            ("send", [to, from, number, size]) => {
                let body = Term::binary(&vec![b'x'; size.as_i64().unwrap() as usize]);
                let message = tuple([Term::atom("m"), from.clone(), number.clone(), body]);
                let _ = self.me.send_term(dest(to), &message).await;
            }
            ("exit", [Term::Pid(pid), reason]) => self.me.exit(pid, Reason::from(reason.clone())).await,
            ("register", [Term::Atom(name)]) => {
                return if self.me.register(name.clone()).is_ok() { ok } else { Term::atom("badarg") };
            }
            ("unregister", [Term::Atom(name)]) => {
                let had = self.me.registered_name().as_ref() == Some(name) && self.me.unregister();
                return if had { ok } else { Term::atom("badarg") };
            }
            ("trap", [trap]) => return Term::from(self.me.trap_exit(trap.is_atom("true"))),
            ("links", []) => {
                let links = self.me.links().into_iter().map(Term::Pid);
                return tuple([Term::atom("links"), Term::list(links)]);
            }
            ("marker", [Term::Pid(to), reference]) => {
                let marker = tuple([Term::atom("marker"), reference.clone(), self.own_pid()]);
                let _ = self.me.send_term(to, &marker).await;
            }
            ("stop", _) => {}
            other => panic!("{other:?}"),
        }
        ok
    }
}

fn dest(term: &Term) -> Dest {
    match term {
        Term::Pid(pid) => Dest::from(pid),
        Term::Reference(alias) => Dest::Alias(alias.as_ref().clone()),
        Term::Tuple(name) => match &name[..] {
            [Term::Atom(name), Term::Atom(node)] => Dest::from((name.clone(), node.clone())),
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

fn alias_kind(term: &Term) -> AliasKind {
    match term.as_atom().map(Atom::as_str) {
        Some("explicit_unalias") => AliasKind::ExplicitUnalias,
        Some("reply") => AliasKind::Reply,
        Some("demonitor") => AliasKind::Demonitor,
        Some("reply_demonitor") => AliasKind::ReplyDemonitor,
        other => panic!("{other:?}"),
    }
}

/// Runs the episodes against whatever node is called `part@127.0.0.1`, and waits for the last.
fn run(beam: &Beam, name: &str, seed: u64, episodes: u64, features: &str) -> u64 {
    beam.eval(&format!(
        "ok = foundation_schedule:start({name}, 'part@127.0.0.1', {{{seed}, 1, {episodes}, {STEPS}, {features}}}, 16)"
    ));
    let mut last = (String::new(), Instant::now());
    loop {
        let progress = beam.eval(&format!("foundation_schedule:progress({name})"));
        if progress == format!("{{{episodes},{episodes}}}") {
            break;
        }
        if progress != last.0 {
            last = (progress, Instant::now());
        } else if last.1.elapsed() > Duration::from_secs(180) {
            panic!("seed {seed}: nothing goes on after {} with {name}\n{}", last.0, beam.log());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    beam.eval(&format!("foundation_schedule:ops({name})")).parse().unwrap()
}

/// One seed on one release: the operations that were carried out against the Rust node.
fn compare(release: &Release, seed: u64, episodes: u64) -> u64 {
    let epmd = Epmd::start(release);
    let beam = Beam::visible(release, &epmd, "first");
    beam.eval("foundation_schedule:factory()");
    let features = if release.number < 24 { "[]" } else { "[aliases]" };
    {
        let part = Beam::visible(release, &epmd, "part");
        part.eval("foundation_schedule:factory()");
        run(&beam, "beam", seed, episodes, features);
        // What it leaves behind, so that the name is free.
        part.kill();
    }
    beam.eval(
        "(fun Gone() -> case nodes(connected) of [] -> gone; _ -> receive after 5 -> Gone() end end end)()",
    );
    let rust = Rust::start(&epmd, "part");
    rust.spawn(factory(rust.node.mailbox("factory").unwrap()));
    let operations = run(&beam, "rust", seed, episodes, features);
    let differences = beam.eval("lists:sublist(foundation_schedule:differences(beam, rust), 3)");
    assert_eq!(differences, "[]", "seed {seed}, {episodes} episodes; {{Episode, {{BEAM, Rust}}}}");
    println!("OTP {}: seed {seed}, {episodes} episodes, {operations} operations", release.number);
    operations
}

/// With `FOUNDATION_SOAK_OPERATIONS` (`make soak`), so many operations on each release.
#[test]
fn random_schedules_look_the_same_from_a_beam() {
    let wanted = soak::count("OPERATIONS");
    let report = soak::Report::counted("schedules", "operations observed alike, Rust and BEAM");
    case(
        Case::Smoke,
        "links, monitors, exits",
        "random schedules of signals are observed as between two BEAM nodes",
        |release| {
            let started = Instant::now();
            // Ten episodes without a wish.
            let operations = wanted.unwrap_or(10 * OPERATIONS);
            let episodes = (operations.min(50_000) / OPERATIONS).max(1);
            let mut seed = soak::seed();
            let mut done = 0;
            loop {
                done += compare(release, seed, episodes);
                if wanted.is_none_or(|wanted| done >= wanted) {
                    break;
                }
                seed += 1;
            }
            assert!(done > 0);
            let what = format!("seeds {} to {seed}", soak::seed());
            report.run(&release.version, &what, done, started.elapsed());
            Ok(())
        },
    );
    if wanted.is_some() {
        report.write();
    }
}

//! The rules of the machine, in virtual time.

use super::*;

fn node(name: &str) -> NodeName {
    NodeName::parse(name).unwrap()
}

fn candidate(name: &str) -> Candidate {
    Candidate::new(node(name), "test")
}

fn source(name: &str) -> Source {
    Source { name: name.into(), trust: Trust::Named, prune: Prune::Forget, rank: 0, max_nodes: 4 }
}

/// A machine and what it wants, with reports apart.
struct Bench {
    machine: Discovery,
    now: Mono,
    reports: Vec<Report>,
}

impl Bench {
    fn new(sources: Vec<Source>) -> Self {
        let config = Config { own: node("own@h"), allow: AllowList::new(), sources, seed: 7 };
        Self { machine: Discovery::new(config, Mono::ZERO), now: Mono::ZERO, reports: Vec::new() }
    }

    fn actions(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Report(report) => self.reports.push(report),
                action => actions.push(action),
            }
        }
        actions
    }

    fn handle(&mut self, event: Event) -> Vec<Action> {
        self.machine.handle(self.now, event);
        self.actions()
    }

    fn answer(&mut self, source: SourceId, names: &[&str]) -> Vec<Action> {
        self.handle(Event::Answer { source, candidates: names.iter().map(|name| candidate(name)).collect() })
    }

    fn fail(&mut self, source: SourceId) -> Vec<Action> {
        self.handle(Event::Failed { source, why: "no".into() })
    }

    fn up(&mut self, name: &str) -> Vec<Action> {
        self.handle(Event::Up(node(name)))
    }

    fn pass(&mut self, time: Duration) -> Vec<Action> {
        self.now = self.now + time;
        self.machine.handle_timeout(self.now);
        self.actions()
    }

    /// Advances to the next timeout and says how long that took.
    fn next(&mut self) -> (Duration, Vec<Action>) {
        let at = self.machine.poll_timeout().expect("something is due");
        let pause = at.saturating_since(self.now);
        (pause, self.pass(pause))
    }
}

fn connect(name: &str) -> Action {
    Action::Connect(node(name))
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn everything_found_is_dialled_at_once_and_side_by_side_but_not_oneself() {
    let mut bench = Bench::new(vec![source("a"), source("b")]);
    assert_eq!(bench.actions(), [Action::Start(0), Action::Start(1)]);
    assert_eq!(bench.answer(0, &["own@h", "x@h", "y@h"]), [connect("x@h"), connect("y@h")]);
    assert_eq!(bench.answer(1, &["x@h", "z@h"]), [connect("z@h")]);
    bench.now = bench.now + SECOND;
    for name in ["x@h", "y@h", "z@h"] {
        assert_eq!(bench.up(name), []);
    }
    assert!(bench.reports.contains(&Report::Formed {
        node_count: 4,
        formation_time: SECOND,
        sources: vec![0, 1]
    }));
    assert_eq!(bench.machine.poll_timeout(), None);
}

/// A hundred machines that find each other in the same instant; a dial takes 20 ms, in which the other side may begin one as well.
#[test]
fn of_a_hundred_nodes_that_begin_at_once_most_pairs_are_dialled_from_one_side() {
    const COUNT: usize = 100;
    const DIAL: Duration = Duration::from_millis(20);
    let names: Vec<NodeName> = (0..COUNT).map(|at| node(&format!("n{at:02}@h"))).collect();
    let mut all: Vec<Discovery> = names
        .iter()
        .zip(1..)
        .map(|(own, seed)| {
            let sources = vec![Source { max_nodes: COUNT, ..source("a") }];
            let config = Config { own: own.clone(), allow: AllowList::new(), sources, seed };
            let mut machine = Discovery::new(config, Mono::ZERO);
            let candidates = names.iter().map(|name| candidate(name.as_str())).collect();
            machine.handle(Mono::ZERO, Event::Answer { source: 0, candidates });
            machine
        })
        .collect();
    let (mut now, mut dials, mut under_way) = (Mono::ZERO, 0, BTreeSet::new());
    loop {
        for (from, machine) in all.iter_mut().enumerate() {
            while let Some(action) = machine.poll_action() {
                if let Action::Connect(to) = action {
                    dials += 1;
                    under_way.insert((now + DIAL, from, names.binary_search(&to).unwrap()));
                }
            }
        }
        let due = all.iter().filter_map(Discovery::poll_timeout).min();
        let Some(next) = due.into_iter().chain(under_way.first().map(|(at, ..)| *at)).min() else { break };
        now = next;
        while under_way.first().is_some_and(|(at, ..)| *at <= now) {
            let Some((_, from, to)) = under_way.pop_first() else { break };
            all[from].handle(now, Event::Up(names[to].clone()));
            all[to].handle(now, Event::Up(names[from].clone()));
        }
        all.iter_mut().for_each(|machine| machine.handle_timeout(now));
    }
    for machine in &all {
        assert_eq!(machine.nodes().filter(|(_, state, _)| *state == "connected").count(), COUNT - 1);
    }
    let pairs = COUNT * (COUNT - 1) / 2;
    assert!(dials < pairs + pairs / 10, "{dials} dials for {pairs} pairs");
    assert!(now.saturating_since(Mono::ZERO) < SECOND, "{now:?}");
}

/// Who is alone in looking for others reaches all of them, some a moment later.
#[test]
fn nodes_that_dial_nobody_are_dialled_whatever_they_are_called() {
    let mut bench = Bench::new(vec![Source { max_nodes: 200, ..source("a") }]);
    bench.actions();
    let names: Vec<String> =
        (0..60).map(|at| format!("{}{at}@h", if at % 2 == 0 { 'a' } else { 'z' })).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut dialled = bench.answer(0, &names);
    assert_eq!(dialled.len(), 30, "those with smaller names at once");
    // Answers that come meanwhile change nothing.
    assert_eq!(bench.answer(0, &names), []);
    dialled.extend(bench.pass(PUT_OFF * 60));
    assert_eq!(dialled.len(), 60);
    // A node that is lost later is dialled as any other.
    bench.up("z1@h");
    bench.handle(Event::Down { node: node("z1@h"), deliberate: false });
    assert_eq!(bench.pass(AFTER_LOSS * 2), [connect("z1@h")]);
}

#[test]
fn failed_dials_back_off_with_jitter_and_a_refused_cookie_for_minutes() {
    let mut bench = Bench::new(vec![source("a")]);
    bench.answer(0, &["x@h"]);
    let mut pauses = Vec::new();
    for _ in 0..10 {
        bench.handle(Event::NotConnected { node: node("x@h"), why: "no".into(), lasting: false });
        let (pause, actions) = bench.next();
        assert_eq!(actions, [connect("x@h")]);
        pauses.push(pause);
    }
    assert!(pauses[0] >= FIRST_BACK_OFF / 2 && pauses[0] <= FIRST_BACK_OFF, "{pauses:?}");
    assert!(pauses[9] >= SLOWEST_DIAL / 2 && pauses[9] <= SLOWEST_DIAL, "{pauses:?}");
    assert_ne!(pauses[8], pauses[9]);
    bench.handle(Event::NotConnected { node: node("x@h"), why: "cookie".into(), lasting: true });
    // Being named again is no reason to try again.
    assert_eq!(bench.answer(0, &["x@h"]), []);
    // Having been started anew is.
    let anew = Candidate { stamp: 5, ..candidate("x@h") };
    assert_eq!(bench.handle(Event::Answer { source: 0, candidates: vec![anew] }), [connect("x@h")]);
    bench.handle(Event::NotConnected { node: node("x@h"), why: "cookie".into(), lasting: true });
    assert!(bench.next().0 >= FIRST_LASTING / 2);
}

#[test]
fn an_error_is_no_empty_answer() {
    let mut bench = Bench::new(vec![Source { prune: Prune::Disconnect, ..source("a") }]);
    bench.answer(0, &["x@h"]);
    bench.up("x@h");
    for _ in 0..100 {
        assert_eq!(bench.fail(0), []);
        assert_eq!(bench.pass(SECOND), []);
    }
    let failed = bench.reports.iter().filter(|report| matches!(report, Report::SourceFailed { .. })).count();
    assert_eq!(failed, 1);
}

#[test]
fn a_node_is_given_up_after_confirmed_absence_and_as_its_source_wants_it() {
    for (prune, expected) in [
        (Prune::Never, vec![]),
        (Prune::Forget, vec![Action::Release(node("x@h"))]),
        (Prune::Disconnect, vec![Action::Release(node("x@h")), Action::Disconnect(node("x@h"))]),
    ] {
        let mut bench = Bench::new(vec![Source { prune, ..source("a") }]);
        bench.answer(0, &["x@h"]);
        bench.up("x@h");
        // A flapping answer: never three in a row without it.
        for _ in 0..20 {
            for names in [&[][..], &[], &["x@h"]] {
                bench.pass(SECOND * 5);
                assert_eq!(bench.answer(0, names), []);
            }
        }
        // Three quick answers are not enough.
        for _ in 0..5 {
            bench.pass(SECOND);
            assert_eq!(bench.answer(0, &[]), []);
        }
        bench.pass(ABSENT_FOR);
        assert_eq!(bench.answer(0, &[]), expected, "{prune:?}");
    }
}

#[test]
fn a_node_that_another_source_names_stays() {
    let mut bench = Bench::new(vec![Source { prune: Prune::Disconnect, ..source("a") }, source("b")]);
    bench.answer(0, &["x@h"]);
    bench.answer(1, &["x@h"]);
    bench.up("x@h");
    for _ in 0..10 {
        bench.pass(ABSENT_FOR);
        assert_eq!(bench.answer(0, &[]), []);
    }
    let gone = Event::Gone { source: 1, node: node("x@h") };
    assert_eq!(bench.handle(gone), [Action::Release(node("x@h"))]);
    // Lost now, it is nobody's.
    let down = Event::Down { node: node("x@h"), deliberate: false };
    assert_eq!(bench.handle(down), [Action::Release(node("x@h"))]);
    assert_eq!(bench.machine.nodes().count(), 0);
    assert_eq!(bench.machine.poll_timeout(), None);
}

#[test]
fn a_lost_node_is_dialled_again_unless_that_was_meant() {
    let mut bench = Bench::new(vec![source("a")]);
    bench.answer(0, &["x@h"]);
    bench.up("x@h");
    bench.handle(Event::Down { node: node("x@h"), deliberate: false });
    assert_eq!(bench.next().1, [connect("x@h")]);
    bench.up("x@h");
    bench.handle(Event::Down { node: node("x@h"), deliberate: true });
    for _ in 0..3 {
        assert_eq!(bench.pass(SECOND * 60), []);
        assert_eq!(bench.answer(0, &["x@h"]), []);
    }
    // Gone from the list and named anew, it is wanted again.
    for _ in 0..4 {
        bench.pass(ABSENT_FOR);
        bench.answer(0, &[]);
    }
    assert_eq!(bench.answer(0, &["x@h"]), [connect("x@h")]);
}

#[test]
fn what_is_leaving_is_left_alone() {
    let mut bench = Bench::new(vec![source("a"), source("b")]);
    bench.answer(0, &["x@h"]);
    bench.up("x@h");
    let leaving = vec![Candidate { leaving: true, ..candidate("x@h") }];
    let released = [Action::Release(node("x@h"))];
    assert_eq!(bench.handle(Event::Answer { source: 0, candidates: leaving }), released);
    // Another source still has it, in DNS say.
    assert_eq!(bench.answer(1, &["x@h"]), []);
    assert_eq!(bench.handle(Event::Down { node: node("x@h"), deliberate: false }), released);
    assert_eq!(bench.pass(SECOND * 600), []);
}

#[test]
fn what_is_not_ready_is_left_alone_until_it_is() {
    let mut bench = Bench::new(vec![source("a")]);
    bench.answer(0, &["x@h"]);
    bench.up("x@h");
    let unready = |name| Candidate { unready: true, ..candidate(name) };
    let answer = |candidates: Vec<Candidate>| Event::Answer { source: 0, candidates };
    let released = |name| Action::Release(node(name));
    let both = || answer(vec![unready("x@h"), unready("y@h")]);
    assert_eq!(bench.handle(both()), [released("x@h"), released("y@h")]);
    assert_eq!(bench.handle(Event::Down { node: node("x@h"), deliberate: false }), [released("x@h")]);
    assert_eq!(bench.pass(SECOND * 600), []);
    // It is not given up sooner than others.
    bench.handle(answer(vec![unready("x@h")]));
    assert_eq!(bench.machine.nodes().count(), 2);
    let ready = bench.handle(answer(vec![candidate("x@h"), candidate("y@h")]));
    assert_eq!(ready, [connect("x@h"), connect("y@h")]);
}

#[test]
fn open_sources_only_name_what_is_allowed_and_only_so_many() {
    let mut bench = Bench::new(vec![Source { trust: Trust::Open, ..source("gossip") }]);
    bench.machine.allow = AllowList::parse(["h"]).unwrap();
    for _ in 0..2 {
        for index in 0..10 {
            bench.handle(Event::Seen { source: 0, candidate: candidate(&format!("n{index}@h")) });
            bench.handle(Event::Seen { source: 0, candidate: candidate(&format!("n{index}@evil")) });
        }
    }
    let refused = bench.reports.iter().filter(|report| matches!(report, Report::Refused { .. })).count();
    let too_many = bench.reports.iter().filter(|report| matches!(report, Report::TooMany { .. })).count();
    assert_eq!((bench.machine.nodes().count(), refused, too_many), (4, 10, 1));
    // Old names that lead nowhere make room.
    for index in 0..4 {
        let node = node(&format!("n{index}@h"));
        bench.handle(Event::NotConnected { node, why: "no".into(), lasting: true });
    }
    bench.now = bench.now + SECOND * 61;
    let actions = bench.handle(Event::Seen { source: 0, candidate: candidate("new@h") });
    assert!(actions.contains(&connect("new@h")), "{actions:?}");
}

#[test]
fn a_query_may_name_nodes_with_its_own_basename() {
    let trust = Trust::Basenames(vec!["app".into()]);
    let mut bench = Bench::new(vec![Source { trust, ..source("dns") }]);
    bench.actions();
    assert_eq!(bench.answer(0, &["app@10.0.0.1", "other@10.0.0.1"]), [connect("app@10.0.0.1")]);
}

#[test]
fn a_secondary_source_runs_while_the_primary_fails() {
    let secondary = Source { rank: 1, ..source("secondary") };
    let mut bench = Bench::new(vec![source("primary"), secondary]);
    assert_eq!(bench.actions(), [Action::Start(0)]);
    // A report that was under way when its source was not yet, or no more, to run.
    assert_eq!(bench.answer(1, &["x@h"]), []);
    bench.answer(0, &["x@h"]);
    bench.up("x@h");
    assert_eq!(bench.fail(0), []);
    assert_eq!(bench.fail(0), [Action::Start(1)]);
    assert_eq!(bench.answer(1, &["y@h"]), [connect("y@h")]);
    bench.up("y@h");
    assert_eq!(bench.answer(0, &["x@h"]), [Action::Stop(1)]);
    // What only the secondary named is left connected, and not wanted any more.
    assert_eq!(
        bench.machine.nodes().find(|(name, ..)| **name == node("y@h")).map(|(_, _, by)| by),
        Some(vec![])
    );
    assert!(bench.reports.contains(&Report::FailedOver { rank: 1 }));
    assert_eq!(bench.reports.last(), Some(&Report::FailedOver { rank: 0 }));
}

//! Leases by hand, and in the simulator.

mod simulation;

use super::*;

fn pid(node: &str, id: u32) -> Pid {
    Pid { node: Atom::new(node).unwrap(), id, serial: 0, creation: 1 }
}

fn config(members: &[&str]) -> Config {
    Config::new(members.iter().map(|name| Atom::new(name).unwrap()))
}

fn drain(leases: &mut Leases) -> Vec<Action> {
    std::iter::from_fn(|| leases.poll_action()).collect()
}

fn at(millis: i64) -> Mono {
    Mono(millis * 1_000_000)
}

fn acquire(leases: &mut Leases, now: Mono, process: u32) -> Vec<Action> {
    let pid = pid(leases.me.node.as_str(), process);
    let timeout = Duration::from_secs(1);
    leases.handle(now, Event::Acquire { command: 1, name: Term::atom("n"), pid, timeout });
    drain(leases)
}

#[test]
fn a_single_member_abstains_first_and_then_grants_itself() {
    let mut leases = Leases::new(at(0), pid("a@h", 1), config(&["a@h"]), 7);
    let early = acquire(&mut leases, at(1), 5);
    assert!(!early.iter().any(|action| matches!(action, Action::Held { .. })), "{early:?}");
    leases.handle_timeout(at(2000));
    let timeout = Action::Done { command: 1, outcome: Outcome::Timeout };
    assert!(drain(&mut leases).contains(&timeout));
    // 5 s, by clocks that may be 1 % off.
    let actions = acquire(&mut leases, at(5102), 5);
    assert!(actions.contains(&Action::Done { command: 1, outcome: Outcome::Done }), "{actions:?}");
    let process = pid("a@h", 5);
    assert_eq!(leases.is_held(at(5103), &Term::atom("n"), &process), Some(at(10_102)));
    assert_eq!(leases.is_held(at(10_102), &Term::atom("n"), &process), None);
    let taken = Action::Done { command: 1, outcome: Outcome::Taken(process.clone()) };
    assert_eq!(acquire(&mut leases, at(5200), 6), [taken]);
    let monitor = *leases.monitors.keys().next().unwrap();
    leases.handle(at(5300), Event::Down(monitor));
    assert!(drain(&mut leases).contains(&Action::Released { name: Term::atom("n") }));
    assert_eq!((leases.voter.len(), leases.leases.len(), leases.poll_timeout()), (0, 0, None));
}

#[test]
fn a_holder_without_a_majority_is_told_before_its_lease_ends() {
    let mut leases = Leases::new(at(0), pid("a@h", 1), config(&["a@h", "b@h", "c@h"]), 7);
    let asked = acquire(&mut leases, at(6000), 5);
    let round = leases.leases.values().next().unwrap().round;
    assert!(!asked.iter().any(|action| matches!(action, Action::Held { .. })), "one of three");
    let vote = |round: u64| {
        let claim = Term::Integer(2);
        let word = |text: &'static str| crate::message::atom(text);
        tuple_of([word("vote"), word("n"), claim, Term::Integer(round as i64), word("b@h"), word("true")])
    };
    leases.handle(at(6500), Event::Message(vote(round + 1)));
    assert!(drain(&mut leases).is_empty(), "of another round");
    leases.handle(at(6500), Event::Message(vote(round)));
    let held = Action::Held { name: Term::atom("n"), pid: pid("a@h", 5), until: at(11_000) };
    assert!(drain(&mut leases).contains(&held), "counted from the question");
    let mut now = at(6500);
    let lost = loop {
        now = leases.poll_timeout().unwrap().max(now);
        leases.handle_timeout(now);
        if let Some(lost) =
            drain(&mut leases).into_iter().find(|action| matches!(action, Action::Lost { .. }))
        {
            break lost;
        }
    };
    assert_eq!(lost, Action::Lost { name: Term::atom("n"), pid: pid("a@h", 5) });
    assert_eq!(now, at(10_500), "500 ms before its end");
}

#[test]
fn who_is_configured_otherwise_is_refused() {
    let mut voter = Leases::new(at(0), pid("a@h", 1), config(&["a@h", "b@h"]), 7);
    for (members, seconds, granted) in [
        (&["a@h", "b@h"][..], 5, true),
        (&["a@h", "b@h", "c@h"][..], 5, false),
        (&["a@h", "b@h"][..], 6, false),
    ] {
        let mut config = config(members);
        config.duration = Duration::from_secs(seconds);
        let mut asker = Leases::new(at(0), pid("b@h", 1), config, 9);
        let asked = acquire(&mut asker, at(6000), 5);
        let message = asked.into_iter().find_map(|action| match action {
            Action::Send { message, .. } => Some(message),
            _ => None,
        });
        voter.handle(at(20_000), Event::Message(message.unwrap()));
        let Some(Action::Send { message, .. }) = voter.poll_action() else { panic!("no vote") };
        let last = message.as_tuple().unwrap().last().cloned();
        assert_eq!(last, Some(crate::message::atom(if granted { "true" } else { "false" })));
        voter = Leases::new(at(0), pid("a@h", 1), super::tests::config(&["a@h", "b@h"]), 7);
    }
    voter.handle(at(0), Event::Message(crate::message::atom("nonsense")));
    assert_eq!(voter.ignored(), 1);
}

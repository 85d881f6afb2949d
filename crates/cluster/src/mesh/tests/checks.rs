//! When a service is checked, and what follows.

use super::*;

/// A mesh with one service that is checked each second, for 100 ms.
fn checked(rules: Rules) -> (Mesh, Pid) {
    let mut mesh = mesh();
    mesh.measure_at = None;
    let own = pid("a@h", 7);
    let check = HealthCheck { check: Check::Custom(3), rules: Some(rules) };
    let registration = Registration::new(atom("users"), &own).health_check(check);
    assert_eq!(register(&mut mesh, registration), Outcome::Done);
    (mesh, own)
}

fn rules() -> Rules {
    Rules { interval: Duration::from_secs(1), timeout: Duration::from_millis(100), ..Rules::new() }
}

/// Lets the next check begin, when it is due, and end in this way at once.
fn check(mesh: &mut Mesh, well: bool) -> Vec<Action> {
    let due = mesh.poll_timeout().unwrap();
    mesh.handle_timeout(due);
    let probe = match drain(mesh).as_slice() {
        [Action::Probe { probe, check: Check::Custom(3), timeout, .. }] => {
            assert_eq!(*timeout, Duration::from_millis(100));
            *probe
        }
        other => panic!("{other:?}"),
    };
    mesh.handle(due, Event::Probed { probe, well });
    drain(mesh)
}

/// What is logged: failures in a row, and what is done.
fn said(actions: &[Action]) -> Option<(u32, &'static str)> {
    actions.iter().find_map(|action| match action {
        Action::CheckFailed { consecutive_failures, action, service } => {
            assert!(service.name.is_atom("users"));
            Some((*consecutive_failures, *action))
        }
        _ => None,
    })
}

fn health(mesh: &Mesh) -> Health {
    mesh.discover(&Query::new())[0].health
}

#[test]
fn three_failures_mark_and_one_success_unmarks() {
    let (mut mesh, _) = checked(rules());
    assert_eq!(mesh.poll_timeout(), Some(at(1000)));
    assert_eq!(check(&mut mesh, true), []);
    assert_eq!(mesh.poll_timeout(), Some(at(2000)));
    assert_eq!(said(&check(&mut mesh, false)), Some((1, "retrying")));
    assert_eq!(said(&check(&mut mesh, false)), Some((2, "retrying")));
    // In a row: this one does not count towards the three.
    assert_eq!(check(&mut mesh, true), []);
    for n in 1..=2 {
        assert_eq!(said(&check(&mut mesh, false)), Some((n, "retrying")));
    }
    assert_eq!(health(&mesh), Health::Healthy);
    let actions = check(&mut mesh, false);
    assert_eq!(said(&actions), Some((3, "marking_unhealthy")));
    assert!(
        matches!(changes(&actions)[..], [Change::Health(service)] if service.health == Health::Unhealthy)
    );
    // It is said no more until it is over.
    assert_eq!(check(&mut mesh, false), []);
    let actions = check(&mut mesh, true);
    assert!(actions.iter().any(|action| matches!(action, Action::CheckSucceededAgain(_))), "{actions:?}");
    assert_eq!(health(&mesh), Health::Healthy);
    assert_eq!(said(&check(&mut mesh, false)), Some((1, "retrying")));
}

#[test]
fn thresholds_are_as_they_are_set() {
    let (mut mesh, _) =
        checked(Rules { degraded_after: Some(2), unhealthy_after: 4, healthy_after: 2, ..rules() });
    let expected = [(1, "retrying"), (2, "marking_degraded"), (3, "retrying"), (4, "marking_unhealthy")];
    for expected in expected {
        assert_eq!(said(&check(&mut mesh, false)), Some(expected));
    }
    assert_eq!(check(&mut mesh, true), []);
    assert_eq!(health(&mesh), Health::Unhealthy, "one success of two");
    check(&mut mesh, true);
    assert_eq!(health(&mesh), Health::Healthy);
}

#[test]
fn a_service_that_fails_is_deregistered_if_that_is_asked_for() {
    let (mut mesh, _) = checked(Rules { unhealthy_after: 1, on_failure: OnFailure::Deregister, ..rules() });
    let actions = check(&mut mesh, false);
    assert_eq!(said(&actions), Some((1, "deregistering")));
    assert!(matches!(changes(&actions)[..], [Change::Deregistered(_)]));
    assert!(actions.contains(&Action::Release(3)), "{actions:?}");
    assert_eq!((mesh.is_empty(), mesh.checks.next(9)), (true, None));
}

#[test]
fn a_check_that_is_late_has_failed_and_is_heard_no_more() {
    let (mut mesh, own) = checked(Rules { unhealthy_after: 1, ..rules() });
    mesh.handle_timeout(at(1000));
    let [Action::Probe { probe, .. }] = drain(&mut mesh)[..] else { panic!("no check") };
    assert_eq!(mesh.poll_timeout(), Some(at(1100)));
    mesh.handle_timeout(at(1100));
    let actions = drain(&mut mesh);
    assert!(actions.contains(&Action::Abandon(probe)));
    assert_eq!(said(&actions), Some((1, "marking_unhealthy")));
    mesh.handle(at(1101), Event::Probed { probe, well: true });
    assert!(drain(&mut mesh).iter().all(|action| matches!(action, Action::Registry(_))));
    assert_eq!(health(&mesh), Health::Unhealthy);
    assert_eq!(mesh.checks.next(9), Some(at(2000)));

    // The service goes while it is checked.
    mesh.handle_timeout(at(2000));
    let [Action::Probe { probe, .. }] = drain(&mut mesh)[..] else { panic!("no check") };
    let (_, actions) = command(&mut mesh, at(2001), Command::Deregister { name: atom("users"), pid: own });
    assert!(
        actions.contains(&Action::Abandon(probe)) && actions.contains(&Action::Release(3)),
        "{actions:?}"
    );
    mesh.handle(at(2002), Event::Probed { probe, well: false });
    assert_eq!(said(&drain(&mut mesh)), None);
    assert_eq!(mesh.checks.next(9), None);
}

#[test]
fn so_many_checks_run_at_once_and_the_others_wait() {
    let mut config = Config::new();
    config.max_probes = 2;
    config.load_interval = None;
    let mut mesh = mesh_with(config);
    for n in 0..5 {
        let registration = Registration::new(atom("users"), &pid("a@h", 10 + n)).health_check(Check::Alive);
        assert_eq!(register(&mut mesh, registration), Outcome::Done);
    }
    let due = mesh.poll_timeout().unwrap();
    mesh.handle_timeout(due);
    let mut running: Vec<u64> = Vec::new();
    let mut begun = 0;
    loop {
        for action in drain(&mut mesh) {
            if let Action::Probe { probe, .. } = action {
                running.push(probe);
                begun += 1;
            }
        }
        assert!(running.len() <= 2);
        // Nothing spins while all of them run.
        assert!(running.len() < 2 || mesh.poll_timeout() > Some(due));
        let Some(probe) = running.pop() else { break };
        mesh.handle(due, Event::Probed { probe, well: true });
    }
    assert_eq!(begun, 5);
}

#[test]
fn whoever_registers_again_is_checked_anew() {
    let (mut mesh, own) = checked(rules());
    check(&mut mesh, false);
    check(&mut mesh, false);
    let again = Registration::new(atom("users"), &own)
        .health_check(HealthCheck { check: Check::Custom(4), rules: Some(rules()) });
    let (_, actions) = command(&mut mesh, at(2500), Command::Register(again));
    assert!(actions.contains(&Action::Release(3)), "{actions:?}");
    assert_eq!(mesh.checks.next(9), Some(at(3500)));
    let (_, actions) =
        command(&mut mesh, at(2600), Command::Register(Registration::new(atom("users"), &own)));
    assert!(actions.contains(&Action::Release(4)) && mesh.checks.next(9).is_none(), "{actions:?}");
}

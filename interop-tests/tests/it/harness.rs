//! The harness itself, BEAM to BEAM: what the other modules rely on.

use std::time::Duration;

use foundation_interop_tests::{Beam, Case, Epmd, beam, case, eventually::eventually_true};

#[test]
fn two_nodes_meet_through_a_private_epmd() {
    case(Case::Smoke, "harness", "two BEAM nodes meet through an EPMD of their own", |release| {
        let epmd = Epmd::start(release);
        let a = Beam::visible(release, &epmd, "a");
        let b = Beam::visible(release, &epmd, "b");
        assert_eq!(a.eval("net_adm:ping('b@127.0.0.1')"), "pong");
        assert_eq!(b.eval("nodes()"), "['a@127.0.0.1']");
        a.eval("X = [1, <<\"two\">>]");
        assert_eq!(a.eval("{X, 'ü'}"), "{[1,<<\"two\">>],ü}");
        assert!(a.try_eval("1 = 2").unwrap_err().contains("badmatch"));

        b.pause();
        b.resume();
        assert_eq!(b.eval("node()"), "'b@127.0.0.1'");
        let b = b.restart();
        assert_eq!(b.eval("net_adm:ping('a@127.0.0.1')"), "pong");
        b.kill();
        eventually_true("the killed node leaves", Duration::from_secs(5), || a.eval("nodes()") == "[]");
        Ok(())
    });
}

#[test]
fn elixir_is_evaluated() {
    case(Case::Smoke, "harness", "Elixir code is evaluated in a node", |release| {
        let epmd = Epmd::start(release);
        let node = beam::Options::new(release, epmd.port, "ex").elixir().start();
        assert_eq!(node.elixir("m = %{a: 1}; Map.put(m, :a, \"x\")"), "%{a: \"x\"}");
        assert_eq!(node.elixir("m.a + 1"), "2");
        Ok(())
    });
}

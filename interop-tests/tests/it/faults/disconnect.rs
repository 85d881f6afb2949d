//! A connection that somebody ends on purpose stays ended, unless somebody sends.
//!
//! A BEAM node that has us in `nodes()` may be the one: when `global` has met a peer, its locker gives the lock back by a call
//! to all nodes it knows (`delete_global_lock/2` in kernel's `global.erl`: `gen_server:multi_call/3`, which monitors, which
//! connects), also to one that has just disconnected. It is the same between two BEAM nodes: of 90 rounds like these between
//! nodes of OTP 25, with `erlang:disconnect_node/1`, 41 ended connected. With `dist_auto_connect` = `never` it cannot happen.

use std::time::Duration;

use foundation_interop_tests::{Beam, Case, Epmd, Release, beam, case, eventually::eventually_true};
use foundation_node::event::Event;
use foundation_node::net_kernel::NodeType;

use super::TOPIC;
use crate::rust::{Rust, WAIT};
use crate::soak::count_or;

/// In the second half of this a peer that dials again has done so.
const AGAIN: Duration = Duration::from_millis(20);

/// Messages of `net_kernel:monitor_nodes`, in order, up to now.
fn heard(beam: &Beam) -> String {
    beam.eval("[Up || {Up, _, _} <- (fun F() -> receive M -> [M | F()] after 0 -> [] end end)()]")
}

/// Connects and disconnects by turns, in whatever global does meanwhile; how often one node was listed again.
fn rounds(release: &Release, auto_connect: bool, rounds: u64) -> u64 {
    let epmd = Epmd::start(release);
    let rust = Rust::with(&epmd, "rust", |config| config.hidden(false));
    let mut options = beam::Options::new(release, epmd.port, "beam");
    if !auto_connect {
        options = options.args("-kernel dist_auto_connect never");
    }
    let beam = options.start();
    beam.eval("net_kernel:monitor_nodes(true, [{node_type, all}])");
    let mut again = 0;
    for round in 0..rounds {
        let mut events = rust.node.events();
        if round % 2 == 0 {
            rust.run(rust.node.connect("beam@127.0.0.1")).unwrap();
        } else {
            assert_eq!(beam.eval("net_kernel:connect_node('rust@127.0.0.1')"), "true");
        }
        // In the middle of what global does first, or later.
        match round % 3 {
            0 => {}
            1 => std::thread::sleep(Duration::from_millis(round % 50)),
            _ => {
                eventually_true("both are listed", WAIT, || {
                    beam.eval("nodes()") == "['rust@127.0.0.1']"
                        && rust.node.nodes(NodeType::Visible) == ["beam@127.0.0.1"]
                });
                beam.eval("global:sync()");
            }
        }
        eventually_true("we are up, and are not any more", WAIT, || {
            rust.run(rust.node.disconnect("beam@127.0.0.1"))
        });
        assert!(matches!(rust.run(events.next()), Some(Event::NodeUp { .. })));
        assert!(matches!(rust.run(events.next()), Some(Event::NodeDown { .. })));
        if auto_connect {
            // A connection that comes back is a new one, and both sides see it.
            std::thread::sleep(AGAIN);
            if !rust.node.nodes(NodeType::Connected).is_empty() {
                again += 1;
                eventually_true("both agree", WAIT, || beam.eval("nodes()") == "['rust@127.0.0.1']");
                rust.run(rust.node.disconnect("beam@127.0.0.1"));
            }
            eventually_true("nobody is connected", WAIT, || {
                rust.run(rust.node.disconnect("beam@127.0.0.1"));
                beam.eval("nodes(connected)") == "[]" && rust.node.nodes(NodeType::Connected).is_empty()
            });
            heard(&beam);
        } else {
            eventually_true("the BEAM has noticed", WAIT, || beam.eval("nodes(connected)") == "[]");
            std::thread::sleep(AGAIN);
            assert_eq!(heard(&beam), "[nodeup,nodedown]", "round {round}");
            assert!(rust.node.nodes(NodeType::Connected).is_empty(), "round {round}: we have dialled");
        }
    }
    again
}

/// With `FOUNDATION_SOAK_DISCONNECTS`, so many rounds each.
#[test]
fn a_visible_peer_that_disconnects() {
    case(
        Case::Full,
        TOPIC,
        "a visible Rust node that disconnects is listed by the BEAM node no more and does not dial; if the BEAM's global dials, both agree about the new connection",
        |release| {
            let wanted = count_or("DISCONNECTS", 30);
            rounds(release, false, wanted);
            let again = rounds(release, true, wanted);
            println!(
                "faults: OTP {}: connected anew by global in {again} of {wanted} rounds",
                release.number
            );
            Ok(())
        },
    );
}

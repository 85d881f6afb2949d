//! Leases of three nodes over sockets: one holder at a time, whatever becomes of it.

use std::time::Duration;

use foundation_interop_tests::eventually::eventually_true;
use foundation_interop_tests::{Case, Epmd, case};
use foundation_node::Error;
use foundation_node::config::Reconnect;
use foundation_node::service::lease::{Acquired, Config, Leases};
use foundation_proto::etf::{Atom, Term};

use crate::rust::{Rust, WAIT, next};

const TOPIC: &str = "lease";
const MEMBERS: [&str; 3] = ["ra@127.0.0.1", "rb@127.0.0.1", "rc@127.0.0.1"];

struct Member {
    leases: Leases,
    rust: Rust,
}

fn members(epmd: &Epmd) -> [Member; 3] {
    let started = ["ra", "rb", "rc"].map(|name| {
        let rust = Rust::with(epmd, name, |config| config.reconnect(Reconnect::Never));
        let mut config = Config::new(MEMBERS.map(Atom::new_static));
        config.duration = Duration::from_millis(1500);
        Member { leases: rust.node.leases("leases", config).unwrap(), rust }
    });
    for (at, member) in started.iter().enumerate() {
        for other in &MEMBERS[..at] {
            member.rust.run(member.rust.node.connect(other)).unwrap();
        }
    }
    started
}

#[test]
fn one_holder_at_a_time() {
    case(
        Case::Full,
        TOPIC,
        "three Rust nodes: a lease is taken, refused, given up, taken over from a killed node and from one that is cut off",
        |release| {
            let epmd = Epmd::start(release);
            let [a, b, c] = members(&epmd);
            let name = Term::atom("singleton");
            let mut on_a = a.rust.node.process().unwrap();
            let _ = on_a.trap_exit(true);
            let on_b = b.rust.node.process().unwrap();
            let on_c = c.rust.node.process().unwrap();

            // All abstain for a while after their start.
            assert_eq!(a.rust.run(a.leases.acquire(&name, on_a.pid(), WAIT)).unwrap(), Acquired::Yes);
            assert!(a.leases.is_held(&name, on_a.pid()));
            let refused = b.rust.run(b.leases.acquire(&name, on_b.pid(), Duration::from_secs(2)));
            assert!(matches!(refused, Err(Error::Timeout)), "{refused:?}");
            let again = a.rust.run(a.leases.acquire(&name, on_b.pid(), WAIT));
            assert!(matches!(again, Err(Error::NoProc)), "a process of another node: {again:?}");
            assert!(a.leases.is_held(&name, on_a.pid()), "it was renewed");

            assert!(a.rust.run(a.leases.release(&name, on_a.pid())).unwrap());
            assert!(!a.leases.is_held(&name, on_a.pid()));
            assert_eq!(b.rust.run(b.leases.acquire(&name, on_b.pid(), WAIT)).unwrap(), Acquired::Yes);
            // Its process ends: no need to wait.
            drop(on_b);
            assert_eq!(a.rust.run(a.leases.acquire(&name, on_a.pid(), WAIT)).unwrap(), Acquired::Yes);

            // Cut off from both others, it is told before they can have the name.
            let waiting = c.rust.spawn({
                let (leases, name, pid) = (c.leases.clone(), name.clone(), on_c.pid().clone());
                async move { leases.acquire(&name, &pid, WAIT).await }
            });
            for other in &MEMBERS[1..] {
                assert!(a.rust.run(a.rust.node.disconnect(other)));
            }
            let told = a.rust.run(next(&mut on_a));
            assert!(told.contains("{lease_lost,singleton}"), "{told}");
            let taken_over = c.rust.run(waiting).unwrap();
            assert_eq!(taken_over.unwrap(), Acquired::Yes);
            assert!(!a.leases.is_held(&name, on_a.pid()) && c.leases.is_held(&name, on_c.pid()));

            // The node of the holder goes; the others are a majority again once they are connected.
            a.rust.run(a.rust.node.connect(MEMBERS[1])).unwrap();
            drop(c);
            assert_eq!(a.rust.run(a.leases.acquire(&name, on_a.pid(), WAIT)).unwrap(), Acquired::Yes);
            eventually_true("both have voted for it", WAIT, || {
                b.leases.voted_for(&name).as_ref() == Some(on_a.pid())
            });
            Ok(())
        },
    );
}

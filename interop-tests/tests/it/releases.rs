//! One Rust node among BEAM nodes of different releases, and beside one whose release changes.

use foundation_interop_tests::eventually::eventually_true;
use foundation_interop_tests::{Beam, Case, Epmd, Release, case, otp};
use foundation_node::error::Error;
use foundation_node::process::{Message, Process};
use foundation_proto::Error as ProtoError;
use foundation_proto::etf::{Pid, Term};

use crate::rust::{Rust, WAIT, next_term, term};

const TOPIC: &str = "several releases";

/// The release after this one in the matrix, or the first after the last.
fn following(release: &Release) -> &'static Release {
    let matrix = otp::matrix();
    matrix.iter().find(|other| other.number > release.number).unwrap_or(&matrix[0])
}

/// The release that is farthest from this one.
fn farthest(release: &Release) -> &'static Release {
    otp::matrix().iter().max_by_key(|other| other.number.abs_diff(release.number)).unwrap()
}

async fn pid(inbox: &mut Process) -> Pid {
    next_term(inbox).await.as_pid().cloned().expect("a pid")
}

async fn down(process: &mut Process) -> String {
    match process.recv().await.unwrap() {
        Message::Down(down) => down.reason.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_rust_node_between_two_releases() {
    case(
        Case::Smoke,
        TOPIC,
        "a Rust node between this release and the farthest: identifiers relayed, messages and monitors across",
        |release| {
            let other = farthest(release);
            let epmd = Epmd::start(release);
            let rust = Rust::start(&epmd, "rust");
            let one = Beam::visible(release, &epmd, "one");
            let two = Beam::visible(other, &epmd, "two");
            let mut inbox = rust.node.mailbox("inbox").unwrap();
            let to_inbox = |beam: &Beam, what: &str| {
                beam.eval(&format!("{{inbox, 'rust@127.0.0.1'}} ! {what}, ok"));
            };
            for (beam, far, far_number) in [(&one, &two, other.number), (&two, &one, release.number)] {
                let far_test = ("test", far.name());
                // A pid goes to the far node, is that node's to send on, and comes home as what it was.
                to_inbox(beam, "self()");
                let mine = rust.run(pid(&mut inbox));
                assert_eq!(mine.node, beam.name());
                rust.run(inbox.send_term(far_test, &Term::from((Term::atom("pid"), &mine)))).unwrap();
                assert_eq!(
                    far.eval("node(receive {pid, P} -> put(far, P), P after 10000 -> self() end)"),
                    format!("'{}'", beam.name())
                );
                to_inbox(far, "get(far)");
                let back = rust.run(next_term(&mut inbox));
                rust.run(inbox.send_term(&mine, &Term::from((Term::atom("home"), back)))).unwrap();
                assert_eq!(beam.eval("receive {home, H} -> H =:= self() after 10000 -> nothing end"), "true");
                // A reference that the far node could not read costs no connection.
                to_inbox(beam, "make_ref()");
                let reference = rust.run(next_term(&mut inbox));
                let words = reference.as_reference().unwrap().words().len();
                let sent =
                    rust.run(inbox.send_term(far_test, &Term::from((Term::atom("reference"), reference))));
                if words > 3 && far_number < 24 {
                    assert!(matches!(sent, Err(Error::Term(ProtoError::NotSupportedByPeer(_)))), "{sent:?}");
                } else {
                    sent.unwrap();
                    let node = far.eval("receive {reference, R} -> node(R) after 10000 -> nothing end");
                    assert_eq!(node, format!("'{}'", beam.name()));
                }
            }

            // Messages through the Rust node, in order.
            one.eval("[{inbox, 'rust@127.0.0.1'} ! {N, <<N:800>>} || N <- lists:seq(1, 500)], ok");
            rust.run(async {
                for _ in 0..500 {
                    let message = next_term(&mut inbox).await;
                    inbox.send_term(("test", "two@127.0.0.1"), &message).await.unwrap();
                }
            });
            assert_eq!(
                two.eval("[receive {N, B} -> N = binary:decode_unsigned(B) after 10000 -> lost end || _ <- lists:seq(1, 500)] =:= lists:seq(1, 500)"),
                "true"
            );

            // Each end is heard of by the other through a process that watches both.
            let sleeper = "spawn(fun() -> receive {exit, Why} -> exit(Why) end end)";
            to_inbox(&one, sleeper);
            let first = rust.run(pid(&mut inbox));
            to_inbox(&two, sleeper);
            let second = rust.run(pid(&mut inbox));
            rust.run(async {
                for (target, reason) in [(&first, "one"), (&second, "two")] {
                    inbox.monitor(target).await.unwrap();
                    inbox.send_term(target, &Term::from((Term::atom("exit"), term(reason)))).await.unwrap();
                    assert_eq!(down(&mut inbox).await, reason);
                }
            });
            assert_eq!(one.eval("nodes(hidden)"), "['rust@127.0.0.1']");
            assert_eq!(two.eval("nodes(hidden)"), "['rust@127.0.0.1']");
            // Their flags do not let them meet, or nobody asked them to: each knows the other only through us.
            assert_eq!(one.eval("nodes()"), "[]");
            Ok(())
        },
    );
}

#[test]
fn the_release_of_a_node_changes() {
    case(
        Case::Smoke,
        TOPIC,
        "a node comes back with this release under the same name: a new incarnation, and pids of the old one are dead",
        |release| {
            let epmd = Epmd::start(release);
            let rust = Rust::start(&epmd, "rust");
            let mut inbox = rust.node.mailbox("inbox").unwrap();
            let before = otp::matrix().iter().rfind(|other| other.number < release.number);
            let before = before.unwrap_or_else(|| following(release));
            let ask = "{inbox, 'rust@127.0.0.1'} ! spawn(fun() -> receive stop -> ok end end), ok";

            let beam = Beam::visible(before, &epmd, "roll");
            beam.eval(ask);
            let old = rust.run(pid(&mut inbox));
            rust.run(async {
                inbox.monitor(&old).await.unwrap();
                // Answered after the monitor has arrived.
                assert!(rust.node.ping("roll@127.0.0.1").await);
                beam.kill();
                assert_eq!(down(&mut inbox).await, "noconnection");
            });

            eventually_true("the name is free again", WAIT, || {
                epmd.names().iter().all(|(name, _)| name != "roll")
            });
            let beam = Beam::visible(release, &epmd, "roll");
            beam.eval(ask);
            let new = rust.run(pid(&mut inbox));
            assert_ne!(new.creation, old.creation, "a new incarnation");
            rust.run(async {
                // What is meant for the old one reaches nobody, whoever has its numbers now.
                let ghost = Pid { creation: old.creation, ..new.clone() };
                for dead in [&old, &ghost] {
                    inbox.send_term(dead, &term("stop")).await.unwrap();
                    inbox.exit(dead, "kill").await;
                    inbox.monitor(dead).await.unwrap();
                    assert_eq!(down(&mut inbox).await, "noproc");
                }
                inbox.monitor(&new).await.unwrap();
                inbox.send_term(&new, &term("stop")).await.unwrap();
                assert_eq!(down(&mut inbox).await, "normal");
            });
            assert_eq!(beam.eval("nodes(hidden)"), "['rust@127.0.0.1']");
            Ok(())
        },
    );
}

//! Identifiers that OTP 23 does not read: it closes the connection over them.

use foundation_interop_tests::{Beam, Case, Epmd, case};
use foundation_node::error::Error;
use foundation_node::process::Reason;
use foundation_proto::Error as ProtoError;
use foundation_proto::etf::{Atom, Pid, Port, Reference, Term};

use crate::rust::{Rust, WAIT, next, term};

const NODE: Atom = Atom::new_static("far@127.0.0.1");

fn port(id: u64) -> Term {
    Term::Port(Box::new(Port { node: NODE, id, creation: 3 }))
}

fn reference(words: &[u32]) -> Term {
    Term::Reference(Box::new(Reference::new(NODE, 3, words).unwrap()))
}

fn pid(id: u32, serial: u32) -> Term {
    Term::Pid(Pid { node: NODE, id, serial, creation: 3 })
}

#[test]
fn identifiers_are_narrowed_or_refused() {
    case(
        Case::Smoke,
        "messages",
        "identifiers beyond the limits of OTP 23 reach those who know them, and cost no connection",
        |release| {
            let epmd = Epmd::start(release);
            let rust = Rust::start(&epmd, "rust");
            let beam = Beam::visible(release, &epmd, "beam");
            let mut inbox = rust.node.mailbox("inbox").unwrap();
            let to = ("test", "beam@127.0.0.1");
            let old = release.number < 24;
            beam.eval("Next = fun() -> receive {id, T} -> T after 10000 -> nothing end end");
            let printed = |id: Term| {
                rust.run(inbox.send_term(to, &Term::from((Term::atom("id"), id)))).unwrap();
                let text = beam.eval("Next()");
                text.split_once('.').map(|(_, numbers)| numbers.to_owned()).unwrap_or(text)
            };
            // The largest that fit. What comes before the first point is the BEAM's own number of the node.
            assert_eq!(printed(port((1 << 28) - 1)), "268435455>");
            assert_eq!(printed(pid((1 << 15) - 1, (1 << 13) - 1)), "32767.8191>");
            assert_eq!(printed(reference(&[u32::MAX, 2, 3])), "3.2.4294967295>");
            // Zero words at the end are shown by OTP 24 and later.
            assert!(printed(reference(&[1, 2, 3, 0, 0])).ends_with("3.2.1>"));

            let wide =
                [port(1 << 28), port(1 << 40), pid(1 << 15, 0), pid(1, 1 << 13), reference(&[1, 2, 3, 4])];
            for id in wide {
                let message = Term::from((Term::atom("id"), id.clone()));
                let sent = rust.run(inbox.send_term(to, &message));
                if old {
                    assert!(
                        matches!(sent, Err(Error::Term(ProtoError::NotSupportedByPeer("V4_NC")))),
                        "{id:?}: {sent:?}"
                    );
                } else {
                    sent.unwrap();
                    assert_eq!(beam.eval("element(1, {node(Next()), ok})"), "'far@127.0.0.1'", "{id:?}");
                }
            }

            // A reason that cannot be said: whoever is linked or watches hears nevertheless.
            let worker = rust.node.mailbox("worker").unwrap();
            beam.eval("W = monitor(process, {worker, 'rust@127.0.0.1'})");
            beam.eval("net_adm:ping('rust@127.0.0.1')");
            worker.stop(Reason::from(term("wide")));
            assert_eq!(beam.eval("receive {'DOWN', W, _, _, R0} -> R0 after 10000 -> nothing end"), "wide");
            let worker = rust.node.mailbox("worker").unwrap();
            beam.eval("X = monitor(process, {worker, 'rust@127.0.0.1'})");
            beam.eval("net_adm:ping('rust@127.0.0.1')");
            worker.stop(Reason::from(Term::from((Term::atom("from"), pid(1 << 15, 0)))));
            let heard = beam.eval("receive {'DOWN', X, _, _, R1} -> R1 after 10000 -> nothing end");
            if old {
                assert_eq!(heard, "notsup");
            } else {
                assert!(heard.starts_with("{from,<"), "{heard}");
            }

            // A spawn that cannot be asked for fails at once.
            let args = vec![pid(1 << 15, 0)];
            let called =
                rust.run(inbox.erpc(&Atom::new_static("beam@127.0.0.1"), "erlang", "node", args, WAIT));
            if old {
                assert!(matches!(called, Err(Error::Term(_))), "{called:?}");
            } else {
                assert_eq!(called.unwrap(), Term::atom("far@127.0.0.1"));
            }

            // It is the same connection all the time.
            beam.eval("{inbox, 'rust@127.0.0.1'} ! still");
            assert_eq!(rust.run(next(&mut inbox)), "still");
            assert_eq!(beam.eval("nodes(hidden)"), "['rust@127.0.0.1']");
            Ok(())
        },
    );
}

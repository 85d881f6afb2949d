//! Messages, both ways.

use foundation_interop_tests::beam::Options;
use foundation_interop_tests::wire::Wire;
use foundation_interop_tests::{Beam, Case, Epmd, case};
use foundation_node::process::AliasKind;
use foundation_proto::Limits;
use foundation_proto::etf::{RawTerm, Term, phash2_range};

use crate::rust::{Rust, next, next_term, shown, term};

const TOPIC: &str = "messages";

#[test]
fn to_registered_names_and_pids() {
    case(Case::Smoke, TOPIC, "sends to registered names and to pids, both ways", |release| {
        let epmd = Epmd::start(release);
        let rust = Rust::start(&epmd, "rust");
        let beam = Beam::visible(release, &epmd, "beam");
        let mut inbox = rust.node.mailbox("inbox").unwrap();

        beam.eval("{inbox, 'rust@127.0.0.1'} ! {hello, self(), [1, 2.5, <<\"three\">>]}");
        let Term::Tuple(hello) = rust.run(next_term(&mut inbox)) else { panic!("a tuple") };
        let [hello, Term::Pid(from), rest] = &hello[..] else { panic!("{hello:?}") };
        assert_eq!((shown(hello), shown(rest)), ("hello".into(), "[1,2.5,<<\"three\">>]".into()));
        assert_eq!(from.node, "beam@127.0.0.1");

        rust.run(inbox.send_term(from, &Term::from((Term::atom("to_pid"), inbox.pid())))).unwrap();
        assert_eq!(
            beam.eval("receive {to_pid, Pid} -> node(Pid) after 5000 -> nothing end"),
            "'rust@127.0.0.1'"
        );
        beam.eval("Pid ! 'direct to the pid'");
        assert_eq!(rust.run(next(&mut inbox)), "'direct to the pid'");

        rust.run(inbox.send_term(("test", "beam@127.0.0.1"), &term("{to_name, \"x\"}"))).unwrap();
        assert_eq!(beam.eval("receive {to_name, X} -> X after 5000 -> nothing end"), "\"x\"");
        // Nobody has this name: dropped on both sides, and the connection stays.
        rust.run(inbox.send_term(("nobody", "beam@127.0.0.1"), &term("lost"))).unwrap();
        beam.eval("{nobody, 'rust@127.0.0.1'} ! lost");
        assert_eq!(beam.eval("{inbox, 'rust@127.0.0.1'} ! still, nodes(hidden)"), "['rust@127.0.0.1']");
        assert_eq!(rust.run(next(&mut inbox)), "still");
        Ok(())
    });
}

#[test]
fn order_is_kept() {
    case(Case::Full, TOPIC, "20,000 messages of mixed size arrive in order, both ways", |release| {
        let epmd = Epmd::start(release);
        let rust = Rust::start(&epmd, "rust");
        let beam = Beam::visible(release, &epmd, "beam");
        let mut inbox = rust.node.mailbox("inbox").unwrap();
        const COUNT: i64 = 20_000;
        // Every thousandth is large enough for fragments.
        beam.eval(&format!(
            "Big = binary:copy(<<7>>, 200000), \
             [{{inbox, 'rust@127.0.0.1'}} ! {{N, case N rem 1000 of 0 -> Big; _ -> small end}} || N <- lists:seq(1, {COUNT})], ok"
        ));
        rust.run(async {
            for n in 1..=COUNT {
                let message = next_term(&mut inbox).await;
                assert_eq!(message.as_tuple().and_then(|tuple| tuple[0].as_i64()), Some(n));
            }
        });
        beam.eval(&format!(
            "Main = self(), register(collector, spawn(fun() -> \
               Main ! {{order, [receive {{N, _}} -> N end || _ <- lists:seq(1, {COUNT})] =:= lists:seq(1, {COUNT})}} end))"
        ));
        rust.run(async {
            let big = Term::binary(&vec![7; 200_000]);
            for n in 1..=COUNT {
                let body = if n % 1000 == 0 { big.clone() } else { Term::atom("small") };
                inbox.send_term(("collector", "beam@127.0.0.1"), &Term::from((n, body))).await.unwrap();
            }
        });
        assert_eq!(beam.eval("receive {order, Kept} -> Kept after 20000 -> timeout end"), "true");
        Ok(())
    });
}

#[test]
fn ten_megabytes() {
    case(Case::Smoke, TOPIC, "a 10 MB binary goes there and back unchanged", |release| {
        let epmd = Epmd::start(release);
        let rust = Rust::start(&epmd, "rust");
        rust.echo();
        let beam = Beam::visible(release, &epmd, "beam");
        beam.eval(
            "Big = crypto:strong_rand_bytes(10 * 1024 * 1024), {echo, 'rust@127.0.0.1'} ! {self(), Big}, ok",
        );
        assert_eq!(
            beam.eval("receive {echo, Big} -> same; {echo, _} -> changed after 15000 -> nothing end"),
            "same"
        );
        Ok(())
    });
}

#[test]
fn large_messages_to_a_slow_peer() {
    case(
        Case::Full,
        TOPIC,
        "large messages beside small ones to a BEAM behind 20 MB/s, in fragments of several lengths",
        |release| {
            const COUNT: u8 = 12;
            const SIZE: usize = 1_500_001;
            let epmd = Epmd::start(release);
            let wire = Wire::new(&epmd);
            wire.rate(20_000_000);
            let rust = Rust::on(wire.a(), "rust", |config| config);
            let beam = Options::new(release, wire.b(), "beam").start();
            let large =
                |n: u8| -> Vec<u8> { (0..SIZE).map(|at| (at % 251) as u8 ^ (at >> 12) as u8 ^ n).collect() };
            rust.run(async {
                let (bulk, small) = (rust.node.process().unwrap(), rust.node.process().unwrap());
                let to = ("test", "beam@127.0.0.1");
                let sends = rust.spawn(async move {
                    for n in 0..COUNT {
                        let message =
                            Term::from((Term::atom("large"), i64::from(n), Term::binary(&large(n))));
                        bulk.send_term(to, &message).await.unwrap();
                    }
                });
                let mut n = 0_i64;
                while !sends.is_finished() {
                    small.send_term(to, &Term::from((Term::atom("small"), n))).await.unwrap();
                    n += 1;
                    // One at a time is under way.
                    assert!(rust.node.ping("beam@127.0.0.1").await);
                }
                small.send_term(to, &Term::from((Term::atom("sent"), n))).await.unwrap();
            });
            // In order, each whole.
            let expected: Vec<String> = (0..COUNT)
                .map(|n| phash2_range(&Term::binary(&large(n)), 1 << 32).unwrap().to_string())
                .collect();
            let got = beam.eval(&format!(
                "[receive {{large, N, Bin}} -> erlang:phash2(Bin, 1 bsl 32) after 30000 -> nothing end || N <- lists:seq(0, {})]",
                COUNT - 1
            ));
            assert_eq!(got, format!("[{}]", expected.join(",")));
            assert_eq!(
                beam.eval(
                    "receive {sent, Sent} -> lists:all(fun(N) -> receive {small, M} -> M =:= N after 5000 -> false end end, lists:seq(0, Sent - 1)) after 5000 -> nothing end"
                ),
                "true"
            );
            Ok(())
        },
    );
}

#[test]
fn every_term_survives() {
    case(
        Case::Smoke,
        TOPIC,
        "every kind of term goes through a Rust process and comes back equal",
        |release| {
            let epmd = Epmd::start(release);
            let rust = Rust::start(&epmd, "rust");
            rust.echo();
            let beam = Beam::visible(release, &epmd, "beam");
            let failed = beam.eval(
                "[Name || {Name, T} <- foundation_corpus:corpus(), \
                  begin {echo, 'rust@127.0.0.1'} ! {self(), T}, \
                  receive {echo, Back} -> Back =/= T after 5000 -> true end end]",
            );
            assert_eq!(failed, "[]");
            Ok(())
        },
    );
}

#[test]
fn local_terms() {
    case(
        Case::Full,
        TOPIC,
        "local_ext: what a node encoded for itself is kept as it is, and read by that node only",
        |release| {
            if release.number < 26 {
                return Err(foundation_interop_tests::case::Unsupported(
                    "the option `local` came with OTP 26",
                ));
            }
            let epmd = Epmd::start(release);
            let rust = Rust::start(&epmd, "rust");
            let beam = Beam::visible(release, &epmd, "beam");
            let mut inbox = rust.node.mailbox("inbox").unwrap();
            beam.eval("T = {self(), make_ref(), [x, {1.5, <<\"b\">>}]}, {inbox, 'rust@127.0.0.1'} ! term_to_binary(T, [local])");
            rust.run(async {
                let encoded = next_term(&mut inbox).await;
                let local = RawTerm::from_external(encoded.as_binary().unwrap(), &Limits::default()).unwrap();
                // Through the owned form, inside another term, and back.
                let term = Term::from((Term::atom("kept"), local.to_term(&Limits::default()).unwrap()));
                let again = RawTerm::from_term(&term).unwrap().to_external();
                inbox.send_term(("test", "beam@127.0.0.1"), &Term::binary(&again)).await.unwrap();
            });
            assert_eq!(
                beam.eval("receive B when is_binary(B) -> binary_to_term(B) =:= {kept, T} after 10000 -> nothing end"),
                "true"
            );
            Ok(())
        },
    );
}

#[test]
fn aliases() {
    case(Case::Full, TOPIC, "aliases deliver until they are given back, both ways", |release| {
        if release.number < 24 {
            return Err(foundation_interop_tests::case::Unsupported("aliases came with OTP 24"));
        }
        let epmd = Epmd::start(release);
        let rust = Rust::start(&epmd, "rust");
        let beam = Beam::visible(release, &epmd, "beam");
        let mut inbox = rust.node.mailbox("inbox").unwrap();

        let alias = inbox.alias(AliasKind::ExplicitUnalias).unwrap();
        rust.run(inbox.send_term(("test", "beam@127.0.0.1"), &Term::from((Term::atom("alias"), &alias))))
            .unwrap();
        beam.eval("Alias = receive {alias, A} -> A after 5000 -> exit(nothing) end, Alias ! through, Alias ! again, ok");
        assert_eq!(rust.run(next(&mut inbox)), "through");
        assert_eq!(rust.run(next(&mut inbox)), "again");
        assert!(inbox.unalias(&alias));
        beam.eval("Alias ! late, {inbox, 'rust@127.0.0.1'} ! marker");
        assert_eq!(
            rust.run(next(&mut inbox)),
            "marker",
            "nothing comes through an alias that was given back"
        );

        beam.eval("Mine = alias([reply]), {inbox, 'rust@127.0.0.1'} ! {mine, Mine}");
        let mine = rust.run(next_term(&mut inbox));
        let mine = mine.as_tuple().and_then(|tuple| tuple[1].as_reference()).cloned().expect("a reference");
        rust.run(inbox.send_term(&mine, &term("first"))).unwrap();
        assert_eq!(beam.eval("receive first -> got after 5000 -> nothing end"), "got");
        // A reply alias is gone after one message.
        rust.run(inbox.send_term(&mine, &term("second"))).unwrap();
        rust.run(inbox.send_term(("test", "beam@127.0.0.1"), &term("marker"))).unwrap();
        assert_eq!(beam.eval("receive second -> late; marker -> marker after 5000 -> nothing end"), "marker");
        Ok(())
    });
}

#[test]
fn priority_messages() {
    case(Case::Smoke, TOPIC, "messages and exits with priority go before others, both ways", |release| {
        if release.number < 24 {
            return Err(foundation_interop_tests::case::Unsupported("aliases came with OTP 24"));
        }
        let epmd = Epmd::start(release);
        let rust = Rust::start(&epmd, "rust");
        let beam = Beam::visible(release, &epmd, "beam");
        let mut inbox = rust.node.mailbox("inbox").unwrap();
        inbox.trap_exit(true);
        let known = release.number >= 28;

        // To the BEAM. Older releases get ordinary messages, and no exits through aliases.
        beam.eval(&format!(
            "Alias = alias([{}]), process_flag(trap_exit, true), {{inbox, 'rust@127.0.0.1'}} ! {{alias, Alias}}",
            if known { "priority" } else { "explicit_unalias" }
        ));
        let alias = rust.run(next_term(&mut inbox));
        let alias = alias.as_tuple().and_then(|tuple| tuple[1].as_reference()).cloned().expect("a reference");
        rust.run(async {
            let test = ("test", "beam@127.0.0.1");
            inbox.send_term(test, &term("n1")).await.unwrap();
            inbox.send_term(&alias, &term("n2")).await.unwrap();
            inbox.send_priority(&alias, &term("p1")).await.unwrap();
            inbox.send_priority(test, &term("n3")).await.unwrap();
            let exit = inbox.exit_alias(&alias, "bye", true).await;
            assert_eq!(exit.is_ok(), known, "{exit:?}");
            inbox.send_term(test, &term("last")).await.unwrap();
        });
        let flush = "(fun Flush(0, Acc) -> lists:reverse(Acc); \
                        Flush(N, Acc) -> receive {'EXIT', _, R} -> Flush(N - 1, [R | Acc]); M -> Flush(N - 1, [M | Acc]) \
                        after 10000 -> nothing end end)";
        let queue = "element(2, process_info(self(), message_queue_len))";
        let count = if known { 6 } else { 5 };
        beam.eval(&format!(
            "(fun Wait() -> case {queue} of {count} -> ok; _ -> receive after 5 -> Wait() end end end)()"
        ));
        let expected = if known { "[p1,bye,n1,n2,n3,last]" } else { "[n1,n2,p1,n3,last]" };
        assert_eq!(beam.eval(&format!("{flush}({count}, [])")), expected);
        if !known {
            return Ok(());
        }

        // To the Rust node, in one go, so that all of it waits there before it is received.
        let mine = inbox.priority_alias(AliasKind::ExplicitUnalias).unwrap();
        let plain = inbox.alias(AliasKind::ExplicitUnalias).unwrap();
        let both = Term::from((Term::from(&mine), Term::from(&plain)));
        rust.run(inbox.send_term(("test", "beam@127.0.0.1"), &both)).unwrap();
        beam.eval(
            "{P, O} = receive Both -> Both after 10000 -> exit(nothing) end, I = {inbox, 'rust@127.0.0.1'}, \
             I ! n1, erlang:send(P, p1, [priority]), erlang:send(P, n2), erlang:send(O, n3, [priority]), \
             exit(P, bye, [priority]), erlang:send(I, n4, [priority]), erlang:send(P, p2, [priority]), I ! last",
        );
        rust.run(async {
            while inbox.mailbox_len() < 8 {
                tokio::time::sleep(std::time::Duration::from_millis(2)).await;
            }
            for expected in ["p1", "bye", "p2", "n1", "n2", "n3", "n4", "last"] {
                let message = inbox.recv().await.unwrap();
                match message {
                    foundation_node::process::Message::Exit(exit) => {
                        assert!(exit.reason.is(expected), "{}", exit.reason)
                    }
                    message => assert_eq!(shown(&message.to_term(&Default::default()).unwrap()), expected),
                }
            }
        });
        Ok(())
    });
}

#[test]
fn traced_signals() {
    case(
        Case::Smoke,
        TOPIC,
        "signals with a sequential trace token are taken like those without",
        |release| {
            let epmd = Epmd::start(release);
            let rust = Rust::start(&epmd, "rust");
            let beam = Beam::visible(release, &epmd, "beam");
            let mut inbox = rust.node.mailbox("inbox").unwrap();
            inbox.trap_exit(true);
            let alias = inbox.alias(AliasKind::ExplicitUnalias).unwrap();
            let known = Term::from((Term::from(inbox.pid()), Term::from(&alias)));
            rust.run(inbox.send_term(("test", "beam@127.0.0.1"), &known)).unwrap();
            beam.eval(
            "{Pid, Alias} = receive Known -> Known after 10000 -> exit(nothing) end, \
             Traced = fun(F) -> seq_trace:set_token(label, 17), seq_trace:set_token(send, true), V = F(), seq_trace:set_token([]), V end",
        );
            beam.eval("Traced(fun() -> {inbox, 'rust@127.0.0.1'} ! to_name, Pid ! to_pid end)");
            assert_eq!(rust.run(next(&mut inbox)), "to_name");
            assert_eq!(rust.run(next(&mut inbox)), "to_pid");
            if release.number >= 24 {
                beam.eval("Traced(fun() -> Alias ! to_alias end)");
                assert_eq!(rust.run(next(&mut inbox)), "to_alias");
            }
            // exit/2, the end of a linked process, and of a monitored one.
            beam.eval("Traced(fun() -> exit(Pid, by_exit) end)");
            assert_eq!(rust.run(next(&mut inbox)).split_once('>').unwrap().1, ",by_exit}");
            beam.eval("spawn(fun() -> link(Pid), Traced(fun() -> exit(by_link) end) end)");
            assert_eq!(rust.run(next(&mut inbox)).split_once('>').unwrap().1, ",by_link}");
            assert_eq!(
                beam.eval("Traced(fun() -> rpc:call('rust@127.0.0.1', erlang, node, []) end)"),
                "'rust@127.0.0.1'"
            );
            assert_eq!(beam.eval("nodes(hidden)"), "['rust@127.0.0.1']");
            Ok(())
        },
    );
}

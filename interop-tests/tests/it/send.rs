//! Messages, both ways.

use foundation_interop_tests::{Beam, Case, Epmd, case};
use foundation_node::process::AliasKind;
use foundation_proto::etf::Term;

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

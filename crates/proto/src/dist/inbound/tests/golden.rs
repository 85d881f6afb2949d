//! Frames captured between a client and OTP 25 and 29 nodes, without their length. What the client sent was accepted by those
//! nodes, so it is also what must be written for the same signal.

use super::*;
use crate::dist::{Lane, LaneClass, Outbound};

/// `58 770c py@127.0.0.1, 0x65, 0, 0x11223344`.
const P: &str = "58770c7079403132372e302e302e31000000650000000011223344";

fn ours(id: u32) -> Pid {
    pid(PY, id, OUR_CREATION)
}

fn theirs(id: u32) -> Pid {
    pid(N25, id, N25_CREATION)
}

fn our_ref(first: u32) -> Reference {
    Reference::new(PY, OUR_CREATION, &[first, 7, 9]).unwrap()
}

fn their_ref(words: &[u32]) -> Reference {
    Reference::new(N25, N25_CREATION, words).unwrap()
}

/// Encodes what was decoded and compares: for frames that our side sent, without an atom cache.
fn write_again(signal: &Signal, peer: Atom, peer_creation: u32, flags: Flags) -> Vec<u8> {
    let config = ChannelConfig::new(PY, peer, peer_creation, flags);
    let mut outbound = Outbound::new(&config, Mono::ZERO);
    let lane = Lane { sender: 1, class: LaneClass::Normal };
    let _ = outbound.send(&signal.control, signal.payload.as_ref(), lane).unwrap();
    let mut slices = [std::io::IoSlice::new(&[]); 4];
    let filled = outbound.poll_transmit(Mono::ZERO, &mut slices);
    let bytes = slices[..filled].iter().flat_map(|slice| slice.to_vec()).collect::<Vec<u8>>();
    assert_eq!(bytes[..4], ((bytes.len() - 4) as u32).to_be_bytes());
    bytes[4..].to_vec()
}

/// A frame that our side sent to the OTP 25 node: decodes to this, and this encodes to the frame.
#[track_caller]
fn sent(frame: &str, control: ControlMessage, payload: Option<Term>) {
    let frame = hex(frame);
    let mut at_the_peer = inbound(N25, PY, NO_CACHE);
    let signals = receive(&mut at_the_peer, &frame).unwrap();
    let [signal] = &signals[..] else { panic!("{signals:?}") };
    assert_eq!(signal.control, control);
    assert_eq!(signal.payload.as_ref().map(term), payload);
    assert_eq!(write_again(signal, N25, N25_CREATION, NO_CACHE), frame);
}

/// A frame that the OTP 25 node sent on a connection of its own.
#[track_caller]
fn came(frame: &str, control: ControlMessage, payload: Option<Term>) {
    let signals = receive(&mut inbound(PY, N25, Flags::HIDDEN), &hex(frame)).unwrap();
    let [signal] = &signals[..] else { panic!("{signals:?}") };
    assert_eq!(signal.control, control);
    assert_eq!(signal.payload.as_ref().map(term), payload);
    assert!(signal.token.is_none());
}

fn reference(reference: Reference) -> Term {
    Term::Reference(Box::new(reference))
}

fn list(elements: impl IntoIterator<Item = Term>) -> Term {
    Term::List(elements.into_iter().collect())
}

#[test]
fn sends() {
    let is_auth = tuple([
        atom("$gen_call"),
        tuple([Term::Pid(ours(0x65)), reference(our_ref(0x3e9))]),
        tuple([atom("is_auth"), Term::Atom(PY)]),
    ]);
    sent(
        &format!(
            "83440068046106{P}7700770a6e65745f6b65726e656c680377092467656e5f63616c6c6802{P}5a0003770c7079403132372e302e302e3111223344000003e900000007000000096802770769735f61757468770c7079403132372e302e302e31"
        ),
        ControlMessage::RegSend { from: ours(0x65), to: Atom::new_static("net_kernel") },
        Some(is_auth),
    );
    sent(
        &format!(
            "83440068046106{P}770077037265786802{P}6805770463616c6c770665726c616e6777046e6f64656a770475736572"
        ),
        ControlMessage::RegSend { from: ours(0x65), to: Atom::new_static("rex") },
        Some(tuple([
            Term::Pid(ours(0x65)),
            tuple([atom("call"), atom("erlang"), atom("node"), list([]), atom("user")]),
        ])),
    );
    came(
        "834403bf0a7b0d6e3235403132372e302e302e312f0c7079403132372e302e302e31cc03796573680361165852000000003d000000006b00bdca58520100000065000000001122334468025a0003520111223344000003e900000007000000095202",
        ControlMessage::Send { from: Some(theirs(0x3d)), to: ours(0x65) },
        Some(tuple([reference(our_ref(0x3e9)), atom("yes")])),
    );
    // A ping, with the creation of another run.
    let pinger = pid(N25, 0xc0, 0x6b00_bf45);
    let monitor = Reference::new(N25, 0x6b00_bf45, &[0x0002_46d2, 0xe489_0001, 0xab03_2fe1]).unwrap();
    came(
        "8344006804611358770d6e3235403132372e302e302e31000000c0000000006b00bf45770a6e65745f6b65726e656c5a0003770d6e3235403132372e302e302e316b00bf45000246d2e4890001ab032fe1",
        ControlMessage::MonitorP {
            watcher: pinger.clone(),
            target: Target::Name(Atom::new_static("net_kernel")),
            reference: monitor.clone(),
        },
        None,
    );
    let signals = receive(
        &mut inbound(PY, N25, NO_CACHE),
        &hex(
            "8344006804610658770d6e3235403132372e302e302e31000000c0000000006b00bf457700770a6e65745f6b65726e656c680377092467656e5f63616c6c680258770d6e3235403132372e302e302e31000000c0000000006b00bf456c000000017705616c6961735a0003770d6e3235403132372e302e302e316b00bf45000246d2e4890001ab032fe16802770769735f61757468770d6e3235403132372e302e302e31",
        ),
    );
    let signal = signals.unwrap().pop().unwrap();
    assert_eq!(signal.control, ControlMessage::RegSend { from: pinger, to: Atom::new_static("net_kernel") });
    assert!(term(&signal.payload.unwrap()) != Term::Integer(0));
}

#[test]
fn aliases() {
    let alias = their_ref(&[0x86ab, 0xf489_0001, 0x020f_6e4a]);
    let frame = format!(
        "834400680361 21{P}5a0003770d6e3235403132372e302e302e316b00bdca000086abf4890001020f6e4a680277097669615f616c6961736101"
    );
    let signal = receive(&mut inbound(N25, PY, NO_CACHE), &hex(&frame)).unwrap().pop().unwrap();
    assert_eq!(signal.control, ControlMessage::AliasSend { from: ours(0x65), alias });
    let otp_25 = NO_CACHE.without(Flags::ALTACT_SIG);
    assert_eq!(write_again(&signal, N25, N25_CREATION, otp_25), hex(&frame));

    // The same with ALTACT_SIG, to an OTP 29 node.
    let frame = format!(
        "83440068046125 6104{P}5a0005770d6e3239403132372e302e302e316b00bf450002780be48900014cf0b8e700002d03000000006802770a7669615f616c746163746102"
    );
    let signal = receive(&mut inbound(N29, PY, NO_CACHE), &hex(&frame)).unwrap().pop().unwrap();
    let words = [0x0002_780b, 0xe489_0001, 0x4cf0_b8e7, 0x2d03, 0];
    let alias = Reference::new(N29, 0x6b00_bf45, &words).unwrap();
    assert_eq!(
        signal.control,
        ControlMessage::Altact { flags: 0, from: ours(0x65), to: Destination::Alias(alias.clone()) }
    );
    assert_eq!(write_again(&signal, N29, 0x6b00_bf45, NO_CACHE), hex(&frame));
    let as_alias_send = Signal {
        control: ControlMessage::AliasSend { from: ours(0x65), alias: alias.clone() },
        ..signal.clone()
    };
    assert_eq!(write_again(&as_alias_send, N29, 0x6b00_bf45, NO_CACHE), hex(&frame));

    // ALIAS_SEND with five words.
    let frame = "8344006803612158770f7079616363403132372e302e302e310000006500000000000000055a0005770d6e3239403132372e302e302e316b00bf4500027a40e48900014cf0b8e700007b030000000068026c000000017705616c6961735a0005770d6e3239403132372e302e302e316b00bf4500027a40e48900014cf0b8e700007b03000000007703796573";
    let pyacc = Atom::new_static("pyacc@127.0.0.1");
    let signal = receive(&mut inbound(N29, pyacc.clone(), NO_CACHE), &hex(frame)).unwrap().pop().unwrap();
    let words = [0x0002_7a40, 0xe489_0001, 0x4cf0_b8e7, 0x7b03, 0];
    let alias = Reference::new(N29, 0x6b00_bf45, &words).unwrap();
    assert_eq!(signal.control, ControlMessage::AliasSend { from: pid(pyacc, 0x65, 5), alias });
}

#[test]
fn altact_to_pids_names_and_as_exit() {
    let n29 = |id| pid(N29, id, 0x6b00_bf45);
    let to_pid = "58770d6e3239403132372e302e302e3100000057000000006b00bf45";
    for (frame, flags, to) in [
        (format!("834400680461256101{P}{to_pid}6101"), altact::PRIORITY, Destination::Pid(n29(0x57))),
        (
            format!("834400680461256109{P}77046563686f6101"),
            altact::PRIORITY,
            Destination::Name(Atom::new_static("echo")),
        ),
        (
            format!("834400680461256111{P}{to_pid}6101"),
            altact::PRIORITY | altact::EXIT,
            Destination::Pid(n29(0x57)),
        ),
    ] {
        let signal = receive(&mut inbound(N29, PY, NO_CACHE), &hex(&frame)).unwrap().pop().unwrap();
        assert_eq!(signal.control, ControlMessage::Altact { flags, from: ours(0x65), to });
        assert_eq!(term(signal.payload.as_ref().unwrap()), Term::Integer(1));
        assert_eq!(write_again(&signal, N29, 0x6b00_bf45, NO_CACHE), hex(&frame));
    }
}

#[test]
fn links() {
    let link = format!("834400680361 01{P}58770d6e3235403132372e302e302e3100000055000000006b00bdca");
    sent(&link, ControlMessage::Link { from: ours(0x65), to: theirs(0x55) }, None);
    let to = "58770d6e3235403132372e302e302e3100000057000000006b00bdca";
    let (from, to_pid) = (ours(0x65), theirs(0x57));
    sent(
        &format!("83440068046123 6101{P}{to}"),
        ControlMessage::UnlinkId { id: 1, from: from.clone(), to: to_pid.clone() },
        None,
    );
    sent(
        &format!("83440068046123 6e080005000000000000 80{P}{to}"),
        ControlMessage::UnlinkId { id: (1 << 63) + 5, from: from.clone(), to: to_pid.clone() },
        None,
    );
    sent(
        &format!("83440068046124 6101{P}{to}"),
        ControlMessage::UnlinkIdAck { id: 1, from, to: to_pid },
        None,
    );
}

#[test]
fn exits() {
    let to = "58770d6e3235403132372e302e302e3100000057000000006b00bdca";
    sent(
        &format!("834400680361 18{P}{to}680277036279656102"),
        ControlMessage::Exit { from: ours(0x65), to: theirs(0x57) },
        Some(tuple([atom("bye"), Term::Integer(2)])),
    );
    sent(
        &format!("834400680361 1a{P}{to}770464696532"),
        ControlMessage::Exit2 { from: ours(0x65), to: theirs(0x57) },
        Some(atom("die2")),
    );
}

#[test]
fn monitors() {
    let by_pid = format!(
        "{P}58770d6e3235403132372e302e302e3100000055000000006b00bdca5a0003770c7079403132372e302e302e3111223344000003e90000000700000009"
    );
    let (watcher, target) = (ours(0x65), Target::Pid(theirs(0x55)));
    let reference = our_ref(0x3e9);
    sent(
        &format!("83440068046113{by_pid}"),
        ControlMessage::MonitorP {
            watcher: watcher.clone(),
            target: target.clone(),
            reference: reference.clone(),
        },
        None,
    );
    sent(
        &format!("83440068046114{by_pid}"),
        ControlMessage::DemonitorP { watcher: watcher.clone(), target, reference },
        None,
    );
    sent(
        &format!(
            "83440068046113{P}77046563686f5a0003770c7079403132372e302e302e3111223344000003ea0000000700000009"
        ),
        ControlMessage::MonitorP {
            watcher: watcher.clone(),
            target: Target::Name(Atom::new_static("echo")),
            reference: our_ref(0x3ea),
        },
        None,
    );
    sent(
        &format!(
            "8344006804611c{P}58770d6e3235403132372e302e302e3100000057000000006b00bdca5a0003770d6e3235403132372e302e302e316b00bdca00008664f4880001020f6e4a7704676f6e65"
        ),
        ControlMessage::MonitorPExit {
            target: Target::Pid(watcher),
            watcher: theirs(0x57),
            reference: their_ref(&[0x8664, 0xf488_0001, 0x020f_6e4a]),
        },
        Some(atom("gone")),
    );
    sent(
        "8344006804611c77077265676e616d6558770d6e3235403132372e302e302e3100000057000000006b00bdca5a0003770d6e3235403132372e302e302e316b00bdca00008665f4880001020f6e4a77066e6f70726f63",
        ControlMessage::MonitorPExit {
            target: Target::Name(Atom::new_static("regname")),
            watcher: theirs(0x57),
            reference: their_ref(&[0x8665, 0xf488_0001, 0x020f_6e4a]),
        },
        Some(atom("noproc")),
    );
}

#[test]
fn spawns() {
    let to = "58770d6e3235403132372e302e302e3100000047000000006b00bdca";
    let request = format!(
        "83440068 06611d5a0003770c7079403132372e302e302e3111223344000003e90000000700000009{P}{to}6803770264747707737061776e656461026c0000000277046c696e6b77076d6f6e69746f726a6c00000002{P}68027704646f6e6561076a"
    );
    sent(
        &request,
        ControlMessage::SpawnRequest(Box::new(crate::dist::SpawnRequest {
            req_id: our_ref(0x3e9),
            from: ours(0x65),
            group_leader: theirs(0x47),
            module: Atom::new_static("dt"),
            function: Atom::new_static("spawned"),
            arity: 2,
            options: list([atom("link"), atom("monitor")]),
        })),
        Some(list([Term::Pid(ours(0x65)), tuple([atom("done"), Term::Integer(7)])])),
    );
    sent(
        "8344006805611f5a0003770d6e3235403132372e302e302e316b00bdca000086a2f4880001020f6e4a58770d6e3235403132372e302e302e3100000079000000006b00bdca610258770c7079403132372e302e302e31000000690000000011223344",
        ControlMessage::SpawnReply {
            req_id: their_ref(&[0x86a2, 0xf488_0001, 0x020f_6e4a]),
            to: theirs(0x79),
            flags: spawn_reply::MONITOR,
            result: Ok(ours(0x69)),
        },
        None,
    );
    sent(
        "8344006805611f5a0003770d6e3235403132372e302e302e316b00bdca0000869ff4880001020f6e4a58770d6e3235403132372e302e302e3100000078000000006b00bdca610077066e6f74737570",
        ControlMessage::SpawnReply {
            req_id: their_ref(&[0x869f, 0xf488_0001, 0x020f_6e4a]),
            to: theirs(0x78),
            flags: 0,
            result: Err(Atom::new_static("notsup")),
        },
        None,
    );
}

/// Replies on a connection whose first frame put the names of both nodes into the cache.
#[test]
fn spawn_replies_and_results_with_the_atom_cache() {
    let mut inbound = inbound(PY, N25, Flags::HIDDEN);
    let mut next = |frame: &str| {
        let signal = receive(&mut inbound, &hex(frame)).unwrap().pop().unwrap();
        (signal.control, signal.payload.as_ref().map(term))
    };
    next(
        "834403bf0a7b0d6e3235403132372e302e302e312f0c7079403132372e302e302e31cc03796573680361165852000000003d000000006b00bdca58520100000065000000001122334468025a0003520111223344000003e900000007000000095202",
    );
    assert_eq!(
        next(
            "83440273002f7b6805611f5a0003520011223344000003e9000000070000000958520000000065000000001122334461035852010000006b000000006b00bdca"
        ),
        (
            ControlMessage::SpawnReply {
                req_id: our_ref(0x3e9),
                to: ours(0x65),
                flags: spawn_reply::LINK | spawn_reply::MONITOR,
                result: Ok(theirs(0x6b)),
            },
            None
        )
    );
    assert_eq!(
        next(
            "83440283002f54066261646f70746805611f5a0003520011223344000003ea000000070000000958520000000065000000001122334461005201"
        ),
        (
            ControlMessage::SpawnReply {
                req_id: our_ref(0x3ea),
                to: ours(0x65),
                flags: 0,
                result: Err(Atom::new_static("badopt")),
            },
            None
        )
    );
    assert_eq!(
        next(
            "83440337087b2f0a0672657475726e6804611c58520000000077000000006b00bdca5852010000006500000000112233445a0003520111223344000003ec000000070000000968035a0003520111223344000003ec000000070000000952026b0003010203"
        ),
        (
            ControlMessage::MonitorPExit {
                target: Target::Pid(theirs(0x77)),
                watcher: ours(0x65),
                reference: our_ref(0x3ec),
            },
            Some(tuple([reference(our_ref(0x3ec)), atom("return"), list([1, 2, 3].map(Term::Integer))]))
        )
    );
}

#[test]
fn group_leaders() {
    let n25 = Atom::new_static("n25@127.0.0.1");
    let mut inbound = inbound(PY, n25, Flags::HIDDEN);
    // Puts our name into slot 0·256 + 7, where the captured frame expects it.
    receive(&mut inbound, &hex("83440108070c7079403132372e302e302e31680361165852000000003d000000006b00bdca5852000000006500000000112233446101")).unwrap();
    let frame = "834401000768036107585200000000660000000011223344585200000000650000000011223344";
    let signal = receive(&mut inbound, &hex(frame)).unwrap().pop().unwrap();
    assert_eq!(signal.control, ControlMessage::GroupLeader { leader: ours(0x66), pid: ours(0x65) });
}

#[test]
fn pass_through() {
    let minimal = Flags::from_bits(0x4_0307_0F94);
    let mut old = inbound(PY, N25, minimal);
    let send = "708368036102770058770c7079403132372e302e302e3100000065000000001122334483 68027703726578770d6e3235403132372e302e302e31";
    let signal = receive(&mut old, &hex(send)).unwrap().pop().unwrap();
    assert_eq!(signal.control, ControlMessage::Send { from: None, to: ours(0x65) });
    assert_eq!(term(&signal.payload.unwrap()), tuple([atom("rex"), Term::Atom(N25)]));

    let pids = "58770d6e3235403132372e302e302e3100000061000000006b00bdca58770c7079403132372e302e302e3100000065000000001122334477";
    let exit = format!("7083680461 03{pids}03627965");
    let signal = receive(&mut old, &hex(&exit)).unwrap().pop().unwrap();
    assert_eq!(signal.control, ControlMessage::Exit { from: theirs(0x61), to: ours(0x65) });
    assert_eq!(term(&signal.payload.unwrap()), atom("bye"));
    let exit2 = format!("7083680461 08{pids}037a6170");
    let signal = receive(&mut old, &hex(&exit2)).unwrap().pop().unwrap();
    assert_eq!(signal.control, ControlMessage::Exit2 { from: theirs(0x61), to: ours(0x65) });

    // What our side sent.
    let link = format!("7083680361 01{P}58770d6e3235403132372e302e302e3100000055000000006b00bdca");
    let signal = receive(&mut inbound(N25, PY, minimal), &hex(&link)).unwrap().pop().unwrap();
    assert_eq!(write_again(&signal, N25, N25_CREATION, minimal), hex(&link));
    // The same signals as a node without EXIT_PAYLOAD gets them from us.
    for frame in [exit, exit2] {
        let mut signal = receive(&mut old, &hex(&frame)).unwrap().pop().unwrap();
        let reversed = match signal.control {
            ControlMessage::Exit { from, to } => ControlMessage::Exit { from: to, to: from },
            ControlMessage::Exit2 { from, to } => ControlMessage::Exit2 { from: to, to: from },
            other => panic!("{other:?}"),
        };
        signal.control = reversed;
        let written = write_again(&signal, N25, N25_CREATION, minimal);
        assert_eq!(written.len(), hex(&frame).len());
        assert_eq!(written[..5], hex(&frame)[..5]);
    }
}

#[test]
fn a_trace_token_comes_along() {
    let token = "680561006111610158770d6e3239403132372e302e302e3100000057000000006b00bf456100";
    let frame =
        format!("8344006804611758770d6e3239403132372e302e302e3100000057000000006b00bf45{P}{token}6101");
    let signal = receive(&mut inbound(PY, N29, NO_CACHE), &hex(&frame)).unwrap().pop().unwrap();
    let sender = pid(N29, 0x57, 0x6b00_bf45);
    assert_eq!(signal.control, ControlMessage::Send { from: Some(sender.clone()), to: ours(0x65) });
    assert_eq!(
        term(&signal.token.unwrap()),
        tuple([0, 17, 1].map(Term::Integer).into_iter().chain([Term::Pid(sender), Term::Integer(0)]))
    );
    assert_eq!(term(&signal.payload.unwrap()), Term::Integer(1));
}

/// One connection from an OTP 29 node to a visible node, in order.
#[test]
fn a_connection_of_otp_29_with_its_atom_cache() {
    let us = Atom::new_static("rs@127.0.0.1");
    let n29 = |id| pid(N29, id, 0x6b00_bf45);
    let our_pid = pid(us.clone(), 0x65, OUR_CREATION);
    let mut inbound = inbound(us.clone(), N29, Flags::VISIBLE);
    let mut next = |frame: &str| {
        let mut signals = receive(&mut inbound, &hex(frame)).unwrap();
        assert_eq!(signals.len(), 1);
        let signal = signals.pop().unwrap();
        (signal.control, term(&signal.payload.unwrap()))
    };

    let (control, payload) = next(
        "8344048c9d000a0d6e3239403132372e302e302e3105007903726578bd1066656174757265735f72657175657374680461065852000000003b000000006b00bf455201520268025852000000003b000000006b00bf455203",
    );
    assert_eq!(control, ControlMessage::RegSend { from: n29(0x3b), to: Atom::new_static("rex") });
    assert_eq!(payload, tuple([Term::Pid(n29(0x3b)), atom("features_request")]));

    let (control, payload) = next(
        "834409049daa8a0c0a05a812676c6f62616c5f6e616d655f736572766572a1092467656e5f636173741a0c696e69745f636f6e6e6563743b066c6f636b6572990f6e6f5f6c6f6e6765725f615f706964a30d636f6e6e656374696f6e5f6964a80c7273403132372e302e302e31680461065852000000003c000000006b00bf45520152026802520368045204680261086e080191ffffffffffff0752006804520552067400000001680252075208620045ae165852000000003d000000006b00bf45",
    );
    assert_eq!(
        control,
        ControlMessage::RegSend { from: n29(0x3c), to: Atom::new_static("global_name_server") }
    );
    let id = tuple([atom("connection_id"), Term::Atom(us)]);
    let locker = tuple([
        atom("locker"),
        atom("no_longer_a_pid"),
        Term::Map([(id, Term::Integer(4_566_550))].into_iter().collect()),
        Term::Pid(n29(0x3d)),
    ]);
    let versions = tuple([Term::Integer(8), Term::Integer(-576_460_752_303_423_377)]);
    let init_connect = tuple([atom("init_connect"), versions, Term::Atom(N29), locker]);
    assert_eq!(payload, tuple([atom("$gen_cast"), init_connect]));

    let echo = |value| tuple([atom("echo"), tuple([atom("ok"), Term::Integer(value)])]);
    let send = ControlMessage::Send { from: Some(n29(0x232)), to: our_pid };
    let first = "834404449b000aa864046563686ffa026f6b6803611658520000000232000000006b00bf4558520100000065000000001122334468025202680252036101";
    assert_eq!(next(first), (send.clone(), echo(1)));
    let second = "8344044413000aa864fa6803611658520000000232000000006b00bf4558520100000065000000001122334468025202680252036102";
    assert_eq!(next(second), (send.clone(), echo(2)));
    let long = format!(
        "83440444c3010aa864aa010e{}6803611658520000000232000000006b00bf45585201000000650000000011223344680252025203",
        "e282ac".repeat(90)
    );
    assert_eq!(next(&long), (send, tuple([atom("echo"), atom(&"€".repeat(90))])));
}

#[test]
fn a_cached_send_of_ours_as_a_beam_took_it() {
    let mut at_the_peer = inbound(N25, PY, Flags::HIDDEN);
    for frame in [
        "8344058fe8094b0c7079403132372e302e302e31000032046563686f860568656c6c6f4305776f726c64680461065852000000006500000000112233445201520268025852000000006500000000112233446c00000002520352046a",
        "8344050760014b00328643680461065852000000006500000000112233445201520268025852000000006500000000112233446c00000002520352046a",
    ] {
        let signal = receive(&mut at_the_peer, &hex(frame)).unwrap().pop().unwrap();
        assert_eq!(
            signal.control,
            ControlMessage::RegSend { from: ours(0x65), to: Atom::new_static("echo") }
        );
        let hello_world = list([atom("hello"), atom("world")]);
        assert_eq!(term(&signal.payload.unwrap()), tuple([Term::Pid(ours(0x65)), hello_world]));
    }
}

/// `{rex, <<200 KiB>>}` from an OTP 29 node: four frames of 65591, 65554, 65554 and 8253 bytes.
#[test]
fn fragments_of_otp_29() {
    let from = pid(N29, 0x5d, 0x6b00_bf45);
    let to = ours(0x65);
    let control = "680361165852000000005d000000006b00bf45585201000000650000000011223344";
    let header =
        "039c0d0a0d6e3239403132372e302e302e31810c7079403132372e302e302e3179 03726578".replace(' ', "");
    let payload_head = "680252026d00032000";
    let binary: Vec<u8> = (0..200 * 1024).map(|n| b'a' + (n % 26) as u8).collect();
    let message: Vec<u8> = [hex(control), hex(payload_head), binary.clone()].concat();
    let frames: Vec<Vec<u8>> = message
        .chunks(65_536)
        .zip((1..=4u64).rev())
        .map(|(part, number)| {
            let first = number == 4;
            let mut frame = vec![131, if first { 69 } else { 70 }];
            frame.extend(0x2e83u64.to_be_bytes());
            frame.extend(number.to_be_bytes());
            if first {
                frame.extend(hex(&header));
            }
            frame.extend(part);
            frame
        })
        .collect();
    let lengths: Vec<usize> = frames.iter().map(Vec::len).collect();
    assert_eq!(lengths, [65_591, 65_554, 65_554, 8_253]);

    // Side by side, and with a tick behind each: then they are put together in a buffer of their own.
    for between in [&[][..], &[0; 4]] {
        let (mut inbound, mut input, mut open) =
            (inbound(PY, N29, Flags::HIDDEN), BytesMut::new(), Vec::new());
        let mut signals = Vec::new();
        for frame in &frames {
            input.extend_from_slice(&framed(frame));
            input.extend_from_slice(between);
            inbound.handle_input(Mono::ZERO, &mut input);
            signals.extend(inbound.poll_signal().unwrap());
            open.push(inbound.open_sequences());
        }
        assert_eq!(open, if between.is_empty() { [0; 4] } else { [1, 1, 1, 0] });
        let signal = signals.pop().unwrap();
        assert!(signals.is_empty() && input.is_empty());
        assert_eq!(signal.control, ControlMessage::Send { from: Some(from.clone()), to: to.clone() });
        let expected = tuple([atom("rex"), Term::Binary(binary.clone().into())]);
        assert_eq!(term(&signal.payload.unwrap()), expected);
    }
}

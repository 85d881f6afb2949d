//! What OTP's `distribution_SUITE` sends to break a connection, case by case, and the strictness of BEAM receivers.

use super::*;

const OFFENDER: Atom = N29;

/// The process of the peer that stands where OTP's test puts `self()`.
fn offender() -> Term {
    Term::Pid(pid(OFFENDER, 0x57, N25_CREATION))
}

fn victim() -> Term {
    Term::Pid(pid(PY, 0x65, OUR_CREATION))
}

fn make_ref() -> Term {
    Term::Reference(Box::new(Reference::new(OFFENDER, N25_CREATION, &[1, 2, 3]).unwrap()))
}

fn frame(control: &Term, payload: Option<&[u8]>) -> Vec<u8> {
    let mut frame = vec![131, 68, 0];
    frame.extend(encoded(control));
    frame.extend(payload.unwrap_or_default());
    frame
}

fn control(opcode: i64, elements: impl IntoIterator<Item = Term>) -> Term {
    tuple([Term::Integer(opcode)].into_iter().chain(elements))
}

/// What a message to the victim costs: nothing, before and after.
fn outcome(frames: &[Vec<u8>]) -> Result<Vec<Signal>> {
    let mut inbound = inbound(PY, OFFENDER, NO_CACHE);
    let mut signals = Vec::new();
    for frame in frames {
        signals.extend(receive(&mut inbound, frame)?);
    }
    Ok(signals)
}

fn bad_control(op: &'static str, why: &'static str) -> Error {
    Error::bad_control(op, why)
}

/// `bad_dist_structure`: 33 control tuples that are terms, but no control messages. Each is a test of its own, so that whoever
/// lists the tests sees them.
mod bad_dist_structure {
    use super::*;

    const ARITY: &str = "wrong arity";
    const NO_PID: &str = "not a pid where one belongs";
    const NO_ATOM: &str = "not an atom where one belongs";
    const NO_REF: &str = "not a reference where one belongs";

    fn o() -> Term {
        offender()
    }

    fn p() -> Term {
        victim()
    }

    fn normal() -> Term {
        atom("normal")
    }

    fn cookie() -> Term {
        atom("")
    }

    fn check(tuple: Term, op: &'static str, why: &'static str) {
        let message = encoded(&super::tuple([atom("message")]));
        let error = outcome(&[frame(&tuple, Some(&message))]).unwrap_err();
        assert_eq!(error, bad_control(op, why));
    }

    macro_rules! structures {
        ($($name:ident: $tuple:expr, $op:literal, $why:expr;)*) => {
            $(
                #[test]
                fn $name() {
                    check($tuple, $op, $why);
                }
            )*
        };
    }

    structures! {
        case_01_monitor_p_exit: control(21, [o(), p(), normal()]), "MONITOR_P_EXIT", ARITY;
        case_02_monitor_p_exit: control(21, [o(), p(), normal(), normal()]), "MONITOR_P_EXIT", NO_REF;
        case_03_link: control(1, []), "LINK", ARITY;
        case_04_unlink: control(4, [o()]), "UNLINK", ARITY;
        case_05_unlink: control(4, [o(), make_ref()]), "UNLINK", NO_PID;
        case_06_unlink: control(4, [make_ref(), p()]), "UNLINK", NO_PID;
        case_07_unlink: control(4, [normal(), normal()]), "UNLINK", NO_PID;
        case_08_monitor_p: control(19, [o(), p()]), "MONITOR_P", ARITY;
        case_09_monitor_p: control(19, [o(), p(), normal()]), "MONITOR_P", NO_REF;
        case_10_demonitor_p: control(20, [o(), p()]), "DEMONITOR_P", ARITY;
        case_11_demonitor_p: control(20, [o(), p(), normal()]), "DEMONITOR_P", NO_REF;
        case_12_exit: control(3, [o(), p()]), "EXIT", ARITY;
        case_13_exit: control(3, [make_ref(), normal(), normal()]), "EXIT", NO_PID;
        case_14_exit_tt: control(13, [o(), atom("token"), p()]), "EXIT_TT", ARITY;
        case_15_exit_tt: control(13, [make_ref(), atom("token"), normal(), normal()]), "EXIT_TT", NO_PID;
        case_16_exit2: control(8, [o(), p()]), "EXIT2", ARITY;
        case_17_exit2: control(8, [make_ref(), normal(), normal()]), "EXIT2", NO_PID;
        case_18_exit2_tt: control(18, [o(), atom("token"), p()]), "EXIT2_TT", ARITY;
        case_19_exit2_tt: control(18, [make_ref(), atom("token"), normal(), normal()]), "EXIT2_TT", NO_PID;
        case_20_group_leader: control(7, [o()]), "GROUP_LEADER", ARITY;
        case_21_group_leader: control(7, [o(), atom("atomic")]), "GROUP_LEADER", NO_PID;
        case_22_group_leader: control(7, [atom("replace"), p()]), "GROUP_LEADER", NO_PID;
        case_23_reg_send_tt: control(16, [o(), cookie(), atom("name")]), "REG_SEND_TT", ARITY;
        case_24_reg_send_tt: control(16, [atom("replace"), cookie(), atom("name"), atom("token")]), "REG_SEND_TT", NO_PID;
        case_25_reg_send: control(6, [o(), cookie()]), "REG_SEND", ARITY;
        case_26_reg_send: control(6, [atom("replace"), cookie(), p()]), "REG_SEND", NO_PID;
        case_27_reg_send: control(6, [atom("replace"), cookie(), atom("name")]), "REG_SEND", NO_PID;
        case_28_reg_send: control(6, [o(), cookie(), atom("name"), tuple([atom("token")])]), "REG_SEND", ARITY;
        case_29_send_tt: control(12, [cookie(), p()]), "SEND_TT", ARITY;
        case_30_send_tt: control(12, [cookie(), atom("name"), atom("token")]), "SEND_TT", NO_PID;
        case_31_send: control(2, [cookie()]), "SEND", ARITY;
        case_32_send: control(2, [cookie(), atom("name")]), "SEND", NO_PID;
        case_33_send: control(2, [cookie(), p(), tuple([atom("token")])]), "SEND", ARITY;
    }

    #[test]
    fn a_pid_for_a_registered_name() {
        check(control(6, [o(), cookie(), p()]), "REG_SEND", NO_ATOM);
    }
}

/// A first or further fragment of sequence 77.
fn fragment(number: u64, control: Option<&Term>, part: &[u8]) -> Vec<u8> {
    let mut frame = vec![131, if control.is_some() { 69 } else { 70 }];
    frame.extend(77u64.to_be_bytes());
    frame.extend(number.to_be_bytes());
    if let Some(control) = control {
        frame.push(0);
        frame.extend(encoded(control));
    }
    frame.extend(part);
    frame
}

/// `bad_dist_fragments`: 8 sequences of fragments that cannot be.
mod bad_dist_fragments {
    use super::*;

    fn message() -> (Vec<u8>, Vec<u8>) {
        let mut start = encoded(&Term::List([255; 255].map(Term::Integer).into_iter().collect()));
        let end = start.split_off(10);
        (start, end)
    }

    fn send() -> Term {
        control(2, [atom(""), victim()])
    }

    fn fails(frames: &[Vec<u8>], error: Error) {
        assert_eq!(outcome(frames).unwrap_err(), error);
    }

    fn bad(why: &'static str) -> Error {
        Error::PeerMisbehaved(PeerMisbehaved::BadFragment(why))
    }

    fn unknown_tag(tag: u8) -> Error {
        Error::malformed("term", 0, Problem::UnknownTag(tag))
    }

    #[test]
    fn a_continuation_of_nothing() {
        fails(&[fragment(1, None, &message().1)], bad("unknown sequence"));
    }

    #[test]
    fn a_fragment_is_missing() {
        let (start, end) = message();
        fails(&[fragment(3, Some(&send()), &start), fragment(1, None, &end)], bad("out of order"));
    }

    #[test]
    fn the_same_sequence_twice() {
        let first = fragment(3, Some(&send()), &message().0);
        fails(&[first.clone(), first], bad("the sequence is open already"));
    }

    #[test]
    fn a_bad_control_message_in_a_single_fragment() {
        let broken = control(2, [atom(""), victim(), atom("broken")]);
        fails(&[fragment(1, Some(&broken), &message().1)], bad_control("SEND", "wrong arity"));
    }

    /// Nothing was delivered, and nothing is kept.
    #[test]
    fn an_unfinished_sequence_and_a_closed_socket() {
        assert!(outcome(&[fragment(3, Some(&send()), &message().1)]).unwrap().is_empty());
    }

    #[test]
    fn an_exit_with_a_reason_that_is_no_term() {
        fails(&[fragment(1, Some(&control(24, [offender(), victim()])), &[131])], unknown_tag(131));
    }

    #[test]
    fn an_exit2_with_a_reason_that_is_no_term() {
        fails(&[fragment(1, Some(&control(26, [offender(), victim()])), &[132])], unknown_tag(132));
    }

    #[test]
    fn a_down_with_a_reason_that_is_no_term() {
        let down = control(28, [offender(), victim(), make_ref()]);
        fails(&[fragment(1, Some(&down), &[133])], unknown_tag(133));
    }
}

/// The payloads of the `bad_dist_ext_…` cases. A BEAM looks at a payload when somebody wants it; here it is checked when it
/// arrives, so whoever would have looked makes no difference, and no connection that came later can be blamed.
mod bad_dist_ext {
    use super::*;

    fn fails(payload: &[u8], error: Error) {
        let send = control(2, [atom(""), victim()]);
        assert_eq!(outcome(&[frame(&send, Some(payload))]).unwrap_err(), error);
    }

    fn bad_reference() -> Error {
        Error::malformed("ATOM_CACHE_REF", 0, Problem::OutOfRange("atom cache reference"))
    }

    fn unknown_tag() -> Error {
        Error::malformed("term", 0, Problem::UnknownTag(b'?'))
    }

    #[test]
    fn bad_dist_ext_receive() {
        fails(&[b'R', 137], bad_reference());
        fails(&[b'?', 66], unknown_tag());
    }

    /// Messages in the queue of a process that is looked at from outside.
    #[test]
    fn bad_dist_ext_process_info() {
        fails(&[b'R', 137], bad_reference());
        fails(b"?", unknown_tag());
    }

    /// The heap of a process is measured, with what is in its queue.
    #[test]
    fn bad_dist_ext_size() {
        fails(&[b'R', 137], bad_reference());
        fails(&[b'?', 0], unknown_tag());
    }

    #[test]
    fn bad_dist_ext_control() {
        let header = Error::malformed("distribution header", 3, Problem::Truncated);
        assert_eq!(outcome(&[vec![131, 68, 255]]).unwrap_err(), header);
    }

    /// The error ends the machine of its own connection; the one of the next does not know of it.
    #[test]
    fn bad_dist_ext_connection_id() {
        let send = control(2, [atom(""), victim()]);
        let mut old = inbound(PY, OFFENDER, NO_CACHE);
        let mut new = inbound(PY, OFFENDER, NO_CACHE);
        assert_eq!(receive(&mut old, &frame(&send, Some(&[b'?', 66]))).unwrap_err(), unknown_tag());
        let good = encoded(&atom("good"));
        assert_eq!(receive(&mut new, &frame(&send, Some(&good))).unwrap().len(), 1);
        assert!(receive(&mut old, &frame(&send, Some(&good))).is_err(), "it stays ended");
    }

    #[test]
    fn bad_dist_spawn_request_arg_list() {
        let options = Term::nil();
        let what = tuple([atom("erlang"), atom("self"), Term::Integer(1)]);
        let request = control(29, [make_ref(), offender(), offender(), what, options]);
        assert_eq!(outcome(&[frame(&request, Some(&[b'?', 66]))]).unwrap_err(), unknown_tag());
    }
}

/// What closes the connection of a BEAM closes ours.
#[test]
fn closed_by_a_beam() {
    let third = || Term::Pid(pid(Atom::new_static("third@host"), 1, 1));
    let forged = |op| Error::PeerMisbehaved(PeerMisbehaved::ForgedOrigin(op));
    let elsewhere = "the receiver is on a third node";
    let (o, p) = (offender, victim);
    let name = || atom("name");
    let reason = encoded(&atom("bye"));
    for (case, error) in [
        (control(1, [third(), p()]), forged("LINK")),
        (control(1, [o(), third()]), bad_control("LINK", elsewhere)),
        (control(24, [third(), p()]), forged("PAYLOAD_EXIT")),
        (control(24, [o(), third()]), bad_control("PAYLOAD_EXIT", elsewhere)),
        (control(26, [third(), p()]), forged("PAYLOAD_EXIT2")),
        (control(35, [Term::Integer(1), third(), p()]), forged("UNLINK_ID")),
        (control(36, [Term::Integer(1), third(), p()]), forged("UNLINK_ID_ACK")),
        (control(35, [Term::Integer(0), o(), p()]), bad_control("UNLINK_ID", "the id is out of range")),
        (control(35, [Term::Integer(-1), o(), p()]), bad_control("UNLINK_ID", "the id is out of range")),
        (control(19, [third(), p(), make_ref()]), forged("MONITOR_P")),
        (control(19, [o(), third(), make_ref()]), bad_control("MONITOR_P", elsewhere)),
        (control(20, [third(), name(), make_ref()]), forged("DEMONITOR_P")),
        (control(28, [third(), p(), make_ref()]), forged("PAYLOAD_MONITOR_P_EXIT")),
        (control(37, [Term::Integer(17), third(), p()]), forged("ALTACT_SIG_SEND")),
        (control(37, [Term::Integer(2), o(), p()]), bad_control("ALTACT_SIG_SEND", "the token is missing")),
        (control(99, [o(), p()]), bad_control("unknown", "no such operation")),
        (control(5, []), bad_control("unknown", "no such operation")),
        (control(1 << 40, []), bad_control("unknown", "no such operation")),
        (tuple([]), bad_control("unknown", "no such operation")),
        (atom("ok"), bad_control("unknown", "not a tuple")),
        (
            control(6, [Term::Integer(1), atom(""), name()]),
            bad_control("REG_SEND", "not a pid where one belongs"),
        ),
    ] {
        assert_eq!(outcome(&[frame(&case, Some(&reason))]).unwrap_err(), error, "{case:?}");
    }
    let no_payload = outcome(&[frame(&control(22, [o(), p()]), None)]).unwrap_err();
    assert_eq!(no_payload, Error::malformed("term", 0, Problem::Truncated));
    for bad in
        ["6c00000002", "467ff8000000000000", "50000000", "836101", "7400000002610161026101 6103", "7700 ff"]
    {
        let frame = frame(&control(22, [o(), p()]), Some(&hex(bad)));
        assert_eq!(outcome(&[frame]).is_ok(), bad == "7700 ff", "{bad}");
    }
}

/// What a BEAM bears, and what only we bear: signals to an earlier incarnation of this node.
#[test]
fn delivered_or_left_to_the_node() {
    let third = || Term::Pid(pid(Atom::new_static("third@host"), 1, 1));
    let stale = || Term::Pid(pid(PY, 0x65, 5));
    let (o, p) = (offender, victim);
    let message = encoded(&atom("hello"));
    let huge = hex("6e0c00 010000000000000000000001");
    for case in [
        control(22, [third(), p()]),
        control(22, [o(), third()]),
        control(22, [o(), stale()]),
        control(2, [Term::Integer(1), p()]),
        control(6, [third(), atom(""), atom("name")]),
        control(24, [o(), stale()]),
        control(26, [o(), stale()]),
        control(35, [Term::Integer(1), o(), stale()]),
        control(36, [Term::Integer(1), o(), stale()]),
        control(4, [o(), p()]),
        control(1, [o(), stale()]),
        control(19, [o(), stale(), make_ref()]),
        control(28, [o(), stale(), make_ref()]),
        control(28, [atom("name"), p(), make_ref()]),
        control(33, [third(), make_ref()]),
        control(37, [Term::Integer(1 << 40), o(), p()]),
        control(37, [Term::Integer(0), o(), p(), atom("from"), atom("the future")]),
    ] {
        let signals =
            outcome(&[frame(&case, Some(&message))]).unwrap_or_else(|error| panic!("{case:?}: {error}"));
        assert_eq!(signals.len(), 1, "{case:?}");
    }

    // Flags beyond 64 bits.
    let mut altact = hex("834400680461 25");
    altact.extend(huge);
    altact.extend(encoded(&o()));
    altact.extend(encoded(&p()));
    altact.extend(&message);
    let signal = outcome(&[altact]).unwrap().pop().unwrap();
    assert!(matches!(signal.control, ControlMessage::Altact { flags: 1, .. }), "{signal:?}");

    // Bytes behind the payload are ignored, and not kept.
    let trailing = frame(&control(22, [o(), p()]), Some(&[97, 1, 0xff, 0xff]));
    let signal = outcome(&[trailing]).unwrap().pop().unwrap();
    assert_eq!(signal.payload.unwrap().as_bytes()[..], [97, 1]);
}

/// Single fragments, and a sequence number that means none.
#[test]
fn unusual_fragments_that_a_beam_takes() {
    let send = control(22, [offender(), victim()]);
    let whole = fragment(1, Some(&send), &[97, 1]);
    assert_eq!(outcome(&[whole.clone(), whole]).unwrap().len(), 2);
    let mut numberless = fragment(1, Some(&send), &[97, 1]);
    numberless[2..10].fill(0);
    assert_eq!(outcome(&[numberless]).unwrap().len(), 1);
    let mut several = fragment(2, Some(&send), &[97, 1]);
    several[2..10].fill(0);
    assert!(outcome(&[several]).is_err());
}

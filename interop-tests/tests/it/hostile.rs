//! Peers that mean harm or are broken: their own connection ends with a reason, everybody else goes on, and memory stays.

use std::fs;
use std::time::Duration;

use foundation_interop_tests::raw_peer::{Accepted, FLAGS, RawPeer, atom, binary, digest, tuple};
use foundation_interop_tests::{Beam, Case, Epmd, beam, case, eventually};
use foundation_node::event::Event;
use foundation_node::net_kernel::NodeType;

use crate::rust::{Rust, WAIT, next};

const TOPIC: &str = "hostile peers";
const SOON: Duration = Duration::from_secs(5);

/// A Rust node, a well-behaved BEAM connected to it, and the port to attack.
struct Scene {
    rust: Rust,
    beam: Beam,
    port: u16,
    _epmd: Epmd,
}

impl Scene {
    fn new(release: &foundation_interop_tests::Release) -> Self {
        let epmd = Epmd::start(release);
        let rust = Rust::start(&epmd, "rust");
        let beam = Beam::visible(release, &epmd, "good");
        assert_eq!(beam.eval("net_adm:ping('rust@127.0.0.1')"), "pong");
        let port = epmd.wait_for("rust");
        Self { rust, beam, port, _epmd: epmd }
    }

    fn accepted(&self, name: &str) -> RawPeer {
        let mut peer = RawPeer::connect(self.port, name);
        assert_eq!(peer.handshake(FLAGS, beam::COOKIE), Accepted::Yes);
        let connected =
            || self.rust.node.nodes(NodeType::Hidden).iter().any(|node| node == name).then_some(());
        eventually("the peer is connected", SOON, connected);
        peer
    }

    /// The well-behaved peer never noticed anything.
    fn others_are_well(&self) {
        assert_eq!(self.beam.eval("net_adm:ping('rust@127.0.0.1')"), "pong");
        assert_eq!(self.beam.eval("nodes(hidden)"), "['rust@127.0.0.1']");
    }
}

/// This process's resident memory, in bytes.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<usize>().ok()).unwrap() << 10
}

#[test]
fn handshakes() {
    case(
        Case::Full,
        TOPIC,
        "truncated, mutated and wrong handshakes are refused; the node goes on",
        |release| {
            let scene = Scene::new(release);
            let good = RawPeer::connect(scene.port, "bad@127.0.0.1");
            let name = good.name_message(FLAGS);
            let framed = [&(name.len() as u16).to_be_bytes()[..], &name].concat();

            // Every prefix of the first message, then nothing or the end of the connection.
            for end in 0..framed.len() {
                let mut peer = RawPeer::connect(scene.port, "bad@127.0.0.1");
                peer.send_bytes(&framed[..end]).unwrap();
            }
            // Every byte of it changed. What is accepted goes no further than the cookie.
            for at in 0..framed.len() {
                for flip in [0x01, 0x80, 0xff] {
                    let mut bytes = framed.clone();
                    bytes[at] ^= flip;
                    let mut peer = RawPeer::connect(scene.port, "bad@127.0.0.1");
                    peer.send_bytes(&bytes).unwrap();
                    peer.send_message(&[&[b'r'][..], &[0; 20]].concat()).unwrap();
                }
            }
            // A wrong cookie, a wrong digest, our own challenge sent back, a name without a host, too few flags.
            let mut peer = RawPeer::connect(scene.port, "bad@127.0.0.1");
            assert_eq!(peer.handshake(FLAGS, "xyzzy"), Accepted::Closed);
            let mut peer = RawPeer::connect(scene.port, "nohost");
            assert_ne!(peer.handshake(FLAGS, beam::COOKIE), Accepted::Yes);
            let mut peer = RawPeer::connect(scene.port, "bad@127.0.0.1");
            assert_ne!(peer.handshake(0x4, beam::COOKIE), Accepted::Yes);
            let mut peer = RawPeer::connect(scene.port, "rust@127.0.0.1");
            assert_ne!(peer.handshake(FLAGS, beam::COOKIE), Accepted::Yes, "its own name");
            let mut peer = RawPeer::connect(scene.port, "bad@127.0.0.1");
            peer.send_message(&peer.name_message(FLAGS)).unwrap();
            assert_eq!(peer.read_message().unwrap(), b"sok");
            let challenge = peer.read_message().unwrap();
            let theirs = u32::from_be_bytes(challenge[9..13].try_into().unwrap());
            let mut reflected = vec![b'r'];
            reflected.extend(theirs.to_be_bytes());
            reflected.extend(digest(beam::COOKIE, theirs));
            peer.send_message(&reflected).unwrap();
            assert!(peer.is_closed_within(SOON), "a reflected challenge");
            // TLS and HTTP at a plain port.
            for hello in
                [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"]
            {
                let mut peer = RawPeer::connect(scene.port, "bad@127.0.0.1");
                peer.send_bytes(hello).unwrap();
                assert!(peer.is_closed_within(Duration::from_secs(10)));
            }
            scene.others_are_well();
            assert_eq!(scene.rust.node.nodes(NodeType::Connected), ["good@127.0.0.1"]);
            Ok(())
        },
    );
}

/// Frames that a correct node never sends.
fn bad_frames(peer: &RawPeer) -> Vec<(&'static str, Vec<u8>)> {
    let us = peer.pid(101);
    let send = |payload: &[u8]| peer.reg_send("inbox", payload);
    let control = |elements: &[&[u8]]| RawPeer::frame(&tuple(elements), &[]);
    let nested = [[108, 0, 0, 0, 1].repeat(10_000_000), vec![106; 10_000_001]].concat();
    vec![
        ("list of 2^32-1 elements", send(&[108, 255, 255, 255, 255])),
        ("tuple of 2^32-1 elements", send(&[105, 255, 255, 255, 255])),
        ("map of 2^32-1 pairs", send(&[116, 255, 255, 255, 255])),
        ("binary of 2^32-1 bytes", send(&[109, 255, 255, 255, 255])),
        ("integer of 2^32-1 bytes", send(&[111, 255, 255, 255, 255, 0])),
        (
            "fun of 2^32-1 free variables",
            send(&[&[112, 0, 0, 0, 40, 0][..], &[7; 16], &[0, 0, 0, 1, 255, 255, 255, 255]].concat()),
        ),
        ("10,000,000 nested lists", send(&nested)),
        ("compressed payload", send(&[80, 0, 0, 0, 103, 0x78, 0x9c, 0xcb, 0x66, 0x48, 0x49])),
        ("unknown tag", send(&[1])),
        ("NaN", send(&[70, 0x7f, 0xf8, 0, 0, 0, 0, 0, 1])),
        ("map with equal keys", send(&[116, 0, 0, 0, 2, 97, 1, 97, 1, 97, 1, 97, 2])),
        ("no payload", peer.reg_send("inbox", &[])),
        ("empty tuple as control", RawPeer::frame(&[104, 0], &[])),
        ("control that is no tuple", RawPeer::frame(&[97, 1], &[])),
        ("unknown operation", control(&[&[97, 99]])),
        ("LINK with too few elements", control(&[&[97, 1], &us])),
        ("LINK from an atom", control(&[&[97, 1], &atom("a"), &us])),
        (
            "EXIT in the name of another node",
            control(&[&[97, 3], &RawPeer::foreign_pid("other@127.0.0.1"), &us, &atom("boo")]),
        ),
        ("reference into an empty atom cache", vec![131, 68, 1, 0x01, 7, 104, 0]),
        ("frame that begins with neither 131 nor 112", vec![1, 2, 3]),
        (
            "continuation of an unknown fragment",
            [&[131, 70][..], &[0; 7], &[9], &[0; 7], &[1], &[1]].concat(),
        ),
        (
            "fragment number 2^64-1",
            [
                &[131, 69][..],
                &[0; 7],
                &[9],
                &[255; 8],
                &[0],
                &tuple(&[&[97, 6], &us, &atom(""), &atom("inbox")]),
            ]
            .concat(),
        ),
        ("garbage after the header", [vec![131, 68, 255], vec![0xaa; 300]].concat()),
        ("string that claims more than is there", send(&[107, 255, 255, 1])),
        ("a valid message that is cut", {
            let mut f = send(&binary(&[0; 100]));
            f.truncate(f.len() - 1);
            f
        }),
    ]
}

#[test]
fn frames() {
    case(
        Case::Full,
        TOPIC,
        "allocation bombs, deep nesting, malformed frames and control messages cost the sender its connection",
        |release| {
            let scene = Scene::new(release);
            let mut inbox = scene.rust.node.mailbox("inbox").unwrap();
            let before = resident();
            let mut events = scene.rust.node.events();
            let count = bad_frames(&RawPeer::connect(scene.port, "x@127.0.0.1")).len();
            for index in 0..count {
                let name = format!("bad{index}@127.0.0.1");
                let mut peer = scene.accepted(&name);
                let (what, frame) = bad_frames(&peer).swap_remove(index);
                let _ = peer.send_frame(&frame);
                assert!(peer.is_closed_within(SOON), "OTP {}: still connected after: {what}", release.number);
                loop {
                    if let Some(Event::NodeDown { node, .. }) = scene.rust.run(events.next())
                        && node == name.as_str()
                    {
                        break;
                    }
                }
            }
            // Frame lengths of 4 GB and 2 GB, with a little of what was promised.
            for (index, length) in [0xffff_ffff_u32, 0x7fff_ffff, 0x1000_0000].into_iter().enumerate() {
                let mut peer = scene.accepted(&format!("long{index}@127.0.0.1"));
                peer.send_bytes(&length.to_be_bytes()).unwrap();
                let _ = peer.send_bytes(&[131; 1000]);
                assert!(peer.is_closed_within(SOON), "a frame of {length} bytes");
            }
            scene.others_are_well();
            scene.beam.eval("{inbox, 'rust@127.0.0.1'} ! still_here");
            assert_eq!(
                scene.rust.run(next(&mut inbox)),
                "still_here",
                "nothing of the bad peers was delivered"
            );
            let grown = resident().saturating_sub(before);
            // Other tests run in this process: a bound on the order of magnitude. One list of 2^32-1 would be 240 GB.
            assert!(grown < 512 << 20, "memory has grown by {} MiB", grown >> 20);
            println!("{} bad frames; memory has grown by {} MiB", count + 3, grown >> 20);
            Ok(())
        },
    );
}

#[test]
fn what_a_beam_ignores_is_ignored() {
    case(
        Case::Full,
        TOPIC,
        "messages to nobody, unknown references and stale incarnations leave the connection up",
        |release| {
            let scene = Scene::new(release);
            let mut inbox = scene.rust.node.mailbox("inbox").unwrap();
            let mut peer = scene.accepted("odd@127.0.0.1");
            let (us, reference) = (peer.pid(101), peer.reference(1));
            let theirs = |id: u32, creation: u32| {
                let mut pid = vec![88];
                pid.extend(atom("rust@127.0.0.1"));
                for number in [id, 0, creation] {
                    pid.extend(number.to_be_bytes());
                }
                pid
            };
            let frames = [
                peer.reg_send("nobody", &atom("lost")),
                RawPeer::frame(&tuple(&[&[97, 2], &atom(""), &theirs(30_000, 1)]), &atom("lost")),
                RawPeer::frame(
                    &tuple(&[&[97, 22], &us, &theirs(30_000, scene.rust.node.creation())]),
                    &atom("lost"),
                ),
                RawPeer::frame(&tuple(&[&[97, 20], &us, &theirs(1, 7), &reference]), &[]),
                RawPeer::frame(
                    &tuple(&[&[97, 24], &us, &theirs(30_000, scene.rust.node.creation())]),
                    &atom("reason"),
                ),
                RawPeer::frame(
                    &tuple(&[&[97, 36], &[97, 9], &us, &theirs(30_000, scene.rust.node.creation())]),
                    &[],
                ),
                Vec::new(), // a tick
                // Bytes after the payload.
                [peer.reg_send("inbox", &atom("first")), vec![0, 0, 0]].concat(),
                peer.reg_send("inbox", &atom("last")),
            ];
            for frame in frames {
                peer.send_frame(&frame).unwrap();
            }
            assert_eq!(scene.rust.run(next(&mut inbox)), "first");
            assert_eq!(scene.rust.run(next(&mut inbox)), "last");
            // Asked for a monitor of nobody, it answers at once.
            peer.send_frame(&RawPeer::frame(&tuple(&[&[97, 19], &us, &atom("nobody"), &reference]), &[]))
                .unwrap();
            let answer =
                eventually("an answer", WAIT, || peer.read_frame().ok().filter(|frame| !frame.is_empty()));
            assert!(answer.windows(6).any(|window| window == b"noproc"), "{answer:?}");
            Ok(())
        },
    );
}

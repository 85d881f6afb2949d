//! Frames as a peer would send them, given to a node in reads of any size.

use std::io::IoSlice;

use bytes::BytesMut;
use foundation_cluster::sim::Random;
use foundation_proto::dist::{ChannelConfig, ControlMessage, Lane, LaneClass, Outbound, Target};
use foundation_proto::etf::{Atom, Pid, RawTerm, Reference, Term};
use foundation_proto::{Error, Limits, Mono};

use super::*;
use crate::node::Node;
use crate::process::{AliasKind, MailboxLimit, Message, Process, SpawnOptions};
use crate::signal::tests::pair;

/// Node `b` as the other end of a connection of `a`, as far as its bytes go.
struct Far {
    outbound: Outbound,
    inbound: Inbound,
    buffer: BytesMut,
    b: Pid,
}

impl Far {
    fn new(a: &Node, b: &Node, link: &Link) -> Self {
        let flags = link.peer().flags;
        let config = |us: &Node, them: &Node| {
            let mut config =
                ChannelConfig::new(us.name().clone(), them.name().clone(), them.creation(), flags);
            config.limits.max_queued = usize::MAX;
            config
        };
        Self {
            outbound: Outbound::new(&config(b, a), Mono::ZERO),
            inbound: Inbound::new(&config(a, b), Mono::ZERO),
            buffer: BytesMut::new(),
            b: b.pid().clone(),
        }
    }

    /// A process of `b` that does not have to be there.
    fn pid(&self, id: u32) -> Pid {
        Pid { id: 1000 + id, serial: 0, ..self.b.clone() }
    }

    fn send(&mut self, from: u32, control: &ControlMessage, payload: Option<Term>) {
        let payload = payload.map(|term| RawTerm::from_term(&term).unwrap());
        let lane = Lane { sender: u64::from(from), class: LaneClass::Normal };
        let _queued = self.outbound.send(control, payload.as_ref(), lane).unwrap();
    }

    fn message(&mut self, from: u32, to: &Pid, message: impl Into<Term>) {
        let control = ControlMessage::Send { from: Some(self.pid(from)), to: to.clone() };
        self.send(from, &control, Some(message.into()));
    }

    /// The bytes of everything sent so far.
    fn bytes(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        loop {
            let mut slices = [IoSlice::new(&[]); 8];
            let filled = self.outbound.poll_transmit(Mono::ZERO, &mut slices);
            let taken: usize = slices[..filled].iter().map(|slice| slice.len()).sum();
            if taken == 0 {
                return bytes;
            }
            for slice in &slices[..filled] {
                bytes.extend_from_slice(slice);
            }
            self.outbound.advance(taken);
        }
    }

    /// One read that has brought these bytes.
    fn read(&mut self, a: &Node, link: &Arc<Link>, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        self.inbound.handle_input(Mono::ZERO, &mut self.buffer);
        deliver_all(a.inner(), link, &mut self.inbound)
    }

    /// The same, one signal after the other.
    fn read_singly(&mut self, a: &Node, link: &Arc<Link>, bytes: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(bytes);
        self.inbound.handle_input(Mono::ZERO, &mut self.buffer);
        while let Some(signal) = self.inbound.poll_signal()? {
            super::super::deliver(a.inner(), link, signal)?;
        }
        Ok(())
    }
}

/// Takes out what is in the mailbox.
async fn drain(process: &mut Process) -> Vec<String> {
    let mut all = Vec::new();
    while process.mailbox_len() > 0 {
        all.push(match process.recv().await.unwrap() {
            Message::Term(raw) => {
                let term = raw.to_term(&Limits::default()).unwrap();
                // Of a large one its number is enough.
                term.as_tuple().map_or_else(|| format!("{term:?}"), |parts| format!("{:?}", parts[0]))
            }
            other => format!("{other:?}"),
        });
    }
    all
}

/// Plays one schedule, and returns everything that can be seen of it. The schedule depends on `seed` alone; how the bytes are cut
/// into reads, and whether messages are put together, must not show.
async fn play(seed: u64, batches: bool, a: &Node, b: &Node) -> Vec<String> {
    let link = a.connect(b.name().as_str()).await.unwrap();
    let undelivered = Arc::clone(link.mld().undelivered());
    let before = link.mld().len();
    let mut random = Random::new(seed);
    let mut cuts = Random::new(seed ^ if batches { 0x5555_1234 } else { 0x3333_4321 });
    let mut far = Far::new(a, b, &link);
    let mut log = Vec::new();

    let limit = MailboxLimit::messages(5 + random.below(60));
    let mut processes: Vec<Process> = (0..4)
        .map(|n| match n {
            3 => a.process_opt(&SpawnOptions::default().mailbox(limit)).unwrap(),
            _ => a.process().unwrap(),
        })
        .collect();
    processes[0].trap_exit(true);
    // If the one with the small mailbox exits, so does another one, in the middle of everything.
    let small = processes[3].pid().clone();
    processes[2].link(&small).await;
    let mut pids: Vec<Pid> = processes.iter().map(|process| process.pid().clone()).collect();
    // Nobody's.
    pids.push(Pid { id: 0x7fff, serial: 0x1fff, ..pids[0].clone() });
    let names: Vec<Atom> =
        (0..2).map(|n| Atom::new(&format!("name{n}{}", if batches { "x" } else { "y" })).unwrap()).collect();
    let aliases: Vec<Reference> = (0..6)
        .map(|n| {
            let kind = if n % 2 == 0 { AliasKind::ExplicitUnalias } else { AliasKind::Reply };
            processes[n % 3].alias(kind).unwrap()
        })
        .collect();

    let mut number = 0;
    for _ in 0..12 {
        for _ in 0..random.below(60) {
            number += 1;
            let from = random.below(3) as u32;
            let to = pids[random.below(pids.len())].clone();
            let sender = far.pid(from);
            match random.below(40) {
                0..=19 => far.message(from, &to, number),
                // To the same as the one before, as most are.
                20..=27 => {
                    for _ in 0..random.below(200) {
                        number += 1;
                        far.message(from, &pids[random.below(3).min(1)], number);
                    }
                }
                28..=29 => {
                    let large = Term::from((Term::Integer(number), Term::binary(&vec![7; 200_000])));
                    far.message(from, &to, large);
                }
                30..=32 => {
                    let to = names[random.below(2)].clone();
                    far.send(from, &ControlMessage::RegSend { from: sender, to }, Some(number.into()));
                }
                33..=34 => {
                    let alias = aliases[random.below(aliases.len())].clone();
                    far.send(from, &ControlMessage::AliasSend { from: sender, alias }, Some(number.into()));
                }
                35 => {
                    let reason = if random.below(6) == 0 { "kill" } else { "normal" };
                    far.send(from, &ControlMessage::Exit2 { from: sender, to }, Some(Term::atom(reason)));
                }
                36 => {
                    far.send(from, &ControlMessage::Link { from: sender.clone(), to: to.clone() }, None);
                    far.message(from, &to, number);
                    if random.below(2) == 0 {
                        far.send(from, &ControlMessage::Exit { from: sender, to }, Some(Term::atom("boom")));
                    }
                }
                _ => {
                    let reference = Reference::new(b.name().clone(), b.creation(), &[number as u32, 1, 1]);
                    let target =
                        if random.below(3) == 0 { Target::Name(names[0].clone()) } else { Target::Pid(to) };
                    let control =
                        ControlMessage::MonitorP { watcher: sender, target, reference: reference.unwrap() };
                    far.send(from, &control, None);
                }
            }
        }
        let bytes = far.bytes();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (read, more) = rest.split_at((1 + cuts.below(64 << 10)).min(rest.len()));
            rest = more;
            if batches {
                far.read(a, &link, read).unwrap();
            } else {
                far.read_singly(a, &link, read).unwrap();
            }
        }
        // Between the reads the program goes on.
        match random.below(6) {
            0 => log.push(format!(
                "{:?}",
                processes[random.below(3)].register(names[random.below(2)].clone()).is_ok()
            )),
            1 => log.push(format!("{:?}", processes[random.below(3)].unregister())),
            2 => drop(processes[0].unalias(&aliases[0])),
            3 => {
                let from = random.below(3);
                log.push(format!("{from}: {:?}", drain(&mut processes[from]).await));
            }
            _ => {}
        }
        let waiting = processes.iter().map(|process| (process.mailbox_len(), process.exit_reason()));
        log.push(format!("{:?} {}", waiting.collect::<Vec<_>>(), link.mld().len() - before));
    }
    for process in &mut processes {
        log.push(format!("{:?}", drain(process).await));
    }
    drop(processes);
    assert_eq!(undelivered.bytes(), 0, "seed {seed}");
    assert!(!link.is_closing());
    // Whatever was linked or monitored has fired.
    assert_eq!(link.mld().len(), before, "seed {seed}");
    log
}

/// Messages, fragments, names, aliases, links, monitors, exits and a mailbox that overflows, from three senders to four
/// processes: the outcome is that of the signals one by one.
#[tokio::test]
async fn batches_cannot_be_told_from_single_signals() {
    let [a, b] = pair().await;
    let mut deaths = 0;
    for seed in 1..=60 {
        let together = play(seed, true, &a, &b).await;
        let singly = play(seed, false, &a, &b).await;
        assert_eq!(together, singly, "seed {seed}");
        deaths += usize::from(together.iter().any(|line| line.contains("mailbox_overflow")));
    }
    assert!(deaths > 5, "the schedules are too gentle: {deaths}");
}

/// What the frames before a bad one have brought is not lost with the connection.
#[tokio::test]
async fn a_bad_frame_takes_nothing_back() {
    let [a, b] = pair().await;
    let link = a.connect(b.name().as_str()).await.unwrap();
    let mut far = Far::new(&a, &b, &link);
    let mut process = a.process().unwrap();
    for n in 0..5 {
        far.message(1, process.pid(), n);
    }
    let mut bytes = far.bytes();
    bytes.extend_from_slice(&[0, 0, 0, 4, 131, 68, 0, 99]);
    assert!(matches!(far.read(&a, &link, &bytes), Err(Error::Malformed { .. })));
    assert_eq!(drain(&mut process).await.len(), 5);
    assert_eq!(link.mld().undelivered().bytes(), 0);
}

/// A reply to the pid of a process that waits for it goes to the call, whatever stands around it.
#[tokio::test]
async fn a_reply_in_a_batch_ends_its_call() {
    let [a, b] = pair().await;
    let link = a.connect(b.name().as_str()).await.unwrap();
    let mut far = Far::new(&a, &b, &link);
    let mut server = b.mailbox("server").unwrap();
    let mut process = a.process().unwrap();
    let pid = process.pid().clone();
    far.message(1, &pid, 1);
    let bytes = far.bytes();
    far.read(&a, &link, &bytes).unwrap();

    let call = process.call(("server", b.name()), Term::atom("ask"), core::time::Duration::from_secs(20));
    let answer = async {
        let Message::Term(request) = server.recv().await.unwrap() else { panic!("no call") };
        let request = request.to_term(&Limits::default()).unwrap();
        let from = request.as_tuple().unwrap()[1].as_tuple().unwrap().to_vec();
        for n in 2..200 {
            far.message(1, &pid, n);
            if n == 100 {
                far.message(2, &pid, Term::from((from[1].clone(), Term::atom("reply"))));
            }
        }
        let bytes = far.bytes();
        far.read(&a, &link, &bytes).unwrap();
    };
    let (reply, ()) = tokio::join!(call, answer);
    assert_eq!(reply.unwrap(), Term::atom("reply"));
    let expected: Vec<String> = (1..200).map(|n| format!("{:?}", Term::Integer(n))).collect();
    assert_eq!(drain(&mut process).await, expected);
}

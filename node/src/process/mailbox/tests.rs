use std::sync::atomic::AtomicUsize as Count;
use std::task::Wake;

use foundation_cluster::sim::Random;
use foundation_proto::etf::{RawTerm, Term};

use super::*;

/// More than any test has undelivered.
const PLENTY: usize = 1 << 30;

fn raw(number: i64, bytes: usize) -> RawTerm {
    RawTerm::from_term(&Term::from((Term::Integer(number), Term::binary(&vec![0; bytes])))).unwrap()
}

fn together(terms: impl IntoIterator<Item = RawTerm>) -> Messages {
    Messages::copied(terms).unwrap()
}

fn envelope(message: RawTerm, credit: Option<Credit>) -> Envelope {
    Envelope { message: Message::Term(message), credit, token: None }
}

fn number(message: &Message) -> i64 {
    let term = message.as_raw().unwrap().to_term(&foundation_proto::Limits::default()).unwrap();
    let Term::Integer(number) = term.as_tuple().unwrap()[0] else { panic!("{term:?}") };
    number
}

#[derive(Debug, Default)]
struct Wakes(Count);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A mailbox with its receiving end.
struct Both {
    mailbox: Mailbox,
    receiver: Receiver,
    wakes: Arc<Wakes>,
}

impl Both {
    fn new(limit: MailboxLimit) -> Self {
        Self { mailbox: Mailbox::new(limit), receiver: Receiver::default(), wakes: Arc::default() }
    }

    fn poll(&mut self, wanted: impl FnMut(&Message) -> bool) -> Poll<Option<Message>> {
        let waker = Waker::from(Arc::clone(&self.wakes));
        self.receiver.poll(&self.mailbox, &mut Scanned::default(), wanted, &mut Context::from_waker(&waker))
    }

    fn next(&mut self) -> Option<i64> {
        match self.poll(|_| true) {
            Poll::Ready(message) => message.as_ref().map(number),
            Poll::Pending => None,
        }
    }
}

/// Any mix of batches, single messages, priority, selective receives, flushes and the end, beside the plainest model of a
/// mailbox: the same messages in the same order, the same counts, and in the end nothing that holds the connection back.
#[test]
fn batches_are_what_single_messages_are() {
    for seed in 1..=300_u64 {
        let mut random = Random::new(seed);
        let limit = MailboxLimit {
            messages: 1 + random.below(40),
            bytes: 100 + random.below(3000),
            overflow: Overflow::Exit,
        };
        let undelivered = Arc::new(Undelivered::new(if random.below(2) == 0 { PLENTY } else { 2000 }));
        let mut both = Both::new(limit);
        let mut model: VecDeque<(i64, usize, bool)> = VecDeque::new();
        let mut sent = 0;
        let mut closed = false;
        for _ in 0..200 {
            let waiting = |model: &VecDeque<(i64, usize, bool)>| {
                (model.len(), model.iter().map(|message| message.1).sum::<usize>())
            };
            let room = |model: &VecDeque<(i64, usize, bool)>| {
                let (messages, bytes) = waiting(model);
                messages < limit.messages && bytes < limit.bytes
            };
            match random.below(8) {
                0..=2 => {
                    let mut batch = Vec::new();
                    let mut expected = Push::Done;
                    for _ in 0..1 + random.below(10) {
                        let message = raw(sent, random.below(200));
                        if !closed && expected == Push::Done {
                            if room(&model) {
                                model.push_back((sent, message.as_bytes().len(), false));
                            } else {
                                expected = Push::Full(model.len());
                            }
                        }
                        batch.push(message);
                        sent += 1;
                    }
                    let batch = together(batch);
                    assert_eq!(both.mailbox.push_all(batch, &undelivered), expected, "{seed}");
                }
                3 => {
                    let priority = random.below(2) == 0;
                    let message = raw(sent, random.below(200));
                    let size = message.as_bytes().len();
                    let mut expected = Push::Done;
                    if !closed && room(&model) {
                        // It stands before all without priority, behind those with it.
                        let at =
                            if priority { model.iter().take_while(|m| m.2).count() } else { model.len() };
                        model.insert(at, (sent, size, priority));
                    } else if !closed {
                        expected = Push::Full(model.len());
                    }
                    let credit = Some(undelivered.charge(size));
                    assert_eq!(both.mailbox.push(envelope(message, credit), priority), expected, "{seed}");
                    sent += 1;
                }
                4..=5 => {
                    // What the receiver had taken over when its process ended, it may still hand out.
                    let next = both.next();
                    assert!(closed || next == model.pop_front().map(|message| message.0), "{seed}");
                }
                6 if !closed => {
                    let wanted = random.below(3) as i64;
                    let at = model.iter().position(|message| message.0 % 3 == wanted);
                    let expected = at.and_then(|at| model.remove(at)).map(|message| message.0);
                    let found = match both.poll(|message| number(message) % 3 == wanted) {
                        Poll::Ready(message) => message.as_ref().map(number),
                        Poll::Pending => None,
                    };
                    assert_eq!(found, expected, "{seed}");
                }
                _ => match random.below(12) {
                    0 => {
                        both.mailbox.close();
                        closed = true;
                        model.clear();
                    }
                    1 => {
                        let unwanted = random.below(5) as i64;
                        both.receiver.flush(&both.mailbox, |message| number(message) % 5 == unwanted);
                        model.retain(|message| message.0 % 5 != unwanted);
                    }
                    _ => {}
                },
            }
            if !closed {
                assert_eq!((both.mailbox.len(), both.mailbox.bytes()), waiting(&model), "{seed}");
                let held: usize = model.iter().map(|message| message.1).sum();
                let bytes = undelivered.bytes();
                // What was handed out is given back, but for a small sum.
                assert!(held <= bytes && bytes <= held + CREDIT + 300, "{seed}: {held} {bytes}");
            }
        }
        both.mailbox.close();
        while both.next().is_some() {}
        assert_eq!((both.mailbox.len(), both.mailbox.bytes()), (0, 0), "{seed}");
        assert_eq!(undelivered.bytes(), 0, "{seed}");
    }
}

#[test]
fn a_batch_wakes_once() {
    let undelivered = Arc::new(Undelivered::new(PLENTY));
    let mut both = Both::new(MailboxLimit::DEFAULT);
    assert!(both.poll(|_| true).is_pending());
    both.mailbox.push_all(together((0..100).map(|n| raw(n, 1))), &undelivered);
    both.mailbox.push_all(together((100..110).map(|n| raw(n, 1))), &undelivered);
    assert_eq!(both.wakes.0.load(Ordering::Relaxed), 1);
    for n in 0..110 {
        assert_eq!(both.next(), Some(n));
    }
    assert!(both.poll(|_| true).is_pending());
    assert_eq!(undelivered.bytes(), 0);
}

#[test]
fn a_process_that_ended_holds_nothing_back() {
    let undelivered = Arc::new(Undelivered::new(PLENTY));
    let mut both = Both::new(MailboxLimit::DEFAULT);
    both.mailbox.push_all(together((0..10).map(|n| raw(n, 100))), &undelivered);
    assert_eq!(both.next(), Some(0));
    both.mailbox.push_all(together((10..20).map(|n| raw(n, 100))), &undelivered);
    both.mailbox.close();
    let late = together((20..30).map(|n| raw(n, 100)));
    assert_eq!(both.mailbox.push_all(late, &undelivered), Push::Done);
    // The receiver had taken the first ten over.
    let of_nine: usize = (1..10).map(|n| raw(n, 100).as_bytes().len()).sum();
    assert!((of_nine..=of_nine + CREDIT).contains(&undelivered.bytes()));
    drop(both);
    assert_eq!(undelivered.bytes(), 0);
}

/// Processes that go on to wait for something else, each with a sum that it has not given back: the connection that they all
/// wait for must not stop over those.
#[test]
fn sums_that_are_kept_never_stop_a_connection() {
    let undelivered = Arc::new(Undelivered::new(64 << 10));
    let mut idle = Vec::new();
    for n in 0..1000 {
        let mut both = Both::new(MailboxLimit::DEFAULT);
        both.mailbox.push_all(together((0..4).map(|_| raw(n, 900))), &undelivered);
        for _ in 0..3 {
            assert_eq!(both.next(), Some(n));
        }
        // Only what it keeps of the received ones counts here.
        both.receiver.coming.clear();
        idle.push(both);
    }
    assert!(undelivered.bytes() <= 32 << 10, "{}", undelivered.bytes());
    assert!(!undelivered.is_full());
    drop(idle);
    assert_eq!(undelivered.bytes(), 0);
}

/// A process that waits for a message that is not there gives back everything it has received.
#[test]
fn a_process_that_waits_keeps_no_sum() {
    let undelivered = Arc::new(Undelivered::new(PLENTY));
    let mut both = Both::new(MailboxLimit::DEFAULT);
    both.mailbox.push_all(together((0..5).map(|n| raw(n, 10))), &undelivered);
    let one = raw(0, 10).as_bytes().len();
    assert!(both.poll(|message| number(message) == 1).is_ready());
    assert!(both.poll(|message| number(message) == 9).is_pending());
    assert_eq!(undelivered.bytes(), 4 * one);
}

#[test]
fn credits_of_two_connections_are_kept_apart() {
    let [a, b] = [(); 2].map(|()| Arc::new(Undelivered::new(PLENTY)));
    let mut both = Both::new(MailboxLimit::DEFAULT);
    for n in 0..20 {
        both.mailbox.push_all(together([raw(n, 50)]), if n % 3 == 0 { &a } else { &b });
    }
    for n in 0..19 {
        assert_eq!(both.next(), Some(n));
    }
    let one = raw(19, 50).as_bytes().len();
    // The last of each connection may be in the sum still.
    assert!(a.bytes() + b.bytes() <= 3 * one, "{} {}", a.bytes(), b.bytes());
    assert_eq!(both.next(), Some(19));
    assert_eq!((a.bytes(), b.bytes()), (0, 0));
}

#[test]
fn counters_wrap() {
    let both = Both::new(MailboxLimit::messages(3));
    both.mailbox.appended.add(usize::MAX, usize::MAX);
    both.mailbox.handed_out.0.add(usize::MAX, usize::MAX);
    assert_eq!((both.mailbox.len(), both.mailbox.bytes()), (0, 0));
    for n in 0..3 {
        assert_eq!(both.mailbox.push(envelope(raw(n, 0), None), false), Push::Done);
    }
    assert_eq!(both.mailbox.push(envelope(raw(3, 0), None), false), Push::Full(3));
    assert_eq!(difference(1, 2), 0);
}

/// A sender that waits for room is woken by each receive that makes some.
#[tokio::test]
async fn whoever_waits_for_room_is_woken() {
    let both = Both::new(MailboxLimit::messages(1).overflow(Overflow::Block));
    let Both { mailbox, mut receiver, .. } = both;
    let mailbox = Arc::new(mailbox);
    let far = Arc::clone(&mailbox);
    let sender = tokio::spawn(async move {
        for n in 0..1000 {
            while far.is_full() {
                far.room().await;
            }
            assert_eq!(far.push(envelope(raw(n, 0), None), false), Push::Done);
        }
    });
    for n in 0..1000 {
        let message = std::future::poll_fn(|context| {
            receiver.poll(&mailbox, &mut Scanned::default(), |_| true, context)
        });
        assert_eq!(number(&message.await.unwrap()), n);
        if n % 7 == 0 {
            tokio::task::yield_now().await;
        }
    }
    sender.await.unwrap();
}

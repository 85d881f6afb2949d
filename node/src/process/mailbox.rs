//! The queue of messages of one process.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use foundation_proto::dist::Messages;
use tokio::sync::Notify;

use super::message::Message;
use super::seq_trace::SeqTraceToken;
use super::undelivered::{Credit, Undelivered};

/// How much a mailbox holds, and what happens to the process when it gets more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct MailboxLimit {
    /// Messages that were not received yet.
    pub messages: usize,
    /// Bytes of encoded terms in them.
    pub bytes: usize,
    /// What happens beyond that.
    pub overflow: Overflow,
}

/// What happens when a message arrives at a full mailbox.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Overflow {
    /// The process exits with `{mailbox_overflow, N}`, `N` being the messages it had; links and monitors fire.
    Exit,
    /// Senders on this node wait for room. Nobody can make a remote sender wait, so what arrives from other nodes, and
    /// what cannot wait (exit messages, `DOWN`), still ends the process as [`Overflow::Exit`] does.
    Block,
}

impl MailboxLimit {
    /// 100,000 messages or 64 MiB, beyond which the process exits: more than a healthy process ever has, less than
    /// what endangers the node.
    pub const DEFAULT: Self = Self { messages: 100_000, bytes: 64 << 20, overflow: Overflow::Exit };

    /// No limit, as on the BEAM. A sender that is faster than the receiver then takes all memory.
    pub const UNBOUNDED: Self = Self { messages: usize::MAX, bytes: usize::MAX, overflow: Overflow::Exit };

    /// At most this many messages, and the bytes of the default.
    pub const fn messages(messages: usize) -> Self {
        Self { messages, ..Self::DEFAULT }
    }

    /// The same limit with another way to deal with what exceeds it.
    #[must_use]
    pub const fn overflow(self, overflow: Overflow) -> Self {
        Self { overflow, ..self }
    }
}

impl Default for MailboxLimit {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A message that waits, with what it holds back on the connection it came through.
#[derive(Debug)]
pub(crate) struct Envelope {
    pub(crate) message: Message,
    pub(crate) credit: Option<Credit>,
    /// What the message came with, if its sender is traced.
    pub(crate) token: Option<Box<SeqTraceToken>>,
}

impl From<Message> for Envelope {
    fn from(message: Message) -> Self {
        Self { message, credit: None, token: None }
    }
}

/// What the receiver has not looked at.
#[derive(Debug)]
enum Arrival {
    One(Envelope),
    /// Messages that came together, and what those that are left hold back.
    Many(Messages, Credit),
}

/// What became of a message.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Push {
    /// It waits in the mailbox, or the process has ended and it is nobody's.
    Done,
    /// The mailbox held this many messages and could take no more.
    Full(usize),
}

/// The end that senders use. The receiving end is [`Receiver`]; there is one.
#[derive(Debug)]
pub(crate) struct Mailbox {
    limit: MailboxLimit,
    /// What was ever appended; written under the lock.
    appended: Count,
    /// Whether priority messages wait in `shared`: the receiver looks here before it hands out what it has taken over.
    priority: AtomicBool,
    shared: Mutex<Shared>,
    /// What the receiver has ever handed out; written by it alone. On a cache line of its own, so that receiving and appending
    /// do not take it from each other with every message.
    handed_out: Alone,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct Alone(Count);

/// Messages and the bytes of encoded terms in them.
#[derive(Debug, Default)]
struct Count {
    messages: AtomicUsize,
    bytes: AtomicUsize,
}

impl Count {
    fn get(&self) -> (usize, usize) {
        (self.messages.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// For the one who may write.
    fn add(&self, messages: usize, bytes: usize) {
        let before = self.get();
        self.messages.store(before.0.wrapping_add(messages), Ordering::Relaxed);
        self.bytes.store(before.1.wrapping_add(bytes), Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct Shared {
    queue: VecDeque<Arrival>,
    priority: VecDeque<Envelope>,
    waker: Option<Waker>,
    closed: bool,
    /// Made by the first sender that has to wait.
    room: Option<Arc<Notify>>,
}

impl Mailbox {
    pub(crate) fn new(limit: MailboxLimit) -> Self {
        Self {
            limit,
            appended: Count::default(),
            priority: AtomicBool::new(false),
            shared: Mutex::default(),
            handed_out: Alone::default(),
        }
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Messages that were not handed out, and their bytes; the receiver may have taken them over.
    #[inline]
    fn waiting(&self) -> (usize, usize) {
        let (out, bytes_out) = self.handed_out.0.get();
        let (messages, bytes) = self.appended.get();
        (difference(messages, out), difference(bytes, bytes_out))
    }

    pub(crate) fn len(&self) -> usize {
        self.waiting().0
    }

    /// Bytes of encoded terms in the messages.
    pub(crate) fn bytes(&self) -> usize {
        self.waiting().1
    }

    /// Whether the process waits for a message.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.lock().waker.is_some()
    }

    pub(crate) fn blocks(&self) -> bool {
        self.limit.overflow == Overflow::Block
    }

    #[inline]
    pub(crate) fn is_full(&self) -> bool {
        let (messages, bytes) = self.waiting();
        messages >= self.limit.messages || bytes >= self.limit.bytes
    }

    /// Appends a message; with `priority` behind those that have priority, before all others. Never waits.
    pub(crate) fn push(&self, envelope: Envelope, priority: bool) -> Push {
        let size = envelope.message.encoded_len();
        let mut shared = self.lock();
        if shared.closed {
            return Push::Done;
        }
        if self.is_full() {
            return Push::Full(self.len());
        }
        self.appended.add(1, size);
        if priority {
            shared.priority.push_back(envelope);
            self.priority.store(true, Ordering::Release);
        } else {
            shared.queue.push_back(Arrival::One(envelope));
        }
        let waker = shared.waker.take();
        drop(shared);
        if let Some(waker) = waker {
            waker.wake();
        }
        Push::Done
    }

    /// Appends ordinary messages that came together through one connection, as far as there is room. What is appended counts as
    /// undelivered there. Never waits.
    pub(crate) fn push_all(&self, mut messages: Messages, undelivered: &Arc<Undelivered>) -> Push {
        let mut shared = self.lock();
        if shared.closed {
            // Outside the lock, as always.
            drop(shared);
            return Push::Done;
        }
        let (had, had_bytes) = self.waiting();
        let (limit, came) = (self.limit, messages.len());
        if limit.messages.saturating_sub(had) < came
            || limit.bytes.saturating_sub(had_bytes) < messages.bytes()
        {
            let (mut count, mut bytes) = (0, 0);
            for size in messages.sizes() {
                if had + count >= limit.messages || had_bytes + bytes >= limit.bytes {
                    break;
                }
                count += 1;
                bytes += size;
            }
            messages.truncate(count);
        }
        let (count, bytes) = (messages.len(), messages.bytes());
        // Counted first: the receiver gives back as soon as it has them.
        let credit = undelivered.charge(bytes);
        match messages.into_only() {
            Ok(message) => {
                let (message, credit) = (Message::Term(message), Some(credit));
                shared.queue.push_back(Arrival::One(Envelope { message, credit, token: None }));
            }
            Err(messages) if !messages.is_empty() => shared.queue.push_back(Arrival::Many(messages, credit)),
            Err(_none) => {}
        }
        self.appended.add(count, bytes);
        let waker = shared.waker.take();
        drop(shared);
        if let Some(waker) = waker {
            waker.wake();
        }
        if count < came { Push::Full(had + count) } else { Push::Done }
    }

    /// Waits until there is room, or the process has ended.
    pub(crate) async fn room(&self) {
        while self.is_full() {
            let room = {
                let mut shared = self.lock();
                if shared.closed {
                    return;
                }
                Arc::clone(shared.room.get_or_insert_default())
            };
            let waiting = room.notified();
            // Registered first, then looked again: what makes room in between is not missed.
            tokio::pin!(waiting);
            waiting.as_mut().enable();
            if self.is_full() {
                waiting.await;
            }
        }
    }

    /// The process has ended: drops what waits and everything that still comes, and wakes everybody who waits.
    pub(crate) fn close(&self) {
        let mut shared = self.lock();
        shared.closed = true;
        let dropped = (core::mem::take(&mut shared.queue), core::mem::take(&mut shared.priority));
        let waker = shared.waker.take();
        let room = shared.room.take();
        let (messages, bytes) = self.handed_out.0.get();
        self.appended.messages.store(messages, Ordering::Relaxed);
        self.appended.bytes.store(bytes, Ordering::Relaxed);
        drop(shared);
        // Outside the lock: dropping a message can be long work.
        drop(dropped);
        if let Some(waker) = waker {
            waker.wake();
        }
        if let Some(room) = room {
            room.notify_waiters();
        }
    }

    /// The receiver, of which there is one, has handed out a message of this size.
    #[inline]
    fn taken(&self, bytes: usize) {
        self.handed_out.0.add(1, bytes);
        if self.limit.overflow == Overflow::Block
            && let Some(room) = &self.lock().room
        {
            room.notify_waiters();
        }
    }
}

/// How far one counter is ahead of another. Counters wrap: 32-bit machines count 4 GiB within seconds. The receiver of a mailbox
/// that was closed may hand out one more, so that its counter is ahead; nothing waits then.
fn difference(ahead: usize, behind: usize) -> usize {
    let difference = ahead.wrapping_sub(behind);
    if difference > usize::MAX / 2 { 0 } else { difference }
}

/// The end that the process receives from.
#[derive(Debug, Default)]
pub(crate) struct Receiver {
    /// What a receive has refused.
    ready: VecDeque<Envelope>,
    /// What came after that: taken over from the mailbox in one go, so that most receives touch no lock.
    coming: VecDeque<Arrival>,
    /// Messages with priority.
    priority: VecDeque<Envelope>,
    /// That of the message received last.
    token: Option<Box<SeqTraceToken>>,
    /// What messages that were handed out held back on their connection. Given back in sums, not one by one, because the
    /// reader of the connection counts in the same place.
    credit: Option<Credit>,
}

/// What a receiver found in the mailbox.
enum TakenOver {
    /// Something to look at.
    Something,
    Nothing,
    /// The process has ended.
    End,
}

/// How many messages one receive has refused already. They stay refused; what arrives meanwhile is looked at.
#[derive(Debug, Default)]
pub(crate) struct Scanned {
    ready: usize,
    priority: usize,
}

/// A sum of credits that is given back although more messages are at hand. Small, because a process may go on to wait for
/// something else that has to come through the same connection. However many processes do, they never keep more than half of
/// what a connection may have undelivered: see [`Credit::is_short`].
const CREDIT: usize = 4 << 10;

impl Receiver {
    /// The first message that `wanted` accepts; the others keep their places. `scanned` is how many were refused already and
    /// belongs to this receive. Ready with `None` once the process has ended.
    #[inline]
    pub(crate) fn poll(
        &mut self,
        mailbox: &Mailbox,
        scanned: &mut Scanned,
        mut wanted: impl FnMut(&Message) -> bool,
        context: &mut Context<'_>,
    ) -> Poll<Option<Message>> {
        loop {
            if mailbox.priority.load(Ordering::Acquire) {
                self.take_over_priority(mailbox);
            }
            if !(self.ready.is_empty() && self.priority.is_empty())
                && let Some(message) = self.take_looked_at(mailbox, scanned, &mut wanted)
            {
                return Poll::Ready(Some(message));
            }
            while let Some(arrival) = self.coming.front_mut() {
                if let Arrival::Many(messages, credit) = arrival
                    && let Some(message) = messages.next()
                {
                    let size = message.as_bytes().len();
                    let message = Message::Term(message);
                    if wanted(&message) {
                        credit.move_to(&mut self.credit, size);
                        if messages.is_empty() {
                            self.coming.pop_front();
                        }
                        mailbox.taken(size);
                        self.token = None;
                        self.give_back();
                        return Poll::Ready(Some(message));
                    }
                    let credit = Some(credit.split(size));
                    self.refuse(Envelope { message, credit, token: None }, scanned);
                } else if let Some(Arrival::One(envelope)) = self.coming.pop_front() {
                    if wanted(&envelope.message) {
                        return Poll::Ready(Some(self.hand_out(mailbox, envelope)));
                    }
                    self.refuse(envelope, scanned);
                }
            }
            match self.take_over(mailbox, context) {
                TakenOver::Something => {}
                TakenOver::Nothing => return Poll::Pending,
                TakenOver::End => return Poll::Ready(None),
            }
        }
    }

    // What follows is not made part of the code above, which is run for each message and moves it as seldom as possible.

    #[inline(never)]
    fn take_over_priority(&mut self, mailbox: &Mailbox) {
        let mut shared = mailbox.lock();
        mailbox.priority.store(false, Ordering::Relaxed);
        self.priority.append(&mut shared.priority);
    }

    #[inline(never)]
    fn take_looked_at(
        &mut self,
        mailbox: &Mailbox,
        scanned: &mut Scanned,
        wanted: &mut impl FnMut(&Message) -> bool,
    ) -> Option<Message> {
        let found = take_first(&mut self.priority, &mut scanned.priority, wanted)
            .or_else(|| take_first(&mut self.ready, &mut scanned.ready, wanted));
        Some(self.hand_out(mailbox, found?))
    }

    #[inline(never)]
    fn take_over(&mut self, mailbox: &Mailbox, context: &Context<'_>) -> TakenOver {
        let mut shared = mailbox.lock();
        if shared.closed {
            drop(shared);
            self.ready.clear();
            self.priority.clear();
            self.credit = None;
            return TakenOver::End;
        }
        if !shared.priority.is_empty() {
            return TakenOver::Something;
        }
        if shared.queue.is_empty() {
            // What is left in `ready` is not wanted: that may last.
            self.credit = None;
            if !shared.waker.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
                shared.waker = Some(context.waker().clone());
            }
            return TakenOver::Nothing;
        }
        core::mem::swap(&mut self.coming, &mut shared.queue);
        TakenOver::Something
    }

    /// This message is not wanted by this receive, which has come to the end of those that were refused before.
    #[inline(never)]
    fn refuse(&mut self, envelope: Envelope, scanned: &mut Scanned) {
        self.ready.push_back(envelope);
        scanned.ready += 1;
    }

    /// This message is the one.
    #[inline(never)]
    fn hand_out(&mut self, mailbox: &Mailbox, envelope: Envelope) -> Message {
        let Envelope { message, credit, token } = envelope;
        let size = message.encoded_len();
        if let Some(mut credit) = credit {
            credit.move_to(&mut self.credit, size);
        }
        mailbox.taken(size);
        self.token = token;
        self.give_back();
        message
    }

    /// What the message that was received last came with.
    pub(crate) fn token(&self) -> Option<&SeqTraceToken> {
        self.token.as_deref()
    }

    /// A message was handed out. Gives back what these have held, now or with the next ones.
    #[inline]
    fn give_back(&mut self) {
        let all_at_once = self.ready.is_empty() && self.coming.is_empty();
        self.credit.take_if(|sum| all_at_once || sum.bytes() > CREDIT || sum.is_short());
    }

    /// Takes apart what came together.
    fn look_at_all(&mut self) {
        for arrival in self.coming.drain(..) {
            match arrival {
                Arrival::One(envelope) => self.ready.push_back(envelope),
                Arrival::Many(messages, mut credit) => self.ready.extend(messages.map(|message| {
                    let credit = Some(credit.split(message.as_bytes().len()));
                    Envelope { message: Message::Term(message), credit, token: None }
                })),
            }
        }
    }

    /// Removes what `unwanted` accepts from everything that has arrived.
    pub(crate) fn flush(&mut self, mailbox: &Mailbox, mut unwanted: impl FnMut(&Message) -> bool) {
        {
            let mut shared = mailbox.lock();
            self.coming.append(&mut shared.queue);
            self.priority.append(&mut shared.priority);
            mailbox.priority.store(false, Ordering::Relaxed);
        }
        self.look_at_all();
        let mut keep = |envelope: &Envelope| {
            let keep = !unwanted(&envelope.message);
            if !keep {
                mailbox.taken(envelope.message.encoded_len());
            }
            keep
        };
        self.priority.retain(&mut keep);
        self.ready.retain(&mut keep);
    }
}

/// Takes out the first message from place `scanned` on that is wanted.
#[inline]
fn take_first(
    queue: &mut VecDeque<Envelope>,
    scanned: &mut usize,
    wanted: &mut impl FnMut(&Message) -> bool,
) -> Option<Envelope> {
    while let Some(envelope) = queue.get(*scanned) {
        if wanted(&envelope.message) {
            return if *scanned == 0 { queue.pop_front() } else { queue.remove(*scanned) };
        }
        *scanned += 1;
    }
    None
}

#[cfg(test)]
mod tests;

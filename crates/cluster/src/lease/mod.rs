//! Names that never have two holders at once: each is a lease that a majority of the configured members has granted.
//!
//! # How it works
//!
//! The members are configured, the same on each of them; more than half have to be in reach for a lease to be taken or kept. There is
//! no log and nothing is stored. Who wants a name asks all members; each grants it unless it has granted it to somebody
//! else and that has not run out. With the grants of a majority the name is held for [`Config::duration`], counted from the moment
//! *before* the question went out, and is asked for again at a third of that. Whoever cannot renew it loses it
//! [`Config::margin`] before the time is over: the process is sent an exit signal while nobody else can have the name.
//!
//! # Why there are never two holders
//!
//! Two majorities have a member in common, and that grants a name once at a time. It counts its grant by its own clock from the arrival of
//! the question, for longer than the holder counts its lease from before it was sent: by the factor
//! `(1 + drift) / (1 - drift)`. A member that was started anew has forgotten its grants, so it grants nothing for as long as any of them
//! could last. What is assumed:
//!
//! * **Clocks run at the right speed within [`Config::drift`]**, 1 % by default. What time of day they show is of no matter. A machine
//!   that is suspended with its clock standing still, as a virtual machine may be, breaks this assumption.
//! * **A process obeys its exit signal within [`Config::margin`]**, or asks [`Leases::is_held`] before each act.
//! * **Members are configured alike.** A question names the members by their hash, and is refused by whoever has others.
//!
//! # Protocol
//!
//! | message | meaning |
//! |---|---|
//! | `{ask, 1, Members, Name, Holder, Claim, Round, Nanoseconds, Pid}` | `Holder`, the process of the leases on a node, wants `Name` for `Pid` |
//! | `{vote, Name, Claim, Round, Voter, Granted}` | the answer, `true` or `false` |
//! | `{release, Name, Holder, Claim}` | it is not wanted any more |

#[cfg(test)]
mod tests;
mod voter;
mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Pid, Term, encoded_len, phash2};

use crate::message::{list_of, tuple_of};
use crate::mutant::LeftOut;
use crate::random::Random;
use crate::{Key, Machine};
use voter::Voter;
use wire::Message;

/// A monitor that the machine asked for. Numbers are never reused.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MonitorId(pub u64);

/// How leases are held: the same on all members.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The nodes that vote, this one among them if it is to hold leases that it votes for. An odd number is best.
    pub members: BTreeSet<Atom>,
    /// How long a lease holds without being renewed: 5 s. It bounds how soon another can follow a holder that is lost, and how long a member
    /// that was started anew abstains. At most [`MAX_DURATION`].
    pub duration: Duration,
    /// By how many thousandths the clocks of the members may be too fast or too slow: 10. Quartz clocks are within 0.1.
    pub drift: u32,
    /// How long before the end of its lease a holder that could not renew it is told: 500 ms; half of `duration` at most.
    pub margin: Duration,
    /// Leases that this node holds or wants, and grants that it has given, beyond this are refused: 65,536 of each.
    pub max_leases: usize,
    /// The longest name, in bytes: 1 KiB.
    pub max_bytes: usize,
}

/// The longest duration of a lease. A member that was started anew abstains for as long as its own configuration says, so it refuses
/// questions for longer leases than that.
pub const MAX_DURATION: Duration = Duration::from_secs(3600);
/// The most that clocks may be off, in thousandths.
const MAX_DRIFT: u32 = 200;

impl Config {
    /// The defaults for these members.
    pub fn new(members: impl IntoIterator<Item = Atom>) -> Self {
        Self {
            members: members.into_iter().collect(),
            duration: Duration::from_secs(5),
            drift: 10,
            margin: Duration::from_millis(500),
            max_leases: 1 << 16,
            max_bytes: 1024,
        }
    }

    fn duration(&self) -> Duration {
        self.duration.clamp(Duration::from_millis(10), MAX_DURATION)
    }

    /// How long a member keeps a grant for a lease of some duration.
    fn hold(&self, duration: Duration) -> Duration {
        let drift = u64::from(self.drift.min(MAX_DRIFT));
        let nanos = u64::try_from(duration.min(MAX_DURATION).as_nanos()).unwrap_or(u64::MAX);
        // Rounded up; an hour of nanoseconds times 1200 is far below the limit.
        Duration::from_nanos((nanos * (1000 + drift)).div_ceil(1000 - drift))
    }

    /// Half of the duration at most, so that there is time to renew it.
    fn margin(&self) -> Duration {
        self.margin.min(self.duration() / 2)
    }

    fn majority(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// A number for the members.
    fn fingerprint(&self) -> i64 {
        i64::from(phash2(&list_of(self.members.iter().map(Term::from))))
    }
}

/// What happens to it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A message arrived.
    Message(Term),
    /// A monitor fired.
    Down(MonitorId),
    /// A process of this node wants a name: [`Action::Done`] follows.
    Acquire {
        /// A number for [`Action::Done`].
        command: u64,
        /// The name.
        name: Term,
        /// The process. It loses the name when it ends.
        pid: Pid,
        /// For how long to try.
        timeout: Duration,
    },
    /// A name is given up: [`Action::Done`] follows.
    Release {
        /// A number for [`Action::Done`].
        command: u64,
        /// The name.
        name: Term,
        /// The process that has it.
        pid: Pid,
    },
}

/// What became of a command.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// The process has the name, or has given it up.
    Done,
    /// A process of this node has the name, or wants it.
    Taken(Pid),
    /// No majority granted it in time.
    Timeout,
    /// The process does not have it.
    NotHeld,
    /// This node has too many leases, or the name is too long.
    SystemLimit,
}

/// What the host has to do.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// Send a message to the leases' process of these nodes, if they are connected.
    Send {
        /// The nodes.
        to: Vec<Atom>,
        /// The message.
        message: Term,
    },
    /// Monitor a process of this node.
    Monitor {
        /// How the machine will recognise it.
        monitor: MonitorId,
        /// The process.
        pid: Pid,
    },
    /// Give a monitor up; it must not fire any more.
    Demonitor(MonitorId),
    /// A process has a name until then, by the clock of this node; later if it is renewed.
    Held {
        /// The name.
        name: Term,
        /// The process.
        pid: Pid,
        /// When it ends.
        until: Mono,
    },
    /// A process has a name no longer: it gave it up, or ended.
    Released {
        /// The name.
        name: Term,
    },
    /// A lease could not be renewed. The process must end, or at least stop what it does under the name, within
    /// [`Config::margin`]: send it the exit signal `{lease_lost, Name}`.
    Lost {
        /// The name.
        name: Term,
        /// The process.
        pid: Pid,
    },
    /// A command is done.
    Done {
        /// Its number.
        command: u64,
        /// How.
        outcome: Outcome,
    },
}

/// A name that a process of this node has, or wants.
#[derive(Debug)]
struct Lease {
    pid: Pid,
    monitor: MonitorId,
    claim: u64,
    /// The question that is being voted on.
    round: u64,
    /// The time before it was asked.
    asked: Mono,
    granted: BTreeSet<Atom>,
    refused: BTreeSet<Atom>,
    /// Until when it is held.
    until: Option<Mono>,
    /// When to ask (again).
    next: Mono,
    /// Who waits for it, until when.
    wanted: Option<(u64, Mono)>,
}

/// The leases of one node; see the [module documentation](self).
#[derive(Debug)]
pub struct Leases {
    me: Pid,
    config: Config,
    now: Mono,
    random: Random,
    voter: Voter,
    leases: BTreeMap<Key, Lease>,
    monitors: BTreeMap<MonitorId, Key>,
    next: u64,
    actions: VecDeque<Action>,
    ignored: u64,
    mutant: LeftOut<Mutant>,
}

/// A rule that is left out on purpose, to see that the simulation notices.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Mutant {
    /// A member that was started anew votes at once.
    VoteAtOnce,
    /// A member keeps its grant as long as the holder its lease.
    NoDrift,
    /// A lease is counted from the votes, not from the question.
    CountFromVotes,
    /// Votes of earlier questions count.
    AnyRound,
    /// Half of the members are enough.
    Half,
    /// A member gives a name away that it has granted.
    GrantTwice,
}

impl Leases {
    /// The leases of the node of `me`, their process, which was started at `now`. `random` spreads attempts over time.
    pub fn new(now: Mono, me: Pid, config: Config, random: u64) -> Self {
        let abstains = now + config.hold(config.duration());
        Self {
            me,
            now,
            random: Random::new(random),
            voter: Voter::new(abstains),
            config,
            leases: BTreeMap::new(),
            monitors: BTreeMap::new(),
            next: 0,
            actions: VecDeque::new(),
            ignored: 0,
            mutant: LeftOut::default(),
        }
    }

    /// Whether a process of this node has a name at `now`: until when.
    pub fn is_held(&self, now: Mono, name: &Term, pid: &Pid) -> Option<Mono> {
        let lease = self.leases.get(&Key(name.clone())).filter(|lease| lease.pid == *pid)?;
        lease.until.filter(|until| *until > now)
    }

    /// The names that processes of this node have at `now`.
    pub fn held(&self, now: Mono) -> impl Iterator<Item = (&Term, &Pid)> {
        let held = move |lease: &Lease| lease.until.is_some_and(|until| until > now);
        self.leases.iter().filter(move |(_, lease)| held(lease)).map(|(name, lease)| (&name.0, &lease.pid))
    }

    /// For whom this node has voted: who has the name, or tries to have it, or was lost with it. Others may know better.
    pub fn voted_for(&self, now: Mono, name: &Term) -> Option<&Pid> {
        self.voter.granted(now, &Key(name.clone()))
    }

    /// How many messages could not be understood.
    pub fn ignored(&self) -> u64 {
        self.ignored
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn done(&mut self, command: u64, outcome: Outcome) {
        self.actions.push_back(Action::Done { command, outcome });
    }

    // -- the holder's side ---------------------------------------------------------------------------------------------

    fn acquire(&mut self, command: u64, name: Term, pid: Pid, timeout: Duration) {
        let key = Key(name);
        if let Some(lease) = self.leases.get(&key) {
            let taken = Outcome::Taken(lease.pid.clone());
            return self.done(command, taken);
        }
        let fits = encoded_len(&key.0).is_ok_and(|bytes| bytes <= self.config.max_bytes);
        if !fits || self.leases.len() >= self.config.max_leases {
            return self.done(command, Outcome::SystemLimit);
        }
        let monitor = MonitorId(self.number());
        self.monitors.insert(monitor, key.clone());
        self.actions.push_back(Action::Monitor { monitor, pid: pid.clone() });
        let claim = self.number();
        let lease = Lease {
            pid,
            monitor,
            claim,
            round: 0,
            asked: self.now,
            granted: BTreeSet::new(),
            refused: BTreeSet::new(),
            until: None,
            next: self.now,
            wanted: Some((command, self.now + timeout)),
        };
        self.leases.insert(key.clone(), lease);
        self.ask(&key);
    }

    /// Asks all members, this one first.
    fn ask(&mut self, key: &Key) {
        let round = self.number();
        let duration = self.config.duration();
        // Votes take a moment; a lost question is asked again well before a held lease ends.
        let patience =
            duration / 6 + Duration::from_nanos(self.random.below_u64(duration.as_nanos() as u64 / 6));
        let forget = !self.mutant.is(Mutant::AnyRound);
        let Some(lease) = self.leases.get_mut(key) else { return };
        (lease.round, lease.asked, lease.next) = (round, self.now, self.now + patience);
        if forget {
            lease.granted.clear();
            lease.refused.clear();
        }
        let ask = wire::Ask {
            members: self.config.fingerprint(),
            name: key.clone(),
            holder: self.me.clone(),
            claim: lease.claim,
            round,
            duration,
            pid: lease.pid.clone(),
        };
        self.send_others(wire::ask(&ask));
        if self.config.members.contains(&self.me.node) {
            let granted = self.vote(&ask);
            self.voted(key, ask.claim, round, &self.me.node.clone(), granted);
        }
    }

    fn send_others(&mut self, message: Term) {
        let to: Vec<Atom> =
            self.config.members.iter().filter(|node| **node != self.me.node).cloned().collect();
        if !to.is_empty() {
            self.actions.push_back(Action::Send { to, message });
        }
    }

    /// A member has voted.
    fn voted(&mut self, key: &Key, claim: u64, round: u64, voter: &Atom, granted: bool) {
        let any = self.mutant.is(Mutant::AnyRound);
        let majority =
            if self.mutant.is(Mutant::Half) { self.config.members.len() / 2 } else { self.config.majority() };
        let members = self.config.members.len();
        let from_votes = self.mutant.is(Mutant::CountFromVotes);
        let (now, duration) = (self.now, self.config.duration());
        if !self.config.members.contains(voter) {
            return;
        }
        let Some(lease) = self.leases.get_mut(key).filter(|lease| lease.claim == claim) else { return };
        if lease.round != round && !any {
            return;
        }
        if granted {
            lease.granted.insert(voter.clone());
        } else {
            lease.refused.insert(voter.clone());
        }
        if lease.granted.len() >= majority {
            let from = if from_votes { now } else { lease.asked };
            let until = from + duration;
            // A vote may come too late to be of use.
            if until <= now || lease.until.is_some_and(|before| before >= until) {
                return;
            }
            lease.until = Some(until);
            lease.next = lease.asked + duration / 3;
            let pid = lease.pid.clone();
            let wanted = lease.wanted.take();
            self.actions.push_back(Action::Held { name: key.0.clone(), pid, until });
            if let Some((command, _)) = wanted {
                self.done(command, Outcome::Done);
            }
        } else if lease.until.is_none() && lease.refused.len() > members - majority.min(members) {
            // Somebody else may have it with what is given back.
            let claim = lease.claim;
            let wait =
                duration / 20 + Duration::from_nanos(self.random.below_u64(duration.as_nanos() as u64 / 4));
            let new = self.number();
            if let Some(lease) = self.leases.get_mut(key) {
                lease.next = now + wait;
                lease.round = 0;
                lease.claim = new;
            }
            self.give_back(key, claim);
        }
    }

    /// Tells all that a claim is not held, and never will be again.
    fn give_back(&mut self, key: &Key, claim: u64) {
        self.send_others(wire::release(key, &self.me, claim));
        self.voter.release(key, &self.me, claim);
    }

    /// Ends what this node has of a name. `released`: nobody acts under it any more.
    fn end(&mut self, key: &Key, released: bool) -> Option<Lease> {
        let lease = self.leases.remove(key)?;
        if self.monitors.remove(&lease.monitor).is_some() {
            self.actions.push_back(Action::Demonitor(lease.monitor));
        }
        if released {
            if lease.until.is_some() {
                self.actions.push_back(Action::Released { name: key.0.clone() });
            }
            self.give_back(key, lease.claim);
        }
        Some(lease)
    }

    fn release(&mut self, command: u64, name: Term, pid: &Pid) {
        let key = Key(name);
        let now = self.now;
        let lease = self.leases.get(&key);
        if lease.is_none_or(|lease| lease.pid != *pid || lease.until.is_none_or(|until| until <= now)) {
            return self.done(command, Outcome::NotHeld);
        }
        self.end(&key, true);
        self.done(command, Outcome::Done);
    }

    fn down(&mut self, monitor: MonitorId) {
        let Some(key) = self.monitors.remove(&monitor) else { return };
        if let Some((command, _)) = self.end(&key, true).and_then(|lease| lease.wanted) {
            self.done(command, Outcome::NotHeld);
        }
    }

    fn time(&mut self) {
        let now = self.now;
        self.voter.expire(now);
        let due: Vec<Key> = self
            .leases
            .iter()
            .filter(|(_, lease)| self.due(lease) <= now)
            .map(|(key, _)| key.clone())
            .collect();
        for key in due {
            let Some(lease) = self.leases.get(&key) else { continue };
            if lease.until.is_some_and(|until| until <= now + self.config.margin()) {
                // Its process may still run: the members keep their grants until they run out.
                if let Some(lease) = self.end(&key, false) {
                    self.actions.push_back(Action::Lost { name: key.0, pid: lease.pid });
                }
            } else if lease.wanted.as_ref().is_some_and(|(_, deadline)| *deadline <= now) {
                if let Some((command, _)) = self.end(&key, true).and_then(|lease| lease.wanted) {
                    self.done(command, Outcome::Timeout);
                }
            } else if lease.next <= now {
                self.ask(&key);
            }
        }
    }

    /// When something is to be done about a lease.
    fn due(&self, lease: &Lease) -> Mono {
        let lost = lease.until.map_or(Mono(i64::MAX), |until| until - self.config.margin());
        let deadline = lease.wanted.as_ref().map_or(Mono(i64::MAX), |(_, deadline)| *deadline);
        lease.next.min(lost).min(deadline)
    }

    // -- the voter's side ----------------------------------------------------------------------------------------------

    fn vote(&mut self, ask: &wire::Ask) -> bool {
        let acceptable = ask.members == self.config.fingerprint()
            && ask.duration <= self.config.duration()
            && self.config.members.contains(&self.me.node)
            && encoded_len(&ask.name.0).is_ok_and(|bytes| bytes <= self.config.max_bytes);
        let hold =
            if self.mutant.is(Mutant::NoDrift) { ask.duration } else { self.config.hold(ask.duration) };
        let at_once = self.mutant.is(Mutant::VoteAtOnce);
        let twice = self.mutant.is(Mutant::GrantTwice);
        acceptable && self.voter.vote(self.now, ask, hold, self.config.max_leases, (at_once, twice))
    }

    fn message(&mut self, message: Term) -> Option<()> {
        match wire::read(message)? {
            Message::Ask(ask) => {
                if ask.holder.node == self.me.node {
                    return None;
                }
                let granted = self.vote(&ask);
                let vote = wire::vote(&ask, &self.me.node, granted);
                self.actions.push_back(Action::Send { to: vec![ask.holder.node], message: vote });
            }
            Message::Vote { name, claim, round, voter, granted } => {
                self.voted(&name, claim, round, &voter, granted);
            }
            Message::Release { name, holder, claim } => self.voter.release(&name, &holder, claim),
        }
        Some(())
    }
}

impl Machine for Leases {
    type Event = Event;
    type Action = Action;

    fn handle(&mut self, now: Mono, event: Event) {
        self.now = now;
        match event {
            Event::Message(message) => self.ignored += u64::from(self.message(message).is_none()),
            Event::Down(monitor) => self.down(monitor),
            Event::Acquire { command, name, pid, timeout } => self.acquire(command, name, pid, timeout),
            Event::Release { command, name, pid } => self.release(command, name, &pid),
        }
    }

    fn handle_timeout(&mut self, now: Mono) {
        self.now = now;
        self.time();
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    fn poll_timeout(&self) -> Option<Mono> {
        let leases = self.leases.values().map(|lease| self.due(lease));
        leases.chain(self.voter.next_expiry()).min()
    }
}

/// The reason of the exit signal of a process that has lost its lease: `{lease_lost, Name}`.
pub fn lost_reason(name: &Term) -> Term {
    tuple_of([crate::message::atom("lease_lost"), name.clone()])
}

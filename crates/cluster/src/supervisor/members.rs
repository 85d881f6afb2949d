//! Who is there, and what members tell each other of what is to run.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use foundation_proto::Mono;
use foundation_proto::etf::{Atom, Pid, Term};

use super::children::read_place;
use super::event::{Action, Status, To};
use super::specs::{Applied, Context, Item, Op, covers};
use super::wire::{self, Message};
use super::{Child, Dot, Mutant, Part, Supervisor, Vacant};
use crate::message::{atom, list_of, tuple_of};
use crate::names::{self, Change, Entry, OnConflict};
use crate::{Key, Machine};

/// A supervisor in reach.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) pid: Pid,
    pub(super) leaving: bool,
    pub(super) factories: BTreeSet<Atom>,
    /// When it was asked for what is missing here, until it answers.
    asked: Option<Mono>,
}

/// What is missing is asked for again after this.
const ASK_AGAIN: Duration = Duration::from_secs(2);

fn read_member(entry: &Entry) -> Option<Member> {
    let [tag, node] = entry.key.0.as_tuple()? else { return None };
    // Each speaks for itself.
    if !tag.is_atom("member") || *node.as_atom()? != entry.node {
        return None;
    }
    let [status, factories] = entry.value.as_tuple()? else { return None };
    let factories = factories.as_list()?.iter().filter_map(|name| name.as_atom().cloned()).collect();
    Some(Member { pid: entry.pid.clone(), leaving: !status.is_atom("alive"), factories, asked: None })
}

/// The children of the id of the first that are in a map.
fn of_id<T>(map: &BTreeMap<Child, T>, first: &Child, to: &mut BTreeSet<Child>) {
    let from = map.range(first..).map(|(child, _)| child);
    to.extend(from.take_while(|child| child.id == first.id).cloned());
}

impl Supervisor {
    /// Says that this node is there, and what it can make.
    pub(super) fn publish_member(&mut self) {
        let key = tuple_of([atom("member"), Term::from(&self.me.node)]);
        let status = atom(if self.leaving { "leaving" } else { "alive" });
        let value = tuple_of([status, list_of(self.factories.iter().map(Term::from))]);
        let pid = self.me.clone();
        let update = names::Command::UpdateValue { key: key.clone(), pid: pid.clone(), value: value.clone() };
        if self.command_names(update) != Some(names::Outcome::Done) {
            self.command_names(names::Command::Register { key, pid, value, on_conflict: OnConflict::Notify });
        }
    }

    pub(super) fn node_up(&mut self, node: Atom) {
        if node != self.me.node {
            self.connected.insert(node.clone(), self.now);
            self.names.handle(self.now, names::Event::NodeUp(node));
        }
    }

    pub(super) fn node_down(&mut self, node: Atom) {
        self.connected.remove(&node);
        self.names.handle(self.now, names::Event::NodeDown(node));
    }

    /// When all nodes that are connected have had the time to say what they run.
    pub(super) fn settled(&self) -> Mono {
        let unknown = self.connected.iter().filter(|(node, _)| !self.members.contains_key(*node));
        let latest = unknown.map(|(_, since)| *since + self.config.settle).max();
        latest.unwrap_or(Mono(i64::MIN))
    }

    /// What is found in the registry has changed.
    pub(super) fn changed(&mut self, change: Change) {
        match change {
            Change::Added(entry) | Change::Updated(entry) => self.seen(&entry),
            Change::Removed(entry) => self.gone(&entry),
            Change::Conflict { .. } => {}
        }
    }

    fn seen(&mut self, entry: &Entry) {
        if let Some(child) = Child::from_term(&entry.key.0) {
            self.dirty.insert(child);
        } else if let Some(member) = read_member(entry) {
            let node = entry.node.clone();
            let met = self.members.get(&node).is_none_or(|before| before.pid != member.pid);
            if met && node != self.me.node && !self.mutant.is(Mutant::NoExchange) {
                let context = wire::context(&self.me, self.specs.context());
                self.send(&member.pid, context);
            }
            let asked = self.members.get(&node).filter(|_| !met).and_then(|before| before.asked);
            self.members.insert(node, Member { asked, ..member });
            self.everything = true;
        }
    }

    fn gone(&mut self, entry: &Arc<Entry>) {
        if let Some(child) = Child::from_term(&entry.key.0) {
            if let Some(Status::Moving(to)) = read_place(entry).map(|place| place.status) {
                // That node goes first.
                self.vacant.insert(child.clone(), Vacant { since: self.now, prefer: Some(to), due: None });
            }
            self.dirty.insert(child);
        } else if let Some(member) = read_member(entry)
            && self.members.get(&entry.node).is_some_and(|known| known.pid == member.pid)
        {
            self.members.remove(&entry.node);
            self.member_lost(&entry.node);
            self.everything = true;
            // What it wrote last may not have reached all.
            if let Some(number) = self.specs.context().get(&entry.pid).copied() {
                self.pass_on(Context::from([(entry.pid.clone(), number)]));
            }
            self.ask_next();
        }
    }

    /// The nodes that may start a child with this factory.
    pub(super) fn candidates(&self, factory: &Atom) -> Vec<Atom> {
        let able = |member: &Member| !member.leaving && member.factories.contains(factory);
        self.members.iter().filter(|(_, member)| able(member)).map(|(node, _)| node.clone()).collect()
    }

    /// Whether more than half of the configured members are in reach.
    pub(super) fn has_quorum(&self) -> bool {
        let there = self.config.members.iter().filter(|node| self.members.contains_key(*node)).count();
        2 * there > self.config.members.len()
    }

    // -- what is to run ------------------------------------------------------------------------------------------------

    /// Writes, and tells all members.
    pub(super) fn write(&mut self, item: Option<Item>, removed: Vec<Dot>) {
        let (op, changed) = self.specs.write(item, removed);
        self.specs_changed(changed);
        let me = &self.me;
        let others = self.members.values().filter(|member| member.pid != *me);
        let to: Vec<To> = others.map(|member| To::Pid(member.pid.clone())).collect();
        if !to.is_empty() {
            self.actions.push_back(Action::Send { to, message: wire::op(&self.me, &op) });
        }
    }

    /// The specifications of these ids may have changed.
    pub(super) fn specs_changed(&mut self, ids: BTreeSet<Key>) {
        for id in ids {
            if let Some((_, spec)) = self.specs.get(&id) {
                let parts = spec.parts(&self.me.node);
                self.dirty.extend(parts.into_iter().map(|part| Child { id: id.clone(), part }));
            }
            // The first of its parts in the order of children; also for whoever waits for it, if there is nothing of it here.
            let first = Child { id, part: Part::Only };
            of_id(&self.running, &first, &mut self.dirty);
            of_id(&self.vacant, &first, &mut self.dirty);
            of_id(&self.incoming, &first, &mut self.dirty);
            of_id(&self.outgoing, &first, &mut self.dirty);
            of_id(&self.ended, &first, &mut self.dirty);
            self.dirty.insert(first);
        }
    }

    /// Everything is looked at anew.
    pub(super) fn all_dirty(&mut self) {
        let mut all: BTreeSet<Child> = BTreeSet::new();
        for id in self.specs.ids() {
            if let Some((_, spec)) = self.specs.get(id) {
                let parts = spec.parts(&self.me.node);
                all.extend(parts.into_iter().map(|part| Child { id: id.clone(), part }));
            }
        }
        all.extend(self.running.keys().chain(self.vacant.keys()).cloned());
        all.extend(self.incoming.keys().chain(self.outgoing.keys()).cloned());
        self.dirty.append(&mut all);
    }

    pub(super) fn told(&mut self, message: Message) -> Option<()> {
        match message {
            Message::Context { from, context } => {
                let mine = self.specs.context();
                let (here, there) = (!covers(&context, mine), !covers(mine, &context));
                // What the other lacks goes first: then it knows more than what is asked for.
                if here {
                    let (live, items) = self.specs.lacking(&context);
                    let state = wire::state(&self.me, mine, &live, &items);
                    self.send(&from, state);
                }
                if there {
                    self.ask(&from);
                }
            }
            Message::Op { from, op } => self.applied(&from, op),
            Message::Seen { from, context } => self.seen_elsewhere(from, context),
            Message::State { from, context, live, items } => {
                if from.node == self.me.node {
                    return None;
                }
                if let Some(member) = self.members.get_mut(&from.node).filter(|member| member.pid == from) {
                    member.asked = None;
                }
                self.offers.remove(&from);
                let before = self.specs.context().clone();
                match self.specs.merge(context, &live, items) {
                    Some(changed) => self.specs_changed(changed),
                    None => self.stats.refused += 1,
                }
                let after = self.specs.context().iter();
                let new = after.filter(|(by, number)| before.get(*by).is_none_or(|seen| seen < *number));
                self.pass_on(new.map(|(by, number)| (by.clone(), *number)).collect());
                self.ask_next();
            }
            Message::HandOff { from, number, child, dot, state } => {
                self.offered(from, number, child, dot, state);
            }
            Message::Taken { from, number } => self.hand_off_answered(&from, number, true),
            Message::Refused { from, number } => self.hand_off_answered(&from, number, false),
            Message::Migrate { from, number, child, to } => self.asked_to_migrate(from, number, child, to),
            Message::Migrated { from, number, done } => self.migrated(&from, number, done),
            Message::Restart { id } => self.restart_failed(&id),
        }
        Some(())
    }

    /// What the writer of this has sent before is missing: it is asked, once until it answers. One that is not known yet is asked when
    /// it is found.
    fn missing(&mut self, of: &Pid) {
        let now = self.now;
        let Some(member) = self.members.get_mut(&of.node).filter(|member| member.pid == *of) else { return };
        if member.asked.is_none_or(|asked| asked + ASK_AGAIN <= now) {
            member.asked = Some(now);
            self.ask(of);
        }
    }

    /// Tells the other members how far this one has seen those who cannot tell them: each member tells all others what it writes, so only what
    /// somebody wrote who is not in reach may be known to some and not to others.
    fn pass_on(&mut self, mut seen: Context) {
        seen.retain(|by, _| self.members.get(&by.node).is_none_or(|member| member.pid != *by));
        if seen.is_empty() || self.mutant.is(Mutant::KeepToOneself) {
            return;
        }
        let others = self.members.values().filter(|member| member.pid != self.me);
        let to: Vec<To> = others.map(|member| To::Pid(member.pid.clone())).collect();
        if !to.is_empty() {
            self.actions.push_back(Action::Send { to, message: wire::seen(&self.me, &seen) });
        }
    }

    /// Another member has seen this much. What it has and this one lacks is asked for; of several that have it, one after the other.
    fn seen_elsewhere(&mut self, from: Pid, mut context: Context) {
        // Whoever is not known yet compares with this one when it is found.
        if self.members.get(&from.node).is_none_or(|member| member.pid != from) {
            return;
        }
        let offer = self.offers.entry(from).or_default();
        offer.append(&mut context);
        while offer.len() > self.config.max_writers {
            offer.pop_last();
        }
        self.ask_next();
    }

    fn ask_next(&mut self) {
        let (seen, members, now) = (self.specs.context(), &self.members, self.now);
        let member = |of: &Pid| members.get(&of.node).filter(|member| member.pid == *of);
        self.offers.retain(|from, offer| {
            offer.retain(|by, number| seen.get(by).is_none_or(|seen| seen < number));
            !offer.is_empty() && member(from).is_some()
        });
        let asked = |of: &Pid| member(of).and_then(|member| member.asked);
        let waiting = |of: &Pid| asked(of).is_some_and(|asked| asked + ASK_AGAIN > now);
        if !self.offers.keys().any(waiting)
            && let Some(next) = self.offers.keys().next().cloned()
        {
            self.missing(&next);
        }
    }

    fn ask(&mut self, of: &Pid) {
        let context = wire::context(&self.me, self.specs.context());
        self.send(of, context);
    }

    fn applied(&mut self, from: &Pid, op: Op) {
        let number = op.number;
        match self.specs.apply(from, op) {
            Applied::Changed(changed) => {
                self.specs_changed(changed);
                self.pass_on(Context::from([(from.clone(), number)]));
                self.ask_next();
            }
            Applied::Known => {}
            Applied::Gap => self.missing(from),
            Applied::Refused => self.stats.refused += 1,
        }
    }

    /// Which members have a factory, for callers.
    pub(super) fn members_term(&self) -> Term {
        list_of(self.members.iter().map(|(node, member)| {
            let status = atom(if member.leaving { "leaving" } else { "alive" });
            let factories = list_of(member.factories.iter().map(Term::from));
            tuple_of([Term::from(node), status, factories])
        }))
    }
}

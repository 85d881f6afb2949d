use std::collections::{BTreeMap, BTreeSet};

use foundation_proto::etf::{Atom, Pid, Term};

use crate::Key;

/// One run of a shard on a node.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Replica {
    /// The node.
    pub node: Atom,
    /// Which run.
    pub vsn: i64,
}

/// How far the changes of each replica were seen.
pub(super) type Context = BTreeMap<Replica, u64>;
/// Changes that were seen beyond the context.
pub(super) type Clouds = BTreeMap<Replica, BTreeSet<u64>>;
/// One change of one replica.
pub(super) type Tag = (Replica, u64);

/// What a value is about; there is one value for each.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Subject {
    pub(super) topic: Vec<u8>,
    pub(super) key: Key,
    pub(super) pid: Pid,
}

/// A value that came or went.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Value {
    pub(super) subject: Subject,
    pub(super) meta: Term,
    pub(super) tag: Tag,
}

/// What a replica sends: changes since its last heartbeat, or all it knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Remote {
    pub(super) context: Context,
    pub(super) clouds: Clouds,
    pub(super) values: BTreeMap<Tag, (Subject, Term)>,
}

/// The local changes since the last heartbeat.
#[derive(Clone, Debug, Default)]
pub(super) struct Delta {
    pub(super) clouds: Clouds,
    pub(super) values: BTreeMap<Tag, (Subject, Term)>,
    /// The own counter at the start and at the end.
    pub(super) range: (u64, u64),
}

/// The set, as `Phoenix.Tracker.State` has it; names and steps are the same.
#[derive(Debug)]
pub(super) struct State {
    pub(super) replica: Replica,
    pub(super) context: Context,
    pub(super) clouds: Clouds,
    values: Values,
    /// The subjects of each process of this node.
    pids: BTreeMap<Pid, BTreeSet<Subject>>,
    pub(super) delta: Delta,
    /// Replicas whose values are not listed for now.
    pub(super) down: BTreeSet<Replica>,
}

impl State {
    pub(super) fn new(replica: Replica) -> Self {
        Self {
            context: BTreeMap::from([(replica.clone(), 0)]),
            replica,
            clouds: Clouds::new(),
            values: Values::default(),
            pids: BTreeMap::new(),
            delta: Delta::default(),
            down: BTreeSet::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.values.count
    }

    pub(super) fn get(&self, subject: &Subject) -> Option<&(Term, Tag)> {
        self.values.get(subject)
    }

    /// The subjects of a process of this node.
    pub(super) fn subjects(&self, pid: &Pid) -> Vec<Subject> {
        self.pids.get(pid).into_iter().flatten().cloned().collect()
    }

    /// The values of a topic that belong to replicas that are not down.
    pub(super) fn topic<'a>(&'a self, topic: &'a [u8]) -> impl Iterator<Item = (&'a Subject, &'a Term)> {
        let of_topic = self.values.topics.get(topic).into_iter().flatten();
        of_topic
            .filter(|(_, (_, tag))| !self.down.contains(&tag.0))
            .map(|(subject, (meta, _))| (subject, meta))
    }

    /// The clocks of the replicas that are not down.
    pub(super) fn clocks(&self) -> Context {
        let known = self.context.iter().filter(|(replica, _)| !self.down.contains(*replica));
        known.map(|(replica, clock)| (replica.clone(), *clock)).collect()
    }

    pub(super) fn join(&mut self, subject: Subject, meta: Term) {
        let tag = self.bump_clock();
        self.insert(subject, meta, tag);
    }

    /// Removes and adds in one step.
    pub(super) fn leave_join(&mut self, subject: &Subject, meta: Term) {
        let Some((_, tag)) = self.values.get(subject) else { return };
        let tag = tag.clone();
        self.forget_tag(&tag);
        self.bump_clock();
        let tag = self.bump_clock();
        self.insert(subject.clone(), meta, tag);
    }

    pub(super) fn leave(&mut self, subject: &Subject) {
        let Some((_, tag)) = self.values.remove(subject) else { return };
        if let Some(subjects) = self.pids.get_mut(&subject.pid) {
            subjects.remove(subject);
            if subjects.is_empty() {
                self.pids.remove(&subject.pid);
            }
        }
        self.forget_tag(&tag);
        self.bump_clock();
    }

    fn insert(&mut self, subject: Subject, meta: Term, tag: Tag) {
        self.delta.values.insert(tag.clone(), (subject.clone(), meta.clone()));
        self.pids.entry(subject.pid.clone()).or_default().insert(subject.clone());
        self.values.insert(subject, (meta, tag));
    }

    fn forget_tag(&mut self, tag: &Tag) {
        delete_tag(&mut self.clouds, tag);
        self.remove_delta_tag(tag);
    }

    fn remove_delta_tag(&mut self, tag: &Tag) {
        put_tag(&mut self.delta.clouds, tag);
        self.delta.values.remove(tag);
    }

    fn bump_clock(&mut self) -> Tag {
        let clock = self.context.entry(self.replica.clone()).or_default();
        *clock += 1;
        let tag = (self.replica.clone(), *clock);
        self.delta.range.1 = tag.1;
        put_tag(&mut self.clouds, &tag);
        put_tag(&mut self.delta.clouds, &tag);
        tag
    }

    pub(super) fn has_delta(&self) -> bool {
        self.delta.clouds.values().any(|cloud| !cloud.is_empty())
    }

    /// The changes since the last time.
    pub(super) fn take_delta(&mut self) -> Delta {
        let clock = self.context.get(&self.replica).copied().unwrap_or_default();
        let delta = core::mem::replace(&mut self.delta, Delta { range: (clock, clock), ..Delta::default() });
        self.compact();
        delta
    }

    /// All that a replica with these clocks may learn from here.
    pub(super) fn extract(&self, requester: &Replica, clocks: &Context) -> Remote {
        let asked = |replica: &Replica| clocks.contains_key(replica);
        let context =
            self.context.iter().filter(|(replica, _)| asked(replica)).map(|(r, clock)| (r.clone(), *clock));
        let clouds = self.clouds.iter().filter(|(replica, _)| asked(replica));
        let values = self
            .values
            .iter()
            .filter(|(_, (_, tag))| asked(&tag.0) && tag.0 != *requester)
            .map(|(subject, (meta, tag))| (tag.clone(), (subject.clone(), meta.clone())));
        Remote {
            context: context.collect(),
            clouds: clouds.map(|(replica, cloud)| (replica.clone(), cloud.clone())).collect(),
            values: values.collect(),
        }
    }

    /// Takes in what another replica sent; returns what came and what went.
    pub(super) fn merge(&mut self, remote: Remote, max_values: usize) -> (Vec<Value>, Vec<Value>) {
        let mut joins = Vec::new();
        for (tag, (subject, meta)) in &remote.values {
            let known = !self.context.contains_key(&tag.0) || is_in(&self.context, &self.clouds, tag);
            // A process is tracked by its own node only.
            let own = tag.0 == self.replica || subject.pid.node == self.replica.node;
            if !known && !own && self.values.count + joins.len() < max_values {
                joins.push(Value { subject: subject.clone(), meta: meta.clone(), tag: tag.clone() });
            }
        }
        let gone = |tag: &Tag| {
            tag.0 != self.replica
                && !remote.values.contains_key(tag)
                && is_in(&remote.context, &remote.clouds, tag)
        };
        let mut leaves: Vec<Value> = self
            .values
            .iter()
            .filter(|(_, (_, tag))| gone(tag))
            .map(|(subject, (meta, tag))| Value {
                subject: subject.clone(),
                meta: meta.clone(),
                tag: tag.clone(),
            })
            .collect();
        // An update whose first half was lost on the way: the removal of the old value is still to come, by transfer. Phoenix
        // overwrites the value without a word; here its end is told.
        joins.retain(|join| {
            let old = self.values.get(&join.subject).filter(|(_, tag)| !gone(tag));
            let Some((meta, tag)) = old else { return true };
            let newer = tag.0 != join.tag.0 || tag.1 < join.tag.1;
            if newer {
                let (subject, meta, tag) = (join.subject.clone(), meta.clone(), tag.clone());
                leaves.push(Value { subject, meta, tag });
            }
            newer
        });
        for (replica, cloud) in remote.clouds {
            if self.context.contains_key(&replica) && replica != self.replica {
                self.clouds.entry(replica).or_default().extend(cloud);
            }
        }
        for value in &leaves {
            delete_tag(&mut self.clouds, &value.tag);
            self.values.remove(&value.subject);
        }
        for value in &joins {
            self.values.insert(value.subject.clone(), (value.meta.clone(), value.tag.clone()));
        }
        for (replica, clock) in remote.context {
            if let Some(known) = self.context.get_mut(&replica)
                && replica != self.replica
            {
                *known = (*known).max(clock);
            }
        }
        self.compact();
        (joins, leaves)
    }

    /// A replica lives; returns its values, if they were not listed.
    pub(super) fn replica_up(&mut self, replica: &Replica) -> Vec<Value> {
        self.context.entry(replica.clone()).or_insert(0);
        self.down.remove(replica);
        self.of_replica(replica)
    }

    /// A replica is silent; returns its values, which are not listed from now on.
    pub(super) fn replica_down(&mut self, replica: &Replica) -> Vec<Value> {
        self.down.insert(replica.clone());
        self.of_replica(replica)
    }

    /// A replica does not come back.
    pub(super) fn remove_replica(&mut self, replica: &Replica) {
        self.context.remove(replica);
        self.clouds.remove(replica);
        self.down.remove(replica);
        self.delta.clouds.remove(replica);
        self.values.retain(|tag| tag.0 != *replica);
    }

    fn of_replica(&self, replica: &Replica) -> Vec<Value> {
        let of = self.values.iter().filter(|(_, (_, tag))| tag.0 == *replica);
        of.map(|(subject, (meta, tag))| Value {
            subject: subject.clone(),
            meta: meta.clone(),
            tag: tag.clone(),
        })
        .collect()
    }

    /// Moves from the clouds to the context what follows it without a gap.
    fn compact(&mut self) {
        for (replica, cloud) in &mut self.clouds {
            let mut clock = self.context.get(replica).copied();
            while let Some(next) = cloud.first().copied() {
                match clock {
                    Some(known) if next <= known => {}
                    Some(known) if next == known + 1 => clock = Some(next),
                    None if next == 1 => clock = Some(1),
                    _ => break,
                }
                cloud.pop_first();
            }
            if let Some(clock) = clock {
                self.context.insert(replica.clone(), clock);
            }
        }
        self.clouds.retain(|_, cloud| !cloud.is_empty());
    }
}

/// The values by topic, so that one topic can be listed.
#[derive(Debug, Default)]
struct Values {
    topics: BTreeMap<Vec<u8>, BTreeMap<Subject, (Term, Tag)>>,
    count: usize,
}

impl Values {
    fn get(&self, subject: &Subject) -> Option<&(Term, Tag)> {
        self.topics.get(&subject.topic)?.get(subject)
    }

    fn insert(&mut self, subject: Subject, value: (Term, Tag)) {
        let topic = self.topics.entry(subject.topic.clone()).or_default();
        self.count += usize::from(topic.insert(subject, value).is_none());
    }

    fn remove(&mut self, subject: &Subject) -> Option<(Term, Tag)> {
        let topic = self.topics.get_mut(&subject.topic)?;
        let removed = topic.remove(subject)?;
        if topic.is_empty() {
            self.topics.remove(&subject.topic);
        }
        self.count -= 1;
        Some(removed)
    }

    fn iter(&self) -> impl Iterator<Item = (&Subject, &(Term, Tag))> {
        self.topics.values().flatten()
    }

    fn retain(&mut self, mut keep: impl FnMut(&Tag) -> bool) {
        for topic in self.topics.values_mut() {
            topic.retain(|_, (_, tag)| keep(tag));
        }
        self.topics.retain(|_, topic| !topic.is_empty());
        self.count = self.topics.values().map(BTreeMap::len).sum();
    }
}

fn is_in(context: &Context, clouds: &Clouds, (replica, clock): &Tag) -> bool {
    context.get(replica).is_some_and(|known| known >= clock)
        || clouds.get(replica).is_some_and(|cloud| cloud.contains(clock))
}

fn put_tag(clouds: &mut Clouds, (replica, clock): &Tag) {
    clouds.entry(replica.clone()).or_default().insert(*clock);
}

fn delete_tag(clouds: &mut Clouds, (replica, clock): &Tag) {
    if let Some(cloud) = clouds.get_mut(replica) {
        cloud.remove(clock);
    }
}

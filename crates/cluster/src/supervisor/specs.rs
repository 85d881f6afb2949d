//! What is to run, as all members know it: a causal set of specifications that survives the nodes that wrote them.
//!
//! Each writer numbers its writes; an item is known by the write that made it, its dot. One number for each writer, the context,
//! says what a member has seen. An item that another member lacks although it has seen its dot was removed there: no mark of a
//! removal has to be kept, and nothing that was removed comes back with a member that was away. (An optimised observed-remove
//! set: Bieniusa and others, 2012.)

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use foundation_proto::etf::Pid;

use super::spec::{ChildSpec, Part};
use crate::Key;
use crate::mutant::LeftOut;

/// A write: the supervisor that made it, and its number there.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Dot {
    pub(super) by: Pid,
    pub(super) number: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Item {
    /// A child is to run. Of several of one id that were written at a time, the one with the earliest claim counts.
    Spec { claim: i64, spec: Arc<ChildSpec> },
    /// A part of a specification is not to be started (again).
    Done { of: Dot, part: Part },
}

/// What one write changes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Op {
    pub(super) number: u64,
    pub(super) item: Option<Item>,
    pub(super) removed: Vec<Dot>,
}

/// How far somebody has seen the writes of all.
pub(super) type Context = BTreeMap<Pid, u64>;

#[derive(Debug)]
pub(super) enum Applied {
    /// The specifications of these ids may have changed.
    Changed(BTreeSet<Key>),
    /// It was known.
    Known,
    /// Something before it is missing.
    Gap,
    /// There is no room.
    Refused,
}

#[derive(Debug)]
pub(super) struct Specs {
    me: Pid,
    context: Context,
    items: BTreeMap<Dot, Item>,
    ids: BTreeMap<Key, BTreeSet<Dot>>,
    done: BTreeMap<Dot, BTreeMap<Part, BTreeSet<Dot>>>,
    max_items: usize,
    max_writers: usize,
    /// What this member has removed, of all that it removed by itself.
    #[cfg(test)]
    pub(super) removed: Vec<Dot>,
    pub(super) mutant: LeftOut<super::Mutant>,
}

fn has_seen(context: &Context, dot: &Dot) -> bool {
    context.get(&dot.by).is_some_and(|seen| *seen >= dot.number)
}

/// Whether the first has seen all that the second has.
pub(super) fn covers(first: &Context, second: &Context) -> bool {
    second.iter().all(|(by, number)| first.get(by).is_some_and(|seen| seen >= number))
}

impl Specs {
    pub(super) fn new(me: Pid, max_items: usize, max_writers: usize) -> Self {
        Self {
            me,
            context: BTreeMap::new(),
            items: BTreeMap::new(),
            ids: BTreeMap::new(),
            done: BTreeMap::new(),
            max_items,
            max_writers,
            #[cfg(test)]
            removed: Vec::new(),
            mutant: LeftOut::default(),
        }
    }

    pub(super) fn context(&self) -> &Context {
        &self.context
    }

    #[cfg(test)]
    pub(super) fn items(&self) -> impl Iterator<Item = (&Dot, &Item)> {
        self.items.iter()
    }

    /// How many items there are: specifications and marks.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &Key> {
        self.ids.keys()
    }

    fn spec(&self, dot: &Dot) -> Option<(i64, &Arc<ChildSpec>)> {
        match self.items.get(dot)? {
            Item::Spec { claim, spec } => Some((*claim, spec)),
            Item::Done { .. } => None,
        }
    }

    /// The specification of an id that counts.
    pub(super) fn get(&self, id: &Key) -> Option<(&Dot, &Arc<ChildSpec>)> {
        let dots = self.ids.get(id)?;
        let first = dots.iter().min_by_key(|dot| (self.spec(dot).map(|(claim, _)| claim), *dot))?;
        Some((first, self.spec(first)?.1))
    }

    /// All dots of an id: more than one if several wrote it at a time.
    pub(super) fn dots(&self, id: &Key) -> Vec<Dot> {
        self.ids.get(id).into_iter().flatten().cloned().collect()
    }

    /// Whether a part is not to be started (again).
    pub(super) fn is_done(&self, of: &Dot, part: &Part) -> bool {
        self.done.get(of).is_some_and(|parts| parts.contains_key(part))
    }

    pub(super) fn done_parts(&self, of: &Dot) -> usize {
        self.done.get(of).map_or(0, BTreeMap::len)
    }

    /// Writes. What it removes takes its marks along.
    pub(super) fn write(&mut self, item: Option<Item>, removed: Vec<Dot>) -> (Op, BTreeSet<Key>) {
        let number = self.context.get(&self.me).map_or(1, |number| number + 1);
        #[cfg(test)]
        self.removed.extend(removed.iter().cloned());
        let op = Op { number, item, removed };
        let changed = self.put(self.me.clone(), op.clone());
        (op, changed)
    }

    fn put(&mut self, by: Pid, op: Op) -> BTreeSet<Key> {
        let mut changed = BTreeSet::new();
        for dot in &op.removed {
            changed.extend(self.remove(dot));
        }
        self.context.insert(by.clone(), op.number);
        if let Some(item) = op.item {
            changed.extend(self.insert(Dot { by, number: op.number }, item));
        }
        self.trim();
        changed
    }

    fn insert(&mut self, dot: Dot, item: Item) -> Option<Key> {
        let id = match &item {
            Item::Spec { spec, .. } => {
                let id = Key(spec.id.clone());
                self.ids.entry(id.clone()).or_default().insert(dot.clone());
                id
            }
            // A mark of what is gone: nobody needs it, and nobody keeps it.
            Item::Done { of, .. } if has_seen(&self.context, of) && !self.items.contains_key(of) => {
                return None;
            }
            Item::Done { of, part } => {
                let (of, part) = (of.clone(), part.clone());
                self.done.entry(of.clone()).or_default().entry(part).or_default().insert(dot.clone());
                let id = self.spec(&of).map(|(_, spec)| Key(spec.id.clone()));
                self.items.insert(dot, item);
                return id;
            }
        };
        self.items.insert(dot, item);
        Some(id)
    }

    fn remove(&mut self, dot: &Dot) -> Option<Key> {
        match self.items.remove(dot)? {
            Item::Spec { spec, .. } => {
                let id = Key(spec.id.clone());
                if let Some(dots) = self.ids.get_mut(&id) {
                    dots.remove(dot);
                    if dots.is_empty() {
                        self.ids.remove(&id);
                    }
                }
                for mark in self.done.remove(dot).unwrap_or_default().into_values().flatten() {
                    self.items.remove(&mark);
                }
                Some(id)
            }
            Item::Done { of, part } => {
                if let Some(parts) = self.done.get_mut(&of) {
                    if let Some(marks) = parts.get_mut(&part) {
                        marks.remove(dot);
                        if marks.is_empty() {
                            parts.remove(&part);
                        }
                    }
                    if parts.is_empty() {
                        self.done.remove(&of);
                    }
                }
                None
            }
        }
    }

    /// Takes in a write of another, if all that it builds on is known.
    pub(super) fn apply(&mut self, by: &Pid, op: Op) -> Applied {
        let seen = self.context.get(by).copied().unwrap_or(0);
        if op.number <= seen {
            return Applied::Known;
        }
        let unseen = |dot: &Dot| !has_seen(&self.context, dot);
        let of = match &op.item {
            Some(Item::Done { of, .. }) => Some(of),
            _ => None,
        };
        let gap = op.number != seen + 1 || op.removed.iter().chain(of).any(unseen);
        if gap && !self.mutant.is(super::Mutant::IgnoreGap) {
            return Applied::Gap;
        }
        if op.item.is_some() && self.items.len() >= self.max_items.saturating_mul(2) {
            return Applied::Refused;
        }
        Applied::Changed(self.put(by.clone(), op))
    }

    /// What somebody with this context lacks: the dots of all that is there, and the items that they do not know.
    pub(super) fn lacking(&self, context: &Context) -> (Vec<Dot>, Vec<(Dot, Item)>) {
        let live = self.items.keys().cloned().collect();
        let new = self.items.iter().filter(|(dot, _)| !has_seen(context, dot));
        (live, new.map(|(dot, item)| (dot.clone(), item.clone())).collect())
    }

    /// Takes in what another member has, given in answer to a context of this one.
    pub(super) fn merge(
        &mut self,
        context: Context,
        live: &BTreeSet<Dot>,
        items: Vec<(Dot, Item)>,
    ) -> Option<BTreeSet<Key>> {
        let new: Vec<(Dot, Item)> =
            items.into_iter().filter(|(dot, _)| !has_seen(&self.context, dot)).collect();
        if self.items.len() + new.len() > self.max_items.saturating_mul(2) {
            return None;
        }
        let gone: Vec<Dot> = self
            .items
            .keys()
            .filter(|dot| has_seen(&context, dot) && !live.contains(*dot))
            .cloned()
            .collect();
        let mut changed = BTreeSet::new();
        if !self.mutant.is(super::Mutant::KeepRemoved) {
            for dot in &gone {
                changed.extend(self.remove(dot));
            }
        }
        // Specifications before their marks.
        let (specs, marks): (Vec<_>, Vec<_>) =
            new.into_iter().partition(|(_, item)| matches!(item, Item::Spec { .. }));
        for (dot, item) in specs {
            changed.extend(self.insert(dot, item));
        }
        for (by, number) in context {
            let seen = self.context.entry(by).or_insert(number);
            *seen = (*seen).max(number);
        }
        for (dot, item) in marks {
            changed.extend(self.insert(dot, item));
        }
        self.trim();
        Some(changed)
    }

    /// Forgets writers of whom nothing is left when there are too many.
    fn trim(&mut self) {
        let excess = self.context.len().saturating_sub(self.max_writers);
        if excess == 0 {
            return;
        }
        let alive: BTreeSet<&Pid> = self.items.keys().map(|dot| &dot.by).collect();
        let idle = |by: &Pid| *by != self.me && !alive.contains(by);
        let mut oldest: Vec<Pid> = self.context.keys().filter(|by| idle(by)).cloned().collect();
        oldest.sort_by(|a, b| (a.creation, a).cmp(&(b.creation, b)));
        for by in oldest.into_iter().take(excess) {
            self.context.remove(&by);
        }
    }
}

#[cfg(test)]
mod tests {
    use foundation_proto::etf::{Atom, Term};

    use super::*;

    fn writer(node: &'static str) -> Specs {
        let me = Pid { node: Atom::new_static(node), id: 1, serial: 0, creation: 1 };
        Specs::new(me, 100, 10)
    }

    fn spec(id: i64, claim: i64) -> Item {
        let spec = ChildSpec::new(Term::Integer(id), Atom::new_static("f"));
        Item::Spec { claim, spec: Arc::new(spec) }
    }

    fn exchange(from: &Specs, to: &mut Specs) {
        let (live, items) = from.lacking(to.context());
        to.merge(from.context().clone(), &live.into_iter().collect(), items).unwrap();
    }

    fn id(id: i64) -> Key {
        Key(Term::Integer(id))
    }

    #[test]
    fn what_was_removed_does_not_come_back() {
        let (mut a, mut b, mut c) = (writer("a@h"), writer("b@h"), writer("c@h"));
        a.write(Some(spec(1, 0)), Vec::new());
        exchange(&a, &mut b);
        exchange(&a, &mut c);
        let dots = b.dots(&id(1));
        b.write(None, dots);
        // c was away, and comes back with what it had.
        exchange(&c, &mut b);
        assert!(b.get(&id(1)).is_none());
        exchange(&b, &mut c);
        assert!(c.get(&id(1)).is_none());
        assert!(covers(c.context(), b.context()));
    }

    #[test]
    fn of_two_at_a_time_all_choose_the_earlier() {
        let (mut a, mut b) = (writer("a@h"), writer("b@h"));
        a.write(Some(spec(1, 20)), Vec::new());
        b.write(Some(spec(1, 10)), Vec::new());
        exchange(&a, &mut b);
        exchange(&b, &mut a);
        assert_eq!(a.get(&id(1)).map(|(dot, _)| dot.by.node.as_str()), Some("b@h"));
        assert_eq!(b.get(&id(1)), a.get(&id(1)));
        assert_eq!(a.dots(&id(1)).len(), 2);
    }

    #[test]
    fn a_write_waits_for_what_it_builds_on() {
        let (mut a, mut b, mut c) = (writer("a@h"), writer("b@h"), writer("c@h"));
        let (first, _) = a.write(Some(spec(1, 0)), Vec::new());
        let a_pid = a.me.clone();
        assert!(matches!(b.apply(&a_pid, first.clone()), Applied::Changed(_)));
        let dots = b.dots(&id(1));
        let (removal, _) = b.write(None, dots);
        let b_pid = b.me.clone();
        assert!(matches!(c.apply(&b_pid, removal.clone()), Applied::Gap));
        assert!(matches!(c.apply(&a_pid, first.clone()), Applied::Changed(_)));
        assert!(matches!(c.apply(&b_pid, removal), Applied::Changed(_)));
        assert!(matches!(c.apply(&a_pid, first), Applied::Known));
        assert!(c.get(&id(1)).is_none());
    }

    #[test]
    fn a_mark_goes_with_its_specification() {
        let (mut a, mut b) = (writer("a@h"), writer("b@h"));
        a.write(Some(spec(1, 0)), Vec::new());
        let of = a.dots(&id(1)).remove(0);
        exchange(&a, &mut b);
        b.write(Some(Item::Done { of: of.clone(), part: Part::Only }), Vec::new());
        a.write(None, vec![of.clone()]);
        exchange(&a, &mut b);
        exchange(&b, &mut a);
        assert!(!a.is_done(&of, &Part::Only));
        assert_eq!((a.len(), b.len()), (0, 0));
        assert!(covers(a.context(), b.context()) && covers(b.context(), a.context()));
    }
}

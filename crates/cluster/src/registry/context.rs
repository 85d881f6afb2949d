use std::collections::{BTreeMap, BTreeSet};

/// One write: the `number`-th of a replica.
///
/// A replica is one incarnation of one member; DeltaCrdt draws its number at random from 1 to 10⁹.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Dot {
    /// The replica.
    pub replica: i64,
    /// Counts from 1.
    pub number: i64,
}

/// The writes that a member has seen: what it does not hold although it has seen it was removed.
///
/// DeltaCrdt keeps one number for each replica and means "all up to here". Taking a peer's numbers over with only a part
/// of its keys then declares the rest as seen and removed, which is how it loses data as soon as a sync is truncated. This
/// context keeps the dots beyond the gapless start one by one, so that it never claims more than was seen.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Context {
    /// All dots of the replica up to this number have been seen.
    upto: BTreeMap<i64, i64>,
    /// Dots beyond `upto`, not adjacent to it.
    beyond: BTreeSet<Dot>,
}

/// What has been seen of a replica of which something is missing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Gap {
    /// All dots up to this number.
    upto: i64,
    /// How many beyond.
    beyond: usize,
    /// The greatest of them.
    pub(super) latest: i64,
}

impl Context {
    /// Whether a dot has been seen.
    pub fn contains(&self, dot: Dot) -> bool {
        self.upto.get(&dot.replica).is_some_and(|upto| dot.number <= *upto) || self.beyond.contains(&dot)
    }

    /// The next dot of a replica that only ever takes its dots from here.
    pub fn next(&self, replica: i64) -> Dot {
        let last =
            self.beyond.range(Dot { replica, number: 0 }..=Dot { replica, number: i64::MAX }).next_back();
        let last = last.map_or(0, |dot| dot.number).max(self.upto(replica));
        Dot { replica, number: last.saturating_add(1) }
    }

    /// The number up to which all dots of a replica have been seen; 0 if none.
    pub fn upto(&self, replica: i64) -> i64 {
        self.upto.get(&replica).copied().unwrap_or(0)
    }

    /// The replicas of which any dot has been seen; one may come twice.
    pub fn replicas(&self) -> impl Iterator<Item = i64> {
        self.upto.keys().copied().chain(self.beyond.iter().map(|dot| dot.replica))
    }

    /// Notes one dot.
    pub fn insert(&mut self, dot: Dot) {
        if !self.contains(dot) {
            self.beyond.insert(dot);
            self.close(dot.replica);
        }
    }

    /// Notes all dots of a replica up to a number.
    pub fn insert_upto(&mut self, replica: i64, number: i64) {
        if number > self.upto(replica) {
            self.upto.insert(replica, number);
            self.close(replica);
        }
    }

    /// Notes all that another context has seen.
    pub fn merge(&mut self, other: &Self) {
        for (&replica, &number) in &other.upto {
            self.insert_upto(replica, number);
        }
        for &dot in &other.beyond {
            self.insert(dot);
        }
    }

    /// The gapless part: the number of each replica. This is what goes over the wire, as it claims nothing unseen.
    pub fn compact(&self) -> impl Iterator<Item = (i64, i64)> {
        self.upto.iter().map(|(replica, number)| (*replica, *number))
    }

    /// The dots that stand alone.
    pub fn beyond(&self) -> impl Iterator<Item = Dot> {
        self.beyond.iter().copied()
    }

    /// The replicas of which something is missing.
    pub(super) fn gaps(&self) -> BTreeMap<i64, Gap> {
        let mut gaps = BTreeMap::new();
        for dot in &self.beyond {
            let gap = gaps.entry(dot.replica);
            let gap = gap.or_insert(Gap { upto: self.upto(dot.replica), beyond: 0, latest: 0 });
            (gap.beyond, gap.latest) = (gap.beyond + 1, dot.number);
        }
        gaps
    }

    /// How many of the writes up to these numbers have not been seen.
    pub(super) fn unseen(&self, numbers: &BTreeMap<i64, i64>) -> usize {
        let of_replica = |(&replica, &number): (&i64, &i64)| {
            let upto = self.upto(replica);
            if number <= upto {
                return 0;
            }
            let beyond = Dot { replica, number: upto }..=Dot { replica, number };
            let seen = self.beyond.range(beyond).count();
            usize::try_from(number.saturating_sub(upto)).unwrap_or(usize::MAX).saturating_sub(seen)
        };
        numbers.iter().map(of_replica).fold(0, usize::saturating_add)
    }

    /// How many numbers it takes to keep this.
    pub fn size(&self) -> usize {
        self.upto.len() + self.beyond.len()
    }

    /// Moves the dots that have become adjacent, or covered, into the gapless part.
    fn close(&mut self, replica: i64) {
        let mut upto = self.upto(replica);
        while let Some(&dot) = self.beyond.range(Dot { replica, number: i64::MIN }..).next() {
            if dot.replica != replica || dot.number > upto.saturating_add(1) {
                break;
            }
            self.beyond.remove(&dot);
            upto = upto.max(dot.number);
        }
        if upto > 0 {
            self.upto.insert(replica, upto);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dot(replica: i64, number: i64) -> Dot {
        Dot { replica, number }
    }

    #[test]
    fn what_is_not_seen_up_to_a_number_is_counted() {
        let mut context = Context::default();
        context.insert_upto(1, 10);
        [12, 13, 20].into_iter().for_each(|number| context.insert(dot(1, number)));
        let unseen = |numbers: &[(i64, i64)]| context.unseen(&numbers.iter().copied().collect());
        assert_eq!(unseen(&[(1, 10)]), 0);
        assert_eq!(unseen(&[(1, 13)]), 1);
        assert_eq!(unseen(&[(1, 20), (2, 5)]), 7 + 5);
        assert_eq!(unseen(&[(1, i64::MIN), (2, i64::MAX), (3, i64::MAX), (4, 9)]), usize::MAX);
    }

    #[test]
    fn gaps_stay_open_until_they_are_filled() {
        let mut context = Context::default();
        context.insert(dot(1, 1));
        context.insert(dot(1, 4));
        context.insert(dot(1, 3));
        assert_eq!(context.compact().collect::<Vec<_>>(), [(1, 1)]);
        assert!(!context.contains(dot(1, 2)));
        assert_eq!(context.next(1), dot(1, 5));
        context.insert(dot(1, 2));
        assert_eq!(context.compact().collect::<Vec<_>>(), [(1, 4)]);
        assert_eq!(context.size(), 1);
    }

    #[test]
    fn merging_is_union() {
        let mut a = Context::default();
        a.insert_upto(1, 3);
        a.insert(dot(2, 2));
        let mut b = Context::default();
        b.insert(dot(1, 5));
        b.insert_upto(2, 1);
        let mut ab = a.clone();
        ab.merge(&b);
        b.merge(&a);
        assert_eq!(ab, b);
        assert_eq!(ab.compact().collect::<Vec<_>>(), [(1, 3), (2, 2)]);
        assert_eq!(ab.beyond().collect::<Vec<_>>(), [dot(1, 5)]);
    }
}

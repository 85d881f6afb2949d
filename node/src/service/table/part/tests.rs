use foundation_cluster::Key;
use foundation_cluster::names::Entry;
use foundation_proto::etf::{Atom, Pid};

use super::*;

fn known(key: i64, tag: u64, hasher: &RandomState) -> Known {
    Known { tag, ..Known::of(&Term::Integer(key), hasher) }
}

fn entry(key: i64, process: u32) -> Arc<Entry> {
    let node = Atom::new_static("a@b");
    let pid = Pid { node: node.clone(), id: process, serial: 0, creation: 1 };
    let key = Arc::new(Key(Term::Integer(key)));
    Arc::new(Entry { key, pid, value: Term::nil(), node, claim: 0, version: 1 })
}

fn slots(entries: &[(i64, u64, u32)], hasher: &RandomState) -> Vec<Slot<Entry>> {
    let slot =
        |(key, tag, process): &(i64, u64, u32)| Slot::new(&known(*key, *tag, hasher), entry(*key, *process));
    let mut slots: Vec<_> = entries.iter().map(slot).collect();
    slots.sort_by_key(|slot| slot.mark);
    slots
}

/// Key and process of all entries that are found under a key.
fn found(part: &Part<Entry>, key: i64, tag: u64, hasher: &RandomState) -> Vec<(i64, u32)> {
    let said = |entries: &mut dyn Iterator<Item = &Arc<Entry>>| {
        Some(entries.map(|entry| (entry.key.0.as_i64().unwrap(), entry.pid.id)).collect())
    };
    loop {
        if let Some(found) = part.read(&known(key, tag, hasher), &Term::Integer(key), said) {
            return found.unwrap_or_default();
        }
    }
}

/// A number of its own for each state of a small generator (Knuth's constants).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

#[test]
fn what_is_written_is_found_whatever_the_tags() {
    let hasher = RandomState::new();
    let part = Part::default();
    let mut state = 1;
    // Six keys with three tags, each with up to two processes.
    let tag = |key: i64| key as u64 % 3 + 1;
    let mut entries: Vec<(i64, u64, u32)> = Vec::new();
    for _ in 0..20_000 {
        let number = next(&mut state) % 4;
        let change = |_| (next(&mut state) as i64 % 6, next(&mut state) as u32 % 2);
        let changes = (0..number).map(change).map(|(key, process)| (key, tag(key), process));
        let changes: Vec<_> = changes.collect();
        let touched: Vec<u64> = changes.iter().map(|change| change.1).collect();
        let mut concerned: Vec<_> = part.slots(&touched, &hasher);
        for change in changes {
            let same = |slot: &Slot<Entry>| {
                (slot.item.key.0.as_i64(), slot.item.pid.id) == (Some(change.0), change.2)
            };
            if entries.contains(&change) {
                entries.retain(|entry| *entry != change);
                concerned.retain(|slot| !same(slot));
            } else {
                entries.push(change);
                concerned.extend(slots(&[change], &hasher));
            }
        }
        concerned.sort_by_key(|slot| slot.mark);
        part.write(&touched, concerned);
        for (key, tag, _) in &entries {
            let expected: Vec<_> =
                entries.iter().filter(|e| e.0 == *key).map(|(key, _, process)| (*key, *process)).collect();
            assert_eq!(found(&part, *key, *tag, &hasher), expected, "key {key} of {entries:?}");
        }
        for tag in 4..7 {
            assert_eq!(found(&part, 9, tag, &hasher), [], "nobody has this tag");
        }
    }
}

/// Places are used again and entries move between near and far while readers look.
#[test]
fn readers_find_no_other_key_and_miss_none() {
    let hasher = RandomState::new();
    let part = Part::default();
    // Key 0 is always there, alone or with a second process. The others come and go; 1 and 2 have one tag.
    let tag = |key: i64| if key == 2 { 1 } else { key as u64 + 10 * u64::from(key != 1) };
    part.write(&[], slots(&[(0, tag(0), 0)], &hasher));
    std::thread::scope(|threads| {
        let writer = threads.spawn(|| {
            let mut state = 7;
            for _ in 0..200_000 {
                let mut entries = vec![(0, tag(0), 0)];
                if next(&mut state).is_multiple_of(3) {
                    entries.push((0, tag(0), 1));
                }
                entries.extend(
                    (1..8).filter(|_| next(&mut state).is_multiple_of(2)).map(|key| (key, tag(key), 0)),
                );
                part.write(&part.tags(), slots(&entries, &hasher));
            }
        });
        let mut rounds = 0;
        while !writer.is_finished() || rounds == 0 {
            for key in 0..8 {
                let found = found(&part, key, tag(key), &hasher);
                assert!(key != 0 || !found.is_empty(), "it is there all the time");
                // Of two keys of one tag the one that is not there may be taken for the other.
                let right = |found: &(i64, u32)| found.0 == key || (tag(key) == 1 && found.0 < 3);
                assert!(found.iter().all(right), "key {key} found {found:?}");
            }
            rounds += 1;
        }
    });
}

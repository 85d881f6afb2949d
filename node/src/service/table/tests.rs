use foundation_cluster::Key;
use foundation_cluster::names::Entry;
use foundation_proto::etf::{Atom, Pid};

use super::*;

fn named(key: Term, process: u32, value: i64) -> Arc<Entry> {
    let node = Atom::new_static("a@b");
    let pid = Pid { node: node.clone(), id: process, serial: 0, creation: 1 };
    Arc::new(Entry { key: Arc::new(Key(key)), pid, value: Term::Integer(value), node, claim: 0, version: 1 })
}

fn entry(key: i64, process: u32, value: i64) -> Arc<Entry> {
    named(Term::Integer(key), process, value)
}

fn put(key: i64, process: u32, value: i64) -> Write<Entry> {
    Write::Put(entry(key, process, value))
}

fn remove(key: i64, process: u32) -> Write<Entry> {
    Write::Remove(entry(key, process, 0))
}

#[test]
fn readers_see_each_batch_of_changes() {
    let table = Table::default();
    let key = Term::Integer(1);
    assert_eq!(table.first(&key), None);
    table.apply((0..5000).map(|n| put(n, 7, 0)).collect());
    let found = |n: &i64| table.first(&Term::Integer(*n)).is_some_and(|e| e.key.0 == Term::Integer(*n));
    assert_eq!((-5..5005).filter(found).count(), 5000);
    table.apply(vec![put(1, 8, 0), put(1, 7, 5)]);
    assert_eq!(
        table.all(&key).iter().map(|e| e.value.clone()).collect::<Vec<_>>(),
        [5, 0].map(Term::Integer)
    );
    table.apply(vec![remove(1, 7), remove(1, 8)]);
    assert_eq!(table.all(&key), []);
    table.apply(vec![remove(2, 7), put(2, 9, 0)]);
    assert_eq!(table.first(&Term::Integer(2)).unwrap().pid.id, 9);
    assert_eq!(table.first(&Term::Float(2.0)), None, "keys are compared by =:=");
}

/// Looking at each of them for each of them would take minutes.
#[test]
fn one_key_has_very_many_processes() {
    let table: Table<Entry> = Table::default();
    let key = Term::Integer(1);
    let all = || table.all(&key).iter().map(|entry| entry.pid.id).collect::<Vec<_>>();
    table.apply((0..50_000).map(|process| put(1, process, 0)).collect());
    assert_eq!(all(), (0..50_000).collect::<Vec<_>>(), "in the order in which they came");
    table.apply((0..50_000).map(|process| put(1, process, 5)).collect());
    assert!(table.all(&key).iter().all(|entry| entry.value == Term::Integer(5)));
    table.apply((1..50_000).map(|process| remove(1, process)).collect());
    assert_eq!(all(), [0]);
    table.apply(vec![remove(1, 0), put(1, 2, 0), put(1, 1, 0)]);
    assert_eq!(all(), [2, 1]);
}

#[test]
fn keys_of_all_kinds_and_lengths_are_told_apart() {
    let text = |len: usize| Term::from("x".repeat(len).as_str());
    let mut keys: Vec<Term> = (0..60).map(text).collect();
    keys.extend((0..60).map(|len| Term::Atom(Atom::new(&"x".repeat(len)).unwrap())));
    keys.extend((0..20).map(|len| Term::tuple(vec![Term::Integer(0); len])));
    keys.extend((0..8).map(|byte| Term::Integer(1 << (8 * byte))));
    keys.extend([Term::Integer(0), Term::Integer(-1), Term::Float(0.0), Term::Float(-0.0), Term::nil()]);
    // What is inside a tuple must not be taken for what is behind it.
    let (a, b, empty) = (Term::atom("a"), Term::from("b"), Term::tuple([]));
    keys.extend([
        Term::tuple([a.clone(), b.clone()]),
        Term::tuple([Term::tuple([a.clone()]), b.clone()]),
        Term::tuple([Term::tuple([a.clone(), b.clone()])]),
        Term::tuple([Term::tuple([empty.clone()])]),
        Term::tuple([empty.clone(), empty.clone()]),
        Term::tuple([a, Term::Float(1.0)]),
        Term::from("b\0"),
        Term::from("\0"),
        Term::list([b]),
    ]);
    let table = Table::default();
    table
        .apply(keys.iter().enumerate().map(|(n, key)| Write::Put(named(key.clone(), n as u32, 0))).collect());
    for (n, key) in keys.iter().enumerate() {
        let found: Vec<u32> = table.all(key).iter().map(|entry| entry.pid.id).collect();
        assert_eq!(found, [n as u32], "{key:?}");
    }
    for (n, key) in keys.iter().enumerate() {
        table.apply(vec![Write::Remove(named(key.clone(), n as u32, 0))]);
        assert!(table.first(key).is_none() && keys.iter().skip(n + 1).all(|key| table.first(key).is_some()));
    }
}

/// A name that is there all the time is found all the time, while parts are added and others come and go.
#[test]
fn readers_miss_nothing_while_the_table_grows() {
    let table = Table::default();
    table.apply((0..100).map(|n| put(n, 7, 0)).collect());
    std::thread::scope(|threads| {
        let writer = threads.spawn(|| {
            for round in 1..60 {
                table.apply((0..500).map(|n| put(round * 1000 + n, 7, 0)).collect());
                table.apply((0..250).map(|n| remove(round * 1000 + n, 7)).collect());
                table.apply((0..100).map(|n| put(n, 7, round)).collect());
            }
        });
        let mut looked = 0;
        while !writer.is_finished() || looked == 0 {
            for n in 0..100 {
                assert!(table.first(&Term::Integer(n)).is_some(), "{n} was not found");
                looked += 1;
            }
        }
    });
    assert_eq!(table.entries.load(Ordering::Relaxed), 100 + 59 * 250);
    assert!(table.parts.load(Ordering::Relaxed) >= (100 + 59 * 250) / EACH);
}

use super::*;
use crate::etf::{Atom, Reference};

fn big(power: u32) -> Term {
    let mut magnitude = vec![0; power as usize / 8];
    magnitude.push(1 << (power % 8));
    Term::from_magnitude(false, &magnitude)
}

/// Each group is equal by `==`; the groups ascend. (Reference Manual, "Term Comparisons".)
#[test]
fn the_order_of_types_and_values() {
    let node = Atom::new_static("a@b");
    let reference = |words: &[u32]| Term::from(Reference::new(node.clone(), 1, words).unwrap());
    let groups = vec![
        vec![Term::from_magnitude(true, &[0, 0, 0, 0, 0, 0, 0, 0, 1])],
        vec![Term::Integer(i64::MIN)],
        vec![Term::Integer(-1), Term::Float(-1.0)],
        vec![Term::Integer(0), Term::Float(0.0), Term::Float(-0.0)],
        vec![Term::Float(0.5)],
        vec![Term::Integer(1), Term::Float(1.0)],
        vec![Term::Float(9_007_199_254_740_992.0), Term::Integer(1 << 53)],
        vec![Term::Integer((1 << 53) + 1)],
        vec![Term::Integer(i64::MAX)],
        vec![big(63), Term::Float(9_223_372_036_854_775_808.0)],
        vec![Term::from(u64::MAX)],
        vec![big(64), Term::Float(18_446_744_073_709_551_616.0)],
        vec![big(1000), Term::Float(2f64.powi(1000))],
        vec![Term::Float(f64::MAX)],
        vec![big(1024)],
        vec![Term::atom("")],
        vec![Term::atom("a")],
        vec![Term::atom("ab")],
        vec![Term::atom("å")],
        vec![reference(&[9, 1])],
        vec![reference(&[0, 2])],
        vec![Term::tuple([])],
        vec![Term::tuple([9.into()])],
        vec![Term::tuple([1.into(), 2.into()]), Term::tuple([Term::Float(1.0), 2.into()])],
        vec![Map::new().into()],
        vec![map(&[(1, 2)])],
        vec![map(&[(1, 3)])],
        vec![map(&[(2, 0)])],
        vec![map(&[(1, 1), (2, 1)])],
        vec![map(&[(2, 2), (1, 1)])],
        vec![Term::nil()],
        vec![Term::list_with_tail(vec![1.into()], 2.into())],
        vec![Term::list([1.into()])],
        vec![Term::list([1.into(), 2.into()])],
        vec![Term::list([2.into()])],
        vec![Term::binary(b"")],
        vec![Term::binary(b"a")],
        vec![Term::bits(vec![b'a', 0].into(), 3).unwrap()],
        vec![Term::binary(b"a\0")],
        vec![Term::binary(b"b")],
    ];
    for (i, left) in groups.iter().enumerate() {
        for (j, right) in groups.iter().enumerate() {
            for a in left {
                for b in right {
                    assert_eq!(a.cmp_erlang(b), i.cmp(&j), "{a:?} to {b:?}");
                }
            }
        }
    }
}

fn map(pairs: &[(i64, i64)]) -> Term {
    Term::Map(pairs.iter().map(|&(k, v)| (k.into(), v.into())).collect())
}

#[test]
fn map_keys_have_integers_before_floats() {
    let key = |key: Term| Term::Map([(key, Term::nil())].into_iter().collect());
    assert_eq!(key(2.into()).cmp_erlang(&key(Term::Float(1.0))), Ordering::Less);
    assert_eq!(key(1.into()).cmp_erlang(&key(Term::Float(1.0))), Ordering::Less);
    // Values compare by value again.
    let value = |value: Term| Term::Map([(1.into(), value)].into_iter().collect());
    assert_eq!(value(1.into()).cmp_erlang(&value(Term::Float(1.0))), Ordering::Equal);
    assert_ne!(value(1.into()), value(Term::Float(1.0)));
}

#[test]
fn maps_in_keys() {
    let inner = |order: bool| {
        let mut pairs = vec![(1.into(), 2.into()), (3.into(), 4.into())];
        if order {
            pairs.reverse();
        }
        Term::Map(Map::from_pairs(pairs).unwrap())
    };
    let outer = |order| Term::Map([(Term::tuple([inner(order)]), inner(!order))].into_iter().collect());
    assert_eq!(outer(true), outer(false));
    assert!(Map::from_pairs(vec![(inner(true), 1.into()), (inner(false), 2.into())]).is_err());
}

#[test]
fn exact_equality_of_floats() {
    assert_ne!(Term::Float(0.0), Term::Float(-0.0));
    assert_ne!(Term::Float(1.0), Term::Integer(1));
}

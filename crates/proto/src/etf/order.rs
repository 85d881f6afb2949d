//! Erlang's order of terms and its exact equality.
//!
//! `number < atom < reference < fun < port < pid < tuple < record < map < [] < list < bit string`
//! (Reference Manual, "Term Comparisons"). Numbers compare by value; only among the keys of a map do all integers come
//! before all floats.

use core::cmp::Ordering;

use super::integer::trimmed;
use super::tape::Tape;
use super::walk::{Items, Shape, Walk};
use super::{Map, Term};
use crate::Limits;

/// Which comparison.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mode {
    /// `1 == 1.0`: the order of `<`, `==` and `lists:sort/1`.
    Value,
    /// `1 =:= 1.0` is false and integers come before floats: the order of map keys.
    Exact,
    /// Exact, but only `Equal` or not counts.
    Equality,
}

impl Term {
    /// Erlang's order, in which `1` and `1.0` are equal: that of `<`, `==` and `lists:sort/1`.
    ///
    /// Local funs and native records of other nodes have no order that two nodes agree on; here they are ordered by
    /// module first.
    pub fn cmp_erlang(&self, other: &Self) -> Ordering {
        compare_parts(self, other, Mode::Value, PARTS)
    }

    /// The order of map keys: as [`cmp_erlang`](Self::cmp_erlang), but integers come before floats. `Equal` exactly if
    /// the terms are equal by `=:=`.
    pub fn cmp_exact(&self, other: &Self) -> Ordering {
        compare_parts(self, other, Mode::Exact, PARTS)
    }
}

/// Erlang's `=:=`.
impl PartialEq for Term {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => a == b,
            (Self::Atom(a), Self::Atom(b)) => a == b,
            (Self::Binary(a), Self::Binary(b)) => a == b,
            _ => self.kind() == other.kind() && compare_parts(self, other, Mode::Equality, PARTS).is_eq(),
        }
    }
}

impl Eq for Term {}

/// The place of a type in Erlang's order. All numbers share one.
fn rank<'a, T: Walk<'a>>(shape: &Shape<'a, T>) -> u8 {
    match shape {
        Shape::Integer(_) | Shape::BigInteger(..) | Shape::Float(_) => 0,
        Shape::Atom(_) => 1,
        Shape::Reference(_) => 2,
        Shape::Fun(..) => 3,
        Shape::ExportFun(..) => 4,
        Shape::Port(_) => 5,
        Shape::Pid(_) => 6,
        Shape::Tuple(..) => 7,
        Shape::Record(..) => 8,
        Shape::Map(..) => 9,
        Shape::List(items, tail) => {
            if tail.is_none() && items.clone().next().is_none() {
                NIL_RANK
            } else {
                LIST_RANK
            }
        }
        Shape::Bits(..) => 12,
        Shape::Local(_) => 13,
    }
}

const NIL_RANK: u8 = 10;
const LIST_RANK: u8 = 11;

/// What is left to compare, once everything pushed later is equal.
enum Step<'a, T: Walk<'a>> {
    Items(T::Items, T::Items),
    Lists(T::Items, Option<T>, T::Items, Option<T>),
    Pairs(std::vec::IntoIter<(T, T)>),
}

/// How many levels of tuples [`compare_parts`] goes down itself.
const PARTS: u32 = 3;

/// Compares what most keys of tables are, tuples of a few levels around atoms, integers, binaries and pids, without a list of what
/// is left to compare; everything else as [`compare`].
fn compare_parts(left: &Term, right: &Term, mode: Mode, levels: u32) -> Ordering {
    match (left, right) {
        (Term::Integer(a), Term::Integer(b)) => a.cmp(b),
        (Term::Atom(a), Term::Atom(b)) if a == b => Ordering::Equal,
        (Term::Atom(a), Term::Atom(b)) => a.cmp(b),
        (Term::Binary(a), Term::Binary(b)) => a.cmp(b),
        (Term::Pid(a), Term::Pid(b)) => a.cmp(b),
        (Term::Tuple(a), Term::Tuple(b)) if a.len() == b.len() && levels > 0 => {
            let mut parts = a.iter().zip(b.iter()).map(|(a, b)| compare_parts(a, b, mode, levels - 1));
            parts.find(|ordering| ordering.is_ne()).unwrap_or(Ordering::Equal)
        }
        _ => compare(left, right, mode),
    }
}

/// Compares without recursion.
pub(super) fn compare<'a, T: Walk<'a>>(left: T, right: T, mode: Mode) -> Ordering {
    let mut steps = Vec::new();
    let mut next = Some((left, right, mode));
    loop {
        if let Some((left, right, mode)) = next.take() {
            let ordering = compare_level(left, right, mode, &mut steps);
            if ordering.is_ne() {
                return ordering;
            }
        }
        let Some((step, mode)) = steps.pop() else { return Ordering::Equal };
        match step {
            Step::Items(mut left, mut right) => {
                if let (Some(a), Some(b)) = (left.next(), right.next()) {
                    next = Some((a, b, mode));
                    steps.push((Step::Items(left, right), mode));
                }
            }
            Step::Pairs(mut pairs) => {
                if let Some((a, b)) = pairs.next() {
                    next = Some((a, b, mode));
                    steps.push((Step::Pairs(pairs), mode));
                }
            }
            Step::Lists(mut left, left_tail, mut right, right_tail) => match (left.next(), right.next()) {
                (Some(a), Some(b)) => {
                    next = Some((a, b, mode));
                    steps.push((Step::Lists(left, left_tail, right, right_tail), mode));
                }
                (None, None) => match (left_tail, right_tail) {
                    (None, None) => {}
                    (Some(a), Some(b)) => next = Some((a, b, mode)),
                    (a, b) => return tail_rank(a).cmp(&tail_rank(b)),
                },
                (a, b) => {
                    let left = if a.is_some() { LIST_RANK } else { tail_rank(left_tail) };
                    let right = if b.is_some() { LIST_RANK } else { tail_rank(right_tail) };
                    return left.cmp(&right);
                }
            },
        }
    }
}

fn tail_rank<'a, T: Walk<'a>>(tail: Option<T>) -> u8 {
    tail.map_or(NIL_RANK, |term| rank(&term.shape()))
}

/// Steps, each with the comparison that it is part of: inside the keys of a map it is always the exact one.
type Steps<'a, T> = Vec<(Step<'a, T>, Mode)>;

/// Compares what can be decided on the outermost level and pushes what cannot.
fn compare_level<'a, T: Walk<'a>>(left: T, right: T, mode: Mode, steps: &mut Steps<'a, T>) -> Ordering {
    match (left.shape(), right.shape()) {
        (Shape::Integer(a), Shape::Integer(b)) => a.cmp(&b),
        (Shape::Atom(a), Shape::Atom(b)) => a.cmp(&b),
        (Shape::Pid(a), Shape::Pid(b)) => a.cmp(&b),
        (Shape::Port(a), Shape::Port(b)) => a.cmp(&b),
        (Shape::Reference(a), Shape::Reference(b)) => a.cmp(&b),
        (Shape::Bits(a, a_bits), Shape::Bits(b, b_bits)) => compare_bits(a, a_bits, b, b_bits),
        (Shape::ExportFun(m, f, a), Shape::ExportFun(n, g, b)) => (m, f, a).cmp(&(n, g, b)),
        (Shape::Local(a), Shape::Local(b)) => a.cmp(b),
        (Shape::Tuple(a_len, a), Shape::Tuple(b_len, b)) => {
            steps.push((Step::Items(a, b), mode));
            a_len.cmp(&b_len)
        }
        (Shape::Fun(a, a_free), Shape::Fun(b, b_free)) => {
            steps.push((Step::Items(a_free, b_free), mode));
            a.cmp(&b)
        }
        (Shape::Record(a, a_values), Shape::Record(b, b_values)) => {
            steps.push((Step::Items(a_values, b_values), mode));
            a.cmp(&b)
        }
        (Shape::Map(a_len, a), Shape::Map(b_len, b)) => {
            a_len.cmp(&b_len).then_with(|| compare_maps(left, a, right, b, mode, steps))
        }
        (left @ Shape::List(..), right @ Shape::List(..)) => {
            let ordering = rank(&left).cmp(&rank(&right));
            if let (Shape::List(a, a_tail), Shape::List(b, b_tail)) = (left, right) {
                steps.push((Step::Lists(a, a_tail, b, b_tail), mode));
            }
            ordering
        }
        (left, right) => rank(&left).cmp(&rank(&right)).then_with(|| compare_numbers(&left, &right, mode)),
    }
}

fn compare_maps<'a, T: Walk<'a>>(
    left: T,
    left_items: T::Items,
    right: T,
    right_items: T::Items,
    mode: Mode,
    steps: &mut Steps<'a, T>,
) -> Ordering {
    if mode == Mode::Equality && same_plain_keys::<T>(left_items.clone(), right_items.clone()) {
        steps.push((Step::Items(left_items, right_items), mode));
        return Ordering::Equal;
    }
    if let Some(ordering) = left.compare_maps(right, mode) {
        return ordering;
    }
    let left = left.known_order().unwrap_or_else(|| sorted_pairs::<T>(left_items));
    let right = right.known_order().unwrap_or_else(|| sorted_pairs::<T>(right_items));
    let (left_keys, left_values): (Vec<T>, Vec<T>) = left.into_iter().unzip();
    let (right_keys, right_values): (Vec<T>, Vec<T>) = right.into_iter().unzip();
    let pairs =
        |left: Vec<T>, right| Step::Pairs(left.into_iter().zip(right).collect::<Vec<_>>().into_iter());
    steps.push((pairs(left_values, right_values), mode));
    steps.push((pairs(left_keys, right_keys), Mode::Exact));
    Ordering::Equal
}

/// Whether both maps have the same keys in the same order, all of them atoms, 64-bit integers or binaries.
fn same_plain_keys<'a, T: Walk<'a>>(mut left: T::Items, mut right: T::Items) -> bool {
    while let (Some(a), Some(b)) = (left.next(), right.next()) {
        let same = match (a.shape(), b.shape()) {
            (Shape::Atom(a), Shape::Atom(b)) => a == b,
            (Shape::Integer(a), Shape::Integer(b)) => a == b,
            (Shape::Bits(a, 8), Shape::Bits(b, 8)) => a == b,
            _ => false,
        };
        if !same {
            return false;
        }
        left.next();
        right.next();
    }
    true
}

/// The pairs in key order. No key that is a map, or has one inside, comes here, so this is as deep as it gets.
pub(super) fn sorted_pairs<'a, T: Walk<'a>>(mut items: T::Items) -> Vec<(T, T)> {
    let mut pairs = Vec::new();
    while let (Some(key), Some(value)) = (items.next(), items.next()) {
        pairs.push((key, value));
    }
    pairs.sort_by(|(a, _), (b, _)| compare(*a, *b, Mode::Exact));
    pairs
}

/// Whether two maps of the same size are equal by `=:=`.
pub(super) fn equal_maps(left: &Map, right: &Map) -> bool {
    if has_map_in_key(left) || has_map_in_key(right) {
        return Term::Map(left.clone()) == Term::Map(right.clone());
    }
    let pairs = |map| sorted_pairs::<&Term>(Items::of_map(map));
    pairs(left).into_iter().eq(pairs(right))
}

/// Whether a map is in one of the keys.
fn has_map_in_key(map: &Map) -> bool {
    let mut pending: Vec<&Term> = map.iter().map(|(key, _)| key).filter(|key| key.is_nested()).collect();
    while let Some(term) = pending.pop() {
        match term.shape() {
            Shape::Map(..) => return true,
            Shape::List(items, tail) => {
                pending.extend(items.filter(|item| item.is_nested()));
                pending.extend(tail);
            }
            Shape::Tuple(_, items) | Shape::Fun(_, items) | Shape::Record(_, items) => {
                pending.extend(items.filter(|item| item.is_nested()));
            }
            _ => {}
        }
    }
    false
}

/// Maps with maps in their keys are compared over their encoded form, where the order of inner maps is found once, from
/// the inside out: sorting them here would recurse, and sort the inner ones again for each comparison.
pub(super) fn compare_through_views(left: &Term, right: &Term, mode: Mode) -> Option<Ordering> {
    let (Term::Map(a), Term::Map(b)) = (left, right) else { return None };
    if !has_map_in_key(a) && !has_map_in_key(b) {
        return None;
    }
    let limits = Limits::unbounded_terms();
    let (mut left_bytes, mut right_bytes) = (Vec::new(), Vec::new());
    let (mut left_tape, mut right_tape) = (Tape::new(), Tape::new());
    let encoded = super::encode_term(left, &mut left_bytes).and(super::encode_term(right, &mut right_bytes));
    let views = encoded.and_then(|()| {
        Ok((left_tape.parse(&left_bytes, &[], &limits)?, right_tape.parse(&right_bytes, &[], &limits)?))
    });
    match views {
        Ok((left, right)) => Some(compare(left, right, mode)),
        // Not encodable, so no Erlang term (NaN inside, or beyond 4 GiB): any order will do that does not recurse.
        Err(_) => Some(left_bytes.cmp(&right_bytes)),
    }
}

/// Whether two keys are equal by `=:=`.
pub(super) fn has_duplicate_keys(map: &Map) -> bool {
    if map.0.len() < 2 {
        return false;
    }
    let mut keys: Vec<&Term> = map.iter().map(|(key, _)| key).collect();
    if has_map_in_key(map) {
        // A view of the map refuses exactly this.
        let mut bytes = Vec::new();
        let term = Term::Map(map.clone());
        return super::encode_term(&term, &mut bytes).is_ok()
            && Tape::new().parse(&bytes, &[], &Limits::unbounded_terms()).is_err();
    }
    keys.sort_by(|a, b| compare(*a, *b, Mode::Exact));
    keys.windows(2).any(|two| matches!(two, [a, b] if a == b))
}

/// Bit by bit, a shorter one before a longer one that starts with it. Unused bits may hold anything.
fn compare_bits(a: &[u8], a_bits: u8, b: &[u8], b_bits: u8) -> Ordering {
    if a_bits == 8 && b_bits == 8 {
        return a.cmp(b);
    }
    let Some(last) = a.len().min(b.len()).checked_sub(1) else { return a.len().cmp(&b.len()) };
    // Up to the last byte that both have, and of that one the bits that both have.
    let a_last_bits = if a.len() == last + 1 { a_bits } else { 8 };
    let b_last_bits = if b.len() == last + 1 { b_bits } else { 8 };
    let mask = 0xFFu8 << (8 - a_last_bits.min(b_last_bits));
    let last_byte = |bytes: &[u8]| bytes.get(last).map(|byte| byte & mask);
    let bits = |bytes: &[u8], last: u8| 8 * bytes.len() as u64 + u64::from(last);
    a.get(..last)
        .cmp(&b.get(..last))
        .then_with(|| last_byte(a).cmp(&last_byte(b)))
        .then_with(|| bits(a, a_bits).cmp(&bits(b, b_bits)))
}

/// Compares two numbers of any kind; anything else is equal here.
fn compare_numbers<'a, T: Walk<'a>>(left: &Shape<'a, T>, right: &Shape<'a, T>, mode: Mode) -> Ordering {
    match (left, right) {
        (Shape::Float(a), Shape::Float(b)) if mode == Mode::Value => {
            a.partial_cmp(b).unwrap_or(Ordering::Equal)
        }
        // Since OTP 27, -0.0 and 0.0 are different terms, -0.0 the smaller.
        (Shape::Float(a), Shape::Float(b)) => a.total_cmp(b),
        (Shape::Float(_), _) if mode != Mode::Value => Ordering::Greater,
        (_, Shape::Float(_)) if mode != Mode::Value => Ordering::Less,
        (Shape::Integer(a), Shape::Float(b)) => compare_i64_f64(*a, *b),
        (Shape::Float(a), Shape::Integer(b)) => compare_i64_f64(*b, *a).reverse(),
        (Shape::BigInteger(negative, magnitude), Shape::Float(b)) => {
            compare_big_f64(*negative, magnitude, *b)
        }
        (Shape::Float(a), Shape::BigInteger(negative, magnitude)) => {
            compare_big_f64(*negative, magnitude, *a).reverse()
        }
        (Shape::Integer(_), Shape::BigInteger(negative, _)) => {
            if *negative {
                Ordering::Greater
            } else {
                Ordering::Less
            }
        }
        (Shape::BigInteger(negative, _), Shape::Integer(_)) => {
            if *negative {
                Ordering::Less
            } else {
                Ordering::Greater
            }
        }
        (Shape::BigInteger(a_negative, a), Shape::BigInteger(b_negative, b)) => {
            let by_magnitude = compare_magnitudes(a, b);
            match (a_negative, b_negative) {
                (false, false) => by_magnitude,
                (true, true) => by_magnitude.reverse(),
                (true, false) => Ordering::Less,
                (false, true) => Ordering::Greater,
            }
        }
        _ => Ordering::Equal,
    }
}

fn compare_magnitudes(a: &[u8], b: &[u8]) -> Ordering {
    let (a, b) = (trimmed(a), trimmed(b));
    a.len().cmp(&b.len()).then_with(|| a.iter().rev().cmp(b.iter().rev()))
}

/// Exact: no rounding of the integer to a float.
fn compare_i64_f64(int: i64, float: f64) -> Ordering {
    const TWO_POW_63: f64 = 9_223_372_036_854_775_808.0;
    if float >= TWO_POW_63 {
        Ordering::Less
    } else if float < -TWO_POW_63 {
        Ordering::Greater
    } else {
        let whole = float.trunc();
        // In range by the two checks above; NaN becomes 0.
        int.cmp(&(whole as i64)).then_with(|| 0.0.partial_cmp(&(float - whole)).unwrap_or(Ordering::Equal))
    }
}

fn compare_big_f64(negative: bool, magnitude: &[u8], float: f64) -> Ordering {
    if negative != (float < 0.0) {
        return if negative { Ordering::Less } else { Ordering::Greater };
    }
    // |float| as mantissa · 2^exponent; beyond 64 bits a float is a whole number.
    let bits = float.abs().to_bits();
    let exponent = (bits >> 52) as i64 - 1075;
    let by_magnitude = if exponent < 0 {
        Ordering::Greater
    } else {
        let mut whole = vec![0; exponent as usize / 8];
        let mantissa = u128::from(bits & ((1 << 52) - 1) | 1 << 52) << (exponent % 8);
        whole.extend_from_slice(&mantissa.to_le_bytes());
        compare_magnitudes(magnitude, &whole)
    };
    if negative { by_magnitude.reverse() } else { by_magnitude }
}

#[cfg(test)]
#[path = "order/tests.rs"]
mod tests;

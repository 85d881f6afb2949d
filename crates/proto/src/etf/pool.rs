//! The memory of small tuples and lists that were dropped, for the next ones of the same thread.
//!
//! A term of a message has a vector for each tuple and list in it, and is dropped when the message has been handled. For
//! more than a few blocks of one size, that costs the system's allocator several times as much as this does (glibc keeps
//! seven of a size where they are quickly found): half of the time that such a term took.

use core::cell::Cell;
use core::mem::forget;

use super::Term;

/// Vectors of up to so many terms are kept: nearly all tuples, and lists such as the arguments of a call.
const LARGEST: usize = 8;

/// So much memory a thread keeps at the most: a message of some three thousand terms.
const KEPT: usize = 128 << 10;

/// What one thread keeps.
#[derive(Default)]
struct Pool {
    /// By the number of terms, from 1 on. The terms in there have nothing to release.
    rooms: [Vec<Box<[Term]>>; LARGEST],
    /// What they take in all.
    bytes: usize,
}

std::thread_local! {
    static POOL: Cell<Option<Box<Pool>>> = const { Cell::new(None) };
}

/// The pool of this thread while a whole term is made or dropped; nothing if the thread is about to end.
pub(super) struct Lent(Option<Box<Pool>>);

/// Takes the pool of this thread. If that has been taken already, as by one who drops what it cannot finish, a new one is
/// made, and the one that is given back last stays.
#[inline]
pub(super) fn lend() -> Lent {
    Lent(POOL.try_with(|pool| pool.take().unwrap_or_default()).ok())
}

impl Drop for Lent {
    #[inline]
    fn drop(&mut self) {
        let _ = POOL.try_with(|pool| pool.set(self.0.take()));
    }
}

/// Memory whose terms have nothing to release: each would be asked otherwise.
#[inline(always)]
fn emptied<T>(mut used: Vec<T>) -> Vec<T> {
    while let Some(term) = used.pop() {
        forget(term);
    }
    used
}

/// Gives memory back whose terms have nothing to release.
#[inline(always)]
pub(super) fn free<T>(used: Vec<T>) {
    drop(emptied(used));
}

impl Lent {
    /// An empty vector with room for `count` terms.
    #[inline(always)]
    pub(super) fn room(&mut self, count: usize) -> Vec<Term> {
        if let Some(pool) = &mut self.0
            && let Some(rooms) = pool.rooms.get_mut(count.wrapping_sub(1))
            && let Some(room) = rooms.pop()
        {
            pool.bytes -= size_of_val(&*room);
            return emptied(room.into_vec());
        }
        Vec::with_capacity(count)
    }

    /// Keeps memory for another time. What is in there has nothing to release.
    #[inline(always)]
    pub(super) fn keep(&mut self, room: Box<[Term]>) {
        if let Some(pool) = &mut self.0
            && let Some(rooms) = pool.rooms.get_mut(room.len().wrapping_sub(1))
            && pool.bytes + size_of_val(&*room) <= KEPT
        {
            pool.bytes += size_of_val(&*room);
            rooms.push(room);
        } else {
            free(room.into_vec());
        }
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "what is tested belongs to a thread")]
mod tests {
    use super::*;

    fn kept() -> (usize, usize) {
        let Lent(pool) = &lend();
        pool.as_ref().map_or((0, 0), |pool| {
            let rooms = pool.rooms.iter().flatten();
            assert!(rooms.clone().flatten().all(|term| !term.is_nested()));
            (pool.bytes, rooms.map(|room| size_of_val(&**room)).sum())
        })
    }

    #[test]
    fn what_is_dropped_is_used_again() {
        std::thread::spawn(|| {
            let pair = Term::tuple([1.into(), 2.into()]);
            let raw = crate::etf::RawTerm::from_term(&pair).unwrap();
            let decode = || raw.to_term(&crate::Limits::default()).unwrap();
            let address = |term: &Term| term.as_tuple().map(<[Term]>::as_ptr);
            let first = decode();
            let place = address(&first);
            drop(first);
            assert_eq!(kept(), (2 * size_of::<Term>(), 2 * size_of::<Term>()));
            let again = decode();
            assert_eq!((address(&again), &again), (place, &pair));
            assert_eq!(kept(), (0, 0));
            // Another thread has memory of its own, and may drop this one's terms.
            std::thread::spawn(move || drop(again)).join().unwrap();
            assert_eq!(kept(), (0, 0));
        })
        .join()
        .unwrap();
    }

    #[test]
    fn what_a_thread_keeps_is_bounded() {
        std::thread::spawn(|| {
            let mut random = crate::random::Random(1);
            for _ in 0..50 {
                let tuple = |n: u64| Term::tuple((0..n).map(|n| Term::from(n as i64)));
                drop((0..3000).map(|_| tuple(random.below(12))).collect::<Vec<_>>());
                let (counted, found) = kept();
                assert_eq!(counted, found);
                assert!(counted <= KEPT && counted > KEPT - LARGEST * size_of::<Term>(), "{counted}");
                drop((0..random.below(1000)).map(|n| lend().room(n as usize % 12)).collect::<Vec<_>>());
                let (counted, found) = kept();
                assert_eq!(counted, found);
            }
        })
        .join()
        .unwrap();
    }
}

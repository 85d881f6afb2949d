//! Identifiers of this node's processes and references, within what the strictest peer accepts.

use std::sync::atomic::{AtomicU64, Ordering};

use foundation_proto::dist::LocalPid;
use foundation_proto::etf::{Atom, Pid, Reference};

/// Makes the pids and references of one incarnation of a node.
///
/// A process has a number; its pid shows the number in two parts. By default a number has 28 bits, an id of 15 and a
/// serial of 13, and a reference has three words of which the first has 18 bits: what an OTP 23 node accepts, and it
/// closes the connection to whoever relays anything larger. Numbers go up by one and wrap as OTP's do; those still in use
/// are skipped. A wide node uses 28 bits of id and 32 of serial, and references of four words; OTP 24 and later take it.
#[derive(Debug)]
pub(crate) struct Ids {
    node: Atom,
    creation: u32,
    id_bits: u32,
    number_bits: u32,
    next_number: AtomicU64,
    next_reference: AtomicU64,
}

/// The numbers of the references of this node: what distinguishes one from another.
pub(crate) type RefWords = [u32; 4];

impl Ids {
    pub(crate) fn new(node: Atom, creation: u32, wide: bool) -> Self {
        let (id_bits, number_bits) = if wide { (28, 60) } else { (15, 28) };
        Self {
            node,
            creation,
            id_bits,
            number_bits,
            next_number: AtomicU64::new(1),
            next_reference: AtomicU64::new(1),
        }
    }

    /// The next number in turn; the caller skips those that are in use.
    pub(crate) fn next_number(&self) -> u64 {
        loop {
            let number = self.next_number.fetch_add(1, Ordering::Relaxed) & ((1 << self.number_bits) - 1);
            // <X.0.0> is `init` on every BEAM; a pid that prints so would only mislead.
            if number != 0 {
                return number;
            }
        }
    }

    pub(crate) fn pid(&self, number: u64) -> Pid {
        let id = number & ((1 << self.id_bits) - 1);
        let serial = number >> self.id_bits;
        Pid { node: self.node.clone(), id: id as u32, serial: serial as u32, creation: self.creation }
    }

    /// The number of a process of this incarnation; `None` for pids of other nodes and of earlier incarnations.
    pub(crate) fn number(&self, pid: &Pid) -> Option<u64> {
        let local = LocalPid { id: pid.id, serial: pid.serial, creation: pid.creation };
        if pid.node == self.node { self.local_number(local) } else { None }
    }

    /// As [`Ids::number`], for a pid that names this node.
    pub(crate) fn local_number(&self, pid: LocalPid) -> Option<u64> {
        if pid.creation != self.creation || u64::from(pid.id) >> self.id_bits != 0 {
            return None;
        }
        let number = u64::from(pid.serial) << self.id_bits | u64::from(pid.id);
        (number >> self.number_bits == 0).then_some(number)
    }

    /// A fresh reference that names its owner, so that what is sent to it as an alias finds the process without a table.
    pub(crate) fn reference(&self, owner: u64) -> (RefWords, Reference) {
        let count = self.next_reference.fetch_add(1, Ordering::Relaxed);
        let words = [(count & 0x3_ffff) as u32, (count >> 18) as u32, owner as u32, (owner >> 32) as u32];
        (words, self.restore(words))
    }

    /// The reference of these words.
    pub(crate) fn restore(&self, words: RefWords) -> Reference {
        // The fourth word is zero unless the node is wide, and zero words at the end are no part of a reference.
        let len = if words[3] == 0 { 3 } else { 4 };
        let words = words.get(..len).unwrap_or(&words);
        match Reference::new(self.node.clone(), self.creation, words) {
            Some(reference) => reference,
            None => unreachable!("three or four words always make a reference"),
        }
    }

    /// The words of a reference of this incarnation and the number of the process it was made for.
    pub(crate) fn words(&self, reference: &Reference) -> Option<(RefWords, u64)> {
        if reference.creation != self.creation || reference.node != self.node {
            return None;
        }
        let mut words = [0; 4];
        let given = reference.words();
        // A fifth word can only be a zero that a relay added.
        if given.iter().skip(words.len()).any(|&word| word != 0) {
            return None;
        }
        for (to, from) in words.iter_mut().zip(given) {
            *to = *from;
        }
        Some((words, u64::from(words[3]) << 32 | u64::from(words[2])))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(wide: bool) -> Ids {
        Ids::new(Atom::new_static("rs@127.0.0.1"), 7, wide)
    }

    #[test]
    fn numbers_and_pids_are_one_to_one_within_the_limits_of_otp_23() {
        let ids = ids(false);
        for number in [1, 0x7fff, 0x8000, 0xfff_ffff] {
            let pid = ids.pid(number);
            assert!(pid.id < 1 << 15 && pid.serial < 1 << 13, "{pid:?}");
            assert_eq!(ids.number(&pid), Some(number));
        }
        assert_eq!(ids.number(&Pid { id: 1 << 15, ..ids.pid(1) }), None);
        assert_eq!(ids.number(&Pid { serial: 1 << 13, ..ids.pid(1) }), None);
    }

    #[test]
    fn pids_of_other_nodes_and_incarnations_have_no_number() {
        let ids = ids(false);
        assert_eq!(ids.number(&Pid { creation: 6, ..ids.pid(1) }), None);
        assert_eq!(ids.number(&Pid { creation: 0, ..ids.pid(1) }), None);
        assert_eq!(ids.number(&Pid { node: Atom::new_static("other@127.0.0.1"), ..ids.pid(1) }), None);
    }

    /// Else a reply to a call of the incarnation before would be taken for one of this.
    #[test]
    fn references_of_other_nodes_and_incarnations_are_nobodys() {
        let ids = ids(false);
        let (words, reference) = ids.reference(5);
        let with = |node: &'static str, creation| {
            Reference::new(Atom::new_static(node), creation, reference.words()).unwrap()
        };
        assert_eq!(ids.words(&with("rs@127.0.0.1", 7)), Some((words, 5)));
        assert_eq!(ids.words(&with("rs@127.0.0.1", 6)), None);
        assert_eq!(ids.words(&with("rs@127.0.0.1", 0)), None);
        assert_eq!(ids.words(&with("other@127.0.0.1", 7)), None);
    }

    #[test]
    fn numbers_wrap_past_zero() {
        let ids = ids(false);
        ids.next_number.store((1 << 28) - 1, Ordering::Relaxed);
        assert_eq!(ids.next_number(), (1 << 28) - 1);
        assert_eq!(ids.next_number(), 1);
    }

    #[test]
    fn references_carry_their_owner() {
        for (wide, owner, len) in [(false, 0xfff_ffff, 3), (true, 5, 3), (true, 1 << 40, 4)] {
            let ids = ids(wide);
            ids.next_reference.store(0x3_ffff, Ordering::Relaxed);
            let (words, reference) = ids.reference(owner);
            assert_eq!(reference.words().len(), len);
            assert!(words[0] < 1 << 18);
            assert_eq!(ids.words(&reference), Some((words, owner)));
            let (_, next) = ids.reference(owner);
            assert_ne!(reference, next);
        }
    }
}

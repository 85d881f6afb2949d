use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The challenges that a node has issued and that are not answered yet.
///
/// Both directions of the handshake prove the cookie by the same formula, so a peer without the cookie could pass a
/// challenge of ours back to us on a second connection and present our own answer as its own. A node therefore keeps one
/// `OpenChallenges`, gives a clone of it to each handshake, and each handshake refuses a challenge that is in it.
///
/// (This does not stop a peer that passes challenges between two *different* nodes. TLS does.)
#[derive(Clone, Debug, Default)]
pub struct OpenChallenges(Arc<Mutex<BTreeMap<u32, usize>>>);

/// A challenge in [`OpenChallenges`]; leaves it when dropped.
#[derive(Debug)]
pub(super) struct OpenChallenge {
    challenge: u32,
    open: OpenChallenges,
}

impl OpenChallenges {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn issue(&self, challenge: u32) -> OpenChallenge {
        *self.lock().entry(challenge).or_default() += 1;
        OpenChallenge { challenge, open: self.clone() }
    }

    pub(super) fn contains(&self, challenge: u32) -> bool {
        self.lock().contains_key(&challenge)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u32, usize>> {
        // Nothing panics while it is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenChallenge {
    pub(super) fn challenge(&self) -> u32 {
        self.challenge
    }
}

impl Drop for OpenChallenge {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        // Two handshakes may have drawn the same number.
        if let Some(count) = open.get_mut(&self.challenge) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.challenge);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_open_as_long_as_one_of_its_handshakes_lives() {
        let open = OpenChallenges::new();
        let first = open.issue(7);
        let second = open.clone().issue(7);
        assert!(open.contains(7) && !open.contains(8));
        drop(first);
        assert!(open.contains(7));
        drop(second);
        assert!(!open.contains(7));
    }
}

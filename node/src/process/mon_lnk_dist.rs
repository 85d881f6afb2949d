use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foundation_proto::etf::Reference;

use super::undelivered::Undelivered;

/// What must happen when one connection is lost: the links and monitors that reach across it (erts' `ErtsMonLnkDist`).
///
/// Each `net::Link` holds one; only the process side looks inside. It records which processes of this node have something
/// across the connection, and how many; what that is, the process itself knows. Once the connection is down it takes
/// nothing more, so whoever tries to add learns that the connection is gone, and nothing is ever missed or fires twice.
#[derive(Debug)]
pub struct MonLnkDist {
    across: Mutex<Across>,
    undelivered: Arc<Undelivered>,
}

#[derive(Debug, Default)]
struct Across {
    closed: bool,
    total: usize,
    /// Number of the process to the count of its links, monitors and spawn requests.
    processes: HashMap<u64, usize>,
    /// Which process a monitor of the peer by name found: the name may belong to another one later.
    name_monitors: HashMap<Reference, u64>,
}

/// Why nothing can be added to a [`MonLnkDist`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum AddError {
    /// The connection is down.
    Closed,
    /// The peer has [`MonLnkDist::LIMIT`] links and monitors.
    Limit,
}

impl MonLnkDist {
    /// Links, monitors and open spawn requests across one connection, in both directions. 1,000,000: more than a BEAM node
    /// has by default processes, some 200 MB on this side.
    pub const LIMIT: usize = 1_000_000;

    /// For a new connection; its reader stops when processes have not received more than `undelivered` bytes from it.
    pub fn new(undelivered: usize) -> Self {
        Self { across: Mutex::default(), undelivered: Arc::new(Undelivered::new(undelivered)) }
    }

    /// What came through this connection and was not received yet; the reader stops while it is full.
    pub fn undelivered(&self) -> &Arc<Undelivered> {
        &self.undelivered
    }

    fn lock(&self) -> MutexGuard<'_, Across> {
        self.across.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The peer has one thing more with this process.
    pub(crate) fn add(&self, process: u64) -> Result<(), AddError> {
        let mut across = self.lock();
        if across.closed {
            return Err(AddError::Closed);
        }
        if across.total >= Self::LIMIT {
            return Err(AddError::Limit);
        }
        across.total += 1;
        *across.processes.entry(process).or_default() += 1;
        Ok(())
    }

    /// The same for what a process of this node asked for, which no limit on the peer concerns; `false` if the connection
    /// is down.
    pub(crate) fn add_own(&self, process: u64) -> bool {
        let mut across = self.lock();
        if !across.closed {
            across.total += 1;
            *across.processes.entry(process).or_default() += 1;
        }
        !across.closed
    }

    /// The process has one thing less.
    pub(crate) fn remove(&self, process: u64) {
        let mut across = self.lock();
        if let Some(count) = across.processes.get_mut(&process) {
            *count -= 1;
            if *count == 0 {
                across.processes.remove(&process);
            }
            across.total -= 1;
        }
    }

    /// The peer monitors a name, which this process had at that time.
    pub(crate) fn add_name_monitor(&self, reference: Reference, process: u64) {
        let mut across = self.lock();
        if !across.closed {
            across.name_monitors.insert(reference, process);
        }
    }

    /// The monitor by name is over; returns the process that it found.
    pub(crate) fn remove_name_monitor(&self, reference: &Reference) -> Option<u64> {
        self.lock().name_monitors.remove(reference)
    }

    /// The connection is down: nothing is added any more. Returns the processes that have to hear of it, by number.
    pub(crate) fn close(&self) -> Vec<u64> {
        let mut across = self.lock();
        across.closed = true;
        across.total = 0;
        across.name_monitors = HashMap::new();
        let mut processes: Vec<u64> = core::mem::take(&mut across.processes).into_keys().collect();
        drop(across);
        processes.sort_unstable();
        processes
    }

    /// Links, monitors and open spawn requests across this connection.
    pub fn len(&self) -> usize {
        self.lock().total
    }

    /// Whether nothing reaches across this connection.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_told_once_and_nothing_is_added_after() {
        let mld = MonLnkDist::new(1);
        mld.add(7).unwrap();
        mld.add(7).unwrap();
        mld.add(3).unwrap();
        mld.add(4).unwrap();
        mld.remove(4);
        assert_eq!(mld.len(), 3);
        assert_eq!(mld.close(), [3, 7]);
        assert!(mld.close().is_empty());
        assert_eq!(mld.add(9), Err(AddError::Closed));
        // A process that cleans up after itself late must not count below zero.
        mld.remove(7);
        assert!(mld.is_empty());
    }
}

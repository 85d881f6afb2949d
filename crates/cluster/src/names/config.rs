use std::time::Duration;

use super::entry::Keys;
use super::own::PartLimits;

/// How a registry behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// How many processes may have one key. Members that differ in this do not share names.
    pub keys: Keys,
    /// How long the names of a lost node are kept: 10 minutes, as long as a lost node is dialled often. After that, all of them
    /// are sent again if it comes back.
    pub retain: Duration,
    /// Names beyond this are not taken in: 1,048,576. Those of other nodes are counted in [`Stats::refused`](super::Stats::refused).
    pub max_names: usize,
    /// Key and value of one name take no more bytes than this: 64 KiB. They are sent to all members.
    pub max_bytes: usize,
    /// How many removals of this node are remembered: 65,536. A member that comes back and has missed more than that goes
    /// through all entries.
    pub max_removed: usize,
    /// Members beyond this are not greeted: 4,096.
    pub max_members: usize,
    /// Callers that wait for all members, at most: 65,536.
    pub max_waits: usize,
    /// Writes in one message, at most: 1,024.
    pub part_entries: usize,
    /// About how many bytes one message takes, at most: 256 KiB, so that it delays nobody for long.
    pub part_bytes: usize,
}

impl Config {
    /// The defaults.
    pub fn new(keys: Keys) -> Self {
        Self {
            keys,
            retain: Duration::from_secs(600),
            max_names: 1 << 20,
            max_bytes: 64 << 10,
            max_removed: 1 << 16,
            max_members: 4096,
            max_waits: 1 << 16,
            part_entries: 1024,
            part_bytes: 256 << 10,
        }
    }

    pub(super) fn part(&self) -> PartLimits {
        PartLimits { entries: self.part_entries.max(1), bytes: self.part_bytes }
    }
}

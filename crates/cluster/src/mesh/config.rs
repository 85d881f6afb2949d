use std::time::Duration;

use super::check::Rules;
use crate::names;

/// How a mesh behaves.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// How the registry below behaves; its keys are duplicate whatever this says.
    pub names: names::Config,
    /// How services are checked whose registration does not say it.
    pub checks: Rules,
    /// Checks under way at once, at most: 64. Others wait, so that a node with many services calls them in turn.
    pub max_probes: usize,
    /// How often this node's load is measured: every 5 s. `None` measures and tells nothing.
    pub load_interval: Option<Duration>,
    /// By how many thousandths a figure has to differ from what was told last, before it is told again: 50. On a machine
    /// whose load stays within that, nothing is sent. The load average has to differ by four times as much a processor.
    pub load_step: u16,
}

impl Config {
    /// The defaults.
    pub fn new() -> Self {
        Self {
            names: names::Config::new(names::Keys::Duplicate),
            checks: Rules::new(),
            max_probes: 64,
            load_interval: Some(Duration::from_secs(5)),
            load_step: 50,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::new()
    }
}

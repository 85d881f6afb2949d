use core::time::Duration;

use super::DistributionFlags;
use crate::Limits;
use crate::etf::Atom;

/// What both halves of an established connection need to know: the outcome of the handshake, and local settings.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ChannelConfig {
    /// The name of this node.
    pub local: Atom,
    /// The name of the node at the other end.
    pub peer: Atom,
    /// The incarnation of the node at the other end.
    pub peer_creation: u32,
    /// The effective flags.
    pub flags: DistributionFlags,
    /// The bounds on what the peer can claim, and on what may be queued towards it.
    pub limits: Limits,
    /// Kernel parameter `net_ticktime`: a peer that is silent for this long is gone. 60 s.
    pub net_ticktime: Duration,
    /// Kernel parameter `net_tickintensity`: how many ticks are sent in that time to a peer to whom nothing else is. 4.
    pub net_tickintensity: u32,
}

impl ChannelConfig {
    /// With OTP's tick time and the default limits.
    pub fn new(local: Atom, peer: Atom, peer_creation: u32, flags: DistributionFlags) -> Self {
        Self {
            local,
            peer,
            peer_creation,
            flags,
            limits: Limits::default(),
            net_ticktime: Duration::from_secs(60),
            net_tickintensity: 4,
        }
    }

    /// The time between two ticks.
    pub(crate) fn tick_interval(&self) -> Duration {
        (self.net_ticktime / self.net_tickintensity.max(1)).max(Duration::from_millis(1))
    }
}

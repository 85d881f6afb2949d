//! The shared secret of a cluster: where it comes from, and which one belongs to which peer.

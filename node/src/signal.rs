//! What a signal of a peer does to the processes of this node.

use std::sync::Arc;

use foundation_proto::Result;
use foundation_proto::dist::Signal;

use crate::net::{DownReason, Link};
use crate::node::NodeInner;

/// The connection is set up.
pub(crate) fn up(_node: &NodeInner, _link: &Arc<Link>) {}

/// The connection is gone: everything across it fires, once.
pub(crate) fn down(_node: &NodeInner, link: &Arc<Link>, _reason: &DownReason) {
    link.mld().close();
}

/// Carries out one signal. A node without processes has nobody for it.
///
/// # Errors
/// If the peer has no right to send this; the connection has to be closed.
pub(crate) fn deliver(_node: &Arc<NodeInner>, link: &Arc<Link>, signal: Signal) -> Result<()> {
    tracing::debug!(peer = link.peer().name.as_str(), ?signal, "a signal for nobody");
    Ok(())
}

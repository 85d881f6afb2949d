//! Messages that came together for one process, handed over together.

use std::sync::Arc;

use foundation_proto::Result;
use foundation_proto::dist::{Inbound, LocalPid, Messages};

use crate::net::Link;
use crate::node::NodeInner;

/// So many messages are handed over at the latest, so that a receiver on another thread starts while the rest is decoded.
const AT_MOST: usize = 128;

/// Carries out the signals of the frames at hand, in their order. A bad frame does not take back the ones before it.
///
/// For neighbours in the order of arrival that are messages for one process, that process is looked up once, its mailbox is locked
/// once, and it is woken once.
///
/// # Errors
/// If the peer has broken the protocol; the connection has to be closed.
pub(crate) fn deliver_all(node: &Arc<NodeInner>, link: &Arc<Link>, inbound: &mut Inbound) -> Result<()> {
    loop {
        if let Some((to, messages)) = inbound.poll_messages(AT_MOST)? {
            hand_over(node, link, to, messages);
            continue;
        }
        let Some(signal) = inbound.poll_signal()? else { return Ok(()) };
        super::deliver(node, link, signal)?;
    }
}

fn hand_over(node: &Arc<NodeInner>, link: &Link, to: LocalPid, messages: Messages) {
    // An identifier of another incarnation is nobody's.
    let Some(to) = node.ids.local_number(to).and_then(|number| node.processes.get(number)) else { return };
    let undelivered = link.mld().undelivered();
    if !to.has_calls() {
        node.deliver_all(&to, messages, undelivered);
        return;
    }
    // One of them may be the answer to a call, which goes another way.
    for message in messages {
        let credit = undelivered.charge(message.as_bytes().len());
        node.deliver(&to, message, Some(credit), None);
    }
}

#[cfg(test)]
mod tests;

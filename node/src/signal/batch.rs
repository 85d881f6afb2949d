//! Messages that came together for one process, handed over together.

use std::sync::Arc;

use foundation_proto::Result;
use foundation_proto::dist::{Inbound, LocalPid};
use foundation_proto::etf::RawTerm;

use crate::net::Link;
use crate::node::NodeInner;
use crate::process::Proc;

/// So many messages are handed over at the latest, so that a receiver on another thread starts while the rest is decoded.
const AT_MOST: usize = 128;

/// What the last read has brought for one process and was not handed over yet. With it the process is looked up once, its
/// mailbox locked once, and it is woken once.
///
/// Only neighbours in the order of arrival are put together, and everything else that arrives is carried out after them. So
/// nothing changes its place, whoever has sent it. Between two reads it is empty.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    to: Option<Arc<Proc>>,
    messages: Vec<RawTerm>,
}

impl Batch {
    /// Carries out the signals of the frames at hand, in their order. A bad frame does not take back the ones before it.
    ///
    /// # Errors
    /// If the peer has broken the protocol; the connection has to be closed.
    pub(crate) fn deliver(
        &mut self,
        node: &Arc<NodeInner>,
        link: &Arc<Link>,
        inbound: &mut Inbound,
    ) -> Result<()> {
        let outcome = self.deliver_until(node, link, inbound);
        self.hand_over(node, link);
        outcome
    }

    fn deliver_until(
        &mut self,
        node: &Arc<NodeInner>,
        link: &Arc<Link>,
        inbound: &mut Inbound,
    ) -> Result<()> {
        loop {
            if let Some((to, message)) = inbound.poll_message()? {
                self.add(node, link, to, message);
                continue;
            }
            let Some(signal) = inbound.poll_signal()? else { return Ok(()) };
            self.hand_over(node, link);
            super::deliver(node, link, signal)?;
        }
    }

    /// A message has arrived for this process of this node.
    fn add(&mut self, node: &NodeInner, link: &Link, to: LocalPid, message: RawTerm) {
        // An identifier of another incarnation is nobody's.
        let Some(number) = node.ids.local_number(to) else { return };
        if self.messages.len() >= AT_MOST || self.to.as_ref().is_none_or(|proc| proc.number != number) {
            self.hand_over(node, link);
            self.to = node.processes.get(number);
        }
        let Some(to) = &self.to else { return };
        if !to.has_calls() {
            self.messages.push(message);
            return;
        }
        // It may be the answer to one, which goes another way.
        let to = Arc::clone(to);
        self.hand_over(node, link);
        let credit = link.mld().undelivered().charge(message.as_bytes().len());
        node.deliver(&to, message, Some(credit), None);
        self.to = Some(to);
    }

    fn hand_over(&mut self, node: &NodeInner, link: &Link) {
        let Some(to) = self.to.take() else { return };
        if !self.messages.is_empty() {
            node.deliver_all(&to, &mut self.messages, link.mld().undelivered());
        }
    }
}

#[cfg(test)]
mod tests;

//! The handle that everything starts from.

use std::sync::Arc;

use foundation_proto::etf::Atom;

use crate::config::NodeConfig;
use crate::net_kernel::NetKernel;

/// A running node; cheap to clone, usable from any task.
#[derive(Clone, Debug)]
pub struct Node {
    inner: Arc<NodeInner>,
}

/// What the tasks of one node share.
#[derive(Debug)]
pub struct NodeInner {
    pub(crate) config: NodeConfig,
    /// The name that peers know this node by.
    pub(crate) name: Atom,
    /// This incarnation of the name, as the port mapper gave it.
    pub(crate) creation: u32,
    pub(crate) net_kernel: NetKernel,
}

impl Node {
    /// The name that peers know this node by.
    pub fn name(&self) -> &Atom {
        &self.inner.name
    }

    /// The configuration it was started with.
    pub fn config(&self) -> &NodeConfig {
        &self.inner.config
    }

    /// Which incarnation of the name this is.
    pub fn creation(&self) -> u32 {
        self.inner.creation
    }
}

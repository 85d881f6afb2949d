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

impl NodeInner {
    pub(crate) fn new(config: NodeConfig, name: Atom, creation: u32, net_kernel: NetKernel) -> Arc<Self> {
        Arc::new(Self { config, name, creation, net_kernel })
    }
}

impl Node {
    pub(crate) fn from_inner(inner: Arc<NodeInner>) -> Self {
        Self { inner }
    }

    pub(crate) fn inner(&self) -> &Arc<NodeInner> {
        &self.inner
    }

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

//! Which node is connected through which link, and connecting on demand (kernel's `net_kernel`).

/// The links of a node.
#[derive(Debug, Default)]
pub struct NetKernel {}

//! How a node is configured; the keys are named as the parameters of OTP's kernel application where those exist.

/// The configuration of a node.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct NodeConfig {}

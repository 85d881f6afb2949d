//! The replicated map that Horde's registries and supervisors stand on.
//!
//! [`AwLwwMap`] is the data type: an add-wins map whose concurrent values of one key are decided by the latest timestamp
//! (`DeltaCrdt.AWLWWMap`). [`MerkleMap`] finds the keys in which two members differ without sending them all.
//!
//! These are the data types alone: the exchange between members, and a host for it in the node, are still to come.

mod aw_lww_map;
mod context;
mod merkle;

pub use aw_lww_map::{AwLwwMap, Change, Delta, Element};
pub use context::{Context, Dot};
pub use merkle::{LEVELS, Location, MapSetShape, MerkleMap, Subtree, elements_term};

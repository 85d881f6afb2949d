//! The replicated map that Horde's registries and supervisors stand on.
//!
//! [`AwLwwMap`] is the data type: an add-wins map whose concurrent values of one key are decided by the latest timestamp
//! (`DeltaCrdt.AWLWWMap`). [`MerkleMap`] finds the keys in which two members differ without sending them all.
//!
//! [`CausalCrdt`] is a member of such a map: it exchanges writes with its neighbours as `DeltaCrdt` does, and sooner.
//! [`horde`] keeps the names of a `Horde.Registry` in it.

mod aw_lww_map;
pub mod causal_crdt;
mod context;
mod few;
pub mod horde;
mod merkle;
mod wire;

use context::Gap;

pub use aw_lww_map::{AwLwwMap, Change, Delta, Element, Entry};
pub use causal_crdt::CausalCrdt;
pub use context::{Context, Dot};
pub use few::Few;
pub use merkle::{Differences, LEVELS, Location, MapSetShape, MerkleMap, OwnSubtree, Subtree, elements_term};
pub use wire::Address;

use std::sync::Arc;

use bytes::Bytes;

use super::Atom;

/// One encoded term, without the leading 131, as it was received or will be sent.
///
/// It shares the buffer of the frame it came in; nothing is decoded until someone looks inside.
#[derive(Clone, Debug)]
pub struct RawTerm {
    bytes: Bytes,
    atoms: Option<Arc<[Atom]>>,
}

impl RawTerm {
    /// The encoded term. Tag 82 (ATOM_CACHE_REF) in it is an index into [`RawTerm::atoms`].
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The atoms that the header of its frame listed, if it had any.
    pub fn atoms(&self) -> Option<&Arc<[Atom]>> {
        self.atoms.as_ref()
    }
}

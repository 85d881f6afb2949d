use super::RawTerm;

/// One encoded term without references into an atom cache, checked, and borrowed: what a message is while it is on its way into
/// a buffer. With memory of its own it is a [`RawTerm`].
#[derive(Clone, Copy, Debug)]
pub struct PlainTerm<'a> {
    bytes: &'a [u8],
}

impl<'a> PlainTerm<'a> {
    /// For bytes that were checked.
    #[inline]
    pub(super) fn checked(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The encoded term, without a version byte.
    #[inline]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The same term with memory of its own.
    pub fn to_raw(&self) -> RawTerm {
        RawTerm::checked(self.bytes.to_vec())
    }
}

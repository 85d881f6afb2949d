//! Every bound that a peer can reach, in one place.

/// The bounds on what a peer can claim or make this side keep.
///
/// Each is checked before anything is allocated for the claim. Exceeding one closes that connection with
/// [`Error::LimitExceeded`](crate::Error::LimitExceeded), which names the field.
#[derive(Clone, Debug, Eq, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize, serde::Serialize),
    serde(default, deny_unknown_fields)
)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of one frame. 128 MiB: what a BEAM sends while a connection is being set up comes as one unfragmented frame,
    /// and a peer without FRAGMENTS sends every message so. Buffers grow by the bytes received, never by the length claimed.
    pub max_frame: usize,
    /// Bytes of one handshake message. 4,096: the longest legal one holds a name of 1,020 bytes; OTP takes 65,535.
    pub max_handshake_message: usize,
    /// Nesting of a term. 65,536: OTP has no bound; every walk here is iterative, so this bounds memory, not the stack.
    pub max_depth: usize,
    /// Nodes of one term. 16 Mi: a view needs 16 bytes a node and an owned term 40, so this is at most 640 MiB, for a frame
    /// of nothing but the smallest terms; real messages of 128 MiB hold far fewer.
    pub max_nodes: usize,
    /// Bytes of one integer. 524,280: OTP's own bound on 64-bit machines (`BIG_ARITY_MAX`, 65,535 words).
    pub max_integer_bytes: usize,
    /// Bytes a compressed term (tag 80) may inflate to. 64 MiB. Compressed terms never occur on a connection.
    pub max_inflated: usize,
    /// Open fragment sequences of one connection. 1,024: one per sending process that is amid a large message.
    pub max_sequences: usize,
    /// Fragments that one sequence may announce. 65,536: 4 GiB in OTP's 64 KiB pieces, far beyond `max_message`.
    pub max_fragments: u64,
    /// Bytes of all open fragment sequences of one connection. 128 MiB.
    pub max_reassembly: usize,
    /// Bytes queued towards one peer before senders wait. 1 MiB: OTP's `+zdbbl` default.
    pub busy_limit: usize,
    /// Bytes queued towards one peer, counting the signals that may not wait, before the connection is closed. 64 MiB.
    pub max_queued: usize,
}

impl Limits {
    /// No bounds on terms, for those that were checked before or were made by this program.
    pub(crate) fn unbounded_terms() -> Self {
        Self {
            max_depth: usize::MAX,
            max_nodes: usize::MAX,
            max_integer_bytes: usize::MAX,
            ..Self::default()
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_frame: 128 << 20,
            max_handshake_message: 4096,
            max_depth: 65_536,
            max_nodes: 16 << 20,
            max_integer_bytes: 524_280,
            max_inflated: 64 << 20,
            max_sequences: 1024,
            max_fragments: 65_536,
            max_reassembly: 128 << 20,
            busy_limit: 1 << 20,
            max_queued: 64 << 20,
        }
    }
}

//! Distribution flags: what each side of a connection can do, offered in the handshake.
//!
//! One table, [`DistributionFlags::TABLE`], is the source of the constants, of `Display` and of the mandatory sets.
//! OTP: "Distribution Flags" in the guide "Distribution Protocol", `dist.h` and `dist.hrl`. (The guide prints
//! `MANDATORY_25_DIGEST` as bit 36; the code of every release has bit 26.)

use core::fmt;
use core::ops::{BitAnd, BitOr, BitOrAssign};

/// A set of distribution flags.
///
/// # Wire format
/// 64 bits, big-endian, in the `N` messages of the handshake; the low 32 bits in an `n` message and the high 32 bits in
/// the `c` message that completes it. Bits that nobody assigned are kept here and ignored by every receiver.
#[derive(Clone, Copy, Default, Eq, Hash, PartialEq)]
pub struct DistributionFlags(u64);

/// One row of the table of flags.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct FlagRow {
    /// The flag itself.
    pub flag: DistributionFlags,
    /// Its name in OTP, without the prefix `DFLAG_`.
    pub name: &'static str,
    /// The first OTP release that offers it; 0 if it is older than OTP 17.
    pub since: u8,
    /// The first OTP release whose nodes refuse peers without it.
    pub mandatory_in: Option<u8>,
}

macro_rules! flags {
    ($($(#[$doc:meta])+ $name:ident = $bit:literal, since $since:literal $(, mandatory in $mandatory:literal)?;)+) => {
        impl DistributionFlags {
            $($(#[$doc])+ pub const $name: Self = Self(1 << $bit);)+

            /// Every flag that can occur on the wire, by ascending bit.
            pub const TABLE: &'static [FlagRow] = &[
                $(FlagRow {
                    flag: Self::$name,
                    name: stringify!($name),
                    since: $since,
                    mandatory_in: flags!(@mandatory $($mandatory)?),
                },)+
            ];
        }
    };
    (@mandatory) => { None };
    (@mandatory $release:literal) => { Some($release) };
}

flags! {
    /// A visible node: takes part in `global`, appears in `nodes/0`. A connection is visible if both sides set it.
    PUBLISHED = 0, since 0;
    /// Obsolete atom cache. Never set.
    ATOM_CACHE = 1, since 0;
    /// References of several words.
    EXTENDED_REFERENCES = 2, since 0, mandatory in 23;
    /// `MONITOR_P` and its relatives. A BEAM sends monitor signals only if this and [`Self::DIST_MONITOR_NAME`] are set.
    DIST_MONITOR = 3, since 0;
    /// Funs have their own tag.
    FUN_TAGS = 4, since 0, mandatory in 25;
    /// Monitors of registered names.
    DIST_MONITOR_NAME = 5, since 0;
    /// Obsolete. Never set.
    HIDDEN_ATOM_CACHE = 6, since 0;
    /// `NEW_FUN_EXT`.
    NEW_FUN_TAGS = 7, since 0, mandatory in 23;
    /// Pids and ports with more than 18 bits.
    EXTENDED_PIDS_PORTS = 8, since 0, mandatory in 23;
    /// `EXPORT_EXT`.
    EXPORT_PTR_TAG = 9, since 0, mandatory in 25;
    /// `BIT_BINARY_EXT`.
    BIT_BINARIES = 10, since 0, mandatory in 25;
    /// `NEW_FLOAT_EXT`.
    NEW_FLOATS = 11, since 0, mandatory in 25;
    /// The I/O protocol may use `unicode`; nothing on this level.
    UNICODE_IO = 12, since 0;
    /// Frames carry a distribution header with an atom cache.
    DIST_HDR_ATOM_CACHE = 13, since 0;
    /// `SMALL_ATOM_EXT`.
    SMALL_ATOM_TAGS = 14, since 0;
    /// `ATOM_UTF8_EXT` and `SMALL_ATOM_UTF8_EXT`.
    UTF8_ATOMS = 16, since 0, mandatory in 23;
    /// `MAP_EXT`.
    MAP_TAG = 17, since 17, mandatory in 25;
    /// Creations of 32 bits.
    BIG_CREATION = 18, since 19, mandatory in 23;
    /// `SEND_SENDER` in place of `SEND`.
    SEND_SENDER = 19, since 21;
    /// Any term as the label of a sequential trace.
    BIG_SEQTRACE_LABELS = 20, since 21;
    /// Exit reasons as the payload of a signal instead of in its control message.
    EXIT_PAYLOAD = 22, since 22;
    /// Large signals are split into fragments; every frame carries a distribution header.
    FRAGMENTS = 23, since 22;
    /// Version 6 of the handshake.
    HANDSHAKE_23 = 24, since 23, mandatory in 25;
    /// Unlinking with ids and acknowledgements.
    UNLINK_ID = 25, since 23, mandatory in 26;
    /// Stands for the eleven flags that OTP 25 requires.
    MANDATORY_25_DIGEST = 26, since 25;
    /// `SPAWN_REQUEST`.
    SPAWN = 32, since 23;
    /// A request for a dynamic node name; the acceptor that fulfils it sets it as well.
    NAME_ME = 33, since 23;
    /// Pids, ports and references of version 4: 32 and 64 bits, up to five words.
    V4_NC = 34, since 24, mandatory in 26;
    /// `ALIAS_SEND`.
    ALIAS = 35, since 24;
    /// `ALTACT_SIG_SEND`: aliases, priority and exits to aliases in one signal.
    ALTACT_SIG = 37, since 28;
    /// `RECORD_EXT`. OTP 29 sends it whether or not the peer sets this.
    NATIVE_RECORDS = 38, since 29;
}

impl DistributionFlags {
    /// No flag.
    pub const NONE: Self = Self(0);
    /// Without these an OTP 23 or 24 node refuses a peer.
    pub const MANDATORY_23: Self = Self::mandatory_in(23);
    /// Without these an OTP 25 node refuses a peer. What [`Self::MANDATORY_25_DIGEST`] stands for.
    pub const MANDATORY_25: Self = Self::mandatory_in(25);
    /// Without these an OTP 26, 27, 28 or 29 node refuses a peer.
    pub const MANDATORY_26: Self = Self::mandatory_in(26);
    /// What this library offers as a hidden node: everything it implements, `0x6D07DF7FBC`.
    pub const HIDDEN: Self = Self(0x6D_07DF_7FBC);
    /// What this library offers as a visible node, `0x6D07DF7FBD`.
    pub const VISIBLE: Self = Self(Self::HIDDEN.0 | Self::PUBLISHED.0);
    /// What this library requires of a peer unless configured otherwise: the set of OTP 25, which OTP 23 offers as well.
    ///
    /// `V4_NC` and `UNLINK_ID` are not among them, so OTP 23 peers are accepted; towards them the old forms of `UNLINK`
    /// and of identifiers are used.
    pub const REQUIRED: Self = Self::MANDATORY_25;

    /// The flags that OTP `release` requires of its peers.
    const fn mandatory_in(release: u8) -> Self {
        let mut bits = 0;
        let mut rest = Self::TABLE;
        while let [row, tail @ ..] = rest {
            if let Some(first) = row.mandatory_in
                && first <= release
            {
                bits |= row.flag.0;
            }
            rest = tail;
        }
        Self(bits)
    }

    /// The set with these bits, known or not.
    #[inline]
    pub const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The bits as they are sent.
    #[inline]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether all of `other` is in this set.
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// This set and `other`.
    #[inline]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is both in this set and in `other`.
    #[inline]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// This set without `other`.
    #[inline]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether no flag is set.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// This set with [`Self::MANDATORY_25_DIGEST`], if it is set, replaced by the flags that it stands for and itself.
    #[inline]
    pub const fn expand_digest(self) -> Self {
        if self.contains(Self::MANDATORY_25_DIGEST) { self.union(Self::MANDATORY_25) } else { self }
    }

    /// The effective flags of a connection between a node that offers `self` and one that offers `peer`.
    ///
    /// # Errors
    /// The flags among `required` that `peer` does not offer, not even by the digest.
    pub const fn negotiate(self, peer: Self, required: Self) -> Result<Self, Self> {
        let peer = peer.expand_digest();
        let missing = required.without(peer);
        if missing.is_empty() { Ok(self.expand_digest().intersection(peer)) } else { Err(missing) }
    }
}

impl BitOr for DistributionFlags {
    type Output = Self;

    fn bitor(self, rhs: Self) -> Self {
        self.union(rhs)
    }
}

impl BitOrAssign for DistributionFlags {
    fn bitor_assign(&mut self, rhs: Self) {
        *self = self.union(rhs);
    }
}

impl BitAnd for DistributionFlags {
    type Output = Self;

    fn bitand(self, rhs: Self) -> Self {
        self.intersection(rhs)
    }
}

/// The names joined by ` | `, bits without a name in hexadecimal after them, and `none` for the empty set.
impl fmt::Display for DistributionFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = *self;
        let mut separator = "";
        for row in Self::TABLE {
            if rest.contains(row.flag) {
                write!(f, "{separator}{}", row.name)?;
                separator = " | ";
                rest = rest.without(row.flag);
            }
        }
        if !rest.is_empty() {
            write!(f, "{separator}{:#x}", rest.0)
        } else if separator.is_empty() {
            f.write_str("none")
        } else {
            Ok(())
        }
    }
}

impl fmt::Debug for DistributionFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DistributionFlags({:#x}: {self})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What nodes that were started without `-hidden` offered, by OTP release.
    const OTP_23: DistributionFlags = DistributionFlags(0x1_01DF_7FBD);
    const OTP_25: DistributionFlags = DistributionFlags(0xD_07DF_7FBD);
    const OTP_29: DistributionFlags = DistributionFlags(0x6D_07DF_7FBD);

    #[test]
    fn the_table_is_in_order_and_without_duplicates() {
        for pair in DistributionFlags::TABLE.windows(2) {
            assert!(pair[0].flag.0 < pair[1].flag.0, "{} before {}", pair[0].name, pair[1].name);
        }
    }

    #[test]
    fn the_mandatory_sets_are_those_of_otp() {
        assert_eq!(DistributionFlags::MANDATORY_23.0.count_ones(), 5);
        assert_eq!(DistributionFlags::MANDATORY_25.0.count_ones(), 11);
        assert_eq!(DistributionFlags::MANDATORY_26.0.count_ones(), 13);
        assert_eq!(DistributionFlags::MANDATORY_23.0, 0x7_0184 & !0x2_0000);
        assert_eq!(DistributionFlags::MANDATORY_25.0, 0x107_0F94);
        assert_eq!(DistributionFlags::MANDATORY_26.0, 0x4_0307_0F94);
    }

    #[test]
    fn the_offer_is_every_flag_of_the_table_but_the_obsolete_and_the_exceptional() {
        let mut all = DistributionFlags::NONE;
        for row in DistributionFlags::TABLE {
            all |= row.flag;
        }
        let left_out = DistributionFlags::ATOM_CACHE
            | DistributionFlags::HIDDEN_ATOM_CACHE
            | DistributionFlags::NAME_ME
            | DistributionFlags::PUBLISHED;
        assert_eq!(DistributionFlags::HIDDEN, all.without(left_out));
        assert_eq!(DistributionFlags::VISIBLE, OTP_29);
    }

    #[test]
    fn every_measured_release_is_accepted_and_the_effective_flags_are_the_common_ones() {
        for (peer, effective) in
            [(OTP_23, 0x1_01DF_7FBCu64), (OTP_25, 0xD_07DF_7FBC), (OTP_29, 0x6D_07DF_7FBC)]
        {
            let agreed = DistributionFlags::HIDDEN.negotiate(peer, DistributionFlags::REQUIRED).unwrap();
            assert_eq!(agreed.0, effective, "{agreed}");
        }
    }

    #[test]
    fn the_digest_stands_for_the_set_of_otp_25_but_not_for_that_of_26() {
        let minimal = DistributionFlags(0x4_0600_0000);
        assert!(DistributionFlags::HIDDEN.negotiate(minimal, DistributionFlags::MANDATORY_26).is_ok());
        assert_eq!(
            DistributionFlags::HIDDEN
                .negotiate(DistributionFlags::MANDATORY_25_DIGEST, DistributionFlags::MANDATORY_26),
            Err(DistributionFlags::V4_NC | DistributionFlags::UNLINK_ID)
        );
    }

    #[test]
    fn each_mandatory_flag_that_is_left_out_is_named() {
        for row in DistributionFlags::TABLE {
            let offer =
                DistributionFlags::HIDDEN.without(DistributionFlags::MANDATORY_25_DIGEST).without(row.flag);
            let agreed = DistributionFlags::HIDDEN.negotiate(offer, DistributionFlags::MANDATORY_26);
            match row.mandatory_in {
                Some(_) => assert_eq!(agreed.unwrap_err().to_string(), row.name),
                None => assert!(agreed.is_ok(), "{}", row.name),
            }
        }
    }

    #[test]
    fn unknown_bits_are_shown_and_have_no_effect() {
        let odd = DistributionFlags(DistributionFlags::HIDDEN.0 | 1 << 63 | 1 << 15);
        assert_eq!(
            DistributionFlags::HIDDEN.negotiate(odd, DistributionFlags::REQUIRED),
            Ok(DistributionFlags::HIDDEN)
        );
        assert_eq!(DistributionFlags(1 << 63 | 1).to_string(), "PUBLISHED | 0x8000000000000000");
        assert_eq!(DistributionFlags::NONE.to_string(), "none");
    }
}

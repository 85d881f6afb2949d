//! The one table of tags.
//!
//! A term on the wire is one tag byte and a body. Standalone terms start with [`VERSION_MAGIC`]; terms inside frames with
//! a distribution header do not. Bodies are big-endian except for the magnitudes of big integers.

/// Declares the constants, [`name`] and the documentation of each tag from one row.
macro_rules! tags {
    ($($value:literal $name:ident $layout:literal $note:literal)*) => {
        $(
            #[doc = concat!("Body: `", $layout, "`. ", $note, ".")]
            pub const $name: u8 = $value;
        )*

        /// The name that the erts documentation gives to a tag; `None` for a byte that is no tag.
        pub const fn name(tag: u8) -> Option<&'static str> {
            match tag {
                $($value => Some(stringify!($name)),)*
                _ => None,
            }
        }
    };
}

tags! {
    67  RECORD_EXT          "N:4, Flags:1, Module, Name, N field names, N values" "Native records, since OTP 29; flag 1 = exported"
    70  NEW_FLOAT_EXT       "IEEE 754:8"                                 "NaN and infinities are refused"
    77  BIT_BINARY_EXT      "Len:4, Bits:1, Len bytes"                   "Bits = used bits of the last byte, 1 to 8"
    80  COMPRESSED          "Size:4, zlib stream of tag and body"        "Only directly after the version byte"
    82  ATOM_CACHE_REF      "Index:1"                                    "Only in frames with a distribution header"
    88  NEW_PID_EXT         "Node, Id:4, Serial:4, Creation:4"           "The form in which pids are sent"
    89  NEW_PORT_EXT        "Node, Id:4, Creation:4"                     "Sent by OTP 25 and earlier if the id fits into 28 bits"
    90  NEWER_REFERENCE_EXT "Words:2, Node, Creation:4, Words times 4"   "The form in which references are sent"
    97  SMALL_INTEGER_EXT   "Value:1"                                    "0 to 255"
    98  INTEGER_EXT         "Value:4, signed"                            "Integers of 32 bits"
    99  FLOAT_EXT           "31 bytes of text"                           "Decoded only; not sent since R11"
    100 ATOM_EXT            "Len:2, Latin-1"                             "Decoded only; `term_to_binary` emits it up to OTP 25"
    101 REFERENCE_EXT       "Node, Id:4, Creation:1"                     "Decoded only"
    102 PORT_EXT            "Node, Id:4, Creation:1"                     "Decoded only"
    103 PID_EXT             "Node, Id:4, Serial:4, Creation:1"           "Decoded only"
    104 SMALL_TUPLE_EXT     "Arity:1, elements"                          "Up to 255 elements"
    105 LARGE_TUPLE_EXT     "Arity:4, elements"                          "From 256 elements"
    106 NIL_EXT             ""                                           "The empty list"
    107 STRING_EXT          "Len:2, bytes"                               "A list of 1 to 65,535 integers 0 to 255"
    108 LIST_EXT            "Len:4, elements, tail"                      "Any other list; a tail other than NIL makes it improper"
    109 BINARY_EXT          "Len:4, bytes"                               "Bit strings of whole bytes"
    110 SMALL_BIG_EXT       "N:1, Sign:1, N bytes little-endian"         "Sign 1 = negative"
    111 LARGE_BIG_EXT       "N:4, Sign:1, N bytes little-endian"         "From 256 bytes"
    112 NEW_FUN_EXT         "Size:4, Arity:1, Uniq:16, Index:4, NumFree:4, Module, OldIndex, OldUniq, Pid, free terms" "Size counts itself"
    113 EXPORT_EXT          "Module, Function, Arity"                    "`fun M:F/A`"
    114 NEW_REFERENCE_EXT   "Words:2, Node, Creation:1, Words times 4"   "Decoded only"
    115 SMALL_ATOM_EXT      "Len:1, Latin-1"                             "Decoded only"
    116 MAP_EXT             "Pairs:4, keys and values in turn"           "Any order, no duplicate keys"
    118 ATOM_UTF8_EXT       "Len:2, UTF-8"                               "Atoms of more than 255 bytes; at most 255 characters"
    119 SMALL_ATOM_UTF8_EXT "Len:1, UTF-8"                               "The form in which atoms are sent"
    120 V4_PORT_EXT         "Node, Id:8, Creation:4"                     "The form in which OTP 26 and later send ports"
    121 LOCAL_EXT           "Hash:4, private"                            "`term_to_binary(Term, [local])`, since OTP 26; opaque"
}

/// The byte before a standalone term.
pub const VERSION_MAGIC: u8 = 131;

#[cfg(test)]
mod tests {
    #[test]
    fn numbers_and_names_belong_together() {
        assert_eq!(super::name(super::MAP_EXT), Some("MAP_EXT"));
        assert_eq!(super::name(117), None, "FUN_EXT is not decoded since OTP 23");
        assert_eq!((0..=255).filter(|tag| super::name(*tag).is_some()).count(), 32);
    }
}

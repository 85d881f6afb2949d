use core::fmt;
use core::ops::Deref;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeSeq, Serializer};

use super::native;

/// Text that is written as a list of characters, an Erlang string; `String` and `&str` are written as binaries.
///
/// Read from a list of characters or a binary, as `String` is.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Charlist(pub String);

/// Bytes that are written as a binary and share their buffer with the term they are read from; `Vec<u8>` is a list of integers.
#[derive(Clone, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Binary(pub Bytes);

/// An option whose `None` is written as `undefined`, Erlang's word; that of a plain `Option` is written as `nil`, Elixir's.
///
/// Both read either.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct OrUndefined<T>(pub Option<T>);

impl Serialize for Charlist {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.chars().count()))?;
        for c in self.0.chars() {
            list.serialize_element(&u32::from(c))?;
        }
        list.end()
    }
}

impl<'de> Deserialize<'de> for Charlist {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Characters;

        impl<'de> Visitor<'de> for Characters {
            type Value = Charlist;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a charlist")
            }

            fn visit_str<E>(self, text: &str) -> Result<Charlist, E> {
                Ok(Charlist(text.to_owned()))
            }

            fn visit_string<E>(self, text: String) -> Result<Charlist, E> {
                Ok(Charlist(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Charlist, A::Error> {
                let mut text = String::new();
                while let Some(c) = list.next_element()? {
                    text.push(c);
                }
                Ok(Charlist(text))
            }
        }

        deserializer.deserialize_string(Characters)
    }
}

impl Serialize for Binary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        native::serialize_binary(&self.0, serializer)
    }
}

impl<'de> Deserialize<'de> for Binary {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        native::deserialize_binary(deserializer).map(Self)
    }
}

impl<T: Serialize> Serialize for OrUndefined<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Some(value) => value.serialize(serializer),
            None => serializer.serialize_unit_variant("OrUndefined", 0, "undefined"),
        }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OrUndefined<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::deserialize(deserializer).map(Self)
    }
}

impl<T> Default for OrUndefined<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> From<Option<T>> for OrUndefined<T> {
    fn from(option: Option<T>) -> Self {
        Self(option)
    }
}

impl From<&str> for Charlist {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<Bytes> for Binary {
    fn from(bytes: Bytes) -> Self {
        Self(bytes)
    }
}

impl Deref for Charlist {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Deref for Binary {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

//! Values straight from the bytes of an encoded term, in one pass and without a tape.
//!
//! Only the usual forms are read here. Whatever else comes, and every mistake, ends the attempt with [`Stop`], which says
//! nothing; the same term is then read through a view, which knows all forms and says what is wrong and where. So this
//! can only ever make a right value appear sooner. A type that swallows the error of a part may still go on: the attempt
//! has been marked as ended by then, and what it makes is thrown away.

use core::ops::Range;

use serde::de::value::StrDeserializer;
use serde::de::{self, DeserializeSeed, EnumAccess, VariantAccess, Visitor};

use super::de::MAX_DEPTH;
use super::native::{self, Native};
use super::reader::{Reader, Result, Stop};
use super::ser::{ELIXIR, STRUCT};
use crate::Limits;
use crate::etf::atom::are_equal;
use crate::etf::raw::Source;
use crate::etf::tag::*;

/// The value of the term at this place inside `of`; `None` if it has to be read in another way.
pub(super) fn read<'de, T: de::Deserialize<'de>>(of: Source<'de>, place: Range<usize>) -> Option<T> {
    whole(Reader::checked(of, place.start), place.end)
}

/// The value of bytes that nobody has checked, from the first to the last; `None` if they have to be read in another way. If
/// there is a value, they are a term within the limits.
pub(super) fn read_unchecked<'de, T: de::Deserialize<'de>>(of: Source<'de>, limits: &Limits) -> Option<T> {
    whole(Reader::unchecked(of, limits)?, of.bytes.len())
}

#[inline(always)]
fn whole<'de, T: de::Deserialize<'de>>(mut reader: Reader<'de>, end: usize) -> Option<T> {
    let value = T::deserialize(Deserializer { reader: &mut reader, depth: 0 });
    // A type may make a value of a term without looking at it. What came after it was then read in its place.
    let complete = reader.missing == 0 && reader.pos() == end;
    if reader.ended || !complete { None } else { value.ok() }
}

impl<'de> Reader<'de> {
    /// What the visitor makes of so many terms.
    #[inline(always)]
    fn sequence<V: Visitor<'de>>(&mut self, count: u32, depth: usize, visitor: V) -> Result<V::Value> {
        let mut elements = Elements { reader: self, remaining: count, depth };
        let value = visitor.visit_seq(&mut elements);
        let remaining = elements.remaining;
        if remaining != 0 {
            return self.stop();
        }
        self.inside(value)
    }

    /// What the visitor makes of a list.
    #[inline(always)]
    fn list<V: Visitor<'de>>(&mut self, depth: usize, visitor: V) -> Result<V::Value> {
        if let Some(count) = self.counted(LIST_EXT) {
            let value = self.sequence(count, depth, visitor)?;
            let end = self.nil();
            return self.some(end).map(|()| value);
        }
        if self.nil().is_some() {
            return self.sequence(0, depth, visitor);
        }
        let string = match self.start() {
            Some([STRING_EXT, high, low]) => {
                let len = usize::from(u16::from_be_bytes([*high, *low]));
                self.rest.get(3..).and_then(|body| self.take(body, len))
            }
            _ => None,
        };
        let mut bytes = ByteElements(self.some(string)?.iter());
        let value = visitor.visit_seq(&mut bytes);
        if bytes.0.len() != 0 {
            return self.stop();
        }
        self.inside(value)
    }
}

#[inline(always)]
fn is_nil(text: &[u8]) -> bool {
    matches!(text, b"nil" | b"undefined")
}

/// Reads the next term.
struct Deserializer<'a, 'de> {
    reader: &'a mut Reader<'de>,
    depth: usize,
}

impl<'de> Deserializer<'_, 'de> {
    #[inline(always)]
    fn deeper(&mut self) -> Result<usize> {
        // The bound of the other way to read, so that it decides.
        if self.depth >= MAX_DEPTH { self.reader.stop() } else { Ok(self.depth + 1) }
    }

    #[inline]
    fn text<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let bytes = match self.reader.tag() {
            Some(BINARY_EXT) => self.reader.binary(),
            _ => self.reader.atom(),
        };
        let text = bytes.and_then(|bytes| core::str::from_utf8(bytes).ok());
        visitor.visit_borrowed_str(self.reader.some(text)?)
    }

    #[inline(always)]
    fn number<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.reader.integer() {
            Some(value) => visitor.visit_i64(value),
            None => self.wide_number(visitor),
        }
    }

    #[inline(never)]
    fn wide_number<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let wide = self.reader.wide();
        visitor.visit_u64(self.reader.some(wide)?)
    }

    /// A map, or a property list. `fields` are those of a struct, `name` is its name.
    #[inline]
    fn map<V: Visitor<'de>>(
        mut self,
        name: Option<&'static str>,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        let depth = self.deeper()?;
        let (remaining, tuples) = match self.reader.counted(MAP_EXT) {
            Some(count) => (count, false),
            None => match self.reader.counted(LIST_EXT) {
                Some(count) => (count, true),
                None => {
                    let nil = self.reader.nil();
                    self.reader.some(nil)?;
                    return visitor.visit_map(&mut Entries::new(self.reader, 0, depth, &[]));
                }
            },
        };
        let keys = self.reader.noted_keys();
        let mut entries = Entries::new(self.reader, remaining, depth, fields);
        entries.tuples = tuples;
        if let Some(name) = name.filter(|_| !tuples) {
            entries.name = Some(name);
            entries.wants_module = name.starts_with(ELIXIR);
        }
        let value = visitor.visit_map(&mut entries);
        let complete = entries.remaining == 0 && !entries.value && !entries.wants_module;
        let in_order = if tuples { self.reader.nil().is_some() } else { self.reader.keys_differ(keys) };
        if !complete || !in_order {
            return self.reader.stop();
        }
        self.reader.inside(value)
    }
}

macro_rules! numbers {
    ($($method:ident)*) => {
        $(
            #[inline]
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
                self.number(visitor)
            }
        )*
    };
}

impl<'de> de::Deserializer<'de> for Deserializer<'_, 'de> {
    type Error = Stop;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_any<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value> {
        match self.reader.tag() {
            Some(SMALL_INTEGER_EXT | INTEGER_EXT | SMALL_BIG_EXT) => self.number(visitor),
            Some(NEW_FLOAT_EXT) => self.deserialize_f64(visitor),
            Some(BINARY_EXT) => {
                let bytes = self.reader.binary();
                let bytes = self.reader.some(bytes)?;
                match core::str::from_utf8(bytes) {
                    Ok(text) => visitor.visit_borrowed_str(text),
                    Err(_) => visitor.visit_borrowed_bytes(bytes),
                }
            }
            Some(SMALL_TUPLE_EXT) => {
                let depth = self.deeper()?;
                let arity = self.reader.tuple();
                let arity = self.reader.some(arity)?;
                self.reader.sequence(arity, depth, visitor)
            }
            Some(LIST_EXT | NIL_EXT | STRING_EXT) => {
                let depth = self.deeper()?;
                self.reader.list(depth, visitor)
            }
            Some(MAP_EXT) => self.map(None, &[], visitor),
            _ => {
                let atom = self.reader.atom();
                match self.reader.some(atom)? {
                    b"true" => visitor.visit_bool(true),
                    b"false" => visitor.visit_bool(false),
                    b"nil" | b"undefined" => visitor.visit_unit(),
                    text => {
                        let text = core::str::from_utf8(text).ok();
                        visitor.visit_borrowed_str(self.reader.some(text)?)
                    }
                }
            }
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let range = self.reader.skip();
        self.reader.some(range)?;
        visitor.visit_unit()
    }

    #[inline]
    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.reader.atom() {
            Some(b"true") => visitor.visit_bool(true),
            Some(b"false") => visitor.visit_bool(false),
            _ => self.reader.stop(),
        }
    }

    numbers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
    }

    #[inline]
    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_f64(visitor)
    }

    #[inline]
    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let value = match self.reader.float() {
            Some(value) => Some(value),
            None => self.reader.integer().map(|value| value as f64),
        };
        visitor.visit_f64(self.reader.some(value)?)
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.reader.integer() {
            Some(value) => {
                let c = u32::try_from(value).ok().and_then(char::from_u32);
                visitor.visit_char(self.reader.some(c)?)
            }
            None => self.text(visitor),
        }
    }

    #[inline]
    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.text(visitor)
    }

    #[inline]
    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.text(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value> {
        match self.reader.binary() {
            Some(bytes) => visitor.visit_borrowed_bytes(bytes),
            None => {
                let depth = self.deeper()?;
                self.reader.list(depth, visitor)
            }
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_bytes(visitor)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        let before = self.reader.place();
        if self.reader.atom().is_some_and(is_nil) {
            return visitor.visit_none();
        }
        self.reader.go_back(before);
        visitor.visit_some(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.reader.atom() {
            Some(text) if is_nil(text) || text == b"ok" => visitor.visit_unit(),
            _ => self.reader.stop(),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value> {
        match self.reader.atom() {
            Some(text) if text == name.as_bytes() => visitor.visit_unit(),
            _ => self.reader.stop(),
        }
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        mut self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value> {
        let native = match name {
            // Without the detour.
            // The visitor checks the text, which may be none: a type that swallows its error has not read a term.
            native::ATOM => match self.reader.atom() {
                Some(text) => {
                    let atom = visitor.visit_borrowed_bytes(text);
                    return self.reader.inside(atom);
                }
                None => self.reader.term().map(Native::Term),
            },
            native::PID => match self.reader.encoded_pid() {
                Some(bytes) => {
                    let pid = visitor.visit_borrowed_bytes(bytes);
                    return self.reader.inside(pid);
                }
                None => self.reader.term().map(Native::Term),
            },
            native::TERM => self.reader.term().map(Native::Term),
            native::RAW => self.reader.skip().map(|range| Native::Raw(self.reader.of.range(range))),
            _ => {
                let depth = self.deeper()?;
                return visitor.visit_newtype_struct(Deserializer { reader: self.reader, depth });
            }
        };
        native::put(self.reader.some(native)?);
        let value = visitor.visit_unit();
        let _ = native::take();
        value
    }

    #[inline]
    fn deserialize_seq<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value> {
        if let Some(bytes) = self.reader.binary() {
            return visitor.visit_seq(de::value::SeqDeserializer::new(bytes.iter().copied()));
        }
        let depth = self.deeper()?;
        self.reader.list(depth, visitor)
    }

    #[inline]
    fn deserialize_tuple<V: Visitor<'de>>(mut self, len: usize, visitor: V) -> Result<V::Value> {
        let depth = self.deeper()?;
        match self.reader.tuple() {
            Some(arity) if arity as usize == len => self.reader.sequence(arity, depth, visitor),
            _ => self.reader.stop(),
        }
    }

    #[inline]
    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_tuple(len, visitor)
    }

    #[inline]
    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.map(None, &[], visitor)
    }

    #[inline]
    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.map(Some(name), fields, visitor)
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        mut self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        let depth = self.deeper()?;
        let content = match self.reader.tuple() {
            Some(0) => return self.reader.stop(),
            Some(arity) => Some(arity - 1),
            None => None,
        };
        let text = self.reader.atom();
        let text = self.reader.some(text)?;
        let tag = variants.iter().copied().find(|variant| variant.as_bytes() == text);
        let tag = tag.or_else(|| core::str::from_utf8(text).ok());
        let tag = self.reader.some(tag)?;
        let reader = &mut *self.reader;
        let value = visitor.visit_enum(Variant { reader, tag, content, depth });
        self.reader.inside(value)
    }

    #[inline]
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.text(visitor)
    }
}

/// Terms that follow one another.
struct Elements<'a, 'de> {
    reader: &'a mut Reader<'de>,
    remaining: u32,
    depth: usize,
}

impl<'de> de::SeqAccess<'de> for &mut Elements<'_, 'de> {
    type Error = Stop;

    #[inline(always)]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        if self.remaining == 0 {
            return Ok(None);
        }
        self.remaining -= 1;
        seed.deserialize(Deserializer { reader: self.reader, depth: self.depth }).map(Some)
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        // Each takes a byte, so that a number that is not true costs no memory; serde itself has a cap, too.
        Some((self.remaining as usize).min(self.reader.rest.len()))
    }
}

/// The elements of a list in the form STRING_EXT.
struct ByteElements<'de>(core::slice::Iter<'de, u8>);

impl<'de> de::SeqAccess<'de> for &mut ByteElements<'de> {
    type Error = Stop;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        match self.0.next() {
            Some(byte) => seed.deserialize(Byte(*byte)).map(Some),
            None => Ok(None),
        }
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

/// An integer without a tag; for anything but integers there is the other way to read.
struct Byte(u8);

macro_rules! byte {
    ($($method:ident)*) => {
        $(
            #[inline]
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
                visitor.visit_i64(i64::from(self.0))
            }
        )*
    };
}

macro_rules! no_byte {
    ($($method:ident($($argument:ty),*))*) => {
        $(
            fn $method<V: Visitor<'de>>(self, $(_: $argument,)* _: V) -> Result<V::Value> {
                Err(Stop)
            }
        )*
    };
}

impl<'de> de::Deserializer<'de> for Byte {
    type Error = Stop;

    fn is_human_readable(&self) -> bool {
        false
    }

    byte! {
        deserialize_any
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
    }

    no_byte! {
        deserialize_bool() deserialize_f32() deserialize_f64() deserialize_char() deserialize_str()
        deserialize_string() deserialize_bytes() deserialize_byte_buf() deserialize_option() deserialize_unit()
        deserialize_unit_struct(&'static str) deserialize_newtype_struct(&'static str) deserialize_seq()
        deserialize_tuple(usize) deserialize_tuple_struct(&'static str, usize) deserialize_map()
        deserialize_struct(&'static str, &'static [&'static str])
        deserialize_enum(&'static str, &'static [&'static str]) deserialize_identifier()
        deserialize_ignored_any()
    }
}

/// The pairs of a map or property list.
struct Entries<'a, 'de> {
    reader: &'a mut Reader<'de>,
    remaining: u32,
    depth: usize,
    /// Each pair is a tuple.
    tuples: bool,
    /// A key was read, and its value not yet.
    value: bool,
    /// Of a struct, in a map: the key `__struct__` is none of its fields.
    name: Option<&'static str>,
    /// The name has to be found in the map.
    wants_module: bool,
    fields: &'static [&'static str],
    /// The field that comes next if they are in order.
    field: usize,
    /// The fields that came, by number, and [`MODULE`].
    seen: u64,
}

/// Of the fields that came, the bit for the key `__struct__`.
const MODULE: u32 = 63;

impl<'a, 'de> Entries<'a, 'de> {
    #[inline(always)]
    fn new(
        reader: &'a mut Reader<'de>,
        remaining: u32,
        depth: usize,
        fields: &'static [&'static str],
    ) -> Self {
        Self {
            reader,
            remaining,
            depth,
            tuples: false,
            value: false,
            name: None,
            wants_module: false,
            fields,
            field: 0,
            seen: 0,
        }
    }

    /// Passes over the pair that says which struct it is.
    #[inline]
    fn module(&mut self, name: &'static str) -> Option<()> {
        let module = self.reader.atom();
        match module {
            Some(module) if module == name.as_bytes() => self.wants_module = false,
            _ if self.wants_module => return None,
            Some(module) if module.is_ascii() => {}
            Some(_) => return None,
            None => {
                self.reader.skip()?;
            }
        }
        Some(())
    }

    /// Whether a field comes for the first time, as each key of a map has to; a property list may have it again.
    #[inline(always)]
    fn is_new(&mut self, number: u32) -> bool {
        let bit = 1u64 << number;
        let new = self.seen & bit == 0 || self.tuples;
        self.seen |= bit;
        new
    }

    /// The number and name of the field, if it is one: known to be text, and to the program.
    #[inline(always)]
    fn known(&mut self, text: &[u8]) -> Option<(usize, &'static str)> {
        let number = match self.fields.get(self.field) {
            Some(field) if are_equal(field.as_bytes(), text) => self.field,
            _ => self.fields.iter().position(|field| are_equal(field.as_bytes(), text))?,
        };
        self.field = number + 1;
        self.fields.get(number).map(|name| (number, *name))
    }
}

impl<'de> de::MapAccess<'de> for &mut Entries<'_, 'de> {
    type Error = Stop;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        loop {
            if self.value {
                return self.reader.stop();
            }
            if self.remaining == 0 {
                return Ok(None);
            }
            self.remaining -= 1;
            if self.tuples && self.reader.tuple() != Some(2) {
                return self.reader.stop();
            }
            if !self.fields.is_empty() || self.name.is_some() {
                let before = self.reader.place();
                if let Some(text) = self.reader.atom() {
                    if let Some(name) = self.name
                        && text == STRUCT.as_bytes()
                    {
                        let passed = if self.is_new(MODULE) { self.module(name) } else { None };
                        self.reader.some(passed)?;
                        continue;
                    }
                    if let Some((number, field)) = self.known(text) {
                        match u32::try_from(number) {
                            Ok(number) if number < MODULE => {
                                if !self.is_new(number) {
                                    return self.reader.stop();
                                }
                            }
                            _ => self.reader.note_key(before.rest),
                        }
                        self.value = true;
                        return seed.deserialize(StrDeserializer::new(field)).map(Some);
                    }
                }
                self.reader.go_back(before);
            }
            if !self.tuples {
                self.reader.note_key(self.reader.rest);
            }
            self.value = true;
            return seed.deserialize(Deserializer { reader: self.reader, depth: self.depth }).map(Some);
        }
    }

    #[inline]
    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        if !core::mem::take(&mut self.value) {
            return self.reader.stop();
        }
        seed.deserialize(Deserializer { reader: self.reader, depth: self.depth })
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.remaining as usize)
    }
}

/// An atom, or a tuple whose first element is one.
struct Variant<'a, 'de> {
    reader: &'a mut Reader<'de>,
    tag: &'de str,
    /// The number of other elements of the tuple.
    content: Option<u32>,
    depth: usize,
}

impl<'a, 'de> EnumAccess<'de> for Variant<'a, 'de> {
    type Error = Stop;
    type Variant = Self;

    #[inline]
    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self)> {
        Ok((seed.deserialize(StrDeserializer::<Stop>::new(self.tag))?, self))
    }
}

impl<'de> Variant<'_, 'de> {
    fn only(&mut self) -> Result<()> {
        if self.content == Some(1) { Ok(()) } else { self.reader.stop() }
    }
}

impl<'de> VariantAccess<'de> for Variant<'_, 'de> {
    type Error = Stop;

    #[inline]
    fn unit_variant(self) -> Result<()> {
        if self.content.is_none() { Ok(()) } else { self.reader.stop() }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(mut self, seed: T) -> Result<T::Value> {
        self.only()?;
        seed.deserialize(Deserializer { reader: self.reader, depth: self.depth })
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value> {
        match self.content {
            Some(count) if count as usize == len => self.reader.sequence(count, self.depth, visitor),
            _ => self.reader.stop(),
        }
    }

    fn struct_variant<V: Visitor<'de>>(
        mut self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.only()?;
        Deserializer { reader: self.reader, depth: self.depth }.map(None, fields, visitor)
    }
}

#[cfg(test)]
#[path = "direct/tests.rs"]
mod tests;

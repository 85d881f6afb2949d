use std::borrow::Cow;

use serde::de::{self, DeserializeSeed, Deserializer as _, EnumAccess, VariantAccess, Visitor};

use super::error::{Error, Step};
use super::native::{self, Native};
use super::ser::{ELIXIR, STRUCT};
use super::source::{Shape, Source};
use crate::etf::Term;

type Result<T> = core::result::Result<T, Error>;

/// How deep values may nest. Rust's own types decide how deep they are read, recursively; this keeps a term from driving a
/// recursive type through the stack. `Term` and `RawTerm` are read whole, whatever their depth.
pub const MAX_DEPTH: usize = 128;

/// Reads one value from a term, under the conventions of [`crate::etf::serde`].
pub(super) struct Deserializer<S> {
    source: S,
    depth: usize,
}

/// A term in an error: what it is, and itself if that is short.
pub(super) fn describe(term: &Term) -> String {
    describe_source(term)
}

fn describe_source<'de, S: Source<'de>>(source: S) -> String {
    match source.shape() {
        Shape::Atom(text) => format!("the atom '{text}'"),
        Shape::Integer(value) => format!("the integer {value}"),
        Shape::BigInteger(..) => "an integer beyond 64 bits".to_owned(),
        Shape::Float(value) => format!("the float {value:?}"),
        Shape::Bits(bytes, 8) => match core::str::from_utf8(bytes) {
            Ok(text) if text.len() <= 40 => format!("the binary {text:?}"),
            _ => format!("a binary of {} bytes", bytes.len()),
        },
        Shape::Bits(..) => "a bit string".to_owned(),
        Shape::Tuple(0, _) => "an empty tuple".to_owned(),
        Shape::Tuple(len, mut elements) => match elements.next().map(S::shape) {
            Some(Shape::Atom(tag)) => format!("a tuple of {len} with the tag '{tag}'"),
            _ => format!("a tuple of {len}"),
        },
        Shape::List(elements, true) => format!("a list of {}", elements.count()),
        Shape::List(_, false) => "an improper list".to_owned(),
        Shape::Map(len, _) => format!("a map of {len}"),
        Shape::Other(kind) => format!("a term of type {kind:?}"),
    }
}

impl<'de, S: Source<'de>> Deserializer<S> {
    pub(super) fn new(source: S) -> Self {
        Self { source, depth: 0 }
    }

    #[cold]
    fn mismatch<T>(&self, expected: &dyn de::Expected) -> Result<T> {
        Err(Error::expected(expected, describe_source(self.source)))
    }

    fn deeper(&self) -> Result<usize> {
        if self.depth == MAX_DEPTH {
            return Err(Error::new(format!("values nest deeper than {MAX_DEPTH}")));
        }
        Ok(self.depth + 1)
    }

    fn sequence<V: Visitor<'de>>(&self, items: S::Items, visitor: V) -> Result<V::Value> {
        let mut elements = Elements { items, index: 0, depth: self.deeper()? };
        let value = visitor.visit_seq(&mut elements)?;
        match elements.items.count() {
            0 => Ok(value),
            more => Err(Error::new(format!("{more} more elements than expected"))),
        }
    }

    /// Text: a binary of UTF-8, an atom, or a list of characters.
    fn text<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.source.shape() {
            Shape::Atom(text) => visit_text(text, visitor),
            Shape::Bits(bytes, 8) => match core::str::from_utf8(bytes) {
                Ok(text) => visitor.visit_borrowed_str(text),
                Err(_) => Err(Error::expected(&visitor, "a binary that is not UTF-8")),
            },
            Shape::List(mut elements, true) => {
                let text = elements.try_fold(String::new(), |mut text, element| {
                    let Shape::Integer(c) = element.shape() else { return None };
                    text.push(u32::try_from(c).ok().and_then(char::from_u32)?);
                    Some(text)
                });
                match text {
                    Some(text) => visitor.visit_string(text),
                    None => self.mismatch(&visitor),
                }
            }
            _ => self.mismatch(&visitor),
        }
    }

    fn map<V: Visitor<'de>>(self, name: Option<&'static str>, visitor: V) -> Result<V::Value> {
        let depth = self.deeper()?;
        let items = match self.source.shape() {
            Shape::Map(_, items) => items,
            // A property list or keyword list.
            Shape::List(items, true) => {
                let mut pairs = Pairs::<S> { items, key: None, value: None, depth, count: 0 };
                return visitor.visit_map(&mut pairs);
            }
            _ => return self.mismatch(&visitor),
        };
        if let Some(name) = name.filter(|name| name.starts_with(ELIXIR)) {
            let mut keys_and_values = items.clone();
            let mut found = None;
            while let (Some(key), Some(value)) = (keys_and_values.next(), keys_and_values.next()) {
                if is_struct_key(key) {
                    found = Some(value);
                }
            }
            match found.map(|value| (value, value.shape())) {
                Some((_, Shape::Atom(module))) if module == name => {}
                Some((value, _)) => {
                    let expected =
                        Error::new(format!("expected the struct {name}, got {}", describe_source(value)));
                    return Err(expected.inside(Step::Key(STRUCT.to_owned())));
                }
                None => {
                    return Err(Error::new(format!(
                        "expected the struct {name}, got a map without __struct__"
                    )));
                }
            }
        }
        let mut entries =
            Entries::<S> { items, key: None, value: None, skip_struct: name.is_some(), depth, count: 0 };
        visitor.visit_map(&mut entries)
    }

    fn native<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value> {
        native::put(if name == native::RAW {
            Native::Raw(self.source.raw()?)
        } else {
            Native::Term(self.source.term())
        });
        let value = visitor.visit_unit();
        let _ = native::take();
        value
    }
}

fn visit_text<'de, V: Visitor<'de>>(text: Cow<'de, str>, visitor: V) -> Result<V::Value> {
    match text {
        Cow::Borrowed(text) => visitor.visit_borrowed_str(text),
        Cow::Owned(text) => visitor.visit_string(text),
    }
}

/// The atoms that stand for nothing, in Elixir and in Erlang.
fn is_nil(text: &str) -> bool {
    matches!(text, "nil" | "undefined")
}

fn is_struct_key<'de, S: Source<'de>>(key: S) -> bool {
    matches!(key.shape(), Shape::Atom(text) if text == STRUCT)
}

/// For a type that only has integers of one kind to offer.
macro_rules! integers {
    ($($method:ident)*) => {
        $(
            fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
                match self.source.shape() {
                    Shape::Integer(value) => visitor.visit_i64(value),
                    Shape::BigInteger(negative, magnitude) => big_integer(negative, magnitude, visitor),
                    _ => self.mismatch(&visitor),
                }
            }
        )*
    };
}

fn big_integer<'de, V: Visitor<'de>>(negative: bool, magnitude: &[u8], visitor: V) -> Result<V::Value> {
    let mut bytes = [0; 16];
    let Some(low) = bytes.get_mut(..magnitude.len()) else {
        return Err(Error::expected(&visitor, "an integer beyond 128 bits"));
    };
    low.copy_from_slice(magnitude);
    let value = u128::from_le_bytes(bytes);
    if !negative {
        return match u64::try_from(value) {
            Ok(value) => visitor.visit_u64(value),
            Err(_) => visitor.visit_u128(value),
        };
    }
    match 0i128.checked_sub_unsigned(value) {
        Some(value) => visitor.visit_i128(value),
        None => Err(Error::expected(&visitor, "an integer beyond 128 bits")),
    }
}

impl<'de, S: Source<'de>> de::Deserializer<'de> for Deserializer<S> {
    type Error = Error;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.source.shape() {
            Shape::Atom(text) => match &*text {
                "true" => visitor.visit_bool(true),
                "false" => visitor.visit_bool(false),
                "nil" | "undefined" => visitor.visit_unit(),
                _ => visit_text(text, visitor),
            },
            Shape::Integer(value) => visitor.visit_i64(value),
            Shape::BigInteger(negative, magnitude) => big_integer(negative, magnitude, visitor),
            Shape::Float(value) => visitor.visit_f64(value),
            Shape::Bits(bytes, 8) => match core::str::from_utf8(bytes) {
                Ok(text) => visitor.visit_borrowed_str(text),
                Err(_) => visitor.visit_borrowed_bytes(bytes),
            },
            Shape::Tuple(_, items) | Shape::List(items, true) => self.sequence(items, visitor),
            Shape::Map(..) => self.map(None, visitor),
            Shape::Bits(..) | Shape::List(_, false) | Shape::Other(_) => self.mismatch(&visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        visitor.visit_unit()
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.source.shape() {
            Shape::Atom(text) if text == "true" => visitor.visit_bool(true),
            Shape::Atom(text) if text == "false" => visitor.visit_bool(false),
            _ => self.mismatch(&visitor),
        }
    }

    integers! {
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.source.shape() {
            Shape::Float(value) => visitor.visit_f64(value),
            // Erlang code rarely minds the difference, and `1` is what most people type.
            Shape::Integer(value) => visitor.visit_f64(value as f64),
            _ => self.mismatch(&visitor),
        }
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.source.shape() {
            Shape::Integer(value) => match u32::try_from(value).ok().and_then(char::from_u32) {
                Some(c) => visitor.visit_char(c),
                None => self.mismatch(&visitor),
            },
            _ => self.text(visitor),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.text(visitor)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.text(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.source.shape() {
            Shape::Bits(bytes, 8) => visitor.visit_borrowed_bytes(bytes),
            Shape::List(items, true) => self.sequence(items, visitor),
            _ => self.mismatch(&visitor),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.source.shape() {
            Shape::Atom(text) if is_nil(&text) => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.source.shape() {
            Shape::Atom(text) if is_nil(&text) || text == "ok" => visitor.visit_unit(),
            _ => self.mismatch(&visitor),
        }
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value> {
        match self.source.shape() {
            Shape::Atom(text) if text == name => visitor.visit_unit(),
            _ => Err(Error::new(format!("expected the atom '{name}', got {}", describe_source(self.source)))),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value> {
        if matches!(name, native::TERM | native::ATOM | native::PID | native::RAW) {
            return self.native(name, visitor);
        }
        let depth = self.deeper()?;
        visitor.visit_newtype_struct(Self { depth, ..self })
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        match self.source.shape() {
            Shape::List(items, true) => self.sequence(items, visitor),
            Shape::Bits(bytes, 8) => {
                visitor.visit_seq(de::value::SeqDeserializer::new(bytes.iter().copied()))
            }
            _ => self.mismatch(&visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value> {
        match self.source.shape() {
            Shape::Tuple(arity, items) if arity == len => self.sequence(items, visitor),
            _ => Err(Error::new(format!("expected a tuple of {len}, got {}", describe_source(self.source)))),
        }
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        len: usize,
        visitor: V,
    ) -> Result<V::Value> {
        self.deserialize_tuple(len, visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.map(None, visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        self.map(Some(name), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value> {
        let depth = self.deeper()?;
        match self.source.shape() {
            Shape::Atom(tag) => visitor.visit_enum(Variant::<S> { tag, content: None, depth }),
            Shape::Tuple(arity, mut items) => match items.next().map(S::shape) {
                Some(Shape::Atom(tag)) => {
                    visitor.visit_enum(Variant::<S> { tag, content: Some((arity - 1, items)), depth })
                }
                _ => self.mismatch(&visitor),
            },
            _ => self.mismatch(&visitor),
        }
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value> {
        self.text(visitor)
    }
}

/// The elements of a list or tuple.
struct Elements<I> {
    items: I,
    index: usize,
    depth: usize,
}

impl<'de, S: Source<'de>, I: Iterator<Item = S>> de::SeqAccess<'de> for &mut Elements<I> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>> {
        let Some(source) = self.items.next() else { return Ok(None) };
        let index = self.index;
        self.index += 1;
        seed.deserialize(Deserializer { source, depth: self.depth })
            .map(Some)
            .map_err(|error| error.inside(Step::Index(index)))
    }

    fn size_hint(&self) -> Option<usize> {
        // serde itself caps what it allocates for a hint.
        self.items.size_hint().1
    }
}

/// The step of a key in a path.
fn key_step<'de, S: Source<'de>>(key: Option<S>) -> Step {
    Step::Key(match key.map(S::shape) {
        Some(Shape::Atom(text)) => text.into_owned(),
        Some(Shape::Integer(value)) => value.to_string(),
        Some(Shape::Bits(bytes, 8)) => match core::str::from_utf8(bytes) {
            Ok(text) => text.chars().take(40).collect(),
            Err(_) => "(a binary)".to_owned(),
        },
        _ => "(a key)".to_owned(),
    })
}

/// The pairs of a map.
struct Entries<'de, S: Source<'de>> {
    items: S::Items,
    key: Option<S>,
    value: Option<S>,
    skip_struct: bool,
    depth: usize,
    count: usize,
}

impl<'de, S: Source<'de>> de::MapAccess<'de> for &mut Entries<'de, S> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        loop {
            let (Some(key), Some(value)) = (self.items.next(), self.items.next()) else { return Ok(None) };
            if self.skip_struct && is_struct_key(key) {
                continue;
            }
            self.count += 1;
            (self.key, self.value) = (Some(key), Some(value));
            return seed
                .deserialize(Deserializer { source: key, depth: self.depth })
                .map(Some)
                .map_err(|error| error.inside(Step::Key(format!("(key {})", self.count))));
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        value(self.key, self.value.take(), self.depth, seed)
    }
}

fn value<'de, S: Source<'de>, V: DeserializeSeed<'de>>(
    key: Option<S>,
    value: Option<S>,
    depth: usize,
    seed: V,
) -> Result<V::Value> {
    let Some(source) = value else { return Err(Error::new("a value was read before its key")) };
    seed.deserialize(Deserializer { source, depth }).map_err(|error| error.inside(key_step(key)))
}

/// What an atom alone in a property list stands for.
static TRUE: Term = Term::atom("true");

/// The pairs of a property list: `{key, Value}`, or `key` alone for `{key, true}`.
struct Pairs<'de, S: Source<'de>> {
    items: S::Items,
    key: Option<S>,
    value: Option<S>,
    depth: usize,
    count: usize,
}

impl<'de, S: Source<'de>> de::MapAccess<'de> for &mut Pairs<'de, S> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>> {
        let Some(element) = self.items.next() else { return Ok(None) };
        let index = self.count;
        self.count += 1;
        match element.shape() {
            Shape::Tuple(2, mut pair) => (self.key, self.value) = (pair.next(), pair.next()),
            Shape::Atom(_) => (self.key, self.value) = (Some(element), None),
            _ => {
                let error =
                    Error::new(format!("expected a key and a value, got {}", describe_source(element)));
                return Err(error.inside(Step::Index(index)));
            }
        }
        let Some(source) = self.key else { return Ok(None) };
        seed.deserialize(Deserializer { source, depth: self.depth })
            .map(Some)
            .map_err(|error| error.inside(Step::Index(index)))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value> {
        match self.value.take() {
            None if self.key.is_some() => seed.deserialize(Deserializer { source: &TRUE, depth: self.depth }),
            source => value(self.key, source, self.depth, seed),
        }
    }
}

/// An atom, or a tuple whose first element is one.
struct Variant<'de, S: Source<'de>> {
    tag: Cow<'de, str>,
    /// The other elements of the tuple.
    content: Option<(usize, S::Items)>,
    depth: usize,
}

impl<'de, S: Source<'de>> EnumAccess<'de> for Variant<'de, S> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self)> {
        let tag = de::value::CowStrDeserializer::new(self.tag.clone());
        Ok((seed.deserialize(tag)?, self))
    }
}

impl<'de, S: Source<'de>> Variant<'de, S> {
    /// The second element of a tuple of two.
    fn only(&mut self, what: &str) -> Result<S> {
        let source = self.content.as_mut().filter(|(len, _)| *len == 1).and_then(|(_, items)| items.next());
        source.ok_or_else(|| Error::new(format!("expected {{{}, {what}}}, got {}", self.tag, self.got())))
    }

    fn got(&self) -> String {
        match &self.content {
            None => format!("the atom '{}'", self.tag),
            Some((len, _)) => format!("a tuple of {} with the tag '{}'", len + 1, self.tag),
        }
    }
}

impl<'de, S: Source<'de>> VariantAccess<'de> for Variant<'de, S> {
    type Error = Error;

    fn unit_variant(self) -> Result<()> {
        match self.content {
            None => Ok(()),
            Some(_) => Err(Error::new(format!("expected the atom '{}' alone, got {}", self.tag, self.got()))),
        }
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(mut self, seed: T) -> Result<T::Value> {
        let source = self.only("Value")?;
        seed.deserialize(Deserializer { source, depth: self.depth })
            .map_err(|error| error.inside(Step::Key(self.tag.into_owned())))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value> {
        match self.content {
            Some((arity, items)) if arity == len => {
                visitor.visit_seq(&mut Elements { items, index: 1, depth: self.depth })
            }
            _ => Err(Error::new(format!(
                "expected a tuple of {} with the tag '{}', got {}",
                len + 1,
                self.tag,
                self.got()
            ))),
        }
    }

    fn struct_variant<V: Visitor<'de>>(mut self, _: &'static [&'static str], visitor: V) -> Result<V::Value> {
        let source = self.only("Map")?;
        Deserializer { source, depth: self.depth }
            .deserialize_map(visitor)
            .map_err(|error| error.inside(Step::Key(self.tag.into_owned())))
    }
}

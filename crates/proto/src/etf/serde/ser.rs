use serde::ser::{self, Serialize};

use super::error::{Error, Step};
use super::native::{self, Form};
use super::sink::{Container, Sink};

type Result<T> = core::result::Result<T, Error>;

/// Serialises one value into a sink, under the conventions of [`crate::etf::serde`].
pub(super) struct Serializer<'a, S> {
    sink: &'a mut S,
    mode: Mode,
}

/// What text and bytes are.
#[derive(Clone, Copy, Eq, PartialEq)]
enum Mode {
    Binary,
    Atom,
    /// Bytes are an encoded term, and nothing is what waits in the slot.
    Native,
}

/// A list, tuple or map whose elements are being written.
pub(super) struct Compound<'a, S> {
    sink: &'a mut S,
    container: Container,
    /// Where the sink began it.
    mark: usize,
    count: usize,
    /// A tagged tuple around it.
    tagged: Option<usize>,
}

/// What the name of a struct must begin with to make its map an Elixir struct.
pub(super) const ELIXIR: &str = "Elixir.";

/// The key that makes a map an Elixir struct.
pub(super) const STRUCT: &str = "__struct__";

impl<'a, S: Sink> Serializer<'a, S> {
    pub(super) fn new(sink: &'a mut S) -> Self {
        Self { sink, mode: Mode::Binary }
    }

    fn begin(self, container: Container) -> Compound<'a, S> {
        let mark = self.sink.begin(container);
        Compound { sink: self.sink, container, mark, count: 0, tagged: None }
    }

    /// The container as the second element of a tuple whose first is the tag.
    fn begin_tagged(self, tag: &'static str, container: Container) -> Result<Compound<'a, S>> {
        let outer = self.sink.begin(Container::Tuple(2));
        self.sink.atom(tag)?;
        Ok(Compound { tagged: Some(outer), ..self.begin(container) })
    }
}

impl<'a, S: Sink> ser::Serializer for Serializer<'a, S> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Compound<'a, S>;
    type SerializeTuple = Compound<'a, S>;
    type SerializeTupleStruct = Compound<'a, S>;
    type SerializeTupleVariant = Compound<'a, S>;
    type SerializeMap = Compound<'a, S>;
    type SerializeStruct = Compound<'a, S>;
    type SerializeStructVariant = Compound<'a, S>;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn serialize_bool(self, value: bool) -> Result<()> {
        self.sink.atom(if value { "true" } else { "false" })
    }

    fn serialize_i8(self, value: i8) -> Result<()> {
        self.sink.integer(value.into())
    }

    fn serialize_i16(self, value: i16) -> Result<()> {
        self.sink.integer(value.into())
    }

    fn serialize_i32(self, value: i32) -> Result<()> {
        self.sink.integer(value.into())
    }

    fn serialize_i64(self, value: i64) -> Result<()> {
        self.sink.integer(value)
    }

    fn serialize_i128(self, value: i128) -> Result<()> {
        self.sink.wide_integer(value < 0, value.unsigned_abs())
    }

    fn serialize_u8(self, value: u8) -> Result<()> {
        self.sink.integer(value.into())
    }

    fn serialize_u16(self, value: u16) -> Result<()> {
        self.sink.integer(value.into())
    }

    fn serialize_u32(self, value: u32) -> Result<()> {
        self.sink.integer(value.into())
    }

    fn serialize_u64(self, value: u64) -> Result<()> {
        match i64::try_from(value) {
            Ok(value) => self.sink.integer(value),
            Err(_) => self.sink.wide_integer(false, value.into()),
        }
    }

    fn serialize_u128(self, value: u128) -> Result<()> {
        self.sink.wide_integer(false, value)
    }

    fn serialize_f32(self, value: f32) -> Result<()> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<()> {
        if value.is_finite() {
            self.sink.float(value)
        } else {
            Err(Error::new("Erlang has no NaN and no infinite floats"))
        }
    }

    fn serialize_char(self, value: char) -> Result<()> {
        self.sink.integer(u32::from(value).into())
    }

    fn serialize_str(self, value: &str) -> Result<()> {
        if self.mode == Mode::Atom { self.sink.atom(value) } else { self.sink.binary(value.as_bytes()) }
    }

    #[inline]
    fn serialize_bytes(self, value: &[u8]) -> Result<()> {
        match self.mode {
            Mode::Binary => self.sink.binary(value),
            Mode::Atom => self.sink.atom_of(value),
            Mode::Native => self.sink.encoded(value),
        }
    }

    fn serialize_none(self) -> Result<()> {
        self.sink.atom("nil")
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<()> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<()> {
        if self.mode == Mode::Native
            && let Some(native) = native::take()
        {
            return self.sink.native(native);
        }
        self.sink.atom("nil")
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<()> {
        self.sink.atom(name)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<()> {
        self.sink.atom(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<()> {
        let Some(mode) = (match name {
            native::ATOM => Some(Mode::Atom),
            native::TERM | native::RAW => Some(Mode::Native),
            _ => None,
        }) else {
            return value.serialize(self);
        };
        native::ask(if S::ENCODES { Form::Bytes } else { Form::Slot });
        let written = value.serialize(Serializer { mode, ..self });
        // A type that took one of our names has not noticed.
        native::ask(Form::Other);
        written
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<()> {
        let mark = self.sink.begin(Container::Tuple(2));
        self.sink.atom(variant)?;
        value
            .serialize(Serializer::new(&mut *self.sink))
            .map_err(|error| error.inside(Step::Key(variant.to_owned())))?;
        self.sink.end(Container::Tuple(2), mark, 2)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Compound<'a, S>> {
        Ok(self.begin(Container::List))
    }

    fn serialize_tuple(self, len: usize) -> Result<Compound<'a, S>> {
        Ok(self.begin(Container::Tuple(len)))
    }

    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Compound<'a, S>> {
        self.serialize_tuple(len)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Compound<'a, S>> {
        let mut tuple = self.begin(Container::Tuple(len + 1));
        tuple.sink.atom(variant)?;
        tuple.count = 1;
        Ok(tuple)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Compound<'a, S>> {
        Ok(self.begin(Container::Map))
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Compound<'a, S>> {
        let mut map = self.begin(Container::Map);
        if name.starts_with(ELIXIR) {
            map.sink.key_atom(STRUCT)?;
            map.sink.atom(name)?;
            map.count = 1;
        }
        Ok(map)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Compound<'a, S>> {
        self.begin_tagged(variant, Container::Map)
    }
}

#[cold]
#[inline(never)]
fn inside_key(error: Error, key: &str) -> Error {
    error.inside(Step::Key(key.to_owned()))
}

impl<S: Sink> Compound<'_, S> {
    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        value
            .serialize(Serializer::new(&mut *self.sink))
            .map_err(|error| error.inside(Step::Index(self.count)))?;
        self.count += 1;
        Ok(())
    }

    // Always inlined, as what it calls for the key: a derived type knows its names, so that their words and hash are constants.
    #[inline(always)]
    fn field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<()> {
        self.sink.key_atom(key)?;
        value.serialize(Serializer::new(&mut *self.sink)).map_err(|error| inside_key(error, key))?;
        self.count += 1;
        Ok(())
    }

    fn finish(self) -> Result<()> {
        if let Container::Tuple(len) = self.container
            && len != self.count
        {
            return Err(Error::new(format!("announced {len} elements, wrote {}", self.count)));
        }
        self.sink.end(self.container, self.mark, self.count)?;
        match self.tagged {
            Some(mark) => self.sink.end(Container::Tuple(2), mark, 2),
            None => Ok(()),
        }
    }
}

impl<S: Sink> ser::SerializeSeq for Compound<'_, S> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.element(value)
    }

    fn end(self) -> Result<()> {
        self.finish()
    }
}

impl<S: Sink> ser::SerializeTuple for Compound<'_, S> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.element(value)
    }

    fn end(self) -> Result<()> {
        self.finish()
    }
}

impl<S: Sink> ser::SerializeTupleStruct for Compound<'_, S> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.element(value)
    }

    fn end(self) -> Result<()> {
        self.finish()
    }
}

impl<S: Sink> ser::SerializeTupleVariant for Compound<'_, S> {
    type Ok = ();
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        self.element(value)
    }

    fn end(self) -> Result<()> {
        self.finish()
    }
}

impl<S: Sink> ser::SerializeMap for Compound<'_, S> {
    type Ok = ();
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<()> {
        self.sink.key();
        key.serialize(Serializer::new(&mut *self.sink))
            .map_err(|error| error.inside(Step::Key(format!("(key {})", self.count))))
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<()> {
        value
            .serialize(Serializer::new(&mut *self.sink))
            .map_err(|error| error.inside(Step::Key(format!("(value {})", self.count))))?;
        self.count += 1;
        Ok(())
    }

    fn end(self) -> Result<()> {
        self.finish()
    }
}

impl<S: Sink> ser::SerializeStruct for Compound<'_, S> {
    type Ok = ();
    type Error = Error;

    #[inline(always)]
    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<()> {
        self.field(key, value)
    }

    fn end(self) -> Result<()> {
        self.finish()
    }
}

impl<S: Sink> ser::SerializeStructVariant for Compound<'_, S> {
    type Ok = ();
    type Error = Error;

    #[inline(always)]
    fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<()> {
        self.field(key, value)
    }

    fn end(self) -> Result<()> {
        self.finish()
    }
}

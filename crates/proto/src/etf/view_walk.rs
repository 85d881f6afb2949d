//! [`Walk`] for views.

use core::cmp::Ordering;

use super::order::Mode;
use super::walk::{FunRef, RecordRef, Shape, Walk};
use super::{Elements, Kind, View};

impl<'a> Walk<'a> for View<'a> {
    type Items = Elements<'a>;

    fn shape(self) -> Shape<'a, Self> {
        self.known_shape().unwrap_or(Shape::Local(self.encoded()))
    }

    #[inline]
    fn integer(self) -> Option<i64> {
        self.as_i64()
    }

    fn known_order(self) -> Option<Vec<(Self, Self)>> {
        let start = *self.tape.orders.get(&(self.index as u32))? as usize;
        let keys = self.tape.sorted_keys.get(start..start + self.len())?;
        keys.iter()
            .map(|index| {
                let key = self.sibling(*index)?;
                Some((key, self.sibling(key.node.next)?))
            })
            .collect()
    }

    fn compare_maps(self, _: Self, _: Mode) -> Option<Ordering> {
        None
    }
}

impl<'a> View<'a> {
    /// `None` only for a kind that has no shape of its own.
    fn known_shape(self) -> Option<Shape<'a, Self>> {
        Some(match self.kind() {
            Kind::Atom => Shape::Atom(self.as_atom()?),
            Kind::Integer => Shape::Integer(self.as_i64()?),
            Kind::BigInteger => {
                let (negative, magnitude) = self.big()?;
                Shape::BigInteger(negative, magnitude)
            }
            Kind::Float => Shape::Float(self.as_f64()?),
            Kind::Binary => Shape::Bits(self.as_binary()?, 8),
            Kind::BitString => {
                let (bytes, bits) = self.as_bits()?;
                Shape::Bits(bytes, bits)
            }
            Kind::Pid => Shape::Pid(self.pid_ref()?),
            Kind::Port => Shape::Port(self.port_ref()?),
            Kind::Reference => Shape::Reference(self.reference_ref()?),
            Kind::Tuple => Shape::Tuple(self.len(), self.elements()),
            Kind::List => Shape::List(self.elements(), None),
            Kind::ImproperList => Shape::List(self.elements(), self.tail()),
            Kind::Map => Shape::Map(self.len(), self.elements()),
            Kind::Fun => {
                let head = self.fun_head()?;
                let fun = FunRef {
                    module: self.part(0)?.as_atom()?,
                    old_index: self.part(1)?.as_i64()?,
                    old_uniq: self.part(2)?.as_i64()?,
                    free: head.free,
                    index: head.index,
                    uniq: head.uniq,
                    arity: head.arity,
                };
                Shape::Fun(Box::new(fun), self.elements())
            }
            Kind::ExportFun => {
                let (module, function, arity) = self.export_fun()?;
                Shape::ExportFun(module, function, arity)
            }
            Kind::Record => {
                let (exported, mut names) = self.record_head()?;
                let record = RecordRef {
                    module: names.next()?,
                    name: names.next()?,
                    fields: names.collect(),
                    exported,
                };
                Shape::Record(Box::new(record), self.elements())
            }
            Kind::Local => return None,
        })
    }
}

//! The External Term Format.
//!
//! Three ways to hold a term, from the cheapest: [`RawTerm`], encoded and checked; [`View`], a look into one without
//! decoding; [`Term`], a tree that owns its parts. Order ([`Term::cmp_erlang`]), equality (`=:=`) and [`phash2`] are
//! Erlang's and work on views and trees alike.

mod atom;
mod build;
mod convert;
mod debug;
mod decode;
mod encode;
mod from_view;
mod hash;
mod identifier;
mod inflate;
mod integer;
mod keys;
mod leaf;
mod map;
mod narrow;
mod nest;
mod order;
mod plain;
mod pool;
mod raw;
#[cfg(feature = "serde")]
pub mod serde;
mod skim;
pub mod tag;
mod tape;
mod term;
pub mod text;
mod view;
mod view_walk;
mod walk;
mod write;

pub use atom::{Atom, AtomRef, AtomTooLong};
pub use convert::WrongType;
pub use decode::{decode, decode_bytes};
pub use encode::{
    encode, encode_term, encoded_len, put_atom, put_binary, put_binary_header, put_f64, put_i64,
    put_list_header, put_map_header, put_nil, put_pid, put_port, put_reference, put_tuple_header, put_u64,
};
pub use from_view::{FromView, Mismatch};
pub use hash::{phash2, phash2_range};
pub use identifier::{Pid, Port, Reference};
pub use integer::BigInteger;
pub use map::Map;
pub(crate) use narrow::{is_narrow_pid, is_narrow_reference, narrow};
pub use plain::PlainTerm;
pub use raw::RawTerm;
pub use tape::Tape;
pub use term::{BitString, ExportFun, Fun, ImproperList, Kind, List, Record, Term, Tuple};
pub use view::{Elements, Pairs, View};
pub use write::Output;

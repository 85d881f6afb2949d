//! The External Term Format.

mod atom;
mod identifier;
mod raw;
mod term;
pub mod text;

pub use atom::{Atom, AtomTooLong};
pub use identifier::{Pid, Port, Reference};
pub use raw::RawTerm;
pub use term::{BigInteger, BitString, ExportFun, Fun, ImproperList, List, Map, Record, Term, Tuple};

use foundation_proto::Limits;
use foundation_proto::etf::Tape;
use foundation_proto::etf::tag::VERSION_MAGIC;
use rustler::{Binary, Env};

use crate::timeslice;

mod atoms {
    rustler::atoms! { badterm }
}

/// `erlang:phash2(Term, Range)` of a term in the external format, uncompressed. `{error, badterm}` for other bytes, or a range
/// outside of 1 to 2^32.
#[rustler::nif]
fn phash2_external(env: Env<'_>, external: Binary<'_>, range: u64) -> Result<u32, rustler::Atom> {
    timeslice::charged(env, || phash2(external.as_slice(), range)).ok_or_else(atoms::badterm)
}

/// The same on a dirty scheduler, for terms that take longer than 100 microseconds.
#[rustler::nif(schedule = "DirtyCpu")]
fn phash2_external_dirty(external: Binary<'_>, range: u64) -> Result<u32, rustler::Atom> {
    phash2(external.as_slice(), range).ok_or_else(atoms::badterm)
}

fn phash2(external: &[u8], range: u64) -> Option<u32> {
    let (&VERSION_MAGIC, term) = external.split_first()? else {
        return None;
    };
    Tape::new().parse(term, &[], &Limits::default()).ok()?.phash2_range(range)
}

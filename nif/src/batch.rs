//! Compression and digest of event batches. The container around them is made on the Elixir side.

use rustler::{Binary, Env, NewBinary, OwnedBinary};
use twox_hash::XxHash3_64;

mod atoms {
    rustler::atoms! { malformed }
}

/// One LZ4 block, without the length in front. It never fails: what does not compress becomes a little longer.
#[rustler::nif]
fn lz4_compress<'a>(env: Env<'a>, plain: Binary<'_>) -> Binary<'a> {
    compress(env, plain.as_slice())
}

/// The same on a dirty scheduler, for what takes longer than 100 microseconds.
#[rustler::nif(schedule = "DirtyCpu")]
fn lz4_compress_dirty<'a>(env: Env<'a>, plain: Binary<'_>) -> Binary<'a> {
    compress(env, plain.as_slice())
}

fn compress<'a>(env: Env<'a>, plain: &[u8]) -> Binary<'a> {
    to_binary(env, &lz4_flex::block::compress(plain))
}

/// The plain bytes of one LZ4 block, of which there must be exactly `size`: the caller has checked the number against its limit.
#[rustler::nif]
fn lz4_decompress<'a>(env: Env<'a>, block: Binary<'_>, size: usize) -> Result<Binary<'a>, rustler::Atom> {
    decompress(env, block.as_slice(), size)
}

/// The same on a dirty scheduler.
#[rustler::nif(schedule = "DirtyCpu")]
fn lz4_decompress_dirty<'a>(
    env: Env<'a>,
    block: Binary<'_>,
    size: usize,
) -> Result<Binary<'a>, rustler::Atom> {
    decompress(env, block.as_slice(), size)
}

fn decompress<'a>(env: Env<'a>, block: &[u8], size: usize) -> Result<Binary<'a>, rustler::Atom> {
    // No byte of a block stands for more than 255 plain ones, so a claim beyond that is false before any memory is taken for it.
    if size > block.len().saturating_mul(255) {
        return Err(atoms::malformed());
    }
    let mut plain = OwnedBinary::new(size);
    match lz4_flex::block::decompress_into(block, plain.as_mut_slice()) {
        Ok(written) if written == size => Ok(plain.release(env)),
        _ => Err(atoms::malformed()),
    }
}

/// XXH3 with 64 bits, seed 0.
#[rustler::nif]
fn xxh3(bytes: Binary<'_>) -> u64 {
    XxHash3_64::oneshot(bytes.as_slice())
}

/// The same on a dirty scheduler.
#[rustler::nif(schedule = "DirtyCpu")]
fn xxh3_dirty(bytes: Binary<'_>) -> u64 {
    XxHash3_64::oneshot(bytes.as_slice())
}

fn to_binary<'a>(env: Env<'a>, bytes: &[u8]) -> Binary<'a> {
    let mut binary = NewBinary::new(env, bytes.len());
    binary.as_mut_slice().copy_from_slice(bytes);
    binary.into()
}

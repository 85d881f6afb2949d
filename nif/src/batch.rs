//! Compression and digest of event batches. The container around them is made on the Elixir side.

use std::io::Read;

use rustler::{Binary, Env, NewBinary, OwnedBinary};
use twox_hash::XxHash3_64;
use zstd::zstd_safe;

use crate::timeslice;

mod atoms {
    rustler::atoms! { malformed, no_memory }
}

/// No byte of an LZ4 block stands for more than 255 plain ones. Of a Zstandard frame it can be more, and then memory is taken as they come.
const MAX_GROWTH: usize = 255;
const ZSTD_LEVEL: i32 = 1;
/// The window of what is read: 8 MiB, what RFC 8878 section 3.1.1.1.2 recommends to accept.
const ZSTD_WINDOW_LOG: u32 = 23;

/// One LZ4 block, without the length in front. It never fails: what does not compress becomes a little longer.
#[rustler::nif]
fn lz4_compress<'a>(env: Env<'a>, plain: Binary<'_>) -> Binary<'a> {
    timeslice::charged(env, || compress(env, plain.as_slice()))
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
    timeslice::charged(env, || decompress(env, block.as_slice(), size))
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
    // A claim beyond that is false before any memory is taken for it.
    if size > block.len().saturating_mul(MAX_GROWTH) {
        return Err(atoms::malformed());
    }
    let mut plain = OwnedBinary::new(size);
    match lz4_flex::block::decompress_into(block, plain.as_mut_slice()) {
        Ok(written) if written == size => Ok(plain.release(env)),
        _ => Err(atoms::malformed()),
    }
}

/// One Zstandard frame (RFC 8878), level 1, with the length of the plain bytes in it.
#[rustler::nif(schedule = "DirtyCpu")]
fn zstd_compress<'a>(env: Env<'a>, plain: Binary<'_>) -> Result<Binary<'a>, rustler::Atom> {
    // Fails for want of memory only.
    let frame = zstd::bulk::compress(plain.as_slice(), ZSTD_LEVEL).map_err(|_| atoms::no_memory())?;
    Ok(to_binary(env, &frame))
}

/// The plain bytes of one frame, of which there must be exactly `size`, and nothing behind it.
#[rustler::nif(schedule = "DirtyCpu")]
fn zstd_decompress<'a>(env: Env<'a>, frame: Binary<'_>, size: usize) -> Result<Binary<'a>, rustler::Atom> {
    let frame = frame.as_slice();
    // Not one of those that are skipped.
    if !frame.starts_with(&zstd_safe::MAGICNUMBER.to_le_bytes()) {
        return Err(atoms::malformed());
    }
    // Most frames say how many bytes they hold. Memory for them is taken at once if the frame itself is of a size to match.
    match zstd_safe::get_frame_content_size(frame) {
        Ok(Some(said)) if said != size as u64 => Err(atoms::malformed()),
        Ok(Some(_)) if size <= frame.len().saturating_mul(MAX_GROWTH) => whole(env, frame, size),
        _ => in_pieces(env, frame, size),
    }
}

fn whole<'a>(env: Env<'a>, frame: &[u8], size: usize) -> Result<Binary<'a>, rustler::Atom> {
    if zstd_safe::find_frame_compressed_size(frame) != Ok(frame.len()) {
        return Err(atoms::malformed());
    }
    let mut plain = OwnedBinary::new(size);
    let written = zstd::bulk::Decompressor::new()
        .map_err(|_| atoms::no_memory())?
        .decompress_to_buffer(frame, plain.as_mut_slice());
    if written.is_ok_and(|written| written == size) {
        Ok(plain.release(env))
    } else {
        Err(atoms::malformed())
    }
}

/// Memory is taken as bytes come out, not by what the frame says of itself.
fn in_pieces<'a>(env: Env<'a>, frame: &[u8], size: usize) -> Result<Binary<'a>, rustler::Atom> {
    let mut decoder =
        zstd::stream::read::Decoder::with_buffer(frame).map_err(|_| atoms::no_memory())?.single_frame();
    decoder.window_log_max(ZSTD_WINDOW_LOG).map_err(|_| atoms::malformed())?;
    let mut plain = Vec::new();
    // One more than there may be: a frame that has it is too long. At its end the decoder checks that the frame is whole.
    let most = (size as u64).saturating_add(1);
    decoder.by_ref().take(most).read_to_end(&mut plain).map_err(|_| atoms::malformed())?;
    if plain.len() == size && decoder.finish().is_empty() {
        Ok(to_binary(env, &plain))
    } else {
        Err(atoms::malformed())
    }
}

/// XXH3 with 64 bits, seed 0.
#[rustler::nif]
fn xxh3(env: Env<'_>, bytes: Binary<'_>) -> u64 {
    timeslice::charged(env, || XxHash3_64::oneshot(bytes.as_slice()))
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

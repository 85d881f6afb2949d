//! The nearest vectors of a set by cosine, for retrieval.
//!
//! Numbers are kept with 32 bits and added with 64, in eight lanes whose sums are added in pairs at the end: the fallback in Elixir adds in
//! the same order, so both give the same bits.

use std::cmp::Ordering;

use rustler::{Binary, Encoder, Env, Resource, ResourceArc, Term};

use crate::timeslice;

mod atoms {
    rustler::atoms! { dimensions, not_finite, zero_vector, no_memory }
}

const LANES: usize = 8;

/// Vectors of one length, by rows.
struct Vectors {
    dimensions: usize,
    values: Vec<f32>,
    /// Of each row.
    norms: Vec<f64>,
}

#[rustler::resource_impl]
impl Resource for Vectors {}

/// From 32-bit floats, little endian, row after row. On a dirty scheduler: it is done once.
#[rustler::nif(schedule = "DirtyCpu")]
fn vectors_new(values: Binary<'_>, dimensions: usize) -> Result<ResourceArc<Vectors>, rustler::Atom> {
    let values = floats(values.as_slice(), dimensions)?;
    let norms = values.chunks_exact(dimensions).map(norm).collect();
    Ok(ResourceArc::new(Vectors { dimensions, values, norms }))
}

/// The `count` rows nearest to the query, the nearest first: `{row, cosine}`; of equal ones the lower row first. A row of zeros has the
/// cosine 0.
#[rustler::nif]
fn vectors_top<'a>(env: Env<'a>, vectors: ResourceArc<Vectors>, query: Binary<'a>, count: usize) -> Term<'a> {
    timeslice::charged(env, || top(&vectors, query.as_slice(), count).encode(env))
}

/// The same on a dirty scheduler, for more numbers than 100 microseconds suffice for.
#[rustler::nif(schedule = "DirtyCpu")]
fn vectors_top_dirty(
    vectors: ResourceArc<Vectors>,
    query: Binary<'_>,
    count: usize,
) -> Result<Vec<(usize, f64)>, rustler::Atom> {
    top(&vectors, query.as_slice(), count)
}

fn top(vectors: &Vectors, query: &[u8], count: usize) -> Result<Vec<(usize, f64)>, rustler::Atom> {
    let query = floats(query, vectors.dimensions)?;
    if query.len() != vectors.dimensions {
        return Err(atoms::dimensions());
    }
    let query_norm = norm(&query);
    if query_norm == 0.0 {
        return Err(atoms::zero_vector());
    }
    let rows = vectors.values.chunks_exact(vectors.dimensions).zip(&vectors.norms);
    let mut scores: Vec<(usize, f64)> = rows
        .map(|(row, norm)| if *norm == 0.0 { 0.0 } else { dot(row, &query) / (norm * query_norm) })
        .enumerate()
        .collect();
    if count == 0 {
        return Ok(Vec::new());
    }
    if count < scores.len() {
        scores.select_nth_unstable_by(count - 1, nearer);
        scores.truncate(count);
    }
    scores.sort_unstable_by(nearer);
    Ok(scores)
}

fn nearer(left: &(usize, f64), right: &(usize, f64)) -> Ordering {
    right.1.total_cmp(&left.1).then(left.0.cmp(&right.0))
}

fn floats(bytes: &[u8], dimensions: usize) -> Result<Vec<f32>, rustler::Atom> {
    let (chunks, rest) = bytes.as_chunks::<4>();
    if dimensions == 0 || !rest.is_empty() || chunks.len() % dimensions != 0 {
        return Err(atoms::dimensions());
    }
    let mut values = Vec::new();
    values.try_reserve_exact(chunks.len()).map_err(|_| atoms::no_memory())?;
    values.extend(chunks.iter().map(|chunk| f32::from_le_bytes(*chunk)));
    if values.iter().all(|value| value.is_finite()) { Ok(values) } else { Err(atoms::not_finite()) }
}

fn norm(row: &[f32]) -> f64 {
    dot(row, row).sqrt()
}

fn dot(left: &[f32], right: &[f32]) -> f64 {
    let (left_chunks, left_rest) = left.as_chunks::<LANES>();
    let (right_chunks, right_rest) = right.as_chunks::<LANES>();
    let mut sums = [0.0_f64; LANES];
    for (left, right) in left_chunks.iter().zip(right_chunks) {
        for ((sum, left), right) in sums.iter_mut().zip(left).zip(right) {
            *sum += f64::from(*left) * f64::from(*right);
        }
    }
    for ((sum, left), right) in sums.iter_mut().zip(left_rest).zip(right_rest) {
        *sum += f64::from(*left) * f64::from(*right);
    }
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}

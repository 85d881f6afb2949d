//! How alike texts are, by their words.

use std::collections::HashSet;

use rustler::{Binary, Encoder, Env, NifResult, Term};

use crate::timeslice;

mod atoms {
    rustler::atoms! { not_ascii }
}

/// For each of the texts, how alike it is to the first argument: 0.8 × the share of common words + 0.2 × the ratio of the numbers of words.
///
/// Only for ASCII, where lower case means the same everywhere; other texts are left to the Elixir side.
#[rustler::nif]
fn text_similarities<'a>(env: Env<'a>, text: Binary<'a>, others: Term<'a>) -> NifResult<Term<'a>> {
    timeslice::charged(env, || {
        let others: Vec<Binary<'a>> = others.decode()?;
        Ok(similarities(&text, &others).encode(env))
    })
}

/// The same on a dirty scheduler, for texts that take longer than 100 microseconds.
#[rustler::nif(schedule = "DirtyCpu")]
fn text_similarities_dirty(text: Binary<'_>, others: Vec<Binary<'_>>) -> Result<Vec<f64>, rustler::Atom> {
    similarities(&text, &others)
}

fn similarities(text: &Binary<'_>, others: &[Binary<'_>]) -> Result<Vec<f64>, rustler::Atom> {
    let text = lower(text)?;
    let (count, words) = words(&text);
    others.iter().map(|other| Ok(similarity(count, &words, &lower(other)?))).collect()
}

fn lower(text: &Binary<'_>) -> Result<String, rustler::Atom> {
    match str::from_utf8(text.as_slice()) {
        Ok(text) if text.is_ascii() => Ok(text.to_ascii_lowercase()),
        _ => Err(atoms::not_ascii()),
    }
}

fn words(text: &str) -> (usize, HashSet<&str>) {
    let mut count = 0;
    let words = text.split_whitespace().inspect(|_| count += 1).collect();
    (count, words)
}

#[expect(clippy::cast_precision_loss, reason = "numbers of words are far below 2^52")]
fn similarity(count: usize, words_of: &HashSet<&str>, other: &str) -> f64 {
    let (other_count, other_words) = words(other);
    let common = words_of.intersection(&other_words).count();
    let all = words_of.len() + other_words.len() - common;
    let jaccard = if all == 0 { 1.0 } else { common as f64 / all as f64 };
    let longest = count.max(other_count).max(1);
    let length = 1.0 - count.abs_diff(other_count) as f64 / longest as f64;
    jaccard * 0.8 + length * 0.2
}

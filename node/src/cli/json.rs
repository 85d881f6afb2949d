//! Reports as JSON, by way of terms.

use foundation_proto::etf::{Map, Term, text as syntax};

/// An object with its keys in this order.
pub(super) fn map(entries: Vec<(&str, Term)>) -> Term {
    Term::Map(entries.into_iter().map(|(key, value)| (text(key), value)).collect::<Map>())
}

/// An array.
pub(super) fn list(elements: impl Iterator<Item = Term>) -> Term {
    Term::List(elements.collect())
}

/// A string.
pub(super) fn text(text: &str) -> Term {
    Term::from(text)
}

/// An object as it is printed: on one line.
pub(super) fn object(entries: Vec<(&str, Term)>) -> String {
    syntax::to_json(&map(entries))
}

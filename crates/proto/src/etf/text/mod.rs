//! Terms as text: printed as OTP and Elixir print them, and read from the syntax of either.
//!
//! | | Erlang | Elixir | JSON |
//! |---|---|---|---|
//! | print | [`print`](print()) (`~p`), [`write`](write()) (`~w`) | [`inspect`](inspect()) | [`to_json`] |
//! | with options | [`Printer::print`], [`Printer::write`] | [`Printer::inspect`] | [`Printer::json`] |
//! | read a term | [`parse_erlang`], [`parse_erlang_terms`] | [`parse_elixir`] | |
//! | read a call | [`parse_erlang_call`] | [`parse_elixir_call`] | |
//!
//! `Display` of a [`Term`](crate::etf::Term) is `~0tp`, and with `{:#}` `~tp` at 80 columns. Terms come from peers: nothing here recurses, and
//! every output and every reading is bounded by what came in and by [`Limits`](crate::Limits).

mod algebra;
mod atom;
mod bits;
mod flat;
mod inspect;
mod json;
mod number;
mod parse_binary;
mod parse_elixir;
mod parse_elixir_text;
mod parse_erlang;
mod pretty;
mod printer;
mod scanner;

pub use parse_elixir::{parse_elixir, parse_elixir_call};
pub use parse_erlang::{parse_erlang, parse_erlang_call, parse_erlang_terms};
pub use pretty::MAX_INDENTATION;
pub use printer::{Printer, inspect, print, to_json, write};
pub use scanner::{Call, ParseError, ParseProblem};

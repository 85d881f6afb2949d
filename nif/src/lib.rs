//! Native functions of the Elixir library `:foundation`.
//!
//! Terms come in as binaries in the external term format and are checked like bytes from a peer. Functions whose work
//! can pass 100 microseconds have a twin on a dirty scheduler; the Elixir side picks by size. A panic is turned into
//! an Elixir exception by rustler, which needs unwinding: never build this with `panic = "abort"`.

mod batch;
mod hash;
mod machine;
#[cfg(feature = "probe")]
mod probe;
mod ring;
mod spool;
mod text;
mod timeslice;
mod vectors;

rustler::init!("Elixir.Foundation.Native.Loader");

/// Whether the library is there: the Elixir stub of the same name raises.
#[rustler::nif]
fn loaded() -> bool {
    true
}

/// The name of the cargo profile's directory: `debug`, `release` or `dist`.
#[rustler::nif]
fn profile() -> &'static str {
    env!("FOUNDATION_NIF_PROFILE")
}

//! What the library's tests need and nobody else.

/// Panics, to show that the VM survives it.
#[rustler::nif]
#[expect(clippy::panic, reason = "its purpose")]
fn panic_probe() -> bool {
    panic!("panic_probe was called")
}

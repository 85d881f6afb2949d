//! A port for a test; the file is part of each test binary that needs one.

#![allow(unreachable_pub, reason = "the harness of the interop tests is a library, and gives it on")]

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

/// A loopback port that was free a moment ago, and that nobody else is given in this process.
///
/// It is below the range from which the system gives ports to connections and to listeners of port 0, so that it can be listened on again
/// later in the test.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..12_000 {
        // Test processes that run at once start at different places.
        let step = std::process::id().wrapping_mul(97).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = 20_000 + (step % 12_000) as u16;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between 20000 and 32000");
}

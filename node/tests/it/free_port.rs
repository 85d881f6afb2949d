//! A port for a test; the file is part of each test binary that needs one.

#![allow(unreachable_pub, reason = "the harness of the interop tests is a library, and gives it on")]

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};

use socket2::{Domain, Socket, Type};

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
        if can_be_bound(SocketAddr::from((Ipv4Addr::LOCALHOST, port))) {
            return port;
        }
    }
    panic!("no free port between 20000 and 32000");
}

/// Whether nobody listens there.
///
/// The socket is bound, never listened on. A process that another thread of the test starts at this moment has a copy of it until it runs
/// its own program; while it has a copy of a *listening* socket, nobody else can listen there.
fn can_be_bound(address: SocketAddr) -> bool {
    Socket::new(Domain::IPV4, Type::STREAM, None)
        .and_then(|socket| {
            socket.set_reuse_address(true)?;
            socket.bind(&address.into())
        })
        .is_ok()
}

//! Real BEAM nodes and this project's node, on loopback. One module a topic; each test is a [`case`] over releases.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod harness;

//! Nodes as a program uses them: processes within one node, and nodes connected over loopback.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

mod channels;
mod cli;
mod connections;
mod free_port;
mod gen_server;
mod limits;
mod local;
mod pubsub;
mod remote;
mod scale;
mod service_mesh;
mod supervisor;
mod support;

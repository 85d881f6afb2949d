//! A native node for Erlang and Elixir clusters, on tokio.
//!
//! A [`Node`] joins a cluster over Erlang distribution and looks to its peers like any other node: it has processes with
//! mailboxes, links, monitors, aliases and registered names, it calls `gen_server`s and is called as one, and it speaks
//! `erpc` and `rpc` in both directions. What turns bytes into values lives in [`foundation_proto`]; here are the
//! sockets, the tasks and the processes.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use foundation_node::Node;
//! use foundation_node::config::NodeConfig;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let node = Node::start(NodeConfig::new("rust@127.0.0.1").cookie("secret")).await?;
//! let mut inbox = node.mailbox("inbox")?;
//! inbox.send(("logger", "elixir@127.0.0.1"), &("hello", inbox.pid())).await?;
//! let total: i64 = node.call_as(("counter", "elixir@127.0.0.1"), ("add", 5), Duration::from_secs(5)).await?;
//! println!("{total}: {:?}", inbox.recv().await?);
//! # Ok(()) }
//! ```
//!
//! # Layout
//!
//! | module | what |
//! |---|---|
//! | [`node`] | [`Node`], the handle that everything starts from |
//! | [`process`] | process table, mailboxes, links, monitors, aliases, registered names, exit signals |
//! | [`signal`] | what a signal of a peer does to the processes of this node |
//! | [`gen_server`] | the behaviour, calls and casts in the protocol of OTP's `gen` (which is a keyword here) |
//! | [`rpc`] | `erpc` and `rpc`, as caller and as callee |
//! | `kernel_sup` | `net_kernel`, `rex`, `user` and what else every node answers to |
//! | `io` | the I/O protocol: printing, and printing for others |
//! | [`service`] | hosts of the cluster machines: groups and topics |
//! | [`event`] | connections that come and go, as a stream |
//! | [`discovery`] | finding the other nodes of a cluster |
//! | [`net`] | listener, dialer, the task of a connection |
//! | [`net_kernel`] | which node is connected through which link, and connecting on demand |
//! | `convert` | terms to and from those of the `eetf` crate (feature `eetf`) |
//! | [`epmd`] | client of the port mapper, and the one served in-process |
//! | [`config`], [`cookie`], [`names`] | how a node is configured, its secret, its name |
//! | [`ssl_dist`] | the options of distribution over TLS |
//!
//! # How the two halves meet
//!
//! `net` owns the connections, `process` owns what lives on this node. A connection is a `net::Link`: it sends one
//! control message without ever waiting, and it holds a [`process::MonLnkDist`], the record of what must fire when it is
//! lost. The task that reads a connection calls `signal::up`, then `signal::deliver` for each signal in the order of
//! arrival, then `signal::down` exactly once.

pub mod bridge;
pub mod config;
#[cfg(feature = "eetf")]
pub mod convert;
pub mod cookie;
pub mod discovery;
pub mod epmd;
pub mod error;
pub mod event;
#[cfg(test)]
mod eventually;
pub mod gen_server;
mod io;
mod kernel_sup;
pub mod names;
pub mod net;
pub mod net_kernel;
pub mod node;
pub mod process;
mod random;
pub mod rpc;
pub mod service;
pub mod signal;
pub mod ssl_dist;

pub use error::{Error, Result};
pub use node::Node;
pub use process::{Handle, Process};

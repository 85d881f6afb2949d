//! Functions called on another node, and functions of this node offered to others (`erpc`, `rpc`).
//!
//! Both directions are OTP's: a call is a `SPAWN_REQUEST` for `erpc:execute_call/4` with a monitor, and the value comes
//! back as the exit reason of the process that was started. Peers without SPAWN are called through their `rex` server.
//!
//! # What every node answers
//! Besides the functions that a program exports, a node answers what tools and operators ask of any node, in OTP's shapes and
//! with its own data; [`Builtins`](crate::config::Builtins) says whether:
//!
//! | who asks | what is answered |
//! |---|---|
//! | a shell, scripts | `erlang:node/0,1, nodes/0,1, is_alive/0, processes/0, process_info/1,2, registered/0, whereis/1, is_process_alive/1, memory/0,1, system_info/1, statistics/1, function_exported/3, system_time/0,1, monotonic_time/0,1`; `application:which_applications/0,1, loaded_applications/0, get_key/2`; `code:is_loaded/1, ensure_loaded/1, load_binary/3`; `net_kernel:nodes_info/0, node_info/1,2, get_net_ticktime/0, longnames/0, nodename/0`; `os:getpid/0, type/0`; `init:get_status/0` |
//! | Elixir | `Node.self/0, list/0,1`; `Process.alive?/1, list/0, info/1,2, whereis/1, registered/0`; `Application.started_applications/0,1, loaded_applications/0` |
//! | etop with `-tracing off`, observer | `observer_backend`: the tabs System and Processes, the load charts; the tabs for ports, sockets and tables are empty |
//! | LiveDashboard 0.6 to 0.8 | the pages Home, Processes and Applications; Ports, Sockets and ETS are empty |
//!
//! Nothing is made up. What is not measured is left out, or raises what Erlang raises for a property that it does not know
//! (`badarg`; `notsup` in `erlang:memory/1`): there is no `otp_release`, no table of atoms, no memory by kind of term. A native
//! process has used 0 reductions and has no BEAM heap, and its current function is `undefined`, as OTP says of native code. The
//! memory of a process is its entry in the process table and the messages in its mailbox; `total` is the resident memory of
//! the operating-system process. Messages, the environment and the cookie are not shown. Tracing (`dbg`; `etop` without
//! `-tracing off`, and that of OTP 27 in any case) needs a BEAM.

mod builtin;
mod client;
mod exports;
mod rex;
mod server;

pub use client::RemoteSpawn;
pub use exports::{Function, RemoteCall};

pub(crate) use builtin::Statistics;
pub(crate) use exports::Exports;
pub(crate) use rex::handle as rex;
pub(crate) use server::{apply, exit_reason, spawn_requested};

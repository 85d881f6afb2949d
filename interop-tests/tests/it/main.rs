//! Real BEAM nodes and this project's node, on loopback. One module a topic; each test is a [`case`] over releases.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod busy;
mod channels;
mod cli;
mod connection;
mod differential;
mod discovery;
mod discovery_aws;
mod discovery_clusters;
mod discovery_consul;
mod discovery_gcp;
mod discovery_kubernetes;
mod discovery_postgres;
mod doctor;
mod ecosystem;
mod ecosystem_channels;
mod ecosystem_delta_crdt;
mod ecosystem_discovery;
mod ecosystem_horde;
mod ecosystem_horde_api;
mod ecosystem_horde_faults;
mod ecosystem_horde_members;
mod ecosystem_horde_supervisor;
mod ecosystem_pubsub_contract;
mod ecosystem_tracker;
mod elixir_registry;
mod epmd;
mod faults;
mod gen_server;
mod global;
mod global_contract;
mod groups;
mod groups_contract;
mod harness;
mod hostile;
mod inet6;
mod law;
mod lease;
mod mdns;
mod old_peer;
mod process;
mod readme;
mod registry;
mod releases;
mod rpc;
mod rust;
mod schedule;
mod second_peer;
mod send;
mod service_mesh;
mod setup;
mod signals;
mod soak;
mod standin;
mod supervisor;
mod tls;

/// A runtime for one case: the node under test runs beside the blocking calls into BEAM nodes.
fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

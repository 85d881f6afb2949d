//! Distribution and EPMD over IPv6, against `-proto_dist inet6_tcp` on `::1`.

use std::net::{Ipv6Addr, SocketAddr};

use foundation_interop_tests::{Case, Epmd, beam, case, epmd, eventually::eventually_true};
use foundation_node::config::{EpmdMode, NodeConfig, ProtoDist, Reconnect};
use foundation_node::epmd::{Server, client};
use foundation_node::net_kernel::NodeType;

use crate::rust::{Rust, WAIT};

const TOPIC: &str = "IPv6";

/// An EPMD of ours, on 127.0.0.1 and ::1, with the runtime that it runs on.
pub(crate) struct OwnEpmd {
    server: Server,
    runtime: tokio::runtime::Runtime,
}

impl OwnEpmd {
    pub(crate) fn port(&self) -> u16 {
        self.server.addresses()[0].port()
    }
}

pub(crate) fn epmd() -> OwnEpmd {
    let runtime = crate::runtime();
    let server = runtime.block_on(Server::start(epmd::free_port(), &[], 64)).unwrap();
    assert!(server.addresses().iter().any(SocketAddr::is_ipv6), "this machine has ::1");
    OwnEpmd { server, runtime }
}

/// A Rust node `name@::1`.
pub(crate) fn rust(epmd_port: u16, name: &str, change: impl FnOnce(NodeConfig) -> NodeConfig) -> Rust {
    Rust::named(epmd_port, &format!("{name}@::1"), |config| {
        change(config.proto_dist(ProtoDist::Inet6Tcp).reconnect(Reconnect::Never))
    })
}

/// Also `register_name_ipv6` of OTP's `epmd_SUITE`.
#[test]
fn register_name_ipv6() {
    case(
        Case::Smoke,
        TOPIC,
        "nodes at ::1 meet through our EPMD at ::1 (inet6_tcp), both sides dialling",
        |release| {
            let epmd = epmd();
            let rust = rust(epmd.port(), "rust", |config| config);
            assert!(rust.node.addresses().iter().all(SocketAddr::is_ipv6), "{:?}", rust.node.addresses());
            let beam =
                beam::Options::new(release, epmd.port(), "beam").ipv6().args("-proto_dist inet6_tcp").start();
            assert_eq!(beam.eval("net_adm:ping('rust@::1')"), "pong", "{}", beam.log());
            assert_eq!(rust.node.nodes(NodeType::Hidden), ["beam@::1"]);
            assert!(rust.node.links()[0].peer().address.is_ipv6());

            rust.run(rust.node.disconnect("beam@::1"));
            eventually_true("the BEAM has seen it", WAIT, || beam.eval("nodes(connected)") == "[]");
            rust.run(rust.node.connect("beam@::1")).unwrap();
            assert_eq!(beam.eval("nodes(hidden)"), "['rust@::1']");
            let address = SocketAddr::from((Ipv6Addr::LOCALHOST, epmd.port()));
            let found = epmd.runtime.block_on(client::lookup(address, "beam")).unwrap();
            assert_eq!(found.map(|node| node.port), Some(rust.node.links()[0].peer().address.port()));
            Ok(())
        },
    );
}

#[test]
fn otps_epmd_at_ipv6() {
    case(Case::Full, TOPIC, "we register with OTP's epmd at ::1 and find a BEAM node there", |release| {
        let epmd = Epmd::start(release);
        let rust = rust(epmd.port, "rust", |config| config);
        let beam =
            beam::Options::new(release, epmd.port, "beam").ipv6().args("-proto_dist inet6_tcp").start();
        rust.run(rust.node.connect("beam@::1")).unwrap();
        assert_eq!(beam.eval("net_adm:ping('rust@::1')"), "pong");
        assert_eq!(
            beam.eval("lists:sort([N || {N, _} <- element(2, erl_epmd:names({0,0,0,0,0,0,0,1}))])"),
            "[\"beam\",\"rust\"]"
        );
        Ok(())
    });
}

#[test]
fn without_epmd() {
    case(Case::Full, TOPIC, "nodes at ::1 meet without an EPMD, at a fixed port", |release| {
        let port = epmd::free_port();
        // Both listen on the same port of ::1 and 127.0.0.1, so the BEAM is the only one that listens.
        let beam = beam::Options::new(release, epmd::free_port(), "beam")
            .ipv6()
            .args(&format!("-proto_dist inet6_tcp -erl_epmd_port {port}"))
            .start();
        let rust = rust(epmd::free_port(), "rust", |mut config| {
            config.dist_listen = false;
            config.erl_epmd_node_listen_port = Some(port);
            config.epmd(EpmdMode::None)
        });
        let link = rust.run(rust.node.connect("beam@::1")).unwrap();
        assert_eq!(link.peer().address, SocketAddr::from((Ipv6Addr::LOCALHOST, port)));
        assert_eq!(beam.eval("nodes(hidden)"), "['rust@::1']");
        Ok(())
    });
}

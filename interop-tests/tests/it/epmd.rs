//! EPMD in both roles: ours asked by OTP's programs and nodes, and OTP's asked by our client.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;
use std::time::Duration;

use foundation_interop_tests::{
    Beam, Case, Epmd, beam, built, case, case::Unsupported, epmd, eventually, eventually::eventually_true,
};
use foundation_node::epmd::{Server, client};
use foundation_proto::epmd::NodeInfo;

use crate::runtime;

#[test]
fn beam_nodes_meet_through_our_epmd() {
    case(Case::Smoke, "EPMD", "BEAM nodes register with our EPMD and meet", |release| {
        let runtime = runtime();
        let server = runtime.block_on(Server::start(epmd::free_port(), &[], 64)).unwrap();
        let port = server.addresses()[0].port();
        let a = beam::Options::new(release, port, "a").start();
        let b = beam::Options::new(release, port, "b").arg("-hidden").start();
        assert_eq!(a.eval("net_adm:ping('b@127.0.0.1')"), "pong");
        assert_eq!(
            a.eval("lists:sort([N || {N, _} <- element(2, net_adm:names({127,0,0,1}))])"),
            "[\"a\",\"b\"]"
        );

        let creation = b.eval("erlang:system_info(creation)");
        let b = b.restart();
        assert_ne!(b.eval("erlang:system_info(creation)"), creation, "each incarnation has its own creation");
        assert_eq!(b.eval("net_adm:ping('a@127.0.0.1')"), "pong");

        drop(b);
        eventually_true("the name of a killed node is free", Duration::from_secs(5), || {
            server.registered() == ["a"]
        });
        Ok(())
    });
}

#[test]
fn a_node_survives_the_restart_of_our_epmd() {
    case(Case::Full, "EPMD", "a BEAM node registers again when our EPMD comes back", |release| {
        if release.number < 24 {
            return Err(Unsupported("a node registers only once, at its start"));
        }
        let runtime = runtime();
        let server = runtime.block_on(Server::start(epmd::free_port(), &[], 64)).unwrap();
        let port = server.addresses()[0].port();
        let _node = beam::Options::new(release, port, "back").start();
        drop(server); // its tasks end when the runtime gets to them
        let server = eventually("the port is free", Duration::from_secs(5), || {
            runtime.block_on(Server::start(port, &[], 64)).ok()
        });
        // OTP tries again every two seconds.
        eventually_true("registered again", Duration::from_secs(10), || server.registered() == ["back"]);
        Ok(())
    });
}

#[test]
fn epmd_names_prints_ours() {
    case(Case::Smoke, "EPMD", "OTP's `epmd -names` and `epmd -kill` talk to our EPMD", |release| {
        let runtime = runtime();
        let mut server = runtime.block_on(Server::start(epmd::free_port(), &[], 64)).unwrap();
        let port = server.addresses()[0].port();
        let ask = |what: &str| {
            let out = Command::new(release.program("epmd"))
                .args(["-port", &port.to_string(), what])
                .output()
                .unwrap();
            (out.status.code(), String::from_utf8(out.stdout).unwrap())
        };
        assert_eq!(ask("-names"), (Some(0), format!("epmd: up and running on port {port} with data:\n")));

        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let info = NodeInfo::new("rusty", 40_001, false);
        let (stream, creation) = runtime.block_on(client::register(port, &info)).unwrap();
        assert!(creation > 3, "a 32-bit creation for a node of version 6");
        assert_eq!(
            ask("-names"),
            (Some(0), format!("epmd: up and running on port {port} with data:\nname rusty at port 40001\n"))
        );
        let (_, text) = ask("-kill");
        assert!(text.contains("Killing not allowed"), "{text}");
        assert_eq!(runtime.block_on(client::lookup(address, "rusty")).unwrap().unwrap().port, 40_001);

        drop(stream);
        eventually_true("the name is free", Duration::from_secs(5), || server.registered().is_empty());
        assert_eq!(ask("-kill"), (Some(0), "Killed\n".to_owned()));
        runtime
            .block_on(async { tokio::time::timeout(Duration::from_secs(5), server.stopped()).await })
            .unwrap();
        Ok(())
    });
}

#[test]
fn our_client_asks_otps_epmd() {
    case(Case::Smoke, "EPMD", "our client registers with OTP's epmd and finds BEAM nodes", |release| {
        let runtime = runtime();
        let epmd = Epmd::start(release);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, epmd.port));
        let node = Beam::visible(release, &epmd, "found");
        let info = runtime.block_on(client::lookup(address, "found")).unwrap().unwrap();
        assert_eq!(info.port, epmd.wait_for("found"));
        assert!(runtime.block_on(client::lookup(address, "nobody")).unwrap().is_none());

        let ours = NodeInfo::new("ours", 40_002, true);
        let (stream, first) = runtime.block_on(client::register(epmd.port, &ours)).unwrap();
        assert!(runtime.block_on(client::register(epmd.port, &ours)).is_err(), "the name is taken");
        assert_eq!(node.eval("erl_epmd:port_please(\"ours\", {127,0,0,1})").split(',').nth(1), Some("40002"));
        drop(stream);
        eventually_true("the name is free", Duration::from_secs(5), || epmd.names().len() == 1);
        let (_stream, second) = runtime.block_on(client::register(epmd.port, &ours)).unwrap();
        assert_ne!(first, second);
        Ok(())
    });
}

/// `names_stdout` of OTP's `epmd_SUITE`; `register_name_ipv6` is in `inet6`, and the other 31 cases stand beside the machine in
/// `proto`, by their names.
#[test]
fn names_stdout() {
    case(
        Case::Full,
        "EPMD",
        "`foundation epmd -names` and `names` print what `epmd -names` prints",
        |release| {
            let epmd = Epmd::start(release);
            let _first = epmd.register("foobar", 4711);
            let _second = epmd.register("foozap", 4712);
            let port = epmd.port.to_string();
            let theirs =
                Command::new(release.program("epmd")).args(["-port", &port, "-names"]).output().unwrap();
            let said = String::from_utf8(theirs.stdout).unwrap();
            assert!(said.contains("name foobar at port 4711\n"), "{said}");
            for arguments in [&["epmd", "-names", "-port", &port][..], &["names"]] {
                let ours = Command::new(built::binary("foundation"))
                    .args(arguments)
                    .env("ERL_EPMD_PORT", &port)
                    .output()
                    .unwrap();
                assert_eq!(ours.status.code(), Some(0));
                assert_eq!(String::from_utf8(ours.stdout).unwrap(), said, "{arguments:?}");
            }
            Ok(())
        },
    );
}

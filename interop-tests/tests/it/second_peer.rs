//! The crate `erl_dist` as a peer: an implementation of the protocol in Rust that is not ours. It knows neither fragments nor the
//! atom cache, so the connection runs in pass-through mode, as with C nodes.

use std::time::Duration;

use erl_dist::DistributionFlags;
use erl_dist::epmd::EpmdClient;
use erl_dist::handshake::{ClientSideHandshake, HandshakeStatus};
use erl_dist::message::Message;
use erl_dist::node::{Creation, LocalNode, NodeName};
use erl_dist::term as eetf;
use foundation_interop_tests::futures_socket::Socket;
use foundation_interop_tests::{Epmd, beam, otp};

use crate::rust::Rust;

const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn erl_dist_sends_calls_and_is_answered() {
    let epmd = Epmd::start(otp::installed());
    let rust = Rust::start(&epmd, "rust");
    rust.echo();
    let port = epmd.port;
    rust.run(async move {
        let mapper = Socket::connect(port).await.unwrap();
        let found = EpmdClient::new(mapper).get_node("rust").await.unwrap().expect("registered");
        let stream = Socket::connect(found.port).await.unwrap();

        let creation = Creation::random();
        let name: NodeName = "second@127.0.0.1".parse().unwrap();
        let mut local = LocalNode::new(name, creation);
        // It can read what a monitor brings, and does not say so by itself.
        local.flags |= DistributionFlags::DIST_MONITOR | DistributionFlags::DIST_MONITOR_NAME;
        let mut handshake = ClientSideHandshake::new(stream, local.clone(), beam::COOKIE);
        let status =
            handshake.execute_send_name(erl_dist::LOWEST_DISTRIBUTION_PROTOCOL_VERSION).await.unwrap();
        assert!(matches!(status, HandshakeStatus::Ok), "{status:?}");
        let (connection, peer) = handshake.execute_rest(true).await.unwrap();
        assert_eq!(peer.name.to_string(), "rust@127.0.0.1");
        let (mut sender, mut receiver) = erl_dist::message::channel(connection, local.flags & peer.flags);

        let me = eetf::Pid::new(local.name.to_string(), 1, 0, creation.get());
        for n in [0, -1, 255, i32::MAX] {
            let body =
                eetf::Tuple::from(vec![eetf::Atom::from("n").into(), eetf::FixInteger::from(n).into()]);
            let request = eetf::Tuple::from(vec![me.clone().into(), body.clone().into()]);
            let to = eetf::Atom::from("echo");
            sender.send(Message::reg_send(me.clone(), to, request.into())).await.unwrap();
            let expected =
                eetf::Term::from(eetf::Tuple::from(vec![eetf::Atom::from("echo").into(), body.into()]));
            let answer = loop {
                match tokio::time::timeout(PATIENCE, receiver.recv()).await.expect("an answer").unwrap() {
                    Message::SendSender(sent) => break sent.message,
                    Message::Send(sent) => break sent.message,
                    Message::Tick => {}
                    other => panic!("{other:?}"),
                }
            };
            assert_eq!(answer, expected);
        }

        // Nobody has the name: told at once, as by every node.
        let reference = eetf::Reference {
            node: eetf::Atom::from(local.name.to_string()),
            id: vec![1, 2, 3],
            creation: creation.get(),
        };
        let nobody = eetf::PidOrAtom::Atom(eetf::Atom::from("nobody"));
        sender.send(Message::monitor_p(me.clone(), nobody, reference)).await.unwrap();
        let down = loop {
            match tokio::time::timeout(PATIENCE, receiver.recv()).await.expect("an answer").unwrap() {
                Message::Tick => {}
                other => break other,
            }
        };
        let reason = match down {
            Message::MonitorPExit(exit) => exit.reason,
            Message::PayloadMonitorPExit(exit) => exit.reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(reason, eetf::Atom::from("noproc").into());
    });
}

//! What a node of each release says to EPMD is understood and written the same way, and so is what EPMD answers.

use bytes::Bytes;
use foundation_proto::epmd::{AliveResponse, PortResponse, Request};

use crate::golden;

#[test]
fn a_nodes_requests_and_the_answers() {
    for release in golden::RELEASES {
        let text = golden::read(release, "epmd.txt");
        let (mut alive, mut port) = (0, 0);
        for (request, answer) in golden::direction(&text, '>').iter().zip(golden::direction(&text, '<')) {
            let body = Request::body(request).unwrap().expect("a whole request");
            let decoded = Request::decode(Bytes::copy_from_slice(body)).unwrap();
            let mut again = Vec::new();
            decoded.encode(&mut again).unwrap();
            assert_eq!(&again, request, "OTP {release}: {decoded:?}");

            let mut again = Vec::new();
            match decoded {
                Request::Alive(node) => {
                    assert_eq!(node.name(), Some("a"));
                    let response = AliveResponse::decode(&answer).unwrap().expect("a whole answer");
                    assert!(response.creation.is_ok_and(|creation| creation > 3), "OTP {release}: 32 bits");
                    response.encode(&mut again);
                    alive += 1;
                }
                Request::Port(name) => {
                    assert_eq!(&name[..], b"b");
                    let response = PortResponse::decode(&Bytes::from(answer.clone())).unwrap();
                    let PortResponse::Found(node) = &response else { panic!("OTP {release}: {response:?}") };
                    assert_eq!(node.name(), Some("b"));
                    assert!(node.speaks_version_6());
                    response.encode(&mut again);
                    port += 1;
                }
                other => panic!("OTP {release}: {other:?}"),
            }
            assert_eq!(again, answer, "OTP {release}");
        }
        assert_eq!((alive, port), (1, 1), "OTP {release}");
    }
}

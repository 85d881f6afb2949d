use bytes::{Bytes, BytesMut};

use super::splits;
use crate::epmd::names::{Action, ConnectionId, NamesConfig, REQUEST_TIMEOUT};
use crate::epmd::{AliveResponse, Names, NamesResponse, PortResponse, Request};
use crate::time::Mono;

/// A client of EPMD sends anything.
///
/// Asserts that a request that can be read and written again reads the same, that a client which sends one request and no
/// more gets the same answer however it is split, that a registration is gone when its connection is, and that every client
/// is closed or registered after the deadline.
pub fn fuzz_epmd_request(data: &[u8]) {
    if let Ok(request) = Request::decode(Bytes::copy_from_slice(data)) {
        let mut out = BytesMut::new();
        if request.encode(&mut out).is_ok() {
            assert_eq!(Request::decode(out.freeze().slice(2..)), Ok(request));
        }
    }
    let answers = splits(data).map(|pieces| serve(&pieces));
    // Bytes beyond the request are seen with it or after it, which makes a difference (in OTP as well).
    let has_more = data
        .split_first_chunk()
        .is_some_and(|(length, rest)| rest.len() > usize::from(u16::from_be_bytes(*length)));
    if !has_more {
        let [whole, bytes, pieces] = &answers;
        assert_eq!(whole, bytes);
        assert_eq!(whole, pieces);
    }
}

/// An EPMD answers anything.
///
/// Asserts that what can be read and written again reads the same.
pub fn fuzz_epmd_response(data: &[u8]) {
    if let Ok(Some(answer)) = AliveResponse::decode(data) {
        let mut out = BytesMut::new();
        answer.encode(&mut out);
        assert_eq!(AliveResponse::decode(&out), Ok(Some(answer)));
    }
    if let Ok(answer) = PortResponse::decode(&Bytes::copy_from_slice(data)) {
        let mut out = BytesMut::new();
        answer.encode(&mut out);
        assert_eq!(PortResponse::decode(&out.freeze()), Ok(answer));
    }
    if let Ok(answer) = NamesResponse::decode(data) {
        let mut out = BytesMut::new();
        answer.encode(&mut out);
        assert_eq!(NamesResponse::decode(&out), Ok(answer));
    }
}

fn serve(pieces: &[&[u8]]) -> Vec<Action> {
    let mut config = NamesConfig::new(4369);
    config.relaxed_command_check = true;
    let mut names = Names::new(config);
    let client = ConnectionId(1);
    names.accept(client, true, Mono::ZERO);
    for piece in pieces {
        names.handle_input(client, 1_700_000_000, piece);
    }
    names.handle_timeout(Mono::ZERO + REQUEST_TIMEOUT);
    assert_eq!(names.poll_timeout(), None);
    let actions: Vec<Action> = core::iter::from_fn(|| names.poll_action()).collect();
    let closed = actions.contains(&Action::Close(client));
    assert!(!closed || names.registered().next().is_none());
    assert!(closed || !actions.is_empty());
    names.handle_close(client);
    assert!(names.registered().next().is_none());
    actions
}

use core::time::Duration;

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

/// Four clients of EPMD connect, talk in pieces, wait and leave, as the bytes say.
///
/// Asserts that no connection is closed twice, that no answer is empty, and that names and deadlines are gone when the
/// connections are.
pub fn fuzz_epmd_server(data: &[u8]) {
    let mut names = Names::new(NamesConfig::new(4369));
    let mut now = Mono::ZERO;
    let mut input = data;
    let mut open = [false; 4];
    // Each step: what happens, to which of four connections, and how many bytes of the rest take part.
    while let Some(([step, length], rest)) = input.split_first_chunk() {
        let number = usize::from(step >> 4) % 4;
        let connection = ConnectionId(number as u64);
        let (piece, rest) = rest.split_at_checked(usize::from(*length)).unwrap_or((rest, &[]));
        input = rest;
        match step & 7 {
            local @ 0..=1 => {
                if let Some(open @ false) = open.get_mut(number) {
                    *open = true;
                    names.accept(connection, local == 0, now);
                }
            }
            2 => {
                if let Some(open @ true) = open.get_mut(number) {
                    *open = false;
                    names.handle_close(connection);
                }
            }
            3 => {
                now = now + Duration::from_secs(u64::from(*length));
                names.handle_timeout(now);
            }
            _ => names.handle_input(connection, 1_700_000_000, piece),
        }
        while let Some(action) = names.poll_action() {
            match action {
                Action::Reply(_, bytes) => assert!(!bytes.is_empty(), "an empty answer"),
                Action::Close(ConnectionId(closed)) => {
                    let open = open.get_mut(closed as usize);
                    assert!(open.is_some_and(core::mem::take), "closed twice");
                }
                _ => {}
            }
        }
    }
    for id in 0..4 {
        names.handle_close(ConnectionId(id));
    }
    assert_eq!(names.registered().count(), 0, "a name without a connection");
    assert_eq!(names.poll_timeout(), None, "a deadline without a connection");
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

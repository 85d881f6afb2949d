//! The cases of OTP's `epmd_SUITE.erl`, by their names there, and what `epmd` of OTP 25 and 29 answered to bytes that were
//! sent to both by hand.
//!
//! `names_stdout` concerns the program `epmd -names`, not the server, and has no counterpart here.

use super::super::response::NamesResponse;
use super::*;

const NOW: Mono = Mono(5);
const UNIX: u32 = 0x6b00_bda2;

/// A server with a client side that looks like sockets.
struct Epmd {
    names: Names,
    next: u64,
    received: BTreeMap<ConnectionId, Vec<u8>>,
    closed: Vec<ConnectionId>,
    terminated: bool,
    unix_seconds: u32,
}

impl Epmd {
    fn new() -> Self {
        Self::with(NamesConfig::new(24369))
    }

    fn relaxed() -> Self {
        let mut config = NamesConfig::new(24369);
        config.relaxed_command_check = true;
        Self::with(config)
    }

    fn with(config: NamesConfig) -> Self {
        let names = Names::new(config);
        Self {
            names,
            next: 5,
            received: BTreeMap::new(),
            closed: Vec::new(),
            terminated: false,
            unix_seconds: UNIX,
        }
    }

    fn connect_from(&mut self, is_local: bool) -> ConnectionId {
        let connection = ConnectionId(self.next);
        self.next += 1;
        self.names.accept(connection, is_local, NOW);
        self.drain();
        connection
    }

    fn connect(&mut self) -> ConnectionId {
        self.connect_from(true)
    }

    fn send(&mut self, connection: ConnectionId, bytes: &[u8]) {
        self.names.handle_input(connection, self.unix_seconds, bytes);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(action) = self.names.poll_action() {
            match action {
                Action::Reply(connection, bytes) => {
                    self.received.entry(connection).or_default().extend_from_slice(&bytes);
                }
                Action::Close(connection) => self.closed.push(connection),
                Action::Terminate => self.terminated = true,
            }
        }
    }

    /// The answer to one request on a connection of its own, and whether the server closed.
    fn request(&mut self, body: &[u8]) -> (Vec<u8>, bool) {
        let (_, reply, closed) = self.request_from(true, body);
        (reply, closed)
    }

    fn request_from(&mut self, is_local: bool, body: &[u8]) -> (ConnectionId, Vec<u8>, bool) {
        let connection = self.connect_from(is_local);
        self.send(connection, &packet(body));
        let reply = self.received.remove(&connection).unwrap_or_default();
        (connection, reply, self.closed.contains(&connection))
    }

    /// Registers a node the way the suite does (versions 5 to 5) and gives its connection.
    fn register(&mut self, name: &[u8], port: u16) -> Option<ConnectionId> {
        let (connection, reply, closed) = self.request_from(true, &alive(name, port, 5, b""));
        match *reply {
            [b'y', 0, _, _] if !closed => Some(connection),
            _ => None,
        }
    }

    fn close(&mut self, connection: ConnectionId) {
        self.names.handle_close(connection);
        self.drain();
    }

    fn list(&mut self) -> Vec<String> {
        self.names.registered().map(|info| info.name().unwrap().to_owned()).collect()
    }
}

fn packet(body: &[u8]) -> Vec<u8> {
    let mut packet = (body.len() as u16).to_be_bytes().to_vec();
    packet.extend_from_slice(body);
    packet
}

fn alive_with(
    name_length: u16,
    name: &[u8],
    port: u16,
    highest: u16,
    extra_length: u16,
    extra: &[u8],
) -> Vec<u8> {
    let mut body = vec![b'x'];
    body.put_u16(port);
    body.put_slice(b"M\0");
    body.put_u16(highest);
    body.put_u16(5);
    body.put_u16(name_length);
    body.put_slice(name);
    body.put_u16(extra_length);
    body.put_slice(extra);
    body
}

fn alive(name: &[u8], port: u16, highest: u16, extra: &[u8]) -> Vec<u8> {
    alive_with(name.len() as u16, name, port, highest, extra.len() as u16, extra)
}

fn port_of(epmd: &mut Epmd, name: &[u8]) -> Option<NodeInfo> {
    let (reply, closed) = epmd.request(&[b"z", name].concat());
    assert!(closed);
    match PortResponse::decode(&Bytes::from(reply)).unwrap() {
        PortResponse::Found(info) => Some(info),
        PortResponse::NotFound(_) => None,
    }
}

#[test]
fn register_name() {
    let mut epmd = Epmd::new();
    let connection = epmd.register(b"foobar", 1000).unwrap();
    assert_eq!(epmd.list(), ["foobar"]);
    epmd.close(connection);
    assert!(epmd.list().is_empty());
}

#[test]
fn register_names_1() {
    let mut epmd = Epmd::new();
    let first = epmd.register(b"foobar", 1000).unwrap();
    let second = epmd.register(b"foozap", 1000).unwrap();
    epmd.close(first);
    assert_eq!(epmd.list(), ["foozap"]);
    epmd.close(second);
    assert!(epmd.list().is_empty());
}

#[test]
fn register_names_2() {
    let mut epmd = Epmd::new();
    let first = epmd.register(b"foobar", 1000).unwrap();
    let second = epmd.register(b"foozap", 1000).unwrap();
    epmd.close(second);
    assert_eq!(epmd.list(), ["foobar"]);
    epmd.close(first);
    assert!(epmd.list().is_empty());
}

#[test]
fn register_duplicate_name() {
    let mut epmd = Epmd::new();
    let first = epmd.register(b"foobar", 1000).unwrap();
    let (second, reply, closed) = epmd.request_from(true, &alive(b"foobar", 1001, 6, b""));
    assert_eq!((reply.as_slice(), closed), (&b"v\x01\0\0\0\x63"[..], false));
    let (reply, closed) = epmd.request(&alive(b"foobar", 1001, 5, b""));
    assert_eq!((reply.as_slice(), closed), (&b"y\x01\0\x63"[..], false));
    // The refused one closes: the name stays with the first.
    epmd.close(second);
    assert_eq!(port_of(&mut epmd, b"foobar").unwrap().port, 1000);
    epmd.close(first);
    assert_eq!(port_of(&mut epmd, b"foobar"), None);
}

#[test]
fn unicode_name() {
    let mut epmd = Epmd::new();
    let name = "\u{1f608}";
    epmd.register(name.as_bytes(), 4711).unwrap();
    assert_eq!(port_of(&mut epmd, name.as_bytes()).unwrap().name(), Some(name));
}

#[test]
fn long_unicode_name() {
    let mut epmd = Epmd::new();
    let name: String = (0x1f600..=0x1f600 + 200).filter_map(char::from_u32).collect();
    assert_eq!(name.len(), 804);
    epmd.register(name.as_bytes(), 4711).unwrap();
    assert_eq!(port_of(&mut epmd, name.as_bytes()).unwrap().name(), Some(name.as_str()));
}

#[test]
fn get_port_nr() {
    let mut epmd = Epmd::new();
    epmd.register(b"foo", 1042).unwrap();
    assert_eq!(port_of(&mut epmd, b"foo").unwrap().port, 1042);
}

#[test]
fn slow_get_port_nr() {
    let mut epmd = Epmd::new();
    epmd.register(b"foo", 1042).unwrap();
    let connection = epmd.connect();
    for byte in packet(b"zfoo") {
        assert!(!epmd.received.contains_key(&connection));
        epmd.send(connection, &[byte]);
    }
    let reply = Bytes::from(epmd.received.remove(&connection).unwrap());
    assert!(matches!(PortResponse::decode(&reply), Ok(PortResponse::Found(info)) if info.port == 1042));
}

#[test]
fn unregister_others_name_1() {
    let mut epmd = Epmd::relaxed();
    let registered = epmd.register(b"foo", 1000).unwrap();
    assert_eq!(epmd.request(b"sfoo"), (b"STOPPED".to_vec(), true));
    assert!(epmd.closed.contains(&registered));
    assert!(epmd.list().is_empty());
}

#[test]
fn unregister_others_name_2() {
    let mut epmd = Epmd::relaxed();
    assert_eq!(epmd.request(b"sxxx42"), (b"NOEXISTSTOPPED".to_vec(), true));
}

#[test]
fn unregister_others_name_needs_the_relaxed_check() {
    let mut epmd = Epmd::new();
    epmd.register(b"foo", 1000).unwrap();
    assert_eq!(epmd.request(b"sfoo"), (vec![], true));
    assert_eq!(epmd.list(), ["foo"]);
}

#[test]
fn register_overflow() {
    let mut epmd = Epmd::new();
    for round in 0..10 {
        let mut connections: Vec<_> =
            (0..1000u16).map(|i| epmd.register(format!("foo{i}").as_bytes(), 1000 + i).unwrap()).collect();
        if round % 2 == 1 {
            connections.reverse();
        }
        for connection in connections {
            epmd.close(connection);
        }
        assert!(epmd.list().is_empty());
        assert_eq!(epmd.names.old.len(), MAX_OLD_NAMES);
    }
}

#[test]
fn more_connections_than_allowed_are_closed_at_once() {
    let mut config = NamesConfig::new(24369);
    config.max_connections = 2;
    let mut epmd = Epmd::with(config);
    let [first, _, third] = [epmd.connect(), epmd.connect(), epmd.connect()];
    assert_eq!(epmd.closed, [third]);
    epmd.close(first);
    epmd.connect();
    assert_eq!(epmd.closed, [third]);
}

#[test]
fn name_with_null_inside() {
    let mut epmd = Epmd::new();
    assert_eq!(epmd.request(&alive(b"foo\0bar", 1000, 5, b"")), (vec![], true));
}

#[test]
fn name_null_terminated() {
    let mut epmd = Epmd::new();
    assert_eq!(epmd.request(&alive(b"foobar\0", 1000, 5, b"")), (vec![], true));
}

#[test]
fn stupid_names_req() {
    let mut epmd = Epmd::new();
    let mut expected: Vec<(String, u16)> = (1..=1000).map(|i| (format!("foo{i}"), 1000 + i)).collect();
    let connections: Vec<_> =
        expected.iter().map(|(name, port)| epmd.register(name.as_bytes(), *port).unwrap()).collect();
    epmd.close(connections[0]);
    expected.remove(0);
    expected.reverse();
    let (reply, closed) = epmd.request(b"n");
    assert!(closed);
    assert_eq!(NamesResponse::decode(&reply).unwrap(), NamesResponse { epmd_port: 24369, nodes: expected });
}

/// Opens a connection, sends some bytes, and checks that it is closed at the deadline and not before.
fn closed_in_time(sent: &[u8]) {
    let mut epmd = Epmd::new();
    let connection = epmd.connect();
    epmd.send(connection, sent);
    let deadline = epmd.names.poll_timeout().unwrap();
    assert_eq!(deadline, NOW + REQUEST_TIMEOUT);
    epmd.names.handle_timeout(deadline - Duration::from_nanos(1));
    epmd.drain();
    assert!(epmd.closed.is_empty());
    epmd.names.handle_timeout(deadline);
    epmd.drain();
    assert_eq!(epmd.closed, [connection]);
    assert_eq!(epmd.names.poll_timeout(), None);
}

#[test]
fn no_data() {
    closed_in_time(b"");
}

#[test]
fn one_byte() {
    closed_in_time(&[0]);
}

#[test]
fn two_bytes() {
    closed_in_time(&[0, 3]);
}

#[test]
fn partial_packet() {
    closed_in_time(b"\0\x64only a few bytes");
}

/// A client that keeps sending is not kept for longer: only a whole request counts.
#[test]
fn bytes_do_not_move_the_deadline() {
    let mut epmd = Epmd::new();
    let connection = epmd.connect();
    for byte in [0, 100, b'z', b'a'] {
        epmd.send(connection, &[byte]);
        assert_eq!(epmd.names.poll_timeout(), Some(NOW + REQUEST_TIMEOUT));
    }
}

#[test]
fn a_registered_node_has_no_deadline() {
    let mut epmd = Epmd::new();
    epmd.register(b"foo", 1000).unwrap();
    assert_eq!(epmd.names.poll_timeout(), None);
    epmd.names.handle_timeout(NOW + Duration::from_secs(1_000_000));
    assert_eq!(epmd.list(), ["foo"]);
}

#[test]
fn zero_length() {
    let mut epmd = Epmd::new();
    let connection = epmd.connect();
    epmd.send(connection, &[0; 10]);
    assert_eq!(epmd.closed, [connection]);
}

#[test]
fn too_large() {
    let mut epmd = Epmd::new();
    assert_eq!(epmd.request(&[b'z'; 63000]), (vec![], true));
    // The last length that OTP's server takes, and the first that it does not.
    assert_eq!(epmd.request(&[b'n'; 3057]).0.len(), 4);
    assert_eq!(epmd.request(&[b'n'; 3058]), (vec![], true));
}

#[test]
fn alive_req_too_small_1() {
    let mut epmd = Epmd::new();
    assert_eq!(epmd.request(b"x\x03\xe8M\0\0\x05\0\x05\0\0"), (vec![], true));
}

#[test]
fn alive_req_too_small_2() {
    let mut epmd = Epmd::new();
    assert_eq!(epmd.request(b"x\x03\xe8M\0\0\x05\0\x05"), (vec![], true));
}

#[test]
fn alive_req_too_large() {
    let mut epmd = Epmd::new();
    assert_eq!(epmd.request(&alive(&[b'a'; 600], 1000, 5, b"")), (b"y\x01\0\x63".to_vec(), false));
}

#[test]
fn returns_valid_empty_extra() {
    let mut epmd = Epmd::new();
    epmd.register(b"foo", 4711).unwrap();
    assert_eq!(port_of(&mut epmd, b"foo").unwrap().extra, b""[..]);
}

#[test]
fn returns_valid_populated_extra_with_nulls() {
    let mut epmd = Epmd::new();
    assert!(!epmd.request(&alive(b"foo", 4711, 5, b"ABC\0\0")).1);
    assert_eq!(port_of(&mut epmd, b"foo").unwrap().extra, b"ABC\0\0"[..]);
}

#[test]
fn buffer_overrun_1() {
    let mut epmd = Epmd::new();
    for length in 1..=10_000 {
        assert_eq!(epmd.request(&alive_with(5, b"gurka", 4747, 5, length, b"")), (vec![], true));
    }
}

#[test]
fn buffer_overrun_2() {
    let mut epmd = Epmd::new();
    for length in 1020..=10_000usize {
        let (reply, closed) = epmd.request(&alive(b"gurka", 4747, 5, &vec![255; length]));
        match (length, reply.as_slice()) {
            // Registered; the suite expects exactly this one to succeed.
            (1020, [b'y', 0, ..]) => {
                let holder = epmd.names.active[0].connection;
                epmd.close(holder);
            }
            (1021.., [b'y', 1, ..]) => assert!(!closed),
            (1021.., []) => assert!(closed),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn no_nonlocal_register() {
    let mut epmd = Epmd::new();
    let (_, reply, closed) = epmd.request_from(false, &alive(b"gurka_", 4747, 5, b""));
    assert_eq!((reply, closed), (vec![], true));
    assert!(epmd.list().is_empty());
}

#[test]
fn no_nonlocal_kill() {
    let mut epmd = Epmd::relaxed();
    for body in [b"k", b"d", b"s"] {
        let (_, reply, closed) = epmd.request_from(false, body);
        assert_eq!((reply, closed), (vec![], true));
    }
    assert!(!epmd.terminated);
}

#[test]
fn ports_and_names_are_for_everybody() {
    let mut epmd = Epmd::new();
    epmd.register(b"foo", 1000).unwrap();
    assert_eq!(epmd.request_from(false, b"zfoo").1.len(), 17);
    assert_eq!(epmd.request_from(false, b"n").1, b"\0\0\x5f\x31name foo at port 1000\n");
}

#[test]
fn no_live_killing() {
    let mut epmd = Epmd::new();
    let connection = epmd.register(b"foo", 1000).unwrap();
    assert_eq!(epmd.request(b"k"), (b"NO".to_vec(), true));
    assert!(!epmd.terminated);
    epmd.close(connection);
    assert_eq!(epmd.request(b"kxx"), (b"OK".to_vec(), true));
    assert!(epmd.terminated);

    let mut epmd = Epmd::relaxed();
    epmd.register(b"foo", 1000).unwrap();
    assert_eq!(epmd.request(b"k"), (b"OK".to_vec(), true));
    assert!(epmd.terminated);
}

#[test]
fn socket_reset_before_alive2_reply_is_written() {
    let mut epmd = Epmd::new();
    let connection = epmd.connect();
    epmd.names.handle_input(connection, UNIX, &packet(&alive(b"foo", 1000, 5, b"")));
    // The host finds out before it comes to the answer.
    epmd.close(connection);
    epmd.register(b"foo", 1000).unwrap();
}

/// A conversation with `epmd` of OTP 25 and 29, whose answers differed in nothing but creations.
#[test]
fn bytes_of_otp() {
    let mut epmd = Epmd::new();
    let exchange = |epmd: &mut Epmd, sent: &[u8]| {
        let connection = epmd.connect();
        epmd.send(connection, sent);
        (epmd.received.remove(&connection).unwrap_or_default(), epmd.closed.contains(&connection))
    };
    for (sent, reply, closed) in [
        (&b"\0\x12x\x9cAM\0\0\x06\0\x05\0\x05rusty\0\0"[..], &b"v\0\x6b\0\xbd\xa3"[..], false),
        (b"\0\x12x\x9cBM\0\0\x06\0\x05\0\x05rusty\0\0", b"v\x01\0\0\0\x63", false),
        (b"\0\x11x\x9cEH\0\0\x05\0\x05\0\x04old5\0\0", b"y\0\0\x03", false),
        (b"\0\x18x\x9cFH\0\0\x06\0\x05\0\x04extr\0\x07\x01\x02hello", b"v\0\x6b\0\xbd\xa5", false),
        (b"\0\x06zrusty", b"w\0\x9cAM\0\0\x06\0\x05\0\x05rusty\0\0", true),
        (b"\0\x05zextr", b"w\0\x9cFH\0\0\x06\0\x05\0\x04extr\0\x07\x01\x02hello", true),
        (b"\0\x07znosuch", b"w\x01", true),
        (
            b"\0\x01n",
            b"\0\0\x5f\x31name extr at port 40006\nname old5 at port 40005\nname rusty at port 40001\n",
            true,
        ),
        (
            b"\0\x01d",
            b"\0\0\x5f\x31active name     <extr> at port 40006, fd = 8\n\0\
            active name     <old5> at port 40005, fd = 7\n\0active name     <rusty> at port 40001, fd = 5\n\0",
            true,
        ),
        (b"\0\x01k", b"NO", true),
        (b"\0\x06srusty", b"", true),
        (b"\0\x01q", b"", true),
        (b"\0\0", b"", true),
    ] {
        assert_eq!(exchange(&mut epmd, sent), (reply.to_vec(), closed), "{sent:?}");
        // The later nodes were registered two seconds after the first.
        epmd.unix_seconds = UNIX + 2;
    }
    // One more byte on the connection of a registered node.
    epmd.send(ConnectionId(5), b"x");
    assert!(epmd.closed.contains(&ConnectionId(5)));
    assert_eq!(exchange(&mut epmd, b"\0\x06zrusty"), (b"w\x01".to_vec(), true));
    let (dump, _) = exchange(&mut epmd, b"\0\x01d");
    assert!(dump.ends_with(b"old/unused name <rusty>, port = 40001, fd = 5 \n\0"));
}

/// What the same servers answered to bytes at the edges.
#[test]
fn edges_of_otp() {
    let mut epmd = Epmd::new();
    let registered: &[u8] = b"v\0\x6b\0\xbd\xa3";
    let refused: &[u8] = b"v\x01\0\0\0\x63";
    for (body, reply, closed) in [
        (alive(b"", 4000, 6, b"abc"), registered, false),
        (alive(b"", 4000, 6, b""), b"", true),
        (alive(b"\xff\xfe", 4000, 6, b""), refused, false),
        (alive(&[b'a'; 255], 4000, 6, b""), registered, false),
        (alive(&[b'a'; 256], 4000, 6, b""), refused, false),
        (alive(&[b'a'; 1021], 4000, 6, b""), refused, false),
        (alive(b"e1", 4000, 6, &[b'x'; 1021]), refused, false),
        ([alive(b"t1", 4000, 6, b""), b"zzz".to_vec()].concat(), registered, false),
        (alive_with(2, b"t2", 4000, 6, 5, b""), b"", true),
        (alive_with(50, b"t3", 4000, 6, 0, b""), b"", true),
        (alive(b"t4", 4000, 0, b""), b"y\0\0\x01", false),
        (alive(b"t5", 4000, 7, b""), registered, false),
        (b"ztt1\0".to_vec(), b"w\x01", true),
        (b"zt\x001".to_vec(), b"", true),
        (b"z".to_vec(), b"", true),
        (b"z\0".to_vec(), b"", true),
        (b"z\xff".to_vec(), b"", true),
        ([&b"z"[..], &[b'a'; 256]].concat(), b"", true),
        (b"s".to_vec(), b"", true),
    ] {
        assert_eq!(epmd.request(&body), (reply.to_vec(), closed), "{:?}", String::from_utf8_lossy(&body));
    }
    // Bytes beyond the request in the same segment: closed without an answer, also for a registration.
    for body in [b"n".to_vec(), alive(b"q1", 4000, 6, b"")] {
        let connection = epmd.connect();
        epmd.send(connection, &[packet(&body), vec![b'Z']].concat());
        assert!(epmd.closed.contains(&connection) && !epmd.received.contains_key(&connection));
    }
    assert!(!epmd.list().contains(&"q1".to_owned()));
}

#[test]
fn creations_count_up_with_each_registration_of_a_name() {
    let mut epmd = Epmd::new();
    for creation in [0xa3, 0xa4, 0xa5] {
        let (connection, reply, _) = epmd.request_from(true, &alive(b"z1", 4000, 6, b""));
        assert_eq!(reply, [b'v', 0, 0x6b, 0, 0xbd, creation]);
        epmd.close(connection);
    }
    // A node of the old kind gets the same counter in the old range: OTP gave 2, 3, 1, 2 from another start.
    for creation in [1, 2, 3] {
        let (connection, reply, _) = epmd.request_from(true, &alive(b"z5", 4000, 5, b""));
        assert_eq!(reply, [b'y', 0, 0, creation]);
        epmd.close(connection);
    }
    let (_, reply, _) = epmd.request_from(true, &alive(b"z5", 4000, 6, b""));
    assert_eq!(reply, [b'v', 0, 0x6b, 0, 0xbd, 0xa6]);
}

#[test]
fn creations_are_never_those_of_old_nodes() {
    for (unix, creation) in [(0, 4u32), (3, 4), (4, 5), (u32::MAX, 4)] {
        let mut names = Names::new(NamesConfig::new(4369));
        names.accept(ConnectionId(0), true, NOW);
        names.handle_input(ConnectionId(0), unix, &packet(&alive(b"a", 1, 6, b"")));
        let Some(Action::Reply(_, reply)) = names.poll_action() else { panic!() };
        assert_eq!(reply[2..], creation.to_be_bytes());
    }
}

#[test]
fn who_is_local() {
    let local = |peer: &str, own: &str| is_local_peer(peer.parse().unwrap(), own.parse().unwrap());
    assert!(local("127.0.0.1", "127.0.0.1"));
    assert!(local("127.9.9.9", "10.0.0.1"));
    assert!(local("::1", "::1"));
    assert!(local("::ffff:127.0.0.1", "::ffff:127.0.0.1"));
    assert!(local("10.0.0.1", "10.0.0.1"));
    assert!(!local("10.0.0.2", "10.0.0.1"));
    assert!(!local("fdaa::2", "fdaa::1"));
}

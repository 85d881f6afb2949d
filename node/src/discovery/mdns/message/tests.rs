use super::super::service::{EPMD, FOUNDATION, Names, Service, services};
use super::*;

/// Answers of mdns_lite 0.9.1 on OTP 25 to a query for both services: of Nerves' default service, and of one with a TXT record.
const NERVES: &[u8] = b"\x00\x00\x84\x00\x00\x00\x00\x01\x00\x00\x00\x03\x05_epmd\x04_tcp\x05local\x00\x00\x0c\x00\x01\
    \x00\x00\x00x\x00\t\x06nerves\xc0\x0c\xc0(\x00!\x00\x01\x00\x00\x00x\x00\x0f\x00\x00\x00\x00\x11\x11\x06nerves\xc0\x17\
    \xc0(\x00\x10\x00\x01\x00\x00\x00x\x00\x00\xc0C\x00\x01\x00\x01\x00\x00\x00x\x00\x04\nM\x00\x02";
const NAMED: &[u8] = b"\x00\x00\x84\x00\x00\x00\x00\x01\x00\x00\x00\x03\x0b_foundation\x04_tcp\x05local\x00\x00\x0c\x00\x01\
    \x00\x00\x00x\x00\t\x06nerves\xc0\x0c\xc0.\x00!\x00\x01\x00\x00\x00x\x00\x0f\x00\x00\x00\x00\x11\x11\x06nerves\xc0\x1d\
    \xc0.\x00\x10\x00\x01\x00\x00\x00x\x00\x1d\x12node=two@10.77.0.2\tversion=1\xc0I\x00\x01\x00\x01\x00\x00\x00x\x00\x04\
    \nM\x00\x02";
/// Its answer to a query for an address, with our id.
const ADDRESS: &[u8] =
    b"\x00\x07\x84\x00\x00\x00\x00\x01\x00\x00\x00\x00\x06nerves\x05local\x00\x00\x01\x00\x01\x00\x00\
    \x00x\x00\x04\nM\x00\x02";

fn found(message: &[u8]) -> Vec<Service> {
    services(&response(message).unwrap_or_default())
}

#[test]
fn answers_of_mdns_lite_are_understood() {
    let server = Some(("nerves.local".to_owned(), 4369));
    let service = |instance: &str, names| Service {
        instance: instance.to_owned(),
        goodbye: false,
        names,
        cluster: None,
        server: server.clone(),
    };
    assert_eq!(found(NERVES), [service("nerves._epmd._tcp.local", Names::Epmd)]);
    let two = Names::Node("two@10.77.0.2".parse().unwrap());
    assert_eq!(found(NAMED), [service("nerves._foundation._tcp.local", two)]);
    let address =
        Record { name: "nerves.local".to_owned(), ttl: 120, data: Data::A(Ipv4Addr::new(10, 77, 0, 2)) };
    assert_eq!(response(ADDRESS), Some(vec![address]));
}

#[test]
fn a_time_to_live_of_nothing_is_a_goodbye() {
    let mut message = NAMED.to_vec();
    let ttl = message.windows(4).position(|four| four == b"\x00\x00\x00x").unwrap() + 3;
    message[ttl] = 0;
    let [service] = &found(&message)[..] else { panic!() };
    assert!(
        service.goodbye && matches!(&service.names, Names::Node(node) if node.as_str() == "two@10.77.0.2")
    );
}

/// The question as `mdns_lite` above was asked; it is that of a resolver (RFC 6762 section 5.1).
#[test]
fn questions_are_those_of_a_resolver() {
    let query = query(7, &[("nerves.local", Type::A), (EPMD, Type::Ptr)]).unwrap();
    let bytes = b"\x00\x07\x00\x00\x00\x02\x00\x00\x00\x00\x00\x00\x06nerves\x05local\x00\x00\x01\x00\x01\
        \x05_epmd\x04_tcp\x05local\x00\x00\x0c\x00\x01";
    assert_eq!(query, bytes);
    assert_eq!(response(&query), None);
    for name in ["", "a..local", ".local", &format!("{}.local", "x".repeat(64)), &"abc.".repeat(70)] {
        assert_eq!(super::query(0, &[(name, Type::A)]), None, "{name}");
    }
}

#[test]
fn anything_else_is_harmless() {
    for message in [NERVES, NAMED, ADDRESS] {
        for length in 0..message.len() {
            let _ = found(&message[..length]);
        }
        for at in 0..message.len() {
            for byte in 0..=255 {
                let mut message = message.to_vec();
                message[at] = byte;
                let _ = found(&message);
            }
        }
    }
    // A name that points to itself, one that points ahead, and one of pointers alone.
    let header = [0, 0, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    for name in [&[0xC0, 12][..], &[0xC0, 14, 0], &[1, b'a', 0xC0, 12]] {
        let mut message = header.to_vec();
        message.extend(name);
        message.extend([0, 12, 0, 1, 0, 0, 0, 9, 0, 1, 0]);
        assert_eq!(response(&message), Some(vec![]), "{name:?}");
    }
    let mut chain = vec![0, 0, 0x84, 0, 0, 0, 0, 1, 0, 0, 0, 0];
    let mut reader_at = 12_u16;
    chain.push(0);
    for _ in 0..100 {
        let next = chain.len() as u16;
        chain.extend((0xC000 | reader_at).to_be_bytes());
        reader_at = next;
    }
    let mut reader = Reader { message: &chain, at: chain.len() - 2 };
    assert_eq!(reader.name(), None);
    let mut reader = Reader { message: &chain, at: 13 + 2 * (MAX_POINTERS - 1) };
    assert_eq!(reader.name().as_deref(), Some(""));
    // A name that would change a terminal.
    let escape = b"\x04\x1b[2J\0";
    assert_eq!(Reader { message: escape, at: 0 }.name().as_deref(), Some("\u{FFFD}[2J"));
    // A name that is longer than names may be.
    let mut long = [3, b'a', b'b', b'c'].repeat(64);
    long.push(0);
    assert_eq!(Reader { message: &long, at: 0 }.name(), None);
    assert_eq!(Reader { message: &long, at: 4 }.name().map(|name| name.len()), Some(251));
}

#[test]
fn the_services_of_a_message_are_bounded() {
    let record = |number: usize| Record {
        name: FOUNDATION.to_uppercase(),
        ttl: 1,
        data: Data::Ptr(format!("n{number}.{FOUNDATION}")),
    };
    let records: Vec<Record> = (0..MAX_RECORDS).map(record).collect();
    assert_eq!(services(&records).len(), 64);
}

//! The sockets: one to ask from, one to listen on, over IPv4 on all interfaces.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

use foundation_cluster::discovery::Network;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::UdpSocket;

/// The group of multicast DNS.
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
/// Interfaces that are used. A machine with more has most of them for containers.
const MAX_INTERFACES: usize = 64;
/// All messages have this time to live, so that none can come from another network unnoticed (RFC 6762 section 11).
const TIME_TO_LIVE: u32 = 255;

/// The addresses of this machine, and the networks they are in.
#[derive(Clone, Debug, Default)]
pub(super) struct Interfaces {
    addresses: Vec<Ipv4Addr>,
    networks: Vec<Network>,
}

impl Interfaces {
    /// Those of now, or only the one with this address.
    pub(super) fn read(only: Option<Ipv4Addr>) -> io::Result<Self> {
        let mut interfaces = Self::default();
        for interface in if_addrs::get_if_addrs()? {
            let if_addrs::IfAddr::V4(v4) = interface.addr else { continue };
            if only.is_some_and(|only| only != v4.ip) || interfaces.addresses.len() == MAX_INTERFACES {
                continue;
            }
            interfaces.addresses.push(v4.ip);
            interfaces.networks.extend(Network::new(v4.ip.into(), v4.prefixlen));
        }
        Ok(interfaces)
    }

    /// Whether this is an address of this machine.
    pub(super) fn is_own(&self, ip: &IpAddr) -> bool {
        self.addresses.iter().any(|own| IpAddr::V4(*own) == *ip)
    }

    /// Whether this address is on a network that this machine is on. Answers from elsewhere are ignored.
    pub(super) fn is_on_link(&self, ip: &IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(ip))
    }
}

/// The socket that queries leave from. Its port is not that of multicast DNS, so answers come back to it alone: a *legacy
/// unicast query* (RFC 6762 section 6.7), the only kind that two `mdns_lite` on one host both answer.
#[derive(Debug)]
pub(super) struct Asking {
    socket: UdpSocket,
    group: SocketAddrV4,
}

impl Asking {
    pub(super) fn open(port: u16) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.set_multicast_loop_v4(true)?;
        socket.set_multicast_ttl_v4(TIME_TO_LIVE)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
        Ok(Self { socket: UdpSocket::from_std(socket.into())?, group: SocketAddrV4::new(GROUP, port) })
    }

    /// Sends a query on all interfaces.
    ///
    /// # Errors
    /// If it left on none.
    pub(super) async fn ask(&self, query: &[u8], interfaces: &Interfaces) -> io::Result<()> {
        let mut failure = None;
        let mut sent = false;
        for address in &interfaces.addresses {
            let result = match SockRef::from(&self.socket).set_multicast_if_v4(address) {
                Ok(()) => self.socket.send_to(query, self.group).await.map(|_| ()),
                Err(error) => Err(error),
            };
            match result {
                Ok(()) => sent = true,
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        match failure {
            _ if sent => Ok(()),
            Some(error) => Err(error),
            None => Err(io::Error::new(io::ErrorKind::NotFound, "no interface has an IPv4 address")),
        }
    }

    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.socket.recv_from(buffer).await
    }
}

/// The socket that hears what others announce. Bound to the group, so that it takes no unicast message from the responders of this
/// machine, which all share the port.
#[derive(Debug)]
pub(super) struct Listening {
    socket: UdpSocket,
    joined: Vec<Ipv4Addr>,
}

impl Listening {
    pub(super) fn open(port: u16) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&SocketAddr::from((GROUP, port)).into())?;
        Ok(Self { socket: UdpSocket::from_std(socket.into())?, joined: Vec::new() })
    }

    /// Joins the group on interfaces that are new.
    pub(super) fn join(&mut self, interfaces: &Interfaces) {
        self.joined.retain(|address| interfaces.addresses.contains(address));
        for address in &interfaces.addresses {
            if self.joined.contains(address) {
                continue;
            }
            match SockRef::from(&self.socket).join_multicast_v4(&GROUP, address) {
                Ok(()) => self.joined.push(*address),
                // Two addresses of one interface, or an interface that was away for a moment.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => self.joined.push(*address),
                Err(error) => tracing::debug!(%address, %error, "this interface takes no multicast"),
            }
        }
    }

    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        self.socket.recv_from(buffer).await
    }
}

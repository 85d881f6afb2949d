//! The sockets: those to ask from and those to listen on, over IPv4 and IPv6 on all interfaces.

use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use foundation_cluster::discovery::Network;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

/// The group of multicast DNS.
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 251);
/// The same in IPv6, on the local link.
const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb);
/// Interfaces that are used of each kind. A machine with more has most of them for containers.
const MAX_INTERFACES: usize = 64;
/// All messages have this time to live, so that none can come from another network unnoticed (RFC 6762 section 11).
const TIME_TO_LIVE: u32 = 255;

/// The addresses of this machine, and the networks they are in.
#[derive(Clone, Debug, Default)]
pub(super) struct Interfaces {
    addresses: Vec<Ipv4Addr>,
    /// Those with an IPv6 address, by their numbers.
    indices: Vec<u32>,
    own: Vec<IpAddr>,
    networks: Vec<Network>,
}

impl Interfaces {
    /// Those of now, or only the one with this address.
    pub(super) fn read(only: Option<Ipv4Addr>) -> io::Result<Self> {
        let mut interfaces = Self::default();
        for interface in if_addrs::get_if_addrs()? {
            let index = interface.index;
            let (ip, prefix) = match interface.addr {
                if_addrs::IfAddr::V4(v4) => {
                    if only.is_some_and(|only| only != v4.ip) || interfaces.addresses.len() == MAX_INTERFACES
                    {
                        continue;
                    }
                    interfaces.addresses.push(v4.ip);
                    (IpAddr::V4(v4.ip), v4.prefixlen)
                }
                if_addrs::IfAddr::V6(v6) => {
                    let known = index.is_some_and(|index| interfaces.indices.contains(&index));
                    let Some(index) = index.filter(|_| only.is_none()) else { continue };
                    if !known {
                        if interfaces.indices.len() == MAX_INTERFACES {
                            continue;
                        }
                        interfaces.indices.push(index);
                    }
                    (IpAddr::V6(v6.ip), v6.prefixlen)
                }
            };
            interfaces.own.push(ip);
            interfaces.networks.extend(Network::new(ip, prefix));
        }
        Ok(interfaces)
    }

    /// Whether this is an address of this machine.
    pub(super) fn is_own(&self, ip: &IpAddr) -> bool {
        self.own.contains(ip)
    }

    /// Whether this address is on a network that this machine is on. Answers from elsewhere are ignored.
    pub(super) fn is_on_link(&self, ip: &IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(ip))
    }
}

/// The sockets that queries leave from. Their ports are not that of multicast DNS, so answers come back to them alone: a *legacy
/// unicast query* (RFC 6762 section 6.7), the only kind that two `mdns_lite` on one host both answer.
#[derive(Debug)]
pub(super) struct Asking {
    v4: UdpSocket,
    /// Where this system has IPv6.
    v6: Option<UdpSocket>,
    port: u16,
    turn: Turn,
}

impl Asking {
    pub(super) fn open(port: u16) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.set_multicast_loop_v4(true)?;
        socket.set_multicast_ttl_v4(TIME_TO_LIVE)?;
        socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)).into())?;
        let v6 = Self::open_v6().map_err(|error| tracing::debug!(%error, "no mDNS over IPv6")).ok();
        Ok(Self { v4: UdpSocket::from_std(socket.into())?, v6, port, turn: Turn::default() })
    }

    fn open_v6() -> io::Result<UdpSocket> {
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        socket.set_only_v6(true)?;
        socket.set_multicast_loop_v6(true)?;
        socket.set_multicast_hops_v6(TIME_TO_LIVE)?;
        socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)).into())?;
        UdpSocket::from_std(socket.into())
    }

    /// Sends a query on all interfaces.
    ///
    /// # Errors
    /// If it left on none.
    pub(super) async fn ask(&self, query: &[u8], interfaces: &Interfaces) -> io::Result<()> {
        let mut failure = None;
        let mut sent = false;
        let mut note = |result: io::Result<usize>| match result {
            Ok(_) => sent = true,
            Err(error) => failure = failure.take().or(Some(error)),
        };
        for address in &interfaces.addresses {
            let group = SocketAddrV4::new(GROUP, self.port);
            note(match SockRef::from(&self.v4).set_multicast_if_v4(address) {
                Ok(()) => self.v4.send_to(query, group).await,
                Err(error) => Err(error),
            });
        }
        if let Some(socket) = &self.v6 {
            for index in &interfaces.indices {
                let group = SocketAddrV6::new(GROUP_V6, self.port, 0, *index);
                note(socket.send_to(query, group).await);
            }
        }
        match failure {
            _ if sent => Ok(()),
            Some(error) => Err(error),
            None => Err(io::Error::new(io::ErrorKind::NotFound, "no interface has an address")),
        }
    }

    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let sockets: Vec<&UdpSocket> = std::iter::once(&self.v4).chain(&self.v6).collect();
        self.turn.receive(&sockets, buffer).await
    }
}

/// The sockets that hear what others announce. Bound to the group, so that they take no unicast message from the responders of this
/// machine, which all share the port.
#[derive(Debug)]
pub(super) struct Listening {
    v4: UdpSocket,
    joined: Vec<Ipv4Addr>,
    /// One for each interface: a group of the local link is one of an interface.
    v6: Vec<(u32, UdpSocket)>,
    port: u16,
    turn: Turn,
}

impl Listening {
    pub(super) fn open(port: u16) -> io::Result<Self> {
        let socket = shared(Domain::IPV4)?;
        socket.bind(&SocketAddr::from((GROUP, port)).into())?;
        let v4 = UdpSocket::from_std(socket.into())?;
        Ok(Self { v4, joined: Vec::new(), v6: Vec::new(), port, turn: Turn::default() })
    }

    /// Joins the group on interfaces that are new.
    pub(super) fn join(&mut self, interfaces: &Interfaces) {
        self.joined.retain(|address| interfaces.addresses.contains(address));
        for address in &interfaces.addresses {
            if self.joined.contains(address) {
                continue;
            }
            match SockRef::from(&self.v4).join_multicast_v4(&GROUP, address) {
                Ok(()) => self.joined.push(*address),
                // Two addresses of one interface, or an interface that was away for a moment.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => self.joined.push(*address),
                Err(error) => tracing::debug!(%address, %error, "this interface takes no multicast"),
            }
        }
        self.v6.retain(|(index, _)| interfaces.indices.contains(index));
        for index in &interfaces.indices {
            if self.v6.iter().any(|(known, _)| known == index) {
                continue;
            }
            match Self::open_v6(self.port, *index) {
                Ok(socket) => self.v6.push((*index, socket)),
                Err(error) => tracing::debug!(index, %error, "this interface takes no multicast over IPv6"),
            }
        }
    }

    fn open_v6(port: u16, index: u32) -> io::Result<UdpSocket> {
        let socket = shared(Domain::IPV6)?;
        socket.set_only_v6(true)?;
        socket.bind(&SocketAddr::from(SocketAddrV6::new(GROUP_V6, port, 0, index)).into())?;
        socket.join_multicast_v6(&GROUP_V6, index)?;
        UdpSocket::from_std(socket.into())
    }

    pub(super) async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let sockets: Vec<&UdpSocket> =
            std::iter::once(&self.v4).chain(self.v6.iter().map(|(_, socket)| socket)).collect();
        self.turn.receive(&sockets, buffer).await
    }
}

/// A socket whose port others have too.
fn shared(domain: Domain) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    Ok(socket)
}

/// Whose turn it is to be looked at first: a flood at one socket must not silence the others.
#[derive(Debug, Default)]
struct Turn(AtomicUsize);

impl Turn {
    /// A datagram of one of these sockets. Only one task may wait at a time.
    async fn receive(&self, sockets: &[&UdpSocket], buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let first = self.0.fetch_add(1, Ordering::Relaxed) % sockets.len().max(1);
        poll_fn(|cx| {
            for socket in sockets.iter().cycle().skip(first).take(sockets.len()) {
                let mut datagram = ReadBuf::new(buffer);
                match socket.poll_recv_from(cx, &mut datagram) {
                    Poll::Ready(Ok(from)) => return Poll::Ready(Ok((datagram.filled().len(), from))),
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => {}
                }
            }
            Poll::Pending
        })
        .await
    }
}

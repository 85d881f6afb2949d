//! How long a cluster takes to form: Rust nodes beside BEAM nodes with the unmodified libcluster, by sources that both have.
//!
//! Every node is a process of its own and runs before the clock does. Then all are told at once to begin discovering, and the clock stops when
//! the last of them has all others.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use foundation_interop_tests::{Beam, Epmd, epmd};

use super::Request;
use crate::placement::{Placement, cpu_time};
use crate::stage::{Peer, Told, compiled, start_elixir_beam, start_rust_with};
use crate::table::{Line, Sample, at_most};

/// What libcluster needs, each after what it needs itself, as folders of `$FOUNDATION_ECOSYSTEM`.
const LIBRARIES: [&str; 2] = ["telemetry", "libcluster"];
const SIZES: [usize; 4] = [5, 20, 50, 100];
/// More BEAM nodes than this do not fit: each is a process of some 50 MB that takes half a second of a processor to start.
const BEAMS: usize = 20;
/// The sources that both have and that need nobody else.
const SOURCES: [&str; 2] = ["local_epmd", "gossip"];
const LIBCLUSTER: &str = "libcluster";
const RUST: &str = "Rust";
/// Where libcluster's gossip goes.
const GROUP: Ipv4Addr = Ipv4Addr::new(233, 252, 1, 32);

/// One formation.
struct Formed {
    took: Duration,
    cpu: Duration,
}

impl From<Formed> for Sample {
    fn from(formed: Formed) -> Self {
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        Self { value: ms(formed.took), extras: vec![("processor time of all nodes, ms", ms(formed.cpu))] }
    }
}

pub(super) fn lines(request: &Request, show: &mut dyn FnMut(Line<'_>)) {
    let code = libcluster(request);
    let code = &code;
    for source in SOURCES {
        for count in SIZES {
            let fits = count <= BEAMS;
            let without = if fits { "" } else { " (as many BEAM nodes do not fit)" };
            let title = format!("{count} nodes by {source}, until each has all others{without}");
            let mut line = Line::new(title, Placement::Unpinned, "ms");
            if fits {
                line = line.with(LIBCLUSTER, move || {
                    let code = code.as_ref().map_err(Clone::clone)?;
                    let port = free_udp_port();
                    let epmd = Epmd::start(&request.release);
                    beams(request, code, epmd.port, count, source, port).map(Sample::from)
                });
            }
            line = line.with(RUST, move || {
                let epmd = Epmd::start(&request.release);
                rust(epmd.port, count, source, free_udp_port()).map(Sample::from)
            });
            if fits {
                line = line.goal(at_most(RUST, 0.333, LIBCLUSTER));
            }
            show(line);
        }
    }
    bytes(request, code, show);
}

/// What discovery says to EPMD and on the network.
fn bytes(request: &Request, code: &Result<Vec<PathBuf>, String>, show: &mut dyn FnMut(Line<'_>)) {
    const COUNT: usize = 5;
    show(
        Line::new(
            format!("{COUNT} nodes by local_epmd: to and from EPMD until each has all others"),
            Placement::Unpinned,
            "bytes a node",
        )
        .with(LIBCLUSTER, || {
            let code = code.as_ref().map_err(Clone::clone)?;
            let epmd = Counted::start(request);
            beams(request, code, epmd.port, COUNT, "local_epmd", 0)?;
            Ok((epmd.bytes() / COUNT as f64).into())
        })
        .with(RUST, || {
            let epmd = Counted::start(request);
            rust(epmd.port, COUNT, "local_epmd", 0)?;
            Ok((epmd.bytes() / COUNT as f64).into())
        })
        .once(),
    );
    show(
        Line::new("a heartbeat of gossip, sealed with a secret", Placement::Unpinned, "bytes")
            .with(LIBCLUSTER, || {
                let code = code.as_ref().map_err(Clone::clone)?;
                let (epmd, ear) = (Epmd::start(&request.release), Ear::start()?);
                beams(request, code, epmd.port, 2, "gossip", ear.port)?;
                ear.heard()
            })
            .with(RUST, || {
                let (epmd, ear) = (Epmd::start(&request.release), Ear::start()?);
                rust(epmd.port, 2, "gossip", ear.port)?;
                ear.heard()
            })
            .once(),
    );
}

/// Tells all nodes to begin, each in a thread of its own, and waits until the last has all others.
fn form<N: Sync>(
    nodes: &[N],
    pid: impl Fn(&N) -> u32,
    begin: impl Fn(&N) -> Result<(), String> + Sync,
) -> Result<Formed, String> {
    let cpu = || nodes.iter().map(|node| cpu_time(pid(node))).sum::<Duration>();
    let (began, before) = (Instant::now(), cpu());
    let begin = &begin;
    let outcomes: Vec<Result<(), String>> = thread::scope(|scope| {
        let told: Vec<_> = nodes.iter().map(|node| scope.spawn(move || begin(node))).collect();
        told.into_iter()
            .map(|told| told.join().unwrap_or_else(|_| Err("a thread has ended".to_owned())))
            .collect()
    });
    let took = began.elapsed();
    outcomes.into_iter().collect::<Result<(), String>>()?;
    Ok(Formed { took, cpu: cpu().saturating_sub(before) })
}

fn rust(epmd_port: u16, count: usize, source: &str, port: u16) -> Result<Formed, String> {
    let nodes: Vec<Told> = (0..count)
        .map(|number| start_rust_with(None, epmd_port, &format!("n{number}"), None, &["--discovers"]))
        .collect::<Result<_, _>>()?;
    let text = format!("form source={source} port={port} count={count}");
    form(&nodes, Told::pid, |node| node.op(&text).map(|_| ()))
}

/// The code of the unmodified libcluster.
fn libcluster(request: &Request) -> Result<Vec<PathBuf>, String> {
    let absent =
        || format!("$FOUNDATION_ECOSYSTEM lacks one of {}; see make ecosystem", LIBRARIES.join(", "));
    let root = PathBuf::from(std::env::var_os("FOUNDATION_ECOSYSTEM").ok_or_else(absent)?);
    let sources = LIBRARIES.map(|library| root.join(library));
    if !sources.iter().all(|source| source.join("mix.exs").is_file()) {
        return Err(absent());
    }
    let epmd = Epmd::start(&request.release);
    Ok(compiled(&request.release, epmd.port, &sources))
}

fn beams(
    request: &Request,
    code: &[PathBuf],
    epmd_port: u16,
    count: usize,
    source: &str,
    port: u16,
) -> Result<Formed, String> {
    let nodes: Vec<Result<Beam, String>> = thread::scope(|scope| {
        let started: Vec<_> = (0..count)
            .map(|number| {
                scope.spawn(move || {
                    start_elixir_beam(&request.release, epmd_port, &format!("n{number}"), code)
                })
            })
            .collect();
        started
            .into_iter()
            .map(|node| node.join().map_err(|_| "a BEAM node did not start".to_owned()))
            .collect()
    });
    let nodes = nodes.into_iter().collect::<Result<Vec<Beam>, String>>()?;
    let topology = match source {
        "gossip" => format!(
            "strategy: Cluster.Strategy.Gossip, config: [port: {port}, multicast_if: \"127.0.0.1\", secret: \"formation\"]"
        ),
        _ => "strategy: Cluster.Strategy.LocalEpmd".to_owned(),
    };
    // Each waits for itself, so that nobody has to be asked. An answer may take 20 s.
    let text = format!(
        ":ok = :net_kernel.monitor_nodes(true, [node_type: :all])\n\
         {{:ok, _}} = Cluster.Supervisor.start_link([[formation: [{topology}]], [name: Formation]])\n\
         wait = fn wait ->\n\
           if length(Node.list(:connected)) >= {} do\n\
             :ok\n\
           else\n\
             receive do\n\
               {{:nodeup, _, _}} -> :ok\n\
               {{:nodedown, _, _}} -> :ok\n\
             after\n\
               500 -> :ok\n\
             end\n\
             wait.(wait)\n\
           end\n\
         end\n\
         wait.(wait)",
        count - 1
    );
    form(&nodes, Beam::pid, |node| {
        node.try_elixir(&text).map(|_| ()).map_err(|why| why.lines().next().unwrap_or_default().to_owned())
    })
}

/// A port for heartbeats that nobody else uses.
fn free_udp_port() -> u16 {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.local_addr().expect("its address").port()
}

/// What asks an EPMD for all names. The answer begins with the EPMD's port, and `erl_epmd:names/0` takes none from another port than the
/// one it has asked.
const NAMES_REQ: &[u8] = &[0, 1, b'n'];

/// An EPMD behind a relay that counts what passes.
struct Counted {
    port: u16,
    count: Arc<AtomicU64>,
    _epmd: Epmd,
}

impl Counted {
    fn start(request: &Request) -> Self {
        let epmd = Epmd::start(&request.release);
        let target = SocketAddr::from((Ipv4Addr::LOCALHOST, epmd.port));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, epmd::free_port())).expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let count = Arc::new(AtomicU64::new(0));
        let shared = Arc::clone(&count);
        // It lives as long as this program; its EPMD does not.
        thread::spawn(move || {
            for node in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(target) else { return };
                let asks_for_names = Arc::new(AtomicBool::new(false));
                for (from, to, asks) in [(&node, &server, true), (&server, &node, false)] {
                    let (Ok(from), Ok(to)) = (from.try_clone(), to.try_clone()) else { continue };
                    let (count, asks_for_names) = (Arc::clone(&shared), Arc::clone(&asks_for_names));
                    thread::spawn(move || {
                        relay(from, to, &count, |first| {
                            if asks {
                                asks_for_names.store(first == NAMES_REQ, Ordering::SeqCst);
                            } else if asks_for_names.load(Ordering::SeqCst)
                                && let Some(own) = first.first_chunk_mut::<4>()
                            {
                                *own = u32::from(port).to_be_bytes();
                            }
                        });
                    });
                }
            }
        });
        Self { port, count, _epmd: epmd }
    }

    fn bytes(&self) -> f64 {
        self.count.load(Ordering::Relaxed) as f64
    }
}

/// Passes on what comes; `first` sees what comes first, and may change it.
fn relay(mut from: TcpStream, mut to: TcpStream, count: &AtomicU64, first: impl FnOnce(&mut [u8])) {
    let mut buffer = [0; 4096];
    let mut first = Some(first);
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        count.fetch_add(length as u64, Ordering::Relaxed);
        if let Some(first) = first.take() {
            first(&mut buffer[..length]);
        }
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    // The other side is told that nothing more comes.
    let _ended = to.shutdown(std::net::Shutdown::Write);
}

/// A socket that hears what is said to the group, and keeps it until it is asked.
struct Ear {
    socket: UdpSocket,
    port: u16,
}

impl Ear {
    fn start() -> Result<Self, String> {
        let open = || -> std::io::Result<Self> {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(true)?;
            let port = free_udp_port();
            socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)).into())?;
            socket.join_multicast_v4(&GROUP, &Ipv4Addr::LOCALHOST)?;
            socket.set_read_timeout(Some(Duration::from_millis(100)))?;
            Ok(Self { socket: socket.into(), port })
        };
        open().map_err(|error| format!("nothing can be heard: {error}"))
    }

    /// The mean length of what was said.
    fn heard(&self) -> Result<Sample, String> {
        let (mut count, mut bytes, mut datagram) = (0_u32, 0, [0; 2048]);
        while let Ok(length) = self.socket.recv(&mut datagram) {
            count += 1;
            bytes += length;
            if count >= 1000 {
                break;
            }
        }
        if count == 0 {
            Err("nothing was heard".to_owned())
        } else {
            Ok((bytes as f64 / f64::from(count)).into())
        }
    }
}

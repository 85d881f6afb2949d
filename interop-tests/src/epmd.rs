//! An EPMD of one release, on a loopback port of its own.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub use crate::free_port::free_port;
use crate::{Release, eventually};

/// A running `epmd`; it ends when this is dropped, or when the test process ends in whatever way.
#[derive(Debug)]
pub struct Epmd {
    /// The port it listens on.
    pub port: u16,
    child: Child,
}

impl Epmd {
    /// Starts the release's `epmd` on a free port.
    pub fn start(release: &Release) -> Self {
        for _ in 0..10 {
            let port = free_port();
            if let Some(epmd) = Self::try_start(release, port) {
                return epmd;
            }
        }
        panic!("no epmd of OTP {} came up on any of ten free ports", release.number);
    }

    /// Starts the release's `epmd` on the port of one that was stopped.
    ///
    /// A program that another thread starts has a copy of this process's listening sockets for a moment, so the port of one that was just
    /// closed is tried until it is free.
    pub fn start_again(release: &Release, port: u16) -> Self {
        eventually("the port of the EPMD is free again", Duration::from_secs(10), || {
            Self::try_start(release, port)
        })
    }

    /// Starts the release's `epmd` on a given port; `None` if the port is taken.
    pub fn try_start(release: &Release, port: u16) -> Option<Self> {
        Self::try_start_at(release, port, &[], Ipv4Addr::LOCALHOST)
    }

    /// The same behind a command that leads to another network namespace, where it listens on this address.
    pub fn try_start_at(release: &Release, port: u16, prefix: &[String], address: Ipv4Addr) -> Option<Self> {
        let addresses = if address.is_loopback() { "127.0.0.1,::1".to_owned() } else { address.to_string() };
        Self::listening(release, port, prefix, address, &addresses)
    }

    /// The same on several addresses of this namespace, and on 127.0.0.1.
    pub fn try_start_on(release: &Release, port: u16, addresses: &[&str]) -> Option<Self> {
        Self::listening(release, port, &[], Ipv4Addr::LOCALHOST, &addresses.join(","))
    }

    fn listening(
        release: &Release,
        port: u16,
        prefix: &[String],
        address: Ipv4Addr,
        addresses: &str,
    ) -> Option<Self> {
        // The shell ends epmd as soon as its own standard input closes, so a test that was killed leaves no epmd behind.
        let script = "\"$0\" -port \"$1\" -address \"$2\" & child=$!; \
                      trap 'kill $child; wait $child' EXIT; read -r _";
        let mut command = Command::new(prefix.first().map_or("sh", String::as_str));
        if let Some((_, arguments)) = prefix.split_first() {
            command.args(arguments).arg("sh");
        }
        let mut child = command
            .args(["-c", script])
            .arg(release.program("epmd"))
            .arg(port.to_string())
            .arg(addresses)
            .env("ERL_EPMD_RELAXED_COMMAND_CHECK", "true")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh can be started");
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while std::time::Instant::now() < deadline {
            if names_at(address, port).is_some() {
                return Some(Self { port, child });
            }
            if child.try_wait().unwrap().is_some() {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(child.stdin.take());
        child.wait().unwrap();
        None
    }

    /// The names registered now, with their ports.
    pub fn names(&self) -> Vec<(String, u16)> {
        names(self.port).unwrap_or_default()
    }

    /// Waits until a name is registered and returns its port.
    pub fn wait_for(&self, name: &str) -> u16 {
        eventually(&format!("{name} is registered"), Duration::from_secs(10), || {
            self.names().into_iter().find(|(n, _)| n == name).map(|(_, port)| port)
        })
    }

    /// Registers a name for a port, as a node does; the name lives as long as the returned socket.
    pub fn register(&self, name: &str, port: u16) -> TcpStream {
        let mut socket = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        let mut request = vec![120];
        request.extend(port.to_be_bytes());
        request.extend([77, 0, 0, 6, 0, 5]); // visible, TCP, versions 6 to 5
        request.extend((name.len() as u16).to_be_bytes());
        request.extend(name.as_bytes());
        request.extend([0, 0]);
        socket.write_all(&(request.len() as u16).to_be_bytes()).unwrap();
        socket.write_all(&request).unwrap();
        let mut answer = [0; 2];
        socket.read_exact(&mut answer).unwrap();
        assert_eq!(answer[1], 0, "epmd refused the name {name}");
        socket
    }
}

impl Drop for Epmd {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Asks whatever listens on `port` for its names, by bytes.
pub fn names(port: u16) -> Option<Vec<(String, u16)>> {
    names_at(Ipv4Addr::LOCALHOST, port)
}

fn names_at(address: Ipv4Addr, port: u16) -> Option<Vec<(String, u16)>> {
    let mut socket = TcpStream::connect((address, port)).ok()?;
    socket.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    socket.write_all(&[0, 1, 110]).ok()?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).ok()?;
    let text = String::from_utf8(answer.get(4..)?.to_vec()).ok()?;
    text.lines()
        .map(|line| {
            let (name, port) = line.strip_prefix("name ")?.split_once(" at port ")?;
            Some((name.to_owned(), port.parse().ok()?))
        })
        .collect()
}

//! A recording proxy between two nodes: what they really say to each other, for golden bytes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// Who sent a recorded piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The node that opened the connection.
    Initiator,
    /// The node that accepted it.
    Acceptor,
}

/// A listening proxy that forwards every connection to `target` and keeps what passes.
#[derive(Debug)]
pub struct Proxy {
    /// Where to connect instead.
    pub port: u16,
    streams: Arc<Mutex<Vec<Arc<Mutex<Stream>>>>>,
}

/// What passed on one connection, in each direction.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    /// From the initiator to the acceptor.
    pub initiator: Vec<u8>,
    /// From the acceptor to the initiator.
    pub acceptor: Vec<u8>,
}

impl Proxy {
    /// Starts one on a free loopback port; it lives as long as the process.
    pub fn start(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let streams = Arc::new(Mutex::new(Vec::new()));
        let accepted = Arc::clone(&streams);
        std::thread::spawn(move || {
            for initiator in listener.incoming().map_while(Result::ok) {
                let Ok(acceptor) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else { continue };
                initiator.set_nodelay(true).unwrap();
                acceptor.set_nodelay(true).unwrap();
                let stream = Arc::new(Mutex::new(Stream::default()));
                accepted.lock().unwrap().push(Arc::clone(&stream));
                let (a, b) = (initiator.try_clone().unwrap(), acceptor.try_clone().unwrap());
                let record = Arc::clone(&stream);
                std::thread::spawn(move || forward(initiator, acceptor, &record, From::Initiator));
                std::thread::spawn(move || forward(b, a, &stream, From::Acceptor));
            }
        });
        Self { port, streams }
    }

    /// The connections recorded so far.
    pub fn streams(&self) -> Vec<Stream> {
        let streams = self.streams.lock().unwrap();
        streams.iter().map(|stream| stream.lock().unwrap().clone()).collect()
    }
}

fn forward(mut from: TcpStream, mut to: TcpStream, record: &Mutex<Stream>, who: From) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        {
            let mut stream = record.lock().unwrap();
            let side = if who == From::Initiator { &mut stream.initiator } else { &mut stream.acceptor };
            side.extend(&buffer[..n]);
        }
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// Splits a direction into handshake messages (2-byte length, `handshake` of them) and frames (4-byte length).
///
/// A message that is not complete yet is left out.
pub fn split(mut bytes: &[u8], handshake: usize) -> Vec<Vec<u8>> {
    let mut messages = Vec::new();
    loop {
        let width = if messages.len() < handshake { 2 } else { 4 };
        let Some((head, rest)) = bytes.split_at_checked(width) else { return messages };
        let length = head.iter().fold(0, |n, &byte| n << 8 | usize::from(byte));
        let Some((message, rest)) = rest.split_at_checked(length) else { return messages };
        messages.push(message.to_vec());
        bytes = rest;
    }
}

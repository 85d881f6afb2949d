//! A node made with the crate `erl_dist`, whose terms are those of `eetf`, on tokio's single-threaded runtime. Its sockets have
//! `TCP_NODELAY`, which its documentation leaves out: without, an echo takes 44 ms, because each message is written in three pieces.

use std::io::{BufRead, Write};
use std::time::Instant;

use erl_dist::LOWEST_DISTRIBUTION_PROTOCOL_VERSION;
use erl_dist::epmd::{EpmdClient, NodeEntry};
use erl_dist::handshake::{ClientSideHandshake, HandshakeStatus, ServerSideHandshake};
use erl_dist::message::{Message, Receiver, Sender, channel};
use erl_dist::node::{Creation, LocalNode};
use erl_dist::term::{Atom, Binary, FixInteger, Pid, Term, Tuple};
use foundation_interop_tests::futures_socket::Socket;
use tokio::net::TcpListener;

fn answer(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody listens any more: the end of standard input follows.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

fn atom(name: &str) -> Term {
    Atom::from(name).into()
}

fn integer(number: usize) -> Term {
    FixInteger::from(i32::try_from(number).expect("fewer messages than 2^31")).into()
}

/// `serve NAME COOKIE` or `drive NAME COOKIE`; runs until standard input ends.
pub(crate) fn main(arguments: &[String]) {
    let [mode, name, cookie] = arguments else { panic!("serve|drive NAME COOKIE") };
    let epmd: u16 = std::env::var("ERL_EPMD_PORT").expect("ERL_EPMD_PORT").parse().expect("a port");
    let full = format!("{name}@127.0.0.1").parse().expect("a node name");
    let local = LocalNode::new(full, Creation::random());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    if mode == "serve" {
        std::thread::spawn(|| {
            for _ in std::io::stdin().lock().lines() {}
            std::process::exit(0);
        });
        runtime.block_on(serve(name, &local, cookie, epmd));
    } else {
        runtime.block_on(drive(&local, cookie, epmd));
    }
}

async fn serve(name: &str, local: &LocalNode, cookie: &str, epmd: u16) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let entry = NodeEntry::new_hidden(name, port);
    // The registration lives as long as this socket.
    let _registered =
        EpmdClient::new(Socket::connect(epmd).await.expect("EPMD")).register(entry).await.expect("EPMD");
    answer("ok=1");
    while let Ok((stream, _)) = listener.accept().await {
        let (local, cookie) = (local.clone(), cookie.to_owned());
        tokio::spawn(async move {
            let mut handshake =
                ServerSideHandshake::new(Socket::new(stream).expect("TCP_NODELAY"), local.clone(), &cookie);
            handshake.execute_recv_name().await.expect("a name");
            let (stream, peer) = handshake.execute_rest(HandshakeStatus::Ok).await.expect("a handshake");
            let (sender, receiver) = channel(stream, local.flags & peer.flags);
            served(&local, sender, receiver).await;
        });
    }
}

/// One connection to its end.
async fn served(local: &LocalNode, mut sender: Sender<Socket>, mut receiver: Receiver<Socket>) {
    let me = Pid::new(local.name.to_string(), 1, 0, local.creation.get());
    let (mut count, mut next, mut bad) = (0, 0, 0);
    while let Ok(message) = receiver.recv().await {
        let Some(Term::Tuple(Tuple { elements })) = payload(message) else { continue };
        let (to, reply) = match elements.as_slice() {
            [_, Term::FixInteger(number), _] => {
                count += 1;
                if number.value >= 0 {
                    bad += usize::from(number.value != next);
                    next = number.value + 1;
                }
                continue;
            }
            [Term::Pid(from), rest] => (from.clone(), rest.clone()),
            [Term::Atom(tag), Term::Pid(from)] if tag.name == "sink" => {
                (count, next, bad) = (0, 0, 0);
                (from.clone(), Tuple::from(vec![atom("sink"), me.clone().into()]).into())
            }
            [_, Term::Pid(from)] => {
                (from.clone(), Tuple::from(vec![atom("received"), integer(count), integer(bad)]).into())
            }
            _ => continue,
        };
        if sender.send(Message::send(to, reply)).await.is_err() {
            return;
        }
    }
}

fn payload(message: Message) -> Option<Term> {
    match message {
        Message::Send(sent) => Some(sent.message),
        Message::SendSender(sent) => Some(sent.message),
        Message::RegSend(sent) => Some(sent.message),
        _ => None,
    }
}

/// One connection that was made.
struct Connected {
    peer: String,
    sender: Sender<Socket>,
    receiver: Receiver<Socket>,
}

impl Connected {
    async fn to(peer: &str, local: &LocalNode, cookie: &str, epmd: u16) -> Self {
        let name = peer.split('@').next().unwrap_or_default();
        let found =
            EpmdClient::new(Socket::connect(epmd).await.expect("EPMD")).get_node(name).await.expect("EPMD");
        let stream = Socket::connect(found.expect("a node of this name").port).await.expect("a connection");
        let mut handshake = ClientSideHandshake::new(stream, local.clone(), cookie);
        let status = handshake.execute_send_name(LOWEST_DISTRIBUTION_PROTOCOL_VERSION).await;
        assert!(matches!(status, Ok(HandshakeStatus::Ok)), "{status:?}");
        let (stream, found) = handshake.execute_rest(true).await.expect("a handshake");
        let (sender, receiver) = channel(stream, local.flags & found.flags);
        Self { peer: peer.to_owned(), sender, receiver }
    }

    async fn tuple(&mut self) -> Vec<Term> {
        loop {
            let message = self.receiver.recv().await.expect("an answer");
            if let Some(Term::Tuple(tuple)) = payload(message) {
                return tuple.elements;
            }
        }
    }

    async fn blast(&mut self, me: &Pid, count: usize, size: usize) -> String {
        let request = Tuple::from(vec![atom("sink"), me.clone().into()]);
        let message = Message::reg_send(me.clone(), Atom::from("bench"), request.into());
        self.sender.send(message).await.expect("a connection");
        let sink = match self.tuple().await.as_slice() {
            [_, Term::Pid(sink)] => sink.clone(),
            other => panic!("no sink: {other:?}"),
        };
        let binary = Binary::from(vec![b'x'; size]);
        let start = Instant::now();
        for number in 0..count {
            let message = Tuple::from(vec![atom("msg"), integer(number), binary.clone().into()]);
            self.sender.send(Message::send(sink.clone(), message.into())).await.expect("a connection");
        }
        let done = Tuple::from(vec![atom("done"), me.clone().into()]);
        self.sender.send(Message::send(sink, done.into())).await.expect("a connection");
        let wrong = match self.tuple().await.as_slice() {
            [_, Term::FixInteger(received), Term::FixInteger(bad)] => {
                i64::from(bad.value) + (i64::from(received.value) - count as i64).abs()
            }
            other => panic!("no answer: {other:?}"),
        };
        format!("us={} bad={wrong}", start.elapsed().as_secs_f64() * 1e6)
    }
}

async fn drive(local: &LocalNode, cookie: &str, epmd: u16) {
    let me = Pid::new(local.name.to_string(), 1, 0, local.creation.get());
    let mut connected: Option<Connected> = None;
    answer("ok=1");
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let words: Vec<&str> =
            line.split_whitespace().filter_map(|word| Some(word.split_once('=')?.1)).collect();
        let ["send", ..] = line.split(' ').collect::<Vec<_>>()[..] else {
            answer("failed: unknown operation");
            continue;
        };
        let [peer, _, count, size] = words[..] else { panic!("{line}") };
        let (count, size) = (count.parse().expect("a count"), size.parse().expect("a size"));
        let kept = connected.take().filter(|connected| connected.peer == peer);
        let mut connection = match kept {
            Some(connection) => connection,
            None => Connected::to(peer, local, cookie, epmd).await,
        };
        answer(&connection.blast(&me, count, size).await);
        connected = Some(connection);
    }
}

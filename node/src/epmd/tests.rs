use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use foundation_proto::epmd::NodeInfo;

use self::free_port::free_port;
use super::*;
use crate::config::{EpmdMode, NodeConfig};
use crate::eventually::eventually;

#[path = "../../tests/it/free_port.rs"]
mod free_port;

fn at(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn config(port: u16, mode: EpmdMode) -> NodeConfig {
    NodeConfig::default().epmd_port(port).epmd(mode)
}

async fn register(port: u16, mode: EpmdMode, name: &str) -> Result<Registration, EpmdError> {
    Registration::start(&config(port, mode), NodeInfo::new(name, 1234, true), &[]).await
}

async fn names(port: u16) -> Vec<String> {
    client::names(at(port))
        .await
        .map_or(Vec::new(), |list| list.nodes.into_iter().map(|(name, _)| name).collect())
}

#[tokio::test]
async fn a_name_is_registered_as_long_as_its_node_lives() {
    let server = Server::start(0, &[], 16).await.unwrap();
    let port = server.addresses()[0].port();
    let first = register(port, EpmdMode::Require, "one").await.unwrap();
    let second = register(port, EpmdMode::Require, "two").await.unwrap();
    assert_eq!(names(port).await, ["two", "one"]);
    assert_eq!(client::lookup(at(port), "one").await.unwrap().unwrap().port, 1234);
    assert!(client::lookup(at(port), "three").await.unwrap().is_none());
    assert!(matches!(register(port, EpmdMode::Require, "one").await, Err(EpmdError::NameTaken { .. })));
    assert_eq!(server.registered(), ["two", "one"]);
    let creation = first.creation();
    drop(first);
    eventually(Duration::from_secs(5), async || names(port).await == ["two"]).await;
    let again = register(port, EpmdMode::Require, "one").await.unwrap();
    assert_eq!(again.creation(), creation + 1);
    drop(second);
}

#[tokio::test]
async fn the_modes_differ_when_there_is_no_epmd() {
    let port = free_port();
    assert!(matches!(register(port, EpmdMode::Require, "a").await, Err(EpmdError::Unreachable { .. })));
    assert!(register(port, EpmdMode::None, "a").await.unwrap().creation() > 3);
    let mut fixed = config(port, EpmdMode::Require);
    fixed.erl_epmd_node_listen_port = Some(4000);
    assert!(Registration::start(&fixed, NodeInfo::new("a", 1, true), &[]).await.is_ok());
    let embedded = register(port, EpmdMode::Embedded, "a").await.unwrap();
    assert_eq!(names(port).await, ["a"]);
    let guest = register(port, EpmdMode::Embedded, "b").await.unwrap();
    assert_eq!(embedded.serves(), ["b", "a"]);
    assert!(guest.serves().is_empty());
}

/// Two nodes, one of which serves the EPMD of both. 1 s is the promise; the bound here leaves room for a loaded machine.
#[tokio::test]
async fn the_survivor_takes_the_port_over_and_keeps_its_creation() {
    let port = free_port();
    let serving = register(port, EpmdMode::Embedded, "serving").await.unwrap();
    let survivor = register(port, EpmdMode::Auto, "survivor").await.unwrap();
    let creation = survivor.creation();
    drop(serving);
    eventually(Duration::from_secs(3), async || names(port).await == ["survivor"]).await;
    assert_eq!(survivor.creation(), creation);
    assert_eq!(survivor.serves(), ["survivor"]);
}

#[tokio::test]
async fn a_node_registers_again_with_a_restarted_epmd() {
    let port = free_port();
    let server = Server::start(port, &[], 16).await.unwrap();
    let node = register(port, EpmdMode::Require, "node").await.unwrap();
    drop(server);
    eventually(Duration::from_secs(5), async || client::names(at(port)).await.is_err()).await;
    let server = Server::start(port, &[], 16).await.unwrap();
    eventually(Duration::from_secs(3), async || server.registered() == ["node"]).await;
    drop(node);
}

#[tokio::test]
async fn what_is_no_epmd_is_said_to_be_none() {
    let listener = tokio::net::TcpListener::bind(at(0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            use tokio::io::AsyncWriteExt;
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        }
    });
    let error = register(port, EpmdMode::Auto, "a").await.unwrap_err();
    assert!(matches!(error, EpmdError::NoEpmd { .. }), "{error}");
}

#[tokio::test]
async fn kill_is_refused_while_names_are_registered() {
    let mut server = Server::start(0, &[], 16).await.unwrap();
    let port = server.addresses()[0].port();
    let node = register(port, EpmdMode::Require, "node").await.unwrap();
    assert!(!client::kill(at(port)).await.unwrap());
    drop(node);
    eventually(Duration::from_secs(5), async || client::kill(at(port)).await.unwrap_or(false)).await;
    tokio::time::timeout(Duration::from_secs(5), server.stopped()).await.unwrap();
}

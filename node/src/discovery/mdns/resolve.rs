//! Host names under `.local`, which belong to multicast DNS (RFC 6762 section 3).

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use super::PORT;
use super::message::{self, Data, MAX_MESSAGE, Type, same_name};
use super::network::{Asking, Interfaces};
use crate::random;

/// When the question is asked again: a datagram can be lost.
const AGAIN: Duration = Duration::from_millis(300);
/// How often it is asked.
const TRIES: u32 = 3;
/// Other answers than the one waited for that are read in between.
const MAX_OTHERS: u32 = 256;
/// Addresses that are taken.
const MAX_ADDRESSES: usize = 16;

/// The IPv4 addresses of a host of the local link. Only those on networks that this machine is on: anybody there can answer, and nobody
/// shall lead this node elsewhere.
///
/// # Errors
/// If nobody answers within a second.
pub(crate) async fn resolve(host: &str) -> io::Result<Vec<IpAddr>> {
    let host = host.trim_end_matches('.');
    let id = random::bits32()? as u16;
    let query = message::query(id, &[(host, Type::A)])
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no host name that DNS can carry"))?;
    let interfaces = Interfaces::read(None)?;
    let asking = Asking::open(PORT)?;
    let mut buffer = vec![0; MAX_MESSAGE];
    for _try in 0..TRIES {
        asking.ask(&query, &interfaces).await?;
        let deadline = tokio::time::Instant::now() + AGAIN;
        for _other in 0..MAX_OTHERS {
            let Ok(received) = tokio::time::timeout_at(deadline, asking.receive(&mut buffer)).await else {
                break;
            };
            let (length, from) = received?;
            if !interfaces.is_on_link(&from.ip()) {
                continue;
            }
            let records = buffer.get(..length).and_then(message::response).unwrap_or_default();
            let addresses: Vec<IpAddr> = records
                .iter()
                .filter(|record| same_name(&record.name, host))
                .filter_map(|record| match record.data {
                    Data::A(v4) => Some(IpAddr::V4(v4)),
                    _ => None,
                })
                .filter(|ip| interfaces.is_on_link(ip))
                .take(MAX_ADDRESSES)
                .collect();
            if !addresses.is_empty() {
                return Ok(addresses);
            }
        }
    }
    Err(io::Error::new(io::ErrorKind::NotFound, "neither the system nor multicast DNS knows it"))
}

//! What the machine allows: plain TCP between two threads, and copying in memory.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::Request;
use crate::placement::Placement;
use crate::stats::percentiles;
use crate::table::{Line, Sample};

pub(super) fn lines(request: &Request, show: &mut dyn FnMut(Line<'_>)) {
    let millis = request.millis;
    for placement in [Placement::OneCpu, Placement::TwoCpus, Placement::Unpinned] {
        show(
            Line::new("raw TCP echo, one byte in front of the size", placement, "µs")
                .with("16 bytes", move || echo(placement, 16, millis))
                .with("64 KiB", move || echo(placement, 64 << 10, millis))
                .with("1 MiB", move || echo(placement, 1 << 20, millis)),
        );
        show(
            Line::new("raw TCP, one way", placement, "MB/s")
                .with("64 KiB writes", raw_tcp(placement, 64 << 10, millis))
                .with("1 MiB writes", raw_tcp(placement, 1 << 20, millis)),
        );
    }
    show(
        Line::new("copy in memory", Placement::Unpinned, "MB/s")
            .with("1 MiB", move || copy(1 << 20, millis))
            .with("64 MiB", move || copy(64 << 20, millis)),
    );
}

fn pair() -> std::io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    Ok((near, far))
}

fn why(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// Megabytes a second from one thread to another, in writes of this size.
pub(super) fn raw_tcp(
    placement: Placement,
    size: usize,
    millis: f64,
) -> impl FnMut() -> Result<Sample, String> {
    move || {
        let (mut near, mut far) = pair().map_err(why)?;
        let end = Instant::now() + Duration::from_secs_f64(millis / 1e3);
        let writer = placement.place(0, || {
            thread::spawn(move || {
                let block = vec![b'x'; size];
                while Instant::now() < end && near.write_all(&block).is_ok() {}
            })
        });
        let reader = placement.place(1, || {
            thread::spawn(move || {
                let start = Instant::now();
                let mut block = vec![0; size];
                let mut bytes = 0;
                while let Ok(read) = far.read(&mut block) {
                    if read == 0 {
                        break;
                    }
                    bytes += read;
                }
                bytes as f64 / start.elapsed().as_secs_f64() / 1e6
            })
        });
        writer.join().map_err(|_| "the writer failed")?;
        Ok(reader.join().map_err(|_| "the reader failed")?.into())
    }
}

fn answer(mut far: TcpStream, size: usize) {
    let mut block = vec![0; size];
    while far.read_exact(&mut block).is_ok() && far.write_all(&block).is_ok() {}
}

fn echo(placement: Placement, size: usize, millis: f64) -> Result<Sample, String> {
    let (mut near, far) = pair().map_err(why)?;
    let far_end = placement.place(1, || thread::spawn(move || answer(far, size)));
    let near_end = placement.place(0, || {
        thread::spawn(move || {
            let end = Instant::now() + Duration::from_secs_f64(millis / 1e3);
            let mut block = vec![b'x'; size];
            let mut times = Vec::new();
            while Instant::now() < end {
                let start = Instant::now();
                // A lost connection shows as a time that is far too long.
                if near.write_all(&block).and_then(|()| near.read_exact(&mut block)).is_err() {
                    break;
                }
                times.push(start.elapsed().as_secs_f64() * 1e6);
            }
            times
        })
    });
    let times = near_end.join().map_err(|_| "the client failed")?;
    far_end.join().map_err(|_| "the server failed")?;
    let numbers = percentiles(times);
    let get = |name: &str| numbers.get(name).copied().unwrap_or(f64::NAN);
    Ok(Sample { value: get("p50"), extras: vec![("p99", get("p99"))] })
}

/// An echo of 16 bytes every millisecond on one socket, while another carries as much as it can.
pub(super) fn raw_tcp_beside_bulk(
    placement: Placement,
    millis: f64,
) -> impl FnMut() -> Result<Sample, String> {
    move || {
        let mut bulk = raw_tcp(placement, 1 << 20, millis);
        let (near, far) = pair().map_err(why)?;
        let far_end = placement.place(1, || thread::spawn(move || answer(far, 16)));
        let pings = placement.place(0, || {
            thread::spawn(move || {
                let end = Instant::now() + Duration::from_secs_f64(millis / 1e3);
                let (mut near, mut block, mut times) = (near, [b'x'; 16], Vec::new());
                while Instant::now() < end {
                    thread::sleep(Duration::from_millis(1));
                    let start = Instant::now();
                    if near.write_all(&block).and_then(|()| near.read_exact(&mut block)).is_err() {
                        break;
                    }
                    times.push(start.elapsed().as_secs_f64() * 1e3);
                }
                times
            })
        });
        let bulk = bulk()?.value;
        let numbers = percentiles(pings.join().map_err(|_| "the client failed")?);
        far_end.join().map_err(|_| "the server failed")?;
        let get = |name: &str| numbers.get(name).copied().unwrap_or(f64::NAN);
        Ok(Sample { value: get("p50"), extras: vec![("p99", get("p99")), ("bulk MB/s", bulk)] })
    }
}

fn copy(size: usize, millis: f64) -> Result<Sample, String> {
    let (from, mut to) = (vec![1_u8; size], vec![0_u8; size]);
    let start = Instant::now();
    let mut bytes = 0;
    while start.elapsed().as_secs_f64() * 1e3 < millis / 3.0 {
        std::hint::black_box(&mut to).copy_from_slice(std::hint::black_box(&from));
        bytes += size;
    }
    Ok((bytes as f64 / start.elapsed().as_secs_f64() / 1e6).into())
}

//! The port mapper: `foundation epmd`, `foundation names`.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use foundation_node::epmd::{EpmdError, Server, client};
use foundation_node::names;
use tracing::info;

use super::args::{Epmd, Options};
use super::exit::{self, Failure};
use super::{start, terms};

/// How long an EPMD in the background may take to listen.
const DAEMON_START: Duration = Duration::from_secs(5);

/// `foundation names`: the output and exit code of `epmd -names`, which scripts parse.
pub(crate) async fn names(host: Option<&str>, options: &Options) -> Result<u8, Failure> {
    let port = options.configuration()?.0.epmd_port;
    let Some(host) = host else { return list(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await };
    let ips = names::resolve(host)
        .await
        .map_err(|error| Failure::Unreachable(format!("the host {host:?} cannot be resolved: {error}")))?;
    let mut code = exit::REMOTE;
    for ip in ips {
        code = list(SocketAddr::new(ip, port)).await?;
        if code == exit::OK {
            break;
        }
    }
    Ok(code)
}

async fn list(address: SocketAddr) -> Result<u8, Failure> {
    match client::names(address).await {
        Ok(list) => {
            terms::line(&format!("epmd: up and running on port {} with data:", list.epmd_port));
            for (name, port) in &list.nodes {
                terms::line(&format!("name {name} at port {port}"));
            }
            Ok(exit::OK)
        }
        Err(EpmdError::Unreachable { address, .. }) if address.ip().is_loopback() => {
            eprintln!("epmd: Cannot connect to local epmd");
            Ok(exit::REMOTE)
        }
        Err(error) => {
            eprintln!("epmd: {error}");
            Ok(exit::REMOTE)
        }
    }
}

/// `foundation epmd`: serves until it is told to stop.
pub(crate) async fn epmd(command: &Epmd, options: &Options) -> Result<u8, Failure> {
    let config = options.configuration()?.0;
    let port = command.port.unwrap_or(config.epmd_port);
    let local = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    if command.names {
        return list(local).await;
    }
    if command.kill {
        return match client::kill(local).await {
            Ok(true) => {
                terms::line("Killed");
                Ok(exit::OK)
            }
            Ok(false) => {
                terms::line("Killing not allowed - living nodes in database.");
                Ok(exit::REMOTE)
            }
            Err(_) => {
                eprintln!("epmd: Cannot connect to local epmd");
                Ok(exit::REMOTE)
            }
        };
    }
    if command.daemon {
        return daemon(port, command).await;
    }
    let addresses = if command.address.is_empty() { &config.epmd_address } else { &command.address };
    let mut server =
        match Server::start(port, &own_addresses(addresses).await, config.limits.epmd_connections).await {
            Ok(server) => server,
            Err(EpmdError::Bind { .. }) if client::names(local).await.is_ok() => {
                // OTP's `epmd` ends without a word when one is running, because `erl` starts it each time.
                info!(port, "an EPMD is running already");
                return Ok(exit::OK);
            }
            Err(error) => return Err(Failure::Unreachable(error.to_string())),
        };
    tokio::select! {
        () = server.stopped() => {}
        signal = start::signal() => info!(signal, "stopping"),
    }
    Ok(exit::OK)
}

/// Those that were asked for; else the ones that this machine's name leads to.
async fn own_addresses(asked: &[IpAddr]) -> Vec<IpAddr> {
    if !asked.is_empty() {
        return asked.to_vec();
    }
    match names::complete("epmd", foundation_proto::dist::NameStyle::Short) {
        Ok(name) => names::resolve(name.host()).await.unwrap_or_default(),
        Err(_) => Vec::new(),
    }
}

/// Starts this program again without `-daemon`, cut off from the terminal, and waits until it listens.
async fn daemon(port: u16, command: &Epmd) -> Result<u8, Failure> {
    let failed = |error: std::io::Error| Failure::Config(format!("cannot start in the background: {error}"));
    let mut child = std::process::Command::new(std::env::current_exe().map_err(failed)?);
    child.args(["epmd", "--port", &port.to_string()]);
    if !command.address.is_empty() {
        let list: Vec<String> = command.address.iter().map(IpAddr::to_string).collect();
        child.args(["--address", &list.join(",")]);
    }
    child.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    child.spawn().map_err(failed)?;
    let deadline = Instant::now() + DAEMON_START;
    while Instant::now() < deadline {
        if client::names(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).await.is_ok() {
            return Ok(exit::OK);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(Failure::Unreachable(format!("the epmd that was started does not listen on port {port}")))
}

//! Keeps the name of one node registered, whatever happens to the EPMD.
//!
//! When the connection to the EPMD is lost, it is tried again every 100 to 500 ms (OTP: every 2 s). The creation stays the
//! one of the start: pids already carry it. A node that may serve an EPMD itself does so once nobody else has answered for a
//! moment; so of two Rust nodes, the survivor takes the port over within a second.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use foundation_proto::epmd::NodeInfo;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tracing::{debug, info, warn};

use super::{EpmdError, Server, client};
use crate::config::{EpmdMode, NodeConfig};
use crate::random;

const RETRY_LEAST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_millis(500);

/// How long an EPMD may be away before a node that may do so takes its place: long enough for one that is being restarted.
const TAKE_OVER_AFTER: Duration = Duration::from_millis(300);

/// How long a freshly started `epmd -daemon` may take to listen.
const DAEMON_START: Duration = Duration::from_secs(3);

/// The name of one node in the EPMD of its host; dropped, it is free again.
#[derive(Debug)]
pub struct Registration {
    creation: u32,
    server: Arc<Mutex<Option<Server>>>,
    keeper: Option<tokio::task::AbortHandle>,
}

struct Keeper {
    mode: EpmdMode,
    port: u16,
    addresses: Vec<IpAddr>,
    max_connections: usize,
    node: NodeInfo,
    server: Arc<Mutex<Option<Server>>>,
}

impl Registration {
    /// Registers `node` in the way that the configuration asks for; `listening` are the addresses that the node listens on.
    ///
    /// # Errors
    /// If the name is taken, or the EPMD that the mode requires cannot be had.
    pub async fn start(config: &NodeConfig, node: NodeInfo, listening: &[IpAddr]) -> Result<Self, EpmdError> {
        let server = Arc::new(Mutex::new(None));
        let random = || random::creation().map_err(|error| EpmdError::Bind { port: config.epmd_port, error });
        if config.epmd == EpmdMode::None {
            return Ok(Self { creation: random()?, server, keeper: None });
        }
        let keeper = Keeper {
            mode: config.epmd,
            port: config.epmd_port,
            addresses: if config.epmd_address.is_empty() { listening } else { &config.epmd_address }.to_vec(),
            max_connections: config.limits.epmd_connections,
            node,
            server: Arc::clone(&server),
        };
        let (stream, creation) = match keeper.first().await {
            Ok((stream, creation)) => (Some(stream), creation),
            // Peers that expect everybody on one port need no EPMD; OTP carries on without in this mode.
            Err(error @ EpmdError::Unreachable { .. }) if config.erl_epmd_node_listen_port.is_some() => {
                debug!(%error, "working without an EPMD");
                (None, random()?)
            }
            Err(error) => return Err(error),
        };
        let keeper = tokio::spawn(keeper.keep(stream)).abort_handle();
        Ok(Self { creation, server, keeper: Some(keeper) })
    }

    /// The creation that the EPMD gave at the start.
    pub fn creation(&self) -> u32 {
        self.creation
    }

    /// The names that other nodes lose when this one stops, because it serves their EPMD.
    pub fn serves(&self) -> Vec<String> {
        let server = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        server.as_ref().map(Server::registered).unwrap_or_default()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(keeper) = &self.keeper {
            keeper.abort();
        }
        self.server.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

impl Keeper {
    async fn first(&self) -> Result<(TcpStream, u32), EpmdError> {
        if self.mode == EpmdMode::Embedded {
            match self.serve().await {
                Ok(()) => {}
                Err(EpmdError::Bind { error, .. }) if error.kind() == io::ErrorKind::AddrInUse => {
                    debug!(port = self.port, "using the EPMD that is running");
                }
                Err(error) => return Err(error),
            }
        }
        let unreachable = match self.register().await {
            Err(error @ EpmdError::Unreachable { .. }) if self.mode == EpmdMode::Auto => error,
            result => return result,
        };
        if self.start_daemon().await {
            return self.register().await;
        }
        debug!(%unreachable, "no EPMD and no `epmd` on PATH");
        match self.serve().await {
            // Another node was faster.
            Err(EpmdError::Bind { error, .. }) if error.kind() == io::ErrorKind::AddrInUse => {}
            result => result?,
        }
        self.register().await
    }

    async fn register(&self) -> Result<(TcpStream, u32), EpmdError> {
        let (stream, creation) = client::register(self.port, &self.node).await?;
        let _unsupported = socket2::SockRef::from(&stream).set_keepalive(true);
        Ok((stream, creation))
    }

    async fn serve(&self) -> Result<(), EpmdError> {
        let server = Server::start(self.port, &self.addresses, self.max_connections).await?;
        *self.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
        Ok(())
    }

    /// Starts the host's own `epmd`, as `erl` does, and waits until it listens.
    async fn start_daemon(&self) -> bool {
        let Some(epmd) = on_path("epmd") else { return false };
        let mut command = std::process::Command::new(&epmd);
        command.arg("-daemon").env("ERL_EPMD_PORT", self.port.to_string());
        if !self.addresses.is_empty() {
            // OTP's own listens on every interface unless told otherwise.
            let list: Vec<String> = self.addresses.iter().map(IpAddr::to_string).collect();
            command.env("ERL_EPMD_ADDRESS", list.join(","));
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // The daemon forks and its parent exits at once; waiting for that must not hold up the runtime.
        let started = tokio::task::spawn_blocking(move || command.status()).await;
        if !matches!(started, Ok(Ok(status)) if status.success()) {
            debug!(epmd = %epmd.display(), "cannot be started");
            return false;
        }
        let deadline = Instant::now() + DAEMON_START;
        while Instant::now() < deadline {
            if TcpStream::connect((client::LOCAL[0], self.port)).await.is_ok() {
                info!(epmd = %epmd.display(), port = self.port, "started the host's EPMD");
                return true;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        false
    }

    async fn keep(self, mut stream: Option<TcpStream>) {
        loop {
            if let Some(stream) = stream.take() {
                lost(stream).await;
                warn!(port = self.port, "lost the EPMD; this node stays up and registers again");
            }
            stream = Some(self.again().await);
        }
    }

    /// Tries until the name is registered.
    async fn again(&self) -> TcpStream {
        let since = Instant::now();
        let mut said = false;
        loop {
            match self.register().await {
                Ok((stream, _)) => {
                    info!(
                        port = self.port,
                        away_ms = since.elapsed().as_millis(),
                        "registered with the EPMD again"
                    );
                    return stream;
                }
                Err(EpmdError::Unreachable { .. })
                    if matches!(self.mode, EpmdMode::Auto | EpmdMode::Embedded)
                        && since.elapsed() >= TAKE_OVER_AFTER =>
                {
                    match self.serve().await {
                        // Registers with itself at once.
                        Ok(()) => continue,
                        Err(error) => debug!(%error, "not taking the EPMD's port over"),
                    }
                }
                Err(EpmdError::Unreachable { .. }) => {}
                Err(error) => {
                    if !said {
                        warn!(%error, "cannot register with the EPMD; trying on");
                        said = true;
                    }
                }
            }
            tokio::time::sleep(random::between(RETRY_LEAST, RETRY_MOST)).await;
        }
    }
}

/// Waits until the EPMD is gone. It never says anything on this connection, so any outcome of a read means that.
async fn lost(mut stream: TcpStream) {
    let mut byte = [0];
    let _ = stream.read(&mut byte).await;
}

fn on_path(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|directory| directory.join(program))
        .find(|path| path.is_file())
}

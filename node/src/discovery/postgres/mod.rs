//! Heartbeats through a PostgreSQL database: `LibclusterPostgres.Strategy` of libcluster_postgres.
//!
//! ```toml
//! [cluster]
//! strategy = "postgres"
//! url = { system = "DATABASE_URL" }      # or hostname, port, username, password, database
//! channel_name = "shop"
//! ```
//!
//! Each node listens to a channel (`LISTEN`) and tells it its name in each interval (`NOTIFY "channel", 'name@host'`), so that the
//! database is asked for nothing and knows nothing. The payload is the bare name; that of the other `libcluster_postgres`
//! (`Cluster.Strategy.Postgres`), `heartbeat::name@host`, is understood, and sent with `payload = "heartbeat"`.
//!
//! A node's own heartbeat comes back to it. That it does not is an error, as is a database that cannot be reached: what was known
//! then stands. A node that was not heard for six intervals is not named any more; the time without a database does not count.
//!
//! Whoever may connect to the database can name nodes, and so may as well choose their addresses.

mod socket;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use foundation_proto::dist::NodeName;
use serde::{Deserialize, Deserializer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::TlsConnect;
use tokio_postgres::{AsyncMessage, Client, Config, Connection, NoTls};

use self::socket::Secured;
use super::config::{Context, Secret, ms};
use super::http::system_authorities;
use super::polling::{back_off, pause};
use super::{Candidate, Reports, Running, SourceError, Strategy};

/// How long the database has to let this node in, and for one statement.
const WITHIN: Duration = Duration::from_secs(10);
/// How many intervals a node that is not heard any more is still named.
const KEPT: u32 = 6;
/// The most nodes that are remembered: the greatest `max_nodes`.
const MAX_HEARD: usize = 65_536;
/// Notifications that were read and not looked at yet.
const AHEAD: usize = 64;
/// PostgreSQL cuts longer identifiers.
const MAX_CHANNEL: usize = 63;
/// What the other libcluster_postgres puts before a name.
const PREFIX: &str = "heartbeat::";

/// The keys of this strategy: libcluster_postgres's, and more.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Options {
    /// `postgresql://USER:PASSWORD@HOST:PORT/DATABASE`. Default: `DATABASE_URL`, if neither `hostname` nor `socket_dir` is written.
    pub url: Option<Secret>,
    /// Where the database is. Default: `PGHOST`, else `localhost`.
    #[serde(alias = "host")]
    pub hostname: Option<String>,
    /// The port. Default: `PGPORT`, else 5432.
    pub port: Option<u16>,
    /// The user. Default: `PGUSER`, else `postgres`.
    #[serde(alias = "user")]
    pub username: Option<String>,
    /// The user's password. Default: `PGPASSWORD`.
    pub password: Option<Secret>,
    /// The database. Default: `PGDATABASE`, else that of the user's name.
    #[serde(alias = "dbname")]
    pub database: Option<String>,
    /// The directory of the database's Unix socket, instead of `hostname`.
    pub socket_dir: Option<PathBuf>,
    /// Whether to speak TLS. Its certificate is always checked. Default: what `sslmode=require` in `url` says, else not.
    pub ssl: Option<bool>,
    /// The file with the CAs of the database's certificate. Default: those of this system.
    pub cacert: Option<PathBuf>,
    /// The channel: the same on all nodes. `cluster`.
    #[serde(alias = "channel", deserialize_with = "channel")]
    pub channel_name: String,
    /// What a heartbeat is.
    pub payload: Payload,
    /// The pause between two heartbeats, in milliseconds. 5,000.
    #[serde(with = "ms")]
    pub heartbeat_interval: Duration,
}

/// What a heartbeat is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Payload {
    /// The node's name.
    #[default]
    Node,
    /// `heartbeat::` and the node's name.
    Heartbeat,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            url: None,
            hostname: None,
            port: None,
            username: None,
            password: None,
            database: None,
            socket_dir: None,
            ssl: None,
            cacert: None,
            channel_name: "cluster".to_owned(),
            payload: Payload::Node,
            heartbeat_interval: Duration::from_secs(5),
        }
    }
}

fn channel<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    match name.len() {
        1..=MAX_CHANNEL if !name.contains('\0') => Ok(name),
        _ => Err(serde::de::Error::custom(format!("channel_name must have 1 to {MAX_CHANNEL} bytes"))),
    }
}

/// The strategy.
#[derive(Debug)]
pub struct Postgres {
    options: Options,
    own: NodeName,
    /// Whether anybody can connect to this node; otherwise it only hears.
    listens: bool,
    database: Result<Database, String>,
}

/// Where the database is, and how to get in.
#[derive(Debug)]
struct Database {
    places: Vec<Place>,
    config: Config,
    /// With TLS: the file with the CAs.
    authorities: Option<PathBuf>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Place {
    Tcp(String, u16),
    Unix(PathBuf),
}

/// Who was heard, and when last.
#[derive(Debug)]
struct Heard {
    nodes: BTreeMap<NodeName, Instant>,
    since: Instant,
}

impl Postgres {
    /// The strategy for a node.
    pub fn new(options: Options, context: &Context) -> Self {
        Self {
            own: context.own.clone(),
            listens: !context.listens.is_empty(),
            database: Database::new(&options, |name| {
                std::env::var(name).ok().filter(|value| !value.is_empty())
            }),
            options,
        }
    }

    /// Listens until the database is lost.
    async fn session(
        &self,
        heard: &mut Heard,
        failures: &mut u32,
        reports: &Reports,
    ) -> Result<(), SourceError> {
        let database = self.database.as_ref().map_err(|why| SourceError::new(why.clone()))?;
        let mut last = SourceError::new("the database has no address");
        for place in &database.places {
            match self.at(database, place, heard, failures, reports).await {
                Ok(()) => return Ok(()),
                Err(error) => last = SourceError::new(format!("PostgreSQL at {place}: {error}")),
            }
        }
        Err(last)
    }

    async fn at(
        &self,
        database: &Database,
        place: &Place,
        heard: &mut Heard,
        failures: &mut u32,
        reports: &Reports,
    ) -> Result<(), String> {
        match (place, &database.authorities) {
            (Place::Tcp(host, port), authorities) => {
                let tcp = within(async {
                    let tcp = tokio::net::TcpStream::connect((host.as_str(), *port)).await;
                    tcp.map_err(|error| format!("cannot connect: {error}"))
                });
                let tcp = tcp.await?;
                match authorities {
                    None => self.enter(&database.config, tcp, NoTls, heard, failures, reports).await,
                    Some(authorities) => {
                        let tls = Secured { host: host.clone(), authorities: authorities.clone() };
                        self.enter(&database.config, tcp, tls, heard, failures, reports).await
                    }
                }
            }
            (Place::Unix(path), _) => {
                let socket = tokio::net::UnixStream::connect(path).await;
                let socket = socket.map_err(|error| format!("cannot connect: {error}"))?;
                // PostgreSQL speaks no TLS there.
                let mut config = database.config.clone();
                config.ssl_mode(SslMode::Disable);
                self.enter(&config, socket, NoTls, heard, failures, reports).await
            }
        }
    }

    async fn enter<S, T>(
        &self,
        config: &Config,
        socket: S,
        tls: T,
        heard: &mut Heard,
        failures: &mut u32,
        reports: &Reports,
    ) -> Result<(), String>
    where
        S: AsyncRead + AsyncWrite + Unpin,
        T: TlsConnect<S>,
    {
        let entered = within(async { config.connect_raw(socket, tls).await.map_err(|error| text(&error)) });
        let (client, connection) = entered.await?;
        let (sender, mut notifications) = mpsc::channel(AHEAD);
        // What was not heard before may have been said.
        let now = Instant::now();
        heard.since = now;
        heard.nodes.values_mut().for_each(|at| *at = now);
        tokio::select! {
            error = drive(connection, sender) => Err(error),
            error = self.beat(&client) => Err(error),
            error = self.hear(&mut notifications, heard, failures, reports) => Err(error),
        }
    }

    /// Says for ever that this node is there. What comes out is an error.
    async fn beat(&self, client: &Client) -> String {
        let listen = format!("LISTEN \"{}\"", self.options.channel_name.replace('"', "\"\""));
        let listening = within(async { client.batch_execute(&listen).await.map_err(|error| text(&error)) });
        if let Err(why) = listening.await {
            return why;
        }
        let heartbeat = match self.options.payload {
            Payload::Node => self.own.to_string(),
            Payload::Heartbeat => format!("{PREFIX}{}", self.own),
        };
        loop {
            if self.listens {
                let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 2] =
                    [&self.options.channel_name, &heartbeat];
                let notified = within(async {
                    let done = client.execute("SELECT pg_notify($1, $2)", &parameters).await;
                    done.map(|_| ()).map_err(|error| text(&error))
                });
                if let Err(why) = notified.await {
                    return why;
                }
            }
            pause(self.options.heartbeat_interval).await;
        }
    }

    /// Reports who is heard. What comes out is an error.
    async fn hear(
        &self,
        notifications: &mut mpsc::Receiver<String>,
        heard: &mut Heard,
        failures: &mut u32,
        reports: &Reports,
    ) -> String {
        let interval = self.options.heartbeat_interval;
        // The database may be slow, and the pause is given or taken a tenth.
        let echo = interval * 2 + WITHIN;
        let mut echoed = Instant::now();
        loop {
            let payload = match self.listens {
                true => tokio::time::timeout_at(echoed + echo, notifications.recv()).await,
                false => Ok(notifications.recv().await),
            };
            let payload = match payload {
                Ok(Some(payload)) => payload,
                Ok(None) => return "the connection has ended".to_owned(),
                Err(_) => {
                    return "this node does not hear itself; LISTEN needs a connection to the database itself, not to a \
                            pooler that shares connections between transactions"
                        .to_owned();
                }
            };
            let name = payload.strip_prefix(PREFIX).unwrap_or(&payload);
            let Ok(node) = NodeName::parse(name) else { continue };
            *failures = 0;
            if node != self.own {
                if heard.nodes.len() < MAX_HEARD || heard.nodes.contains_key(&node) {
                    heard.nodes.insert(node.clone(), Instant::now());
                }
                reports.seen(self.candidate(node)).await;
                continue;
            }
            echoed = Instant::now();
            let kept = interval * KEPT;
            heard.nodes.retain(|_, at| at.elapsed() < kept);
            // Before that somebody may not have had his turn.
            if heard.since.elapsed() >= kept {
                reports.found(heard.nodes.keys().cloned().map(|node| self.candidate(node)).collect()).await;
            }
        }
    }

    fn candidate(&self, node: NodeName) -> Candidate {
        Candidate::new(node, format!("heartbeat on the channel {}", self.options.channel_name))
    }
}

impl Strategy for Postgres {
    fn run(self: Arc<Self>, reports: Reports) -> Running {
        Box::pin(async move {
            let mut heard = Heard { nodes: BTreeMap::new(), since: Instant::now() };
            let mut failures = 0;
            loop {
                if let Err(error) = self.session(&mut heard, &mut failures, &reports).await {
                    reports.failed(error).await;
                }
                pause(back_off(self.options.heartbeat_interval.min(Duration::from_secs(1)), &mut failures))
                    .await;
            }
        })
    }
}

/// Carries the bytes of a connection; notifications go to `sender`. What comes out is an error.
async fn drive<S, T>(mut connection: Connection<S, T>, sender: mpsc::Sender<String>) -> String
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match poll_fn(|cx| connection.poll_message(cx)).await {
            Some(Ok(AsyncMessage::Notification(notification))) => {
                if sender.send(notification.payload().to_owned()).await.is_err() {
                    return "nobody listens".to_owned();
                }
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return text(&error),
            None => return "the database has ended the connection".to_owned(),
        }
    }
}

async fn within<T>(question: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    timeout(WITHIN, question).await.unwrap_or_else(|_| Err(format!("no answer within {WITHIN:?}")))
}

/// An error with what is behind it.
fn text(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return format!("{} ({})", error.message(), error.code().code());
    }
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

impl Database {
    fn new(options: &Options, variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let is_placed = options.hostname.is_some() || options.socket_dir.is_some();
        let url = match (&options.url, is_placed) {
            (Some(_), true) => return Err("write url, or hostname or socket_dir, not both".to_owned()),
            (Some(url), false) => Some(String::from_utf8_lossy(url.as_bytes()).into_owned()),
            (None, true) => None,
            (None, false) => variable("DATABASE_URL"),
        };
        let mut config = match &url {
            None => Config::new(),
            // Ecto's scheme. The error is not shown: it may have a part of the password.
            Some(url) => url.replacen("ecto://", "postgresql://", 1).parse().map_err(|_| {
                "the URL of the database cannot be read: write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, other characters \
                 than letters and digits as %XX; of sslmode there are disable, prefer and require"
                    .to_owned()
            })?,
        };
        let port = options.port.or_else(|| variable("PGPORT")?.parse().ok());
        let socket =
            |directory: &std::path::Path, port: u16| Place::Unix(directory.join(format!(".s.PGSQL.{port}")));
        let ports = config.get_ports();
        let ports = ports.to_vec();
        let port_of = |at: usize| ports.get(at).or(ports.first()).copied().or(port).unwrap_or(5432);
        let mut places: Vec<Place> = config
            .get_hosts()
            .iter()
            .enumerate()
            .map(|(at, host)| match host {
                Host::Tcp(host) => Place::Tcp(host.clone(), port_of(at)),
                Host::Unix(directory) => socket(directory, port_of(at)),
            })
            .collect();
        if places.is_empty() {
            let host = options.hostname.clone().or_else(|| variable("PGHOST"));
            let host = host.unwrap_or_else(|| "localhost".to_owned());
            places.push(match &options.socket_dir {
                Some(directory) => socket(directory, port_of(0)),
                None if host.starts_with('/') => socket(std::path::Path::new(&host), port_of(0)),
                None => Place::Tcp(host, port_of(0)),
            });
        }
        if let Some(user) = options.username.clone().or_else(|| {
            if config.get_user().is_some() {
                None
            } else {
                variable("PGUSER").or(Some("postgres".to_owned()))
            }
        }) {
            config.user(user);
        }
        match &options.password {
            Some(password) => {
                config.password(password.as_bytes());
            }
            None if config.get_password().is_none() => {
                variable("PGPASSWORD").iter().for_each(|password| {
                    config.password(password);
                });
            }
            None => {}
        }
        let database = options.database.clone();
        if let Some(name) =
            database.or_else(|| config.get_dbname().is_none().then(|| variable("PGDATABASE"))?)
        {
            config.dbname(name);
        }
        let tls = options.ssl.unwrap_or(config.get_ssl_mode() == SslMode::Require);
        config.ssl_mode(if tls { SslMode::Require } else { SslMode::Disable });
        if config.get_application_name().is_none() {
            config.application_name("foundation");
        }
        let authorities = match tls {
            false => None,
            true => Some(options.cacert.clone().map_or_else(system_authorities, Ok)?),
        };
        Ok(Self { places, config, authorities })
    }
}

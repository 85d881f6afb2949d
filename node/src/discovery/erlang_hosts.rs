//! The nodes of the hosts in `.hosts.erlang`: `Cluster.Strategy.ErlangHosts` of libcluster, `net_adm:world/0` of OTP.
//!
//! ```toml
//! [cluster]
//! strategy = "erlang_hosts"
//! ```
//!
//! The file has one Erlang atom and a full stop per host (`'host.example.com'.`), `%` begins a comment. It is looked for in
//! the current directory, in `$HOME`, and in `$XDG_CONFIG_HOME/erlang`; the first that exists is read, anew each time. The EPMDs of the
//! hosts are asked side by side. A host that does not answer costs nobody else his place: its nodes are kept as they were
//! until it answers again.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use tokio::task::JoinSet;
use tracing::debug;

use super::config::{Context, ms};
use super::local_epmd::names_at;
use super::{Candidate, Poll, SourceError};
use crate::names;

/// How long one host has to answer.
const PER_HOST: Duration = Duration::from_secs(5);
/// More hosts than anybody writes into such a file.
const MAX_HOSTS: usize = 1024;

/// The keys of this strategy.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Options {
    /// The file. Default: the first of those above that exists.
    pub file: Option<PathBuf>,
    /// The pause between two questions, in milliseconds (libcluster's `timeout`). 5,000.
    #[serde(alias = "timeout", with = "ms")]
    pub polling_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { file: None, polling_interval: Duration::from_secs(5) }
    }
}

/// The strategy.
#[derive(Debug)]
pub struct ErlangHosts {
    options: Options,
    epmd_port: u16,
    /// What each host said when it last answered.
    last: Mutex<BTreeMap<String, Vec<Candidate>>>,
}

impl ErlangHosts {
    /// The strategy for a node.
    pub fn new(options: Options, context: &Context) -> Self {
        Self { options, epmd_port: context.epmd_port, last: Mutex::default() }
    }
}

impl Poll for ErlangHosts {
    fn interval(&self) -> Duration {
        self.options.polling_interval
    }

    async fn poll(&self) -> Result<Vec<Candidate>, SourceError> {
        let file = match &self.options.file {
            Some(file) => file.clone(),
            None => find().ok_or_else(|| {
                SourceError::new(
                    "there is no .hosts.erlang in the current directory, in $HOME or in $XDG_CONFIG_HOME/erlang; \
                     write one ('host.example.com'. on each line), or say where it is (file)",
                )
            })?,
        };
        let text = std::fs::read_to_string(&file)
            .map_err(|error| SourceError::new(format!("cannot read {}: {error}", file.display())))?;
        let hosts = parse(&text).map_err(|why| SourceError::new(format!("{}:{why}", file.display())))?;
        let mut asked = JoinSet::new();
        for host in &hosts {
            asked.spawn(ask(host.clone(), self.epmd_port));
        }
        let mut answers = Vec::new();
        while let Some(done) = asked.join_next().await {
            answers.extend(done.ok());
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.retain(|host, _| hosts.contains(host));
        let mut failure = None;
        for (host, answer) in answers {
            match answer {
                Ok(candidates) => {
                    last.insert(host, candidates);
                }
                Err(error) => {
                    debug!(host, error, "no answer from this host");
                    failure = failure.or(Some(format!("{host}: {error}")));
                }
            }
        }
        match failure {
            Some(failure) if last.is_empty() => Err(SourceError::new(format!("no host answers; {failure}"))),
            _ => Ok(last.values().flatten().cloned().collect()),
        }
    }
}

async fn ask(host: String, port: u16) -> (String, Result<Vec<Candidate>, String>) {
    let answer = tokio::time::timeout(PER_HOST, async {
        let mut failure = "it has no address".to_owned();
        for ip in names::resolve(&host).await.map_err(|error| error.to_string())? {
            match names_at(ip, port, &host).await {
                Ok(candidates) => return Ok(candidates),
                Err(error) => failure = error.to_string(),
            }
        }
        Err(failure)
    })
    .await;
    (host, answer.unwrap_or_else(|_| Err(format!("no answer within {PER_HOST:?}"))))
}

/// The file that OTP would read.
pub(super) fn find() -> Option<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    let xdg = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let xdg = xdg.or_else(|| home.as_ref().map(|home| home.join(".config"))).map(|dir| dir.join("erlang"));
    [Some(PathBuf::from(".")), home, xdg]
        .into_iter()
        .flatten()
        .map(|dir| dir.join(".hosts.erlang"))
        .find(|file| Path::is_file(file))
}

/// The hosts of a file; an error begins with the line.
fn parse(text: &str) -> Result<Vec<String>, String> {
    let mut hosts = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('%').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let wrong =
            || format!("{}: {line:?} is no host; write 'host.example.com'. with the full stop", index + 1);
        let term = line.strip_suffix('.').ok_or_else(wrong)?.trim_end();
        let host = match term.strip_prefix('\'') {
            Some(quoted) => quoted.strip_suffix('\'').ok_or_else(wrong)?,
            None if term.starts_with(|c: char| c.is_ascii_lowercase()) && !term.contains('.') => term,
            None => return Err(wrong()),
        };
        if host.is_empty() || host.contains(['\'', '@']) || host.contains(char::is_whitespace) {
            return Err(wrong());
        }
        if hosts.len() == MAX_HOSTS {
            return Err(format!("{}: more than {MAX_HOSTS} hosts", index + 1));
        }
        hosts.push(host.to_owned());
    }
    Ok(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_as_otp_reads_it() {
        let text = "% hosts\n'a.example.com'.\n  b . % short\n\n'10.0.0.1'.\n";
        assert_eq!(parse(text).unwrap(), ["a.example.com", "b", "10.0.0.1"]);
        for (bad, line) in [("a", "1:"), ("'a'", "1:"), ("b.\nA.b.c.", "2:"), ("'a b'.", "1:"), ("''.", "1:")]
        {
            assert!(parse(bad).unwrap_err().starts_with(line), "{bad}");
        }
    }
}

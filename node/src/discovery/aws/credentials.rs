//! What requests to AWS are signed with, and where it comes from.
//!
//! | in this order | how it shows |
//! |---|---|
//! | the environment | `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`, with `AWS_SESSION_TOKEN` |
//! | the role of the ECS task, of the EKS pod | `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`, `AWS_CONTAINER_CREDENTIALS_FULL_URI` |
//! | the role of the EC2 instance | its metadata service answers |
//!
//! Those of a role end, and are asked for anew five minutes before. While that fails, the old ones are used to their end.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use hyper::StatusCode;
use serde::Deserialize;
use tokio::sync::Mutex;
use tracing::debug;

use super::date;
use super::metadata::Metadata;
use crate::discovery::SourceError;
use crate::discovery::config::Secret;
use crate::discovery::http::{Question, Server};

/// How long before their end credentials are asked for anew. AWS has new ones five minutes before, at the latest.
const EARLY: Duration = Duration::from_secs(300);
/// How long the endpoint of a container has for an answer.
const WITHIN: Duration = Duration::from_secs(5);
/// The addresses that credentials may be asked of without TLS: of ECS and of EKS, as AWS's own clients have it.
const PLAIN: [&str; 3] = ["169.254.170.2", "169.254.170.23", "fd00:ec2::23"];

/// What a request is signed with.
#[derive(Clone, Debug)]
pub(super) struct Credentials {
    pub(super) access_key_id: String,
    pub(super) secret_access_key: Secret,
    pub(super) session_token: Option<Secret>,
}

/// Where credentials come from.
#[derive(Debug)]
enum Origin {
    Environment(Credentials),
    Container {
        server: Server,
        path: String,
        token: Token,
    },
    /// The configuration of the container's endpoint is wrong.
    Wrong(String),
    Instance,
}

/// What the endpoint of a container wants to see.
#[derive(Debug)]
enum Token {
    None,
    Written(Secret),
    File(PathBuf),
}

/// Gives credentials, which it keeps for as long as they are good.
#[derive(Debug)]
pub(super) struct Provider {
    origin: Origin,
    kept: Mutex<Option<(Credentials, SystemTime)>>,
}

/// What ECS, EKS and the metadata service of an instance answer with.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answered {
    access_key_id: String,
    secret_access_key: Secret,
    token: Option<Secret>,
    expiration: Option<String>,
}

impl Provider {
    /// As AWS's own clients look for them.
    pub(super) fn new(variable: impl Fn(&str) -> Option<String>) -> Self {
        Self { origin: origin(variable), kept: Mutex::default() }
    }

    /// What to sign with now.
    pub(super) async fn get(&self, metadata: &Metadata) -> Result<Credentials, SourceError> {
        if let Origin::Environment(credentials) = &self.origin {
            return Ok(credentials.clone());
        }
        let mut kept = self.kept.lock().await;
        let now = SystemTime::now();
        let ends_within = |ends: &SystemTime, ahead: Duration| *ends <= now + ahead;
        if let Some((credentials, _)) = kept.as_ref().filter(|(_, ends)| !ends_within(ends, EARLY)) {
            return Ok(credentials.clone());
        }
        match self.ask(metadata).await {
            Ok(answered) => {
                let credentials = Credentials {
                    access_key_id: answered.access_key_id,
                    secret_access_key: answered.secret_access_key,
                    session_token: answered.token,
                };
                // Without an end they are asked for each time.
                *kept = answered
                    .expiration
                    .and_then(|text| date::extended(&text))
                    .map(|ends| (credentials.clone(), ends));
                Ok(credentials)
            }
            Err(error) => match kept.as_ref().filter(|(_, ends)| !ends_within(ends, Duration::ZERO)) {
                Some((credentials, _)) => {
                    debug!(%error, "no new credentials; the old ones are still good");
                    Ok(credentials.clone())
                }
                None => Err(error),
            },
        }
    }

    /// Those that were given are not accepted.
    pub(super) async fn forget(&self) {
        *self.kept.lock().await = None;
    }

    /// Where they come from, for people.
    pub(super) fn described(&self) -> &'static str {
        match self.origin {
            Origin::Environment(_) => "AWS_ACCESS_KEY_ID",
            Origin::Container { .. } | Origin::Wrong(_) => "the role of the container",
            Origin::Instance => "the role of the instance",
        }
    }

    async fn ask(&self, metadata: &Metadata) -> Result<Answered, SourceError> {
        match &self.origin {
            Origin::Wrong(why) => Err(SourceError::new(why.clone())),
            Origin::Container { server, path, token } => {
                let mut question = Question::get(path.as_str());
                let token = match token {
                    Token::None => None,
                    Token::Written(token) => Some(String::from_utf8_lossy(token.as_bytes()).into_owned()),
                    Token::File(file) => Some(std::fs::read_to_string(file).map_err(|error| {
                        SourceError::new(format!("cannot read {}: {error}", file.display()))
                    })?),
                };
                if let Some(token) = token {
                    question = question.header("authorization", token.trim());
                }
                let answer = server.ask(question, WITHIN).await?;
                if answer.status != StatusCode::OK {
                    let said = answer.message(WITHIN).await;
                    return Err(SourceError::new(format!("no credentials for this container: {said}")));
                }
                read(&answer.bytes(WITHIN).await?)
            }
            Origin::Environment(_) | Origin::Instance => {
                let none = |error: SourceError| {
                    SourceError::new(format!(
                        "no credentials for AWS: {error}; give the instance or the task a role, or set AWS_ACCESS_KEY_ID \
                         and AWS_SECRET_ACCESS_KEY"
                    ))
                };
                let directory = "/latest/meta-data/iam/security-credentials/";
                let roles = metadata.get(directory).await.map_err(none)?;
                let role = roles.lines().next().unwrap_or_default().trim();
                let is_name = |c: char| c.is_ascii_alphanumeric() || "+=,.@_-".contains(c);
                if role.is_empty() || !role.chars().all(is_name) {
                    return Err(none(SourceError::new("the instance has no role")));
                }
                let answer = metadata.get(&format!("{directory}{role}")).await.map_err(none)?;
                read(answer.as_bytes()).map_err(none)
            }
        }
    }
}

/// The error does not show what was answered, which may have secrets.
fn read(answer: &[u8]) -> Result<Answered, SourceError> {
    serde_json::from_slice(answer)
        .map_err(|_| SourceError::new("the answer has no AccessKeyId and SecretAccessKey"))
}

fn origin(variable: impl Fn(&str) -> Option<String>) -> Origin {
    if let (Some(id), Some(key)) = (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")) {
        return Origin::Environment(Credentials {
            access_key_id: id,
            secret_access_key: Secret::new(key),
            session_token: variable("AWS_SESSION_TOKEN").map(Secret::new),
        });
    }
    let full = variable("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    let url = match variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI") {
        Some(path) => format!("http://{}/{}", PLAIN[0], path.trim_start_matches('/')),
        None => match full {
            Some(url) => url,
            None => return Origin::Instance,
        },
    };
    let (server, path) = match Server::of_url(&url, false, None) {
        Ok(found) => found,
        Err(why) => return Origin::Wrong(format!("AWS_CONTAINER_CREDENTIALS_FULL_URI: {why}")),
    };
    let address = server.host.parse::<IpAddr>().ok();
    let known = PLAIN.iter().any(|known| known.parse().ok() == address);
    if server.authorities.is_none() && !(known || address.is_some_and(|address| address.is_loopback())) {
        return Origin::Wrong(format!(
            "AWS_CONTAINER_CREDENTIALS_FULL_URI: without https credentials are asked of {} and of this host only",
            PLAIN.join(", ")
        ));
    }
    let file = variable("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").map(|file| Token::File(file.into()));
    let written =
        || variable("AWS_CONTAINER_AUTHORIZATION_TOKEN").map(|token| Token::Written(Secret::new(token)));
    Origin::Container { server, path, token: file.or_else(written).unwrap_or(Token::None) }
}

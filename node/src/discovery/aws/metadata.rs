//! The metadata service of an EC2 instance, version 2: each question carries a token that was asked for before.
//! <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html>
//!
//! Version 1, without a token, is not used: whoever can make a server fetch an address could read credentials with it.

use std::time::Duration;

use hyper::StatusCode;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::discovery::SourceError;
use crate::discovery::http::{Question, Server};

/// How long an answer may take: it comes from the machine itself. Elsewhere nothing answers.
const WITHIN: Duration = Duration::from_secs(2);
/// For how long a token is asked for: the longest that there is.
const LIFETIME: Duration = Duration::from_secs(21_600);
/// When a token is asked for anew.
const RENEWED: Duration = Duration::from_secs(21_000);

/// The service.
#[derive(Debug)]
pub(super) struct Metadata {
    server: Result<Server, String>,
    token: Mutex<Option<(String, Instant)>>,
}

impl Metadata {
    /// As AWS's own clients find it.
    pub(super) fn new(variable: impl Fn(&str) -> Option<String>) -> Self {
        let ipv6 = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE")
            .is_some_and(|mode| mode.eq_ignore_ascii_case("ipv6"));
        let usual = if ipv6 { "http://[fd00:ec2::254]" } else { "http://169.254.169.254" };
        let written = variable("AWS_EC2_METADATA_SERVICE_ENDPOINT");
        let off = variable("AWS_EC2_METADATA_DISABLED").is_some_and(|off| off.eq_ignore_ascii_case("true"));
        let server = match off {
            true => Err("AWS_EC2_METADATA_DISABLED is true".to_owned()),
            false => {
                Server::of_url(written.as_deref().unwrap_or(usual), false, None).map(|(server, _)| server)
            }
        };
        Self { server, token: Mutex::default() }
    }

    /// What it says under `path`.
    pub(super) async fn get(&self, path: &str) -> Result<String, SourceError> {
        let server = self.server.as_ref().map_err(|why| SourceError::new(why.clone()))?;
        let mut token = self.token.lock().await;
        let mut renewed = false;
        loop {
            let known = token.as_ref().filter(|(_, since)| since.elapsed() < RENEWED).map(|(token, _)| token);
            let current = match known {
                Some(known) => known.clone(),
                None => {
                    renewed = true;
                    let since = Instant::now();
                    let new = ask_token(server).await?;
                    *token = Some((new.clone(), since));
                    new
                }
            };
            let question = Question::get(path).header("x-aws-ec2-metadata-token", current);
            let answer = server.ask(question, WITHIN).await?;
            match answer.status {
                StatusCode::OK => return text(answer.bytes(WITHIN).await?.to_vec()),
                // The token is not known any more.
                StatusCode::UNAUTHORIZED if !renewed => *token = None,
                _ => return Err(SourceError::new(format!("{path} of {}", answer.message(WITHIN).await))),
            }
        }
    }
}

async fn ask_token(server: &Server) -> Result<String, SourceError> {
    let question = Question::put("/latest/api/token")
        .header("x-aws-ec2-metadata-token-ttl-seconds", LIFETIME.as_secs().to_string());
    let answer = server.ask(question, WITHIN).await.map_err(|error| {
        SourceError::new(format!(
            "the metadata service of the instance gives no token: {error}; in a container the instance must have \
             HttpPutResponseHopLimit 2 or more"
        ))
    })?;
    match answer.status {
        StatusCode::OK => text(answer.bytes(WITHIN).await?.to_vec()),
        _ => {
            let said = answer.message(WITHIN).await;
            Err(SourceError::new(format!("the metadata service of the instance gives no token: {said}")))
        }
    }
}

fn text(bytes: Vec<u8>) -> Result<String, SourceError> {
    let text = String::from_utf8(bytes)
        .map_err(|_| SourceError::new("the metadata service of the instance answers with what is no text"))?;
    Ok(text.trim().to_owned())
}

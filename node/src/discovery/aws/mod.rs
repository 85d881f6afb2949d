//! Asking AWS: [`ec2`] for instances by their tags, [`ecs`] for tasks of a service.
//!
//! Requests are signed ([Signature Version 4](https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html)) with the
//! credentials of the environment, of the task, or of the instance, which are asked for by version 2 of the metadata service
//! and renewed before they end. Whatever is no complete answer (no credentials, 4xx, 5xx, a throttled request, a page that is
//! missing) is an error, and changes nothing.

mod credentials;
mod date;
pub mod ec2;
pub mod ecs;
mod metadata;
mod sigv4;
#[cfg(test)]
mod tests;

use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use hyper::StatusCode;
use serde::{Deserialize, Deserializer};
use tokio::sync::OnceCell;

use self::credentials::Provider;
use self::metadata::Metadata;
use super::SourceError;
use super::http::{Answer, Question, Server};

/// The most pages of one list. With the greatest lists there are that is more than a source may name.
const MAX_PAGES: usize = 1000;
/// The most machines that one answer may have: the greatest `max_nodes`.
const MAX_MACHINES: usize = 65_536;

/// A service of AWS in one region.
#[derive(Debug)]
struct Api {
    /// Its name in addresses and signatures.
    service: &'static str,
    /// What a role needs to be allowed, for errors.
    actions: &'static str,
    written_region: Option<String>,
    region: OnceCell<String>,
    endpoint: Option<String>,
    provider: Provider,
    metadata: Metadata,
    within: Duration,
}

impl Api {
    fn new(
        service: &'static str,
        actions: &'static str,
        region: Option<&str>,
        endpoint: Option<&str>,
        within: Duration,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let own_endpoint = format!("AWS_ENDPOINT_URL_{}", service.to_uppercase());
        let region = region.map(str::to_owned).or_else(|| variable("AWS_REGION"));
        let endpoint = endpoint.map(str::to_owned).or_else(|| variable(&own_endpoint));
        Self {
            service,
            actions,
            written_region: region.or_else(|| variable("AWS_DEFAULT_REGION")),
            region: OnceCell::new(),
            endpoint: endpoint.or_else(|| variable("AWS_ENDPOINT_URL")),
            provider: Provider::new(&variable),
            metadata: Metadata::new(&variable),
            within,
        }
    }

    /// The region: written, else that of the metadata.
    async fn region(&self) -> Result<&str, SourceError> {
        if let Some(region) = &self.written_region {
            return Ok(region);
        }
        let ask = || async {
            self.metadata.get("/latest/meta-data/placement/region").await.map_err(|error| {
                SourceError::new(format!(
                    "which region to ask is not known: {error}; set `region`, or AWS_REGION"
                ))
            })
        };
        self.region.get_or_try_init(ask).await.map(String::as_str)
    }

    fn server(&self, region: &str) -> Result<Server, SourceError> {
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if region.is_empty() || !region.chars().all(is_name) {
            return Err(SourceError::new(format!("{region:?} is no region of AWS")));
        }
        let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        let usual = || format!("https://{}.{region}.{domain}", self.service);
        let url = self.endpoint.clone().unwrap_or_else(usual);
        let (server, path) = Server::of_url(&url, true, None).map_err(SourceError::new)?;
        match path.as_str() {
            "/" => Ok(server),
            _ => Err(SourceError::new(format!("{url:?} has a path, which an endpoint of AWS has not"))),
        }
    }

    /// The body of the answer to one signed request.
    async fn ask(
        &self,
        kind: &'static str,
        target: Option<&str>,
        body: String,
    ) -> Result<BytesMut, SourceError> {
        let region = self.region().await?;
        let server = self.server(region)?;
        let credentials = self.provider.get(&self.metadata).await?;
        let date = date::basic(SystemTime::now());
        let host = server.authority();
        let token = credentials.session_token.as_ref();
        let token = token.map(|token| String::from_utf8_lossy(token.as_bytes()).into_owned());
        let mut headers = vec![("content-type", kind), ("host", &host), ("x-amz-date", &date)];
        headers.extend(token.as_deref().map(|token| ("x-amz-security-token", token)));
        headers.extend(target.map(|target| ("x-amz-target", target)));
        let scope = sigv4::Scope {
            access_key_id: &credentials.access_key_id,
            secret_access_key: credentials.secret_access_key.as_bytes(),
            region,
            service: self.service,
        };
        let signed = sigv4::Signed { method: "POST", path: "/", headers: &headers, body: body.as_bytes() };
        let authorization = sigv4::authorization(scope, &date, signed);
        let mut question = Question::post("/").header("x-amz-date", date.as_str());
        if let Some(token) = &token {
            question = question.header("x-amz-security-token", token);
        }
        if let Some(target) = target {
            question = question.header("x-amz-target", target);
        }
        let question = question.header("authorization", authorization).body_of(kind, body);
        let answer = server.ask(question, self.within).await?;
        match answer.status {
            StatusCode::OK => answer.bytes(self.within).await,
            _ => Err(self.refusal(answer).await),
        }
    }

    /// What a status means that is no answer, and what to do.
    async fn refusal(&self, mut answer: Answer) -> SourceError {
        let body = answer.error_body(self.within).await;
        let said = said(&body);
        let advice = match said.as_ref().map_or("", |(code, _)| code.as_str()) {
            "AuthFailure"
            | "UnrecognizedClientException"
            | "InvalidClientTokenId"
            | "SignatureDoesNotMatch"
            | "InvalidSignatureException"
            | "IncompleteSignature"
            | "ExpiredToken"
            | "ExpiredTokenException"
            | "RequestExpired"
            | "InvalidAccessKeyId" => {
                self.provider.forget().await;
                format!(
                    "; the credentials (of {}) are not accepted, or the clock of this machine is wrong",
                    self.provider.described()
                )
            }
            "UnauthorizedOperation" | "AccessDenied" | "AccessDeniedException" => {
                format!("; {} must be allowed {}", self.provider.described(), self.actions)
            }
            "RequestLimitExceeded" | "Throttling" | "ThrottlingException" | "TooManyRequestsException" => {
                "; AWS is asked too often: raise polling_interval".to_owned()
            }
            _ => String::new(),
        };
        let words = match said {
            Some((code, message)) if message.is_empty() => code,
            Some((code, message)) => format!("{code}: {message}"),
            None => String::from_utf8_lossy(&body).into_owned(),
        };
        SourceError::new(format!("{}{advice}", answer.says(&words)))
    }
}

/// Code and message of an error: XML from EC2, JSON from ECS.
fn said(body: &[u8]) -> Option<(String, String)> {
    #[derive(Deserialize)]
    struct Json {
        #[serde(rename = "__type")]
        kind: String,
        #[serde(default, alias = "Message")]
        message: String,
    }
    if let Ok(Json { kind, message }) = serde_json::from_slice::<Json>(body) {
        // `com.amazonaws.ecs#AccessDeniedException`
        let code = kind.rsplit('#').next().unwrap_or_default().to_owned();
        return Some((code, message));
    }
    let text = std::str::from_utf8(body).ok()?;
    let document = xml(text).ok()?;
    let error = document.descendants().find(|node| node.has_tag_name("Error"))?;
    let part = |name| error.children().find(|node| node.has_tag_name(name)).and_then(|node| node.text());
    Some((part("Code")?.to_owned(), part("Message").unwrap_or_default().to_owned()))
}

/// The most nodes of an XML document: a page of 1,000 instances has some 200,000.
const MAX_XML_NODES: u32 = 2_000_000;

fn xml(text: &str) -> Result<roxmltree::Document<'_>, roxmltree::Error> {
    let options = roxmltree::ParsingOptions { nodes_limit: MAX_XML_NODES, ..Default::default() };
    roxmltree::Document::parse_with_options(text, options)
}

/// Whether this process runs in a task of ECS.
pub(super) fn is_task() -> bool {
    variable("ECS_CONTAINER_METADATA_URI_V4").is_some()
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// libcluster's strategies take a function here.
fn no_function<'de, D: Deserializer<'de>>(deserializer: D) -> Result<(), D::Error> {
    serde::de::IgnoredAny::deserialize(deserializer)?;
    Err(serde::de::Error::custom("ip_to_nodename is not offered: say in `node_name` how nodes are called"))
}

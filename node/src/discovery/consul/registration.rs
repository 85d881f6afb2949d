//! This node as an instance of the service.

use std::net::SocketAddr;
use std::time::Duration;

use hyper::StatusCode;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::Mutex;
use tracing::{debug, info, warn};

use super::{Api, Options, WITHIN, refusal};
use crate::discovery::SourceError;
use crate::discovery::config::Context;
use crate::discovery::http::{Question, encode};
use crate::discovery::polling::pause;

/// How long a node that is being stopped waits for Consul to take it off the list.
const WITHDRAWAL: Duration = Duration::from_secs(1);
/// A shorter one would keep both sides busy.
const LEAST_TTL: Duration = Duration::from_secs(1);
/// How often Consul tries a connection, and looks at one that it has made.
const TCP_INTERVAL: &str = "10s";
const TCP_TIMEOUT: &str = "2s";
/// After how long Consul forgets an instance whose check fails; the least that it takes.
const FORGET: &str = "1m";

/// How Consul checks a node.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Check {
    /// The node says three times in each `ttl` that it is alive.
    Ttl,
    /// Consul connects to the port that the node listens on.
    Tcp,
    /// Not at all: only the node itself takes its instance away.
    None,
}

/// What this node says about itself.
#[derive(Debug)]
pub(super) struct Registration {
    id: String,
    body: String,
    check: Check,
    /// The pause between two signs of life.
    beat: Duration,
    /// Whether Consul knows it. Held while Consul is told.
    registered: Mutex<bool>,
}

impl Registration {
    pub(super) fn new(service: &str, options: &Options, context: &Context) -> Self {
        let id = context.own.to_string();
        let dist = context.listens.first().map(SocketAddr::port);
        let port = if context.uses_epmd { Some(context.epmd_port) } else { dist };
        let mut meta = json!({ "node": id });
        if let Some(dist) = dist {
            meta["dist_port"] = json!(dist.to_string());
        }
        let host = context.own.host();
        let mut body = json!({
            "ID": id, "Name": service, "Tags": options.tags, "Address": host, "Port": port.unwrap_or(0), "Meta": meta,
        });
        let check = match (options.check, dist) {
            // Without a port there is nothing to connect to.
            (Check::Tcp, None) => Check::Ttl,
            (check, _) => check,
        };
        let more = match (check, dist) {
            (Check::Tcp, Some(dist)) => {
                let address =
                    if host.contains(':') { format!("[{host}]:{dist}") } else { format!("{host}:{dist}") };
                Some(json!({ "TCP": address, "Interval": TCP_INTERVAL, "Timeout": TCP_TIMEOUT }))
            }
            (Check::None, _) => None,
            _ => Some(json!({ "TTL": format!("{}ms", options.ttl.max(LEAST_TTL).as_millis()) })),
        };
        if let Some(mut check) = more {
            check["CheckID"] = json!(format!("service:{id}"));
            check["Status"] = json!("passing");
            check["DeregisterCriticalServiceAfter"] = json!(FORGET);
            body["Check"] = check;
        }
        let (body, beat) = (body.to_string(), options.ttl.max(LEAST_TTL) / 3);
        Self { id, body, check, beat, registered: Mutex::new(false) }
    }

    /// Registers, and stays registered, for ever.
    pub(super) async fn keep(&self, api: &Api) {
        let mut failing = false;
        loop {
            match self.tell(api).await {
                Ok(()) => failing = false,
                Err(why) if failing => debug!(%why, "not registered"),
                Err(why) => {
                    failing = true;
                    warn!(%why, "this node is not registered with Consul, so that others do not find it there");
                }
            }
            pause(self.beat).await;
        }
    }

    /// One sign of life. Whoever Consul does not know (any more) is registered.
    async fn tell(&self, api: &Api) -> Result<(), SourceError> {
        let mut registered = self.registered.lock().await;
        if *registered {
            let known = match self.check {
                Check::Ttl => {
                    Question::put(format!("/v1/agent/check/pass/{}", encode(&format!("service:{}", self.id))))
                }
                Check::Tcp | Check::None => Question::get(format!("/v1/agent/service/{}", encode(&self.id))),
            };
            let answer = api.server.ask(api.authorized(known)?, WITHIN).await?;
            match answer.status {
                StatusCode::OK => return Ok(()),
                // What an agent that was started anew says: 404, or 500 before Consul 1.10.
                StatusCode::NOT_FOUND | StatusCode::INTERNAL_SERVER_ERROR => {}
                _ => return Err(refusal(answer).await),
            }
        }
        *registered = false;
        let question =
            Question::put("/v1/agent/service/register?replace-existing-checks=true").body(self.body.clone());
        let answer = api.server.ask(api.authorized(question)?, WITHIN).await?;
        if answer.status != StatusCode::OK {
            return Err(refusal(answer).await);
        }
        *registered = true;
        info!(id = self.id, "registered with Consul");
        Ok(())
    }

    /// Takes this node off the list.
    pub(super) async fn withdraw(&self, api: &Api) {
        let mut registered = self.registered.lock().await;
        if !std::mem::take(&mut *registered) {
            return;
        }
        let question = Question::put(format!("/v1/agent/service/deregister/{}", encode(&self.id)));
        let answer = match api.authorized(question) {
            Ok(question) => api.server.ask(question, WITHDRAWAL).await,
            Err(error) => Err(error),
        };
        let why = match answer {
            Ok(answer) if answer.status == StatusCode::OK => return,
            Ok(answer) => refusal(answer).await,
            Err(why) => why,
        };
        warn!(%why, "Consul still has this node, for a minute");
    }
}

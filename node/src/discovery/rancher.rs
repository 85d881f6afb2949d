//! Containers of a service of Rancher 1.x: `Cluster.Strategy.Rancher` of libcluster.
//!
//! ```toml
//! [cluster]
//! strategy = "rancher"
//! node_basename = "web"
//! ```
//!
//! The metadata service is asked for the service that this container belongs to, `/latest/self/service`. The node of a container is
//! `basename@` its first address. Rancher 2 is Kubernetes, and has no such service.

use std::collections::BTreeMap;
use std::time::Duration;

use foundation_cluster::discovery::Trust;
use hyper::StatusCode;
use serde::Deserialize;

use super::config::{Context, ms};
use super::http::{Question, Server};
use super::template::{Machine, Template};
use super::{Candidate, Poll, SourceError};

/// How long the service has for an answer; libcluster's.
const WITHIN: Duration = Duration::from_secs(15);

/// The keys of this strategy: libcluster's, and the address.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Options {
    /// The part of the nodes' names before the `@`. Default: this node's own.
    #[serde(alias = "basename")]
    pub node_basename: Option<String>,
    /// Where the metadata service is. `http://rancher-metadata`.
    pub endpoint: String,
    /// The pause between two questions, in milliseconds. 5,000.
    #[serde(with = "ms")]
    pub polling_interval: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            node_basename: None,
            endpoint: "http://rancher-metadata".to_owned(),
            polling_interval: Duration::from_secs(5),
        }
    }
}

/// The strategy.
#[derive(Debug)]
pub struct Rancher {
    options: Options,
    basename: String,
}

#[derive(Deserialize)]
struct Service {
    containers: Vec<Container>,
}

#[derive(Deserialize)]
struct Container {
    #[serde(default)]
    name: String,
    #[serde(default)]
    uuid: String,
    #[serde(default)]
    ips: Vec<String>,
    #[serde(default)]
    state: String,
}

impl Rancher {
    /// The strategy for a node.
    pub fn new(options: Options, context: &Context) -> Self {
        let basename = options.node_basename.clone().unwrap_or_else(|| context.own.alive().to_owned());
        Self { options, basename }
    }

    /// Which names this source may give by itself.
    pub(super) fn trust(&self) -> Trust {
        Trust::Basenames(vec![self.basename.clone()])
    }
}

impl Poll for Rancher {
    fn interval(&self) -> Duration {
        self.options.polling_interval
    }

    async fn poll(&self) -> Result<Vec<Candidate>, SourceError> {
        let (server, base) = Server::of_url(&self.options.endpoint, false, None).map_err(SourceError::new)?;
        let path = format!("{}/latest/self/service", base.trim_end_matches('/'));
        let answer = server.ask(Question::get(path), WITHIN).await?;
        if answer.status != StatusCode::OK {
            return Err(SourceError::new(answer.message(WITHIN).await));
        }
        let service: Service = answer.json(WITHIN).await?;
        Ok(Template::by_address()
            .candidates(&self.basename, service.containers.into_iter().map(Container::machine)))
    }
}

impl Container {
    fn machine(self) -> Machine {
        let address = self.ips.first().and_then(|ip| ip.parse().ok());
        let ip = address.map(|ip: std::net::IpAddr| ip.to_string()).unwrap_or_default();
        Machine {
            address,
            incarnation: self.uuid,
            evidence: format!("container {}", self.name),
            leaving: ["stopping", "stopped", "removing", "removed"].contains(&self.state.as_str()),
            unready: false,
            fields: BTreeMap::from([("ip", ip)]),
        }
    }
}

#[cfg(test)]
mod tests {
    use foundation_proto::dist::NodeName;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn answered(head: &'static str, body: &'static str) -> (Result<Vec<Candidate>, SourceError>, String) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let endpoint = format!("http://{}", listener.local_addr().unwrap());
            let serve = tokio::spawn(async move {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    socket.read_buf(&mut request).await.unwrap();
                }
                let length = body.len();
                let answer = format!("HTTP/1.1 {head}\r\ncontent-length: {length}\r\n\r\n{body}");
                socket.write_all(answer.as_bytes()).await.unwrap();
                String::from_utf8(request).unwrap()
            });
            let context = Context::new(NodeName::parse("web@10.42.0.9").unwrap(), 4369);
            let found = Rancher::new(Options { endpoint, ..Options::default() }, &context).poll().await;
            (found, serve.await.unwrap())
        })
    }

    /// As in Rancher's documentation of the metadata service, without most of the fields.
    #[test]
    fn containers_of_the_own_service_are_named() {
        let (found, request) = answered(
            "200 OK",
            r#"{"name":"web","stack_name":"app","kind":"service","scale":3,"containers":[
            {"name":"web-1","uuid":"a","ips":["10.42.0.5","10.43.0.5"],"primary_ip":"10.42.0.5","state":"running"},
            {"name":"web-2","uuid":"b","ips":["10.42.0.6"],"state":"stopping"},{"name":"web-3","ips":[]}]}"#,
        );
        let found = found.unwrap();
        let names: Vec<_> = found.iter().map(|node| (node.node.to_string(), node.leaving)).collect();
        assert_eq!(names, [("web@10.42.0.5".to_owned(), false), ("web@10.42.0.6".to_owned(), true)]);
        assert!(request.starts_with("GET /latest/self/service HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("accept: application/json\r\n"), "{request}");
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for (head, body) in
            [("404 Not Found", "Not found"), ("500 X", ""), ("200 OK", "{}"), ("200 OK", "<html></html>")]
        {
            assert!(answered(head, body).0.is_err(), "{head} {body}");
        }
        assert_eq!(answered("200 OK", r#"{"containers":[]}"#).0.unwrap(), []);
    }
}

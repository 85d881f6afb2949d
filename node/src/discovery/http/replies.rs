//! A server for tests of strategies that ask HTTP APIs: what it answers is a function of what it is asked.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Builder;

/// A request as it came.
#[derive(Clone, Debug, Default)]
pub(in crate::discovery) struct Asked {
    /// Method, path and version.
    pub(in crate::discovery) line: String,
    headers: BTreeMap<String, String>,
    pub(in crate::discovery) body: String,
}

impl Asked {
    pub(in crate::discovery) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    fn parse(text: &str) -> Option<Self> {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let (line, rest) = head.split_once("\r\n")?;
        let pairs = rest.lines().filter_map(|line| line.split_once(": "));
        let headers: BTreeMap<_, _> =
            pairs.map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        (body.len() >= length).then(|| Self { line: line.to_owned(), headers, body: body.to_owned() })
    }
}

/// The server. One request a connection.
#[derive(Clone)]
pub(in crate::discovery) struct Replies {
    port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Replies {
    /// Status and body of each answer are what `answer` makes of the request.
    pub(in crate::discovery) async fn start(
        answer: impl Fn(&Asked) -> (u16, String) + Send + 'static,
    ) -> Self {
        Self::with("x-nothing: x", answer).await
    }

    /// The same with a header in each answer.
    pub(in crate::discovery) async fn with(
        header: &'static str,
        answer: impl Fn(&Asked) -> (u16, String) + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Self { port, asked: Arc::default() };
        let shared = server.clone();
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut bytes = Vec::new();
                let asked = loop {
                    if let Some(asked) = Asked::parse(&String::from_utf8_lossy(&bytes)) {
                        break asked;
                    }
                    if socket.read_buf(&mut bytes).await.unwrap() == 0 {
                        break Asked::default();
                    }
                };
                let (status, body) = answer(&asked);
                shared.asked.lock().unwrap_or_else(PoisonError::into_inner).push(asked);
                let length = body.len();
                let head = format!("HTTP/1.1 {status} X\r\n{header}\r\ncontent-length: {length}\r\n\r\n");
                let _ = socket.write_all(format!("{head}{body}").as_bytes()).await;
            }
        });
        server
    }

    pub(in crate::discovery) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// How many requests began with this line.
    pub(in crate::discovery) fn count(&self, line: &str) -> usize {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.iter().filter(|asked| asked.line.starts_with(line)).count()
    }

    pub(in crate::discovery) fn last(&self) -> Asked {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).last().unwrap().clone()
    }
}

pub(in crate::discovery) fn run<T>(future: impl Future<Output = T>) -> T {
    Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

//! HTTP/1.1 as a client of APIs: one request a connection, JSON answers, every size bounded.
//!
//! hyper speaks the protocol (RFC 9112) over the sockets and the TLS of this node.

use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, CONTENT_TYPE, HOST, USER_AGENT};
use hyper::rt::ReadBufCursor;
use hyper::{HeaderMap, Method, Request, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use super::SourceError;
use crate::net::https;
use crate::net::stream::Stream;

/// The most that a body may have: 500 pods of Kubernetes have some 5 MB, but a server may answer with all at once.
const MAX_BODY: usize = 64 << 20;
/// The most of an error's body that is read: it is for people.
const MAX_ERROR: usize = 64 << 10;
/// The most that is kept of what a server says about an error.
const MAX_MESSAGE: usize = 300;
/// The buffer that the head of an answer must fit in; servers themselves take no more.
const MAX_HEAD: usize = 64 << 10;
/// What is read from the socket at once.
const CHUNK: usize = 16 << 10;

/// A server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Server {
    pub(super) host: String,
    pub(super) port: u16,
    /// With `https`: the file with the CAs that its certificate must lead to.
    pub(super) authorities: Option<PathBuf>,
}

/// What is asked.
#[derive(Clone, Debug)]
pub(super) struct Question {
    method: Method,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Question {
    /// `GET path`; the path has its query with it.
    pub(super) fn get(path: impl Into<String>) -> Self {
        Self { method: Method::GET, path: path.into(), headers: Vec::new(), body: String::new() }
    }

    /// `PUT path`.
    pub(super) fn put(path: impl Into<String>) -> Self {
        Self { method: Method::PUT, ..Self::get(path) }
    }

    /// With this body, which is JSON.
    pub(super) fn body(mut self, body: String) -> Self {
        self.body = body;
        self
    }

    /// With this header.
    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}

/// An answer whose body has not been read yet.
pub(super) struct Answer {
    server: String,
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    body: Incoming,
    _driver: Driver,
}

/// The task that carries the bytes. It ends with the answer.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Server {
    /// Asks, and waits for the head of the answer, at most for `within`.
    pub(super) async fn ask(&self, question: Question, within: Duration) -> Result<Answer, SourceError> {
        let answer = timeout(within, self.exchange(question, within)).await;
        let answer = answer.unwrap_or_else(|_| Err(format!("no answer within {within:?}")));
        answer.map_err(|why| SourceError::new(format!("{self}: {why}")))
    }

    async fn exchange(&self, question: Question, within: Duration) -> Result<Answer, String> {
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await;
        let tcp = tcp.map_err(|error| format!("cannot connect: {error}"))?;
        let stream = match &self.authorities {
            None => Stream::plain(tcp),
            Some(file) => https(tcp, &self.host, file, within).await?,
        };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let mut request = Request::builder()
            .method(question.method)
            .uri(question.path)
            .header(HOST, format!("{host}:{}", self.port))
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("foundation/", env!("CARGO_PKG_VERSION")));
        if !question.body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        for (name, value) in question.headers {
            request = request.header(name, value);
        }
        // The error does not show the value, which may be a token.
        let request = request.body(question.body).map_err(|error| format!("cannot be asked: {error}"))?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .handshake(Io { stream, input: BytesMut::new() })
            .await
            .map_err(|error| text(&error))?;
        let driver = tokio::spawn(async move {
            // Whoever waits for the answer is told of the same error.
            let _ = connection.await;
        });
        let driver = Driver(driver.abort_handle());
        let response = sender.send_request(request).await.map_err(|error| text(&error))?;
        let (head, body) = response.into_parts();
        Ok(Answer {
            server: self.to_string(),
            status: head.status,
            headers: head.headers,
            body,
            _driver: driver,
        })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.authorities.is_some() { "https" } else { "http" };
        if self.host.contains(':') {
            return write!(f, "{scheme}://[{}]:{}", self.host, self.port);
        }
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

impl Answer {
    /// The next part of the body; `None` at its end.
    pub(super) async fn chunk(&mut self) -> Result<Option<Bytes>, SourceError> {
        loop {
            let frame = poll_fn(|cx| Pin::new(&mut self.body).poll_frame(cx)).await;
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(self.wrong(text(&error))),
                // Trailers say nothing that is asked for here.
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// The body as JSON; an error if it is not complete in `within`.
    pub(super) async fn json<T: DeserializeOwned>(mut self, within: Duration) -> Result<T, SourceError> {
        let body = timeout(within, self.body(MAX_BODY)).await;
        let body = body.unwrap_or_else(|_| Err(self.wrong(format!("no whole answer within {within:?}"))))?;
        serde_json::from_slice(&body)
            .map_err(|error| self.wrong(format!("the answer is not what was expected: {error}")))
    }

    /// What the server says about an error, for people.
    pub(super) async fn message(mut self, within: Duration) -> String {
        /// The error of Kubernetes' API.
        #[derive(Deserialize)]
        struct Status {
            message: String,
        }
        let body = timeout(within, self.body(MAX_ERROR)).await;
        let body = body.ok().and_then(Result::ok).unwrap_or_default();
        let said = match serde_json::from_slice::<Status>(&body) {
            Ok(status) => status.message,
            Err(_) => String::from_utf8_lossy(&body).trim().to_owned(),
        };
        let said: String = said.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE).collect();
        match said.is_empty() {
            true => format!("{} answers {}", self.server, self.status),
            false => format!("{} answers {}: {said}", self.server, self.status),
        }
    }

    async fn body(&mut self, limit: usize) -> Result<BytesMut, SourceError> {
        let mut body = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if body.len() + chunk.len() > limit {
                return Err(self.wrong(format!("the answer has more than {limit} bytes")));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn wrong(&self, why: String) -> SourceError {
        SourceError::new(format!("{}: {why}", self.server))
    }
}

/// An error of hyper with what is behind it.
fn text(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// A connection of this node, as hyper reads and writes it.
struct Io {
    stream: Stream,
    /// What was read and not yet taken.
    input: BytesMut,
}

impl hyper::rt::Read for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, input } = self.get_mut();
        loop {
            if !input.is_empty() {
                let taken = input.split_to(input.len().min(buffer.remaining()));
                buffer.put_slice(&taken);
                return Poll::Ready(Ok(()));
            }
            input.reserve(CHUNK);
            match stream.try_read_buf(input) {
                Ok(0) => return Poll::Ready(Ok(())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(stream.poll_readable(cx))?,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl hyper::rt::Write for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.stream.try_write_vectored(&[IoSlice::new(bytes)]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.stream.poll_writable(cx))?;
                }
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.stream.try_flush() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.stream.poll_writable(cx))?;
                }
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The socket is closed when this is dropped, right after.
        self.poll_flush(cx)
    }
}

/// Text as it may stand in a path or a query (RFC 3986, unreserved characters).
pub(super) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            _ => {
                out.push('%');
                for half in [byte >> 4, byte & 15] {
                    out.extend(char::from_digit(half.into(), 16).map(|digit| digit.to_ascii_uppercase()));
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests;

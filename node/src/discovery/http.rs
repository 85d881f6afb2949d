//! HTTP/1.1 as a client of APIs: one request a connection, JSON answers, every size bounded.
//!
//! hyper speaks the protocol (RFC 9112) over the sockets and the TLS of this node.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
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
use crate::net::buffered::Buffered;
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
    kind: &'static str,
    body: String,
}

impl Question {
    /// `GET path`; the path has its query with it.
    pub(super) fn get(path: impl Into<String>) -> Self {
        let (headers, body) = (Vec::new(), String::new());
        Self { method: Method::GET, path: path.into(), headers, kind: "application/json", body }
    }

    /// `PUT path`.
    pub(super) fn put(path: impl Into<String>) -> Self {
        Self { method: Method::PUT, ..Self::get(path) }
    }

    /// `POST path`.
    #[cfg(feature = "cloud")]
    pub(super) fn post(path: impl Into<String>) -> Self {
        Self { method: Method::POST, ..Self::get(path) }
    }

    /// With this body, which is JSON.
    pub(super) fn body(mut self, body: String) -> Self {
        self.body = body;
        self
    }

    /// With this body, which is of this media type.
    #[cfg(feature = "cloud")]
    pub(super) fn body_of(mut self, kind: &'static str, body: String) -> Self {
        self.kind = kind;
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
    /// The server of a URL `http://HOST[:PORT][/PATH]` or `https://…`, and the path; the scheme of a URL without one is that of
    /// `tls`. The certificate of a server with TLS must lead to a CA in `authorities`, or in the file that this system trusts.
    ///
    /// # Errors
    /// Why there is none.
    #[cfg(any(feature = "consul", feature = "cloud"))]
    pub(super) fn of_url(
        url: &str,
        tls: bool,
        authorities: Option<PathBuf>,
    ) -> Result<(Self, String), String> {
        let wrong =
            || format!("{url:?} is no address of a server: write http://HOST:PORT or https://HOST:PORT");
        let (tls, rest) = match url.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some(_) => return Err(wrong()),
            None => (tls, url),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => rest.split_at(at),
            None => (rest, "/"),
        };
        if authority.is_empty() || authority.contains(['?', '#', '@']) {
            return Err(wrong());
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (host, port.parse().map_err(|_| wrong())?)
            }
            _ => (authority, if tls { 443 } else { 80 }),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        if host.is_empty() {
            return Err(wrong());
        }
        let authorities = match tls {
            false => None,
            true => Some(authorities.map_or_else(system_authorities, Ok)?),
        };
        Ok((Self { host, port, authorities }, path.to_owned()))
    }

    /// Host and port as the header `host` has them; the port that goes with the scheme is left out (RFC 9110, section 7.2).
    pub(super) fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.port, self.authorities.is_some()) {
            (443, true) | (80, false) => host,
            (port, _) => format!("{host}:{port}"),
        }
    }

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
        let mut request = Request::builder()
            .method(question.method)
            .uri(question.path)
            .header(HOST, self.authority())
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("foundation/", env!("CARGO_PKG_VERSION")));
        if !question.body.is_empty() {
            request = request.header(CONTENT_TYPE, question.kind);
        }
        for (name, value) in question.headers {
            request = request.header(name, value);
        }
        // The error does not show the value, which may be a token.
        let request = request.body(question.body).map_err(|error| format!("cannot be asked: {error}"))?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .handshake(Buffered::new(stream))
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

    /// The body; an error if it is not complete in `within`.
    #[cfg(feature = "cloud")]
    pub(super) async fn bytes(mut self, within: Duration) -> Result<BytesMut, SourceError> {
        let body = timeout(within, self.body(MAX_BODY)).await;
        body.unwrap_or_else(|_| Err(self.wrong(format!("no whole answer within {within:?}"))))
    }

    /// What the server says about an error, for people.
    pub(super) async fn message(mut self, within: Duration) -> String {
        /// The error of Kubernetes' API.
        #[derive(Deserialize)]
        struct Status {
            message: String,
        }
        let body = self.error_body(within).await;
        let said = match serde_json::from_slice::<Status>(&body) {
            Ok(status) => status.message,
            Err(_) => String::from_utf8_lossy(&body).trim().to_owned(),
        };
        self.says(&said)
    }

    /// The body of an error; nothing if it does not come.
    pub(super) async fn error_body(&mut self, within: Duration) -> BytesMut {
        let body = timeout(within, self.body(MAX_ERROR)).await;
        body.ok().and_then(Result::ok).unwrap_or_default()
    }

    /// The status, and these words of the server, for people.
    pub(super) fn says(&self, words: &str) -> String {
        let said: String = words.chars().filter(|c| !c.is_control()).take(MAX_MESSAGE).collect();
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

impl hyper::rt::Read for Buffered {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.get_mut().poll_input(cx, buffer.remaining()).map_ok(|read| buffer.put_slice(&read))
    }
}

impl hyper::rt::Write for Buffered {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_output(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_written(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The socket is closed when this is dropped, right after.
        self.poll_flush(cx)
    }
}

/// Where systems keep the CAs that they trust: Debian and Alpine, Red Hat, others.
#[cfg(any(feature = "consul", feature = "cloud", feature = "postgres"))]
const SYSTEM_AUTHORITIES: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// The file with the CAs that this system trusts: `SSL_CERT_FILE`, as for OpenSSL, else where such files are.
#[cfg(any(feature = "consul", feature = "cloud", feature = "postgres"))]
pub(super) fn system_authorities() -> Result<PathBuf, String> {
    let named = std::env::var("SSL_CERT_FILE").ok().filter(|file| !file.is_empty()).map(PathBuf::from);
    let known = || SYSTEM_AUTHORITIES.iter().map(PathBuf::from).find(|path| path.exists());
    named.or_else(known).ok_or_else(|| {
        format!(
            "which CAs a certificate may lead to is not known: there is none of {}; set SSL_CERT_FILE, or `cacert`",
            SYSTEM_AUTHORITIES.join(", ")
        )
    })
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

#[cfg(all(test, feature = "cloud"))]
pub(super) mod replies;
#[cfg(test)]
mod tests;

//! Changes of a list, as the API server reports them: one JSON object a line
//! (<https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes>).

use std::time::Duration;

use bytes::{Buf, BytesMut};
use hyper::StatusCode;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout_at};

use super::objects::{Change, Listing};
use super::{Kubernetes, SOON, advice};
use crate::discovery::http::{Answer, encode};
use crate::discovery::{Reports, SourceError};

/// How long the server keeps one watch open. The next one goes on where it ended, with the token of that time.
const OPEN: Duration = Duration::from_secs(60);
/// The most that one event may have. etcd stores no object that is larger than 1.5 MiB.
const MAX_EVENT: usize = 4 << 20;

/// Why the list must be asked for again.
#[derive(Debug)]
pub(super) enum Ended {
    /// The server does not know any more what has changed since (410).
    Expired,
    /// Watching is not allowed, or not offered.
    Refused(SourceError),
    /// Anything else.
    Broken(SourceError),
}

impl From<SourceError> for Ended {
    fn from(error: SourceError) -> Self {
        Self::Broken(error)
    }
}

impl Kubernetes {
    /// Keeps `listing` up to date and reports it: at each change, and in each interval, as polling would.
    pub(super) async fn watch(&self, listing: &mut Listing, reports: &Reports) -> Ended {
        loop {
            let opened = Instant::now();
            if let Err(ended) = self.watch_once(listing, reports).await {
                return ended;
            }
            if opened.elapsed() < SOON {
                sleep(SOON).await;
            }
        }
    }

    /// One watch, until the server ends it.
    async fn watch_once(&self, listing: &mut Listing, reports: &Reports) -> Result<(), Ended> {
        if listing.version.is_empty() {
            return Err(Ended::Refused(SourceError::new("the list has no resourceVersion to watch from")));
        }
        let query = format!(
            "&watch=1&allowWatchBookmarks=true&timeoutSeconds={}&resourceVersion={}",
            OPEN.as_secs(),
            encode(&listing.version)
        );
        let within = self.options.request_timeout;
        let answer = self.server.ask(self.question(listing.lookup, &query)?, within).await?;
        let status = answer.status;
        match status {
            StatusCode::OK => {}
            StatusCode::GONE => return Err(Ended::Expired),
            _ => {
                let said = answer.message(within).await;
                let error = SourceError::new(format!("{said}{}", advice(status, listing.lookup)));
                return Err(match status {
                    StatusCode::FORBIDDEN
                    | StatusCode::BAD_REQUEST
                    | StatusCode::NOT_FOUND
                    | StatusCode::METHOD_NOT_ALLOWED => Ended::Refused(error),
                    _ => Ended::Broken(error),
                });
            }
        }
        self.read(answer, listing, reports).await
    }

    async fn read(&self, mut answer: Answer, listing: &mut Listing, reports: &Reports) -> Result<(), Ended> {
        let now = Instant::now();
        // A server that does not end the watch may be gone; what was missed comes with the next one.
        let deadline = now + OPEN + self.options.request_timeout;
        let period = self.options.polling_interval;
        let mut again = interval_at(now + period, period);
        again.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lines = Lines::default();
        loop {
            tokio::select! {
                chunk = timeout_at(deadline, answer.chunk()) => {
                    let Ok(chunk) = chunk else { return Ok(()) };
                    let Some(chunk) = chunk? else { return Ok(()) };
                    lines.add(&chunk)?;
                    let mut changed = false;
                    while let Some(line) = lines.next() {
                        match listing.apply(&line)? {
                            Change::Objects => changed = true,
                            Change::Version => {}
                            Change::Expired => return Err(Ended::Expired),
                        }
                    }
                    if changed {
                        reports.found(self.candidates(listing)).await;
                    }
                }
                _ = again.tick() => reports.found(self.candidates(listing)).await,
            }
        }
    }
}

/// Splits what comes into lines.
#[derive(Default)]
pub(super) struct Lines {
    buffer: BytesMut,
    /// How much of it is known to have no line feed.
    searched: usize,
}

impl Lines {
    pub(super) fn add(&mut self, chunk: &[u8]) -> Result<(), SourceError> {
        // Whole lines have been taken before this: what is here is one.
        if self.buffer.len() + chunk.len() > MAX_EVENT {
            return Err(SourceError::new(format!("an event of the watch has more than {MAX_EVENT} bytes")));
        }
        self.buffer.extend_from_slice(chunk);
        Ok(())
    }

    /// The next whole line, without its end.
    pub(super) fn next(&mut self) -> Option<BytesMut> {
        loop {
            let rest = self.buffer.get(self.searched..).unwrap_or_default();
            let Some(at) = rest.iter().position(|byte| *byte == b'\n') else {
                self.searched = self.buffer.len();
                return None;
            };
            let line = self.buffer.split_to(self.searched + at);
            self.buffer.advance(1);
            self.searched = 0;
            if !line.trim_ascii().is_empty() {
                return Some(line);
            }
        }
    }
}

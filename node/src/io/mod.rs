//! The I/O protocol: what prints, and who prints it.
//!
//! A process prints by asking its group leader, which may live on another node: so what a remote call prints appears where
//! the call came from. Source: stdlib's "The Erlang I/O Protocol".

mod format;
mod logger;

use core::time::Duration;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use foundation_proto::etf::{Atom, Term};

pub(crate) use logger::log;

use crate::error::{Error, Result};
use crate::node::Node;
use crate::process::{Handle, Message, Process};

/// Where a node's own group leader writes to.
pub(crate) struct Output(Mutex<Box<dyn Write + Send>>);

impl core::fmt::Debug for Output {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Output")
    }
}

impl Default for Output {
    fn default() -> Self {
        Self(Mutex::new(Box::new(std::io::stdout())))
    }
}

impl Output {
    fn write(&self, text: &str) -> Term {
        let mut output = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
            Ok(()) => Term::atom("ok"),
            Err(error) => {
                tracing::warn!(%error, "what a process printed could not be written");
                Term::from((Term::atom("error"), Term::atom("terminated")))
            }
        }
    }
}

impl Node {
    /// Writes what processes print whose group leader is this node's `user` to `output` instead of the standard output.
    pub fn set_output(&self, output: impl Write + Send + 'static) {
        *self.inner().output.0.lock().unwrap_or_else(PoisonError::into_inner) = Box::new(output);
    }
}

/// Serves one message, if it is `{io_request, From, ReplyAs, Request}`.
pub(crate) async fn user(message: Message, process: &Process) -> Result<()> {
    let Message::Term(raw) = message else { return Ok(()) };
    let Ok(Term::Tuple(elements)) = raw.to_term(process.node.limits()) else { return Ok(()) };
    let Ok([label, Term::Pid(from), reply_as, request]) = <[Term; 4]>::try_from(elements.into_vec()) else {
        return Ok(());
    };
    if !label.is_atom("io_request") {
        return Ok(());
    }
    let reply = serve(&request, &process.node.output);
    process.send_term(&from, &Term::from((Term::atom("io_reply"), reply_as, reply))).await
}

/// Carries out a request; several in one stop at the first that fails.
fn serve(request: &Term, output: &Output) -> Term {
    let mut last = Term::atom("ok");
    let several = match request.as_tuple() {
        Some([label, Term::List(requests)]) if label.is_atom("requests") => &requests[..],
        _ => core::slice::from_ref(request),
    };
    for request in several {
        last = serve_one(request, output);
        if matches!(last.as_tuple(), Some([label, _]) if label.is_atom("error")) {
            break;
        }
    }
    last
}

fn serve_one(request: &Term, output: &Output) -> Term {
    let error = |why: &'static str| Term::from((Term::atom("error"), Term::atom(why)));
    if let Some(text) = put_chars(request) {
        return match text {
            Some(text) => output.write(&text),
            None => error("put_chars"),
        };
    }
    let label = match request {
        Term::Atom(label) => Some(label),
        Term::Tuple(elements) => elements.first().and_then(Term::as_atom),
        _ => None,
    };
    match label.map(Atom::as_str) {
        // There is nobody to type.
        Some("get_line" | "get_chars" | "get_until") => Term::atom("eof"),
        Some("getopts") => Term::list([Term::from((Term::atom("encoding"), Term::atom("unicode")))]),
        Some("get_geometry" | "setopts" | "get_password") => error("enotsup"),
        _ => error("request"),
    }
}

/// The text of a `put_chars` request: `None` if it is another request, `Some(None)` if it cannot be made into text.
fn put_chars(request: &Term) -> Option<Option<String>> {
    let elements = request.as_tuple()?;
    let (label, rest) = elements.split_first()?;
    if !label.is_atom("put_chars") {
        return None;
    }
    let (latin1, rest) = match rest.split_first() {
        Some((encoding, rest)) if encoding.is_atom("unicode") => (false, rest),
        Some((encoding, rest)) if encoding.is_atom("latin1") => (true, rest),
        _ => (true, rest),
    };
    Some(match rest {
        [chars] => format::chardata(chars, latin1),
        [module, function, Term::List(args)] if module.is_atom("io_lib") && function.is_atom("format") => {
            match &args[..] {
                [text, Term::List(args)] => format::format(text, args),
                _ => None,
            }
        }
        // Any other function is code that only the asking node has.
        _ => None,
    })
}

impl Handle {
    /// Prints text through the group leader of this process, and waits until that has done so (`io:put_chars/1`).
    ///
    /// # Errors
    /// [`Error::NoProc`], [`Error::NoConnection`] if the group leader is gone; [`Error::Exit`] with what it answered if it
    /// does not print; [`Error::Timeout`] after a minute.
    pub async fn print(&self, text: &str) -> Result<()> {
        let leader = self.group_leader();
        // The reply comes to whoever asks, so the one who asks is a process of its own.
        let mut asking = self.node().process()?;
        let monitor = asking.monitor(&leader).await?;
        let chars = Term::from((Term::atom("put_chars"), Term::atom("unicode"), Term::from(text)));
        let from = Term::from(asking.pid());
        let request = Term::from((Term::atom("io_request"), from, Term::from(&monitor), chars));
        asking.send_term(&leader, &request).await?;
        loop {
            match asking.recv_timeout(Duration::from_secs(60)).await? {
                Message::Down(down) if down.reference == monitor => {
                    return Err(Error::from_down(down.reason, &leader.node));
                }
                Message::Term(raw) => {
                    let term = raw.to_term(self.node.limits())?;
                    match term.as_tuple() {
                        Some([label, _, reply]) if label.is_atom("io_reply") && reply.is_atom("ok") => {
                            return Ok(());
                        }
                        Some([label, _, reply]) if label.is_atom("io_reply") => {
                            return Err(Error::Exit(reply.clone().into()));
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
    }
}

//! Log events of BEAM processes whose group leader is of this node: their node sends them to `logger_proxy` here.

use foundation_proto::etf::Term;
use foundation_proto::etf::text::print;

use super::format::{chardata, format};
use crate::process::{Message, Process};

/// Logs `{log, Level, Format, Args, Meta}` or `{log, Level, Msg, Meta}`; anything else is dropped.
pub(crate) fn log(message: &Message, process: &Process) {
    let Ok(term) = message.to_term(process.node.limits()) else { return };
    let (level, text) = match term.as_tuple() {
        Some([label, level, text, Term::List(args), _]) if label.is_atom("log") => {
            (level, format(text, args))
        }
        Some([label, level, event, _]) if label.is_atom("log") => (level, text_of(event)),
        _ => return,
    };
    let text = text.unwrap_or_else(|| print(&term));
    match level.as_atom().map(|level| level.as_str()) {
        Some("emergency" | "alert" | "critical" | "error") => {
            tracing::error!(target: "logger_proxy", "{text}")
        }
        Some("warning") => tracing::warn!(target: "logger_proxy", "{text}"),
        Some("debug") => tracing::debug!(target: "logger_proxy", "{text}"),
        _ => tracing::info!(target: "logger_proxy", "{text}"),
    }
}

/// The text of a `logger:event()`'s message.
fn text_of(event: &Term) -> Option<String> {
    match event.as_tuple()? {
        [label, report] if label.is_atom("report") => Some(print(report)),
        [label, text] if label.is_atom("string") => chardata(text, false),
        [text, Term::List(args)] => format(text, args),
        _ => None,
    }
}

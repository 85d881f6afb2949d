//! Where diagnostics go, and in which form.

use std::fmt::{self, Write as _};
use std::io::IsTerminal;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{EnvFilter, fmt::time, reload};

use super::args::{LogFormat, Options};

/// What is logged, which can change while the program runs.
pub(crate) struct Logs {
    change: Change,
    /// What a flag or a variable says; that cannot change any more.
    fixed: bool,
    default: &'static str,
}

type Change = Box<dyn Fn(EnvFilter) -> Result<(), reload::Error>>;

impl Logs {
    /// Logs what the configuration says, and returns that.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) fn set(&self, filter: Option<&str>) -> Result<String, String> {
        if self.fixed {
            return Err("--log, FOUNDATION_LOG or RUST_LOG decides".to_owned());
        }
        let filter = levels(filter.unwrap_or(self.default));
        let parsed = EnvFilter::try_new(&filter).map_err(|error| format!("log = {filter:?}: {error}"))?;
        (self.change)(parsed).map_err(|error| error.to_string())?;
        Ok(filter)
    }
}

/// Elixir's names for the levels are accepted as well.
fn levels(filter: &str) -> String {
    filter.replace("notice", "info").replace("warning", "warn")
}

/// Sends diagnostics to the standard error. `serves` tells a node, which reports what it does, from a command, which reports
/// only what went wrong, and that itself.
pub(crate) fn start(options: &Options, serves: bool) -> Logs {
    let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    let filter = options.log.clone().or_else(|| variable("FOUNDATION_LOG")).or_else(|| variable("RUST_LOG"));
    let default = if serves { "info" } else { "error" };
    let fixed = filter.is_some();
    let filter = levels(filter.as_deref().unwrap_or(default));
    let filter = EnvFilter::try_new(&filter).unwrap_or_else(|error| {
        eprintln!("foundation: the log filter {filter:?} is not understood ({error}); using {default}");
        EnvFilter::new(default)
    });
    let format = options.log_format.or_else(|| match variable("FOUNDATION_LOG_FORMAT").as_deref() {
        Some("json") => Some(LogFormat::Json),
        Some("logfmt") => Some(LogFormat::Logfmt),
        Some("pretty") => Some(LogFormat::Pretty),
        _ => None,
    });
    let builder = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    let colours = std::io::stderr().is_terminal() && variable("NO_COLOR").is_none();
    // Each format is another type, and the handle that changes the filter has it in its own.
    macro_rules! install {
        ($builder:expr) => {{
            let builder = $builder.with_filter_reloading();
            let handle = builder.reload_handle();
            // Nothing else in this process sets a subscriber, so this cannot fail.
            builder.init();
            Box::new(move |filter| handle.reload(filter))
        }};
    }
    let change: Change = match format {
        Some(LogFormat::Json) => {
            install!(builder.json().flatten_event(true).with_current_span(true).with_span_list(false))
        }
        Some(LogFormat::Logfmt) => install!(builder.event_format(Logfmt)),
        _ => install!(builder.with_ansi(colours).with_target(false).compact()),
    };
    Logs { change, fixed, default }
}

/// `time=… level=… span=… peer=… message="…"`, one event per line.
struct Logfmt;

impl<S, N> FormatEvent<S, N> for Logfmt
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(out, "time=")?;
        time::SystemTime.format_time(&mut out)?;
        write!(out, " level={}", event.metadata().level().as_str().to_lowercase())?;
        if let Some(span) = context.lookup_current() {
            write!(out, " span={}", span.name())?;
        }
        let mut fields = Pairs(String::new());
        event.record(&mut fields);
        writeln!(out, "{}", fields.0)
    }
}

/// The fields of an event, each with a space before it.
struct Pairs(String);

impl Pairs {
    fn put(&mut self, name: &str, value: &str) {
        let plain = |c: char| c.is_ascii_graphic() && c != '"' && c != '=' && c != '\\';
        // Names and texts of peers stand here: anything but plain characters is quoted and escaped.
        let _infallible = if !value.is_empty() && value.chars().all(plain) {
            write!(self.0, " {name}={value}")
        } else {
            write!(self.0, " {name}={value:?}")
        };
    }
}

impl Visit for Pairs {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field.name(), value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field.name(), &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_peers_choose_cannot_forge_a_line() {
        let mut pairs = Pairs(String::new());
        pairs.put("peer", "a@h");
        pairs.put("error", "two\nlines level=error \u{1b}[31m");
        pairs.put("empty", "");
        assert_eq!(pairs.0, " peer=a@h error=\"two\\nlines level=error \\u{1b}[31m\" empty=\"\"");
    }
}

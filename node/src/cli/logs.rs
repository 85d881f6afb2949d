//! Where diagnostics go, and in which form.

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::io::IsTerminal;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
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
        Some(LogFormat::Logfmt) => install!(builder.fmt_fields(Lines).event_format(Logfmt)),
        _ => install!(builder.with_ansi(colours).with_target(false).compact()),
    };
    Logs { change, fixed, default }
}

/// `time=… level=… span=… message="…" peer=…`, one event per line: the event's own fields, then those of the spans that it is in, the
/// innermost first, as far as they have another name.
struct Logfmt;

/// The fields of a span, each on a line of its own. No value has the end of a line in it, see [`Pairs::put`].
struct Lines;

impl<'a> FormatFields<'a> for Lines {
    fn format_fields<R: RecordFields>(&self, mut out: Writer<'a>, fields: R) -> fmt::Result {
        let mut pairs = Pairs { text: String::new(), between: '\n' };
        fields.record(&mut pairs);
        out.write_str(&pairs.text)
    }
}

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
        if let Some(span) = context.event_scope().and_then(|mut scope| scope.next()) {
            write!(out, " span={}", span.name())?;
        }
        let mut fields = Pairs { text: String::new(), between: ' ' };
        event.record(&mut fields);
        out.write_str(&fields.text)?;
        let mut written: BTreeSet<String> =
            event.metadata().fields().iter().map(|field| field.name().to_owned()).collect();
        for span in context.event_scope().into_iter().flatten() {
            let extensions = span.extensions();
            let Some(fields) = extensions.get::<FormattedFields<N>>() else { continue };
            for pair in fields.fields.lines().map(str::trim).filter(|pair| !pair.is_empty()) {
                let name = pair.split('=').next().unwrap_or_default();
                if written.insert(name.to_owned()) {
                    write!(out, " {pair}")?;
                }
            }
        }
        writeln!(out)
    }
}

/// The fields of an event or a span, each with this character before it.
struct Pairs {
    text: String,
    between: char,
}

impl Pairs {
    fn put(&mut self, name: &str, value: &str) {
        let plain = |c: char| c.is_ascii_graphic() && c != '"' && c != '=' && c != '\\';
        // Names and texts of peers stand here: anything but plain characters is quoted and escaped.
        self.text.push(self.between);
        let _infallible = if !value.is_empty() && value.chars().all(plain) {
            write!(self.text, "{name}={value}")
        } else {
            write!(self.text, "{name}={value:?}")
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
        let mut pairs = Pairs { text: String::new(), between: ' ' };
        pairs.put("peer", "a@h");
        pairs.put("error", "two\nlines level=error \u{1b}[31m");
        pairs.put("empty", "");
        assert_eq!(pairs.text, " peer=a@h error=\"two\\nlines level=error \\u{1b}[31m\" empty=\"\"");
    }

    /// What the node says of its connections stands in the span that names the peer.
    #[test]
    fn fields_of_spans_stand_in_the_line_once() {
        use std::io;
        use std::sync::{Arc, Mutex};

        #[derive(Clone, Default)]
        struct Buffer(Arc<Mutex<Vec<u8>>>);
        impl io::Write for Buffer {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0.lock().unwrap().write(bytes)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        let buffer = Buffer::default();
        let writer = buffer.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new("warn"))
            .with_writer(move || writer.clone())
            .fmt_fields(Lines)
            .event_format(Logfmt)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            let outer = tracing::error_span!("outer", peer = "outer@h", topology = "two words");
            let inner = tracing::error_span!(
                parent: &outer,
                "connection",
                peer = "a@h",
                address = %"10.0.0.1:1",
                reason = "hidden",
                later = tracing::field::Empty
            );
            inner.record("later", "x y\n");
            tracing::warn!(parent: &inner, reason = "the peer has closed it", "nodedown");
        });
        let line = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        let (_, rest) = line.split_once(" level=").unwrap();
        assert_eq!(
            rest,
            "warn span=connection message=nodedown reason=\"the peer has closed it\" peer=a@h address=10.0.0.1:1 \
             later=\"x y\\n\" topology=\"two words\"\n"
        );
    }
}

//! Counts, seeds and results of long runs (`make soak`).

use std::cell::RefCell;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The seed of random tests: `FOUNDATION_SEED`, or a fixed one, so that a run says the same each time.
pub(crate) fn seed() -> u64 {
    chosen_seed().unwrap_or(20_261_121)
}

/// The seeds of a test that runs several: `default`, or `FOUNDATION_SEED` alone.
pub(crate) fn seeds(default: Range<u64>) -> Range<u64> {
    chosen_seed().map_or(default, |seed| seed..seed + 1)
}

/// # Panics
/// If it is no number: a run that ignored it would be taken for that seed's.
fn chosen_seed() -> Option<u64> {
    let text = std::env::var("FOUNDATION_SEED").ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("FOUNDATION_SEED={text} is no number")))
}

/// `FOUNDATION_SOAK_<what>`; `None` in a run that is no soak.
///
/// # Panics
/// If it is no number: a soak that silently does what `make test` does would be taken for a long one.
pub(crate) fn count(what: &str) -> Option<u64> {
    let text = std::env::var(format!("FOUNDATION_SOAK_{what}")).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("FOUNDATION_SOAK_{what}={text} is no number")))
}

/// [`count`], or what `make test` does.
pub(crate) fn count_or(what: &str, default: u64) -> u64 {
    count(what).unwrap_or(default)
}

/// A dated table in `interop-tests/results/`.
pub(crate) struct Report {
    topic: &'static str,
    rows: RefCell<String>,
}

impl Report {
    pub(crate) fn new(topic: &'static str, columns: &[&str]) -> Self {
        let rows = format!("| {} |\n|{}\n", columns.join(" | "), "---|".repeat(columns.len()));
        Self { topic, rows: RefCell::new(rows) }
    }

    /// The table of something that was counted.
    pub(crate) fn counted(topic: &'static str, counted: &str) -> Self {
        Self::new(topic, &["OTP", "what", counted, "time", "rate"])
    }

    pub(crate) fn row(&self, cells: &[&str]) {
        writeln!(self.rows.borrow_mut(), "| {} |", cells.join(" | ")).unwrap();
    }

    /// A row of [`Report::counted`].
    pub(crate) fn run(&self, release: &str, what: &str, count: u64, took: Duration) {
        let rate = count as f64 / took.as_secs_f64();
        let (time, rate) = (format!("{:.0} s", took.as_secs_f64()), format!("{rate:.0}/s"));
        self.row(&[release, what, &count.to_string(), &time, &rate]);
    }

    /// Writes the table, with the day, the machine, its load and the commit.
    pub(crate) fn write(&self) {
        let day = said("date", &["-u", "+%Y-%m-%d"]);
        let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/results"));
        std::fs::create_dir_all(dir).unwrap();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let text = format!(
            "# Soak: {}, {day}\n\n`make soak`, {} on {cores} cores, {}, load average {}, commit {}.\n\n{}",
            self.topic,
            said("uname", &["-srm"]),
            if cfg!(debug_assertions) { "test profile (opt-level 1)" } else { "release profile" },
            load.split(' ').take(3).collect::<Vec<_>>().join(" "),
            said("git", &["rev-parse", "--short", "HEAD"]),
            self.rows.borrow(),
        );
        print!("{text}");
        std::fs::write(dir.join(format!("soak-{}-{day}.md", self.topic)), text).unwrap();
    }
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

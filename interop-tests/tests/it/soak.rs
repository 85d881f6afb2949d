//! Counts, seeds and results of long runs (`make soak`).

use std::cell::RefCell;
use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The seed of random tests: `FOUNDATION_SEED`, or a fixed one, so that a run says the same each time.
pub(crate) fn seed() -> u64 {
    std::env::var("FOUNDATION_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(20_261_121)
}

/// `FOUNDATION_SOAK_<what>`; `None` in a run that is no soak.
pub(crate) fn count(what: &str) -> Option<u64> {
    std::env::var(format!("FOUNDATION_SOAK_{what}")).ok()?.parse().ok()
}

/// A dated table in `interop-tests/results/`.
pub(crate) struct Report {
    topic: &'static str,
    rows: RefCell<String>,
}

impl Report {
    pub(crate) fn new(topic: &'static str, counted: &str) -> Self {
        let rows = format!("| OTP | what | {counted} | time | rate |\n|---|---|---|---|---|\n");
        Self { topic, rows: RefCell::new(rows) }
    }

    pub(crate) fn row(&self, release: &str, what: &str, count: u64, took: Duration) {
        let rate = count as f64 / took.as_secs_f64();
        let mut rows = self.rows.borrow_mut();
        writeln!(rows, "| {release} | {what} | {count} | {:.0} s | {rate:.0}/s |", took.as_secs_f64())
            .unwrap();
    }

    /// Writes the table, with the day, the machine and the commit.
    pub(crate) fn write(&self) {
        let day = said("date", &["-u", "+%Y-%m-%d"]);
        let dir = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/results"));
        std::fs::create_dir_all(dir).unwrap();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let text = format!(
            "# Soak: {}, {day}\n\n`make soak`, {} on {cores} cores, {}, commit {}.\n\n{}",
            self.topic,
            said("uname", &["-srm"]),
            if cfg!(debug_assertions) { "test profile" } else { "release profile" },
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

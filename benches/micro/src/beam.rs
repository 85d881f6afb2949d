//! The other side: an `erl` that runs `codec_bench.erl` and takes commands on its standard input.

use std::io::{BufRead, BufReader, Error, Result, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

pub(crate) struct Beam {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    pub(crate) release: String,
}

impl Beam {
    /// Compiles the module, starts a node with one scheduler and has it write the terms to `directory`.
    pub(crate) fn start(directory: &Path) -> Result<Self> {
        std::fs::create_dir_all(directory)?;
        let beams = std::env::temp_dir().join(format!("foundation-codec-bench-{}", std::process::id()));
        std::fs::create_dir_all(&beams)?;
        let compiled =
            Command::new("erlc").arg("-o").arg(&beams).arg(crate::here().join("codec_bench.erl")).status()?;
        if !compiled.success() {
            return Err(Error::other("erlc failed"));
        }
        let mut child = Command::new("erl")
            .args(["+S", "1:1", "-noshell", "-pa"])
            .arg(&beams)
            .args(["-s", "codec_bench", "main"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Error::other("no pipes to erl"));
        };
        let mut beam = Self { child, input, output: BufReader::new(output), release: String::new() };
        let answer = beam.ask(&format!("terms {}", directory.display()));
        std::fs::remove_dir_all(&beams)?;
        match answer?.strip_prefix("ok ") {
            Some(release) => beam.release = release.to_owned(),
            None => return Err(Error::other("erl did not write the terms")),
        }
        Ok(beam)
    }

    fn ask(&mut self, command: &str) -> Result<String> {
        writeln!(self.input, "{command}")?;
        self.input.flush()?;
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err(Error::other("erl has ended"));
        }
        Ok(line.trim().to_owned())
    }

    /// Nanoseconds that one `decode` or `encode` of a term takes, over at least so many microseconds.
    pub(crate) fn time(&mut self, operation: &str, term: &str, micros: u32) -> Result<f64> {
        let answer = self.ask(&format!("time {operation} {term} {micros}"))?;
        answer.parse().map_err(|_| Error::other(format!("erl said {answer:?}")))
    }
}

impl Drop for Beam {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

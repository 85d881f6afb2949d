//! Keeping processors from halting. On a virtual machine a processor that halts takes tens of microseconds to come back, and a node that
//! waits for each of many small things pays that each time: how often depends on what else runs.

use std::io::Read;
use std::process::{Child, Command, Stdio};

use crate::placement;

/// The first argument of a process that keeps its processor awake.
pub(crate) const COMMAND: &str = "awake";

/// A process of the class SCHED_IDLE for each processor: it runs only where nothing else wants to.
#[derive(Debug, Default)]
pub(crate) struct Awake(Vec<Child>);

impl Awake {
    pub(crate) fn start() -> Result<Self, String> {
        let mut awake = Self::default();
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        for cpu in placement::processors() {
            let started = placement::on(cpu, || {
                Command::new("chrt")
                    .args(["--idle", "0"])
                    .arg(&program)
                    .arg(COMMAND)
                    .stdin(Stdio::piped())
                    .spawn()
            });
            awake.0.push(started.map_err(|error| format!("chrt of util-linux: {error}"))?);
        }
        Ok(awake)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Keeps its processor awake until standard input ends.
pub(crate) fn main() {
    std::thread::spawn(|| {
        loop {
            std::hint::spin_loop();
        }
    });
    let _ended = std::io::stdin().lock().read(&mut [0]);
}

//! Instructions of each operation, counted by valgrind: on a given compiler they are the same on every machine, loaded or not.

use std::io::{Error, Result};
use std::path::Path;
use std::process::Command;

use crate::{Subject, operation, subjects};

/// How many times an operation is done while it is counted; the buffers have grown before.
const COUNT: u64 = 10;

/// The function whose instructions are counted, with all that it calls.
#[inline(never)]
fn counted_region(work: &mut operation::Work, count: u64) {
    work(count);
}

/// Does an operation while valgrind watches.
pub(crate) fn once(terms: &Path, name: &str, wanted: &str, count: &str) -> Result<()> {
    let count: u64 = count.parse().map_err(Error::other)?;
    for subject in subjects(terms, &[name.to_owned()])? {
        for mut operation in operation::all(&subject).into_iter().filter(|operation| operation.name == wanted)
        {
            (operation.work)(2);
            counted_region(&mut operation.work, count);
        }
    }
    Ok(())
}

fn count(subject: &Subject, operation: &str) -> Result<f64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null", "--toggle-collect=*counted_region*"])
        .arg(std::env::current_exe()?)
        .args(["--once", &subject.name, operation, &COUNT.to_string()])
        .output()
        .map_err(|error| Error::other(format!("valgrind: {error} (Debian: apt-get install valgrind)")))?;
    let text = String::from_utf8_lossy(&output.stderr);
    let collected =
        text.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse::<u64>().ok());
    let collected = collected.ok_or_else(|| Error::other(format!("valgrind said {text}")))?;
    Ok(collected as f64 / COUNT as f64)
}

pub(crate) fn table(all: &[Subject]) -> Result<()> {
    println!("instructions for one term, by valgrind --tool=callgrind; golden terms of benches/micro/terms");
    println!("{:<12} {:>6}  {:<22} {:>12} {:>10}", "term", "nodes", "operation", "instructions", "per node");
    for subject in all {
        let nodes = operation::nodes(subject);
        for operation in operation::all(subject) {
            let instructions = count(subject, operation.name)?;
            println!(
                "{:<12} {nodes:>6}  {:<22} {instructions:>12.0} {:>10.1}",
                subject.name,
                operation.name,
                instructions / nodes as f64
            );
        }
    }
    Ok(())
}

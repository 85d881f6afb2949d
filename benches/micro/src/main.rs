//! The term codec on the reference terms, beside `binary_to_term` and `term_to_binary` of the installed OTP and the
//! codecs of the field, in one run.
//!
//! ```text
//! codec [TERM…]                 times, alternating with the BEAM; ratios and goals
//! codec --count [TERM…]         instructions of each operation under valgrind: the same on a loaded machine
//! codec --golden                writes the terms that --count uses anew, from the installed OTP
//! ```

mod beam;
mod borrowed;
mod instructions;
mod operation;
mod plain;
mod table;
mod typed;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bytes::Bytes;

/// The reference terms; `codec_bench.erl` says what they are.
const TERMS: [&str; 9] =
    ["rpc_small", "ints10k", "ints_random", "i64_1k", "map1k", "proplist", "telemetry", "real", "bin1m"];

/// One reference term as a BEAM wrote it, version byte included.
pub(crate) struct Subject {
    name: String,
    external: Bytes,
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).into()
}

fn subjects(directory: &Path, wanted: &[String]) -> std::io::Result<Vec<Subject>> {
    TERMS
        .iter()
        .filter(|name| wanted.is_empty() || wanted.iter().any(|wanted| wanted == *name))
        .map(|name| {
            let file = directory.join(name).with_extension("etf");
            // No golden copy of a mebibyte is kept.
            let external =
                if *name == BINARY && !file.exists() { binary() } else { std::fs::read(file)? }.into();
            Ok(Subject { name: (*name).to_owned(), external })
        })
        .collect()
}

/// The term that is one large binary.
const BINARY: &str = "bin1m";

fn binary() -> Vec<u8> {
    [&[131, 109, 0, 16, 0, 0][..], &b"0123456789abcdef".repeat(65_536)].concat()
}

fn golden() -> std::io::Result<()> {
    let directory = here().join("terms");
    let beam = beam::Beam::start(&directory)?;
    let lines = format!(
        "Written by `cargo run --release -p foundation-bench-micro -- --golden` with OTP {}: the terms of\n\
         `codec_bench.erl`, `term_to_binary(Term, [{{minor_version, 2}}])`.\n",
        beam.release
    );
    std::fs::write(directory.join("README"), lines)?;
    std::fs::remove_file(directory.join(BINARY).with_extension("etf"))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--golden"] => golden(),
        ["--count", ..] => subjects(&here().join("terms"), arguments.get(1..).unwrap_or_default())
            .and_then(|all| instructions::table(&all)),
        ["--once", name, operation, count] => {
            instructions::once(&here().join("terms"), name, operation, count)
        }
        _ => table::print(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("codec: {error}");
            ExitCode::FAILURE
        }
    }
}

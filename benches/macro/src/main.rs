//! Measurements of a Rust node beside real BEAM nodes, in one run, in turns.
//!
//! `cargo run --profile dist -p foundation-bench-macro -- [--long] [--otp N|all] [--rounds N] [--against PROGRAM] [--awake] [--save FILE]
//! [SUBJECT…]`; see `docs/performance.md` for what each line means. Nothing here is a test: a goal that is missed is printed, not raised.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a measurement that cannot be made ends with a message; nothing here runs in production"
)]

mod awake;
mod foreign;
mod lines;
mod peer;
mod placement;
mod stage;
mod stats;
mod table;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use awake::Awake;
use lines::Request;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        Some(("peer", rest)) => {
            peer::main(rest);
            return ExitCode::SUCCESS;
        }
        Some(("erl_dist", rest)) => {
            foreign::main(rest);
            return ExitCode::SUCCESS;
        }
        Some((awake::COMMAND, _)) => {
            awake::main();
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    match parse(&arguments) {
        Ok((request, save)) => {
            let awake = if request.awake { Awake::start() } else { Ok(Awake::default()) };
            match awake {
                Ok(_awake) => {
                    run(&request, save, &arguments);
                    ExitCode::SUCCESS
                }
                Err(why) => {
                    eprintln!("--awake: {why}");
                    ExitCode::FAILURE
                }
            }
        }
        Err(why) => {
            eprintln!("{why}\nsubjects: {}", lines::names().join(" "));
            ExitCode::from(64)
        }
    }
}

fn parse(arguments: &[String]) -> Result<(Request, Option<PathBuf>), String> {
    let (mut rounds, mut millis, mut otp, mut save, mut subjects) = (None, 300.0, None, None, Vec::new());
    let (mut against, mut all, mut awake) = (None, false, false);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().ok_or_else(|| format!("{argument} needs a value"));
        match argument.as_str() {
            "--long" => {
                rounds = rounds.or(Some(7));
                millis = 1000.0;
            }
            "--rounds" => rounds = Some(value()?.parse().map_err(|_| "--rounds wants a number")?),
            "--otp" => match value()?.as_str() {
                "all" => all = true,
                number => otp = Some(number.parse().map_err(|_| "--otp wants a number, or all")?),
            },
            "--against" => against = Some(PathBuf::from(value()?)),
            "--awake" => awake = true,
            "--save" => save = Some(PathBuf::from(value()?)),
            option if option.starts_with('-') => return Err(format!("unknown option {option}")),
            subject => subjects.push(subject.to_owned()),
        }
    }
    let names = lines::names();
    if let Some(subject) =
        subjects.iter().find(|subject| !names.iter().any(|name| name.contains(subject.as_str())))
    {
        return Err(format!("unknown subject {subject}"));
    }
    let release = stage::release(otp);
    let others = if all { stage::others(&release) } else { Vec::new() };
    Ok((Request { release, others, subjects, rounds: rounds.unwrap_or(3), millis, against, awake }, save))
}

fn run(request: &Request, save: Option<PathBuf>, arguments: &[String]) {
    if cfg!(debug_assertions) {
        eprintln!("this is a debug build: the figures mean nothing");
    }
    let start = std::time::Instant::now();
    let mut all = head(request, arguments);
    print!("{all}");
    // Saved with every line, so that a run that is stopped leaves what it has measured.
    let saved = |all: &str| {
        if let Some(path) = &save
            && let Err(error) = std::fs::write(path, all)
        {
            eprintln!("{}: {error}", path.display());
        }
    };
    lines::run(request, &mut |text| {
        print!("{text}");
        all.push_str(text);
        saved(&all);
    });
    let end =
        format!("\n{:.0} s in all; load average at the end: {}\n", start.elapsed().as_secs_f64(), load());
    print!("{end}");
    all.push_str(&end);
    saved(&all);
}

/// Machine, versions, command: what makes a result one that can be compared.
fn head(request: &Request, arguments: &[String]) -> String {
    let mut text = String::new();
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("unknown");
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let profile = foundation_interop_tests::built::profile().unwrap_or_default();
    let others: String = request.others.iter().map(|other| format!("; {}", other.version)).collect();
    let lines = [
        ("date", output("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
        ("commit", output("git", &["describe", "--always", "--dirty", "--abbrev=10"])),
        (
            "machine",
            format!("{cpus} × {}; {}", model.trim_start_matches([' ', '\t', ':']), output("uname", &["-sr"])),
        ),
        ("load average", load()),
        ("processors", if request.awake { "kept from halting" } else { "halt when idle" }.to_owned()),
        ("Erlang/OTP", format!("{}, default flags, hidden{}", request.release.version, others)),
        ("rustc", output("rustc", &["--version"])),
        ("command", format!("cargo run {profile} -p foundation-bench-macro -- {}", arguments.join(" "))),
        (
            "samples",
            format!("median of {} rounds in turns, ± half of the spread, × the first", request.rounds),
        ),
    ];
    for (name, value) in lines {
        let _ = writeln!(text, "{name:<13}{}", value.trim());
    }
    text.push_str(
        "cpu-from and cpu-to are microseconds of processor time per message of the sending and the receiving process.\n",
    );
    text
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |_| "unknown".to_owned(),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().take(3).collect::<Vec<_>>().join(" ")
}

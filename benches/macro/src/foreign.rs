//! Nodes that are neither a BEAM nor ours: OTP's C library, OTP's Java library, and the Rust crate `erl_dist` with `eetf`.
//!
//! Each is a small program of ours over the library, written as the library's documentation shows it. It has two modes:
//! `serve` takes connections, counts and echoes; `drive` sends when told to.

mod erl_dist;

use std::path::PathBuf;
use std::process::Command;

use foundation_interop_tests::beam::COOKIE;
use foundation_interop_tests::{otp, work_dir};

use crate::stage::{Peer, Stage, Told};

pub(crate) use self::erl_dist::main;

/// The libraries, by the names that stand in the table.
pub(crate) const LIBRARIES: [&str; 3] = ["libei", "JInterface", "erl_dist"];

/// A node of one library on either side.
pub(crate) struct Foreign {
    pub(crate) library: &'static str,
    nodes: Result<[Told; 2], String>,
}

impl Foreign {
    /// One of each library, compiled and started.
    pub(crate) fn all(stage: &Stage) -> Vec<Self> {
        LIBRARIES.into_iter().map(|library| Self { library, nodes: start(library, stage) }).collect()
    }

    /// On side 0: sends when told to.
    pub(crate) fn sender(&self) -> Result<&dyn Peer, String> {
        self.nodes.as_ref().map(|[sender, _]| sender as &dyn Peer).map_err(Clone::clone)
    }

    /// On side 1: takes connections, counts and echoes.
    pub(crate) fn receiver(&self) -> Result<&dyn Peer, String> {
        self.nodes.as_ref().map(|[_, receiver]| receiver as &dyn Peer).map_err(Clone::clone)
    }
}

fn start(library: &str, stage: &Stage) -> Result<[Told; 2], String> {
    let program = match library {
        "libei" => vec![libei()?],
        "JInterface" => jinterface()?,
        _ => vec![std::env::current_exe().map_err(|error| error.to_string())?, "erl_dist".into()],
    };
    let Some((first, rest)) = program.split_first() else { return Err("no program".to_owned()) };
    let start = |side, mode: &str| {
        let name = format!("{}{mode}", library.to_lowercase().replace('_', ""));
        let mut command = Command::new(first);
        command.args(rest).args([mode, &name, COOKIE]).env("ERL_EPMD_PORT", stage.epmd.port.to_string());
        stage.placement.place(side, || Told::start(&format!("{name}@127.0.0.1"), &mut command))
    };
    Ok([start(0, "drive")?, start(1, "serve")?])
}

/// The directory of the installed OTP.
fn root() -> Result<PathBuf, String> {
    let out = Command::new(otp::installed().program("erl"))
        .args(["-noinput", "-eval", "io:put_chars(code:root_dir()), halt()."])
        .output()
        .map_err(|error| error.to_string())?;
    Ok(PathBuf::from(String::from_utf8_lossy(&out.stdout).into_owned()))
}

fn compile(command: &mut Command) -> Result<(), String> {
    let out = command.output().map_err(|error| format!("{}: {error}", command.get_program().display()))?;
    if out.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&out.stderr).replace('\n', " ")) }
}

/// The C program; made once a run. Always against the installed OTP's library: those of newer releases want a newer C library.
fn libei() -> Result<PathBuf, String> {
    let program = work_dir(&format!("ei/{}", std::process::id())).join("ei_peer");
    if program.exists() {
        return Ok(program);
    }
    let usr = root()?.join("usr");
    if !usr.join("include/ei.h").exists() {
        return Err(format!("no ei.h below {}: install erlang-dev", usr.display()));
    }
    let mut cc = Command::new("cc");
    cc.args(["-O2", "-D_REENTRANT", "-o"])
        .arg(&program)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/c/ei_peer.c"))
        .arg("-I")
        .arg(usr.join("include"))
        .arg("-L")
        .arg(usr.join("lib"))
        .args(["-lei", "-lpthread"]);
    compile(&mut cc).map(|()| program)
}

/// The Java program, as the words that start it; compiled once a run.
fn jinterface() -> Result<Vec<PathBuf>, String> {
    let lib = root()?.join("lib");
    let jar = std::fs::read_dir(&lib)
        .map_err(|error| format!("{}: {error}", lib.display()))?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("jinterface-"))
        .map(|entry| entry.path().join("priv/OtpErlang.jar"))
        .find(|jar| jar.exists())
        .ok_or_else(|| format!("no OtpErlang.jar below {}: install erlang-jinterface", lib.display()))?;
    let classes = work_dir(&format!("jinterface/{}", std::process::id()));
    if !classes.join("JinterfacePeer.class").exists() {
        let mut javac = Command::new("javac");
        javac
            .arg("-cp")
            .arg(&jar)
            .arg("-d")
            .arg(&classes)
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/java/JinterfacePeer.java"));
        compile(&mut javac)
            .map_err(|why| format!("{why} (a JDK is needed: install default-jdk-headless)"))?;
    }
    let classpath =
        std::env::join_paths([classes.as_path(), jar.as_path()]).map_err(|error| error.to_string())?;
    Ok(vec!["java".into(), "-cp".into(), classpath.into(), "JinterfacePeer".into()])
}

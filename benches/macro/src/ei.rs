//! OTP's own C library as a peer: a small program of ours, compiled against the installed `libei`.

use std::path::PathBuf;
use std::process::Command;

use foundation_interop_tests::beam::COOKIE;
use foundation_interop_tests::{otp, work_dir};

use crate::stage::{Stage, Told};

/// A C node on either side.
pub(crate) struct Ei {
    /// On side 0: sends when told to.
    pub(crate) sender: Told,
    /// On side 1: takes connections, counts and echoes.
    pub(crate) receiver: Told,
}

impl Ei {
    /// Compiles and starts them.
    pub(crate) fn start(stage: &Stage) -> Result<Self, String> {
        let program = compile()?;
        let port = stage.epmd.port.to_string();
        let start = |side, name: &str, mode: &str| {
            let mut command = Command::new(&program);
            command.args([mode, name, COOKIE]).env("ERL_EPMD_PORT", &port);
            stage.placement.place(side, || Told::start(&format!("{name}@127.0.0.1"), &mut command))
        };
        Ok(Self { sender: start(0, "eis", "drive")?, receiver: start(1, "eir", "serve")? })
    }
}

/// The program; made once a run. Always against the installed OTP's library: those of newer releases want a newer C library.
fn compile() -> Result<PathBuf, String> {
    let program = work_dir(&format!("ei/{}", std::process::id())).join("ei_peer");
    if program.exists() {
        return Ok(program);
    }
    let root = Command::new(otp::installed().program("erl"))
        .args(["-noinput", "-eval", "io:put_chars(code:root_dir()), halt()."])
        .output()
        .map_err(|error| error.to_string())?;
    let usr = PathBuf::from(String::from_utf8_lossy(&root.stdout).into_owned()).join("usr");
    if !usr.join("include/ei.h").exists() {
        return Err(format!("no ei.h below {}: install erlang-dev", usr.display()));
    }
    let out = Command::new("cc")
        .args(["-O2", "-D_REENTRANT", "-o"])
        .arg(&program)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/c/ei_peer.c"))
        .arg("-I")
        .arg(usr.join("include"))
        .arg("-L")
        .arg(usr.join("lib"))
        .args(["-lei", "-lpthread"])
        .output()
        .map_err(|error| format!("cc: {error}"))?;
    if out.status.success() { Ok(program) } else { Err(String::from_utf8_lossy(&out.stderr).into_owned()) }
}

//! Which Erlang/OTP releases this machine has: the installed one, and those of `script/otp-matrix.sh`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

/// The releases that `script/otp-matrix.sh` installs.
pub const MATRIX: [u32; 4] = [23, 25, 27, 29];

/// One Erlang/OTP release with its programs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Release {
    /// Major release number, e.g. 25.
    pub number: u32,
    /// Full version, e.g. `25.2.3`.
    pub version: String,
    /// Directory with `erl`, `epmd`, `erlc`, `elixir`.
    pub bin: PathBuf,
}

impl Release {
    fn at(bin: &Path) -> Option<Self> {
        let script = "F = filename:join([code:root_dir(), \"releases\", erlang:system_info(otp_release), \"OTP_VERSION\"]), \
             V = case file:read_file(F) of {ok, B} -> string:trim(B); _ -> erlang:system_info(otp_release) end, \
             io:format(\"~s ~s\", [erlang:system_info(otp_release), V]), halt().";
        let out = Command::new(bin.join("erl"))
            .args(["-noinput", "-boot", "start_clean", "-eval", script])
            .output()
            .ok()?;
        let text = String::from_utf8(out.stdout).ok()?;
        let (number, version) = text.split_once(' ')?;
        Some(Self { number: number.parse().ok()?, version: version.to_owned(), bin: bin.to_owned() })
    }

    /// The path of one of the release's programs.
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// Where Elixir's own modules are, if this release has an Elixir.
    pub fn elixir_ebin(&self) -> Option<PathBuf> {
        static FOUND: Mutex<BTreeMap<PathBuf, Option<PathBuf>>> = Mutex::new(BTreeMap::new());
        let mut found = FOUND.lock().unwrap();
        let entry = found.entry(self.bin.clone()).or_insert_with(|| {
            let out = Command::new(self.program("elixir"))
                .args(["-e", "IO.write(:code.lib_dir(:elixir))"])
                .env("LC_ALL", "C.UTF-8")
                .output()
                .ok()?;
            let dir = PathBuf::from(String::from_utf8(out.stdout).ok()?).join("ebin");
            dir.is_dir().then_some(dir)
        });
        entry.clone()
    }

    /// The modules of `beam/`, compiled by this release: newer ones refuse what a much older one compiled.
    pub fn helper_ebin(&self) -> PathBuf {
        static MADE: Mutex<BTreeMap<PathBuf, PathBuf>> = Mutex::new(BTreeMap::new());
        let mut made = MADE.lock().unwrap();
        made.entry(self.bin.clone())
            .or_insert_with(|| {
                // One directory a process: test binaries of two checkouts or profiles may run at once.
                let dir = crate::work_dir(&format!("ebin/otp-{}-{}", self.number, std::process::id()));
                let sources = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/beam")).unwrap();
                let sources = sources
                    .map(|entry| entry.unwrap().path())
                    .filter(|path| path.extension() == Some("erl".as_ref()));
                let out =
                    Command::new(self.program("erlc")).arg("-o").arg(&dir).args(sources).output().unwrap();
                assert!(out.status.success(), "erlc: {}", String::from_utf8_lossy(&out.stdout));
                dir
            })
            .clone()
    }
}

/// The release whose `erl` is on PATH.
///
/// # Panics
/// If there is none: interop tests never pass by testing nothing.
pub fn installed() -> &'static Release {
    static INSTALLED: OnceLock<Release> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .filter(|dir| dir.join("erl").is_file())
            .find_map(|dir| Release::at(&dir))
            .expect("no erl on PATH: run the tests as `make test` or `script/erlang cargo test`")
    })
}

/// The matrix releases found on this machine, oldest first; the installed one stands in for its own number.
pub fn matrix() -> &'static [Release] {
    static FOUND: OnceLock<Vec<Release>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let cache = std::env::var_os("OTP_MATRIX_DIR").map(PathBuf::from).or_else(|| {
            let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache"));
            Some(cache.or(home)?.join("otp-matrix"))
        });
        let mut found = vec![installed().clone()];
        for number in MATRIX.into_iter().filter(|&number| number != installed().number) {
            found.extend(
                cache.as_ref().and_then(|dir| Release::at(&dir.join(number.to_string()).join("bin"))),
            );
        }
        found.sort();
        found
    })
}

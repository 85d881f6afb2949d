//! Programs of this workspace, built if they are not yet.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Once;

/// A binary of the workspace, e.g. `foundation`.
pub fn binary(name: &str) -> PathBuf {
    built(target().join(name))
}

/// An example of this package.
pub fn example(name: &str) -> PathBuf {
    built(target().join("examples").join(name))
}

fn built(program: PathBuf) -> PathBuf {
    build();
    assert!(
        program.exists(),
        "{} is not there; FOUNDATION_BUILT says that everything is built: unset it, or run cargo test --workspace --no-run",
        program.display()
    );
    program
}

/// Where this process was built to; tests and examples are in a folder of their own there.
fn target() -> PathBuf {
    let program = std::env::current_exe().expect("the path of this program");
    let folder = program.parent().expect("programs are in folders");
    let above = folder.ends_with("deps") || folder.ends_with("examples");
    if above { folder.parent().expect("target/<profile>/deps").to_owned() } else { folder.to_owned() }
}

/// The argument of cargo with which this program was built; none for the profiles of development. What it starts is
/// built in the same way.
pub fn profile() -> Option<String> {
    // Cargo's folders have the names of its profiles, but for `debug`.
    let folder = target().file_name()?.to_string_lossy().into_owned();
    (folder != "debug").then(|| format!("--profile={folder}"))
}

/// Builds what `make test` builds, and so nothing if that is what runs.
fn build() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // For whoever has just built it, and has no time to look at the whole workspace.
        if std::env::var_os("FOUNDATION_BUILT").is_some() {
            return;
        }
        let status = cargo()
            .args(["test", "--workspace", "--exclude=foundation-bench-*", "--no-run", "--quiet"])
            .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")])
            .args(profile())
            .status()
            .expect("cargo can be started");
        assert!(status.success(), "the workspace does not build");
    });
}

/// The native functions of the Elixir library, built as `mix test` builds them.
pub fn native() -> PathBuf {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if std::env::var_os("FOUNDATION_BUILT").is_some() {
            return;
        }
        let status = cargo()
            .args(["build", "--quiet", "--features", "probe"])
            .args(profile())
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../nif"))
            .status()
            .expect("cargo can be started");
        assert!(status.success(), "the native functions do not build");
    });
    target().join("libfoundation_nif.so")
}

/// What cargo tells the tests of this package is no concern of the build: ring's build script would run again for it,
/// and everything above it, this program included, be built anew while it runs.
fn cargo() -> Command {
    let mut cargo = Command::new(env!("CARGO"));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if ["CARGO_MANIFEST_", "CARGO_PKG_", "CARGO_CRATE_", "CARGO_BIN_", "CARGO_PRIMARY_"]
            .iter()
            .any(|of_package| text.starts_with(of_package))
        {
            cargo.env_remove(&name);
        }
    }
    cargo
}

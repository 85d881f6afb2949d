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

/// Where this process was built to: the directory above `deps`.
fn target() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this program");
    test.parent().and_then(|deps| deps.parent()).expect("target/<profile>/deps").to_owned()
}

/// Builds what `make test` builds, and so nothing if that is what runs.
fn build() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // For whoever has just built it, and has no time to look at the whole workspace.
        if std::env::var_os("FOUNDATION_BUILT").is_some() {
            return;
        }
        let release = target().file_name().is_some_and(|profile| profile == "release");
        let status = cargo()
            .args(["test", "--workspace", "--exclude=foundation-bench-*", "--no-run", "--quiet"])
            .args(["--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml")])
            .args(release.then_some("--release"))
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
        let release = target().file_name().is_some_and(|profile| profile == "release");
        let status = cargo()
            .args(["build", "--quiet", "--features", "probe"])
            .args(release.then_some("--release"))
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

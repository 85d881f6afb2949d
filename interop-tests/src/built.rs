//! Programs of this workspace, built if they are not yet.

use std::path::PathBuf;
use std::process::Command;

/// A binary of a package, e.g. `foundation`.
pub fn binary(package: &str, name: &str) -> PathBuf {
    build(&["--package", package, "--bin", name]);
    target().join(name)
}

/// An example of this package.
pub fn example(name: &str) -> PathBuf {
    build(&["--package", env!("CARGO_PKG_NAME"), "--example", name]);
    target().join("examples").join(name)
}

/// Where this process was built to: the directory above `deps`.
fn target() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this program");
    test.parent().and_then(|deps| deps.parent()).expect("target/<profile>/deps").to_owned()
}

fn build(what: &[&str]) {
    let release = target().file_name().is_some_and(|profile| profile == "release");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--manifest-path", concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")])
        .args(release.then_some("--release"))
        .args(what)
        .status()
        .expect("cargo can be started");
    assert!(status.success(), "cargo build {what:?}");
}

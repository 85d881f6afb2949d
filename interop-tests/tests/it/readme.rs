//! The two programs of the README run, and greet each other.

use std::fs;
use std::process::{Child, Command, Stdio};

use foundation_interop_tests::{Case, Epmd, built, case, work_dir};

const README: &str = include_str!("../../../README.md");
const EXAMPLE: &str = include_str!("../../examples/readme.rs");

/// The first block of a language.
fn block(language: &str) -> &'static str {
    let start = README.split_once(&format!("```{language}\n")).expect("a block").1;
    start.split_once("```").expect("the end of the block").0
}

#[test]
fn the_rust_program_is_the_example() {
    let with_port =
        block("rust").replace(".cookie(\"secret\")", ".cookie(\"secret\").epmd_port(epmd_port())");
    assert!(EXAMPLE.contains(&with_port), "interop-tests/examples/readme.rs is not the README's program");
}

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_programs_greet_each_other() {
    case(Case::Smoke, "README", "the two programs of the README greet each other", |release| {
        let epmd = Epmd::start(release);
        let rust = Command::new(built::example("readme"))
            .env("ERL_EPMD_PORT", epmd.port.to_string())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let _rust = Running(rust);
        epmd.wait_for("rust");

        let script = work_dir("readme").join(format!("hello-{}.exs", release.number));
        fs::write(&script, block("elixir")).unwrap();
        let out = Command::new(release.program("elixir"))
            .args(["--name", "ex@127.0.0.1", "--cookie", "secret", "--erl", "-start_epmd false"])
            .arg(&script)
            .env("ERL_EPMD_PORT", epmd.port.to_string())
            .env("HOME", work_dir("home"))
            .env("LC_ALL", "C.UTF-8")
            .output()
            .unwrap();
        let (text, errors) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        assert_eq!(text, "Hello, Elixir!\n", "{errors}");
        assert!(out.status.success());
        Ok(())
    });
}

//! Jumps of the clock on the wall, which nothing that waits may look at.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use foundation_interop_tests::case::Unsupported;
use foundation_interop_tests::{Case, Epmd, beam, built, case, eventually::eventually_true, work_dir};

use super::{TICKTIME, TOPIC};
use crate::rust::WAIT;

/// Makes the clock of programs that are linked to it a matter of a file. `script/erlang` installs it as root.
fn library() -> Option<PathBuf> {
    let directories = std::fs::read_dir("/usr/lib").ok()?;
    directories
        .flatten()
        .map(|directory| directory.path().join("faketime/libfaketimeMT.so.1"))
        .find(|library| library.exists())
}

#[test]
fn a_wall_clock_that_jumps() {
    case(
        Case::Full,
        TOPIC,
        "the wall clocks of a Rust node and of a BEAM node jump by an hour and by two days, forth and back: no nodedown, no tick missed, timers as before",
        |release| {
            let Some(library) = library() else {
                let root = Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout == b"0\n");
                assert!(!root, "libfaketime is missing: script/erlang installs it");
                return Err(Unsupported("libfaketime is not installed, and only root can install it"));
            };
            let clock = work_dir("clock").join(format!("{}-{}", std::process::id(), release.number));
            let jump = |by: &str| {
                // Whoever reads it must never see half of it.
                let new = clock.with_extension("new");
                std::fs::write(&new, by).unwrap();
                std::fs::rename(&new, &clock).unwrap();
            };
            jump("+0");
            let fake = [
                ("LD_PRELOAD", library.to_str().unwrap()),
                ("FAKETIME_TIMESTAMP_FILE", clock.to_str().unwrap()),
                ("FAKETIME_NO_CACHE", "1"),
                // Monotonic time stays what it is, as when somebody sets the clock.
                ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
                ("DONT_FAKE_MONOTONIC", "1"),
            ];
            let mut prefix = vec!["env".to_owned()];
            prefix.extend(fake.iter().map(|(name, value)| format!("{name}={value}")));
            let epmd = Epmd::start(release);
            let beam = beam::Options::new(release, epmd.port, "beam")
                .inside(&prefix, "127.0.0.1", "127.0.0.1")
                .args(&format!("-kernel net_ticktime {TICKTIME}"))
                .start();
            let mut node = Command::new(built::binary("foundation"))
                .args(["start", "--name", "clock@127.0.0.1", "--kernel", "net_ticktime"])
                .arg(TICKTIME.to_string())
                .env("FOUNDATION_COOKIE", beam::COOKIE)
                .env("ERL_EPMD_PORT", epmd.port.to_string())
                .env("FOUNDATION_LOG", "error")
                .envs(fake)
                .stdin(Stdio::null())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            BufReader::new(node.stdout.as_mut().unwrap()).read_line(&mut String::new()).unwrap();
            assert_eq!(beam.eval("net_adm:ping('clock@127.0.0.1')"), "pong");
            beam.eval("net_kernel:monitor_nodes(true, [{node_type, all}])");
            let seconds = |code: &str| -> i64 { beam.eval(code).parse().unwrap() };
            let ours = "rpc:call('clock@127.0.0.1', erlang, system_time, [second])";
            let theirs = "os:system_time(second)";
            let start = seconds(theirs);
            let tick = TICKTIME * 1_000;
            // After the last, a tick time and half of one more, in which both sides have only ticks to say.
            for (by, jumped, wait) in [
                ("+3600", 3_600, tick / 2),
                ("-3600", -3_600, tick / 2),
                ("+172800", 172_800, tick / 2),
                ("-172800", -172_800, tick * 3 / 2),
            ] {
                jump(by);
                for clock in [ours, theirs] {
                    eventually_true("the clock has jumped", WAIT, || {
                        (seconds(clock) - start - jumped).abs() < 600
                    });
                }
                let down = beam.eval(&format!(
                    "(fun() -> receive {{nodedown, N, _}} -> N after {wait} -> no end end)()"
                ));
                assert_eq!(down, "no", "after a jump by {by}");
                assert_eq!(beam.eval("net_adm:ping('clock@127.0.0.1')"), "pong");
            }
            let _ = node.kill();
            let _ = node.wait();
            let _ = std::fs::remove_file(&clock);
            eventually_true("the BEAM hears of its end at once", Duration::from_secs(5), || {
                beam.eval("nodes(connected)") == "[]"
            });
            Ok(())
        },
    );
}

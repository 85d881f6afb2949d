//! Nodes that find each other: every strategy against real nodes.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use foundation_interop_tests::{Beam, Case, Epmd, beam, built, case, eventually::eventually_true, work_dir};

use crate::rust::WAIT;

const TOPIC: &str = "discovery";

/// A running `foundation start`. It is killed when this is dropped.
struct Started {
    child: Child,
    log: PathBuf,
}

impl Started {
    /// A node `name` with these arguments and variables, its log in a file.
    fn with(epmd_port: u16, name: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let log = work_dir("discovery").join(format!("{name}-{epmd_port}.log"));
        let mut command = Command::new(built::binary("foundation"));
        for variable in ["RELEASE_NODE", "FOUNDATION_NODE", "FOUNDATION_LOG", "FOUNDATION_ENV", "MIX_ENV"] {
            command.env_remove(variable);
        }
        let child = command
            .args(["start", "--name", name, "--log-format", "logfmt"])
            .args(arguments)
            .env("FOUNDATION_COOKIE", beam::COOKIE)
            .env("ERL_EPMD_PORT", epmd_port.to_string())
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, log }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until the log has a line with all of these words, and returns it.
    #[track_caller]
    fn logs(&self, words: &[&str]) -> String {
        let line = || {
            let log = self.log();
            log.lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned)
        };
        eventually_true(&format!("{words:?} in {}", self.log.display()), WAIT, || line().is_some());
        line().unwrap()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn nodes_of_one_machine_find_each_other_without_configuration() {
    case(
        Case::Smoke,
        TOPIC,
        "two `foundation start` and a BEAM node are one cluster by themselves",
        |release| {
            let epmd = Epmd::start(release);
            let beam = Beam::visible(release, &epmd, "app");
            let development = [("FOUNDATION_ENV", "dev")];
            let one = Started::with(epmd.port, "one@127.0.0.1", &[], &development);
            let two = Started::with(epmd.port, "two@127.0.0.1", &[], &development);
            eventually_true("the BEAM has both", WAIT, || {
                beam.eval("lists:sort(nodes(hidden))") == "['one@127.0.0.1','two@127.0.0.1']"
            });
            one.logs(&["discovery: local_epmd: FOUNDATION_ENV"]);
            one.logs(&[
                "Foundation cluster formed",
                "cluster_id=one",
                "strategy=local_epmd",
                "formation_time_ms=",
            ]);
            for (node, other) in [(&one, "two@127.0.0.1"), (&two, "one@127.0.0.1")] {
                node.logs(&[&format!("connected to {other}")]);
            }
            // A node that comes later, and one that comes back.
            let late = Beam::visible(release, &epmd, "late");
            eventually_true("the late one has both", WAIT, || late.eval("length(nodes(hidden))") == "2");
            drop(late);
            let again = Beam::visible(release, &epmd, "late");
            eventually_true("it is found again", WAIT, || again.eval("length(nodes(hidden))") == "2");
            Ok(())
        },
    );
}

#[test]
fn the_environment_decides() {
    case(
        Case::Full,
        TOPIC,
        "without a terminal or a strategy nothing is dialled; --join and FOUNDATION_CLUSTER are",
        |release| {
            let epmd = Epmd::start(release);
            let beam = Beam::visible(release, &epmd, "app");
            let alone = Started::with(epmd.port, "alone@127.0.0.1", &[], &[]);
            let joined = Started::with(epmd.port, "joined@127.0.0.1", &["--join", beam.name()], &[]);
            let told =
                Started::with(epmd.port, "told@127.0.0.1", &[], &[("FOUNDATION_CLUSTER", "local_epmd")]);
            eventually_true("the BEAM has those two", WAIT, || {
                beam.eval("lists:sort(nodes(hidden))") == "['joined@127.0.0.1','told@127.0.0.1']"
            });
            alone.logs(&["not local_epmd: not started from a terminal"]);
            joined.logs(&["join: app@127.0.0.1 in the configuration"]);
            told.logs(&["local_epmd: written in the configuration"]);
            // Another cookie is said once, with what to do, and not tried again at once.
            let _stranger = beam::Options::new(release, epmd.port, "stranger").cookie("other").start();
            told.logs(&["unable to connect to stranger@127.0.0.1", "another cookie"]);
            Ok(())
        },
    );
}

#[test]
fn hosts_erlang_is_read() {
    case(
        Case::Full,
        TOPIC,
        "the hosts of .hosts.erlang are asked for their nodes, also after a change",
        |release| {
            let epmd = Epmd::start(release);
            let beam = Beam::visible(release, &epmd, "app");
            let file = work_dir("discovery").join(format!("hosts-{}.erlang", epmd.port));
            std::fs::write(&file, "% nothing yet\n'no-such-host.invalid'.\n").unwrap();
            let config = work_dir("discovery").join(format!("hosts-{}.toml", epmd.port));
            let text =
                format!("[cluster]\nstrategy = 'erlang_hosts'\nfile = {file:?}\npolling_interval = 200\n");
            std::fs::write(&config, text).unwrap();
            let node =
                Started::with(epmd.port, "hosts@127.0.0.1", &["--config", config.to_str().unwrap()], &[]);
            node.logs(&["no answer; what it said before stands", "no-such-host.invalid"]);
            std::fs::write(&file, "'no-such-host.invalid'.\n'127.0.0.1'.\n").unwrap();
            eventually_true("the BEAM is found", WAIT, || {
                beam.eval("nodes(hidden)") == "['hosts@127.0.0.1']"
            });
            Ok(())
        },
    );
}

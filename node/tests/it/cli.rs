//! The binary `foundation` as a user runs it, against a node of its own kind.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};

use crate::support::free_port;

const COOKIE: &str = "never-to-be-seen";

fn foundation(epmd_port: u16, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_foundation"));
    command.args(arguments).env("ERL_EPMD_PORT", epmd_port.to_string()).env("FOUNDATION_COOKIE", COOKIE);
    for variable in ["RELEASE_NODE", "RELEASE_COOKIE", "FOUNDATION_NODE", "FOUNDATION_LOG", "RUST_LOG"] {
        command.env_remove(variable);
    }
    command
}

/// `foundation start`, stopped when dropped.
struct Started {
    child: Child,
    epmd_port: u16,
}

impl Started {
    fn new(arguments: &[&str]) -> Self {
        let epmd_port = free_port();
        let mut child = foundation(epmd_port, &[&["start", "--epmd", "embedded"], arguments].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains(" is up, port "), "{line}");
        Self { child, epmd_port }
    }

    fn run(&self, arguments: &[&str]) -> Outcome {
        Outcome(foundation(self.epmd_port, arguments).output().unwrap())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        self.child.wait().unwrap();
    }
}

struct Outcome(Output);

impl Outcome {
    fn out(&self) -> String {
        String::from_utf8(self.0.stdout.clone()).unwrap()
    }

    fn err(&self) -> String {
        String::from_utf8(self.0.stderr.clone()).unwrap()
    }

    fn code(&self) -> Option<i32> {
        self.0.status.code()
    }

    #[track_caller]
    fn is(&self, code: i32, out: &str) -> &Self {
        assert_eq!((self.0.status.code(), self.out().as_str()), (Some(code), out), "{}", self.err());
        assert!(!self.err().contains(COOKIE) && !self.out().contains(COOKIE));
        self
    }

    #[track_caller]
    fn says(&self, text: &str) -> &Self {
        assert!(self.err().contains(text), "{:?} lacks {text:?}", self.err());
        self
    }
}

#[test]
fn results_on_the_output_reasons_on_the_error_and_the_exit_code_between() {
    let node = Started::new(&["--name", "rs@127.0.0.1"]);
    let target = "rs@127.0.0.1";
    node.run(&["ping", target]).is(0, "pong\n");
    node.run(&["rpc", target, "erlang:node()"]).is(0, "'rs@127.0.0.1'\n");
    node.run(&["rpc", target, "erlang", "nodes", "this"]).is(0, "['rs@127.0.0.1']\n");
    node.run(&["--format", "json", "rpc", target, "erlang:nodes(this)"]).is(0, "[\"rs@127.0.0.1\"]\n");
    node.run(&["--format", "elixir", "rpc", target, "erlang:nodes(this)"]).is(0, "[:\"rs@127.0.0.1\"]\n");
    node.run(&["rpc", target, "no:such(1)"])
        .is(1, "")
        .says("** exception error: undefined function no:such/1");
    node.run(&["rpc", target, "erlang:nodes(x)"]).is(1, "").says("** exception error: badarg");
    node.run(&["nodes", target]).is(0, "[]\n");
    node.run(&["pid", target]).is(0, &format!("{}\n", node.child.id()));
    node.run(&["call", target, "net_kernel", "{is_auth, a}"]).is(0, "yes\n");
    node.run(&["call", target, "nobody", "hello"]).is(1, "").says("noproc");
    node.run(&["cast", target, "nobody", "hello"]).is(0, "");
    node.run(&["send", target, "nobody", "hello"]).is(0, "");
    let names = node.run(&["names"]);
    assert!(names.out().starts_with(&format!(
        "epmd: up and running on port {} with data:\nname rs at port ",
        node.epmd_port
    )));

    node.run(&["ping", "nobody@127.0.0.1"]).is(69, "pang\n").says("no node named nobody is registered");
    node.run(&["ping", "rs@host.invalid"]).is(69, "pang\n").says("cannot be resolved");
    node.run(&["ping", "a b@h"]).is(64, "").says("no node name");
    node.run(&["ping", "--setcookie", "other", target])
        .is(77, "pang\n")
        .says("has another cookie")
        .says("`ps`");
    node.run(&["rpc", target, "lists:seq(1"]).is(64, "").says("line 1");
    node.run(&["no-such-command"]).is(64, "");
    node.run(&["ping", "--kernel", "net_setuptime", "500", target]).is(78, "").says("net_setuptime");
    node.run(&["start", "--name", "rs@127.0.0.1"])
        .is(69, "")
        .says("seems to be in use by another Erlang node");
    node.run(&["version"]).is(0, &format!("foundation {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_node_stops_when_it_is_told_to() {
    let mut node = Started::new(&["--sname", "rs@localhost", "--log-format", "json"]);
    node.run(&["ping", "rs@localhost"]).is(0, "pong\n");
    node.run(&["stop", "rs@localhost"]).is(0, "");
    assert!(node.child.wait().unwrap().success());
    node.run(&["names"]).is(1, "").says("epmd: Cannot connect to local epmd");
}

/// A process of its own, so that its memory is nobody else's.
#[test]
fn half_open_connections_leave_nothing_behind() {
    let node = Started::new(&["--name", "rs@127.0.0.1", "--log", "error"]);
    let names = node.run(&["names"]).out();
    let port: u16 = names.trim().rsplit(' ').next().unwrap().parse().unwrap();
    let resident = || {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", node.child.id())).unwrap();
        statm.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    let flood = || {
        let mut open = Vec::new();
        for n in 0..500u32 {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
            // Silent, or a handshake that stops half-way, or nonsense; those that were pushed out may be closed already.
            let _ = match n % 3 {
                0 => Ok(()),
                1 => stream.write_all(b"\0\x1dN\0\0\0\x0d\x07\xdf"),
                _ => stream.write_all(&n.to_be_bytes()),
            };
            open.push(stream);
        }
    };
    flood();
    let before = resident();
    for _ in 0..8 {
        flood();
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < 2 << 20, "{grown} bytes more after 4,000 half-open connections");
    node.run(&["ping", "rs@127.0.0.1"]).is(0, "pong\n");
}

#[test]
fn the_environment_names_the_target_of_a_command_and_the_name_of_a_node() {
    let node = Started::new(&["--name", "rs@127.0.0.1"]);
    let mut ping = foundation(node.epmd_port, &["ping"]);
    Outcome(ping.env("RELEASE_NODE", "rs@127.0.0.1").output().unwrap()).is(0, "pong\n");
    node.run(&["ping"]).is(64, "").says("no node given");
}

/// With few descriptors, a node waits until some are free; those who are connected notice nothing.
#[test]
fn running_out_of_descriptors_is_survived() {
    let epmd_port = free_port();
    let limited = ["-c", "ulimit -n 40; exec \"$0\" start --epmd embedded --name rs@127.0.0.1 --log error"];
    let mut child = Command::new("sh")
        .args(limited)
        .arg(env!("CARGO_BIN_EXE_foundation"))
        .env("ERL_EPMD_PORT", epmd_port.to_string())
        .env("FOUNDATION_COOKIE", COOKIE)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let port: u16 = line.trim().rsplit(' ').next().unwrap().parse().unwrap();
    let node = Started { child, epmd_port };
    let flood: Vec<TcpStream> = (0..100).map(|_| TcpStream::connect(("127.0.0.1", port)).unwrap()).collect();
    // Some of them were accepted, the rest waits in the kernel's queue and goes with the flood.
    drop(flood);
    let deadline = std::time::Instant::now() + crate::support::DEADLINE;
    while node.run(&["ping", "rs@127.0.0.1"]).out() != "pong\n" {
        assert!(std::time::Instant::now() < deadline);
    }
}

#[test]
fn completions_and_the_manual_name_every_command() {
    let port = free_port();
    let said = |arguments: &[&str]| {
        let output = foundation(port, arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let text = said(&["completions", shell]);
        assert!(text.contains("rpc") && text.contains("--cookie-file"), "{shell}");
    }
    let page = said(&["man"]);
    assert!(
        page.contains(".TH foundation 1") && page.contains("EXIT STATUS") && page.contains("rpc"),
        "{page}"
    );
    assert!(said(&["man", "rpc"]).contains(".TH foundation-rpc 1"));
    let output = foundation(port, &["man", "no-such"]).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
}

#[test]
fn arguments_come_from_a_file_too() {
    let file = std::env::temp_dir().join(format!("foundation-vm-args-{}", std::process::id()));
    std::fs::write(&file, "# a release's vm.args\n-name filed@127.0.0.1\n+P 1048576\n").unwrap();
    let node = Started::new(&["-args_file", file.to_str().unwrap()]);
    let names = node.run(&["names"]);
    assert!(String::from_utf8_lossy(&names.0.stdout).contains("name filed at port"), "{:?}", names.0);
    let output = foundation(node.epmd_port, &["-args_file", "/no/such/file", "names"]).output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    std::fs::remove_file(file).unwrap();
}

#[test]
fn the_configuration_is_shown_with_its_origins_and_without_secrets() {
    let file = std::env::temp_dir().join(format!("foundation-config-{}.toml", std::process::id()));
    let text =
        "net_ticktime = 8\n[cluster]\nstrategy = 'gossip'\nsecret = 'hush-hush'\n[limits]\npeers = 9\n";
    std::fs::write(&file, text).unwrap();
    let path = file.to_str().unwrap();
    let run = |arguments: &[&str]| {
        let arguments = [&["--config", path], arguments].concat();
        Outcome(foundation(free_port(), &arguments).env("FOUNDATION_LIMITS__DIALS", "3").output().unwrap())
    };
    let written = run(&["config", "show", "--sname", "x@h"]);
    assert_eq!(written.code(), Some(0), "{}", written.err());
    for line in [
        ("net_ticktime = 8", format!("# {path}:1")),
        ("cluster.secret = \"***\"", format!("# {path}:4")),
        ("limits.peers = 9", format!("# {path}:6")),
        ("limits.dials = 3", "# FOUNDATION_LIMITS__DIALS".to_owned()),
        ("name = \"x@h\"", "# --sname".to_owned()),
        ("cookie = \"***\"", "# FOUNDATION_COOKIE".to_owned()),
    ] {
        let found = written.out().lines().any(|out| out.starts_with(line.0) && out.ends_with(&line.1));
        assert!(found, "{line:?} in {}", written.out());
    }
    assert!(!written.out().contains("# default"), "{}", written.out());
    let effective = run(&["config", "show", "--effective"]);
    for line in ["net_setuptime = 7 ", "# cookie_file is not set ", "proto_dist = \"inet_tcp\" "] {
        assert!(effective.out().contains(line), "{line} in {}", effective.out());
    }
    let json = run(&["config", "show", "--json"]);
    assert!(json.out().starts_with("{\"values\":[{\"key\":\"cluster."), "{}", json.out());
    for outcome in [&written, &effective, &json] {
        assert!(!outcome.out().contains("hush-hush") && !outcome.out().contains(COOKIE));
    }

    let right = run(&["config", "check", "--name", "x@127.0.0.1"]);
    assert_eq!(right.code(), Some(0), "{}", right.err());
    for line in ["name: x@127.0.0.1", "cookie: FOUNDATION_COOKIE", "discovery: gossip: written", "is right"] {
        assert!(right.out().contains(line), "{line} in {}", right.out());
    }
    for (text, arguments, word) in [
        ("hidden = true\nnet_tick = 1", &[][..], ":2: unknown key `net_tick`"),
        ("net_tickintensity = 1", &[], "net_tickintensity"),
        ("[cluster]\nstrategy = 'gossip'\nsecrt = 'hush-hush'", &[], ":3: unknown key `secrt`"),
        ("", &["--sname", "x@a.b"], "has a dot"),
        ("proto_dist = 'inet_tls'", &[], "cacertfile"),
        ("cookie_file = '/no/such/file'", &[], "/no/such/file"),
    ] {
        std::fs::write(&file, text).unwrap();
        let arguments = [&["--config", path, "config", "check"], arguments].concat();
        let mut command = foundation(free_port(), &arguments);
        if text.contains("cookie_file") {
            command.env_remove("FOUNDATION_COOKIE");
        }
        let wrong = Outcome(command.output().unwrap());
        assert_eq!(wrong.code(), Some(78), "{text}: {}", wrong.out());
        assert!(wrong.err().contains(word) && !wrong.err().contains("hush-hush"), "{text}: {}", wrong.err());
    }
    std::fs::remove_file(&file).unwrap();
}

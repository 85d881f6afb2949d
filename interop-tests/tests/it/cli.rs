//! The command `foundation` against real nodes: what it prints, how it ends, and what it says when it cannot.

use std::process::{Command, Stdio};

use foundation_interop_tests::{Beam, Case, Epmd, beam, built, case, epmd, eventually::eventually_true};

use crate::rust::WAIT;

const TOPIC: &str = "command line";

/// Exit code, standard output, standard error.
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// `foundation` with the harness's cookie.
pub(crate) fn foundation(epmd_port: u16, cookie: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(built::binary("foundation"));
    command
        .args(arguments)
        .env("FOUNDATION_COOKIE", cookie)
        .env("ERL_EPMD_PORT", epmd_port.to_string())
        .env_remove("RELEASE_NODE")
        .env_remove("FOUNDATION_NODE")
        .env_remove("FOUNDATION_LOG")
        .stdin(Stdio::null());
    command
}

pub(crate) fn run(epmd: &Epmd, arguments: &[&str]) -> Outcome {
    run_with(epmd.port, beam::COOKIE, arguments)
}

fn run_with(epmd_port: u16, cookie: &str, arguments: &[&str]) -> Outcome {
    let out = foundation(epmd_port, cookie, arguments).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let outcome = Outcome { code: out.status.code(), out: text(out.stdout), err: text(out.stderr) };
    assert!(!outcome.err.contains(cookie), "the cookie stands in: {}", outcome.err);
    outcome
}

#[track_caller]
pub(crate) fn prints(outcome: &Outcome, expected: &str) {
    assert_eq!((outcome.out.as_str(), outcome.code), (expected, Some(0)), "{}", outcome.err);
}

#[test]
fn calls_into_a_beam_node() {
    case(Case::Smoke, TOPIC, "ping, rpc, call, cast, send, pid, nodes and names of a BEAM node", |release| {
        let epmd = Epmd::start(release);
        let beam = beam::Options::new(release, epmd.port, "app").elixir().start();
        let node = "app@127.0.0.1";
        prints(&run(&epmd, &["ping", node]), "pong\n");
        prints(&run(&epmd, &["rpc", node, "lists:seq(1, 5)"]), "[1,2,3,4,5]\n");
        prints(&run(&epmd, &["rpc", node, ":lists.seq(1, 5)"]), "[1,2,3,4,5]\n");
        prints(
            &run(&epmd, &["rpc", node, "lists", "reverse", "[a, \"b\", <<\"c\">>]"]),
            "[<<\"c\">>,\"b\",a]\n",
        );
        prints(
            &run(&epmd, &["rpc", node, "--format", "elixir", "Enum.map([1, 2], &Integer.to_string/1)"]),
            "[\"1\", \"2\"]\n",
        );
        // A result that takes several lines, as io:format prints it.
        let long = "lists:duplicate(30, {key, \"value\"})";
        let expected =
            beam.eval_bytes(&format!("unicode:characters_to_binary(io_lib:format(\"~p~n\", [{long}]))"));
        prints(&run(&epmd, &["rpc", node, long]), &String::from_utf8(expected).unwrap());

        beam.elixir(
            "defmodule Box do
               use GenServer
               def init(v), do: {:ok, v}
               def handle_call(:get, _, v), do: {:reply, v, v}
               def handle_cast(v, _), do: {:noreply, v}
               def handle_info(v, _), do: {:noreply, {:info, v}}
             end
             {:ok, _} = GenServer.start(Box, 1, name: :box)",
        );
        prints(&run(&epmd, &["call", node, "box", "get"]), "1\n");
        assert_eq!(run(&epmd, &["cast", node, "box", "{new, [1]}"]).code, Some(0));
        prints(&run(&epmd, &["call", node, "box", "get"]), "{new,[1]}\n");
        assert_eq!(run(&epmd, &["send", node, "box", "hello"]).code, Some(0));
        prints(&run(&epmd, &["call", node, "box", ":get"]), "{info,hello}\n");

        prints(&run(&epmd, &["pid", node]), &format!("{}\n", beam.pid()));
        let _other = Beam::visible(release, &epmd, "other");
        assert_eq!(beam.eval("net_adm:ping('other@127.0.0.1')"), "pong");
        prints(&run(&epmd, &["nodes", node]), "['other@127.0.0.1']\n");
        let names = run(&epmd, &["names"]);
        assert!(
            names.out.starts_with(&format!("epmd: up and running on port {} with data:\n", epmd.port)),
            "{}",
            names.out
        );
        assert!(
            names.out.contains("name app at port ") && names.out.contains("name other at port "),
            "{}",
            names.out
        );
        // A command leaves nothing behind: not even its connection.
        eventually_true("the commands are gone", WAIT, || beam.eval("nodes(hidden)") == "[]");
        Ok(())
    });
}

#[test]
fn says_what_is_wrong() {
    case(Case::Full, TOPIC, "errors have their exit codes and say what happened", |release| {
        let epmd = Epmd::start(release);
        let _beam = Beam::visible(release, &epmd, "app");
        let node = "app@127.0.0.1";
        let raised = run(&epmd, &["rpc", node, "erlang:'/'(1, 0)"]);
        assert_eq!(raised.code, Some(1), "{}", raised.err);
        assert!(raised.err.contains("badarith"), "{}", raised.err);
        let undefined = run(&epmd, &["rpc", node, "nobody:knows()"]);
        assert_eq!(undefined.code, Some(1));
        assert!(undefined.err.contains("undef"), "{}", undefined.err);
        let absent = run(&epmd, &["call", node, "absent", "x"]);
        assert_eq!(absent.code, Some(1));
        assert!(absent.err.contains("noproc"), "{}", absent.err);

        let cookie = run_with(epmd.port, "xyzzy", &["ping", node]);
        assert_eq!(cookie.code, Some(77), "{}", cookie.err);
        assert!(cookie.err.contains("cookie"), "{}", cookie.err);
        let unknown = run(&epmd, &["ping", "nobody@127.0.0.1"]);
        assert_eq!(unknown.code, Some(69));
        assert!(unknown.err.contains("nobody"), "{}", unknown.err);
        let syntax = run(&epmd, &["rpc", node, "lists:seq(1,"]);
        assert_eq!(syntax.code, Some(64), "{}", syntax.err);
        assert_eq!(run(&epmd, &["no-such-command"]).code, Some(64));

        let nobody = epmd::free_port();
        let names = run_with(nobody, beam::COOKIE, &["names"]);
        assert_eq!(names.code, Some(1), "{}", names.err);
        assert_eq!(run_with(nobody, beam::COOKIE, &["ping", node]).code, Some(69));

        // Registered, but nobody listens there any more.
        let closed = epmd::free_port();
        let _registered = epmd.register("ghost", closed);
        let ghost = run(&epmd, &["ping", "ghost@127.0.0.1"]);
        assert_eq!(ghost.code, Some(69));
        assert!(ghost.err.contains(&closed.to_string()), "{}", ghost.err);
        Ok(())
    });
}

#[test]
fn a_started_node_serves_a_beam() {
    case(
        Case::Smoke,
        TOPIC,
        "`foundation start` is a node that a BEAM node pings, and stops in order",
        |release| {
            let epmd = Epmd::start(release);
            let mut started = foundation(epmd.port, beam::COOKIE, &["start", "--name", "started@127.0.0.1"])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            epmd.wait_for("started");
            let beam = Beam::visible(release, &epmd, "app");
            assert_eq!(beam.eval("net_adm:ping('started@127.0.0.1')"), "pong");
            prints(&run(&epmd, &["ping", "started@127.0.0.1"]), "pong\n");
            let stopped = run(&epmd, &["stop", "started@127.0.0.1"]);
            assert_eq!(stopped.code, Some(0), "{}", stopped.err);
            eventually_true("the process ends", WAIT, || started.try_wait().unwrap().is_some());
            assert_eq!(started.wait().unwrap().code(), Some(0));
            eventually_true("the BEAM has noticed", WAIT, || beam.eval("nodes(hidden)") == "[]");
            Ok(())
        },
    );
}

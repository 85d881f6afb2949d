//! Captures the golden files of `interop-tests/golden` from the releases that this machine has.
//!
//! `cargo run -p foundation-interop-tests --bin golden [RELEASE…]`. What a BEAM says changes from run to run (creations,
//! challenges, process ids), so files are replaced only by a deliberate run; the terms are the same each time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a development tool: it stops with a message"
)]

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use foundation_interop_tests::capture::{Proxy, Stream, split};
use foundation_interop_tests::{Beam, Epmd, Release, beam, eventually, otp};

fn main() {
    let wanted: Vec<u32> = std::env::args().skip(1).map(|n| n.parse().expect("a release number")).collect();
    for release in otp::matrix().iter().filter(|r| wanted.is_empty() || wanted.contains(&r.number)) {
        let dir = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/golden"))
            .join(format!("otp-{}", release.number));
        fs::create_dir_all(&dir).unwrap();
        terms(release, &dir);
        for (file, hidden) in [("visible", ""), ("hidden", "-hidden")] {
            traffic(release, &dir, file, hidden);
        }
        println!("OTP {} -> {}", release.version, dir.display());
    }
}

fn terms(release: &Release, dir: &Path) {
    let epmd = Epmd::start(release);
    let node = Beam::visible(release, &epmd, "golden");
    for part in ["terms", "encodings", "order", "printed"] {
        let extension = if part == "order" { "txt" } else { "tsv" };
        let text = node.eval_bytes(&format!("unicode:characters_to_binary(foundation_corpus:{part}())"));
        fs::write(dir.join(format!("{part}.{extension}")), text).unwrap();
    }
}

/// What `a` and `b` say to each other: `a` reaches `b` through a proxy, which a second EPMD knows under `b`'s name.
fn traffic(release: &Release, dir: &Path, file: &str, hidden: &str) {
    let (real, front) = (Epmd::start(release), Epmd::start(release));
    let epmd_proxy = Proxy::start(front.port);
    let b = beam::Options::new(release, real.port, "b").args(hidden).start();
    let proxy = Proxy::start(real.wait_for("b"));
    let _registered = front.register("b", proxy.port);
    let a = beam::Options::new(release, epmd_proxy.port, "a").args(hidden).start();

    b.eval("Echo = spawn(fun F() -> receive {From, Message} -> From ! {echo, Message}, F() end end), register(echo, Echo)");
    a.eval("B = 'b@127.0.0.1'");
    let mut steps = vec![
        "net_adm:ping(B)",
        "Ask = fun(M) -> {echo, B} ! {self(), M}, receive {echo, M} -> ok after 5000 -> exit(timeout) end end",
        "Ask({hello, 1, -1, 1.5, <<\"bin\">>, \"str\", [a | b], #{key => [value]}, self(), make_ref()})",
        "[Ask({again, N}) || N <- [1, 2]], ok",
        "Ask(list_to_atom(lists:duplicate(200, 16#20AC)))",
        "Ask(binary:copy(<<0>>, 150000))",
        "Pid = rpc:call(B, erlang, whereis, [echo])",
        "Pid ! {self(), to_pid}, receive {echo, to_pid} -> ok after 5000 -> exit(timeout) end",
        "Sleep = fun() -> spawn(B, timer, sleep, [infinity]) end",
        "process_flag(trap_exit, true), L1 = Sleep(), link(L1), unlink(L1), link(L1), exit(L1, bye), \
         receive {'EXIT', L1, bye} -> ok after 5000 -> exit(timeout) end",
        "L2 = spawn_link(B, erlang, exit, [{shutdown, over}]), \
         receive {'EXIT', L2, {shutdown, over}} -> ok after 5000 -> exit(timeout) end",
        "Me = self(), L3 = Sleep(), Linked = spawn(fun() -> link(L3), Me ! linked, exit(own_reason) end), \
         receive linked -> Linked after 5000 -> exit(timeout) end",
        "M1 = monitor(process, {echo, B}), demonitor(M1), monitor(process, {nobody, B}), \
         receive {'DOWN', _, _, _, noproc} -> ok after 5000 -> exit(timeout) end",
        "P4 = Sleep(), M2 = monitor(process, P4), exit(P4, kill), \
         receive {'DOWN', M2, process, P4, killed} -> ok after 5000 -> exit(timeout) end",
        "erpc:call(B, lists, seq, [1, 5])",
        "catch erpc:call(B, erlang, error, [{my, reason}])",
        "rpc:call(B, no_module, no_function, [1])",
        "rpc:cast(B, erlang, node, [])",
        "spawn_request(B, erlang, node, [], [link, monitor]), \
         receive {spawn_reply, _, ok, _} -> ok after 5000 -> exit(timeout) end",
        "spawn_request(B, erlang, node, [], [bad_option]), \
         receive {spawn_reply, _, error, badopt} -> ok after 5000 -> exit(timeout) end",
        "group_leader(group_leader(), Pid), ok",
        "Talker = spawn(B, io, format, [\"from ~p~n\", [b]]), is_pid(Talker)",
        "exit(rpc:call(B, erlang, whereis, [echo]), normal), Ask(still_there)",
        "gen_server:call({net_kernel, B}, {is_auth, node()})",
        "erlang:monitor_node(B, true), net_kernel:monitor_nodes(true, [{node_type, all}])",
    ];
    if release.number >= 24 {
        steps.push(
            "rpc:call(B, erlang, apply, [fun() -> register(aliased, spawn(fun() -> receive A -> A ! {aliased, ok} end end)) end, []]), \
             Alias = alias(), {aliased, B} ! Alias, receive {aliased, ok} -> unalias(Alias) after 5000 -> exit(timeout) end",
        );
    }
    for step in steps {
        a.eval(step);
    }
    // What b sends by itself afterwards: exits of the processes that a linked to and left.
    eventually("the echo of the last step passed", Duration::from_secs(5), || {
        (a.eval("Ask(last)") == "ok").then_some(())
    });

    let streams = proxy.streams();
    let stream = streams.last().expect("a connected to b");
    fs::write(dir.join(format!("connection-{file}.txt")), connection(release, stream)).unwrap();
    if hidden.is_empty() {
        fs::write(dir.join("epmd.txt"), epmd_text(release, &epmd_proxy.streams())).unwrap();
    }
}

fn connection(release: &Release, stream: &Stream) -> String {
    let mut text = format!(
        "# OTP {}: a@127.0.0.1 connects to b@127.0.0.1, cookie {}; each line is one message without its length.\n",
        release.version,
        beam::COOKIE
    );
    for (sign, bytes, handshake) in [('>', &stream.initiator, 2), ('<', &stream.acceptor, 3)] {
        let messages = split(bytes, handshake);
        let _ = writeln!(
            text,
            "# {} to the {}: {handshake} handshake messages, {} frames",
            if sign == '>' { "initiator" } else { "acceptor" },
            if sign == '>' { "acceptor" } else { "initiator" },
            messages.len() - handshake
        );
        for message in messages {
            let _ = writeln!(text, "{sign} {}", hex(&message));
        }
    }
    text
}

fn epmd_text(release: &Release, streams: &[Stream]) -> String {
    let mut text = format!(
        "# OTP {}: what a node says to EPMD (>) and EPMD's answer (<), one connection a block.\n",
        release.version
    );
    for stream in streams {
        let _ = writeln!(text, "> {}\n< {}", hex(&stream.initiator), hex(&stream.acceptor));
    }
    text
}

/// Hexadecimal, with runs of one byte as `{xx*count}`.
fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for run in bytes.chunk_by(|a, b| a == b) {
        if run.len() >= 32 {
            let _ = write!(text, "{{{:02x}*{}}}", run[0], run.len());
        } else {
            run.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
        }
    }
    text
}

//! `make demo`: an unmodified Elixir node and a Rust node in one cluster, step by step, as a transcript.
//!
//! The Elixir node is `elixir --no-halt` and nothing else: whatever it does, it was asked to by the Rust node through
//! `:erpc`, in the text that the transcript shows. Each step says what it expects; the first that fails ends the demo with
//! exit code 1.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a demonstration: it stops with a message"
)]

use std::fmt::Display;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use foundation_interop_tests::{Epmd, Release, otp, work_dir};
use foundation_node::Node;
use foundation_node::config::NodeConfig;
use foundation_node::event::{Event, Events};
use foundation_node::gen_server::{CallFrom, CallOutcome, GenServer};
use foundation_node::net_kernel::NodeType;
use foundation_node::process::{Message, Process, Reason};
use foundation_proto::Limits;
use foundation_proto::etf::text::{Printer, parse_elixir};
use foundation_proto::etf::{Atom, Term};

const ELIXIR: &str = "ex@127.0.0.1";
const RUST: &str = "rust@127.0.0.1";
const WAIT: Duration = Duration::from_secs(10);

type Step = Result<(), String>;

fn main() -> ExitCode {
    let started = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    match runtime.block_on(demo()) {
        Ok(()) => {
            println!("\nAll steps as expected, in {:.1} s.", started.elapsed().as_secs_f64());
            ExitCode::SUCCESS
        }
        Err(why) => {
            println!("\nFAILED: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn demo() -> Step {
    let release = otp::installed();
    let epmd = Epmd::start(release);
    println!("An Elixir node and a Rust node in one cluster, on an EPMD of their own (port {})\n", epmd.port);
    let elixir = ElixirNode::start(release, epmd.port);
    println!("  elixir   {}", elixir.command);
    let config = NodeConfig::new(RUST).cookie("demo").epmd_port(epmd.port);
    let node = Node::start(config).await.map_err(|error| error.to_string())?;
    println!("  rust     Node::start(NodeConfig::new(\"{RUST}\")), hidden");
    until("the Elixir node is registered", || epmd.names().iter().any(|(name, _)| name == "ex")).await?;

    let mut demo = Demo { events: node.events(), node, step: 0 };
    demo.meet().await?;
    demo.ping().await?;
    demo.calls().await?;
    demo.rpc().await?;
    demo.links().await?;
    demo.ten_megabytes().await?;
    let elixir = demo.restart(elixir, release, epmd.port).await?;
    demo.node.stop().await;
    drop(elixir);
    Ok(())
}

/// `elixir --no-halt`, killed when dropped.
struct ElixirNode {
    child: Child,
    command: String,
}

impl ElixirNode {
    fn start(release: &Release, epmd_port: u16) -> Self {
        let log = File::create(log_file()).unwrap();
        let arguments =
            ["--name", ELIXIR, "--cookie", "demo", "--erl", "-noinput -start_epmd false", "--no-halt"];
        let child = Command::new(release.program("elixir"))
            .args(arguments)
            .env("ERL_EPMD_PORT", epmd_port.to_string())
            .env("HOME", work_dir("home"))
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("elixir can be started");
        let command =
            format!("elixir --name {ELIXIR} --cookie demo --no-halt   (Erlang/OTP {})", release.version);
        Self { child, command }
    }

    fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for ElixirNode {
    fn drop(&mut self) {
        self.kill();
    }
}

fn log_file() -> PathBuf {
    work_dir("log").join("demo-elixir.log")
}

/// Counts: `{:add, n}` answers the new count, `:crash` ends it.
struct Counter(i64);

impl GenServer for Counter {
    type Call = Term;
    type Reply = Term;
    type Cast = Term;

    async fn handle_call(
        &mut self,
        request: Term,
        _from: CallFrom,
        _process: &mut Process,
    ) -> CallOutcome<Term> {
        match request.as_tuple() {
            Some([add, n]) if add.is_atom("add") => {
                self.0 += n.as_i64().unwrap_or(0);
                CallOutcome::Reply(self.0.into())
            }
            _ => CallOutcome::Stop(Reason::from(request)),
        }
    }
}

struct Demo {
    node: Node,
    events: Events,
    step: u32,
}

impl Demo {
    async fn meet(&mut self) -> Step {
        self.title("Each sees the other");
        let link = self.node.connect(ELIXIR).await.map_err(|error| error.to_string())?;
        self.rust(format!("node.connect(\"{ELIXIR}\").await"), link.peer().name.as_str(), ELIXIR)?;
        let nodes = self.node.nodes(NodeType::Connected);
        let names: Vec<_> = nodes.iter().map(Atom::as_str).collect();
        self.rust("node.nodes(NodeType::Connected)", names.join(", "), ELIXIR)?;
        self.elixir("Node.list(:hidden)", "[:\"rust@127.0.0.1\"]").await
    }

    async fn ping(&mut self) -> Step {
        self.title("Ping, both ways");
        self.elixir("Node.ping(:\"rust@127.0.0.1\")", ":pong").await?;
        let request = term("{:is_auth, :\"rust@127.0.0.1\"}");
        let answer = self.node.call(("net_kernel", ELIXIR), request, WAIT).await;
        self.rust("node.call((\"net_kernel\", ex), {:is_auth, rust})", shown(answer)?, ":yes")
    }

    async fn calls(&mut self) -> Step {
        self.title("GenServer.call, both ways");
        self.node.start_server(Some("counter"), Counter(0)).map_err(|error| error.to_string())?;
        self.elixir("GenServer.call({:counter, :\"rust@127.0.0.1\"}, {:add, 2})", "2").await?;
        self.elixir("GenServer.call({:counter, :\"rust@127.0.0.1\"}, {:add, 40})", "42").await?;
        self.elixir(
            "defmodule Greeter do
               use GenServer
               def init(greeting), do: {:ok, greeting}
               def handle_call({:greet, name}, _from, greeting), do: {:reply, \"#{greeting}, #{name}!\", greeting}
             end
             GenServer.start(Greeter, \"Hello\", name: Greeter) |> elem(0)",
            ":ok",
        )
        .await?;
        let answer = self.node.call(("Elixir.Greeter", ELIXIR), term("{:greet, \"Rust\"}"), WAIT).await;
        self.rust(
            "node.call((\"Elixir.Greeter\", ex), {:greet, \"Rust\"})",
            shown(answer)?,
            "\"Hello, Rust!\"",
        )
    }

    async fn rpc(&mut self) -> Step {
        self.title("Remote calls, both ways");
        self.node.export("demo", "add", 2, |args| async move {
            Ok(Term::from(args.iter().filter_map(Term::as_i64).sum::<i64>()))
        });
        self.elixir(":rpc.call(:\"rust@127.0.0.1\", :demo, :add, [40, 2])", "42").await?;
        self.elixir(":erpc.call(:\"rust@127.0.0.1\", :demo, :add, [1, 2])", "3").await?;
        let args = vec![Term::from(1), Term::from(5)];
        let answer = self.node.erpc(&Atom::new_static(ELIXIR), "lists", "seq", args, WAIT).await;
        self.rust("node.erpc(ex, \"lists\", \"seq\", [1, 5])", shown(answer)?, "[1, 2, 3, 4, 5]")
    }

    async fn links(&mut self) -> Step {
        self.title("Links, monitors and exits, both ways");
        // Elixir watches Rust.
        self.elixir(
            "ref = Process.monitor({:counter, :\"rust@127.0.0.1\"})
             catch_exit = fn -> try do GenServer.call({:counter, :\"rust@127.0.0.1\"}, :crash) catch :exit, {reason, _} -> reason end end
             {catch_exit.(), receive do {:DOWN, ^ref, :process, _, reason} -> reason after 5000 -> nil end}",
            "{:crash, :crash}",
        )
        .await?;
        let mut worker = self.node.mailbox("worker").map_err(|error| error.to_string())?;
        worker.trap_exit(true);
        let watch = "Process.flag(:trap_exit, true)
             pid = :erpc.call(:\"rust@127.0.0.1\", :demo, :worker, [])
             Process.link(pid)
             Process.exit(pid, :please_stop)
             receive do {:EXIT, ^pid, reason} -> reason after 5000 -> nil end";
        let pid = worker.pid().clone();
        self.node.export("demo", "worker", 0, move |_| {
            let pid = pid.clone();
            async move { Ok(Term::Pid(pid)) }
        });
        let answer = tokio::spawn({
            let node = self.node.clone();
            async move { eval(&node, watch).await }
        });
        let reason = exit_reason(worker.recv().await)?;
        self.rust("worker.recv().await   (traps exits)", format!("EXIT {reason}"), "EXIT :please_stop")?;
        worker.stop(Reason::from("done"));
        self.shown("elixir", watch, answer.await.map_err(|error| error.to_string())??, ":done")?;

        // Rust watches Elixir.
        let mut watcher = self.node.process().map_err(|error| error.to_string())?;
        watcher.trap_exit(true);
        let args = vec![term("{:shutdown, :bye}")];
        let ex = Atom::new_static(ELIXIR);
        let spawned = watcher.spawn_remote(&ex, "erlang", "exit", args, true, true).await;
        spawned.map_err(|error| error.to_string())?;
        let mut heard = vec![exit_reason(watcher.recv().await)?, exit_reason(watcher.recv().await)?];
        heard.dedup();
        self.rust(
            "watcher.spawn_remote(ex, \"erlang\", \"exit\", [{:shutdown, :bye}], link, monitor)",
            format!("EXIT and DOWN: {}", heard.join(" and ")),
            "EXIT and DOWN: {:shutdown, :bye}",
        )
    }

    async fn ten_megabytes(&mut self) -> Step {
        self.title("10 MB there and back");
        let started = Instant::now();
        let bytes: Vec<u8> =
            (0..10 << 20).map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let sent = Term::binary(&bytes);
        let back = self
            .node
            .erpc(&Atom::new_static(ELIXIR), "lists", "last", vec![Term::list([sent.clone()])], WAIT)
            .await;
        let same = back.map_err(|error| error.to_string())? == sent;
        let took = started.elapsed().as_millis();
        self.rust("node.erpc(ex, \"lists\", \"last\", [[ten_megabytes]]) == ten_megabytes", same, "true")?;
        println!("           {took} ms");

        self.node.export("demo", "same", 1, |mut args| async move { Ok(args.remove(0)) });
        self.elixir(
            "big = :crypto.strong_rand_bytes(10 * 1024 * 1024)
             :erpc.call(:\"rust@127.0.0.1\", :demo, :same, [big]) == big",
            "true",
        )
        .await
    }

    async fn restart(
        &mut self,
        mut elixir: ElixirNode,
        release: &Release,
        epmd_port: u16,
    ) -> Result<ElixirNode, String> {
        self.title("The Elixir node is killed, starts again, and the Rust node is back in touch by itself");
        let mut watcher = self.node.process().map_err(|error| error.to_string())?;
        watcher.monitor(("Elixir.Greeter", ELIXIR)).await.map_err(|error| error.to_string())?;
        // A call after it, so that the monitor has arrived.
        eval(&self.node, ":ok").await?;
        while tokio::time::timeout(Duration::ZERO, self.events.next()).await.is_ok() {}
        elixir.kill();
        println!("   $       kill -9 {}", elixir.child.id());
        match tokio::time::timeout(WAIT, self.events.next()).await {
            Ok(Some(Event::NodeDown { node, reason, .. })) => {
                let text = format!("NodeDown {} {}", node.as_str(), reason.atom().as_str());
                self.rust("node.events().next().await", text, "NodeDown ex@127.0.0.1 connection_closed")?;
            }
            other => return Err(format!("instead of NodeDown: {other:?}")),
        }
        let reason = exit_reason(watcher.recv().await)?;
        self.rust("watcher.recv().await", format!("DOWN {reason}"), "DOWN :noconnection")?;

        let elixir = ElixirNode::start(release, epmd_port);
        println!("   $       {}", elixir.command);
        match tokio::time::timeout(Duration::from_secs(20), self.events.next()).await {
            Ok(Some(Event::NodeUp { node, .. })) => {
                self.rust(
                    "node.events().next().await",
                    format!("NodeUp {}", node.as_str()),
                    "NodeUp ex@127.0.0.1",
                )?;
            }
            other => return Err(format!("instead of NodeUp: {other:?}")),
        }
        self.elixir("Node.list(:hidden)", "[:\"rust@127.0.0.1\"]").await?;
        Ok(elixir)
    }

    fn title(&mut self, text: &str) {
        self.step += 1;
        println!("\n{}. {text}", self.step);
    }

    /// Evaluates in the Elixir node and shows what it gives.
    async fn elixir(&self, code: &str, expected: &str) -> Step {
        let value = eval(&self.node, code).await?;
        self.shown("elixir", code, value, expected)
    }

    /// Shows what was done in Rust and what it gave.
    fn rust(&self, what: impl Display, value: impl Display, expected: &str) -> Step {
        self.shown("rust", what, value, expected)
    }

    fn shown(&self, side: &str, what: impl Display, value: impl Display, expected: &str) -> Step {
        let (what, value) = (what.to_string(), value.to_string());
        let mut lines = what.lines().map(|line| line.strip_prefix("             ").unwrap_or(line));
        println!("   {side:<7} {}", lines.next().unwrap_or_default());
        lines.for_each(|line| println!("           {line}"));
        println!("        -> {value}");
        if value == expected { Ok(()) } else { Err(format!("expected {expected}")) }
    }
}

/// Evaluates Elixir code in the Elixir node; the value as `inspect` shows it there.
async fn eval(node: &Node, code: &str) -> Result<String, String> {
    let args = vec![Term::from(format!("inspect((\n{code}\n))"))];
    let value = node.erpc(&Atom::new_static(ELIXIR), "Elixir.Code", "eval_string", args, WAIT).await;
    match value.map_err(|error| error.to_string())?.as_tuple() {
        Some([text, _bindings]) => Ok(text.as_str().unwrap_or_default().to_owned()),
        _ => Err("eval_string gave no tuple".to_owned()),
    }
}

fn exit_reason(message: foundation_node::Result<Message>) -> Result<String, String> {
    let reason = match message.map_err(|error| error.to_string())? {
        Message::Exit(exit) => exit.reason,
        Message::Down(down) => down.reason,
        other => return Err(format!("instead of an exit: {other:?}")),
    };
    reason.to_term(&Limits::default()).map(|term| inspect(&term)).map_err(|error| error.to_string())
}

fn term(text: &str) -> Term {
    parse_elixir(text, &Limits::default()).expect("Elixir syntax")
}

fn inspect(term: &Term) -> String {
    Printer::new().inspect(term)
}

fn shown(answer: foundation_node::Result<Term>) -> Result<String, String> {
    answer.map(|term| inspect(&term)).map_err(|error| error.to_string())
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) -> Step {
    let deadline = Instant::now() + WAIT;
    while !condition() {
        if Instant::now() > deadline {
            let log = std::fs::read_to_string(log_file()).unwrap_or_default();
            return Err(format!("did not happen: {what}\n{log}"));
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

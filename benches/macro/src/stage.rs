//! The nodes of one placement, and asking them to measure.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use foundation_interop_tests::{Beam, Epmd, Release, beam, otp, work_dir};

use crate::lines::Request;
use crate::placement::{Placement, cpu_time};
use crate::stats::{self, Numbers};

/// What `erl` starts with if it is told nothing; the harness's own nodes are smaller.
fn default_flags() -> String {
    let schedulers = std::thread::available_parallelism().map_or(1, usize::from);
    format!(
        "+S {schedulers}:{schedulers} +SDcpu {schedulers}:{schedulers} +SDio 10 \
         +sbwt medium +sbwtdcpu short +sbwtdio short"
    )
}

/// Who takes part in a measurement.
pub(crate) trait Peer {
    /// The name of its node.
    fn name(&self) -> &str;

    /// The process that its work is done in.
    fn pid(&self) -> u32;

    /// Makes one measurement.
    fn op(&self, text: &str) -> Result<Numbers, String>;
}

/// A BEAM node with `foundation_bench` loaded.
#[derive(Debug)]
pub(crate) struct BeamPeer {
    beam: Beam,
    /// An answer did not come in time. It would be taken for that of the next question, so no more are asked.
    out_of_step: AtomicBool,
}

impl BeamPeer {
    /// Starts what the measurements need.
    fn measuring(beam: Beam) -> Self {
        beam.eval("ok = foundation_bench:start()");
        Self { beam, out_of_step: AtomicBool::new(false) }
    }
}

impl Peer for BeamPeer {
    fn name(&self) -> &str {
        self.beam.name()
    }

    fn pid(&self) -> u32 {
        self.beam.pid()
    }

    fn op(&self, text: &str) -> Result<Numbers, String> {
        if self.out_of_step.load(Ordering::Relaxed) {
            return Err("an earlier measurement of this node took too long".to_owned());
        }
        let answer = self.beam.try_eval(&format!("binary_to_list(foundation_bench:op(\"{text}\"))"));
        let answer = answer.inspect_err(|why| {
            self.out_of_step.fetch_or(why.starts_with("no answer"), Ordering::Relaxed);
        })?;
        stats::parse(answer.trim_matches('"'))
    }
}

/// A process of ours that is told what to do on its standard input: the Rust node, or one of the C programs.
#[derive(Debug)]
pub(crate) struct Told {
    name: String,
    child: Child,
    /// Questions, and the lines that come back.
    streams: Mutex<(ChildStdin, Receiver<String>)>,
}

/// How long a process may take for one measurement. After that it is ended, so that the rest of the table is still made.
const ANSWER: Duration = Duration::from_secs(60);

impl Told {
    /// Starts it and waits until it says that it is up.
    pub(crate) fn start(name: &str, command: &mut Command) -> Result<Self, String> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{command:?}: {error}"))?;
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            return Err("no pipes".to_owned());
        };
        let (lines, answers) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if lines.send(line).is_err() {
                    return;
                }
            }
        });
        let told = Self { name: name.to_owned(), child, streams: Mutex::new((stdin, answers)) };
        told.answer()?;
        Ok(told)
    }

    fn answer(&self) -> Result<Numbers, String> {
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let line = streams.1.recv_timeout(ANSWER).map_err(|error| match error {
            RecvTimeoutError::Disconnected => format!("{} has ended", self.name),
            RecvTimeoutError::Timeout => {
                let pid = rustix::process::Pid::from_child(&self.child);
                // Its answer would be taken for that of the next question.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                format!("{} has not answered for {} s", self.name, ANSWER.as_secs())
            }
        })?;
        match line.trim_end().strip_prefix("failed: ") {
            Some(why) => Err(why.to_owned()),
            None => stats::parse(&line),
        }
    }
}

impl Peer for Told {
    fn name(&self) -> &str {
        &self.name
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn op(&self, text: &str) -> Result<Numbers, String> {
        {
            let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
            writeln!(streams.0, "{text}")
                .and_then(|()| streams.0.flush())
                .map_err(|error| error.to_string())?;
        }
        self.answer()
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two BEAM nodes and two Rust nodes, one of each on either side, all hidden.
pub(crate) struct Stage {
    pub(crate) placement: Placement,
    pub(crate) epmd: Epmd,
    /// On side 0.
    pub(crate) beam: BeamPeer,
    /// On side 1.
    pub(crate) far_beam: BeamPeer,
    /// On side 0.
    pub(crate) rust: Told,
    /// On side 1.
    pub(crate) far_rust: Told,
    /// The same two of another build, if the run was asked to compare with one.
    earlier: Option<[Told; 2]>,
    /// Two BEAM nodes of each other release, if the run was asked for them: its name and the nodes.
    releases: Vec<(String, [BeamPeer; 2])>,
}

/// Who sends to whom, under which name.
pub(crate) type Pair<'a> = (String, &'a dyn Peer, &'a dyn Peer);

impl Stage {
    /// Starts them, over TLS if there are options for it.
    pub(crate) fn start(placement: Placement, request: &Request, optfile: Option<&Path>) -> Self {
        let release = &request.release;
        let epmd = Epmd::start(release);
        let start = |side, name| placement.place(side, || start_beam(release, epmd.port, name, optfile));
        let (beam, far_beam) = (start(0, "a"), start(1, "b"));
        let start = |program: Option<&Path>, side, name| {
            let started = placement.place(side, || start_rust(program, epmd.port, name, optfile));
            started.expect("a Rust node starts")
        };
        let (rust, far_rust) = (start(None, 0, "r"), start(None, 1, "s"));
        let against = request.against.as_deref();
        let earlier = against.map(|program| [start(Some(program), 0, "er"), start(Some(program), 1, "es")]);
        let releases = request.others.iter().map(|other| {
            let number = other.number;
            let start = |side, name: &str| {
                placement.place(side, || start_beam(other, epmd.port, &format!("{name}{number}"), optfile))
            };
            (format!("OTP {number}→{number}"), [start(0, "a"), start(1, "b")])
        });
        let releases = releases.collect();
        Self { placement, beam, far_beam, rust, far_rust, earlier, releases, epmd }
    }

    /// Behind each pair with a Rust node the same pair with the nodes of the other build, and at the end the BEAM nodes of other
    /// releases: whatever the run was asked for.
    pub(crate) fn with_others<'a>(&'a self, pairs: [(&str, &'a dyn Peer, &'a dyn Peer); 4]) -> Vec<Pair<'a>> {
        let mut all: Vec<Pair<'a>> = Vec::new();
        for (name, from, to) in pairs {
            all.push((name.to_owned(), from, to));
            let Some([near, far]) = &self.earlier else { continue };
            let earlier = |peer: &'a dyn Peer| -> Option<&'a dyn Peer> {
                match peer.name() {
                    name if name == self.rust.name() => Some(near),
                    name if name == self.far_rust.name() => Some(far),
                    _ => None,
                }
            };
            let (before, after) = (earlier(from), earlier(to));
            if before.is_some() || after.is_some() {
                all.push((format!("earlier {name}"), before.unwrap_or(from), after.unwrap_or(to)));
            }
        }
        all.extend(self.releases.iter().map(|(name, [near, far])| -> Pair<'a> { (name.clone(), near, far) }));
        all
    }
}

/// A BEAM node with default flags, hidden.
pub(crate) fn start_beam(release: &Release, epmd_port: u16, name: &str, optfile: Option<&Path>) -> BeamPeer {
    let mut options = options(release, epmd_port, name).arg("-hidden");
    if let Some(optfile) = optfile {
        options = options.args("-proto_dist inet_tls -ssl_dist_optfile").arg(&optfile.display().to_string());
    }
    BeamPeer::measuring(options.start())
}

/// A visible BEAM node with Elixir and with the Phoenix.PubSub of this folder, unmodified. Hidden BEAM nodes do not see each
/// other's process groups.
pub(crate) fn start_phoenix_beam(release: &Release, epmd_port: u16, name: &str, source: &Path) -> BeamPeer {
    let beam = options(release, epmd_port, name).elixir().start();
    // It looks at Mix when it is compiled.
    beam.elixir(&format!(
        "for app <- [:logger, :eex, :ex_unit, :mix] do\n\
           true = :code.add_path(String.to_charlist(Path.join([:code.lib_dir(:elixir), \"..\", \"#{{app}}\", \"ebin\"])))\n\
           {{:ok, _}} = Application.ensure_all_started(app)\n\
         end\nMix.env(:prod)\n\
         files = Path.wildcard({:?})\n\
         {{:ok, _, _}} = File.cd!({source:?}, fn -> Kernel.ParallelCompiler.compile(files, return_diagnostics: true) end)\n\
         {{:ok, _}} = :pg.start(Phoenix.PubSub)\n:ok",
        source.join("lib/**/*.ex")
    ));
    BeamPeer::measuring(beam)
}

/// A visible BEAM node with Elixir and with the libraries of these folders, whose telemetry runs.
pub(crate) fn start_horde_beam(release: &Release, epmd_port: u16, name: &str, code: &[PathBuf]) -> BeamPeer {
    let options = options(release, epmd_port, name).args("-kernel prevent_overlapping_partitions false");
    BeamPeer::measuring(start_elixir(options, code))
}

/// A visible BEAM node with Elixir and with the libraries of these folders, as an application starts it.
pub(crate) fn start_elixir_beam(release: &Release, epmd_port: u16, name: &str, code: &[PathBuf]) -> Beam {
    let beam = start_elixir(options(release, epmd_port, name), code);
    beam.elixir("Logger.configure(level: :error)");
    beam
}

fn start_elixir(mut options: beam::Options, code: &[PathBuf]) -> Beam {
    options = options.elixir();
    for folder in code {
        options = options.arg("-pa").arg(&folder.display().to_string());
    }
    let beam = options.start();
    // Without it, each event that a library counts would be an error first.
    beam.elixir(
        "true = :code.add_path(String.to_charlist(Path.join([:code.lib_dir(:elixir), \"..\", \"logger\", \"ebin\"])))\n\
         {:ok, [app]} = :file.consult(:code.where_is_file(~c\"telemetry.app\"))\n:ok = :application.load(app)\n\
         for app <- [:telemetry, :logger], do: {:ok, _} = Application.ensure_all_started(app)\n:ok",
    );
    beam
}

/// Compiles the libraries, each after those that it needs, unmodified, and returns the folders of their code.
pub(crate) fn compiled(release: &Release, epmd_port: u16, sources: &[PathBuf]) -> Vec<PathBuf> {
    let beam = options(release, epmd_port, "compiler").elixir().start();
    beam.elixir(
        "for app <- [:logger, :eex, :ex_unit, :mix] do\n\
           true = :code.add_path(String.to_charlist(Path.join([:code.lib_dir(:elixir), \"..\", \"#{app}\", \"ebin\"])))\n\
           {:ok, _} = Application.ensure_all_started(app)\n\
         end\nMix.env(:prod)\n:ok",
    );
    let mut folders = Vec::new();
    for source in sources {
        let library = source.file_name().unwrap_or_default().to_string_lossy();
        let out = work_dir(&format!("ebin/bench-{library}-{}-{}", release.number, std::process::id()));
        beam.elixir(&format!(
            "out = {out:?}\n\
             for f <- Path.wildcard({erlang:?}), do: {{:ok, _}} = :compile.file(String.to_charlist(f), outdir: String.to_charlist(out))\n\
             for f <- Path.wildcard({app:?}), do: File.cp!(f, Path.join(out, Path.basename(f, \".src\")))\n\
             true = :code.add_path(String.to_charlist(out))\n\
             {{:ok, _, _}} = File.cd!({source:?}, fn -> Kernel.ParallelCompiler.compile_to_path(Path.wildcard({elixir:?}), out, return_diagnostics: true) end)\n:ok",
            erlang = source.join("src/*.erl"),
            app = source.join("src/*.app.src"),
            elixir = source.join("lib/**/*.ex"),
        ));
        folders.push(out);
    }
    folders
}

fn options(release: &Release, epmd_port: u16, name: &str) -> beam::Options {
    let ebin = ebin(release);
    beam::Options::new(release, epmd_port, name)
        .args(&default_flags())
        .arg("-pa")
        .arg(&ebin.display().to_string())
}

/// A Rust node of this very binary, or of another build of it.
pub(crate) fn start_rust(
    program: Option<&Path>,
    epmd_port: u16,
    name: &str,
    optfile: Option<&Path>,
) -> Result<Told, String> {
    start_rust_with(program, epmd_port, name, optfile, &[])
}

/// The same with further options of a peer.
pub(crate) fn start_rust_with(
    program: Option<&Path>,
    epmd_port: u16,
    name: &str,
    optfile: Option<&Path>,
    more: &[&str],
) -> Result<Told, String> {
    let name = format!("{name}@127.0.0.1");
    let mut command = match program {
        Some(program) => Command::new(program),
        None => Command::new(std::env::current_exe().map_err(|error| error.to_string())?),
    };
    command.args(["peer", "--name", &name, "--epmd-port", &epmd_port.to_string()]).args(more);
    if let Some(optfile) = optfile {
        command.arg("--optfile").arg(optfile);
    }
    if let Some(more) = std::env::var_os("FOUNDATION_BENCH_PEER") {
        command.args(more.to_string_lossy().split_whitespace());
    }
    Told::start(&name, &mut command)
}

/// `foundation_bench` compiled by this release.
fn ebin(release: &Release) -> PathBuf {
    let dir = work_dir(&format!("ebin/bench-{}-{}", release.number, std::process::id()));
    if !dir.join("foundation_bench.beam").exists() {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/beam/foundation_bench.erl");
        let out = Command::new(release.program("erlc")).arg("-o").arg(&dir).arg(source).output();
        let out = out.expect("erlc can be started");
        assert!(out.status.success(), "erlc: {}", String::from_utf8_lossy(&out.stdout));
    }
    dir
}

/// The installed release, or the one of this number.
pub(crate) fn release(number: Option<u32>) -> Release {
    match number {
        None => otp::installed().clone(),
        Some(number) => {
            let found = otp::matrix().iter().find(|release| release.number == number);
            found.unwrap_or_else(|| panic!("no OTP {number} on this machine")).clone()
        }
    }
}

/// The releases of the matrix but this one.
pub(crate) fn others(release: &Release) -> Vec<Release> {
    otp::matrix().iter().filter(|other| other.number != release.number).cloned().collect()
}

/// The processor time that two sides use per operation while `run` runs, in microseconds.
pub(crate) fn with_cpu(
    from: &dyn Peer,
    to: &dyn Peer,
    operations: f64,
    run: impl FnOnce() -> Result<Numbers, String>,
) -> Result<(Numbers, f64, f64), String> {
    let before = [cpu_time(from.pid()), cpu_time(to.pid())];
    let numbers = run()?;
    let after = [cpu_time(from.pid()), cpu_time(to.pid())];
    let [from, to] = [0, 1].map(|side| {
        let used = after[side as usize].saturating_sub(before[side as usize]);
        used.as_secs_f64() * 1e6 / operations
    });
    Ok((numbers, from, to))
}

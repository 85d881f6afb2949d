//! One BEAM node: started on loopback, evaluated in, paused, killed.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::{Epmd, Release};

/// How long one evaluation may take.
const EVALUATION: Duration = Duration::from_secs(20);

/// The cookie that nodes of the harness share unless told otherwise.
pub const COOKIE: &str = "secret";

/// What a node is started with.
#[derive(Clone, Debug)]
pub struct Options {
    release: Release,
    epmd_port: u16,
    name: String,
    cookie: String,
    interface: String,
    prefix: Vec<String>,
    control: Ipv4Addr,
    arguments: Vec<String>,
    elixir: bool,
}

impl Options {
    /// A visible node with a long name (`name@127.0.0.1`), the cookie [`COOKIE`], and one scheduler.
    pub fn new(release: &Release, epmd_port: u16, name: &str) -> Self {
        Self {
            release: release.clone(),
            epmd_port,
            name: format!("{name}@127.0.0.1"),
            cookie: COOKIE.to_owned(),
            interface: "{127,0,0,1}".to_owned(),
            prefix: Vec::new(),
            control: Ipv4Addr::LOCALHOST,
            arguments: Vec::new(),
            elixir: false,
        }
    }

    /// A further argument of `erl`.
    #[must_use]
    pub fn arg(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Several further arguments, separated by spaces.
    #[must_use]
    pub fn args(mut self, arguments: &str) -> Self {
        self.arguments.extend(arguments.split_whitespace().map(str::to_owned));
        self
    }

    /// Another cookie.
    #[must_use]
    pub fn cookie(mut self, cookie: &str) -> Self {
        cookie.clone_into(&mut self.cookie);
        self
    }

    /// Another host part of the name.
    #[must_use]
    pub fn at(mut self, host: &str) -> Self {
        self.name.truncate(self.name.find('@').map_or(0, |at| at + 1));
        self.name.push_str(host);
        self
    }

    /// At `::1`, over IPv6: `name@::1`, listening there.
    #[must_use]
    pub fn ipv6(mut self) -> Self {
        self = self.at("::1");
        self.interface = "{0,0,0,0,0,0,0,1}".to_owned();
        self
    }

    /// Listening on another IPv4 address than 127.0.0.1.
    #[must_use]
    pub fn interface(mut self, address: &str) -> Self {
        self.interface = format!("{{{}}}", address.replace('.', ","));
        self
    }

    /// In another network namespace: run by `prefix`, listening on `interface`, led to the harness at `control`.
    #[must_use]
    pub fn inside(mut self, prefix: &[String], control: &str, interface: &str) -> Self {
        self.prefix = prefix.to_vec();
        self.control = control.parse().expect("an IPv4 address");
        self.interface = format!("{{{}}}", interface.replace('.', ","));
        self
    }

    /// With Elixir's modules, so that [`Beam::elixir`] works.
    #[must_use]
    pub fn elixir(mut self) -> Self {
        self.elixir = true;
        self
    }

    /// Starts the node and waits until it can evaluate.
    pub fn start(self) -> Beam {
        Beam::start(self)
    }
}

/// A running node. It is killed when this is dropped, and halts by itself when the test process ends.
#[derive(Debug)]
pub struct Beam {
    options: Options,
    child: Mutex<Child>,
    control: Mutex<TcpStream>,
    log: PathBuf,
}

impl Beam {
    /// A visible node with default options.
    pub fn visible(release: &Release, epmd: &Epmd, name: &str) -> Self {
        Options::new(release, epmd.port, name).start()
    }

    fn start(options: Options) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let log =
            crate::work_dir("log").join(format!("{}-{}-{number}.log", options.name, std::process::id()));
        let output = std::fs::File::create(&log).unwrap();
        let listener = TcpListener::bind((options.control, 0)).unwrap();
        let control_port = listener.local_addr().unwrap().port();

        let erl = options.release.program("erl");
        let mut command = match options.prefix.split_first() {
            None => Command::new(erl),
            Some((program, arguments)) => {
                let mut command = Command::new(program);
                command.args(arguments).arg(erl);
                command
            }
        };
        command
            .args(["-noinput", "-start_epmd", "false", "-name", &options.name, "-setcookie", &options.cookie])
            .args(["-kernel", "inet_dist_use_interface", &options.interface])
            .args(["+S", "1:1", "+SDcpu", "1:1", "+SDio", "1", "+A", "1"])
            .args(["+sbwt", "none", "+sbwtdcpu", "none", "+sbwtdio", "none"])
            .arg("-pa")
            .arg(options.release.helper_ebin());
        if options.elixir {
            let ebin = options.release.elixir_ebin().expect("this release has an Elixir");
            command.arg("-pa").arg(ebin).args(["-eval", "{ok, _} = application:ensure_all_started(elixir)."]);
        }
        command
            .args(&options.arguments)
            .args(["-s", "foundation_control", "start", "-extra", &control_port.to_string()])
            .arg(options.control.to_string())
            // Neither the user's cookie nor the user's .erlang take part.
            .env("HOME", crate::work_dir("home"))
            .env("ERL_EPMD_PORT", options.epmd_port.to_string())
            .env("ERL_CRASH_DUMP_BYTES", "0")
            .env("LC_ALL", "C.UTF-8")
            .env_remove("ERL_FLAGS")
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output);
        let mut child = command.spawn().expect("erl can be started");

        listener.set_nonblocking(true).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        let control = loop {
            match listener.accept() {
                Ok((socket, _)) => break socket,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("the control socket of {}: {error}", options.name),
            }
            let ended = child.try_wait().unwrap();
            if ended.is_some() || Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                let text = std::fs::read_to_string(&log).unwrap_or_default();
                panic!("{} did not start ({ended:?}):\n{text}", options.name);
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        control.set_nonblocking(false).unwrap();
        control.set_nodelay(true).unwrap();
        let beam = Self { options, child: Mutex::new(child), control: Mutex::new(control), log };
        beam.eval("ok");
        beam
    }

    /// The node's full name.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// Evaluates Erlang expressions and returns the last value as `~tp` prints it, on one line.
    ///
    /// Bindings stay: `Pid = …` in one call is known to the next. The process that evaluates is registered as `test`.
    ///
    /// # Panics
    /// If the expressions raise or take longer than 20 s, with the node's log.
    pub fn eval(&self, code: &str) -> String {
        self.try_eval(code).unwrap_or_else(|error| self.fail(code, &error))
    }

    /// [`Beam::eval`] with what was raised as the error.
    pub fn try_eval(&self, code: &str) -> Result<String, String> {
        let code = terminated(code);
        self.request(b'e', &code).map(|value| String::from_utf8(value).expect("~tp prints UTF-8"))
    }

    /// Evaluates Erlang expressions whose value is a binary, and returns its bytes.
    pub fn eval_bytes(&self, code: &str) -> Vec<u8> {
        let code = terminated(code);
        self.request(b'b', &code).unwrap_or_else(|error| self.fail(&code, &error))
    }

    /// Evaluates Elixir and returns the value as `inspect` prints it.
    pub fn elixir(&self, code: &str) -> String {
        self.try_elixir(code).unwrap_or_else(|error| self.fail(code, &error))
    }

    /// [`Beam::elixir`] with what was raised as the error.
    pub fn try_elixir(&self, code: &str) -> Result<String, String> {
        self.request(b'x', code).map(|value| String::from_utf8(value).expect("inspect prints UTF-8"))
    }

    fn request(&self, kind: u8, code: &str) -> Result<Vec<u8>, String> {
        let mut control = self.control.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        control.set_read_timeout(Some(EVALUATION)).unwrap();
        let mut exchange = || -> std::io::Result<Vec<u8>> {
            let mut request = Vec::with_capacity(code.len() + 5);
            request.extend((code.len() as u32 + 1).to_be_bytes());
            request.push(kind);
            request.extend(code.as_bytes());
            control.write_all(&request)?;
            let mut length = [0; 4];
            control.read_exact(&mut length)?;
            let mut answer = vec![0; u32::from_be_bytes(length) as usize];
            control.read_exact(&mut answer)?;
            Ok(answer)
        };
        let mut answer = exchange().map_err(|error| format!("no answer: {error}"))?;
        match answer.remove(0) {
            0 => Ok(answer),
            _ => Err(String::from_utf8_lossy(&answer).into_owned()),
        }
    }

    #[track_caller]
    fn fail(&self, code: &str, error: &str) -> ! {
        panic!("{} evaluating {code}\n{error}\nlog of the node:\n{}", self.name(), self.log())
    }

    /// What the node has written to its standard output and error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The operating system's process id.
    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner).id()
    }

    /// Stops the node's process where it is (SIGSTOP): sockets stay open, nothing is answered.
    pub fn pause(&self) {
        signal("STOP", self.pid());
    }

    /// Lets a paused node go on.
    pub fn resume(&self) {
        signal("CONT", self.pid());
    }

    /// Kills the node (SIGKILL) and waits until it is gone.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Kills the node and starts it again with the same options.
    pub fn restart(self) -> Self {
        self.kill();
        self.options.clone().start()
    }
}

impl Drop for Beam {
    fn drop(&mut self) {
        self.kill();
        if !std::thread::panicking() {
            let _ = std::fs::remove_file(&self.log);
        }
    }
}

/// `parse_exprs` wants a full stop.
fn terminated(code: &str) -> String {
    let code = code.trim_end();
    if code.ends_with('.') { code.to_owned() } else { format!("{code}.") }
}

/// Sends a signal to one process by its id.
pub fn signal(name: &str, pid: u32) {
    let status = Command::new("kill").args([&format!("-{name}"), &pid.to_string()]).status().unwrap();
    assert!(status.success(), "kill -{name} {pid}");
}

//! Heartbeats through a real PostgreSQL (`script/postgres`), a server of its own, beside what libcluster_postgres says and hears.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use foundation_interop_tests::{Beam, Case, Epmd, beam, case, epmd, eventually::eventually_true, work_dir};

use crate::discovery::{Started, config};
use crate::rust::WAIT;
use crate::tls::Pki;

const TOPIC: &str = "discovery";
pub(crate) const PASSWORD: &str = "p@ss word";

/// A running PostgreSQL that speaks TLS. It is stopped when this is dropped.
pub(crate) struct Postgres {
    programs: PathBuf,
    directory: PathBuf,
    pub(crate) port: u16,
    pki: Pki,
    child: Option<Child>,
}

impl Postgres {
    pub(crate) fn start() -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../script/postgres");
        let found = Command::new(script).output().unwrap();
        let said = String::from_utf8_lossy(&found.stderr);
        assert!(found.status.success(), "there is no PostgreSQL to test with: {said}");
        let programs = PathBuf::from(String::from_utf8(found.stdout).unwrap().trim());
        let port = epmd::free_port();
        // The other user must be able to go there.
        let directory = std::env::temp_dir().join(format!("foundation-postgres-{port}"));
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir(&directory).unwrap();
        let pki = Pki::new();
        pki.issue("server", &["127.0.0.1"], "database");
        for file in ["server.pem", "server.key"] {
            std::fs::copy(pki.directory.join(file), directory.join(file)).unwrap();
        }
        std::fs::write(directory.join("password"), PASSWORD).unwrap();
        let shell = |words: &str| {
            let status = Command::new("sh").args(["-ec", words, "sh"]).arg(&directory).status().unwrap();
            assert!(status.success(), "{words}");
        };
        shell("chmod 700 \"$1\"; chmod 600 \"$1\"/*; [ \"$(id -u)\" != 0 ] || chown -R 65534:65534 \"$1\"");
        let mut postgres = Self { programs, directory, port, pki, child: None };
        let made = postgres
            .command("initdb")
            .args(["-A", "scram-sha-256", "-U", "shop", "-E", "UTF8", "--locale=C", "-N", "--pwfile"])
            .arg(postgres.directory.join("password"))
            .arg("-D")
            .arg(postgres.directory.join("data"))
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        postgres.run();
        postgres
    }

    /// A program of PostgreSQL, which does not want to be run by root.
    fn command(&self, program: &str) -> Command {
        let path = self.programs.join(program);
        let root = Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout == b"0\n");
        let mut command = match root {
            false => Command::new(path),
            true => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(path);
                command
            }
        };
        command.current_dir(&self.directory).stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&mut self) {
        let log =
            std::fs::File::create(work_dir("discovery").join(format!("postgres-{}.log", self.port))).unwrap();
        let setting = |name: &str, value: &dyn std::fmt::Display| format!("--{name}={value}");
        let directory = self.directory.display();
        let child = self
            .command("postgres")
            .arg("-D")
            .arg(self.directory.join("data"))
            .args(["-p", &self.port.to_string(), "-k", &directory.to_string()])
            .args([
                setting("listen_addresses", &"127.0.0.1"),
                setting("fsync", &"off"),
                setting("ssl", &"on"),
                setting("ssl_cert_file", &format!("{directory}/server.pem")),
                setting("ssl_key_file", &format!("{directory}/server.key")),
            ])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        eventually_true("PostgreSQL lets somebody in", WAIT * 2, || self.sql("SELECT 1").is_some());
    }

    /// What `psql` says to these statements.
    pub(crate) fn sql(&self, statements: &str) -> Option<String> {
        let out = self
            .command("psql")
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &self.port.to_string(),
                "-U",
                "shop",
                "-d",
                "postgres",
                "-At",
                "-c",
            ])
            .args(statements.split(';').flat_map(|statement| [statement, "-c"]))
            .arg("SELECT 'end'")
            .env("PGPASSWORD", PASSWORD)
            .output()
            .unwrap();
        out.status.success().then(|| String::from_utf8(out.stdout).unwrap())
    }

    /// Lets everybody go, and ends.
    pub(crate) fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            beam::signal("INT", child.id());
            let _ = child.wait();
        }
    }

    fn authorities(&self) -> String {
        self.pki.directory.join("ca.pem").display().to_string()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn start(epmd: &Epmd, name: &str, lines: &str, variables: &[(&str, &str)]) -> Started {
    let text = format!(
        "[cluster]\nstrategy = 'LibclusterPostgres.Strategy'\nchannel_name = 'Shop \"1\"'\nheartbeat_interval = 400\n{lines}\n"
    );
    let arguments = config(&format!("postgres-{name}-{}", epmd.port), &text);
    let node = format!("{name}@127.0.0.1");
    Started::with(epmd.port, &node, &[arguments[0].as_str(), arguments[1].as_str()], variables)
}

fn socket(directory: &Path, port: u16) -> String {
    format!(
        "socket_dir = {directory:?}\nport = {port}\nusername = 'shop'\ndatabase = 'postgres'\npassword = {PASSWORD:?}"
    )
}

#[test]
fn nodes_hear_each_other() {
    case(
        Case::Full,
        TOPIC,
        "PostgreSQL: heartbeats as libcluster_postgres sends and hears them, over TLS with SCRAM and over a socket; a wrong \
         password and a database that is gone disconnect nobody",
        |release| {
            let mut database = Postgres::start();
            let epmd = Epmd::start(release);
            let beam = Beam::visible(release, &epmd, "app");
            let wrong = format!(
                "hostname = '127.0.0.1'\nport = {}\nusername = 'shop'\npassword = 'x'\ndatabase = 'postgres'",
                database.port
            );
            let refused = start(&epmd, "refused", &wrong, &[]);
            let line = refused.logs(&["no answer; what it said before stands", "28P01"]);
            assert!(line.contains("127.0.0.1:"), "{line}");
            drop(refused);
            let url = format!("ecto://shop:p%40ss%20word@127.0.0.1:{}/postgres", database.port);
            let tls = format!("ssl = true\ncacert = '{}'", database.authorities());
            let one = start(&epmd, "one", &tls, &[("DATABASE_URL", url.as_str())]);
            epmd.wait_for("one");
            // What libcluster_postgres hears: the bare name.
            let heard = || {
                let said = database.sql("LISTEN \"Shop \"\"1\"\"\";SELECT pg_sleep(0.6)").unwrap();
                said.contains("\"Shop \"1\"\" with payload \"one@127.0.0.1\" received from")
            };
            eventually_true("its heartbeat is heard", WAIT, heard);
            let tls = database.sql("SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = 'foundation'");
            assert!(tls.unwrap().starts_with("t\n"));
            // Two nodes of ours, one of them over the socket.
            let two = start(&epmd, "two", &socket(&database.directory, database.port), &[]);
            two.logs(&["connected to one@127.0.0.1"]);
            // What libcluster_postgres says, and what the other one of that name says.
            database.sql("NOTIFY \"Shop \"\"1\"\"\", 'app@127.0.0.1'").unwrap();
            eventually_true("the BEAM is dialled by both", WAIT, || {
                beam.eval("lists:sort(nodes(hidden))") == "['one@127.0.0.1','two@127.0.0.1']"
            });
            database.sql("NOTIFY \"Shop \"\"1\"\"\", 'heartbeat::late@127.0.0.1'").unwrap();
            one.logs(&["unable to connect to late@127.0.0.1"]);
            beam.eval(
                "C = counters:new(1, []), persistent_term:put(downs, C), spawn(fun() -> \
                 net_kernel:monitor_nodes(true, [{node_type, all}]), \
                 (fun L() -> receive {nodedown, _, _} -> counters:add(C, 1, 1); _ -> ok end, L() end)() end), ok",
            );
            database.stop();
            for node in [&one, &two] {
                node.logs(&["no answer; what it said before stands"]);
            }
            database.run();
            for node in [&one, &two] {
                node.logs(&["answers again"]);
            }
            assert_eq!(beam.eval("length(nodes(hidden))"), "2", "{}", one.log());
            assert_eq!(beam.eval("counters:get(persistent_term:get(downs), 1)"), "0", "{}", one.log());
            Ok(())
        },
    );
}

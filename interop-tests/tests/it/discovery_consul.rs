//! A real Consul as a source of nodes: Debian's package (`script/consul`), a server of its own for each case.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use foundation_interop_tests::{Beam, Case, Epmd, case, eventually::eventually_true, work_dir};

use crate::discovery::{Started, config};
use crate::rust::WAIT;

const TOPIC: &str = "discovery";
/// The token that may do everything.
pub(crate) const TOKEN: &str = "5d3a4c1e-0000-4000-8000-000000000001";

/// A running Consul. It is killed when this is dropped.
pub(crate) struct Consul {
    child: Child,
    pub(crate) port: u16,
    directory: PathBuf,
    program: String,
}

impl Consul {
    pub(crate) fn start() -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../script/consul");
        let found = Command::new(script).output().unwrap();
        let said = String::from_utf8_lossy(&found.stderr);
        assert!(found.status.success(), "there is no Consul to test with: {said}");
        let program = String::from_utf8(found.stdout).unwrap().trim().to_owned();
        let free = || foundation_interop_tests::epmd::free_port();
        let (port, server, serf) = (free(), free(), free());
        let directory = work_dir(&format!("consul-{port}"));
        // Whoever asks without a token is told nothing.
        let text = format!(
            r#"{{"ports": {{"http": {port}, "server": {server}, "serf_lan": {serf}, "serf_wan": -1, "dns": -1, "grpc": -1}},
            "acl": {{"enabled": true, "default_policy": "deny", "tokens": {{"master": "{TOKEN}"}}}}}}"#
        );
        std::fs::write(directory.join("consul.json"), text).unwrap();
        let child = Self::run(&program, &directory);
        let consul = Self { child, port, directory, program };
        consul.wait();
        consul
    }

    fn run(program: &str, directory: &std::path::Path) -> Child {
        let log = std::fs::File::create(directory.join("consul.log")).unwrap();
        Command::new(program)
            .args(["agent", "-dev", "-bind", "127.0.0.1", "-client", "127.0.0.1", "-config-file"])
            .arg(directory.join("consul.json"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap()
    }

    /// Until it has a leader and takes the token.
    fn wait(&self) {
        eventually_true("Consul has a leader", WAIT * 2, || {
            self.ask("GET", "/v1/catalog/nodes", "").is_some_and(|answer| answer.contains("\"Node\":"))
        });
    }

    pub(crate) fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// It has forgotten everything: `-dev` stores nothing.
    pub(crate) fn start_again(&mut self) {
        self.child = Self::run(&self.program, &self.directory);
        self.wait();
    }

    /// The body of the answer, if its status is 200.
    fn ask(&self, method: &str, path: &str, body: &str) -> Option<String> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.0\r\nx-consul-token: {TOKEN}\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        socket.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.lines().next()?.contains(" 200 ").then(|| body.to_owned())
    }

    pub(crate) fn put(&self, path: &str, body: &str) {
        assert!(self.ask("PUT", path, body).is_some(), "{path}");
    }

    /// An instance of the service `web`, as an application registers itself for libcluster_consul.
    pub(crate) fn register(&self, id: &str, address: &str) {
        let check = r#"{"TTL":"1h","Status":"passing"}"#;
        let body = format!(r#"{{"ID":"{id}","Name":"web","Address":"{address}","Check":{check}}}"#);
        self.put("/v1/agent/service/register", &body);
    }

    pub(crate) fn instances(&self) -> String {
        self.ask("GET", "/v1/health/service/web?passing=true", "").unwrap_or_default().replace(": ", ":")
    }

    fn cluster(&self, more: &str) -> String {
        format!(
            "[cluster]\nstrategy = 'Cluster.Strategy.Consul'\nservice = {{ name = 'web' }}\nnode_basename = 'web'\n\
             base_url = 'http://127.0.0.1:{}'\nprune = 'disconnect'\n{more}\n",
            self.port
        )
    }
}

impl Drop for Consul {
    fn drop(&mut self) {
        self.stop();
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

fn start(epmd: &Epmd, name: &str, text: &str, variables: &[(&str, &str)]) -> Started {
    let arguments = config(&format!("consul-{name}-{}", epmd.port), text);
    let node = format!("{name}@127.0.0.1");
    Started::with(epmd.port, &node, &[arguments[0].as_str(), arguments[1].as_str()], variables)
}

#[test]
fn instances_of_a_service_are_found() {
    case(
        Case::Full,
        TOPIC,
        "a real Consul: instances are dialled at once, nodes register themselves by their exact names and take that back when they stop or read another configuration",
        |release| {
            let consul = Consul::start();
            let epmd = Epmd::start(release);
            let beam = Beam::visible(release, &epmd, "web");
            // Polling alone would take a minute.
            let token = format!("polling_interval = 60000\naccess_token = '{TOKEN}'\nregister = true");
            let one = start(&epmd, "one", &consul.cluster(&token), &[]);
            one.logs(&["registered with Consul", "one@127.0.0.1"]);
            // By the environment, as Consul's own clients have it.
            let address = format!("http://127.0.0.1:{}", consul.port);
            let variables = [
                ("CONSUL_HTTP_ADDR", address.as_str()),
                ("CONSUL_HTTP_TOKEN", TOKEN),
                ("FOUNDATION_APP_NAME", "web"),
            ];
            let two = Started::with(epmd.port, "two@127.0.0.1", &[], &variables);
            two.logs(&["discovery: consul: CONSUL_HTTP_ADDR is"]);
            one.logs(&["connected to two@127.0.0.1"]);
            let both = || {
                let instances = consul.instances();
                instances.contains(r#""node":"one@127.0.0.1""#)
                    && instances.contains(r#""node":"two@127.0.0.1""#)
            };
            eventually_true("both are passing", WAIT, both);
            consul.register("web-1", "127.0.0.1");
            eventually_true(
                "the BEAM is dialled by the first, whose basename is that of the BEAM",
                WAIT,
                || beam.eval("nodes(hidden)") == "['one@127.0.0.1']",
            );
            two.terminate();
            eventually_true("who stops is not on the list any more", WAIT, || !both());
            assert!(consul.instances().contains("one@127.0.0.1"));
            // The same when the strategy ends and the node goes on.
            config(&format!("consul-one-{}", epmd.port), "[cluster]\nstrategy = 'static'\nhosts = []\n");
            one.hang_up();
            eventually_true("who reads another configuration is not on the list any more", WAIT, || {
                !consul.instances().contains("one@127.0.0.1")
            });
            one.logs(&["[cluster] is read anew"]);
            assert_eq!(beam.eval("nodes(hidden)"), "['one@127.0.0.1']", "nobody was disconnected");
            Ok(())
        },
    );
}

#[test]
fn a_sick_consul_disconnects_nobody() {
    case(
        Case::Full,
        TOPIC,
        "a critical instance, a refused token, a Consul that is gone and one that has forgotten everything disconnect nobody",
        |release| {
            let mut consul = Consul::start();
            let epmd = Epmd::start(release);
            let beam = Beam::visible(release, &epmd, "web");
            let file = work_dir("discovery").join(format!("consul-token-{}", epmd.port));
            std::fs::write(&file, "00000000-0000-4000-8000-000000000002").unwrap();
            let variables = [("CONSUL_HTTP_TOKEN_FILE", file.to_str().unwrap())];
            consul.register("web-1", "127.0.0.1");
            let text = consul.cluster("polling_interval = 200\nregister = true\nttl = 1500");
            let node = start(&epmd, "node", &text, &variables);
            // Consul answers an unknown token with 403.
            node.logs(&["no answer; what it said before stands", "service:read"]);
            node.logs(&["this node is not registered with Consul"]);
            std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
            let connected = || beam.eval("nodes(hidden)") == "['node@127.0.0.1']";
            eventually_true("it is found with the new token", WAIT * 2, connected);
            node.logs(&["registered with Consul", "node@127.0.0.1"]);
            beam.eval(
                "C = counters:new(1, []), persistent_term:put(downs, C), spawn(fun() -> \
                 net_kernel:monitor_nodes(true, [{node_type, all}]), \
                 (fun L() -> receive {nodedown, _, _} -> counters:add(C, 1, 1); _ -> ok end, L() end)() end), ok",
            );
            let count = |words: &str| node.log().matches(words).count();
            // Its check fails: with `passing` in the question it would be missing in the answer.
            consul.put("/v1/agent/check/fail/service:web-1", "");
            eventually_true("Consul has it as critical", WAIT, || !consul.instances().contains("web-1"));
            consul.register("web-9", "127.0.0.9");
            node.logs(&["unable to connect to web@127.0.0.9"]);
            let (before, recovered) = (count("what it said before stands"), count("answers again"));
            consul.stop();
            eventually_true("the failure is reported", WAIT * 2, || {
                count("what it said before stands") > before
            });
            consul.start_again();
            consul.register("web-1", "127.0.0.1");
            eventually_true("it answers again", WAIT * 2, || count("answers again") > recovered);
            eventually_true("the node has registered anew", WAIT, || {
                consul.instances().contains(r#""node":"node@127.0.0.1""#)
            });
            // The index begins anew with another Consul; what is told after that counts all the same.
            consul.register("web-8", "127.0.0.8");
            node.logs(&["unable to connect to web@127.0.0.8"]);
            assert!(connected(), "{}", node.log());
            assert_eq!(beam.eval("counters:get(persistent_term:get(downs), 1)"), "0", "{}", node.log());
            Ok(())
        },
    );
}

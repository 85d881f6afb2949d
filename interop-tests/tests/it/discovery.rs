//! Nodes that find each other: every strategy against real nodes.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use foundation_interop_tests::case::Unsupported;
use foundation_interop_tests::netns::{self, Hosts};
use foundation_interop_tests::{Beam, Case, Epmd, beam, built, case, eventually::eventually_true, work_dir};

use crate::rust::WAIT;

const TOPIC: &str = "discovery";

/// A running `foundation start`. It is killed when this is dropped.
pub(crate) struct Started {
    child: Child,
    log: PathBuf,
}

impl Started {
    /// A node `name` with these arguments and variables, its log in a file.
    pub(crate) fn with(epmd_port: u16, name: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        Self::behind(&[], epmd_port, name, arguments, variables)
    }

    /// The same behind a command that leads to another namespace.
    pub(crate) fn behind(
        prefix: &[String],
        epmd_port: u16,
        name: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let arguments = [&["--name", name], arguments].concat();
        Self::unnamed(prefix, epmd_port, name, &arguments, variables)
    }

    /// The same without a name; the log is called `name`.
    pub(crate) fn unnamed(
        prefix: &[String],
        epmd_port: u16,
        name: &str,
        arguments: &[&str],
        variables: &[(&str, &str)],
    ) -> Self {
        let log = work_dir("discovery").join(format!("{name}-{epmd_port}.log"));
        let program = built::binary("foundation");
        let mut command = match prefix.split_first() {
            None => Command::new(program),
            Some((first, arguments)) => {
                let mut command = Command::new(first);
                command.args(arguments).arg(program);
                command
            }
        };
        for variable in ["RELEASE_NODE", "FOUNDATION_NODE", "FOUNDATION_LOG", "FOUNDATION_ENV", "MIX_ENV"] {
            command.env_remove(variable);
        }
        let child = command
            .args(["start", "--log-format", "logfmt"])
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

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until the log has a line with all of these words, and returns it.
    #[track_caller]
    pub(crate) fn logs(&self, words: &[&str]) -> String {
        let line = || {
            let log = self.log();
            log.lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned)
        };
        eventually_true(&format!("{words:?} in {}", self.log.display()), WAIT, || line().is_some());
        line().unwrap()
    }
}

impl Started {
    /// Makes it read its configuration anew.
    pub(crate) fn hang_up(&self) {
        beam::signal("HUP", self.child.id());
    }

    /// Ends it in an orderly way.
    pub(crate) fn stop(mut self) {
        beam::signal("TERM", self.child.id());
        self.child.wait().unwrap();
    }
}

impl Started {
    /// Tells it to stop, and waits until it has.
    pub(crate) fn terminate(mut self) {
        beam::signal("TERM", self.child.id());
        let mut ended = || self.child.try_wait().unwrap().is_some();
        eventually_true("it ends", WAIT, &mut ended);
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
    const NAME: &str = "two `foundation start` and a BEAM node are one cluster by themselves";
    // Without a configuration they ask on every network of the machine; here that is none of the real ones.
    match netns::rerun("discovery::nodes_of_one_machine_find_each_other_without_configuration") {
        Some(Ok(_)) => return,
        Some(Err(why)) => return case(Case::Smoke, TOPIC, NAME, |_| Err(Unsupported(why))),
        None => {}
    }
    case(Case::Smoke, TOPIC, NAME, |release| {
        let _hosts = Hosts::new();
        let epmd = Epmd::start(release);
        let beam = Beam::visible(release, &epmd, "app");
        let development = [("FOUNDATION_ENV", "dev")];
        let one = Started::with(epmd.port, "one@127.0.0.1", &[], &development);
        let two = Started::with(epmd.port, "two@127.0.0.1", &[], &development);
        eventually_true("the BEAM has both", WAIT, || {
            beam.eval("lists:sort(nodes(hidden))") == "['one@127.0.0.1','two@127.0.0.1']"
        });
        one.logs(&["discovery: local_epmd: FOUNDATION_ENV"]);
        one.logs(&["discovery: mdns: FOUNDATION_ENV"]);
        one.logs(&[
            "Foundation cluster formed",
            "cluster_id=one",
            "strategy=",
            "local_epmd",
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
    });
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

#[test]
fn sighup_reads_the_configuration_anew() {
    case(
        Case::Full,
        TOPIC,
        "SIGHUP: [cluster] and log are read anew, other keys are named, a mistake changes nothing",
        |release| {
            let epmd = Epmd::start(release);
            let beam = Beam::visible(release, &epmd, "app");
            let name = format!("hangup-{}", epmd.port);
            let [flag, file] = config(&name, "[cluster]\nstrategy = 'static'\nhosts = []\n");
            let node = Started::with(epmd.port, "hup@127.0.0.1", &[&flag, &file], &[]);
            node.logs(&["discovery: static: written"]);
            node.hang_up();
            node.logs(&["SIGHUP: the configuration is the same"]);
            config(&name, "log = 'debug'\nnet_ticktime = 9\n[cluster]\nstrategy = 'local_epmd'\n");
            node.hang_up();
            eventually_true("the new source names the BEAM", WAIT, || {
                beam.eval("nodes(hidden)") == "['hup@127.0.0.1']"
            });
            node.logs(&[
                "SIGHUP: this key takes effect at the next start",
                "net_ticktime",
                "from=60",
                "to=9",
            ]);
            node.logs(&["level=debug"]);
            config(&name, "[cluster]\nstrategy = 'moon'\n");
            node.hang_up();
            node.logs(&["SIGHUP: the configuration is wrong; nothing has changed", "moon"]);
            config(&name, "[cluster]\nstrategy = 'static'\nhosts = ['app@127.0.0.1']\n");
            node.hang_up();
            eventually_true("twice read anew", WAIT, || {
                node.log().matches("[cluster] is read anew").count() == 2
            });
            assert_eq!(beam.eval("nodes(hidden)"), "['hup@127.0.0.1']", "nobody was disconnected");
            Ok(())
        },
    );
}

/// A file with a configuration, and the arguments that name it.
pub(crate) fn config(name: &str, text: &str) -> [String; 2] {
    let file = work_dir("discovery").join(format!("{name}.toml"));
    std::fs::write(&file, text).unwrap();
    ["--config".to_owned(), file.to_str().unwrap().to_owned()]
}

/// What libcluster's gossip does, on the loopback interface: sends its heartbeat until it has heard one of another node, and says which.
const GOSSIP: &str = r#"
    Port = @PORT@, Secret = @SECRET@,
    Group = {233, 252, 1, 32}, Interface = {127, 0, 0, 1},
    {ok, Socket} = gen_udp:open(Port, [binary, {active, false}, {reuseaddr, true}, {multicast_if, Interface},
        {multicast_loop, true}, {multicast_ttl, 1}, {add_membership, {Group, Interface}}]),
    Key = crypto:hash(sha256, Secret),
    Plain = iolist_to_binary([<<"heartbeat::">>, term_to_binary(#{node => node()})]),
    Seal = fun(<<>>) -> Plain;
              (_) -> Iv = crypto:strong_rand_bytes(16), Pad = 16 - byte_size(Plain) rem 16,
                     Padded = [Plain, binary:copy(<<Pad>>, Pad)],
                     [Iv, crypto:crypto_one_time(aes_256_cbc, Key, Iv, Padded, true)] end,
    Open = fun(<<>>, Datagram) -> Datagram;
              (_, <<Iv:16/binary, Sealed/binary>>) -> crypto:crypto_one_time(aes_256_cbc, Key, Iv, Sealed, false) end,
    Loop = fun Loop(0) -> nobody;
               Loop(Left) ->
        ok = gen_udp:send(Socket, Group, Port, Seal(Secret)),
        %% Its own datagrams come back at once; only silence counts.
        Listen = fun Listen() ->
            case gen_udp:recv(Socket, 0, 200) of
                {ok, {_, _, Datagram}} ->
                    case catch begin <<"heartbeat::", Term/binary>> = Open(Secret, Datagram), binary_to_term(Term) end of
                        #{node := Node} when Node =/= node() -> Node;
                        _ -> Listen()
                    end;
                {error, timeout} -> nobody
            end
        end,
        case Listen() of
            nobody -> Loop(Left - 1);
            Node -> Node
        end
    end,
    Heard = Loop(200),
    gen_udp:close(Socket),
    Heard
"#;

#[test]
fn gossip_is_that_of_libcluster() {
    case(
        Case::Full,
        TOPIC,
        "gossip with and without a secret is heard and understood by a BEAM node",
        |release| {
            for secret in ["", "s3cret"] {
                let epmd = Epmd::start(release);
                let beam = Beam::visible(release, &epmd, "app");
                let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
                let name = if secret.is_empty() { "plain" } else { "sealed" };
                let line = if secret.is_empty() {
                    "allow = ['127.0.0.0/8']"
                } else {
                    "secret = { system = 'SECRET' }"
                };
                let text = format!(
                    "[cluster]\nstrategy = 'gossip'\nport = {port}\nmulticast_if = '127.0.0.1'\n{line}\n"
                );
                let arguments = config(&format!("{name}-{}", epmd.port), &text);
                let arguments = [arguments[0].as_str(), arguments[1].as_str()];
                let node = format!("{name}@127.0.0.1");
                let started = Started::with(epmd.port, &node, &arguments, &[("SECRET", secret)]);
                epmd.wait_for(name);
                let code = GOSSIP
                    .replace("@PORT@", &port.to_string())
                    .replace("@SECRET@", &format!("<<\"{secret}\">>"));
                assert_eq!(beam.eval(&code), format!("'{node}'"), "{}", started.log());
                eventually_true("the BEAM is dialled", WAIT, || {
                    beam.eval("nodes(hidden)") == format!("['{node}']")
                });
            }
            Ok(())
        },
    );
}

#[test]
fn gossip_without_a_secret_must_be_allowed() {
    case(
        Case::Full,
        TOPIC,
        "a name in a heartbeat that is not allowed is not dialled, and the log has the line to add",
        |release| {
            let epmd = Epmd::start(release);
            let _beam = Beam::visible(release, &epmd, "app");
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let text = format!("[cluster]\nstrategy = 'gossip'\nport = {port}\nmulticast_if = '127.0.0.1'\n");
            let arguments = config(&format!("refused-{}", epmd.port), &text);
            let arguments = [arguments[0].as_str(), arguments[1].as_str()];
            let started =
                Started::with(epmd.port, "refused@127.0.0.1", &arguments, &[("FOUNDATION_ENV", "prod")]);
            epmd.wait_for("refused");
            let heartbeat = b"heartbeat::\x83t\x00\x00\x00\x01w\x04nodew\x0dapp@127.0.0.1";
            eventually_true("the refusal is logged", WAIT, || {
                // Also what is no heartbeat at all.
                for datagram in [&heartbeat[..], &heartbeat[..20], &[0_u8; 1400]] {
                    let _ = socket.send_to(datagram, ("127.0.0.1", port));
                }
                started.log().contains("allow = [\\\"app@127.0.0.1\\\"]")
            });
            assert!(!started.log().contains("connected to app@"), "{}", started.log());
            Ok(())
        },
    );
}

#[test]
fn a_flood_of_heartbeats_is_bounded() {
    case(
        Case::Full,
        TOPIC,
        "a flood of heartbeats with invented names fills nothing, and a heartbeat behind it is heard",
        |release| {
            let epmd = Epmd::start(release);
            let beam = Beam::visible(release, &epmd, "app");
            let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
            let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let text = format!(
                "[cluster]\nstrategy = 'gossip'\nport = {port}\nmulticast_if = '127.0.0.1'\nallow = ['app@127.0.0.1']\n"
            );
            let arguments = config(&format!("flooded-{}", epmd.port), &text);
            let arguments = [arguments[0].as_str(), arguments[1].as_str()];
            let node =
                Started::with(epmd.port, "flooded@127.0.0.1", &arguments, &[("FOUNDATION_ENV", "prod")]);
            epmd.wait_for("flooded");
            let say = |name: &str| {
                let mut heartbeat = b"heartbeat::\x83t\x00\x00\x00\x01w\x04nodew".to_vec();
                heartbeat.push(name.len() as u8);
                heartbeat.extend(name.as_bytes());
                // Nobody may listen yet.
                let _ = socket.send_to(&heartbeat, ("127.0.0.1", port));
            };
            let refused = || node.log().matches("is not dialled").count();
            let mut invented = 0_u32;
            eventually_true("invented names are refused", WAIT, || {
                (0..1000).for_each(|_| {
                    invented += 1;
                    say(&format!("x{invented}@10.255.255.1"));
                });
                refused() > 0
            });
            (0..20_000).for_each(|at| say(&format!("y{at}@10.255.255.1")));
            eventually_true("a heartbeat behind them is heard", WAIT, || {
                say("app@127.0.0.1");
                beam.eval("nodes(hidden)") == "['flooded@127.0.0.1']"
            });
            // Each name is said once, and only so many are remembered.
            assert!(refused() <= 256, "{}", refused());
            Ok(())
        },
    );
}

/// A name server that answers every question in the way it is told.
pub(crate) struct NameServer {
    pub(crate) port: u16,
    answer: std::sync::Arc<std::sync::Mutex<Answer>>,
    questions: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

#[derive(Clone, Debug)]
pub(crate) enum Answer {
    /// The A records; other types have none.
    Addresses(Vec<[u8; 4]>),
    /// This response code.
    Code(u8),
    /// Nothing at all.
    Silence,
}

impl NameServer {
    pub(crate) fn start(answer: Answer) -> Self {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port();
        let answer = std::sync::Arc::new(std::sync::Mutex::new(answer));
        let shared = std::sync::Arc::downgrade(&answer);
        let questions = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = std::sync::Arc::clone(&questions);
        socket.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
        std::thread::spawn(move || {
            let mut query = [0_u8; 512];
            while let Some(answer) = shared.upgrade() {
                let Ok((length, from)) = socket.recv_from(&mut query) else { continue };
                let answer = answer.lock().unwrap().clone();
                counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                if let Some(response) = respond(&query[..length], &answer) {
                    let _ = socket.send_to(&response, from);
                }
            }
        });
        Self { port, answer, questions }
    }

    pub(crate) fn says(&self, answer: Answer) {
        *self.answer.lock().unwrap() = answer;
    }

    /// How often it was asked so far.
    pub(crate) fn questions(&self) -> usize {
        self.questions.load(std::sync::atomic::Ordering::Relaxed)
    }
}

/// RFC 1035 section 4: the header, the question as it came, and the records.
fn respond(query: &[u8], answer: &Answer) -> Option<Vec<u8>> {
    let end = 12 + query[12..].iter().position(|byte| *byte == 0)? + 5;
    let is_a = query[end - 4..end - 2] == [0, 1];
    let (code, addresses) = match answer {
        Answer::Addresses(addresses) if is_a => (0, addresses.as_slice()),
        Answer::Addresses(_) => (0, &[][..]),
        Answer::Code(code) => (*code, &[][..]),
        Answer::Silence => return None,
    };
    let mut out = query[..2].to_vec();
    out.extend([0x81, 0x80 | code, 0, 1, 0, addresses.len() as u8, 0, 0, 0, 0]);
    out.extend(&query[12..end]);
    for address in addresses {
        out.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4]); // for a second
        out.extend(address);
    }
    Some(out)
}

#[test]
fn dns_names_the_nodes() {
    case(
        Case::Full,
        TOPIC,
        "the addresses of a name in DNS are nodes; no answer, SERVFAIL and NXDOMAIN disconnect nobody",
        |release| {
            const LOCALHOST: [u8; 4] = [127, 0, 0, 1];
            let epmd = Epmd::start(release);
            let beam = Beam::visible(release, &epmd, "app");
            let server = NameServer::start(Answer::Code(2));
            let text = format!(
                "[cluster]\nstrategy = 'dns'\nquery = 'app.internal'\nbasename = 'app'\npolling_interval = 100\n\
             prune = 'disconnect'\nservers = ['127.0.0.1:{}']\n",
                server.port
            );
            let arguments = config(&format!("dns-{}", epmd.port), &text);
            let arguments = [arguments[0].as_str(), arguments[1].as_str()];
            let node = Started::with(epmd.port, "dns@127.0.0.1", &arguments, &[]);
            node.logs(&["no answer; what it said before stands", "app.internal"]);
            let connected = || beam.eval("nodes(hidden)") == "['dns@127.0.0.1']";
            server.says(Answer::Addresses(vec![LOCALHOST]));
            eventually_true("it is found once the server answers", WAIT, connected);
            node.logs(&["answers again"]);
            beam.eval("net_kernel:monitor_nodes(true, #{node_type => all})");
            for answer in [Answer::Code(2), Answer::Silence, Answer::Code(5)] {
                server.says(answer.clone());
                let failures = || node.log().matches("what it said before stands").count();
                let before = failures();
                eventually_true(&format!("{answer:?} is reported"), WAIT * 2, || failures() > before);
                assert!(connected(), "{answer:?}");
                server.says(Answer::Addresses(vec![LOCALHOST]));
                let recovered = || node.log().matches("answers again").count();
                let before = recovered();
                eventually_true("it recovers", WAIT * 2, || recovered() > before);
            }
            // Confirmed absence, and a configuration that asks for it: now it is disconnected.
            server.says(Answer::Code(3));
            eventually_true("NXDOMAIN for 10 s counts", WAIT * 2, || !connected());
            node.logs(&["app@127.0.0.1 is not named any more", "disconnects=true"]);
            Ok(())
        },
    );
}

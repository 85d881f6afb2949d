//! Clusters of our nodes and of nodes with unmodified libraries of discovery, whose sources are sick, part of `make ecosystem`.
//!
//! Four nodes have the address 127.0.0.1 and names of their own: `pine` and `oak` are BEAM nodes with a library, `ours` and `other` are Rust
//! nodes. Each has a source for each name. What is true while a source fails:
//!
//! 1. No node loses a Rust node, except that libcluster disconnects whom its source does not name, in which it takes most failures for an
//!    empty answer. The BEAM that does so says `disconnect`; every other reason is a fault of ours.
//! 2. A library that disconnects nobody (gossip, `dns_cluster`, `libcluster_postgres`) loses nobody at all.
//! 3. While the source still fails, all four are connected: the Rust nodes dial again, and introduce the BEAM nodes.

use foundation_interop_tests::case::Unsupported;
use foundation_interop_tests::{
    Beam, Case, Epmd, Release, beam, case, eventually::answer_within, eventually::eventually_true,
};

use crate::discovery::{Answer, NameServer, Started, config};
use crate::discovery_consul::{Consul, TOKEN};
use crate::discovery_kubernetes::{Api, Fault, ready};
use crate::discovery_postgres::{PASSWORD, Postgres};
use crate::ecosystem::{TOPIC, compiled, with_code};
use crate::rust::WAIT;

const NAMES: [&str; 4] = ["pine", "oak", "ours", "other"];
const LIBCLUSTER: [&str; 3] = ["telemetry", "jason", "libcluster"];
const LOCALHOST: [u8; 4] = [127, 0, 0, 1];

/// Notes whom this node loses, and why.
const WATCH: &str = "Self = self(),
    spawn(fun() ->
        ets:new(lost, [named_table, public, duplicate_bag]),
        ok = net_kernel:monitor_nodes(true, [{node_type, all}, nodedown_reason]),
        Self ! watching,
        (fun L() -> receive {nodedown, Node, Why} -> ets:insert(lost, {Node, proplists:get_value(nodedown_reason, Why)}); _ -> ok end, L() end)()
    end),
    receive watching -> ok end";

/// The applications that the libraries run in.
const APPLICATIONS: &str = "for app <- [:logger, :eex], do: :code.add_path(String.to_charlist(Path.join([:code.lib_dir(:elixir), \"..\", \"#{app}\", \"ebin\"])))\n\
    {:ok, [app]} = :file.consult(:code.where_is_file(~c\"telemetry.app\"))\n:ok = :application.load(app)\n\
    for app <- [:telemetry, :logger, :inets, :ssl, :crypto], do: {:ok, _} = Application.ensure_all_started(app)\n:ok";

struct Cluster {
    epmd: Epmd,
    /// With libraries.
    beams: [Beam; 2],
    rust: Vec<Started>,
}

impl Cluster {
    /// The two BEAM nodes.
    fn start(release: &Release, libraries: &[&str]) -> Result<Self, Unsupported> {
        if release.elixir_ebin().is_none() {
            return Err(Unsupported("this release has no Elixir"));
        }
        if release.number < 25 {
            return Err(Unsupported("libcluster wants Elixir 1.13"));
        }
        let folders = compiled(release, libraries).ok_or(Unsupported("the source of a library is absent"))?;
        let epmd = Epmd::start(release);
        let beams = ["pine", "oak"].map(|name| {
            let beam = with_code(beam::Options::new(release, epmd.port, name), &folders).start();
            beam.elixir(APPLICATIONS);
            beam.eval(WATCH);
            beam
        });
        Ok(Self { epmd, beams, rust: Vec::new() })
    }

    /// Starts the two Rust nodes, which introduce, with a topology for each of the names.
    fn rust(&mut self, strategy: &str, keys: impl Fn(&str) -> String, names: &[&str], prune: &str) {
        let mut text = "[cluster]\nintroduce = { interval = 300 }\nallow = ['127.0.0.0/8']\n".to_owned();
        for name in names {
            text.push_str(&format!(
                "[cluster.topologies.{name}]\nstrategy = '{strategy}'\nprune = '{prune}'\nconfig = {{ {} }}\n",
                keys(name)
            ));
        }
        self.rust = ["ours", "other"].map(|name| self.started(name, &text)).into();
    }

    fn started(&self, name: &str, text: &str) -> Started {
        let port = self.epmd.port;
        let [flag, file] = config(&format!("mixed-{name}-{port}"), text);
        Started::with(port, &format!("{name}@127.0.0.1"), &[&flag, &file], &[("FOUNDATION_ENV", "prod")])
    }

    /// Starts libcluster on both BEAM nodes, with a topology for each of the names.
    fn libcluster(&self, names: &[&str], strategy: &str, keys: impl Fn(&str) -> String) {
        for beam in &self.beams {
            let topologies: String = names
                .iter()
                .map(|name| format!("{name}: [strategy: {strategy}, config: [{}]],", keys(name)))
                .collect();
            let topologies = topologies.trim_end_matches(',');
            // A strategy may end when its source is sick; the process that evaluates does not end with it.
            beam.elixir(&format!(
                "test = self()\n\
                 spawn(fn ->\n\
                   {{:ok, _}} = Cluster.Supervisor.start_link([[{topologies}], [name: Clusters]])\n\
                   send(test, :started)\n\
                   Process.sleep(:infinity)\n\
                 end)\n\
                 receive do :started -> :ok end"
            ));
        }
    }

    /// Whether each of the four is connected to the other three.
    fn complete(&self) -> bool {
        let others = |name: &str| {
            let mut others: Vec<String> = NAMES
                .iter()
                .filter(|other| **other != name)
                .map(|other| format!("'{other}@127.0.0.1'"))
                .collect();
            others.sort();
            format!("[{}]", others.join(","))
        };
        let [pine, oak] = &self.beams;
        let asked = |name: &str| {
            pine.eval(&format!(
                "case rpc:call('{name}@127.0.0.1', erlang, nodes, [connected], 5000) of L when is_list(L) -> lists:sort(L); E -> E end"
            ))
        };
        [pine, oak]
            .iter()
            .zip(["pine", "oak"])
            .all(|(beam, name)| beam.eval("lists:sort(nodes(connected))") == others(name))
            && ["ours", "other"].iter().all(|name| asked(name) == others(name))
    }

    #[track_caller]
    fn becomes_complete(&self, when: &str) {
        let lost = || {
            let beams = self
                .beams
                .each_ref()
                .map(|beam| (beam.eval("nodes(connected)"), beam.eval("ets:tab2list(lost)")));
            let logs: String = self.rust.iter().map(Started::log).collect();
            format!("{beams:?}\n{logs}")
        };
        let complete = answer_within(WAIT * 2, || self.complete().then_some(()));
        assert!(complete.is_some(), "all four are connected {when}: {}", lost());
    }

    /// No Rust node is lost by a BEAM node that did not end the connection itself, nor by the other Rust node.
    #[track_caller]
    fn kept_ours(&self) {
        for beam in &self.beams {
            let lost = beam.eval(
                "[Lost || {Node, Why} = Lost <- ets:tab2list(lost), lists:member(Node, ['ours@127.0.0.1', 'other@127.0.0.1']), Why =/= disconnect]",
            );
            assert_eq!(lost, "[]", "{} lost a Rust node:\n{}", beam.name(), self.rust[0].log());
        }
        // A connection that was lost would have been made again.
        for (node, other) in self.rust.iter().zip(["other", "ours"]) {
            let log = node.log();
            assert!(log.matches(&format!("connected to {other}@127.0.0.1")).count() <= 1, "{log}");
        }
    }

    /// Nobody at all is lost.
    #[track_caller]
    fn kept_all(&self) {
        for node in &self.rust {
            assert!(!node.log().contains("nodedown"), "{}", node.log());
        }
        for beam in &self.beams {
            assert_eq!(beam.eval("ets:tab2list(lost)"), "[]", "{}", beam.name());
        }
    }
}

/// Waits until something was counted so many times more.
#[track_caller]
fn more(what: &str, times: usize, count: impl Fn() -> usize) {
    let before = count();
    eventually_true(what, WAIT * 2, || count() >= before + times);
}

#[test]
fn gossip() {
    for (secret, name) in [
        (
            false,
            "unmodified libcluster's gossip and ours form one cluster; noise and a node that falls silent disconnect nobody",
        ),
        (
            true,
            "unmodified libcluster's gossip with a secret and ours form one cluster; noise and a node that falls silent disconnect nobody",
        ),
    ] {
        if LIBCLUSTER.iter().any(|library| crate::ecosystem::source(library).is_none()) {
            return;
        }
        case(Case::Full, TOPIC, name, |release| {
            let mut cluster = Cluster::start(release, &LIBCLUSTER)?;
            let port = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            let (theirs, ours) =
                if secret { (", secret: \"s3cret\"", ", secret = 's3cret'") } else { ("", "") };
            cluster.rust(
                "Cluster.Strategy.Gossip",
                |_| format!("port = {port}, multicast_if = '127.0.0.1'{ours}"),
                &["gossip"],
                "forget",
            );
            cluster.libcluster(&["gossip"], "Cluster.Strategy.Gossip", |_| {
                format!("port: {port}, multicast_if: \"127.0.0.1\"{theirs}")
            });
            cluster.becomes_complete("by gossip");
            // What is no heartbeat, in lengths that a cipher takes and does not take. The four share the port: each sender has another of them
            // as its reader.
            for length in (0..1400).step_by(7) {
                let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
                let _ = socket.send_to(&vec![0xA5; length], ("127.0.0.1", port));
            }
            assert!(cluster.complete());
            // One of them says nothing any more, and lives.
            cluster.beams[0].elixir("Supervisor.stop(Clusters)");
            assert!(cluster.complete());
            cluster.kept_all();
            Ok(())
        });
    }
}

#[test]
fn dns() {
    let libraries = [&LIBCLUSTER[..], &["dns_cluster"]].concat();
    if libraries.iter().any(|library| crate::ecosystem::source(library).is_none()) {
        return;
    }
    case(
        Case::Full,
        TOPIC,
        "unmodified libcluster (DNSPoll), dns_cluster and ours form one cluster; flapping, refused and missing answers of DNS disconnect nobody",
        |release| {
            let mut cluster = Cluster::start(release, &libraries)?;
            let server = NameServer::start(Answer::Addresses(vec![LOCALHOST]));
            let port = server.port;
            for beam in &cluster.beams {
                beam.eval(&format!(
                    "inet_db:set_resolv_conf(\"\"), ok = inet_db:res_option(nameservers, [{{{{127,0,0,1}}, {port}}}])"
                ));
            }
            cluster.rust(
                "Cluster.Strategy.DNSPoll",
                |name| {
                    format!(
                        "query = 'nodes.internal', node_basename = '{name}', polling_interval = 100, servers = ['127.0.0.1:{port}']"
                    )
                },
                &NAMES,
                "disconnect",
            );
            let [pine, oak] = &cluster.beams;
            let topologies: Vec<String> = NAMES
                .iter()
                .map(|name| {
                    format!(
                        "{name}: [strategy: Cluster.Strategy.DNSPoll, config: [query: \"nodes.internal\", node_basename: \"{name}\", polling_interval: 200]]"
                    )
                })
                .collect();
            pine.elixir(&format!(
                "{{:ok, _}} = Cluster.Supervisor.start_link([[{}], [name: Clusters]])\n:ok",
                topologies.join(", ")
            ));
            let queries: Vec<String> =
                NAMES.iter().map(|name| format!("{{\"{name}\", \"nodes.internal\"}}")).collect();
            oak.elixir(&format!(
                "{{:ok, _}} = Supervisor.start_link([{{DNSCluster, query: [{}], interval: 200}}], strategy: :one_for_one, max_restarts: 100)\n:ok",
                queries.join(", ")
            ));
            cluster.becomes_complete("by DNS");
            for answer in [
                Answer::Code(3),
                Answer::Addresses(Vec::new()),
                Answer::Code(2),
                Answer::Code(5),
                Answer::Silence,
                Answer::Code(3),
                Answer::Addresses(Vec::new()),
            ] {
                server.says(answer.clone());
                more(&format!("DNS is asked while it says {answer:?}"), 60, || server.questions());
                server.says(Answer::Addresses(vec![LOCALHOST]));
                more("DNS is asked", 60, || server.questions());
            }
            cluster.kept_ours();
            let lost = cluster.beams[1]
                .eval("[Lost || {Node, _} = Lost <- ets:tab2list(lost), Node =/= 'pine@127.0.0.1']");
            assert_eq!(lost, "[]", "dns_cluster disconnects nobody, and libcluster only itself");
            server.says(Answer::Code(2));
            more("DNS is asked while it fails", 100, || server.questions());
            cluster.becomes_complete("while DNS fails");
            cluster.kept_ours();
            Ok(())
        },
    );
}

#[test]
fn kubernetes() {
    if LIBCLUSTER.iter().any(|library| crate::ecosystem::source(library).is_none()) {
        return;
    }
    case(
        Case::Full,
        TOPIC,
        "unmodified libcluster (Kubernetes) and ours form one cluster; 403, 500, silence, cut answers and a rotated token disconnect nobody",
        |release| {
            let mut cluster = Cluster::start(release, &LIBCLUSTER)?;
            let api = Api::start();
            api.state().unwatched = true;
            api.put("web-0", r#","uid":"u0""#, &ready("127.0.0.1"));
            api.put("web-1", r#","uid":"u1""#, r#""phase":"Pending""#);
            let (master, directory) = (format!("127.0.0.1:{}", api.port), api.directory());
            cluster.rust(
                "Cluster.Strategy.Kubernetes",
                |name| {
                    format!(
                        "kubernetes_selector = 'app=web', kubernetes_node_basename = '{name}', kubernetes_ip_lookup_mode = 'pods', \
                         kubernetes_service_account_path = {directory:?}, kubernetes_master = '{master}', polling_interval = 100, \
                         request_timeout = 1000"
                    )
                },
                &NAMES,
                "disconnect",
            );
            for beam in &cluster.beams {
                // The only way to give libcluster an API server at another place than `NAME.cluster.local`.
                beam.elixir(&format!("System.put_env(\"CLUSTER_DOMAIN\", \"{master}\")"));
            }
            cluster.libcluster(&NAMES, "Cluster.Strategy.Kubernetes", |name| {
                format!(
                    "kubernetes_selector: \"app=web\", kubernetes_node_basename: \"{name}\", kubernetes_ip_lookup_mode: :pods, \
                     kubernetes_service_account_path: {directory:?}, kubernetes_master: \"{master}\", polling_interval: 200"
                )
            });
            cluster.becomes_complete("by the API of Kubernetes");
            let requests = || api.requests(0).len();
            for fault in
                [Fault::Status(403), Fault::Status(500), Fault::Silence, Fault::Cut, Fault::Status(403)]
            {
                api.state().fault = Some(fault);
                more(&format!("the API is asked with {fault:?}"), 20, requests);
                api.state().fault = None;
                more("the API is asked", 40, requests);
            }
            // Rotated, and the file comes later.
            api.state().token = "second".into();
            more("the API is asked with the old token", 20, requests);
            api.pki.write("token", "second");
            more("the API is asked with the new token", 40, requests);
            cluster.kept_ours();
            api.state().fault = Some(Fault::Status(403));
            more("the API is asked while it refuses", 40, requests);
            cluster.becomes_complete("while the API of Kubernetes refuses");
            cluster.kept_ours();
            Ok(())
        },
    );
}

#[test]
fn consul() {
    let libraries = [&LIBCLUSTER[..], &["libcluster_consul"]].concat();
    if libraries.iter().any(|library| crate::ecosystem::source(library).is_none()) {
        return;
    }
    case(
        Case::Full,
        TOPIC,
        "unmodified libcluster_consul and ours form one cluster; a critical instance and a Consul that is gone disconnect nobody",
        |release| {
            // Each beginning anew: what the Rust nodes have heard last decides whom they connect while Consul is gone.
            for gone in [false, true] {
                let mut cluster = Cluster::start(release, &libraries)?;
                let mut consul = Consul::start();
                consul.register("web-1", "127.0.0.1");
                let url = format!("http://127.0.0.1:{}", consul.port);
                cluster.rust(
                "Cluster.Strategy.Consul",
                |name| {
                    format!(
                        "service = {{ name = 'web' }}, node_basename = '{name}', base_url = '{url}', access_token = '{TOKEN}', polling_interval = 100"
                    )
                },
                &NAMES,
                "disconnect",
            );
                // The agent answers with an error as soon as an instance is critical; the other way leaves that instance out.
                let using =
                    ["Cluster.Strategy.Consul.Agent", "{Cluster.Strategy.Consul.Health, [passing: true]}"];
                for (beam, using) in cluster.beams.iter().zip(using) {
                    let topologies: Vec<String> = NAMES
                    .iter()
                    .map(|name| {
                        format!(
                            "{name}: [strategy: Cluster.Strategy.Consul, config: [service: [name: \"web\"], node_basename: \"{name}\", \
                             base_url: \"{url}\", access_token: \"{TOKEN}\", polling_interval: 200, list_using: [{using}]]]"
                        )
                    })
                    .collect();
                    beam.elixir(&format!(
                        "{{:ok, _}} = Cluster.Supervisor.start_link([[{}], [name: Clusters]])\n:ok",
                        topologies.join(", ")
                    ));
                }
                cluster.becomes_complete("by Consul");
                if gone {
                    consul.stop();
                    for rust in &cluster.rust {
                        rust.logs(&["no answer; what it said before stands"]);
                    }
                    cluster.becomes_complete("while Consul is gone");
                    cluster.kept_ours();
                    continue;
                }
                let theirs = || -> usize {
                    cluster
                        .beams
                        .iter()
                        .map(|beam| beam.eval("ets:info(lost, size)").parse::<usize>().unwrap())
                        .sum()
                };
                // Once: whether a library has heard that all is well again cannot be seen, as the Rust nodes may connect everybody before it does.
                let before = theirs();
                consul.put("/v1/agent/check/fail/service:web-1", "");
                eventually_true("the library has taken that for an empty answer", 3 * WAIT, || {
                    theirs() > before
                });
                consul.put("/v1/agent/check/pass/service:web-1", "");
                cluster.becomes_complete("when it is well again");
                cluster.kept_ours();
            }
            Ok(())
        },
    );
}

#[test]
fn postgres() {
    let own = ["decimal", "db_connection", "postgrex", "libcluster_postgres"];
    let libraries = [&LIBCLUSTER[..], &own].concat();
    if libraries.iter().any(|library| crate::ecosystem::source(library).is_none()) {
        return;
    }
    case(
        Case::Full,
        TOPIC,
        "unmodified libcluster_postgres and ours form one cluster; a database that is gone disconnects nobody",
        |release| {
            let mut cluster = Cluster::start(release, &libraries)?;
            let mut database = Postgres::start();
            let port = database.port;
            cluster.rust(
                "LibclusterPostgres.Strategy",
                |_| {
                    format!(
                        "hostname = '127.0.0.1', port = {port}, username = 'shop', password = {PASSWORD:?}, database = 'postgres', \
                         channel_name = 'shop', heartbeat_interval = 400"
                    )
                },
                &["postgres"],
                "forget",
            );
            for beam in &cluster.beams {
                beam.elixir("{:ok, _} = DBConnection.App.start(:normal, [])\n{:ok, _} = Postgrex.App.start(:normal, [])\n:ok");
            }
            cluster.libcluster(&["postgres"], "LibclusterPostgres.Strategy", |_| {
                format!(
                    "hostname: \"127.0.0.1\", port: {port}, username: \"shop\", password: {PASSWORD:?}, database: \"postgres\", \
                     channel_name: \"shop\", heartbeat_interval: 400"
                )
            });
            cluster.becomes_complete("by PostgreSQL");
            database.stop();
            for rust in &cluster.rust {
                rust.logs(&["no answer; what it said before stands"]);
            }
            assert!(cluster.complete());
            database.run();
            for rust in &cluster.rust {
                rust.logs(&["answers again"]);
            }
            assert!(cluster.complete());
            cluster.kept_all();
            Ok(())
        },
    );
}

//! Failover between sources, BEAM nodes that are introduced to each other, and several named clusters in one process.

use foundation_interop_tests::otp::Release;
use foundation_interop_tests::{Beam, Case, Epmd, beam, case, eventually::eventually_true};

use crate::discovery::{Answer, NameServer, Started, config};
use crate::rust::WAIT;

const TOPIC: &str = "discovery";
const LOCALHOST: [u8; 4] = [127, 0, 0, 1];

/// A BEAM node that connects to nobody of itself.
fn alone(release: &Release, epmd: &Epmd, name: &str) -> Beam {
    beam::Options::new(release, epmd.port, name).args("-connect_all false").start()
}

fn started(epmd: &Epmd, name: &str, text: &str, variables: &[(&str, &str)]) -> Started {
    let [flag, file] = config(&format!("{name}-{}", epmd.port), text);
    Started::with(epmd.port, &format!("{name}@127.0.0.1"), &[&flag, &file], variables)
}

#[test]
fn the_secondary_source_runs_when_the_primary_is_killed() {
    case(
        Case::Full,
        TOPIC,
        "primary and secondary: killing the name server of the primary starts the secondary and loses nobody",
        |release| {
            let epmd = Epmd::start(release);
            let app = alone(release, &epmd, "app");
            let spare = alone(release, &epmd, "spare");
            let server = NameServer::start(Answer::Addresses(vec![LOCALHOST]));
            let text = format!(
                "[cluster.primary]\nstrategy = 'Cluster.Strategy.DNSPoll'\nquery = 'app.internal'\nnode_basename = 'app'\n\
                 resource_types = ['a']\npolling_interval = 100\nservers = ['127.0.0.1:{}']\n\
                 [cluster.secondary]\nstrategy = 'static'\nhosts = ['spare@127.0.0.1']\n",
                server.port
            );
            let node = started(&epmd, "failover", &text, &[]);
            let has = |beam: &Beam| beam.eval("nodes(hidden)") == "['failover@127.0.0.1']";
            eventually_true("the primary's node is connected", WAIT, || has(&app));
            assert_eq!(spare.eval("nodes(hidden)"), "[]", "the secondary does not run");
            drop(server);
            // A server that is gone costs each question five seconds, and one failure is none.
            eventually_true("the secondary is started", WAIT * 4, || {
                node.log().lines().any(|line| {
                    line.contains("failover: these sources run now") && line.contains("primary, secondary")
                })
            });
            eventually_true("the secondary's node is connected", WAIT, || has(&spare));
            assert!(has(&app), "nobody is lost");
            Ok(())
        },
    );
}

#[test]
fn beam_nodes_are_introduced_to_each_other() {
    case(
        Case::Full,
        TOPIC,
        "introduce: three BEAM nodes that do not know each other are connected, connected again, and told who is given up",
        |release| {
            let epmd = Epmd::start(release);
            let [one, two, three] = ["one", "two", "three"].map(|name| alone(release, &epmd, name));
            let server = NameServer::start(Answer::Addresses(vec![LOCALHOST]));
            let text = format!(
                "[cluster]\nstrategy = ['static', 'dns']\nintroduce = {{ disconnect = true, interval = 300 }}\n\
                 [cluster.static]\nhosts = ['one@127.0.0.1', 'two@127.0.0.1']\n\
                 [cluster.dns]\nquery = 'three.internal'\nbasename = 'three'\npolling_interval = 100\nprune = 'disconnect'\n\
                 servers = ['127.0.0.1:{}']\n",
                server.port
            );
            let node = started(&epmd, "host", &text, &[]);
            let peers = |beam: &Beam| beam.eval("lists:sort(nodes())");
            let all = [
                (&one, "['three@127.0.0.1','two@127.0.0.1']"),
                (&two, "['one@127.0.0.1','three@127.0.0.1']"),
                (&three, "['one@127.0.0.1','two@127.0.0.1']"),
            ];
            for (beam, others) in &all {
                eventually_true("it has the other two", WAIT, || peers(beam) == *others);
            }
            node.logs(&["introduced one@127.0.0.1 to"]);
            one.eval("erlang:disconnect_node('two@127.0.0.1')");
            eventually_true("they are introduced again", WAIT, || {
                all.iter().all(|(beam, others)| peers(beam) == *others)
            });
            // Confirmed absence of one.
            server.says(Answer::Code(3));
            eventually_true("it is disconnected by everybody", WAIT * 2, || peers(&three) == "[]");
            node.logs(&["one@127.0.0.1 is told that three@127.0.0.1 is given up"]);
            assert_eq!((peers(&one), peers(&two)), ("['two@127.0.0.1']".into(), "['one@127.0.0.1']".into()));
            Ok(())
        },
    );
}

/// A service that keeps what it got last, as a plain group and as the Elixir library registers one.
const SERVICE: &str = "
    {ok, _} = pg:start(pg), {ok, _} = pg:start('Elixir.Foundation.ServiceMesh'),
    Pid = spawn(fun() -> (fun F() -> receive M -> persistent_term:put(got, M), F() end end)() end),
    ok = pg:join(pg, model, Pid),
    ok = pg:join('Elixir.Foundation.ServiceMesh', {service, payment, [refunds], #{level => high}, 5}, Pid)";

#[test]
fn a_bridge_passes_messages_between_two_clusters() {
    case(
        Case::Full,
        TOPIC,
        "two named clusters with two cookies: a bridge finds services and passes messages, their nodes never connect",
        |release| {
            let epmd = Epmd::start(release);
            let app = Beam::visible(release, &epmd, "app");
            let ai = beam::Options::new(release, epmd.port, "ai").cookie("another_cookie").start();
            ai.eval(SERVICE);
            let text = "[clusters.app]\nstrategy = 'static'\nhosts = ['app@127.0.0.1']\n\
                        [clusters.ai]\nstrategy = 'static'\nhosts = ['ai@127.0.0.1']\nerlang_cookie = { system = 'AI_COOKIE' }\n";
            let _bridge = started(&epmd, "bridge", text, &[("AI_COOKIE", "another_cookie")]);
            for (beam, identity) in [(&app, "['bridge_app@127.0.0.1']"), (&ai, "['bridge_ai@127.0.0.1']")] {
                eventually_true("each has its identity of the bridge", WAIT, || {
                    beam.eval("nodes(connected)") == identity
                });
            }
            let ask = |request: &str| {
                app.eval(&format!(
                    "gen_server:call({{foundation_bridge, 'bridge_app@127.0.0.1'}}, {request})"
                ))
            };
            eventually_true("the group is known", WAIT, || {
                ask("{send_to_cluster, ai, model, {hello, 1}}") == "ok"
            });
            let got = |message: &str| ai.eval("persistent_term:get(got, nothing)") == message;
            eventually_true("the message has arrived", WAIT, || got("{hello,1}"));
            eventually_true("so is the service", WAIT, || ask("{send_to_cluster, ai, payment, [2]}") == "ok");
            eventually_true("the message has arrived", WAIT, || got("[2]"));
            app.eval("gen_server:cast({foundation_bridge, 'bridge_app@127.0.0.1'}, {send_to_cluster, ai, model, 3})");
            eventually_true("the cast has arrived", WAIT, || got("3"));
            assert_eq!(
                app.eval(
                    "{ok, [S]} = gen_server:call({foundation_bridge, 'bridge_app@127.0.0.1'}, {discover_services, ai, payment}),
                     lists:sort(maps:to_list(S))"
                ),
                "[{capabilities,[refunds]},{cluster,ai},{metadata,#{level => high}},{name,payment},{node,'ai@127.0.0.1'},{registered_at,5}]"
            );
            assert_eq!(ask("clusters"), "{ok,[ai,app]}");
            assert_eq!(ask("{send_to_cluster, moon, model, 1}"), "{error,{unknown_cluster,moon}}");
            assert_eq!(ask("{send_to_cluster, ai, nobody, 1}"), "{error,service_not_found}");
            assert_eq!(ask("{send_to_cluster, 7, model, 1}"), "{error,badarg}");
            // The bridge is a service of the mesh, for the Elixir library.
            assert_eq!(
                ai.eval(
                    "[{service, foundation_bridge, Leads, _, _}] =
                         [G || {service, foundation_bridge, _, _, _} = G <- pg:which_groups('Elixir.Foundation.ServiceMesh')], Leads"
                ),
                "[app]"
            );
            for (beam, identity) in [(&app, "['bridge_app@127.0.0.1']"), (&ai, "['bridge_ai@127.0.0.1']")] {
                assert_eq!(beam.eval("nodes(connected)"), identity, "the clusters are not connected");
            }
            Ok(())
        },
    );
}

//! Every example of clustering in the documents from which this project started, as Elixir has it: each is taken, or answered by its
//! name. (What concerns the Elixir library alone is tested there.)

use foundation_proto::Limits;
use foundation_proto::etf::text::parse_elixir;

use super::*;

fn read(elixir: &str) -> Result<ClusterConfig, Mistake> {
    let term = parse_elixir(elixir, &Limits::default()).unwrap();
    ClusterConfig::from_value(&terms::value(&term)?)
}

/// The sources: name, strategy, rank.
fn sources(config: &ClusterConfig) -> Vec<(&str, &'static str, usize)> {
    config.sources.iter().map(|source| (source.name.as_str(), source.strategy.word(), source.rank)).collect()
}

#[test]
fn one_line() {
    assert_eq!(read("true").unwrap().mode, Mode::Auto);
    assert_eq!(read("false").unwrap().mode, Mode::Off);
    for (atom, word) in [(":consul", "consul"), (":dns", "dns"), (":kubernetes", "kubernetes")] {
        match read(atom) {
            Ok(config) => assert_eq!(sources(&config), [(word, word, 0)]),
            // A build without it says so.
            Err(mistake) => assert!(mistake.why.contains("built without"), "{atom}: {mistake}"),
        }
    }
    // Which nodes there are cannot be guessed.
    assert!(read(":static").unwrap_err().why.contains("hosts"));
    for atom in [":aws", ":gcp"] {
        match read(atom) {
            Ok(config) => assert_eq!(config.mode, Mode::Written),
            Err(mistake) => assert!(mistake.why.contains(atom.trim_start_matches(':')), "{atom}: {mistake}"),
        }
    }
    let gossip = read(r#"[strategy: :gossip, secret: "my-secret"]"#).unwrap();
    let StrategyConfig::Gossip(options) = &gossip.sources[0].strategy else { panic!() };
    assert!(options.secret.is_some());
    let mistake = read(":gosip").unwrap_err();
    assert!(mistake.why.contains("gosip") && mistake.why.contains("gossip"), "{mistake}");
}

#[cfg(feature = "kubernetes")]
#[test]
fn primary_and_secondary() {
    let config = read(
        r#"%{
          primary: [
            strategy: {Cluster.Strategy.Kubernetes, [
              mode: :hostname,
              kubernetes_node_basename: "myapp",
              kubernetes_selector: "app=myapp",
              kubernetes_service_name: "myapp"
            ]}
          ],
          secondary: [
            strategy: {Cluster.Strategy.Gossip, [multicast_addr: "230.1.1.251", multicast_ttl: 1]}
          ]
        }"#,
    )
    .unwrap();
    assert_eq!(sources(&config), [("primary", "kubernetes", 0), ("secondary", "gossip", 1)]);
    let StrategyConfig::Gossip(gossip) = &config.sources[1].strategy else { panic!() };
    assert_eq!(gossip.multicast_addr.to_string(), "230.1.1.251");
}

#[test]
fn primary_and_secondary_in_toml() {
    let read = |text: &str| {
        let table: Table = text.parse().unwrap();
        ClusterConfig::from_value(&Value::Table(table))
    };
    let config = read(
        "[primary]\nstrategy = 'local_epmd'\npolling_interval = 100\nprune = 'never'\n\
         [secondary]\nstrategy = 'Cluster.Strategy.LocalEpmd'\nconfig = { polling_interval = 200 }",
    )
    .unwrap();
    // Both have the same strategy, and each its own place.
    assert_eq!(sources(&config), [("primary", "local_epmd", 0), ("secondary", "local_epmd", 1)]);
    assert_eq!(config.sources[0].prune, Some(Prune::Never));
    let named =
        read("strategy = ['local_epmd', 'static']\nprimary = 'static'\nsecondary = 'local_epmd'\nstatic = { hosts = [] }").unwrap();
    assert_eq!(sources(&named), [("local_epmd", "local_epmd", 1), ("static", "static", 0)]);
    for (text, key) in [
        ("[primary]\nstrategy = 'local_epmd'\nodd = 1", "odd"),
        ("[primary]\nstrategy = 'local_epmd'\nodd = 1\nconfig = {}", "primary"),
        ("[primary]\nstrategy = { config = {} }", "primary"),
        ("primary = 1", "primary"),
        ("topologies = '[]'\n[primary]\nstrategy = 'local_epmd'", "topologies"),
    ] {
        let mistake = read(text).unwrap_err();
        assert!(mistake.to_string().contains(key), "{text}: {mistake}");
    }
}

#[cfg(all(feature = "kubernetes", feature = "dns", feature = "consul"))]
#[test]
fn strategies_with_their_options_in_a_tuple() {
    for (text, word) in [
        (r#"[strategy: {Cluster.Strategy.Kubernetes, [kubernetes_selector: "app=a"]}]"#, "kubernetes"),
        (r#"[strategy: {Cluster.Strategy.DNS, [query: "a.internal"]}]"#, "dns"),
        (r#"[strategy: {Cluster.Strategy.Consul, [service: [name: "a"]]}]"#, "consul"),
        // libcluster_consul's own form.
        (
            r#"[strategy: {Cluster.Strategy.Consul, [service: [id: "a"],
                 list_using: [{Cluster.Strategy.Consul.Agent, []}, {Cluster.Strategy.Consul.Health, [passing: true]}]]}]"#,
            "consul",
        ),
    ] {
        let config = read(text).unwrap_or_else(|mistake| panic!("{text}: {mistake}"));
        assert_eq!(config.sources[0].strategy.word(), word, "{text}");
    }
    let mistake =
        read(r#"[strategy: :consul, list_using: [{Cluster.Strategy.Consul.Health, [passing: false]}]]"#)
            .unwrap_err();
    assert!(mistake.why.contains("passing = false"), "{mistake}");
}

#[cfg(feature = "kubernetes")]
#[test]
fn topologies_of_libcluster() {
    let config = read(
        r#"[topologies: [k8s: [strategy: Cluster.Strategy.Kubernetes,
                               config: [kubernetes_selector: "app=myapp", kubernetes_node_basename: "myapp"]]]]"#,
    )
    .unwrap();
    assert_eq!(sources(&config), [("k8s", "kubernetes", 0)]);
}

#[test]
fn profiles() {
    for (profile, development) in [("development", true), ("production", false)] {
        let config = read(&format!("[profile: :{profile}]")).unwrap();
        assert_eq!(config.mode, Mode::Auto);
        assert_eq!(config.profile.map(|profile| profile.said().is_ok()), Some(development));
    }
    let mistake = read("[profile: :enterprise]").unwrap_err();
    assert!(mistake.why.contains("[clusters.NAME]"), "{mistake}");
    assert!(read("[profile: :hobby]").unwrap_err().why.contains("hobby"));
}

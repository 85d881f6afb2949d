use super::*;

fn read(text: &str) -> Result<ClusterConfig, Mistake> {
    let table: Table = text.parse().unwrap();
    ClusterConfig::from_value(table.get("cluster").unwrap())
}

#[test]
fn three_tiers() {
    assert_eq!(read("cluster = false").unwrap().mode, Mode::Off);
    assert_eq!(read("cluster = true").unwrap().mode, Mode::Auto);
    assert_eq!(read("cluster = 'auto'").unwrap().mode, Mode::Auto);
    assert_eq!(read("[cluster]\nallow = ['h']").unwrap().mode, Mode::Auto);
    let one = read("cluster = ':local_epmd'").unwrap();
    assert_eq!((one.mode, one.sources[0].strategy.word()), (Mode::Written, "local_epmd"));
    let flat = read("[cluster]\nstrategy = 'static'\nhosts = ['a@h', 'a@h', 'b@h']\nprune = false").unwrap();
    let StrategyConfig::Static(options) = &flat.sources[0].strategy else { panic!() };
    assert_eq!((options.hosts.len(), flat.sources[0].prune), (2, Some(Prune::Never)));
    let several = read(
        "[cluster]\nstrategy = ['static', 'local_epmd']\nfailover = ['static', 'local_epmd']\n\
         [cluster.static]\nhosts = ['a@h']",
    )
    .unwrap();
    let ranks: Vec<_> = several.sources.iter().map(|source| (source.name.as_str(), source.rank)).collect();
    assert_eq!(ranks, [("static", 0), ("local_epmd", 1)]);
    let StrategyConfig::Gossip(gossip) =
        &read("[cluster]\nstrategy = 'gossip'\nsecret = 'hush'").unwrap().sources[0].strategy
    else {
        panic!()
    };
    assert!(gossip.secret.is_some() && !format!("{gossip:?}").contains("hush"));
    #[cfg(feature = "dns")]
    for (name, keys) in [
        ("Cluster.Strategy.DNSPoll", "query = 'a.internal'\nnode_basename = 'app'\npolling_interval = 5000"),
        ("Cluster.Strategy.Kubernetes.DNS", "service = 'app-headless'\napplication_name = 'app'"),
        ("Cluster.Strategy.Kubernetes.DNSSRV", "service = 's'\nnamespace = 'n'\napplication_name = 'app'"),
    ] {
        read(&format!("[cluster.topologies.x]\nstrategy = '{name}'\n[cluster.topologies.x.config]\n{keys}"))
            .unwrap();
    }
    #[cfg(feature = "kubernetes")]
    for keys in [
        "mode = ':ip'\nkubernetes_node_basename = 'myapp'\nkubernetes_selector = 'app=myapp'\n\
         kubernetes_namespace = 'my_namespace'\npolling_interval = 10_000",
        "mode = ':hostname'\nkubernetes_node_basename = 'myapp'\nkubernetes_selector = 'app=myapp'\n\
         kubernetes_service_name = 'myapp'\nkubernetes_ip_lookup_mode = ':pods'\nkubernetes_use_cached_resources = true",
    ] {
        let text = format!(
            "[cluster.topologies.x]\nstrategy = 'Cluster.Strategy.Kubernetes'\n[cluster.topologies.x.config]\n{keys}"
        );
        assert_eq!(read(&text).unwrap().sources[0].strategy.word(), "kubernetes");
        assert_eq!(read("cluster = ':kubernetes'").unwrap().sources[0].strategy.word(), "kubernetes");
    }
    #[cfg(feature = "consul")]
    {
        let keys = "base_url = 'http://consul.service.dc1.consul:8500'\naccess_token = '036c943f'\npolling_interval = 10_000\n\
                    list_using = ['Cluster.Strategy.Consul.Agent']\ndc = 'dc1'\nservice = { name = 'service_name' }\n\
                    node_basename = 'app_name'\n'async_initial_connection?' = true\n'disable_verify_ssl?' = false";
        let text = format!(
            "[cluster.topologies.x]\nstrategy = 'Cluster.Strategy.Consul'\n[cluster.topologies.x.config]\n{keys}"
        );
        assert_eq!(read(&text).unwrap().sources[0].strategy.word(), "consul");
        assert_eq!(read("cluster = ':consul'").unwrap().sources[0].strategy.word(), "consul");
    }
    #[cfg(feature = "cloud")]
    for (name, word) in [
        ("ClusterEC2.Strategy.Tags", "ec2"),
        ("Elixir.ClusterEcs.Strategy", "ecs"),
        (":aws", "ec2"),
        ("ecs", "ecs"),
        (":gcp", "gcp"),
        ("Cluster.Strategy.Rancher", "rancher"),
    ] {
        assert_eq!(read(&format!("cluster = '{name}'")).unwrap().sources[0].strategy.word(), word);
    }
    #[cfg(feature = "postgres")]
    for name in ["postgres", "LibclusterPostgres.Strategy", "Cluster.Strategy.Postgres"] {
        assert_eq!(read(&format!("cluster = '{name}'")).unwrap().sources[0].strategy.word(), "postgres");
    }
    let topologies = read(
        "[cluster.topologies.office]\nstrategy = 'Cluster.Strategy.Epmd'\nconfig = { hosts = [':a@h'], timeout = 'infinity' }\n\
         [cluster.topologies.laptop]\nstrategy = 'Elixir.Cluster.Strategy.LocalEpmd'",
    )
    .unwrap();
    let names: Vec<_> = topologies.sources.iter().map(|s| (s.name.as_str(), s.strategy.word())).collect();
    assert_eq!(names, [("laptop", "local_epmd"), ("office", "static")]);
}

#[test]
fn mistakes_name_the_key_and_what_would_be_right() {
    for (text, key, word) in [
        ("cluster = 7", "cluster", "must be true"),
        ("cluster = 'kubernets'", "cluster.strategy", "there is no strategy"),
        ("cluster = 'Cluster.Strategy.GoogleComputeEngine'", "cluster.strategy", "use `gcp`"),
        ("cluster = 'static'", "cluster", "missing key `hosts`"),
        ("[cluster]\nhost = []", "cluster.host", "expected one of strategy"),
        ("[cluster]\nstrategy = 'static'\nhosts = ['a']", "cluster.hosts", "no node name"),
        ("[cluster]\nstrategy = 'static'\nhosts = ['a@h']\nprot = 1", "cluster.prot", "`hosts`"),
        (
            "[cluster]\nstrategy = ['static', 'local_epmd']\nhosts = []",
            "cluster.static",
            "missing key `hosts`",
        ),
        (
            "[cluster]\nstrategy = 'local_epmd'\npolling_interval = 0",
            "cluster.polling_interval",
            "milliseconds",
        ),
        ("[cluster]\nstrategy = 'local_epmd'\nprune = 3", "cluster.prune", "never"),
        ("[cluster]\nstrategy = 'gossip'\nsecret = 1234", "cluster.secret", "must be a string"),
        ("[cluster]\nallow = ['10.0.0.0/99']", "cluster.allow", "network"),
        ("[cluster]\nname = { system = 'NO_SUCH_VARIABLE_' }", "cluster.name", "NO_SUCH_VARIABLE_"),
        #[cfg(feature = "cloud")]
        ("[cluster]\nstrategy = 'ec2'\nnode_name = '{basename}@{pod}'", "cluster.node_name", "{private_dns}"),
        ("[cluster.topologies.x]\nstrategy = 'partisan'", "cluster.topologies.x.strategy", "not offered"),
        (
            "[cluster.topologies.x]\nstrategy = 'static'\nconfig = { host = 1 }",
            "cluster.topologies.x.config.host",
            "unknown",
        ),
        ("[cluster]\nstrategy = 'local_epmd'\nfailover = ['dns']", "cluster.failover", "no source"),
    ] {
        let mistake = read(text).unwrap_err();
        assert_eq!(mistake.key.join("."), key, "{text}: {mistake}");
        assert!(mistake.why.contains(word), "{text}: {mistake}");
    }
}

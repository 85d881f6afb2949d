use foundation_proto::etf::text::{parse_elixir, parse_erlang};

use super::*;
use crate::discovery::ClusterConfig;

fn elixir(text: &str) -> Result<Value, Mistake> {
    value(&parse_elixir(text, &Limits::default()).unwrap())
}

fn toml(text: &str) -> Value {
    Value::Table(text.parse().unwrap())
}

#[test]
fn keyword_lists_and_maps_become_tables() {
    let written = elixir(
        r#"[strategy: Cluster.Strategy.Gossip, port: 45892, secret: nil, on: true, ratio: 0.5, empty: [],
            if_addr: {0, 0, 0, 0}, v6: {64768, 0, 0, 0, 0, 0, 0, 1}, names: [:a, "b", ~c"c"], port: 1,
            inner: %{"k" => :v, l: {:system, "VAR"}}]"#,
    );
    let expected = toml(
        "strategy = 'Cluster.Strategy.Gossip'\nport = 45892\non = true\nratio = 0.5\nempty = []\n\
         if_addr = '0.0.0.0'\nv6 = 'fd00::1'\nnames = ['a', 'b', 'c']\ninner = { k = 'v', l = { system = 'VAR' } }",
    );
    assert_eq!(written.unwrap(), expected);
    let written = elixir("[strategy: {Cluster.Strategy.Kubernetes, [mode: :hostname]}]").unwrap();
    let expected =
        toml("[strategy]\nstrategy = 'Cluster.Strategy.Kubernetes'\nconfig = { mode = 'hostname' }");
    assert_eq!(written, expected);
}

#[test]
fn what_has_no_meaning_is_named_with_its_key() {
    for (text, key, word) in [
        ("[a: [b: &String.length/1]]", "a.b", "function"),
        ("[a: {1, 2}]", "a", "tuple"),
        ("[a: <<255>>]", "a", "UTF-8"),
        ("%{1 => 2}", "", "key"),
        ("{:system, 1}", "", "system"),
    ] {
        let mistake = elixir(text).unwrap_err();
        assert_eq!(mistake.key.join("."), key, "{text}");
        assert!(mistake.why.contains(word), "{text}: {mistake}");
    }
    let deep = format!("{}1{}", "[a: ".repeat(40), "]".repeat(40));
    assert!(elixir(&deep).unwrap_err().why.contains("deep"));
    let secret = elixir(r#"[secret: {"hush", 1, 2}]"#).unwrap_err();
    assert!(!secret.to_string().contains("hush"), "{secret}");
}

#[test]
fn erlang_and_elixir_say_the_same() {
    let elixir = r#"[shop: [strategy: Cluster.Strategy.Epmd, config: [hosts: [:"a@10.0.0.1"]]], empty: [strategy: Cluster.Strategy.LocalEpmd]]"#;
    let erlang = "[{shop, [{strategy, 'Elixir.Cluster.Strategy.Epmd'}, {config, [{hosts, ['a@10.0.0.1']}]}]},\n\
                  {empty, [{strategy, 'Elixir.Cluster.Strategy.LocalEpmd'}]}].";
    let sys_config = format!(
        "[{{kernel, [{{logger_level, info}}]}}, {{libcluster, [{{topologies, {}}}]}}].",
        &erlang[..erlang.len() - 1]
    );
    assert!(parse_erlang(erlang, &Limits::default()).is_ok());
    let expected = topologies(elixir).unwrap();
    for text in [erlang, sys_config.as_str()] {
        assert_eq!(topologies(text).unwrap(), expected, "{text}");
    }
    let cluster =
        Value::Table(Table::from_iter([("topologies".to_owned(), Value::String(erlang.to_owned()))]));
    let config = ClusterConfig::from_value(&cluster).unwrap();
    let sources: Vec<_> = config.sources.iter().map(|s| (s.name.as_str(), s.strategy.word())).collect();
    assert_eq!(sources, [("empty", "local_epmd"), ("shop", "static")]);

    for (text, word) in
        [("[shop: [", "Elixir"), ("[{shop, ", "Erlang"), (":shop", "keyword list"), ("1. 2.", "one term")]
    {
        let mistake = topologies(text).unwrap_err();
        assert!(mistake.why.contains(word), "{text}: {mistake}");
    }
}

#[test]
fn topologies_may_stand_in_a_file() {
    let file = std::env::temp_dir().join(format!("foundation-topologies-{}.config", std::process::id()));
    std::fs::write(
        &file,
        "[{libcluster, [{topologies, [{x, [{strategy, 'Elixir.Cluster.Strategy.LocalEpmd'}]}]}]}].\n",
    )
    .unwrap();
    let toml = format!("topologies = {{ file = {:?} }}", file.display().to_string());
    let config = ClusterConfig::from_value(&Value::Table(toml.parse().unwrap())).unwrap();
    assert_eq!(config.sources[0].name, "x");
    std::fs::write(&file, "[{x, [{strategy, 'Elixir.Cluster.Strategy.LocalEpmd'}, {config, [{odd, 1}]}]}].")
        .unwrap();
    let mistake = ClusterConfig::from_value(&Value::Table(toml.parse().unwrap())).unwrap_err();
    assert_eq!(mistake.key.join("."), "cluster.topologies.x.config.odd");
    std::fs::remove_file(&file).unwrap();
    let mistake = ClusterConfig::from_value(&Value::Table(toml.parse().unwrap())).unwrap_err();
    assert!(mistake.why.contains(&file.display().to_string()), "{mistake}");
}

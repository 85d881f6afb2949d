use foundation_proto::Limits;
use foundation_proto::dist::Cookie;

use super::*;
use crate::config::{NameDomain, Reconnect};

fn variables(list: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    list.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect::<Vec<_>>().into_iter()
}

#[test]
fn later_sources_win() {
    let mut layers = Layers::new();
    layers
        .text("name = 'file@h'\nnet_ticktime = 8\ncookie = 'f'\n[limits]\npeers = 7\n[limits.wire]\nmax_frame = 9\n", "f.toml")
        .unwrap();
    let unknown = layers
        .environment(variables(&[
            ("RELEASE_NODE", "release@h.x"),
            ("RELEASE_COOKIE", "r"),
            ("RELEASE_DISTRIBUTION", "name"),
            ("FOUNDATION_COOKIE", "12345"),
            ("FOUNDATION_LIMITS__DIALS", "3"),
            ("FOUNDATION_RECONNECT", "always"),
            ("FOUNDATION_LOG", "debug"),
            ("FOUNDATION_TYPO", "1"),
            ("ERL_EPMD_PORT", "4370"),
            ("ERL_EPMD_ADDRESS", "127.0.0.1, ::1"),
        ]))
        .unwrap();
    assert_eq!(unknown, ["FOUNDATION_TYPO"]);
    layers.set("net_setuptime", "9", "--net-setuptime").unwrap();
    let config = layers.finish().unwrap();
    assert_eq!(config.name.as_deref(), Some("release@h.x"));
    assert_eq!(config.name_domain, Some(NameDomain::LongNames));
    assert_eq!(config.cookie, Cookie::new("12345").ok());
    assert_eq!((config.limits.peers, config.limits.dials, config.limits.wire.max_frame), (7, 3, 9));
    assert_eq!(config.limits.wire.max_depth, Limits::default().max_depth);
    assert_eq!((config.net_ticktime, config.net_setuptime), (8, 9));
    assert_eq!((config.epmd_port, config.epmd_address.len()), (4370, 2));
    assert_eq!(config.reconnect, Reconnect::Always);
}

#[test]
fn mistakes_name_their_place_and_never_the_cookie() {
    for (text, place, word) in [
        ("hidden = true\nnet_tick_time = 8", "f:2", "unknown key `net_tick_time`"),
        ("[limits]\n\npears = 1", "f:3", "unknown key `pears`"),
        ("epmd = 'maybe'", "f:1", "unknown variant `maybe`"),
        ("cookie = 987654", "f:1", "must be a string"),
        ("cookie = ''", "f:1", "the cookie is empty"),
        ("hidden = true\n[cluster]\nallow = []\nstrategy = 'moon'", "f:4", "there is no strategy"),
        (
            "[cluster.topologies.a]\nstrategy = 'static'\n[cluster.topologies.a.config]\nhost = 1",
            "f:4",
            "`hosts`",
        ),
        ("inet_dist_use_interface = 'here'", "f:1", "IP address"),
        ("name = ", "f:1", ""),
    ] {
        let error = Layers::new().text(text, "f").unwrap_err();
        let ConfigError::Source { place: at, why } = &error else { panic!("{error:?}") };
        assert_eq!(at, place, "{error}");
        assert!(why.contains(word), "{error}");
        assert!(!why.contains("987654"), "{error}");
    }
    let error = Layers::new().environment(variables(&[("FOUNDATION_NET_TICKTIME", "soon")])).unwrap_err();
    assert!(error.to_string().starts_with("FOUNDATION_NET_TICKTIME: "), "{error}");
    assert!(!format!("{:?}", NodeConfig::new("a").cookie("hush")).contains("hush"));
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    for (key, value) in [
        ("net_tickintensity", "3"),
        ("net_setuptime", "121"),
        ("net_ticktime", "0"),
        ("epmd_port", "0"),
        ("erl_epmd_node_listen_port", "0"),
    ] {
        let mut layers = Layers::new();
        layers.set(key, value, key).unwrap();
        let error = layers.finish().unwrap_err();
        assert!(error.to_string().starts_with(key), "{error}");
    }
    let mut layers = Layers::new();
    layers.text("inet_dist_listen_min = 9100\ninet_dist_listen_max = 9000", "f").unwrap();
    assert!(layers.finish().is_err());
}

#[test]
fn each_value_has_its_origin_and_secrets_are_not_shown() {
    let mut layers = Layers::new();
    layers.set("epmd", "auto", "default").unwrap();
    layers.set("cluster", "environment", "default").unwrap();
    layers
        .text(
            "net_ticktime = 8\ncookie = 'hush'\n[limits]\npeers = 7\n[cluster]\nstrategy = 'gossip'\nsecret = 'hush'\n\
             [cookies]\n'a@h' = 'hush'\n",
            "f.toml",
        )
        .unwrap();
    layers.environment(variables(&[("FOUNDATION_LIMITS__DIALS", "3"), ("RELEASE_NODE", "r@h")])).unwrap();
    layers.set_cookie("b@h.x", "hush", "--setcookie").unwrap();
    layers.set("net_ticktime", "9", "--kernel net_ticktime").unwrap();
    let effective = layers.effective().unwrap();
    let line = |key: &str| {
        let entry = effective.iter().find(|entry| entry.key == key).unwrap_or_else(|| panic!("{key}"));
        (entry.value.as_deref(), entry.origin.as_str())
    };
    for (key, value, origin) in [
        ("name", Some("\"r@h\""), "RELEASE_NODE"),
        ("net_ticktime", Some("9"), "--kernel net_ticktime"),
        ("net_setuptime", Some("7"), "default"),
        ("limits.peers", Some("7"), "f.toml:4"),
        ("limits.dials", Some("3"), "FOUNDATION_LIMITS__DIALS"),
        ("limits.wire.max_depth", Some("65536"), "default"),
        ("cookie", Some("\"***\""), "f.toml:2"),
        ("cookies.a@h", Some("\"***\""), "f.toml:9"),
        ("cookies.b@h.x", Some("\"***\""), "--setcookie"),
        ("cluster.strategy", Some("\"gossip\""), "f.toml:6"),
        ("cluster.secret", Some("\"***\""), "f.toml:7"),
        ("epmd", Some("\"auto\""), "default"),
        ("cookie_file", None, "default"),
        ("dist_auto_connect", Some("\"true\""), "default"),
    ] {
        assert_eq!(line(key), (value, origin), "{key}");
    }
    assert!(!format!("{effective:?}").contains("hush"));
    // What was one word becomes a table when something is added to it.
    let mut layers = Layers::new();
    layers.set("cluster", "local_epmd", "FOUNDATION_CLUSTER").unwrap();
    layers.join("a@h", "--join").unwrap();
    assert_eq!(layers.origin("cluster.strategy"), Some("FOUNDATION_CLUSTER"));
    assert_eq!(layers.origin("cluster.join"), Some("--join"));
    // The name of a variable that holds a secret may be shown, what it holds not.
    let mut layers = Layers::new();
    layers.text("[cluster]\nstrategy = 'gossip'\nsecret = { system = 'PATH' }", "f").unwrap();
    let effective = layers.effective().unwrap();
    let secret = effective.iter().find(|entry| entry.key == "cluster.secret.system").unwrap();
    assert_eq!((secret.value.as_deref(), secret.origin.as_str()), (Some("\"PATH\""), "f:3"));
}

#[test]
fn changes_are_told_without_the_secrets() {
    let read = |text: &str| {
        let mut layers = Layers::new();
        layers.text(text, "f").unwrap();
        layers
    };
    let before = read("net_ticktime = 8\ncookie = 'hush'\n[cluster]\nstrategy = 'gossip'\nsecret = 'hush'");
    let after =
        read("log = 'debug'\ncookie = 'hash'\n[cluster]\nstrategy = 'gossip'\nsecret = 'hash'\nport = 1");
    let changes = after.changes_from(&before).unwrap();
    let shown: Vec<_> =
        changes.iter().map(|c| (c.key.as_str(), c.from.as_deref(), c.to.as_deref())).collect();
    let masked = Some("\"***\"");
    assert_eq!(
        shown,
        [
            ("cluster.port", None, Some("1")),
            ("cluster.secret", masked, masked),
            ("cookie", masked, masked),
            ("log", None, Some("\"debug\"")),
            ("net_ticktime", Some("8"), Some("60")),
        ]
    );
    let mut partly = before.clone();
    partly.take("cluster", &after);
    partly.take("log", &after);
    let left: Vec<_> = after.changes_from(&partly).unwrap().into_iter().map(|change| change.key).collect();
    assert_eq!(left, ["cookie", "net_ticktime"]);
    assert_eq!(after.changes_from(&after), Ok(vec![]));
}

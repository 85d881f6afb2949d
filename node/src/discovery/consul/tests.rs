use super::answers::{Checked, Listed, checked, listed};
use super::*;

fn options(text: &str) -> Options {
    toml::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn strategy(text: &str) -> Consul {
    let mut context = Context::new(NodeName::parse("web@10.1.0.1").unwrap(), 4369);
    context.listens = vec!["10.1.0.1:9100".parse().unwrap()];
    Consul::new(options(text), &context)
}

fn paths(text: &str) -> Result<Vec<String>, String> {
    Ok(strategy(text).questions()?.into_iter().map(|asked| asked.path).collect())
}

fn names(strategy: &Consul, instances: &[Instance]) -> Vec<String> {
    let marked =
        |candidate: Candidate| format!("{}{}", candidate.node, if candidate.unready { "?" } else { "" });
    strategy.candidates(instances).into_iter().map(marked).collect()
}

#[test]
fn questions_are_those_of_libcluster_consul() {
    assert_eq!(paths("service = 'web'").unwrap(), ["/v1/health/service/web"]);
    let filtered = paths("service = { name = 'a b' }\nfilter = 'Service.Meta.x == y'\ndc = 'dc1'").unwrap();
    assert_eq!(filtered, ["/v1/health/service/a%20b?dc=dc1&filter=Service.Meta.x%20%3D%3D%20y"]);
    let names = "list_using = ['Cluster.Strategy.Consul.Agent', 'Elixir.Cluster.Strategy.Consul.Catalog']";
    let several = paths(&format!("service = 'web'\n{names}\ndc = ['a', 'b']")).unwrap();
    assert_eq!(
        several,
        [
            "/v1/agent/health/service/name/web?dc=a",
            "/v1/agent/health/service/name/web?dc=b",
            "/v1/catalog/service/web?dc=a",
            "/v1/catalog/service/web?dc=b"
        ]
    );
    assert_eq!(
        paths("service = { id = 'web-1' }\nlist_using = 'agent'").unwrap(),
        ["/v1/agent/service/web-1"]
    );
    assert!(paths("service = { id = 'web-1' }").unwrap_err().contains("agent"));
    let nothing = Consul { service: None, ..strategy("service = 'web'") };
    assert!(nothing.questions().err().unwrap().contains("FOUNDATION_APP_NAME"));
    for (wrong, word) in [
        ("disable_verify_ssl = true", "cacert"),
        ("list_using = ['Cluster.Strategy.Consul.Multisite']", "dc"),
        ("list_using = 'dns'", "there are health"),
        ("list_using = []", "must name"),
        ("service = 7", "service must be"),
        ("servic = 'web'", "unknown"),
    ] {
        let error = toml::from_str::<Options>(wrong).unwrap_err().to_string();
        assert!(error.contains(word), "{wrong}: {error}");
    }
    options("\"async_initial_connection?\" = false\n\"disable_verify_ssl?\" = false\naccess_token = 'x'");
}

/// As Consul 1.8.7 answers, without most of the fields.
const HEALTH: &str = r#"[
  {"Node":{"ID":"x","Node":"n1","Address":"10.0.0.1","Datacenter":"dc1"},
   "Service":{"ID":"web-1","Service":"web","Tags":[],"Address":"10.0.0.5","Meta":null,"Port":0},
   "Checks":[{"CheckID":"serfHealth","Status":"passing"},{"CheckID":"service:web-1","Status":"passing"}]},
  {"Node":{"Node":"n2","Address":"10.0.0.2"},"Service":{"ID":"web-2","Service":"web","Address":"","Meta":{}},
   "Checks":[{"Status":"critical"}]},
  {"Node":{"Node":"n3","Address":"10.0.0.3"},
   "Service":{"ID":"web-3","Service":"web","Address":"10.0.0.3","Meta":{"node":"other@10.0.0.3"}},"Checks":[]},
  {"Node":{"Node":"n4","Address":"10.0.0.4"},
   "Service":{"ID":"web-4","Service":"web","Address":"10.0.0.4","Meta":{"node":"no name"}},"Checks":[]}]"#;

#[test]
fn instances_are_named_by_what_they_say_or_where_they_are() {
    let health = checked(serde_json::from_str::<Vec<Checked>>(HEALTH).unwrap());
    let by_address = strategy("service = 'web'");
    assert_eq!(names(&by_address, &health), ["other@10.0.0.3", "web@10.0.0.2?", "web@10.0.0.5"]);
    let all = strategy("service = 'web'\npassing = false\nexpected = 'host'\nnode_basename = 'b'");
    assert_eq!(names(&all, &health), ["b@10.0.0.5", "b@n2", "other@10.0.0.3"]);
    let agent = r#"[{"AggregatedStatus":"warning","Service":{"ID":"web-1","Service":"web","Address":"10.0.0.5"},"Checks":null}]"#;
    let agent = checked(serde_json::from_str::<Vec<Checked>>(agent).unwrap());
    assert_eq!(names(&by_address, &agent), ["web@10.0.0.5?"]);
    let catalog = r#"[{"Node":"n1","Address":"10.0.0.1","ServiceID":"web-1","ServiceName":"web","ServiceAddress":"10.0.0.5","ServiceMeta":{}}]"#;
    let catalog = listed(serde_json::from_str::<Vec<Listed>>(catalog).unwrap());
    assert_eq!(names(&by_address, &catalog), ["web@10.0.0.1"]);
}

#[test]
fn consul_is_found_as_its_own_clients_find_it() {
    let at = |text: &str, variables: &'static [(&'static str, &'static str)]| {
        let found = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).to_owned());
        Api::new(&options(text), found).map(|api| (api.server.to_string(), api.token))
    };
    let server = |text: &str, variables| at(text, variables).unwrap().0;
    assert_eq!(server("", &[]), "http://localhost:8500");
    assert_eq!(server("", &[("CONSUL_HTTP_ADDR", "10.0.0.1:8501")]), "http://10.0.0.1:8501");
    let secure = &[("CONSUL_HTTP_ADDR", "c:8501"), ("CONSUL_HTTP_SSL", "true"), ("CONSUL_CACERT", "/ca.pem")];
    assert_eq!(server("", secure), "https://c:8501");
    assert_eq!(server("base_url = 'http://[fd00::1]:8500/'", secure), "http://[fd00::1]:8500");
    assert_eq!(
        server("base_url = 'https://consul.example.com'\ncacert = '/x'", &[]),
        "https://consul.example.com:443"
    );
    for wrong in ["unix:///run/consul", "http://", "http://h:x", "http://h/path", "http://user@h"] {
        assert!(at(&format!("base_url = '{wrong}'"), &[]).is_err(), "{wrong}");
    }
    let (_, token) = at("access_token = 'written'", &[("CONSUL_HTTP_TOKEN", "variable")]).unwrap();
    let Token::Written(token) = token else { panic!() };
    assert_eq!(token.as_bytes(), b"written");
}

#[test]
fn a_registration_says_who_and_where_this_node_is() {
    let body = |text: &str| {
        let registration = strategy(text).registration.map(|registration| format!("{registration:?}"));
        registration.map(|text| text.replace('\\', ""))
    };
    assert_eq!(body("service = 'web'"), None);
    let ttl = body("service = 'web'\nregister = true\nttl = 9000").unwrap();
    for part in [
        r#""ID":"web@10.1.0.1""#,
        r#""Name":"web""#,
        r#""Address":"10.1.0.1""#,
        r#""Port":4369"#,
        r#""Tags":["erlang"]"#,
        r#""node":"web@10.1.0.1""#,
        r#""dist_port":"9100""#,
        r#""TTL":"9000ms""#,
        r#""CheckID":"service:web@10.1.0.1""#,
    ] {
        assert!(ttl.contains(part), "{part} in {ttl}");
    }
    let tcp = body("service = 'web'\nregister = true\ncheck = 'tcp'").unwrap();
    assert!(tcp.contains(r#""TCP":"10.1.0.1:9100""#), "{tcp}");
    assert!(!body("service = 'web'\nregister = true\ncheck = 'none'").unwrap().contains("CheckID"));
}

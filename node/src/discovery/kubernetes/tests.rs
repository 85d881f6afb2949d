use super::objects::{Change, Endpoints, Pod, Slice};
use super::watch::Lines;
use super::*;

fn strategy(options: Options) -> Kubernetes {
    let context = Context::new(NodeName::parse("web@10.1.0.1").unwrap(), 4369);
    Kubernetes { app: Some("web".into()), ..Kubernetes::new(options, &context) }
}

/// Names with `-` for those that are leaving and `?` for those that are not ready.
fn names(strategy: &Kubernetes, listing: &Listing) -> Vec<String> {
    let marked = |candidate: Candidate| {
        let mark = if candidate.leaving { "-" } else { "" };
        let unready = if candidate.unready { "?" } else { "" };
        format!("{}{mark}{unready}", candidate.node)
    };
    strategy.candidates(listing).into_iter().map(marked).collect()
}

/// The fields that matter of a list that kube-apiserver 1.20 gave, and others that do not.
const PODS: &str = r#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"231"},"items":[
  {"metadata":{"name":"web-0","namespace":"prod","uid":"a1","labels":{"app":"web"},"managedFields":[{"x":{}}]},
   "spec":{"hostname":"web-0","subdomain":"web","containers":null},
   "status":{"phase":"Running","podIP":"10.1.0.4","podIPs":[{"ip":"10.1.0.4"},{"ip":"fd00::4"}],
             "conditions":[{"type":"Ready","status":"True"}]}},
  {"metadata":{"name":"web-1","namespace":"prod","uid":"a2","deletionTimestamp":"2026-01-01T00:00:00Z"},
   "spec":{},"status":{"phase":"Running","podIP":"10.1.0.5"}},
  {"metadata":{"name":"web-2","namespace":"prod","uid":"a3"},"spec":{},"status":{"phase":"Pending"}},
  {"metadata":{"name":"web-3","namespace":"prod","uid":"a4"},"spec":{},"status":{"phase":"Failed","podIP":"10.1.0.6"}},
  {"metadata":{"name":"web-4","namespace":"prod","uid":"a5"},"spec":{},
   "status":{"phase":"Running","podIP":"fd00::5","conditions":[{"type":"Ready","status":"False"}]}}]}"#;

fn pods() -> Listing {
    let mut listing = Listing::new(Lookup::Pods);
    assert_eq!(listing.take_page::<Pod>(serde_json::from_str(PODS).unwrap()), Ok(String::new()));
    listing
}

#[test]
fn pods_are_named_in_three_ways() {
    let ip = strategy(Options::default());
    assert_eq!(names(&ip, &pods()), ["web@10.1.0.4", "web@10.1.0.5-", "web@fd00::5"]);
    let ready = strategy(Options { ready_only: true, ..Options::default() });
    assert_eq!(names(&ready, &pods()), ["web@10.1.0.4", "web@10.1.0.5-?", "web@fd00::5?"]);
    let ipv6 = Kubernetes { ipv6: Some(true), ..strategy(Options::default()) };
    assert_eq!(names(&ipv6, &pods())[1], "web@fd00::4");
    let dns = strategy(Options { mode: Mode::Dns, ..Options::default() });
    assert_eq!(names(&dns, &pods())[0], "web@10-1-0-4.prod.pod.cluster.local");
    let hostname = strategy(Options {
        mode: Mode::Hostname,
        kubernetes_service_name: Some("peers".into()),
        kubernetes_cluster_name: "k".into(),
        ..Options::default()
    });
    assert_eq!(names(&hostname, &pods()), ["web@web-0.peers.prod.svc.k.local"]);
    let stamps: Vec<u64> = ip.candidates(&pods()).iter().map(|candidate| candidate.stamp).collect();
    assert!(stamps[0] != stamps[1] && stamps.iter().all(|stamp| *stamp != 0));
}

#[test]
fn endpoints_that_are_not_ready_are_left_alone() {
    let list = r#"{"metadata":{"resourceVersion":"7"},"items":[{"metadata":{"name":"web","namespace":"prod"},"subsets":[
        {"addresses":[{"ip":"10.1.0.4","hostname":"web-0","targetRef":{"kind":"Pod","namespace":"prod","uid":"a1"}},{"ip":"10.9.9.9"}],
         "notReadyAddresses":[{"ip":"10.1.0.8"},{"ip":"no address"}]}]},{"metadata":{"name":"empty"},"subsets":null}]}"#;
    let mut listing = Listing::new(Lookup::Endpoints);
    listing.take_page::<Endpoints>(serde_json::from_str(list).unwrap()).unwrap();
    let strategy = strategy(Options::default());
    assert_eq!(names(&strategy, &listing), ["web@10.1.0.4", "web@10.1.0.8?", "web@10.9.9.9"]);
}

#[test]
fn endpoint_slices_name_each_pod_once() {
    let list = r#"{"metadata":{"resourceVersion":"7"},"items":[
      {"metadata":{"name":"web-x","namespace":"prod"},"addressType":"IPv4","endpoints":[
        {"addresses":["10.1.0.4"],"conditions":{"ready":true,"serving":true,"terminating":false},"targetRef":{"uid":"a1"}},
        {"addresses":["10.1.0.5"],"conditions":{"ready":false,"serving":true,"terminating":true},"targetRef":{"uid":"a2"}},
        {"addresses":["10.1.0.6"],"conditions":{"ready":false}},
        {"addresses":["10.1.0.7"],"conditions":{}},{"addresses":[]},{"addresses":null}]},
      {"metadata":{"name":"web-y","namespace":"prod"},"addressType":"IPv4","endpoints":[
        {"addresses":["10.1.0.6"],"conditions":{"ready":true}}]},
      {"metadata":{"name":"web-z","namespace":"prod"},"addressType":"IPv6","endpoints":[
        {"addresses":["fd00::4"],"conditions":{"ready":true},"targetRef":{"uid":"a1"}},
        {"addresses":["fd00::9"],"conditions":{"ready":true},"targetRef":{"uid":"a9"}}]},
      {"metadata":{"name":"web-f"},"addressType":"FQDN","endpoints":[{"addresses":["a.example.com"]}]},
      {"metadata":{},"endpoints":null}]}"#;
    let mut listing = Listing::new(Lookup::EndpointSlices);
    listing.take_page::<Slice>(serde_json::from_str(list).unwrap()).unwrap();
    let ipv4 = strategy(Options::default());
    let expected = ["web@10.1.0.4", "web@10.1.0.5-?", "web@10.1.0.6", "web@10.1.0.7", "web@fd00::9"];
    assert_eq!(names(&ipv4, &listing), expected);
    let ipv6 = Kubernetes { ipv6: Some(true), ..ipv4 };
    assert!(names(&ipv6, &listing).contains(&"web@fd00::4".to_owned()));
    assert!(!names(&ipv6, &listing).contains(&"web@10.1.0.4".to_owned()));
}

#[test]
fn a_watch_changes_the_list() {
    let strategy = strategy(Options::default());
    let mut listing = pods();
    let event = |kind: &str, name: &str, more: &str, version: u32| {
        format!(
            r#"{{"type":"{kind}","object":{{"kind":"Pod","metadata":{{"name":"{name}","namespace":"prod","uid":"u{name}",
            "resourceVersion":"{version}"{more}}},"spec":{{}},"status":{{"phase":"Running","podIP":"10.1.0.9"}}}}}}"#
        )
        .replace('\n', "")
    };
    assert_eq!(listing.version, "231");
    assert_eq!(listing.apply(event("ADDED", "web-9", "", 232).as_bytes()), Ok(Change::Objects));
    assert_eq!(names(&strategy, &listing)[2], "web@10.1.0.9");
    let leaving = event("MODIFIED", "web-9", r#","deletionTimestamp":"2026-01-01T00:00:00Z""#, 233);
    assert_eq!(listing.apply(leaving.as_bytes()), Ok(Change::Objects));
    assert_eq!(names(&strategy, &listing)[2], "web@10.1.0.9-");
    assert_eq!(listing.apply(event("DELETED", "web-9", "", 234).as_bytes()), Ok(Change::Objects));
    assert_eq!(names(&strategy, &listing).len(), 3);
    assert_eq!(listing.apply(event("DELETED", "web-9", "", 234).as_bytes()), Ok(Change::Objects));
    let bookmark = r#"{"type":"BOOKMARK","object":{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"300","creationTimestamp":null},"spec":{"containers":null},"status":{}}}"#;
    assert_eq!(listing.apply(bookmark.as_bytes()), Ok(Change::Version));
    assert_eq!(listing.version, "300");
    let gone = r#"{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old resource version: 1 (300)","reason":"Expired","code":410}}"#;
    assert_eq!(listing.apply(gone.as_bytes()), Ok(Change::Expired));
    let sick = gone.replace("410", "500");
    assert!(listing.apply(sick.as_bytes()).unwrap_err().to_string().contains("500: too old"));
    for line in [&b"{"[..], b"[]", b"{}", b"{\"type\":\"ADDED\",\"object\":7}", &[b'['; 4096]] {
        assert!(listing.apply(line).is_err());
    }
    assert_eq!(names(&strategy, &listing).len(), 3);
}

#[test]
fn lines_come_in_pieces() {
    let mut lines = Lines::default();
    let text = b"{\"a\":1}\n\r\n\n{\"b\":2}\r\n{\"c\"";
    let mut got = Vec::new();
    for byte in text {
        lines.add(&[*byte]).unwrap();
        got.extend(lines.next());
    }
    assert_eq!(got, [&b"{\"a\":1}"[..], b"{\"b\":2}\r"]);
    lines.add(b":3}\n{}\n").unwrap();
    assert_eq!(lines.next().unwrap(), &b"{\"c\":3}"[..]);
    assert_eq!(lines.next().unwrap(), &b"{}"[..]);
    assert_eq!(lines.next(), None);
    let endless = (0..100).find_map(|_| lines.add(&[b'x'; 1 << 16]).err());
    assert!(endless.is_some());
}

#[test]
fn the_server_is_found_as_in_other_clients() {
    let at = |master: Option<&str>, variables: &'static [(&'static str, &'static str)]| {
        let options = Options { kubernetes_master: master.map(str::to_owned), ..Options::default() };
        let found = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, v)| (*v).to_owned());
        server(&options, found).to_string()
    };
    let pod = &[("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("KUBERNETES_SERVICE_PORT", "6443")];
    assert_eq!(at(None, pod), "https://10.96.0.1:6443");
    assert_eq!(at(None, &[("KUBERNETES_SERVICE_HOST", "fd00::1")]), "https://[fd00::1]:443");
    assert_eq!(at(None, &[]), "https://kubernetes.default.svc.cluster.local:443");
    assert_eq!(at(Some("kubernetes.default.svc"), pod), "https://kubernetes.default.svc.cluster.local:443");
    let domain = &[("CLUSTER_DOMAIN", "k.example")];
    assert_eq!(at(Some("kubernetes.default.svc"), domain), "https://kubernetes.default.svc.k.example:443");
    assert_eq!(at(Some("api.example.com."), pod), "https://api.example.com:443");
    assert_eq!(at(Some("localhost:8443"), pod), "https://localhost:8443");
    assert_eq!(at(Some("[fd00::2]:8443"), pod), "https://[fd00::2]:8443");
    assert_eq!(at(Some("fd00::2"), pod), "https://[fd00::2]:443");
}

#[test]
fn what_is_not_said_is_an_error_with_what_to_say() {
    let directory = std::env::temp_dir().join(format!("foundation-kubernetes-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let with = |change: &dyn Fn(&mut Options)| {
        let path = directory.clone();
        let mut options = Options { kubernetes_service_account_path: path, ..Options::default() };
        change(&mut options);
        strategy(options)
    };
    let text = |asked: Result<Question, SourceError>| asked.map(|question| format!("{question:?}"));
    let error = text(with(&|_| {}).question(Lookup::Pods, "")).unwrap_err().to_string();
    assert!(error.contains("namespace") && error.contains("automountServiceAccountToken"), "{error}");
    for (file, value) in [("namespace", "prod\n"), ("token", "first\n")] {
        std::fs::write(directory.join(file), value).unwrap();
    }
    let asked = text(with(&|_| {}).question(Lookup::Pods, "&limit=500")).unwrap();
    assert!(asked.contains("/api/v1/namespaces/prod/pods?labelSelector=app%3Dweb&limit=500"), "{asked}");
    assert!(asked.contains("Bearer first"), "{asked}");
    std::fs::write(directory.join("token"), "second").unwrap();
    let service = with(&|options| options.kubernetes_service_name = Some("peers".into()));
    let asked = text(service.question(Lookup::EndpointSlices, "")).unwrap();
    let path = "/apis/discovery.k8s.io/v1/namespaces/prod/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3Dpeers";
    assert!(asked.contains(path) && asked.contains("Bearer second"), "{asked}");
    let nothing = Kubernetes { app: None, ..with(&|_| {}) };
    let error = text(nothing.question(Lookup::Pods, "")).unwrap_err().to_string();
    assert!(error.contains("FOUNDATION_APP_NAME"), "{error}");
    let error = text(with(&|options| options.mode = Mode::Hostname).question(Lookup::Pods, "")).unwrap_err();
    assert!(error.to_string().contains("kubernetes_service_name"), "{error}");
    std::fs::remove_dir_all(&directory).unwrap();
}

use std::sync::{Arc, Mutex as StdMutex};

use foundation_proto::dist::NodeName;

use super::*;
use crate::discovery::http::replies::{Asked, Replies, run};
use crate::discovery::template::names;

const FLAVOR: &str = "Metadata-Flavor: Google";

fn gcp(text: &str, pairs: &[(&'static str, String)]) -> Gcp {
    let options = toml::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    let context = Context::new(NodeName::parse("web@10.0.0.9").unwrap(), 4369);
    Gcp::with(options, &context, |name| {
        pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone())
    })
}

/// As the API gives it, without most of the fields.
fn instance(name: &str, ip: &str, status: &str) -> String {
    format!(
        r#"{{"kind":"compute#instance","id":"42{name}","name":"{name}","status":"{status}",
        "zone":"https://www.googleapis.com/compute/v1/projects/p-1/zones/europe-west3-a","lastStartTimestamp":"2026-11-22T00:00:00.000-07:00",
        "labels":{{"cluster":"web"}},"networkInterfaces":[{{"name":"nic0","networkIP":"{ip}","stackType":"IPV4_ONLY",
            "accessConfigs":[{{"kind":"compute#accessConfig","natIP":"198.51.100.7"}}]}},{{"name":"nic1","networkIP":"10.9.9.9"}}]}}"#
    )
}

fn page(instances: &[String], more: &str) -> String {
    format!(
        r#"{{"kind":"compute#instanceAggregatedList","id":"projects/p-1/aggregated/instances","items":{{
        "zones/us-central1-a":{{"warning":{{"code":"NO_RESULTS_ON_PAGE","message":"There are no results for scope"}}}},
        "zones/europe-west3-a":{{"instances":[{}]}}}}{more}}}"#,
        instances.join(",")
    )
}

/// A metadata server that gives `token`, which lives so long, and an API that wants it.
fn google(asked: &Asked, token: &(String, u64), list: impl Fn(&str) -> (u16, String)) -> (u16, String) {
    let path = asked.line.split(' ').nth(1).unwrap_or_default();
    match path.strip_prefix("/computeMetadata/v1/") {
        Some(_) if asked.header("metadata-flavor") != "Google" => (403, "Missing Metadata-Flavor:Google header.".into()),
        Some("project/project-id") => (200, "p-1".into()),
        Some("instance/service-accounts/default/token") => {
            let (token, lives) = token;
            (200, format!(r#"{{"access_token":"{token}","expires_in":{lives},"token_type":"Bearer"}}"#))
        }
        Some(_) => (404, String::new()),
        None if asked.header("authorization") != format!("Bearer {}", token.0) => (
            401,
            r#"{"error":{"code":401,"message":"Request had invalid authentication credentials.","status":"UNAUTHENTICATED"}}"#.into(),
        ),
        None => list(path),
    }
}

fn metadata_of(server: &Replies) -> (&'static str, String) {
    ("GCE_METADATA_HOST", server.url().replace("http://", ""))
}

#[test]
fn instances_of_all_zones_and_pages_are_named() {
    run(async {
        let server = Replies::with(FLAVOR, |asked| {
            google(asked, &("t".into(), 3600), |path| match path.contains("&pageToken=a%2Fb") {
                false => {
                    let first =
                        [instance("web-1", "10.0.0.5", "RUNNING"), instance("web-2", "10.0.0.6", "STOPPING")];
                    (200, page(&first, r#","nextPageToken":"a/b""#))
                }
                true => {
                    let second = [
                        instance("web-3", "10.0.0.7", "STAGING"),
                        instance("web-4", "10.0.0.8", "TERMINATED"),
                        instance("web-5", "", "RUNNING"),
                    ];
                    (200, page(&second, ""))
                }
            })
        })
        .await;
        let text =
            |more: &str| format!("labels = {{ cluster = 'web' }}\nendpoint = '{}'\n{more}", server.url());
        let strategy = gcp(&text("filter = 'scheduling.preemptible = false'"), &[metadata_of(&server)]);
        let found = strategy.poll().await.unwrap();
        assert_eq!(names(&found), ["web@10.0.0.5", "web@10.0.0.6-", "web@10.0.0.7?"]);
        assert_eq!(
            server.last().line,
            "GET /compute/v1/projects/p-1/aggregated/instances?maxResults=500\
             &filter=%28labels.cluster%20%3D%20%22web%22%29%20AND%20%28scheduling.preemptible%20%3D%20false%29&pageToken=a%2Fb HTTP/1.1"
        );
        for (more, first) in [
            ("node_name = '{basename}@{fqdn}'", "web@web-1.europe-west3-a.c.p-1.internal"),
            ("release_name = 'x'\nnode_name = '{basename}@{name}'", "x@web-1"),
            ("node_name = '{name}@{public_ip}'", "web-1@198.51.100.7"),
        ] {
            let found = gcp(&text(more), &[metadata_of(&server)]).poll().await.unwrap();
            assert_eq!(names(&found)[0], first, "{more}");
        }
    });
}

#[test]
fn tokens_are_kept_and_renewed() {
    run(async {
        let token = Arc::new(StdMutex::new(("one".to_owned(), 3600)));
        let shared = Arc::clone(&token);
        let server = Replies::with(FLAVOR, move |asked| {
            google(asked, &shared.lock().unwrap(), |path| {
                assert!(path.starts_with(
                    "/compute/v1/projects/mine/zones/z-1/instances?maxResults=500&filter=%28labels.app"
                ));
                (
                    200,
                    format!(
                        r#"{{"kind":"compute#instanceList","items":[{}]}}"#,
                        instance("a", "10.0.0.5", "RUNNING")
                    ),
                )
            })
        })
        .await;
        let text = format!("zone = 'z-1'\nproject = 'mine'\nendpoint = '{}'", server.url());
        let strategy = gcp(&text, &[metadata_of(&server), ("FOUNDATION_APP_NAME", "shop".into())]);
        let tokens = || server.count("GET /computeMetadata/v1/instance/service-accounts/default/token");
        for _ in 0..3 {
            assert_eq!(names(&strategy.poll().await.unwrap()), ["web@10.0.0.5"]);
        }
        assert_eq!(tokens(), 1);
        // Refused: another one is asked for, next time.
        *token.lock().unwrap() = ("two".into(), 200);
        let error = strategy.poll().await.unwrap_err().to_string();
        assert!(error.contains("401") && error.contains("invalid authentication credentials"), "{error}");
        strategy.poll().await.unwrap();
        assert_eq!(tokens(), 2);
        // It would end in less than four minutes.
        strategy.poll().await.unwrap();
        assert_eq!(tokens(), 3);
    });
}

#[test]
fn what_is_no_answer_is_an_error() {
    run(async {
        for (status, body, word) in [
            (
                403,
                r#"{"error":{"code":403,"message":"Required 'compute.instances.list' permission"}}"#,
                "compute.viewer",
            ),
            (429, r#"{"error":{"code":429,"message":"Quota exceeded"}}"#, "raise polling_interval"),
            (500, "<html>oops</html>", "oops"),
            (200, "<html>oops</html>", "not what was expected"),
            (200, r#"{"kind":"compute#operation"}"#, "compute#instanceAggregatedList"),
            (200, r#"{"items":{}}"#, "kind"),
            (
                200,
                r#"{"kind":"compute#instanceAggregatedList","items":{},"unreachables":["zones/z-9"]}"#,
                "zones/z-9",
            ),
            (200, r#"{"kind":"compute#instanceAggregatedList","nextPageToken":"x"}"#, "does not end"),
        ] {
            let server = Replies::with(FLAVOR, move |asked| {
                google(asked, &("t".into(), 3600), |_| (status, body.to_owned()))
            })
            .await;
            let text = format!("labels = {{ a = 'b' }}\nendpoint = '{}'", server.url());
            let error = gcp(&text, &[metadata_of(&server)]).poll().await.unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        // Somebody else at the address of the metadata server.
        let server = Replies::start(|_| (200, "p-1".into())).await;
        let error =
            gcp("labels = { a = 'b' }", &[metadata_of(&server)]).poll().await.unwrap_err().to_string();
        assert!(error.contains("no metadata server of Google"), "{error}");
        // No instances are an answer.
        let server =
            Replies::with(FLAVOR, |asked| google(asked, &("t".into(), 9), |_| (200, page(&[], "")))).await;
        let text = format!("labels = {{ a = 'b' }}\nendpoint = '{}'", server.url());
        assert_eq!(gcp(&text, &[metadata_of(&server)]).poll().await.unwrap(), []);
        let error = gcp("project = 'p'", &[]).filter.unwrap_err();
        assert!(error.contains("set labels"), "{error}");
    });
    for (text, word) in [
        ("labels = { app = 'x\" OR (name = \"y' }", "is no label"),
        ("labels = { 'a b' = 'x' }", "is no label"),
    ] {
        let error = gcp(text, &[]).filter.unwrap_err();
        assert!(error.contains(word), "{error}");
    }
}

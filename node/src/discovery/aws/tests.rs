use std::sync::{Arc, Mutex};

use foundation_proto::dist::NodeName;

use super::ec2::{Ec2, Page};
use super::ecs::Ecs;
use super::*;
use crate::discovery::Poll;
use crate::discovery::config::Context;
use crate::discovery::http::replies::{Asked, Replies, run};
use crate::discovery::template::names;

fn variables(pairs: &[(&'static str, String)]) -> impl Fn(&str) -> Option<String> + use<> {
    let pairs = pairs.to_vec();
    move |name| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.clone())
}

fn keys() -> Vec<(&'static str, String)> {
    vec![
        ("AWS_ACCESS_KEY_ID", "AKID".into()),
        ("AWS_SECRET_ACCESS_KEY", "key".into()),
        ("AWS_REGION", "eu-x-1".into()),
    ]
}

fn context() -> Context {
    Context::new(NodeName::parse("web@10.0.0.9").unwrap(), 4369)
}

fn ec2(text: &str, pairs: &[(&'static str, String)]) -> Ec2 {
    let options = toml::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    Ec2::with(options, &context(), variables(pairs))
}

fn ecs(text: &str, pairs: &[(&'static str, String)]) -> Ecs {
    let options = toml::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    Ecs::with(options, &context(), variables(pairs))
}

fn date_in(seconds: u64) -> String {
    let basic = date::basic(SystemTime::now() + Duration::from_secs(seconds));
    let (day, clock) = basic.split_once('T').unwrap();
    let (year, rest) = day.split_at(4);
    let (month, day) = rest.split_at(2);
    format!("{year}-{month}-{day}T{}:{}:{}Z", &clock[..2], &clock[2..4], &clock[4..6])
}

/// An instance whose metadata service wants the current token.
fn metadata(asked: &Asked, token: &str, role: &str) -> (u16, String) {
    if asked.line.starts_with("PUT /latest/api/token ") {
        let asks = asked.header("x-aws-ec2-metadata-token-ttl-seconds") == "21600";
        return if asks { (200, token.to_owned()) } else { (400, String::new()) };
    }
    if asked.header("x-aws-ec2-metadata-token") != token {
        return (401, "Unauthorized".into());
    }
    let path = asked.line.split(' ').nth(1).unwrap();
    match path.strip_prefix("/latest/meta-data/") {
        Some("placement/region") => (200, "eu-x-2".into()),
        Some("instance-id") => (200, "i-own".into()),
        Some("iam/security-credentials/") => (200, "role-1".into()),
        Some("iam/security-credentials/role-1") => (200, role.to_owned()),
        _ => (404, String::new()),
    }
}

fn role(id: &str, seconds: u64) -> String {
    let ends = date_in(seconds);
    format!(
        r#"{{"Code":"Success","LastUpdated":"2026-01-01T00:00:00Z","Type":"AWS-HMAC","AccessKeyId":"{id}","SecretAccessKey":"s","Token":"t","Expiration":"{ends}"}}"#
    )
}

#[test]
fn the_metadata_service_is_asked_with_a_token_that_is_renewed() {
    run(async {
        let token = Arc::new(Mutex::new("first".to_owned()));
        let shared = Arc::clone(&token);
        let aws = Replies::start(move |asked| metadata(asked, &shared.lock().unwrap(), "")).await;
        let service = Metadata::new(variables(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", aws.url())]));
        assert_eq!(service.get("/latest/meta-data/instance-id").await.unwrap(), "i-own");
        assert_eq!(service.get("/latest/meta-data/placement/region").await.unwrap(), "eu-x-2");
        assert_eq!(aws.count("PUT"), 1);
        // The instance was moved, say: its old tokens are not known.
        *token.lock().unwrap() = "second".into();
        assert_eq!(service.get("/latest/meta-data/instance-id").await.unwrap(), "i-own");
        assert_eq!(aws.count("PUT"), 2);
        let error = service.get("/latest/meta-data/tags/instance/x").await.unwrap_err();
        assert!(error.to_string().contains("404"), "{error}");
        let refuses = Replies::start(|_| (403, String::new())).await;
        let service = Metadata::new(variables(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", refuses.url())]));
        let error = service.get("/latest/meta-data/instance-id").await.unwrap_err();
        assert!(error.to_string().contains("gives no token"), "{error}");
        assert_eq!(refuses.count("GET"), 0, "version 1 is not asked");
        let off = variables(&[
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", aws.url()),
            ("AWS_EC2_METADATA_DISABLED", "true".into()),
        ]);
        assert!(
            Metadata::new(off).get("/").await.unwrap_err().to_string().contains("AWS_EC2_METADATA_DISABLED")
        );
    });
}

#[test]
fn credentials_of_a_role_are_kept_and_renewed_before_they_end() {
    run(async {
        let answer = Arc::new(Mutex::new(Some(role("one", 3600))));
        let shared = Arc::clone(&answer);
        let aws = Replies::start(move |asked| match shared.lock().unwrap().as_deref() {
            Some(role) => metadata(asked, "token", role),
            None => (500, String::new()),
        })
        .await;
        let variables = variables(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", aws.url())]);
        let (provider, service) = (Provider::new(&variables), Metadata::new(&variables));
        let id = async || provider.get(&service).await.map(|credentials| credentials.access_key_id);
        let set = |new: Option<String>| *answer.lock().unwrap() = new;
        assert_eq!(id().await.unwrap(), "one");
        set(Some(role("two", 200)));
        assert_eq!(id().await.unwrap(), "one", "those are good for an hour");
        provider.forget().await;
        assert_eq!(id().await.unwrap(), "two");
        set(Some(role("three", 3600)));
        assert_eq!(id().await.unwrap(), "three", "the others would have ended in less than five minutes");
        let gets = aws.count("GET");
        assert_eq!(id().await.unwrap(), "three");
        assert_eq!(aws.count("GET"), gets);
        set(Some(role("four", 100)));
        provider.forget().await;
        assert_eq!(id().await.unwrap(), "four");
        set(None);
        assert_eq!(
            id().await.unwrap(),
            "four",
            "there are no new ones, and these are good for a minute still"
        );
        set(Some(role("five", 0)));
        assert_eq!(id().await.unwrap(), "five");
        set(None);
        let error = id().await.unwrap_err().to_string();
        assert!(error.contains("give the instance or the task a role"), "{error}");
        set(Some(r#"{"Code":"Failed","Secret":"hush"}"#.into()));
        let error = id().await.unwrap_err().to_string();
        assert!(error.contains("no AccessKeyId") && !error.contains("hush"), "{error}");
    });
}

#[test]
fn a_container_has_credentials_of_its_own() {
    run(async {
        let file = std::env::temp_dir().join(format!("foundation-aws-token-{}", std::process::id()));
        std::fs::write(&file, "first\n").unwrap();
        let aws = Replies::start(|asked| match (asked.line.as_str(), asked.header("authorization")) {
            ("GET /v1/credentials?x=y HTTP/1.1", "first") => (200, role("task", 3600)),
            _ => (400, r#"{"code":"InvalidAuthorization","message":"who are you"}"#.into()),
        })
        .await;
        let full = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/v1/credentials?x=y", aws.url()));
        let token = ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", file.display().to_string());
        let service = Metadata::new(variables(&[]));
        let provider = Provider::new(variables(&[full.clone(), token]));
        let credentials = provider.get(&service).await.unwrap();
        assert_eq!(credentials.access_key_id, "task");
        assert_eq!(credentials.session_token.unwrap().as_bytes(), b"t");
        provider.forget().await;
        std::fs::write(&file, "second\n").unwrap();
        assert!(provider.get(&service).await.unwrap_err().to_string().contains("who are you"));
        std::fs::remove_file(&file).unwrap();
        for (url, word) in [
            ("http://10.0.0.1/x", "without https"),
            ("http://localhost.example.com/x", "without https"),
            ("ftp://127.0.0.1/x", "no address of a server"),
        ] {
            let provider = Provider::new(variables(&[(full.0, url.to_owned())]));
            let error = provider.get(&service).await.unwrap_err().to_string();
            assert!(error.contains(word), "{url}: {error}");
        }
        // What stands in the environment is used first.
        let provider = Provider::new(variables(&[keys(), vec![full]].concat()));
        assert_eq!(provider.get(&service).await.unwrap().access_key_id, "AKID");
    });
}

/// As EC2 answers, without most of the fields.
fn instance(id: &str, state: &str, ip: &str, more: &str) -> String {
    format!(
        "<item><reservationId>r-1</reservationId><instancesSet><item><networkInterfaceSet><item>\
         <privateIpAddress>10.9.9.9</privateIpAddress><privateIpAddressesSet><item><primary>true</primary>\
         <privateIpAddress>10.9.9.8</privateIpAddress></item></privateIpAddressesSet>\
         <ipv6AddressesSet><item><ipv6Address>fd00::0007</ipv6Address></item></ipv6AddressesSet></item></networkInterfaceSet>\
         <tagSet><item><key>cluster</key><value>web</value></item><item><key>Name</key><value>web-1</value></item></tagSet>\
         <instanceId>{id}</instanceId><instanceState><code>16</code><name>{state}</name></instanceState>\
         <privateDnsName>ip-10-0-0-5.eu-x-1.compute.internal</privateDnsName><launchTime>2026-11-22T07:11:03.000Z</launchTime>\
         <placement><availabilityZone>eu-x-1b</availabilityZone></placement>{more}\
         <privateIpAddress>{ip}</privateIpAddress></item></instancesSet></item>"
    )
}

fn page(instances: &str, more: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<DescribeInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
         <requestId>x</requestId><reservationSet>{instances}</reservationSet>{more}</DescribeInstancesResponse>"
    )
}

#[test]
fn instances_of_all_pages_are_named() {
    run(async {
        let aws = Replies::start(|asked| {
            let second = asked.body.contains("&NextToken=a%2Bb%3D");
            match second {
                false => {
                    (200, page(&instance("i-1", "running", "10.0.0.5", ""), "<nextToken>a+b=</nextToken>"))
                }
                true => (
                    200,
                    page(
                        &(instance(
                            "i-2",
                            "shutting-down",
                            "10.0.0.6",
                            "<ipAddress>198.51.100.7</ipAddress>",
                        ) + &instance("i-3", "running", "", "")),
                        "<nextToken/>",
                    ),
                ),
            }
        })
        .await;
        let pairs = [keys(), vec![("AWS_ENDPOINT_URL_EC2", aws.url())]].concat();
        let text =
            "ec2_tagname = 'clus ter'\nec2_tagvalue = 'w*'\npage_size = 5\nfilters = { vpc-id = 'vpc-1' }";
        let strategy = ec2(text, &pairs);
        assert_eq!(names(&strategy.poll().await.unwrap()), ["web@10.0.0.5", "web@10.0.0.6-"]);
        let asked = aws.last();
        assert_eq!(
            asked.body,
            "Action=DescribeInstances&Version=2016-11-15&MaxResults=5&Filter.1.Name=tag%3Aclus%20ter&Filter.1.Value.1=w%2A\
             &Filter.2.Name=instance-state-name&Filter.2.Value.1=running&Filter.2.Value.2=stopping\
             &Filter.2.Value.3=shutting-down&Filter.3.Name=vpc-id&Filter.3.Value.1=vpc-1&NextToken=a%2Bb%3D"
        );
        assert_eq!(asked.header("content-type"), "application/x-www-form-urlencoded; charset=utf-8");
        let signed = "SignedHeaders=content-type;host;x-amz-date, Signature=";
        assert!(asked.header("authorization").contains(signed), "{asked:?}");
        for (more, expected) in [
            ("ip_type = 'public'", vec!["web@198.51.100.7-"]),
            ("ip_type = 'ipv6'", vec!["web@fd00::7"]),
            ("node_name = '{name}@{private_dns}'", vec!["web-1@ip-10-0-0-5.eu-x-1.compute.internal"]),
            (
                "app_prefix = 'x'\nnode_name = '{basename}@{id}.{zone}'",
                vec!["x@i-1.eu-x-1b", "x@i-2.eu-x-1b-", "x@i-3.eu-x-1b"],
            ),
        ] {
            let strategy = ec2(&format!("ec2_tagname = 'a'\nec2_tagvalue = 'b'\n{more}"), &pairs);
            assert_eq!(names(&strategy.poll().await.unwrap()), expected, "{more}");
        }
    });
}

#[test]
fn the_tag_of_this_instance_or_of_the_application_says_which() {
    run(async {
        let aws = Replies::start(|asked| match asked.line.starts_with("POST") {
            false => metadata(asked, "token", &role("role", 3600)),
            true => (200, page(&instance("i-own", "running", "10.0.0.5", ""), "")),
        })
        .await;
        let pairs =
            [("AWS_ENDPOINT_URL", aws.url()), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", aws.url())].to_vec();
        let strategy = ec2("ec2_tagname = 'cluster'", &pairs);
        assert_eq!(names(&strategy.poll().await.unwrap()), ["web@10.0.0.5"]);
        assert!(
            aws.last().body.contains("Filter.1.Name=tag%3Acluster&Filter.1.Value.1=web&"),
            "{:?}",
            aws.last()
        );
        assert_eq!(aws.last().header("x-amz-security-token"), "t");
        assert!(aws.last().header("authorization").contains("/eu-x-2/ec2/aws4_request"), "{:?}", aws.last());
        let posts = aws.count("POST");
        strategy.poll().await.unwrap();
        assert_eq!(aws.count("POST"), posts + 1);
        let error = ec2("ec2_tagname = 'stage'", &pairs).poll().await.unwrap_err().to_string();
        assert!(error.contains("i-own, has no tag stage"), "{error}");
        let error = ec2("", &pairs).poll().await.unwrap_err().to_string();
        assert!(error.contains("set ec2_tagname"), "{error}");
        let named = [pairs, vec![("FOUNDATION_APP_NAME", "shop".into())]].concat();
        ec2("", &named).poll().await.unwrap();
        assert!(
            aws.last().body.contains("Filter.1.Name=tag%3Aapp&Filter.1.Value.1=shop&"),
            "{:?}",
            aws.last()
        );
    });
}

#[test]
fn what_is_no_answer_of_ec2_is_an_error() {
    let deep = "<a>".repeat(200_000);
    for wrong in [
        "",
        "<html><body>Welcome to the airport</body></html>",
        "<DescribeInstancesResponse/>",
        "<DescribeInstancesResponse><reservationSet>",
        "<Response><reservationSet/></Response>",
        "{\"reservationSet\":[]}",
        "<!DOCTYPE x [<!ENTITY a \"aaaa\">]><DescribeInstancesResponse><reservationSet>&a;</reservationSet></DescribeInstancesResponse>",
        deep.as_str(),
    ] {
        assert!(Page::read(wrong.as_bytes()).is_err(), "{}", &wrong[..wrong.len().min(80)]);
    }
    assert!(Page::read(b"\xff").is_err());
    assert_eq!(Page::read(page("", "").as_bytes()).unwrap(), Page::default());
    run(async {
        for (status, body, words) in [
            (
                401,
                "<Response><Errors><Error><Code>AuthFailure</Code><Message>AWS was not able to validate</Message></Error>\
                 </Errors><RequestID>x</RequestID></Response>",
                ["AuthFailure: AWS was not", "the clock"],
            ),
            (
                403,
                "<Response><Errors><Error><Code>UnauthorizedOperation</Code><Message>You are not</Message></Error></Errors></Response>",
                ["UnauthorizedOperation", "must be allowed ec2:DescribeInstances"],
            ),
            (
                503,
                "<Response><Errors><Error><Code>RequestLimitExceeded</Code><Message>no</Message></Error></Errors></Response>",
                ["503", "raise polling_interval"],
            ),
            (500, "<html>oops</html>", ["500", "oops"]),
            (200, "<html>oops</html>", ["not what was expected", "DescribeInstancesResponse"]),
        ] {
            let aws = Replies::start(move |_| (status, body.to_owned())).await;
            let pairs = [keys(), vec![("AWS_ENDPOINT_URL", aws.url())]].concat();
            let strategy = ec2("ec2_tagname = 'a'\nec2_tagvalue = 'b'", &pairs);
            let error = strategy.poll().await.unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
        // A list that always has a next page.
        let aws = Replies::start(|_| (200, page("", "<nextToken>x</nextToken>"))).await;
        let pairs = [keys(), vec![("AWS_ENDPOINT_URL", aws.url())]].concat();
        let error = ec2("ec2_tagname = 'a'\nec2_tagvalue = 'b'", &pairs).poll().await.unwrap_err();
        assert!(error.to_string().contains("does not end"), "{error}");
    });
}

/// As the metadata of a container on Fargate say of its task.
const OWN_TASK: &str = r#"{"Cluster":"arn:aws:ecs:eu-x-1:111122223333:cluster/c","TaskARN":"arn:aws:ecs:eu-x-1:111122223333:task/c/own",
    "Family":"web","Revision":"5","ServiceName":"web-service","DesiredStatus":"RUNNING","Containers":[]}"#;

fn task(arn: &str, ip: &str, last: &str, desired: &str) -> String {
    format!(
        r#"{{"taskArn":"{arn}","lastStatus":"{last}","desiredStatus":"{desired}","availabilityZone":"eu-x-1a",
        "attachments":[{{"id":"x","type":"ElasticNetworkInterface","status":"ATTACHED","details":[
            {{"name":"subnetId","value":"subnet-1"}},{{"name":"privateDnsName","value":"ip-10-0-0-5.internal"}},
            {{"name":"privateIPv4Address","value":"{ip}"}}]}}],
        "containers":[{{"name":"web","networkInterfaces":[{{"attachmentId":"x","privateIpv4Address":"{ip}"}}]}}]}}"#
    )
}

#[test]
fn tasks_of_the_own_service_need_no_configuration() {
    run(async {
        let stopping = Arc::new(Mutex::new(false));
        let shared = Arc::clone(&stopping);
        let aws = Replies::start(move |asked| {
            let target = asked.header("x-amz-target");
            match target.strip_prefix("AmazonEC2ContainerServiceV20141113.") {
                None if asked.line == "GET /v4/abc/task HTTP/1.1" => (200, OWN_TASK.into()),
                Some("ListTasks") => {
                    let wanted = r#"{"cluster":"arn:aws:ecs:eu-x-1:111122223333:cluster/c","serviceName":"web-service","desiredStatus":"RUNNING","maxResults":100"#;
                    assert!(asked.body.starts_with(wanted), "{asked:?}");
                    match (asked.body.contains(r#""nextToken":"p2""#), *shared.lock().unwrap()) {
                        (false, _) => {
                            let arns: Vec<String> = (0..100).map(|n| format!("\"t/{n}\"")).collect();
                            (200, format!(r#"{{"taskArns":[{}],"nextToken":"p2"}}"#, arns.join(",")))
                        }
                        (true, false) => (200, r#"{"taskArns":["t/100","t/101"]}"#.into()),
                        (true, true) => (200, r#"{"taskArns":["t/101"],"nextToken":null}"#.into()),
                    }
                }
                Some("DescribeTasks") => {
                    let body: serde_json::Value = serde_json::from_str(&asked.body).unwrap();
                    let arns = body["tasks"].as_array().unwrap();
                    assert!(arns.len() <= 100);
                    let stops = *shared.lock().unwrap();
                    let described = arns.iter().filter_map(|arn| {
                        let arn = arn.as_str().unwrap();
                        match arn.strip_prefix("t/").unwrap().parse::<u8>().unwrap() {
                            100 if stops => Some(task(arn, "10.0.1.100", "RUNNING", "STOPPED")),
                            n @ (99 | 100) => Some(task(arn, &format!("10.0.1.{n}"), "RUNNING", "RUNNING")),
                            n @ 101 => Some(task(arn, &format!("10.0.1.{n}"), "PENDING", "RUNNING")),
                            n @ 7 => Some(task(arn, &format!("10.0.1.{n}"), "STOPPED", "STOPPED")),
                            _ => None,
                        }
                    });
                    let described: Vec<String> = described.collect();
                    (200, format!(r#"{{"tasks":[{}],"failures":[]}}"#, described.join(",")))
                }
                _ => (404, String::new()),
            }
        })
        .await;
        let pairs = [
            keys()[..2].to_vec(),
            vec![
                ("AWS_ENDPOINT_URL", aws.url()),
                ("ECS_CONTAINER_METADATA_URI_V4", format!("{}/v4/abc", aws.url())),
            ],
        ]
        .concat();
        let strategy = ecs("", &pairs);
        let found = names(&strategy.poll().await.unwrap());
        assert_eq!(found, ["web@10.0.1.100", "web@10.0.1.101?", "web@10.0.1.99"]);
        assert!(aws.last().header("authorization").contains("/eu-x-1/ecs/aws4_request"), "{:?}", aws.last());
        assert!(aws.last().header("authorization").contains("x-amz-date;x-amz-target,"), "{:?}", aws.last());
        assert_eq!(aws.last().header("content-type"), "application/x-amz-json-1.1");
        // A task that is being stopped is on no list any more.
        *stopping.lock().unwrap() = true;
        let found = names(&strategy.poll().await.unwrap());
        assert_eq!(found, ["web@10.0.1.100-", "web@10.0.1.101?", "web@10.0.1.99"]);
        assert_eq!(aws.count("GET"), 1);
    });
}

#[test]
fn what_is_no_answer_of_ecs_is_an_error() {
    run(async {
        let text = "cluster = 'c'\nservice_name = 'web'";
        for (status, body, words) in [
            (
                400,
                r#"{"__type":"AccessDeniedException","Message":"User is not authorized"}"#,
                ["AccessDeniedException: User is not", "ecs:ListTasks and ecs:DescribeTasks"],
            ),
            (
                400,
                r#"{"__type":"com.amazonaws.ecs#ThrottlingException","message":"Rate exceeded"}"#,
                ["ThrottlingException: Rate", "raise polling_interval"],
            ),
            (400, r#"{"__type":"ServiceNotFoundException"}"#, ["ServiceNotFoundException", "400"]),
            (400, r#"{"__type":"ExpiredTokenException","message":"x"}"#, ["AWS_ACCESS_KEY_ID", "the clock"]),
            (200, r#"{"tasks":[]}"#, ["ListTasks", "not what was expected"]),
            (200, r#"{"taskArns":["t/1"],"tasks":[{"lastStatus":"RUNNING"}]}"#, ["awsvpc", "addresses"]),
        ] {
            let aws = Replies::start(move |_| (status, body.to_owned())).await;
            let pairs = [keys(), vec![("AWS_ENDPOINT_URL_ECS", aws.url())]].concat();
            let error = ecs(text, &pairs).poll().await.unwrap_err().to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        }
        let error = ecs("service = 'web'", &keys()).poll().await.unwrap_err().to_string();
        assert!(error.contains("set cluster and service_name"), "{error}");
        // A service whose tasks have no addresses yet, and one without tasks, are answers.
        let aws =
            Replies::start(|_| (200, r#"{"taskArns":["t/1"],"tasks":[{"lastStatus":"PENDING"}]}"#.into()))
                .await;
        let pairs = [keys(), vec![("AWS_ENDPOINT_URL_ECS", aws.url())]].concat();
        assert_eq!(ecs(text, &pairs).poll().await.unwrap(), []);
    });
}

#[test]
fn regions_have_their_servers() {
    let at = |region: &str, endpoint: Option<&str>| {
        let api = Api::new("ec2", "", Some(region), endpoint, Duration::from_secs(1), |_| None);
        api.server(region).map(|server| server.to_string())
    };
    if let Ok(server) = at("eu-central-1", None) {
        assert_eq!(server, "https://ec2.eu-central-1.amazonaws.com:443");
        assert_eq!(at("cn-north-1", None).unwrap(), "https://ec2.cn-north-1.amazonaws.com.cn:443");
    }
    assert_eq!(at("x", Some("http://127.0.0.1:5000")).unwrap(), "http://127.0.0.1:5000");
    assert!(at("x.evil.example/", None).is_err());
    assert!(at("x", Some("http://127.0.0.1:5000/path")).is_err());
}

#[test]
fn the_keys_are_those_of_libcluster() {
    let read = |text: &str| toml::from_str::<super::ec2::Options>(text).map_err(|error| error.to_string());
    let options = read(
        "ec2_tagname = 'mytag'\nec2_tagvalue = 'tagvalue'\napp_prefix = 'app'\nip_type = ':private'\n\
         polling_interval = 10_000\nshow_debug = false",
    );
    assert_eq!(options.unwrap().node_basename.as_deref(), Some("app"));
    for (text, word) in [
        ("ip_to_nodename = 'f'", "node_name"),
        ("page_size = 4", "5 to 1000"),
        ("filters = 'x'", "must be a table"),
        ("filters = { x = 1 }", "must be a table"),
        ("node_name = '{basename}@{pod}'", "{private_dns}"),
        ("ec2_tag = 'x'", "unknown"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(word), "{text}: {error}");
    }
    let text = "cluster = 'c'\nservice_name = ['a', 'b']\nregion = 'us-east-1'\napp_prefix = 'app'";
    toml::from_str::<super::ecs::Options>(text).unwrap();
    toml::from_str::<super::ecs::Options>("service_name = 'a'\nnode_name = '{basename}@{private_dns}'")
        .unwrap();
    assert!(toml::from_str::<super::ecs::Options>("node_name = '{basename}@{public_ip}'").is_err());
}

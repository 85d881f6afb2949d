//! The APIs of AWS as a source of nodes, against moto (`script/moto`), which answers as they do, checks signatures and what a role
//! may do. The metadata of an instance and of a task come from a small server at their own addresses, in a network namespace.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use foundation_interop_tests::case::Unsupported;
use foundation_interop_tests::{
    Beam, Case, Epmd, Release, beam, case, epmd, eventually::eventually_true, netns, work_dir,
};

use crate::discovery::{Started, config};
use crate::rust::WAIT;

const TOPIC: &str = "discovery";
const REGION: &str = "eu-central-1";
/// Where the metadata service of an instance is, and where that of a container of ECS is.
const METADATA: [&str; 2] = ["169.254.169.254", "169.254.170.2"];
/// The addresses of the instances: the last has a node, the others are nobody's.
const INSTANCES: [&str; 6] =
    ["10.77.5.11", "10.77.5.12", "10.77.5.13", "10.77.5.14", "10.77.5.15", "10.77.5.10"];

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status().unwrap();
    assert!(status.success(), "ip {words}");
}

/// One HTTP exchange; the body of the answer with its status.
fn exchange(port: u16, request: &str) -> Option<(u16, String)> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
    socket.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// The text of the first element of this name.
fn element(xml: &str, name: &str) -> String {
    let (_, rest) = xml.split_once(&format!("<{name}>")).unwrap_or_else(|| panic!("{name} in {xml}"));
    rest.split('<').next().unwrap().to_owned()
}

/// A running moto. It is killed when this is dropped.
struct Moto {
    child: Child,
    port: u16,
}

impl Moto {
    /// Where the program is. It is installed if it is missing.
    fn installed() -> String {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../script/moto");
        let found = Command::new(script).output().unwrap();
        let said = String::from_utf8_lossy(&found.stderr);
        assert!(found.status.success(), "there is no moto to test with: {said}");
        String::from_utf8(found.stdout).unwrap().trim().to_owned()
    }

    fn start() -> Self {
        let program = Self::installed();
        let port = epmd::free_port();
        let log = std::fs::File::create(work_dir("discovery").join(format!("moto-{port}.log"))).unwrap();
        let child = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let moto = Self { child, port };
        eventually_true("moto answers", WAIT * 4, || {
            exchange(port, "GET /moto-api/ HTTP/1.0\r\n\r\n").is_some_and(|(status, _)| status == 200)
        });
        moto
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A request of whoever sets this up, whom nobody asks for a signature.
    fn ask(&self, service: &str, kind: &str, target: &str, body: &str) -> String {
        let scope = format!("AWS4-HMAC-SHA256 Credential=x/20260101/{REGION}/{service}/aws4_request");
        let request = format!(
            "POST / HTTP/1.0\r\nhost: 127.0.0.1\r\nauthorization: {scope}, SignedHeaders=host, Signature=x\r\n\
             content-type: {kind}\r\nx-amz-target: {target}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let (status, answer) = exchange(self.port, &request).expect("an answer of moto");
        assert_eq!(status, 200, "{body}: {answer}");
        answer
    }

    fn ec2(&self, parameters: &str) -> String {
        let body = format!("Version=2016-11-15&{parameters}");
        self.ask("ec2", "application/x-www-form-urlencoded", "", &body)
    }

    fn iam(&self, parameters: &str) -> String {
        self.ask("iam", "application/x-www-form-urlencoded", "", &format!("Version=2010-05-08&{parameters}"))
    }

    fn ecs(&self, action: &str, body: &str) -> String {
        let target = format!("AmazonEC2ContainerServiceV20141113.{action}");
        self.ask("ecs", "application/x-amz-json-1.1", &target, body)
    }

    /// From now on signatures and permissions are checked, or not.
    fn checks(&self, checks: bool) {
        let count = if checks { "0" } else { "inf" };
        let request = format!(
            "POST /moto-api/reset-auth HTTP/1.0\r\ncontent-type: text/plain\r\ncontent-length: {}\r\n\r\n{count}",
            count.len()
        );
        assert_eq!(exchange(self.port, &request).unwrap().0, 200);
    }

    /// What the role may do.
    fn allow(&self, effect: &str) {
        let policy = format!(
            "%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%5B%7B%22Effect%22%3A%22{effect}%22%2C%22Action%22%3A%5B\
             %22ec2%3ADescribeInstances%22%2C%22ecs%3AListTasks%22%2C%22ecs%3ADescribeTasks%22%5D%2C%22Resource%22%3A%22%2A%22%7D%5D%7D"
        );
        self.iam(&format!("Action=PutRolePolicy&RoleName=node&PolicyName=discovery&PolicyDocument={policy}"));
    }

    /// The role of the node, and credentials of it as the metadata service has them.
    fn role(&self) -> String {
        let trust = "%7B%22Version%22%3A%222012-10-17%22%2C%22Statement%22%3A%5B%5D%7D";
        self.iam(&format!("Action=CreateRole&RoleName=node&AssumeRolePolicyDocument={trust}"));
        self.allow("Allow");
        let body = "Version=2011-06-15&Action=AssumeRole&RoleSessionName=i-1\
                    &RoleArn=arn%3Aaws%3Aiam%3A%3A123456789012%3Arole%2Fnode";
        let xml = self.ask("sts", "application/x-www-form-urlencoded", "", body);
        let ends = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(3600);
        let ends =
            Command::new("date").args(["-u", "-d", &format!("@{}", ends.as_secs()), "+%FT%TZ"]).output();
        let ends = String::from_utf8(ends.unwrap().stdout).unwrap();
        format!(
            r#"{{"Code":"Success","Type":"AWS-HMAC","AccessKeyId":"{}","SecretAccessKey":"{}","Token":"{}","Expiration":"{}"}}"#,
            element(&xml, "AccessKeyId"),
            element(&xml, "SecretAccessKey"),
            element(&xml, "SessionToken"),
            ends.trim()
        )
    }

    /// A network whose addresses are those of this host here.
    fn subnet(&self) -> String {
        let vpc = element(&self.ec2("Action=CreateVpc&CidrBlock=10.77.0.0%2F16"), "vpcId");
        self.ec2(&format!("Action=ModifyVpcAttribute&VpcId={vpc}&EnableDnsHostnames.Value=true"));
        element(&self.ec2(&format!("Action=CreateSubnet&VpcId={vpc}&CidrBlock=10.77.5.0%2F24")), "subnetId")
    }

    /// An instance with the tag `cluster=web`.
    fn instance(&self, subnet: &str, address: &str) -> String {
        let xml = self.ec2(&format!(
            "Action=RunInstances&ImageId=ami-12c6146b&MinCount=1&MaxCount=1&SubnetId={subnet}&PrivateIpAddress={address}\
             &TagSpecification.1.ResourceType=instance&TagSpecification.1.Tag.1.Key=cluster&TagSpecification.1.Tag.1.Value=web"
        ));
        element(&xml, "instanceId")
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a machine is told of itself at [`METADATA`]. Version 2: without the token there is no answer.
#[derive(Clone, Default)]
struct Metadata(Arc<Mutex<BTreeMap<String, String>>>);

impl Metadata {
    fn start() -> Self {
        let metadata = Self::default();
        for address in METADATA {
            ip(&format!("addr replace {address}/32 dev lo"));
            let listener = TcpListener::bind((address, 80)).unwrap();
            let shared = metadata.clone();
            std::thread::spawn(move || {
                for socket in listener.incoming() {
                    // An error is a client that went away.
                    let _ = shared.serve(socket.unwrap());
                }
            });
        }
        metadata
    }

    fn set(&self, path: &str, text: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), text.to_owned());
    }

    fn serve(&self, socket: TcpStream) -> std::io::Result<()> {
        let instance = socket.local_addr()?.ip().to_string() == METADATA[0];
        let mut reader = BufReader::new(socket);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let (mut token, mut lifetime) = (false, false);
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            match header.trim() {
                "" => break,
                "x-aws-ec2-metadata-token: an-imds-token" => token = true,
                "x-aws-ec2-metadata-token-ttl-seconds: 21600" => lifetime = true,
                _ => {}
            }
        }
        let path = line.split(' ').nth(1).unwrap_or_default();
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(path).cloned();
        let (status, body) = match (line.starts_with("PUT "), known) {
            (true, _) if instance && path == "/latest/api/token" && lifetime => {
                (200, "an-imds-token".to_owned())
            }
            (true, _) => (400, String::new()),
            (false, _) if instance && !token => (401, String::new()),
            (false, Some(text)) => (200, text),
            (false, None) => (404, String::new()),
        };
        let mut socket = reader.into_inner();
        write!(socket, "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }
}

fn start(epmd: &Epmd, name: &str, text: &str, variables: &[(&str, &str)]) -> Started {
    let arguments = config(&format!("aws-{name}-{}", epmd.port), text);
    let node = format!("{name}@127.0.0.1");
    Started::with(epmd.port, &node, &[arguments[0].as_str(), arguments[1].as_str()], variables)
}

fn beam_at(release: &Release, epmd: &Epmd, name: &str, address: &str) -> Beam {
    beam::Options::new(release, epmd.port, name).at(address).interface(address).start()
}

fn suffers(node: &Started, what: &str, begin: impl Fn(), end: impl Fn()) {
    let count = |words: &str| node.log().matches(words).count();
    for (change, words) in [(&begin as &dyn Fn(), "what it said before stands"), (&end, "answers again")] {
        let before = count(words);
        change();
        eventually_true(&format!("{what}: {words}"), WAIT * 2, || count(words) > before);
    }
}

fn instances_and_tasks(release: &Release, metadata: &Metadata) -> Result<(), Unsupported> {
    let moto = Moto::start();
    let subnet = moto.subnet();
    let ids = INSTANCES.map(|address| moto.instance(&subnet, address));
    let good = moto.role();
    moto.ecs("CreateCluster", r#"{"clusterName":"c1"}"#);
    moto.ecs(
        "RegisterTaskDefinition",
        r#"{"family":"web","networkMode":"awsvpc","requiresCompatibilities":["FARGATE"],"cpu":"256","memory":"512",
        "containerDefinitions":[{"name":"a","image":"b","memory":128,"cpu":1}]}"#,
    );
    let network = format!(r#"{{"awsvpcConfiguration":{{"subnets":["{subnet}"],"securityGroups":[]}}}}"#);
    moto.ecs(
        "CreateService",
        &format!(
            r#"{{"cluster":"c1","serviceName":"web","taskDefinition":"web","desiredCount":0,"launchType":"FARGATE","networkConfiguration":{network}}}"#
        ),
    );
    let ran = moto.ecs(
        "RunTask",
        &format!(
            r#"{{"cluster":"c1","taskDefinition":"web","launchType":"FARGATE","group":"service:web","networkConfiguration":{network}}}"#
        ),
    );
    let ran = ran.replace(": ", ":").replace(", ", ",");
    let (_, rest) = ran.split_once(r#""name":"privateIPv4Address","value":""#).unwrap();
    let task = rest.split('"').next().unwrap();
    moto.checks(true);

    // A role whose secret is wrong at first.
    let directory = "/latest/meta-data/iam/security-credentials/";
    metadata.set("/latest/meta-data/placement/region", REGION);
    metadata.set("/latest/meta-data/instance-id", &ids[5]);
    metadata.set(directory, "node");
    let wrong = good.replace(r#""SecretAccessKey":""#, r#""SecretAccessKey":"x"#);
    metadata.set(&format!("{directory}node"), &wrong);
    let port = epmd::free_port();
    for address in [INSTANCES[5], task] {
        ip(&format!("addr replace {address}/32 dev lo"));
    }
    let epmd = Epmd::try_start_on(release, port, &[INSTANCES[5], task]).unwrap();
    let beam = beam_at(release, &epmd, "web", INSTANCES[5]);
    let url = moto.url();
    let endpoint = ("AWS_ENDPOINT_URL", url.as_str());
    let text = "[cluster]\nstrategy = 'ClusterEC2.Strategy.Tags'\nec2_tagname = 'cluster'\napp_prefix = 'web'\npage_size = 5\n\
                polling_interval = 300\nrequest_timeout = 2000\nprune = 'disconnect'\n";
    let node = start(&epmd, "ec2", text, &[endpoint]);
    let line = node.logs(&["no answer; what it said before stands", "AuthFailure"]);
    assert!(line.contains("the credentials (of the role of the instance) are not accepted"), "{line}");
    metadata.set(&format!("{directory}node"), &good);
    let connected = || beam.eval("nodes(hidden)") == "['ec2@127.0.0.1']";
    eventually_true("the instance on the second page is found", WAIT * 2, connected);
    node.logs(&["unable to connect to web@10.77.5.11"]);
    beam.eval(
        "C = counters:new(1, []), persistent_term:put(downs, C), spawn(fun() -> \
         net_kernel:monitor_nodes(true, [{node_type, all}]), \
         (fun L() -> receive {nodedown, _, _} -> counters:add(C, 1, 1); _ -> ok end, L() end)() end), ok",
    );
    let may = |effect: &str| {
        moto.checks(false);
        moto.allow(effect);
        moto.checks(true);
    };
    suffers(&node, "403", || may("Deny"), || may("Allow"));
    assert!(node.log().contains("must be allowed ec2:DescribeInstances"), "{}", node.log());
    let pid = moto.child.id();
    suffers(&node, "silence", || beam::signal("STOP", pid), || beam::signal("CONT", pid));
    assert!(connected(), "{}", node.log());
    assert_eq!(beam.eval("counters:get(persistent_term:get(downs), 1)"), "0", "{}", node.log());

    // A task of a service, which needs no configuration; it has credentials of its own.
    let _task = beam_at(release, &epmd, "task", task);
    let own = r#"{"Cluster":"arn:aws:ecs:eu-central-1:123456789012:cluster/c1","Family":"web","ServiceName":"web",
        "TaskARN":"arn:aws:ecs:eu-central-1:123456789012:task/c1/own","DesiredStatus":"RUNNING"}"#;
    metadata.set("/v4/own/task", own);
    metadata.set("/v2/credentials/own", &good);
    let variables = [
        endpoint,
        ("ECS_CONTAINER_METADATA_URI_V4", "http://169.254.170.2/v4/own"),
        ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/own"),
    ];
    let text = "[cluster]\nstrategy = 'aws'\nnode_basename = 'task'\n";
    let node = start(&epmd, "ecs", text, &variables);
    node.logs(&["discovery: ecs: written in the configuration"]);
    node.logs(&[&format!("connected to task@{task}")]);
    Ok(())
}

#[test]
fn instances_and_tasks_are_found() {
    const NAME: &str = "AWS (moto, which checks signatures and roles): instances by their tag over pages and IMDSv2, tasks of the own \
                        service; a wrong secret, 403 and silence disconnect nobody";
    if !netns::is_inside() {
        // Nothing can be downloaded inside.
        Moto::installed();
    }
    match netns::rerun("discovery_aws::instances_and_tasks_are_found") {
        Some(Ok(_)) => return,
        Some(Err(why)) => return case(Case::Full, TOPIC, NAME, |_| Err(Unsupported(why))),
        None => {}
    }
    ip("link set lo up");
    let metadata = Metadata::start();
    case(Case::Full, TOPIC, NAME, |release| instances_and_tasks(release, &metadata));
}

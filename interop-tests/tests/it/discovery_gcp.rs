//! Google Compute Engine as a source of nodes, against a metadata server and an API with TLS that answer as Google's do.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foundation_interop_tests::{Beam, Case, Epmd, case, eventually::eventually_true};
use rustls::{ServerConnection, StreamOwned};

use crate::discovery::{Started, config};
use crate::rust::WAIT;
use crate::tls::Pki;

const TOPIC: &str = "discovery";

/// What goes wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fault {
    Status(u16),
    /// A zone is missing in the answer.
    Unreachable,
    /// The connection ends within the answer.
    Cut,
    Silence,
}

#[derive(Debug, Default)]
struct State {
    token: String,
    fault: Option<Fault>,
    /// Name, address and status.
    instances: Vec<(&'static str, &'static str, &'static str)>,
    tokens: usize,
    lists: usize,
}

/// Both servers. They end with the test.
struct Google {
    metadata: u16,
    api: u16,
    pki: Pki,
    state: Arc<Mutex<State>>,
}

impl Google {
    fn start() -> Self {
        let pki = Pki::new();
        pki.issue("server", &["127.0.0.1"], "compute");
        let tls = pki.server("server");
        let state = Arc::new(Mutex::new(State { token: "first".into(), ..State::default() }));
        let listeners =
            [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
        let [metadata, api] = [0, 1].map(|at: usize| listeners[at].local_addr().unwrap().port());
        let [first, second] = listeners;
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for socket in first.incoming() {
                let _ = of_metadata(socket.unwrap(), &shared);
            }
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for socket in second.incoming() {
                let session =
                    StreamOwned::new(ServerConnection::new(Arc::clone(&tls)).unwrap(), socket.unwrap());
                let shared = Arc::clone(&shared);
                // An error is a client that went away.
                std::thread::spawn(move || drop(of_api(session, &shared)));
            }
        });
        Self { metadata, api, pki, state }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first line of a request, and the value of a header.
fn request(reader: &mut impl BufRead, header: &str) -> std::io::Result<(String, String)> {
    let (mut line, mut value) = (String::new(), String::new());
    reader.read_line(&mut line)?;
    loop {
        let mut next = String::new();
        reader.read_line(&mut next)?;
        if let Some((name, rest)) = next.trim().split_once(": ")
            && name.eq_ignore_ascii_case(header)
        {
            rest.clone_into(&mut value);
        }
        if next.trim().is_empty() {
            return Ok((line, value));
        }
    }
}

fn of_metadata(socket: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(socket);
    let (line, flavor) = request(&mut reader, "metadata-flavor")?;
    let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
    let (status, body) = match line.split(' ').nth(1).unwrap_or_default() {
        _ if flavor != "Google" => (403, "Missing Metadata-Flavor:Google header.".to_owned()),
        "/computeMetadata/v1/project/project-id" => (200, "p-1".to_owned()),
        "/computeMetadata/v1/instance/service-accounts/default/token" => {
            state.tokens += 1;
            (200, format!(r#"{{"access_token":"{}","expires_in":3599,"token_type":"Bearer"}}"#, state.token))
        }
        _ => (404, String::new()),
    };
    let mut socket = reader.into_inner();
    let length = body.len();
    write!(socket, "HTTP/1.1 {status} X\r\nMetadata-Flavor: Google\r\ncontent-length: {length}\r\n\r\n{body}")
}

fn of_api(session: StreamOwned<ServerConnection, TcpStream>, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(session);
    let (line, token) = request(&mut reader, "authorization")?;
    let mut session = reader.into_inner();
    let (status, body, fault) = {
        let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.lists += 1;
        let wanted = "/compute/v1/projects/p-1/aggregated/instances?maxResults=500&filter=%28labels.cluster%20%3D%20%22web%22%29";
        let asked = line.split(' ').nth(1).unwrap_or_default();
        let (status, body) = match state.fault {
            _ if token != format!("Bearer {}", state.token) => (401, error(401)),
            Some(Fault::Status(status)) => (status, error(status)),
            _ => match asked.strip_prefix(wanted) {
                Some(more) => (200, page(&state, more)),
                None => (404, error(404)),
            },
        };
        (status, body, state.fault)
    };
    let length = body.len();
    let head =
        format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n");
    match fault {
        Some(Fault::Silence) => {
            // Until the client has had enough.
            session.sock.set_read_timeout(Some(WAIT))?;
            let _ = std::io::Read::read(&mut session, &mut [0]);
            return Ok(());
        }
        Some(Fault::Cut) => write!(session, "{head}{}", &body[..body.len() / 2])?,
        _ => write!(session, "{head}{body}")?,
    }
    session.conn.send_close_notify();
    session.flush()
}

fn error(status: u16) -> String {
    let message = match status {
        401 => "Request had invalid authentication credentials. Expected OAuth 2 access token.",
        403 => "Required 'compute.instances.list' permission for 'projects/p-1'",
        _ => "Internal error. Please try again or contact Google Support.",
    };
    format!(
        r#"{{"error":{{"code":{status},"message":"{message}","errors":[{{"message":"{message}","domain":"global"}}]}}}}"#
    )
}

/// One instance a page.
fn page(state: &State, more: &str) -> String {
    let at = more.strip_prefix("&pageToken=").map_or(0, |token| token.parse::<usize>().unwrap());
    let instance = state.instances.get(at).map_or(String::new(), |(name, ip, status)| {
        format!(
            r#"{{"kind":"compute#instance","id":"7{name}","name":"{name}","status":"{status}","zone":"https://www.googleapis.com/compute/v1/projects/p-1/zones/europe-west3-a","labels":{{"cluster":"web"}},"networkInterfaces":[{{"kind":"compute#networkInterface","name":"nic0","networkIP":"{ip}"}}],"lastStartTimestamp":"2026-11-22T00:00:00.000-07:00"}}"#
        )
    });
    let next = if at + 1 < state.instances.len() {
        format!(r#","nextPageToken":"{}""#, at + 1)
    } else {
        String::new()
    };
    let missing = if state.fault == Some(Fault::Unreachable) {
        r#","unreachables":["zones/europe-west3-a"]"#
    } else {
        ""
    };
    let instances = if missing.is_empty() { instance } else { String::new() };
    format!(
        r#"{{"kind":"compute#instanceAggregatedList","id":"projects/p-1/aggregated/instances","items":{{"zones/us-central1-a":{{"warning":{{"code":"NO_RESULTS_ON_PAGE","message":"There are no results for scope 'zones/us-central1-a' on this page."}}}},"zones/europe-west3-a":{{"instances":[{instances}]}}}}{next}{missing}}}"#
    )
}

#[test]
fn instances_are_found() {
    case(
        Case::Full,
        TOPIC,
        "Google Compute Engine: instances by a label over pages, over TLS, with a token of the metadata server; 403, 500, silence, cut \
         answers, a missing zone and a stale token disconnect nobody",
        |release| {
            let google = Google::start();
            let epmd = Epmd::start(release);
            let beam = Beam::visible(release, &epmd, "web");
            google.state().instances = vec![
                ("web-0", "127.0.0.9", "TERMINATED"),
                ("web-1", "127.0.0.8", "STAGING"),
                ("web-2", "127.0.0.1", "RUNNING"),
            ];
            google.state().fault = Some(Fault::Status(403));
            let text = format!(
                "[cluster]\nstrategy = 'gcp'\nlabels = {{ cluster = 'web' }}\nnode_basename = 'web'\nendpoint = 'https://127.0.0.1:{}'\n\
                 polling_interval = 100\nrequest_timeout = 1000\nprune = 'disconnect'\n",
                google.api
            );
            let arguments = config(&format!("gcp-{}", epmd.port), &text);
            let metadata = format!("127.0.0.1:{}", google.metadata);
            let authorities = google.pki.directory.join("ca.pem");
            let variables =
                [("GCE_METADATA_HOST", metadata.as_str()), ("SSL_CERT_FILE", authorities.to_str().unwrap())];
            let node = Started::with(
                epmd.port,
                "gcp@127.0.0.1",
                &[arguments[0].as_str(), arguments[1].as_str()],
                &variables,
            );
            let line = node.logs(&["no answer; what it said before stands", "compute.instances.list"]);
            assert!(line.contains("roles/compute.viewer"), "{line}");
            google.state().fault = None;
            let connected = || beam.eval("nodes(hidden)") == "['gcp@127.0.0.1']";
            eventually_true("the instance on the last page is found", WAIT, connected);
            beam.eval(
                "C = counters:new(1, []), persistent_term:put(downs, C), spawn(fun() -> \
                 net_kernel:monitor_nodes(true, [{node_type, all}]), \
                 (fun L() -> receive {nodedown, _, _} -> counters:add(C, 1, 1); _ -> ok end, L() end)() end), ok",
            );
            let count = |words: &str| node.log().matches(words).count();
            let suffers = |what: &dyn std::fmt::Debug, begin: &dyn Fn(), end: &dyn Fn()| {
                for (change, words) in [(begin, "what it said before stands"), (end, "answers again")] {
                    let before = count(words);
                    change();
                    eventually_true(&format!("{what:?}: {words}"), WAIT * 2, || count(words) > before);
                }
            };
            for fault in [Fault::Status(500), Fault::Unreachable, Fault::Cut, Fault::Silence] {
                suffers(&fault, &|| google.state().fault = Some(fault), &|| google.state().fault = None);
            }
            // Its token ends before it was to; the next question has another.
            assert_eq!(google.state().tokens, 1);
            google.state().token = "second".into();
            eventually_true("a new token is asked for", WAIT, || google.state().tokens == 2);
            eventually_true("it answers again", WAIT, || {
                count("answers again") == count("what it said before stands")
            });
            // It starts to run, and is dialled; the other is being stopped, and is left alone.
            google.state().instances[1].2 = "RUNNING";
            node.logs(&["unable to connect to web@127.0.0.8"]);
            google.state().instances[2].2 = "STOPPING";
            let lists = google.state().lists;
            eventually_true("two more lists", WAIT, || google.state().lists > lists + 6);
            assert!(connected(), "{}", node.log());
            assert_eq!(beam.eval("counters:get(persistent_term:get(downs), 1)"), "0", "{}", node.log());
            assert!(!node.log().contains("web@127.0.0.9"), "{}", node.log());
            Ok(())
        },
    );
}

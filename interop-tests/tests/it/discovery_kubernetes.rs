//! The API of Kubernetes as a source of nodes, against a server that answers as kube-apiserver does: lists in pages, watches, its
//! errors, and tokens that are checked.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use foundation_interop_tests::case::Unsupported;
use foundation_interop_tests::{Beam, Case, Epmd, Release, case, eventually::eventually_true};
use rustls::{ServerConnection, StreamOwned};

use crate::discovery::{Started, config};
use crate::rust::WAIT;
use crate::tls::Pki;

const TOPIC: &str = "discovery";

/// What goes wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fault {
    /// This status, with the body that the real server has for it.
    Status(u16),
    /// No answer.
    Silence,
    /// The connection ends within the answer.
    Cut,
    /// HTML with status 200, as a captive proxy has it.
    Html,
}

#[derive(Default)]
pub(crate) struct State {
    /// The token that is accepted.
    pub(crate) token: String,
    pub(crate) fault: Option<Fault>,
    /// The role does not allow to watch.
    pub(crate) unwatched: bool,
    /// The status of each pod by its name, as JSON.
    pods: Vec<(String, String)>,
    version: u64,
    /// What watches have to be told, with the version that it leads to.
    events: Vec<(u64, String)>,
    /// Watches from before this version cannot go on.
    oldest: u64,
    /// Watches that were begun before this was raised end.
    watches: u64,
    /// First lines of requests, in order, with the token.
    requests: Vec<String>,
    /// The test is over.
    over: bool,
}

/// What the test and the threads of the server share.
#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state in the hands of the test; watches look at it afterwards.
pub(crate) struct Changing<'a> {
    state: MutexGuard<'a, State>,
    changed: &'a Condvar,
}

impl Deref for Changing<'_> {
    type Target = State;

    fn deref(&self) -> &State {
        &self.state
    }
}

impl DerefMut for Changing<'_> {
    fn deref_mut(&mut self) -> &mut State {
        &mut self.state
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        // Whoever wakes waits for the lock until the state is let go.
        self.changed.notify_all();
    }
}

/// The server. It ends with this.
pub(crate) struct Api {
    pub(crate) port: u16,
    pub(crate) pki: Pki,
    shared: Arc<Shared>,
}

type Session = StreamOwned<ServerConnection, TcpStream>;

impl Api {
    pub(crate) fn start() -> Self {
        let pki = Pki::new();
        pki.issue("server", &["127.0.0.1"], "api");
        let tls = pki.server("server");
        std::fs::copy(pki.directory.join("ca.pem"), pki.directory.join("ca.crt")).unwrap();
        pki.write("token", "first\n");
        pki.write("namespace", "prod\n");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = State { token: "first".into(), version: 100, ..State::default() };
        let shared = Arc::new(Shared { state: Mutex::new(state), ..Shared::default() });
        let served = Arc::clone(&shared);
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let (shared, tls) = (Arc::clone(&served), Arc::clone(&tls));
                if shared.lock().over {
                    return;
                }
                std::thread::spawn(move || {
                    let session = StreamOwned::new(ServerConnection::new(tls).unwrap(), socket.unwrap());
                    // An error is a client that went away, or did not like the certificate.
                    let _ = serve(session, &shared);
                });
            }
        });
        Self { port, pki, shared }
    }

    pub(crate) fn state(&self) -> Changing<'_> {
        Changing { state: self.shared.lock(), changed: &self.shared.changed }
    }

    pub(crate) fn directory(&self) -> String {
        self.pki.directory.display().to_string()
    }

    /// Adds or changes a pod, and tells watches; `metadata` goes behind its name.
    pub(crate) fn put(&self, name: &str, metadata: &str, status: &str) {
        let mut state = self.state();
        let known = state.pods.iter().any(|(other, _)| other == name);
        state.pods.retain(|(other, _)| other != name);
        state.version += 1;
        let pod = pod(name, metadata, status, state.version);
        state.pods.push((name.to_owned(), pod.clone()));
        state.tell(if known { "MODIFIED" } else { "ADDED" }, &pod);
    }

    fn delete(&self, name: &str) {
        let mut state = self.state();
        let at = state.pods.iter().position(|(other, _)| other == name).unwrap();
        let (_, pod) = state.pods.remove(at);
        state.version += 1;
        state.tell("DELETED", &pod);
    }

    /// How often this was asked for, by a part of the line.
    pub(crate) fn asked(&self, part: &str) -> usize {
        self.state().requests.iter().filter(|request| request.contains(part)).count()
    }

    /// The first lines of requests from this one on.
    pub(crate) fn requests(&self, from: usize) -> Vec<String> {
        self.state().requests.get(from..).unwrap_or_default().to_vec()
    }

    /// `[cluster]` for a node that asks this server.
    fn cluster(&self, more: &str) -> String {
        format!(
            "[cluster]\nstrategy = 'kubernetes'\nkubernetes_selector = 'app=web'\nkubernetes_node_basename = 'web'\n\
             kubernetes_service_account_path = {:?}\nkubernetes_master = '127.0.0.1:{}'\nprune = 'disconnect'\n{more}\n",
            self.directory(),
            self.port
        )
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.state().over = true;
        // The listener looks up, and ends.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl State {
    fn tell(&mut self, kind: &str, object: &str) {
        let event = format!(r#"{{"type":"{kind}","object":{object}}}"#);
        self.events.push((self.version, event));
    }
}

/// As kube-apiserver 1.20 gives it, without most of what a pod has.
fn pod(name: &str, metadata: &str, status: &str, version: u64) -> String {
    format!(
        r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"{name}","namespace":"prod","resourceVersion":"{version}","labels":{{"app":"web"}}{metadata}}},"spec":{{"nodeName":"n1","containers":[{{"name":"web","image":"web"}}]}},"status":{{{status}}}}}"#
    )
}

pub(crate) fn ready(ip: &str) -> String {
    format!(r#""phase":"Running","conditions":[{{"type":"Ready","status":"True"}}],"podIP":"{ip}""#)
}

fn status(code: u16) -> String {
    let (reason, message) = match code {
        401 => ("Unauthorized", "Unauthorized"),
        403 => (
            "Forbidden",
            r#"pods is forbidden: User \"system:serviceaccount:prod:default\" cannot list resource \"pods\" in API group \"\" in the namespace \"prod\""#,
        ),
        410 => ("Expired", "too old resource version"),
        _ => ("InternalError", "etcdserver: request timed out"),
    };
    format!(
        r#"{{"kind":"Status","apiVersion":"v1","metadata":{{}},"status":"Failure","message":"{message}","reason":"{reason}","code":{code}}}"#
    )
}

fn respond(session: &mut Session, code: u16, body: &str) -> std::io::Result<()> {
    let length = body.len();
    write!(
        session,
        "HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )?;
    session.conn.send_close_notify();
    session.flush()
}

/// Answers one request.
fn serve(session: Session, shared: &Shared) -> std::io::Result<()> {
    let mut reader = BufReader::new(session);
    let (mut request, mut token) = (String::new(), String::new());
    reader.read_line(&mut request)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if let Some(bearer) = line.to_lowercase().strip_prefix("authorization: bearer ") {
            token = bearer.trim().to_owned();
        }
        if line.trim().is_empty() {
            break;
        }
    }
    let mut session = reader.into_inner();
    let mut state = shared.lock();
    let is_watch = request.contains("watch=1");
    state.requests.push(format!("{} {token}", request.trim()));
    let fault = state.fault;
    let code = match fault {
        _ if token != state.token => 401,
        Some(Fault::Status(code)) => code,
        _ if is_watch && state.unwatched => 403,
        _ => 200,
    };
    if code != 200 {
        drop(state);
        return respond(&mut session, code, &status(code));
    }
    match fault {
        Some(Fault::Silence) => {
            drop(state);
            // Until the client has had enough.
            session.sock.set_read_timeout(Some(WAIT))?;
            let _ = std::io::Read::read(&mut session, &mut [0]);
            return Ok(());
        }
        Some(Fault::Cut) => {
            drop(state);
            write!(
                session,
                "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{{\"kind\":\"PodList\",\"items\":["
            )?;
            return session.flush();
        }
        Some(Fault::Html) => {
            drop(state);
            return respond(&mut session, 200, "<html>Welcome to the airport</html>");
        }
        _ => {}
    }
    if !request.contains("/api/v1/namespaces/prod/pods?labelSelector=app%3Dweb") {
        drop(state);
        return respond(&mut session, 404, &status(404));
    }
    if is_watch {
        let begun = state.watches;
        drop(state);
        return watch(session, &request, shared, begun);
    }
    // One pod a page for whoever asks for pages, whatever their length; libcluster does not.
    let page = query(&request, "continue=").unwrap_or(0) as usize;
    let paged = request.contains("limit=");
    let next = match paged && page + 1 < state.pods.len() {
        true => format!(r#","continue":"{}""#, page + 1),
        false => String::new(),
    };
    let shown = if paged { page..page + 1 } else { 0..state.pods.len() };
    let items: Vec<&str> = state.pods.get(shown).into_iter().flatten().map(|(_, pod)| pod.as_str()).collect();
    let items = items.join(",");
    let version = state.version;
    drop(state);
    respond(
        &mut session,
        200,
        &format!(
            r#"{{"kind":"PodList","apiVersion":"v1","metadata":{{"resourceVersion":"{version}"{next}}},"items":[{items}]}}"#
        ),
    )
}

fn query(request: &str, key: &str) -> Option<u64> {
    let (_, rest) = request.split_once(key)?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Tells what changes until somebody raises the number of watches above `begun`.
fn watch(mut session: Session, request: &str, shared: &Shared, begun: u64) -> std::io::Result<()> {
    let mut version = query(request, "resourceVersion=").unwrap_or(0);
    write!(
        session,
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    )?;
    session.flush()?;
    loop {
        let idle = |state: &mut State| !state.over && state.watches == begun && state.version == version;
        let state = shared.changed.wait_while(shared.lock(), idle).unwrap_or_else(PoisonError::into_inner);
        let ends = state.over || state.watches != begun;
        let mut events: Vec<String> = Vec::new();
        if version < state.oldest {
            events.push(format!(r#"{{"type":"ERROR","object":{}}}"#, status(410)));
        } else {
            events
                .extend(state.events.iter().filter(|(at, _)| *at > version).map(|(_, event)| event.clone()));
        }
        let expired = version < state.oldest;
        version = state.version;
        drop(state);
        for event in events {
            // A line in two chunks, as a proxy may cut it.
            let (one, two) = event.split_at(event.len() / 2);
            for part in [one.to_owned(), format!("{two}\n")] {
                write!(session, "{:x}\r\n{part}\r\n", part.len())?;
                session.flush()?;
            }
        }
        if ends || expired {
            write!(session, "0\r\n\r\n")?;
            session.conn.send_close_notify();
            return session.flush();
        }
    }
}

/// Counts what the node loses from now on.
fn count_downs(beam: &Beam) {
    beam.eval(
        "C = counters:new(1, []), persistent_term:put(downs, C), spawn(fun() -> \
         net_kernel:monitor_nodes(true, [{node_type, all}]), \
         (fun L() -> receive {nodedown, _, _} -> counters:add(C, 1, 1); _ -> ok end, L() end)() end), ok",
    );
}

fn downs(beam: &Beam) -> String {
    beam.eval("counters:get(persistent_term:get(downs), 1)")
}

/// A BEAM node, and whether this node is connected to it.
fn connected(beam: &Beam, node: &str) -> bool {
    beam.eval("nodes(hidden)") == format!("['{node}']")
}

fn start(epmd: &Epmd, name: &str, text: &str) -> Started {
    let node = format!("{name}@127.0.0.1");
    let arguments = config(&format!("{name}-{}", epmd.port), text);
    let log = "info,foundation_node::discovery=debug";
    Started::with(epmd.port, &node, &["--log", log, &arguments[0], &arguments[1]], &[])
}

#[test]
fn pods_are_watched() {
    case(
        Case::Full,
        TOPIC,
        "pods of the Kubernetes API: an event connects at once, 410 and a new token go on, a terminating pod is left alone",
        |release| {
            let epmd = Epmd::start(release);
            let beam = Beam::visible(release, &epmd, "web");
            let api = Api::start();
            // Two pages of pods that are no nodes: one that has ended, one that has no address.
            api.put("web-a", r#","uid":"a""#, r#""phase":"Succeeded","podIP":"127.0.0.1""#);
            api.put("web-b", r#","uid":"b""#, r#""phase":"Pending""#);
            // Polling alone would take a minute.
            let node = start(&epmd, "watching", &api.cluster("polling_interval = 60000"));
            eventually_true("the watch is open", WAIT, || api.asked("watch=1") == 1);
            assert_eq!(api.asked("limit=500"), 2, "{:?}", api.state().requests);
            assert_eq!(api.asked("continue=1"), 1);
            api.put("web-0", r#","uid":"u1""#, &ready("127.0.0.1"));
            eventually_true("the new pod is dialled", WAIT, || connected(&beam, "watching@127.0.0.1"));
            count_downs(&beam);
            // The server ends watches from time to time, and the token has changed since.
            api.pki.write("token", "second\n");
            {
                let mut state = api.state();
                state.token = "second".into();
                state.watches += 1;
            }
            let again = || api.asked("resourceVersion=103 HTTP/1.1 second") == 1;
            eventually_true("the watch goes on where it was, with the new token", WAIT, again);
            assert_eq!(api.asked("limit=500"), 2);
            // It has forgotten what was before: everything is listed anew.
            {
                let mut state = api.state();
                (state.version, state.oldest) = (200, 200);
                state.events.clear();
                state.watches += 1;
            }
            eventually_true("410 leads to a new list", WAIT, || api.asked("resourceVersion=200 ") == 1);
            assert_eq!(api.asked("limit=500"), 5);
            assert!(connected(&beam, "watching@127.0.0.1"));
            assert_eq!(downs(&beam), "0", "{}", node.log());
            // The pod is being shut down: its connection lives until it ends it, and is not made again.
            api.put(
                "web-0",
                r#","uid":"u1","deletionTimestamp":"2026-01-01T00:00:00Z""#,
                &ready("127.0.0.1"),
            );
            // This event comes behind that one.
            api.put("web-c", r#","uid":"c""#, &ready("127.0.0.9"));
            node.logs(&["unable to connect to web@127.0.0.9"]);
            assert_eq!(downs(&beam), "0", "{}", node.log());
            let dials = || node.log().matches("unable to connect to web@127.0.0.9").count();
            let before = dials();
            beam.eval("erlang:disconnect_node('watching@127.0.0.1')");
            // A lost peer is dialled within half a second, this one after ever longer waits.
            eventually_true("others are still dialled", WAIT, || dials() >= before + 3);
            assert_eq!(beam.eval("nodes(hidden)"), "[]", "{}", node.log());
            api.delete("web-0");
            api.put("web-0", r#","uid":"u2""#, &ready("127.0.0.1"));
            eventually_true("its successor is dialled", WAIT, || connected(&beam, "watching@127.0.0.1"));
            Ok(())
        },
    );
}

#[test]
fn a_sick_api_server_disconnects_nobody() {
    case(
        Case::Full,
        TOPIC,
        "403, 500, a stale token, silence, cut and flapping answers of the Kubernetes API disconnect nobody",
        |release| {
            let epmd = Epmd::start(release);
            let beam = Beam::visible(release, &epmd, "web");
            let api = Api::start();
            api.state().unwatched = true;
            api.state().fault = Some(Fault::Status(403));
            api.put("web-0", r#","uid":"u1""#, &ready("127.0.0.1"));
            let text = api.cluster("polling_interval = 100\nrequest_timeout = 1000");
            let node = start(&epmd, "polling", &text);
            let line = node.logs(&["no answer; what it said before stands", "pods is forbidden"]);
            assert!(line.contains("needs the verbs list and watch for pods"), "{line}");
            api.state().fault = None;
            eventually_true("it is found once it may be asked", WAIT, || {
                connected(&beam, "polling@127.0.0.1")
            });
            count_downs(&beam);
            let count = |words: &str| node.log().matches(words).count();
            let suffers = |what: &dyn std::fmt::Debug, begin: &dyn Fn(), end: &dyn Fn()| {
                for (change, words) in [(begin, "what it said before stands"), (end, "answers again")] {
                    let before = count(words);
                    change();
                    eventually_true(&format!("{what:?}: {words}"), WAIT * 2, || count(words) > before);
                }
                assert!(connected(&beam, "polling@127.0.0.1"), "{what:?}: {}", node.log());
            };
            for fault in [Fault::Status(403), Fault::Status(500), Fault::Silence, Fault::Cut, Fault::Html] {
                suffers(&fault, &|| api.state().fault = Some(fault), &|| api.state().fault = None);
            }
            // Rotated, and the file comes later.
            suffers(&"rotation", &|| api.state().token = "second".into(), &|| {
                api.pki.write("token", "second")
            });
            let authorities = std::fs::read_to_string(api.pki.directory.join("ca.crt")).unwrap();
            let other = std::fs::read_to_string(Pki::new().directory.join("ca.pem")).unwrap();
            suffers(&"another CA", &|| api.pki.write("ca.crt", &other), &|| {
                api.pki.write("ca.crt", &authorities)
            });
            node.logs(&["reason=", "certificate is not accepted"]);
            // Now and then a list without the pod.
            let lists = || api.asked("limit=500");
            for _ in 0..4 {
                let pods = std::mem::take(&mut api.state().pods);
                let before = lists();
                eventually_true("an empty list is taken", WAIT, || lists() > before + 1);
                api.state().pods = pods;
                let before = lists();
                eventually_true("a full list is taken", WAIT, || lists() > before + 1);
            }
            assert!(connected(&beam, "polling@127.0.0.1"));
            assert_eq!(downs(&beam), "0", "{}", node.log());
            // What may not be watched is not asked for at every turn.
            assert!(api.asked("watch=1") < 5, "{:?}", api.state().requests);
            Ok(())
        },
    );
}

/// `foundation` with the files of `directory` where a pod has those of its service account, in a mount namespace.
fn in_a_pod(directory: &str) -> Result<Vec<String>, Unsupported> {
    let root =
        std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0);
    let flags = if root { "-m" } else { "-Urm" };
    let script = format!(
        "mount -t tmpfs tmpfs /run && mkdir -p /run/secrets/kubernetes.io && \
         ln -s {directory} /run/secrets/kubernetes.io/serviceaccount && exec \"$0\" \"$@\""
    );
    let works =
        std::process::Command::new("unshare").args([flags, "mount", "-t", "tmpfs", "tmpfs", "/run"]).status();
    if !works.is_ok_and(|status| status.success()) {
        return Err(Unsupported("this kernel gives no mount namespaces (unshare -Urm)"));
    }
    Ok(["unshare", flags, "sh", "-c", &script].map(str::to_owned).to_vec())
}

#[test]
fn two_variables_are_enough_in_a_pod() {
    let body = |release: &Release| {
        let epmd = Epmd::start(release);
        let api = Api::start();
        api.put("web-0", r#","uid":"u0""#, &ready("127.0.0.2"));
        let command = in_a_pod(&api.directory())?;
        let port = api.port.to_string();
        let pod = [
            ("KUBERNETES_SERVICE_HOST", "127.0.0.1"),
            ("KUBERNETES_SERVICE_PORT", port.as_str()),
            ("POD_IP", "127.0.0.2"),
            ("FOUNDATION_APP_NAME", "web"),
        ];
        let told = [&pod[..], &[("FOUNDATION_CLUSTER", "kubernetes")]].concat();
        let told = Started::unnamed(&command, epmd.port, "told", &[], &told);
        told.logs(&["node started", "name=web@127.0.0.2"]);
        told.logs(&["discovery: kubernetes: written in the configuration"]);
        eventually_true("the pods of app=web are asked for", WAIT, || api.asked("app%3Dweb&watch=1") == 1);
        drop(told);
        let found = Started::unnamed(&command, epmd.port, "found", &[], &pod);
        found.logs(&["discovery: kubernetes (service account found, namespace prod)"]);
        found.logs(&["node started", "name=web@127.0.0.2"]);
        eventually_true("again", WAIT, || api.asked("app%3Dweb&watch=1") == 2);
        // A node that knows nobody else, and whose own pod is no stranger to it.
        assert!(!found.log().contains("unable to connect"), "{}", found.log());
        Ok(())
    };
    case(
        Case::Full,
        TOPIC,
        "in a pod FOUNDATION_CLUSTER=kubernetes and FOUNDATION_APP_NAME say all: selector, names, server, account",
        body,
    );
}

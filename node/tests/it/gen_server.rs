//! Servers and calls to them.

use std::collections::BTreeMap;
use std::time::Duration;

use foundation_node::error::Error;
use foundation_node::gen_server::{CallFrom, CallOutcome, GenServer, Never, Next};
use foundation_node::process::{Message, Process, Reason};
use foundation_proto::etf::Term;

use crate::support::{DEADLINE, assert_empty, eventually, lonely, recv_down};

/// A number that can be asked for, added to and held back.
#[derive(Default)]
pub(crate) struct Counter {
    value: i64,
    held: Vec<CallFrom>,
}

impl GenServer for Counter {
    type Call = Term;
    type Reply = Term;
    type Cast = i64;

    async fn handle_call(
        &mut self,
        request: Term,
        from: CallFrom,
        _process: &mut Process,
    ) -> CallOutcome<Term> {
        match request.as_atom().map(|atom| atom.as_str()) {
            Some("get") => CallOutcome::Reply(Term::Integer(self.value)),
            Some("hold") => {
                self.held.push(from);
                CallOutcome::NoReply
            }
            Some("stop") => CallOutcome::StopWithReply(Reason::NORMAL, Term::atom("bye")),
            Some("crash") => CallOutcome::Stop(Reason::from("crashed")),
            _ => CallOutcome::Reply(request),
        }
    }

    async fn handle_cast(&mut self, message: i64, process: &mut Process) -> Next {
        self.value += message;
        for from in self.held.drain(..) {
            from.reply(process, Term::Integer(self.value)).await.unwrap();
        }
        Next::Continue
    }

    async fn handle_info(&mut self, message: Message, _process: &mut Process) -> Next {
        drop(message);
        self.value = -1;
        Next::Continue
    }

    fn state(&self) -> Term {
        Term::Integer(self.value)
    }
}

#[tokio::test]
async fn calls_casts_and_late_answers() {
    let node = lonely().await;
    let server = node.start_server(Some("counter"), Counter::default()).unwrap();
    let mut client = node.process().unwrap();
    client.cast("counter", Term::Integer(5)).await.unwrap();
    assert_eq!(client.call("counter", Term::atom("get"), DEADLINE).await.unwrap(), Term::Integer(5));
    let request = Term::from((Term::atom("echo"), Term::from("x")));
    assert_eq!(client.call(server.pid(), request.clone(), DEADLINE).await.unwrap(), request);

    let held = client.call("counter", Term::atom("hold"), Duration::from_millis(5)).await;
    assert!(matches!(held, Err(Error::Timeout)), "{held:?}");
    client.cast("counter", Term::Integer(1)).await.unwrap();
    assert_eq!(client.call("counter", Term::atom("get"), DEADLINE).await.unwrap(), Term::Integer(6));
    assert_empty(&mut client).await;

    // Many at once, through one process.
    let calls = (0..100).map(|n| {
        let client = client.handle();
        tokio::spawn(async move { client.call("counter", Term::Integer(n), DEADLINE).await.unwrap() })
    });
    for (n, call) in calls.collect::<Vec<_>>().into_iter().enumerate() {
        assert_eq!(call.await.unwrap(), Term::from(n));
    }
    // A wrong cast is not the end, an ordinary message is handled.
    client.cast("counter", Term::atom("not_a_number")).await.unwrap();
    client.send_term("counter", &Term::atom("info")).await.unwrap();
    assert_eq!(client.call("counter", Term::atom("get"), DEADLINE).await.unwrap(), Term::Integer(-1));
}

#[tokio::test]
async fn a_call_learns_how_the_server_ended() {
    let node = lonely().await;
    let client = node.process().unwrap();
    let nobody = client.call("counter", Term::atom("get"), DEADLINE).await;
    assert!(matches!(nobody, Err(Error::NoProc)), "{nobody:?}");
    node.start_server(Some("counter"), Counter::default()).unwrap();
    let crashed = client.call("counter", Term::atom("crash"), DEADLINE).await;
    assert!(
        matches!(&crashed, Err(Error::Exit(reason)) if *reason == Reason::from("crashed")),
        "{crashed:?}"
    );
    node.start_server(Some("counter"), Counter::default()).unwrap();
    assert_eq!(client.call("counter", Term::atom("stop"), DEADLINE).await.unwrap(), Term::atom("bye"));
}

#[tokio::test]
async fn system_messages_are_answered() {
    let node = lonely().await;
    let server = node.start_server(Some("counter"), Counter::default()).unwrap();
    let mut client = node.process().unwrap();
    client.monitor(server.pid()).await.unwrap();
    client.cast("counter", Term::Integer(2)).await.unwrap();
    let ask = async |request: Term| client.system_call("counter", request, DEADLINE).await.unwrap();
    // As OTP before 26.1: the aliases of this node have three words.
    assert_eq!(ask(Term::atom("get_state")).await, Term::Integer(2));
    assert_eq!(ask(Term::atom("suspend")).await, Term::atom("ok"));
    let suspended = client.call("counter", Term::atom("get"), Duration::from_millis(5)).await;
    assert!(matches!(suspended, Err(Error::Timeout)), "{suspended:?}");
    let status = ask(Term::atom("get_status")).await;
    assert!(
        matches!(status.as_tuple(), Some([label, Term::Pid(_), _, Term::List(_)]) if label.is_atom("status"))
    );
    assert_eq!(ask(Term::atom("resume")).await, Term::atom("ok"));
    assert_eq!(client.call("counter", Term::atom("get"), DEADLINE).await.unwrap(), Term::Integer(2));
    client.stop_server("counter", "shutdown", DEADLINE).await.unwrap();
    assert_eq!(recv_down(&mut client).await.reason, Reason::SHUTDOWN);
}

#[tokio::test]
async fn functions_of_the_own_node_are_called_the_same_way() {
    let node = lonely().await;
    node.export("lists_rs", "sum", 1, |args| async move {
        let Some([Term::List(numbers)]) = args.get(..1) else {
            return Err(foundation_node::error::Raised::badarg("lists_rs", "sum", args));
        };
        Ok(Term::Integer(numbers.iter().filter_map(Term::as_i64).sum()))
    });
    let list = Term::list([1, 2, 3].map(Term::Integer));
    let sum = node.erpc(node.name(), "lists_rs", "sum", vec![list], DEADLINE).await.unwrap();
    assert_eq!(sum, Term::Integer(6));
    let undef = node.rpc(node.name(), "lists_rs", "product", vec![], DEADLINE).await.unwrap();
    let at = (Term::atom("lists_rs"), Term::atom("product"), Term::list([]), Term::list([]));
    let reason = Term::from((Term::atom("undef"), Term::list([Term::from(at)])));
    assert_eq!(undef, Term::from((Term::atom("badrpc"), Term::from((Term::atom("EXIT"), reason)))));
}

/// `{put, Key, Value}`, `{get, Key}`.
#[derive(Debug, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum Request {
    Put(String, Vec<u8>),
    Get(String),
}

#[derive(Default)]
struct Store(BTreeMap<String, Vec<u8>>);

impl GenServer for Store {
    type Call = Request;
    type Reply = Option<Vec<u8>>;
    type Cast = Never;

    async fn handle_call(
        &mut self,
        request: Request,
        _from: CallFrom,
        _process: &mut Process,
    ) -> CallOutcome<Option<Vec<u8>>> {
        CallOutcome::Reply(match request {
            Request::Put(key, value) => self.0.insert(key, value),
            Request::Get(key) => self.0.get(&key).cloned(),
        })
    }
}

#[tokio::test]
async fn requests_and_answers_are_values() {
    let node = lonely().await;
    node.start_server(Some("store"), Store::default()).unwrap();
    let put = Request::Put("a".into(), vec![1, 2]);
    let old: Option<Vec<u8>> = node.call_as("store", &put, DEADLINE).await.unwrap();
    assert_eq!(old, None);
    let new: Option<Vec<u8>> = node.call_as("store", Request::Get("a".into()), DEADLINE).await.unwrap();
    assert_eq!(new, Some(vec![1, 2]));
    // As a peer would see it.
    let raw = Term::from((Term::atom("get"), Term::from("b")));
    assert_eq!(node.call("store", raw, DEADLINE).await.unwrap(), Term::atom("nil"));
    let wrong = node.call_as::<bool>("store", Request::Get("a".into()), DEADLINE).await;
    assert!(matches!(wrong, Err(Error::Value(_))), "{wrong:?}");
    // What the server does not know it says, and lives on.
    let unknown = node.call("store", Term::atom("bogus"), DEADLINE).await.unwrap();
    assert!(matches!(unknown.as_tuple(), Some([error, _]) if error.is_atom("error")), "{unknown:?}");
    node.cast("store", 1).await.unwrap();
    assert_eq!(node.call("store", Request::Get("b".into()), DEADLINE).await.unwrap(), Term::atom("nil"));
}

#[tokio::test]
async fn what_every_node_answers_to_comes_back_when_it_is_killed() {
    let node = lonely().await;
    for name in ["rex", "net_kernel", "user", "logger_proxy"] {
        let old = node.whereis(name).unwrap();
        node.exit(&old, "kill").await;
        eventually(name, || node.whereis(name).is_some_and(|new| new != old)).await;
    }
    let request = Term::from((Term::atom("is_auth"), Term::from(node.name())));
    assert_eq!(node.call("net_kernel", request, DEADLINE).await.unwrap(), Term::atom("yes"));
}

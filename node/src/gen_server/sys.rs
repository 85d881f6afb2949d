//! System messages (stdlib's `sys`): what every OTP process answers, whatever it does.

use foundation_proto::etf::Term;

use super::{CallFrom, GenServer, Incoming, Never, Next, sent};
use crate::process::{Message, Process, Reason};

/// Handles one `{system, CallFrom, Request}`.
pub(super) async fn handle<S: GenServer>(
    server: &mut S,
    from: CallFrom,
    request: Term,
    process: &mut Process,
) -> Next {
    match step(server, from, request, process, false).await {
        Step::Suspend => suspended(server, process).await,
        Step::Resume | Step::Continue => Next::Continue,
        Step::Stop(reason) => Next::Stop(reason),
    }
}

enum Step {
    Continue,
    Suspend,
    Resume,
    Stop(Reason),
}

/// While it is suspended a process handles system messages only; everything else waits in the mailbox.
async fn suspended<S: GenServer>(server: &mut S, process: &mut Process) -> Next {
    let parent = process.parent();
    loop {
        let is_system = |message: &Message| match message {
            Message::Exit(exit) => parent.as_ref() == Some(&exit.from),
            message => matches!(Incoming::<Never, Never>::read(message.clone()), Incoming::System(..)),
        };
        let message = match process.recv_match(is_system).await {
            Ok(message) => message,
            Err(error) => return Next::Stop(Reason::from(error)),
        };
        let step = match Incoming::<Never, Never>::read(message) {
            Incoming::System(from, request) => step(server, from, request, process, true).await,
            Incoming::Info(Message::Exit(exit)) => Step::Stop(exit.reason),
            _ => Step::Continue,
        };
        match step {
            Step::Resume => return Next::Continue,
            Step::Stop(reason) => return Next::Stop(reason),
            Step::Continue | Step::Suspend => {}
        }
    }
}

async fn step<S: GenServer>(
    server: &mut S,
    from: CallFrom,
    request: Term,
    process: &mut Process,
    suspended: bool,
) -> Step {
    let ok = || Term::atom("ok");
    let (reply, step) = match &request {
        Term::Atom(request) => match request.as_str() {
            // Since OTP 26.1 `sys` expects `{ok, State}`, before that the state itself.
            "get_state" if from.is_otp_26() => (Term::from((ok(), server.state())), Step::Continue),
            "get_state" => (server.state(), Step::Continue),
            "get_status" => (status(server, process, suspended), Step::Continue),
            "suspend" => (ok(), Step::Suspend),
            "resume" => (ok(), Step::Resume),
            _ => (unknown(&Term::Atom(request.clone())), Step::Continue),
        },
        Term::Tuple(parts) => match &parts[..] {
            [label, reason] if label.is_atom("terminate") => (ok(), Step::Stop(Reason::from(reason.clone()))),
            // The new state comes as a fun, and only a BEAM that has its module can call that.
            [label, _] if label.is_atom("replace_state") => {
                let why = Term::from((Term::atom("error"), Term::atom("undef")));
                let failed = (
                    Term::atom("callback_failed"),
                    Term::from((Term::atom("sys"), Term::atom("replace_state"))),
                    why,
                );
                (Term::from((Term::atom("error"), Term::from(failed))), Step::Continue)
            }
            [label, _] if label.is_atom("debug") => (ok(), Step::Continue),
            _ => (unknown(&request), Step::Continue),
        },
        _ => (unknown(&request), Step::Continue),
    };
    sent(from.reply(process, reply).await);
    step
}

/// `{error, {unknown_system_msg, Request}}`, as `sys` answers.
fn unknown(request: &Term) -> Term {
    Term::from((Term::atom("error"), Term::from((Term::atom("unknown_system_msg"), request.clone()))))
}

/// `{status, Pid, {module, Module}, [PDict, SysState, Parent, Debug, Misc]}`.
fn status<S: GenServer>(server: &S, process: &Process, suspended: bool) -> Term {
    let parent = process.parent().unwrap_or_else(|| process.pid().clone());
    let name = process.registered_name().map_or_else(|| Term::from(process.pid()), Term::Atom);
    let misc = Term::list([
        Term::from((Term::atom("header"), Term::from(("Status for foundation server", name)))),
        Term::from((Term::atom("data"), Term::list([Term::from(("State", server.state()))]))),
    ]);
    let details = Term::list([
        Term::list([]),
        Term::atom(if suspended { "suspended" } else { "running" }),
        Term::Pid(parent),
        Term::list([]),
        misc,
    ]);
    let module = Term::from((Term::atom("module"), Term::atom("gen_server")));
    Term::from((Term::atom("status"), Term::from(process.pid()), module, details))
}

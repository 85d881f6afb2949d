//! What is asked of another node: `ping`, `rpc`, `call`, `cast`, `send`, `nodes`, `stop`, `pid`.

use std::time::Duration;

use foundation_node::error::{Class, Error, Raised};
use foundation_node::net_kernel::NodeType;
use foundation_proto::etf::text::Call;
use foundation_proto::etf::{Atom, Term, text};

use super::args::{Command, Message, Options};
use super::exit::{self, Failure};
use super::session::Session;
use super::terms;

/// How long a node that was told to stop may take to end its connections.
const STOPPED: Duration = Duration::from_secs(30);

/// Runs a command against another node.
pub(crate) async fn run(command: &Command, options: &Options) -> Result<u8, Failure> {
    match command {
        Command::Rpc { node, call } => {
            let call = read_call(call, options)?;
            let session = Session::open(Some(node), options).await?;
            let result = rpc(&session, call).await;
            finish(session, result, options).await
        }
        Command::Call { message } => {
            let (name, term) = read_message(message, options)?;
            let session = Session::open(Some(&message.node), options).await?;
            let result = session
                .node
                .call((name.clone(), session.target.clone()), term, session.timeout)
                .await
                .map_err(|error| failure(&error, &session, &format!("calling {}", name.as_str())));
            finish(session, result, options).await
        }
        Command::Cast { message } => {
            let (name, term) = read_message(message, options)?;
            let session = Session::open(Some(&message.node), options).await?;
            let to = (name, session.target.clone());
            let result =
                session.node.cast(to, term).await.map_err(|error| failure(&error, &session, "casting"));
            leave(session, result).await
        }
        Command::Send { message } => {
            let (name, term) = read_message(message, options)?;
            let session = Session::open(Some(&message.node), options).await?;
            let to = (name, session.target.clone());
            let result =
                session.node.send_term(to, &term).await.map_err(|error| failure(&error, &session, "sending"));
            leave(session, result).await
        }
        Command::Ping { target } => ping(target.name(), options).await,
        Command::Nodes { target } => {
            let session = Session::open(target.name(), options).await?;
            let connected = Term::Atom(Atom::new_static("connected"));
            let result =
                rpc(&session, function("erlang", "nodes", vec![connected])).await.map(|nodes| match nodes {
                    // This command is itself a node that is connected.
                    Term::List(nodes) => Term::List(
                        nodes
                            .into_vec()
                            .into_iter()
                            .filter(|node| !matches!(node, Term::Atom(name) if name == session.node.name()))
                            .collect(),
                    ),
                    other => other,
                });
            finish(session, result, options).await
        }
        Command::Pid { target } => {
            let session = Session::open(target.name(), options).await?;
            match rpc(&session, function("os", "getpid", Vec::new())).await {
                Ok(Term::List(digits)) => {
                    let text = digits.iter().filter_map(|digit| match digit {
                        Term::Integer(digit) => u8::try_from(*digit).ok().map(char::from),
                        _ => None,
                    });
                    terms::line(&text.collect::<String>());
                    leave(session, Ok(())).await
                }
                result => finish(session, result, options).await,
            }
        }
        Command::Stop { target } => {
            let session = Session::open(target.name(), options).await?;
            let result = stop(&session).await;
            leave(session, result).await
        }
        Command::Start
        | Command::Epmd(_)
        | Command::Names { .. }
        | Command::Version
        | Command::Completions { .. }
        | Command::Man { .. }
        | Command::Subscribe { .. }
        | Command::Broadcast { .. }
        | Command::Groups { .. }
        | Command::Companion
        | Command::Discover(_)
        | Command::Doctor { .. }
        | Command::Config { .. }
        | Command::Horde { .. }
        | Command::Registry { .. }
        | Command::Singleton { .. }
        | Command::Services { .. }
        | Command::Channels { .. } => Err(Failure::Usage("not a command for another node".to_owned())),
    }
}

/// Prints a result and leaves.
async fn finish(session: Session, result: Result<Term, Failure>, options: &Options) -> Result<u8, Failure> {
    let result = result.map(|term| terms::print(&term, options.format, session.node.name()));
    leave(session, result).await
}

pub(super) async fn leave(session: Session, result: Result<(), Failure>) -> Result<u8, Failure> {
    session.close().await;
    result.map(|()| exit::OK)
}

/// `pong` or `pang`, as `net_adm:ping/1` says it; on `pang` the standard error says why.
async fn ping(target: Option<&str>, options: &Options) -> Result<u8, Failure> {
    let session = match Session::open(target, options).await {
        Ok(session) => session,
        Err(failure @ (Failure::Connect { .. } | Failure::Timeout(_))) => {
            terms::line("pang");
            return Err(failure);
        }
        Err(failure) => return Err(failure),
    };
    let request = Term::Tuple(
        [Term::Atom(Atom::new_static("is_auth")), Term::Atom(session.node.name().clone())]
            .into_iter()
            .collect(),
    );
    let to = (Atom::new_static("net_kernel"), session.target.clone());
    let result = match session.node.call(to, request, session.timeout).await {
        Ok(Term::Atom(yes)) if yes == "yes" => {
            terms::line("pong");
            Ok(())
        }
        Ok(_) => {
            terms::line("pang");
            Err(Failure::Remote(
                "foundation: the node does not accept this one (net_kernel: is_auth)".to_owned(),
            ))
        }
        Err(error) => {
            terms::line("pang");
            Err(failure(&error, &session, "asking net_kernel"))
        }
    };
    leave(session, result).await
}

/// `init:stop/0`, and the wait until the node is gone.
async fn stop(session: &Session) -> Result<(), Failure> {
    let mut events = session.node.events();
    match rpc(session, function("init", "stop", Vec::new())).await {
        // It was faster than its answer.
        Ok(_) | Err(Failure::Unreachable(_)) => {}
        Err(failure) => return Err(failure),
    }
    if session.node.nodes(NodeType::Connected).is_empty() {
        return Ok(());
    }
    let gone = async {
        while let Some(event) = events.next().await {
            if matches!(event, foundation_node::event::Event::NodeDown { .. }) {
                return;
            }
        }
    };
    if tokio::time::timeout(STOPPED.max(session.timeout), gone).await.is_err() {
        return Err(Failure::Timeout(format!(
            "{} accepted to stop and is still up",
            session.target.as_str()
        )));
    }
    Ok(())
}

pub(super) async fn rpc(session: &Session, call: Call) -> Result<Term, Failure> {
    let Call { module, function, arguments } = call;
    let what = format!("{}:{}/{}", module.as_str(), function.as_str(), arguments.len());
    session
        .node
        .erpc(&session.target, module.as_str(), function.as_str(), arguments, session.timeout)
        .await
        .map_err(|error| failure(&error, session, &what))
}

pub(super) fn function(module: &'static str, function: &'static str, arguments: Vec<Term>) -> Call {
    Call { module: Atom::new_static(module), function: Atom::new_static(function), arguments }
}

/// `'lists:seq(1, 5)'`, `':lists.seq(1, 5)'`, or `lists seq 1 5`.
fn read_call(words: &[String], options: &Options) -> Result<Call, Failure> {
    match words {
        [call] => terms::parse_call(call, options.format),
        [module, function, arguments @ ..] => Ok(Call {
            module: terms::name(module)?,
            function: terms::name(function)?,
            arguments: arguments
                .iter()
                .map(|argument| terms::parse(argument, options.format))
                .collect::<Result<_, _>>()?,
        }),
        [] => Err(Failure::Usage("no call given".to_owned())),
    }
}

fn read_message(message: &Message, options: &Options) -> Result<(Atom, Term), Failure> {
    Ok((terms::name(&message.name)?, terms::parse(&message.term, options.format)?))
}

/// What went wrong, in the words of the Erlang shell where it has some.
pub(super) fn failure(error: &Error, session: &Session, doing: &str) -> Failure {
    let target = session.target.as_str();
    match error {
        Error::Raised(raised) => Failure::Remote(exception(raised)),
        Error::Exit(reason) => Failure::Remote(format!(
            "** exception exit: {}",
            match reason.to_term(&foundation_proto::Limits::default()) {
                Ok(term) => text::Printer::new().print(&term),
                Err(error) => error.to_string(),
            }
        )),
        Error::NoProc => Failure::Remote(format!(
            "** exception exit: noproc\n{doing}: there is no such process on {target}"
        )),
        Error::NoConnection { .. } => {
            Failure::Unreachable(format!("{doing}: the connection to {target} was lost: {error}"))
        }
        Error::Timeout => Failure::Timeout(format!(
            "{doing}: no answer from {target} within {:?} (--timeout SECONDS)",
            session.timeout
        )),
        Error::Spawn(reason) if reason == "notsup" => {
            Failure::Remote(format!("{doing}: {target} does not run functions for other nodes (notsup)"))
        }
        other => Failure::Remote(format!("{doing} on {target}: {other}")),
    }
}

/// An exception as the Erlang shell shows it.
fn exception(raised: &Raised) -> String {
    let print = |term: &Term| text::Printer::new().print(term);
    let class = match raised.class {
        Class::Error => "error",
        Class::Exit => "exit",
        Class::Throw => "throw",
    };
    let mut shown = match undefined(raised) {
        Some(function) => format!("** exception error: undefined function {function}"),
        None => format!("** exception {class}: {}", print(&raised.reason)),
    };
    if let Term::List(frames) = &raised.stack {
        for frame in frames.iter() {
            shown.push_str("\n     in ");
            shown.push_str(&text::Printer::new().line_length(0).print(frame));
        }
    }
    shown
}

/// `module:function/arity`, if that is what does not exist.
fn undefined(raised: &Raised) -> Option<String> {
    if !matches!(&raised.reason, Term::Atom(reason) if reason == "undef") {
        return None;
    }
    let Term::List(frames) = &raised.stack else { return None };
    let Term::Tuple(frame) = frames.first()? else { return None };
    let [Term::Atom(module), Term::Atom(function), arguments, ..] = &**frame else { return None };
    let arity = match arguments {
        Term::List(arguments) => i64::try_from(arguments.len()).ok()?,
        Term::Integer(arity) => *arity,
        _ => return None,
    };
    let name = |atom: &Atom| text::write(&Term::Atom(atom.clone()));
    Some(format!("{}:{}/{arity}", name(module), name(function)))
}

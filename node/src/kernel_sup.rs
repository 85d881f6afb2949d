//! The processes that every node has under kernel's names, because other nodes ask for them unasked.

use std::sync::Arc;

use foundation_proto::etf::{Atom, Reference, Term};

use crate::error::Result;
use crate::gen_server::{CallFrom, Incoming};
use crate::node::NodeInner;
use crate::process::{Entry, Message, Monitored, Process, SpawnOptions};
use crate::rpc::{apply, exit_reason};
use crate::service::global;
use crate::{io, rpc};

/// A process that is started with the node, and again whenever it ends.
#[derive(Clone, Copy, Debug)]
enum Child {
    /// Prints for those who have no other group leader.
    User,
    /// Answers `rpc`.
    Rex,
    /// Answers `net_adm:ping/1`.
    NetKernel,
    /// Takes the log events of processes whose group leader is of this node.
    LoggerProxy,
    /// Shares names and locks with visible peers.
    GlobalNameServer,
}

impl Child {
    fn name(self) -> Atom {
        Atom::new_static(match self {
            Self::User => "user",
            Self::Rex => "rex",
            Self::NetKernel => "net_kernel",
            Self::LoggerProxy => "logger_proxy",
            Self::GlobalNameServer => "global_name_server",
        })
    }

    async fn serve(self, mut process: Process) -> Result<()> {
        if let Self::GlobalNameServer = self {
            return global::serve(process).await;
        }
        loop {
            let message = process.recv().await?;
            if let Err(error) = self.handle(message, &process).await {
                tracing::debug!(%error, name = self.name().as_str(), "an answer was not sent");
            }
        }
    }

    async fn handle(self, message: Message, process: &Process) -> Result<()> {
        match self {
            Self::User => io::user(message, process).await,
            Self::Rex => rpc::rex(message, process).await,
            Self::NetKernel => net_kernel(message, process).await,
            Self::LoggerProxy => {
                io::log(&message, process);
                Ok(())
            }
            Self::GlobalNameServer => Ok(()),
        }
    }

    /// Starts it, watched by the supervisor.
    fn start(self, supervisor: &Process) -> Result<Reference> {
        let node = &supervisor.node;
        let options = SpawnOptions::default().trap_exit().group_leader(node.default_group_leader());
        let proc = node.new_proc(Some(&supervisor.proc), &options)?;
        let handle = node.handle(&proc);
        handle.register(self.name())?;
        match self {
            Self::User => node.set_default_group_leader(proc.pid.clone()),
            Self::GlobalNameServer => node.services.global.prepare(&proc.pid, &node.config),
            _ => {}
        }
        let object = Monitored::Pid(proc.pid.clone());
        let (_, monitor) = node.monitor_local(&supervisor.proc, &object, Entry::default())?;
        node.run(&proc, move |process| self.serve(process));
        Ok(monitor)
    }
}

/// Starts them all, before anybody can connect.
pub(crate) fn start(node: &Arc<NodeInner>) {
    let system = node.system();
    let Ok(proc) = node.new_proc(Some(&system), &SpawnOptions::default().trap_exit()) else { return };
    let supervisor = Process::run_by_task(Arc::clone(node), Arc::clone(&proc));
    let mut children = vec![Child::User, Child::Rex, Child::NetKernel, Child::LoggerProxy];
    if !node.config.hidden {
        children.push(Child::GlobalNameServer);
    }
    let children: Vec<(Child, Option<Reference>)> =
        children.into_iter().map(|child| (child, child.start(&supervisor).ok())).collect();
    node.run(&proc, move |_| supervise(supervisor, children));
}

/// Starts each again that ends: a peer may kill them, or send more than their mailboxes hold.
async fn supervise(mut supervisor: Process, mut children: Vec<(Child, Option<Reference>)>) -> Result<()> {
    loop {
        let Message::Down(down) = supervisor.recv().await? else { continue };
        for (child, monitor) in &mut children {
            if monitor.as_ref() == Some(&down.reference) {
                tracing::warn!(name = child.name().as_str(), reason = %down.reason, "started again");
                *monitor = child.start(&supervisor).ok();
            }
        }
    }
}

/// What is asked of every node's `net_kernel`.
async fn net_kernel(message: Message, process: &Process) -> Result<()> {
    let Incoming::<Term, Term>::Call(from, Ok(request)) = Incoming::read(message) else { return Ok(()) };
    let Some(elements) = request.as_tuple() else { return Ok(()) };
    match elements {
        // `net_adm:ping/1`: whoever got here has proved the cookie.
        [what, _] if what.is_atom("is_auth") => from.reply(process, Term::atom("yes")).await,
        // How OTP 23 spawns on peers without SPAWN.
        [what, Term::Atom(module), Term::Atom(function), Term::List(args), leader]
            if what.is_atom("spawn") =>
        {
            let pid = spawn_for(process, &from, module, function, args.to_vec(), leader, false)?;
            from.reply(process, pid).await
        }
        [what, Term::Atom(module), Term::Atom(function), Term::List(args), leader]
            if what.is_atom("spawn_link") =>
        {
            let pid = spawn_for(process, &from, module, function, args.to_vec(), leader, true)?;
            from.reply(process, pid).await
        }
        [what, Term::Atom(module), Term::Atom(function), Term::List(args), _, link, leader]
            if what.is_atom("spawn_opt") =>
        {
            let pid =
                spawn_for(process, &from, module, function, args.to_vec(), leader, link.is_atom("link"))?;
            from.reply(process, pid).await
        }
        _ => Ok(()),
    }
}

fn spawn_for(
    process: &Process,
    from: &CallFrom,
    module: &Atom,
    function: &Atom,
    args: Vec<Term>,
    leader: &Term,
    link: bool,
) -> Result<Term> {
    let leader = leader.as_pid().unwrap_or(&from.pid).clone();
    let start = SpawnOptions::default().group_leader(leader);
    let (module, function) = (module.clone(), function.clone());
    let caller = from.pid.clone();
    let child = process.spawn_opt(&start, move |child: Process| async move {
        if link {
            child.link(&caller).await;
        }
        exit_reason(apply(child, module, function, args).await)
    })?;
    Ok(Term::from(child.pid()))
}

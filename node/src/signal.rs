//! What a signal of a peer does to the processes of this node.
//!
//! Every signal that must be answered is answered, whatever has become of its target: a `MONITOR_P` of nobody fires with
//! `noproc`, a `LINK` to nobody exits with `noproc`, an `UNLINK_ID` is acknowledged, a `SPAWN_REQUEST` gets its reply. A BEAM
//! process would wait for ever otherwise. Identifiers of an earlier incarnation of this node are nobody's.
//!
//! The reader of a connection calls these functions itself; none of them waits for anything.

mod batch;

use std::sync::Arc;

use foundation_proto::dist::control::{altact, spawn_reply};
use foundation_proto::dist::{ControlMessage, Destination, Lane, LaneClass, Signal, Target};
use foundation_proto::error::PeerMisbehaved;
use foundation_proto::etf::{Atom, Pid, RawTerm, Reference};
use foundation_proto::{Error, Result};

use crate::event::Event;
use crate::net::{DownReason, Link};
use crate::node::NodeInner;
use crate::process::{
    AddError, ExitKind, Monitor, Reason, SeqTraceToken, Watcher, WatcherKind, lane_of, transmit,
};

pub(crate) use batch::deliver_all;

/// The connection is set up. Called once, before anything is delivered through it, and after [`down`] of the connection
/// to the same node before it.
pub(crate) fn up(node: &NodeInner, link: &Arc<Link>) {
    let peer = link.peer();
    node.events.publish(Event::NodeUp {
        node: peer.name.clone(),
        hidden: peer.hidden,
        creation: peer.creation,
    });
}

/// The connection is gone: everything across it fires, once. Called once.
pub(crate) fn down(node: &NodeInner, link: &Arc<Link>, reason: &DownReason) {
    for number in link.mld().close() {
        if let Some(proc) = node.processes.get(number)
            && let Some(death) = node.connection_lost(&proc, link)
        {
            node.exit(&proc, death);
        }
    }
    node.statistics.link_down(link);
    let peer = link.peer();
    node.events.publish(Event::NodeDown {
        node: peer.name.clone(),
        hidden: peer.hidden,
        reason: reason.clone(),
    });
}

/// Carries out one signal. Called in the order of arrival.
///
/// # Errors
/// If the peer has no right to send this; the connection has to be closed.
pub(crate) fn deliver(node: &Arc<NodeInner>, link: &Arc<Link>, signal: Signal) -> Result<()> {
    let payload = signal.payload;
    let token = signal.token.as_ref().and_then(SeqTraceToken::from_raw);
    match signal.control {
        ControlMessage::Send { to, .. } => {
            message(node, link, Destination::Pid(to), need(payload, "SEND")?, false, token);
        }
        ControlMessage::RegSend { to, .. } => {
            message(node, link, Destination::Name(to), need(payload, "REG_SEND")?, false, token);
        }
        ControlMessage::AliasSend { alias, .. } => {
            message(node, link, Destination::Alias(alias), need(payload, "ALIAS_SEND")?, false, token);
        }
        ControlMessage::Altact { flags, from, to } => {
            let payload = need(payload, "ALTACT_SIG_SEND")?;
            // It counts only for aliases that were made to accept it: that is OTP's rule.
            let priority = flags & altact::PRIORITY != 0;
            if flags & altact::EXIT == 0 {
                message(node, link, to, payload, priority, token);
            } else {
                exit2_to(node, &from, to, payload, priority);
            }
        }
        ControlMessage::Link { from, to } => {
            of_peer(link, &from, "LINK")?;
            link_received(node, link, from, to)?;
        }
        ControlMessage::Unlink { from, to } => {
            of_peer(link, &from, "UNLINK")?;
            unlink_received(node, link, &from, &to);
        }
        ControlMessage::UnlinkId { id, from, to } => {
            of_peer(link, &from, "UNLINK_ID")?;
            unlink_id_received(node, link, id, &from, &to);
        }
        ControlMessage::UnlinkIdAck { id, from, to } => {
            if let Some(proc) = node.process(&to)
                && let Some(mut state) = proc.alive()
                && state.links.unlink_ack_received(&from, id)
            {
                link.mld().remove(proc.number);
            }
        }
        ControlMessage::Exit { from, to } => {
            let reason = Reason::from_raw(need(payload, "EXIT")?);
            exit_received(node, link, &from, &to, &reason)?;
        }
        ControlMessage::Exit2 { from, to } => {
            exit2_to(node, &from, Destination::Pid(to), need(payload, "EXIT2")?, false);
        }
        ControlMessage::MonitorP { watcher, target, reference } => {
            of_peer(link, &watcher, "MONITOR_P")?;
            monitor_received(node, link, watcher, target, reference)?;
        }
        ControlMessage::DemonitorP { target, reference, .. } => {
            demonitor_received(node, link, &target, &reference);
        }
        ControlMessage::MonitorPExit { reference, .. } if link.is_paced_by(&reference) => link.paced(),
        ControlMessage::MonitorPExit { watcher, reference, .. } => {
            let reason = Reason::from_raw(need(payload, "MONITOR_P_EXIT")?);
            if let Some(proc) = node.process(&watcher)
                && let Some((words, _)) = node.ids.words(&reference)
                && let Some(death) = node.down(&proc, words, Some(link), &reason)
            {
                node.exit(&proc, death);
            }
        }
        ControlMessage::GroupLeader { leader, pid } => {
            if let Some(proc) = node.process(&pid)
                && let Some(mut state) = proc.alive()
            {
                state.group_leader = leader;
            }
        }
        ControlMessage::SpawnRequest(request) => {
            of_peer(link, &request.from, "SPAWN_REQUEST")?;
            let arguments = need(payload, "SPAWN_REQUEST")?;
            crate::rpc::spawn_requested(node, link, *request, arguments)?;
        }
        ControlMessage::SpawnReply { req_id, to, flags, result } => {
            spawn_replied(node, link, &req_id, &to, flags, result);
        }
        // The codec knows no others; one that it learns must be learnt here too.
        _ => return Err(Error::bad_control("unknown", "not a control message that this node knows")),
    }
    Ok(())
}

/// The payload that this control message must have.
fn need(payload: Option<RawTerm>, op: &'static str) -> Result<RawTerm> {
    payload.ok_or_else(|| Error::bad_control(op, "no payload"))
}

/// A peer speaks for its own processes only.
fn of_peer(link: &Link, pid: &Pid, op: &'static str) -> Result<()> {
    if pid.node == link.peer().name {
        Ok(())
    } else {
        Err(Error::PeerMisbehaved(PeerMisbehaved::ForgedOrigin(op)))
    }
}

/// Whether the pid is of the peer that is connected now: a BEAM closes the connection over a link signal to a process of
/// an incarnation that it is not.
fn this_incarnation(link: &Link, pid: &Pid) -> bool {
    let peer = link.peer();
    pid.node == peer.name && (peer.creation == 0 || pid.creation == peer.creation)
}

/// The lane of an answer in the name of this pid, which may be nobody's: its place is after what the process has sent.
fn answering(node: &NodeInner, pid: &Pid) -> Lane {
    match node.ids.number(pid) {
        Some(sender) => Lane { sender, class: LaneClass::Control },
        None => lane_of(pid),
    }
}

fn message(
    node: &Arc<NodeInner>,
    link: &Link,
    to: Destination,
    message: RawTerm,
    priority: bool,
    token: Option<Box<SeqTraceToken>>,
) {
    let undelivered = link.mld().undelivered();
    match to {
        Destination::Pid(pid) => {
            if let Some(proc) = node.process(&pid) {
                let credit = undelivered.charge(message.as_bytes().len());
                node.deliver(&proc, message, Some(credit), token);
            }
        }
        Destination::Name(name) => {
            if let Some(proc) = node.names.whereis(&name) {
                let credit = undelivered.charge(message.as_bytes().len());
                node.deliver(&proc, message, Some(credit), token);
            } else {
                node.services.auto.addressed(node, &link.peer().name, &name);
            }
        }
        Destination::Alias(alias) => {
            let credit = undelivered.charge(message.as_bytes().len());
            node.deliver_alias(&alias, message, Some(credit), priority, token);
        }
    }
}

fn link_received(node: &NodeInner, link: &Arc<Link>, from: Pid, to: Pid) -> Result<()> {
    if let Some(proc) = node.process(&to)
        && let Some(mut state) = proc.alive()
    {
        match link.mld().add(proc.number) {
            Ok(()) => {
                if !state.links.link_received(&from, &Some(Arc::clone(link))) {
                    link.mld().remove(proc.number);
                }
                return Ok(());
            }
            Err(AddError::Closed) => return Ok(()),
            Err(AddError::Limit) => return Err(too_many()),
        }
    }
    if this_incarnation(link, &from) {
        let lane = answering(node, &to);
        // The pid is echoed as it was given: the peer knows the link by it.
        let control = ControlMessage::Exit { from: to, to: from };
        transmit(link, lane, &control, Some(&Reason::NOPROC.to_raw()));
    }
    Ok(())
}

#[cold]
fn too_many() -> Error {
    let max = crate::process::MonLnkDist::LIMIT as u64;
    Error::limit("links and monitors across one connection", max + 1, max)
}

fn unlink_id_received(node: &NodeInner, link: &Link, id: u64, from: &Pid, to: &Pid) {
    let proc = node.process(to);
    // Held until the entry is gone: a link that the process makes after the acknowledgement is another one, which this must not remove.
    let mut alive = proc.as_ref().and_then(|proc| Some((proc.number, proc.alive()?)));
    // Acknowledged first, even without a link: what follows is no longer about this one.
    if this_incarnation(link, from) {
        let control = ControlMessage::UnlinkIdAck { id, from: to.clone(), to: from.clone() };
        transmit(link, answering(node, to), &control, None);
    }
    if let Some((number, state)) = &mut alive
        && state.links.unlink_received(from)
    {
        link.mld().remove(*number);
    }
}

fn unlink_received(node: &NodeInner, link: &Link, from: &Pid, to: &Pid) {
    if let Some(proc) = node.process(to)
        && let Some(mut state) = proc.alive()
        && state.links.unlink_received(from)
    {
        link.mld().remove(proc.number);
    }
}

fn exit_received(node: &NodeInner, link: &Arc<Link>, from: &Pid, to: &Pid, reason: &Reason) -> Result<()> {
    let Some(proc) = node.process(to) else { return Ok(()) };
    // A link is only ever to a process of the peer it crosses to; others could not have been made.
    of_peer(link, from, "EXIT")?;
    let death = node.exit_signal(&proc, from, reason, ExitKind::Link(Some(link)));
    if let Some(death) = death {
        node.exit(&proc, death);
    }
    Ok(())
}

fn exit2_to(node: &NodeInner, from: &Pid, to: Destination, reason: RawTerm, priority: bool) {
    let to = match to {
        Destination::Pid(pid) => node.process(&pid).map(|proc| (proc, false)),
        Destination::Name(name) => node.names.whereis(&name).map(|proc| (proc, false)),
        Destination::Alias(alias) => node.alias_owner(&alias),
    };
    if let Some((proc, accepts)) = to
        && let kind = (ExitKind::Exit2 { priority: priority && accepts })
        && let Some(death) = node.exit_signal(&proc, from, &Reason::from_raw(reason), kind)
    {
        node.exit(&proc, death);
    }
}

fn monitor_received(
    node: &NodeInner,
    link: &Arc<Link>,
    watcher: Pid,
    target: Target,
    reference: Reference,
) -> Result<()> {
    let (proc, name) = match &target {
        Target::Pid(pid) => (node.process(pid), None),
        // Resolved now: whoever gets the name later is somebody else.
        Target::Name(name) => (node.names.whereis(name), Some(name.clone())),
    };
    if let Some(proc) = &proc
        && let Some(mut state) = proc.alive()
    {
        match link.mld().add(proc.number) {
            Ok(()) => {}
            Err(AddError::Closed) => return Ok(()),
            Err(AddError::Limit) => return Err(too_many()),
        }
        if name.is_some() {
            link.mld().add_name_monitor(reference.clone(), proc.number);
        }
        let by = WatcherKind::Remote { link: Arc::clone(link), pid: watcher };
        if state.watchers.insert(reference, Watcher { by, name }).is_some() {
            // The peer used one reference twice; the later one counts.
            link.mld().remove(proc.number);
        }
        return Ok(());
    }
    let lane = match &target {
        Target::Pid(pid) => answering(node, pid),
        Target::Name(_) => Lane { sender: 0, class: LaneClass::Control },
    };
    let control = ControlMessage::MonitorPExit { target, watcher, reference };
    transmit(link, lane, &control, Some(&Reason::NOPROC.to_raw()));
    Ok(())
}

fn demonitor_received(node: &NodeInner, link: &Arc<Link>, target: &Target, reference: &Reference) {
    let number = match target {
        Target::Pid(pid) => node.ids.number(pid),
        Target::Name(_) => link.mld().remove_name_monitor(reference),
    };
    let Some(proc) = number.and_then(|number| node.processes.get(number)) else { return };
    let Some(mut state) = proc.alive() else { return };
    let theirs = state.watchers.get(reference).is_some_and(
        |watcher| matches!(&watcher.by, WatcherKind::Remote { link: over, .. } if Arc::ptr_eq(over, link)),
    );
    if theirs {
        state.watchers.remove(reference);
        link.mld().remove(proc.number);
    }
}

fn spawn_replied(
    node: &NodeInner,
    link: &Arc<Link>,
    req_id: &Reference,
    to: &Pid,
    flags: u32,
    result: Result<Pid, Atom>,
) {
    if let Some(parent) = node.process(to)
        && let Some((words, _)) = node.ids.words(req_id)
        && let Some(mut state) = parent.alive()
        && let Some(entry) = state.references.get_mut(&words)
        && let Some(wait) = entry.spawn.take_if(|spawn| Arc::ptr_eq(&spawn.link, link))
    {
        link.mld().remove(parent.number);
        let child = match &result {
            Ok(child) => child,
            Err(reason) => {
                state.references.remove(&words);
                let _ = wait.reply.send(Err(crate::error::Error::Spawn(reason.clone())));
                return;
            }
        };
        if flags & spawn_reply::MONITOR != 0 && link.mld().add_own(parent.number) {
            entry.monitor =
                Some(Monitor::Remote { link: Arc::clone(link), target: Target::Pid(child.clone()) });
        } else {
            state.references.remove(&words);
        }
        if flags & spawn_reply::LINK != 0
            && link.mld().add_own(parent.number)
            && !state.links.link_received(child, &Some(Arc::clone(link)))
        {
            link.mld().remove(parent.number);
        }
        if wait.reply.send(Ok(child.clone())).is_ok() {
            return;
        }
        if state.references.remove(&words).is_some() {
            link.mld().remove(parent.number);
        }
        if state.links.exit_received(child).is_some() {
            link.mld().remove(parent.number);
        }
    }
    // Nobody waits for the new process any more: it must not stay linked to, or watched by, nobody.
    if let Ok(child) = result
        && this_incarnation(link, &child)
    {
        let lane = answering(node, to);
        if flags & spawn_reply::LINK != 0 {
            let control = ControlMessage::Exit { from: to.clone(), to: child.clone() };
            transmit(link, lane, &control, Some(&Reason::ABANDONED.to_raw()));
        }
        if flags & spawn_reply::MONITOR != 0 {
            let control = ControlMessage::DemonitorP {
                watcher: to.clone(),
                target: Target::Pid(child),
                reference: req_id.clone(),
            };
            transmit(link, lane, &control, None);
        }
    }
}

#[cfg(test)]
mod tests;

//! Two nodes: everything that works within one works between them, and ends when the connection does.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use foundation_node::Node;
use foundation_node::config::{EpmdMode, NodeConfig, Reconnect};
use foundation_node::error::{Class, Error, Raised};
use foundation_node::event::Event;
use foundation_node::process::{
    AliasKind, Dest, MailboxLimit, Message, Monitored, Process, Reason, SpawnOptions,
};
use foundation_proto::Limits;
use foundation_proto::etf::{Atom, Term};

use crate::gen_server::Counter;
use crate::support::{
    DEADLINE, assert_empty, cluster, eventually, free_port, recv, recv_down, recv_exit, recv_term, relations,
};

/// Waits until everything that `from` has sent to `to` has arrived: told by an answered call.
async fn settled(from: &Node, to: &Node) {
    let request = Term::from((Term::atom("is_auth"), Term::from(from.name())));
    let yes = from.call(("net_kernel", to.name()), request, DEADLINE).await.unwrap();
    assert_eq!(yes, Term::atom("yes"));
}

/// Waits until both nodes have this many links, monitors and spawn requests between them.
async fn agree(a: &Node, b: &Node, count: usize) {
    let what = format!("{count} links, monitors and spawn requests on both sides");
    eventually(&what, || relations(a) == count && relations(b) == count).await;
}

#[tokio::test]
async fn messages_between_nodes_keep_their_order_whatever_their_size() {
    let [a, b] = cluster(["a", "b"]).await;
    let mut receiver = b.mailbox("receiver").unwrap();
    let sender = a.process().unwrap();
    let pid = receiver.pid().clone();
    for n in 0..200_i64 {
        let size = if n % 10 == 0 { 200_000 } else { 10 };
        let message = Term::from((Term::Integer(n), Term::binary(&vec![7; size])));
        let to = if n % 2 == 0 { Dest::from(&pid) } else { Dest::from(("receiver", b.name())) };
        sender.send_term(to, &message).await.unwrap();
    }
    for n in 0..200 {
        let message = recv_term(&mut receiver).await;
        assert_eq!(message.as_tuple().unwrap()[0], Term::Integer(n));
    }
    assert!(matches!(
        a.send_term(("x", "nobody@127.0.0.1"), &Term::nil()).await,
        Err(Error::NoConnection { .. })
    ));
}

#[tokio::test]
async fn links_and_monitors_carry_exits_between_nodes() {
    let [a, b] = cluster(["a", "b"]).await;
    let mut near = a.process().unwrap();
    near.trap_exit(true);
    let far = b.mailbox("far").unwrap();
    near.link(far.pid()).await;
    let by_pid = near.monitor(far.pid()).await.unwrap();
    let by_name = near.monitor(("far", b.name())).await.unwrap();
    settled(&a, &b).await;
    agree(&a, &b, 3).await;
    assert_eq!(far.links(), [near.pid().clone()]);
    far.stop(Reason::from(Term::from((Term::atom("oh"), Term::from("no")))));
    let reason = Term::from((Term::atom("oh"), Term::from("no")));
    let (from, why) = recv_exit(&mut near).await;
    assert_eq!((&from, why.to_term(&Limits::default()).unwrap()), (far.pid(), reason));
    let mut downs = [recv_down(&mut near).await, recv_down(&mut near).await];
    downs.sort_by_key(|down| down.reference != by_pid);
    assert_eq!(downs[0].object, Monitored::Pid(far.pid().clone()));
    assert_eq!(downs[1].reference, by_name);
    assert_eq!(downs[1].object, Monitored::Name { name: Atom::new_static("far"), node: b.name().clone() });
    agree(&a, &b, 0).await;
}

#[tokio::test]
async fn nobody_on_the_other_node_is_noproc() {
    let [a, b] = cluster(["a", "b"]).await;
    let gone = b.process().unwrap().pid().clone();
    let mut process = a.process().unwrap();
    process.trap_exit(true);
    process.link(&gone).await;
    assert_eq!(recv_exit(&mut process).await, (gone.clone(), Reason::NOPROC));
    process.monitor(&gone).await.unwrap();
    assert_eq!(recv_down(&mut process).await.reason, Reason::NOPROC);
    process.monitor(("nobody", b.name())).await.unwrap();
    assert_eq!(recv_down(&mut process).await.reason, Reason::NOPROC);
    // A pid of an earlier incarnation of b.
    let mut stale = gone.clone();
    stale.creation = stale.creation.wrapping_add(1);
    process.link(&stale).await;
    assert_eq!(recv_exit(&mut process).await, (stale.clone(), Reason::NOPROC));
    process.exit(&stale, "kill").await;
    process.send_term(&stale, &Term::nil()).await.unwrap();
    settled(&a, &b).await;
    agree(&a, &b, 0).await;
}

#[tokio::test]
async fn unlink_is_acknowledged_and_leaves_nothing() {
    let [a, b] = cluster(["a", "b"]).await;
    let near = a.process().unwrap();
    let far = b.process().unwrap();
    for _ in 0..10 {
        near.link(far.pid()).await;
        near.unlink(far.pid());
        near.link(far.pid()).await;
        far.unlink(near.pid());
        near.unlink(far.pid());
    }
    settled(&a, &b).await;
    settled(&b, &a).await;
    settled(&a, &b).await;
    assert!(near.links().is_empty() && far.links().is_empty());
    agree(&a, &b, 0).await;
    far.stop("boom");
    settled(&b, &a).await;
    assert_eq!(near.exit_reason(), None);
}

#[tokio::test]
async fn demonitor_and_aliases_work_across() {
    let [a, b] = cluster(["a", "b"]).await;
    let mut near = a.process().unwrap();
    let far = b.mailbox("far").unwrap();
    let by_name = near.monitor(("far", b.name())).await.unwrap();
    let by_pid = near.monitor(far.pid()).await.unwrap();
    assert!(near.demonitor(&by_name) && near.demonitor(&by_pid));
    settled(&a, &b).await;
    agree(&a, &b, 0).await;

    let alias = near.alias(AliasKind::ExplicitUnalias).unwrap();
    let once = near.monitor_alias(far.pid(), AliasKind::ReplyDemonitor).await.unwrap();
    far.send_term(&alias, &Term::Integer(1)).await.unwrap();
    far.send_term(&once, &Term::Integer(2)).await.unwrap();
    far.send_term(&once, &Term::Integer(3)).await.unwrap();
    assert_eq!(recv_term(&mut near).await, Term::Integer(1));
    assert_eq!(recv_term(&mut near).await, Term::Integer(2));
    assert!(near.unalias(&alias));
    far.send_term(&alias, &Term::Integer(4)).await.unwrap();
    settled(&b, &a).await;
    settled(&a, &b).await;
    assert_empty(&mut near).await;
    agree(&a, &b, 0).await;
}

#[tokio::test]
async fn everything_across_a_lost_connection_fires_once_and_nothing_is_left() {
    let [a, b] = cluster(["a", "b"]).await;
    let mut events = a.events();
    let mut near = a.process().unwrap();
    near.trap_exit(true);
    let plain = a.process().unwrap();
    let mut far = b.mailbox("far").unwrap();
    far.trap_exit(true);
    near.link(far.pid()).await;
    plain.link(far.pid()).await;
    let by_name = near.monitor(("far", b.name())).await.unwrap();
    let by_pid = near.monitor(far.pid()).await.unwrap();
    let by_pid_again = near.monitor(far.pid()).await.unwrap();
    let there = far.monitor(near.pid()).await.unwrap();
    settled(&a, &b).await;
    settled(&b, &a).await;
    assert!(a.disconnect("b@127.0.0.1").await);

    assert_eq!(recv_exit(&mut near).await, (far.pid().clone(), Reason::NOCONNECTION));
    for monitor in [by_pid, by_pid_again] {
        let down = recv_down(&mut near).await;
        assert_eq!((down.reference, down.reason), (monitor, Reason::NOCONNECTION));
    }
    let down = recv_down(&mut near).await;
    assert_eq!((down.reference, down.reason), (by_name, Reason::NOCONNECTION));
    assert_eq!(plain.exit_reason(), Some(Reason::NOCONNECTION));
    let mut exits = [recv_exit(&mut far).await, recv_exit(&mut far).await];
    exits.sort_by_key(|(from, _)| from != near.pid());
    assert_eq!(exits[0], (near.pid().clone(), Reason::NOCONNECTION));
    assert_eq!(exits[1], (plain.pid().clone(), Reason::NOCONNECTION));
    let down = recv_down(&mut far).await;
    assert_eq!((down.reference, down.reason), (there, Reason::NOCONNECTION));
    assert!(matches!(events.next().await, Some(Event::NodeUp { node, .. }) if node == *b.name()));
    assert!(matches!(events.next().await, Some(Event::NodeDown { node, .. }) if node == *b.name()));

    // A new connection knows nothing of the old one's.
    settled(&a, &b).await;
    far.stop("boom");
    settled(&b, &a).await;
    assert_empty(&mut near).await;
    assert!(near.links().is_empty());
    agree(&a, &b, 0).await;
}

#[tokio::test]
async fn a_node_out_of_reach_is_noconnection() {
    let [a] = cluster(["a"]).await;
    let mut process = a.process().unwrap();
    process.trap_exit(true);
    let mut pid = process.pid().clone();
    pid.node = Atom::new_static("nobody@127.0.0.1");
    process.link(&pid).await;
    assert_eq!(recv_exit(&mut process).await, (pid.clone(), Reason::NOCONNECTION));
    let monitor = process.monitor(&pid).await.unwrap();
    let down = recv_down(&mut process).await;
    assert_eq!((down.reference, down.reason), (monitor, Reason::NOCONNECTION));
    let call = process.call(("x", "nobody@127.0.0.1"), Term::nil(), DEADLINE).await;
    assert!(matches!(call, Err(Error::NoConnection { .. })), "{call:?}");
    assert_empty(&mut process).await;
}

#[tokio::test]
async fn servers_are_called_across() {
    let [a, b] = cluster(["a", "b"]).await;
    let server = b.start_server(Some("counter"), Counter::default()).unwrap();
    let mut client = a.process().unwrap();
    client.cast(("counter", b.name()), Term::Integer(5)).await.unwrap();
    assert_eq!(
        client.call(("counter", b.name()), Term::atom("get"), DEADLINE).await.unwrap(),
        Term::Integer(5)
    );
    let late = client.call(server.pid(), Term::atom("hold"), Duration::from_millis(20)).await;
    assert!(matches!(late, Err(Error::Timeout)), "{late:?}");
    client.cast(server.pid(), Term::Integer(1)).await.unwrap();
    assert_eq!(client.call(server.pid(), Term::atom("get"), DEADLINE).await.unwrap(), Term::Integer(6));
    let crashed = client.call(server.pid(), Term::atom("crash"), DEADLINE).await;
    assert!(matches!(&crashed, Err(Error::Exit(reason)) if reason.is("crashed")), "{crashed:?}");
    let gone = client.call(server.pid(), Term::atom("get"), DEADLINE).await;
    assert!(matches!(gone, Err(Error::NoProc)), "{gone:?}");
    settled(&a, &b).await;
    assert_empty(&mut client).await;
    agree(&a, &b, 0).await;
}

#[tokio::test]
async fn a_call_ends_when_the_connection_does() {
    let [a, b] = cluster(["a", "b"]).await;
    b.start_server(Some("counter"), Counter::default()).unwrap();
    let calling = {
        let (a, b) = (a.clone(), b.name().clone());
        tokio::spawn(async move { a.call(("counter", &b), Term::atom("hold"), DEADLINE).await })
    };
    eventually("the call", || relations(&b) == 1).await;
    a.disconnect("b@127.0.0.1").await;
    let called = calling.await.unwrap();
    assert!(matches!(called, Err(Error::NoConnection { .. })), "{called:?}");
}

#[tokio::test]
async fn a_process_that_has_ended_sends_nothing_more() {
    let [a, b] = cluster(["a", "b"]).await;
    let near = a.process().unwrap();
    let mut far = b.mailbox("far").unwrap();
    let handle = near.handle();
    handle.send_term(far.pid(), &Term::Integer(1)).await.unwrap();
    near.stop("boom");
    for to in [Dest::from(far.pid()), Dest::from(("far", b.name()))] {
        let sent = handle.send_term(to, &Term::Integer(2)).await;
        assert!(matches!(&sent, Err(Error::Exited(reason)) if reason.is("boom")), "{sent:?}");
    }
    settled(&a, &b).await;
    assert_eq!(recv_term(&mut far).await, Term::Integer(1));
    assert_empty(&mut far).await;
}

#[tokio::test]
async fn a_function_called_across_has_the_group_leader_of_its_caller() {
    let [a, b] = cluster(["a", "b"]).await;
    b.export_call("m", "leader", 0, |call| async move { Ok(Term::Pid(call.process.group_leader())) });
    let leader = a.process().unwrap();
    let near = a.process().unwrap();
    near.set_group_leader(leader.pid(), near.pid()).await;
    let seen = near.erpc(b.name(), "m", "leader", vec![], DEADLINE).await.unwrap();
    assert_eq!(seen, Term::Pid(leader.pid().clone()));
}

#[tokio::test]
async fn a_spawn_request_ends_when_the_connection_does() {
    let [a, b] = cluster(["a", "b"]).await;
    a.connect("b@127.0.0.1").await.unwrap();
    let process = a.process().unwrap();
    let spawn = process.spawn_remote(b.name(), "erlang", "node", vec![], true, true);
    // Polled in this order: the request leaves, and the connection ends before its reply is read.
    let spawn = tokio::time::timeout(DEADLINE, spawn);
    let (spawned, ended) = tokio::join!(spawn, a.disconnect("b@127.0.0.1"));
    assert!(ended);
    assert!(matches!(spawned, Ok(Err(Error::NoConnection { .. }))), "{spawned:?}");
    assert!(process.links().is_empty());
    agree(&a, &b, 0).await;
}

#[tokio::test]
async fn functions_are_called_across() {
    let [a, b] = cluster(["a", "b"]).await;
    b.export("m", "f", 1, |mut args| async move {
        match args.pop() {
            Some(Term::Atom(why)) if why == "error" => Err(Raised::error(Term::atom("bad"))),
            Some(Term::Atom(why)) if why == "exit" => Err(Raised::exit(Term::atom("bad"))),
            Some(Term::Atom(why)) if why == "throw" => Err(Raised::throw(Term::atom("bad"))),
            Some(Term::Atom(why)) if why == "hang" => std::future::pending().await,
            Some(other) => Ok(Term::from((Term::atom("got"), other))),
            None => Ok(Term::nil()),
        }
    });
    let call = async |arg: Term| a.erpc(b.name(), "m", "f", vec![arg], DEADLINE).await;
    assert_eq!(call(Term::from("x")).await.unwrap(), Term::from((Term::atom("got"), Term::from("x"))));
    for (arg, class) in [("error", Class::Error), ("exit", Class::Exit), ("throw", Class::Throw)] {
        match call(Term::atom(arg)).await {
            Err(Error::Raised(raised)) => {
                assert_eq!((raised.class, raised.reason), (class, Term::atom("bad")));
            }
            other => panic!("{other:?}"),
        }
    }
    match a.erpc(b.name(), "m", "g", vec![], DEADLINE).await {
        Err(Error::Raised(raised)) => {
            assert_eq!(*raised, Raised::undef(Atom::new_static("m"), Atom::new_static("g"), vec![]));
        }
        other => panic!("{other:?}"),
    }
    let late = a.erpc(b.name(), "m", "f", vec![Term::atom("hang")], Duration::from_millis(20)).await;
    assert!(matches!(late, Err(Error::Timeout)), "{late:?}");
    settled(&a, &b).await;
    agree(&a, &b, 0).await;
}

#[tokio::test]
async fn processes_are_started_across_linked_and_monitored() {
    let [a, b] = cluster(["a", "b"]).await;
    b.export_call("m", "wait", 1, |mut call| async move {
        let to = call.args.pop().and_then(|term| term.as_pid().cloned()).unwrap();
        let started = Term::from((Term::atom("started"), Term::from(call.process.pid())));
        call.process.send_term(&to, &started).await.unwrap();
        let message = call.process.recv().await.unwrap();
        match message {
            Message::Term(raw) => Err(Raised::exit(raw.to_term(&Limits::default()).unwrap())),
            _ => Ok(Term::nil()),
        }
    });
    let mut parent = a.process().unwrap();
    parent.trap_exit(true);
    let args = |parent: &Process| vec![Term::from(parent.pid())];
    let child = parent.spawn_remote(b.name(), "m", "wait", args(&parent), true, true).await.unwrap();
    assert_eq!(recv_term(&mut parent).await, Term::from((Term::atom("started"), Term::from(&child.pid))));
    agree(&a, &b, 2).await;
    parent.send_term(&child.pid, &Term::atom("done")).await.unwrap();
    assert_eq!(recv_exit(&mut parent).await, (child.pid.clone(), Reason::from("done")));
    let down = recv_down(&mut parent).await;
    assert_eq!((Some(down.reference), down.reason), (child.monitor, Reason::from("done")));

    let undef = parent.spawn_remote(b.name(), "m", "nothing", vec![], false, true).await.unwrap();
    let down = recv_down(&mut parent).await;
    assert_eq!(Some(down.reference), undef.monitor);
    let reason = down.reason.to_term(&Limits::default()).unwrap();
    assert!(
        matches!(reason.as_tuple(), Some([label, Term::List(_)]) if label.is_atom("undef")),
        "{reason:?}"
    );
    agree(&a, &b, 0).await;

    // The parent ends: the child goes too, and what it prints reached the parent's group leader till then.
    let child = parent.spawn_remote(b.name(), "m", "wait", args(&parent), true, false).await.unwrap();
    recv(&mut parent).await;
    parent.stop("over");
    eventually("the end of the child", || !b.is_process_alive(&child.pid)).await;
    agree(&a, &b, 0).await;
}

#[tokio::test]
async fn exits_and_group_leaders_cross() {
    let [a, b] = cluster(["a", "b"]).await;
    let mut far = b.process().unwrap();
    far.trap_exit(true);
    let near = a.process().unwrap();
    near.exit(far.pid(), "normal").await;
    assert_eq!(recv_exit(&mut far).await, (near.pid().clone(), Reason::NORMAL));
    near.set_group_leader(near.pid(), far.pid()).await;
    settled(&a, &b).await;
    assert_eq!(far.group_leader(), *near.pid());
    near.exit(far.pid(), "kill").await;
    eventually("the kill", || far.exit_reason() == Some(Reason::KILLED)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crossing_links_and_unlinks_agree_between_nodes() {
    let [a, b] = cluster(["a", "b"]).await;
    for round in 0..20 {
        let near = a.process().unwrap();
        let far = b.process().unwrap();
        let tasks =
            [(near.handle(), far.pid().clone()), (far.handle(), near.pid().clone())].map(|(one, other)| {
                tokio::spawn(async move {
                    for n in 0..40 {
                        if n % 2 == 0 {
                            one.link(&other).await;
                        } else {
                            one.unlink(&other);
                        }
                        if n % 7 == round % 7 {
                            tokio::task::yield_now().await;
                        }
                    }
                })
            });
        for task in tasks {
            task.await.unwrap();
        }
        for _ in 0..2 {
            settled(&a, &b).await;
            settled(&b, &a).await;
        }
        // Each has unlinked last, and yet both can be linked: an UNLINK_ID on its way ends the newer link of its receiver, which then has
        // nothing to unlink, and its LINK arrives. That is OTP's protocol; what it promises is that the two agree.
        assert_eq!(near.links().len(), far.links().len(), "{:?} {:?}", near.links(), far.links());
        near.unlink(far.pid());
        settled(&a, &b).await;
        assert!(near.links().is_empty() && far.links().is_empty(), "{:?} {:?}", near.links(), far.links());
        agree(&a, &b, 0).await;
    }
}

/// Messages from one process to another arrive in order and without gaps; a lost connection makes one gap, its `DOWN` stands
/// exactly there, and nothing that was sent before comes after it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_connection_makes_one_gap_and_the_down_stands_in_it() {
    const MESSAGES: i64 = 3000;
    let [a, b] = cluster(["a", "b"]).await;
    for round in 0..20 {
        let mut receiver = b.process().unwrap();
        let sender = a.process().unwrap();
        receiver.monitor(sender.pid()).await.unwrap();
        let to = receiver.pid().clone();
        let sending = tokio::spawn(async move {
            for n in 0..MESSAGES {
                // What cannot be sent while the connection goes down is part of the gap.
                let _ = sender.send(&to, &n).await;
            }
            sender
        });
        let breaking = {
            let (one, other) =
                if round % 2 == 0 { (a.clone(), "b@127.0.0.1") } else { (b.clone(), "a@127.0.0.1") };
            tokio::spawn(async move {
                for _ in 0..round * 10 {
                    tokio::task::yield_now().await;
                }
                one.disconnect(other).await
            })
        };
        let sender = sending.await.unwrap();
        let broken = breaking.await.unwrap();
        // One side may not have noticed the break yet. After a round trip nothing breaks any more: this one arrives.
        tokio::time::timeout(DEADLINE, async { while !a.ping("b@127.0.0.1").await {} }).await.unwrap();
        sender.send(receiver.pid(), &MESSAGES).await.unwrap();
        let mut expected = 0;
        let mut downs = 0;
        let mut after_down = false;
        while expected <= MESSAGES {
            match recv(&mut receiver).await {
                Message::Down(down) => {
                    assert_eq!(down.reason, Reason::NOCONNECTION);
                    downs += 1;
                    after_down = true;
                }
                message => {
                    let n: i64 = message.to_value().unwrap();
                    assert!(n == expected || (after_down && n > expected), "{n} instead of {expected}");
                    after_down = false;
                    expected = n + 1;
                }
            }
        }
        assert_eq!(downs, i32::from(broken));
    }
    agree(&a, &b, 0).await;
}

/// A peer that takes everything at once never makes a sender wait. The other tasks of its thread, which read connections and
/// keep their ticks, run all the same.
#[tokio::test]
async fn a_sender_that_never_waits_leaves_others_their_turn() {
    const MESSAGES: i64 = 100_000;
    let epmd_port = free_port();
    let config = |name: &str| {
        NodeConfig::new(format!("{name}@127.0.0.1"))
            .cookie("secret")
            .epmd(EpmdMode::Embedded)
            .epmd_port(epmd_port)
            .reconnect(Reconnect::Never)
    };
    let a = Node::start(config("a")).await.unwrap();
    let far_config = config("b");
    let (ready, started) = tokio::sync::oneshot::channel();
    let far = std::thread::spawn(move || {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let b = Node::start(far_config).await.unwrap();
            let unbounded = SpawnOptions::default().mailbox(MailboxLimit::UNBOUNDED);
            let mut sink = b.process_opt(&unbounded).unwrap();
            ready.send(sink.pid().clone()).unwrap();
            for n in 0..MESSAGES {
                assert_eq!(recv_term(&mut sink).await, Term::Integer(n));
            }
            b.stop().await;
        });
    });
    let sink = started.await.unwrap();
    let turns = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&turns);
    let other = tokio::spawn(async move {
        loop {
            counter.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    });
    let (mut seen, mut without) = (0, 0);
    for n in 0..MESSAGES {
        a.send_term(&sink, &Term::Integer(n)).await.unwrap();
        let now = turns.load(Ordering::Relaxed);
        without = if now == seen { without + 1 } else { 0 };
        seen = now;
        assert!(without < 5000, "{without} messages in a row without a turn for anybody else");
    }
    // What was sent last leaves while this waits.
    tokio::task::spawn_blocking(move || far.join().unwrap()).await.unwrap();
    other.abort();
    a.stop().await;
}

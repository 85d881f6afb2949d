//! Processes of one node: what Erlang's processes do, these do.

use std::time::Duration;

use foundation_node::error::Error;
use foundation_node::process::{
    AliasKind, MailboxLimit, Message, Monitored, Overflow, Process, Reason, SpawnOptions,
};
use foundation_proto::Limits;
use foundation_proto::etf::{Atom, Term};

use crate::support::{DEADLINE, assert_empty, eventually, lonely, recv, recv_down, recv_exit, recv_term};

/// Ends when it is told to, with the reason that it is told.
async fn obedient(mut process: Process) -> Reason {
    match process.recv().await {
        Ok(Message::Term(raw)) => raw.to_term(&Limits::default()).unwrap().into(),
        Ok(_) | Err(_) => Reason::NORMAL,
    }
}

#[tokio::test]
async fn messages_arrive_in_order_and_selective_receive_leaves_the_others() {
    let node = lonely().await;
    let mut process = node.mailbox("worker").unwrap();
    for n in 0..10 {
        node.send_term("worker", &Term::Integer(n)).await.unwrap();
    }
    let is_seven = |message: &Message| {
        message.as_raw().is_some_and(|raw| raw.to_term(&Limits::default()).unwrap() == Term::Integer(7))
    };
    assert!(is_seven(&process.recv_match(is_seven).await.unwrap()));
    for n in [0, 1, 2, 3, 4, 5, 6, 8, 9] {
        assert_eq!(recv_term(&mut process).await, Term::Integer(n));
    }
    let nothing = process.recv_timeout(Duration::from_millis(1)).await;
    assert!(matches!(nothing, Err(Error::Timeout)), "{nothing:?}");
    assert!(matches!(node.send_term("nobody", &Term::Integer(1)).await, Err(Error::NoProc)));
}

#[tokio::test]
async fn a_cancelled_receive_loses_nothing() {
    let node = lonely().await;
    let mut process = node.process().unwrap();
    let pid = process.pid().clone();
    for n in 0..100 {
        let waiting = tokio::time::timeout(Duration::ZERO, process.recv()).await;
        assert!(waiting.is_err());
        node.send_term(&pid, &Term::Integer(n)).await.unwrap();
        assert_eq!(recv_term(&mut process).await, Term::Integer(n));
    }
}

#[tokio::test]
async fn an_exit_signal_takes_linked_processes_along_unless_it_is_normal_or_trapped() {
    let node = lonely().await;
    let trapping = node.process().unwrap();
    trapping.trap_exit(true);
    let mut trapping = trapping;
    let victim = node.process().unwrap();
    let bystander = node.process().unwrap();
    let child = trapping.spawn_link(obedient).unwrap();
    victim.link(child.pid()).await;
    node.send_term(child.pid(), &Term::atom("boom")).await.unwrap();
    let (from, reason) = recv_exit(&mut trapping).await;
    assert_eq!((&from, reason), (child.pid(), Reason::from("boom")));
    assert_eq!(victim.exit_reason(), Some(Reason::from("boom")));
    assert_eq!(bystander.exit_reason(), None);

    let child = bystander.spawn_link(obedient).unwrap();
    assert_eq!(bystander.links(), [child.pid().clone()]);
    node.send_term(child.pid(), &Term::atom("normal")).await.unwrap();
    eventually("the normal exit", || child.exit_reason().is_some()).await;
    assert_eq!(bystander.exit_reason(), None);
    assert!(bystander.links().is_empty());
}

/// The table of exit signals in erts' "Processes".
#[tokio::test]
async fn exit_2_follows_the_table() {
    let node = lonely().await;
    let plain = node.process().unwrap();
    node.exit(plain.pid(), "normal").await;
    assert_eq!(plain.exit_reason(), None);
    node.exit(plain.pid(), "other").await;
    assert_eq!(plain.exit_reason(), Some(Reason::from("other")));

    let mut trapping = node.process().unwrap();
    trapping.trap_exit(true);
    let mut watcher = node.process().unwrap();
    watcher.trap_exit(true);
    for reason in ["normal", "other"] {
        node.exit(trapping.pid(), reason).await;
        assert_eq!(recv_exit(&mut trapping).await, (node.pid().clone(), Reason::from(reason)));
    }
    watcher.link(trapping.pid()).await;
    node.exit(trapping.pid(), "kill").await;
    assert_eq!(trapping.exit_reason(), Some(Reason::KILLED));
    assert_eq!(recv_exit(&mut watcher).await, (trapping.pid().clone(), Reason::KILLED));
    assert!(matches!(trapping.recv().await, Err(Error::Exited(reason)) if reason == Reason::KILLED));

    // A link carries `kill` as any other reason: it can be trapped, and does not become `killed`.
    let child = watcher.spawn_link(|_| async { Reason::KILL }).unwrap();
    assert_eq!(recv_exit(&mut watcher).await, (child.pid().clone(), Reason::KILL));

    let own = node.process().unwrap();
    let pid = own.pid().clone();
    own.exit(&pid, "normal").await;
    assert_eq!(own.exit_reason(), Some(Reason::NORMAL));
}

#[tokio::test]
async fn linking_to_nobody_is_a_noproc_exit() {
    let node = lonely().await;
    let gone = node.process().unwrap().pid().clone();
    let mut trapping = node.process().unwrap();
    trapping.trap_exit(true);
    trapping.link(&gone).await;
    assert_eq!(recv_exit(&mut trapping).await, (gone.clone(), Reason::NOPROC));
    let plain = node.process().unwrap();
    plain.link(&gone).await;
    assert_eq!(plain.exit_reason(), Some(Reason::NOPROC));
}

#[tokio::test]
async fn after_unlink_no_exit_comes() {
    let node = lonely().await;
    let process = node.process().unwrap();
    let child = process.spawn_link(obedient).unwrap();
    process.unlink(child.pid());
    node.exit(child.pid(), "boom").await;
    assert!(child.exit_reason().is_some());
    assert_eq!(process.exit_reason(), None);
    assert!(process.links().is_empty());
}

#[tokio::test]
async fn a_monitor_fires_once_with_the_reason() {
    let node = lonely().await;
    let mut watcher = node.process().unwrap();
    let (child, monitor) = watcher.spawn_monitor(obedient).unwrap();
    let by_name = {
        child.register(Atom::new_static("child")).unwrap();
        watcher.monitor("child").await.unwrap()
    };
    node.send_term(child.pid(), &Term::from((Term::atom("shutdown"), Term::Integer(3)))).await.unwrap();
    let mut downs = [recv_down(&mut watcher).await, recv_down(&mut watcher).await];
    downs.sort_by_key(|down| down.reference != monitor);
    assert_eq!(downs[0].object, Monitored::Pid(child.pid().clone()));
    assert_eq!(downs[1].reference, by_name);
    assert_eq!(
        downs[1].object,
        Monitored::Name { name: Atom::new_static("child"), node: node.name().clone() }
    );
    for down in &downs {
        let reason = Term::from((Term::atom("shutdown"), Term::Integer(3)));
        assert_eq!(down.reason.to_term(&Limits::default()).unwrap(), reason);
    }
    assert_empty(&mut watcher).await;
    // The name is free again.
    assert_eq!(node.whereis("child"), None);
}

#[tokio::test]
async fn monitoring_nobody_is_a_noproc_down() {
    let node = lonely().await;
    let mut watcher = node.process().unwrap();
    let gone = node.process().unwrap().pid().clone();
    let monitor = watcher.monitor(&gone).await.unwrap();
    let down = recv_down(&mut watcher).await;
    assert_eq!((down.reference, down.reason), (monitor, Reason::NOPROC));
    watcher.monitor("nobody").await.unwrap();
    assert_eq!(recv_down(&mut watcher).await.reason, Reason::NOPROC);
}

#[tokio::test]
async fn demonitor_with_flush_leaves_nothing() {
    let node = lonely().await;
    let mut watcher = node.process().unwrap();
    let (child, monitor) = watcher.spawn_monitor(obedient).unwrap();
    assert!(watcher.demonitor(&monitor));
    assert!(!watcher.demonitor(&monitor));
    node.exit(child.pid(), "boom").await;
    assert_empty(&mut watcher).await;

    let (child, monitor) = watcher.spawn_monitor(obedient).unwrap();
    node.exit(child.pid(), "boom").await;
    assert!(!watcher.demonitor_flush(&monitor));
    assert_empty(&mut watcher).await;
}

#[tokio::test]
async fn aliases_end_as_their_kind_says() {
    let node = lonely().await;
    let mut process = node.process().unwrap();
    let explicit = process.alias(AliasKind::ExplicitUnalias).unwrap();
    let reply = process.alias(AliasKind::Reply).unwrap();
    for n in [1, 2] {
        node.send_term(&explicit, &Term::Integer(n)).await.unwrap();
        node.send_term(&reply, &Term::Integer(10 + n)).await.unwrap();
    }
    for n in [1, 11, 2] {
        assert_eq!(recv_term(&mut process).await, Term::Integer(n));
    }
    assert!(process.unalias(&explicit));
    assert!(!process.unalias(&explicit));
    assert!(!process.unalias(&reply));
    node.send_term(&explicit, &Term::Integer(3)).await.unwrap();
    assert_empty(&mut process).await;

    let target = node.process().unwrap();
    let both = process.monitor_alias(target.pid(), AliasKind::ReplyDemonitor).await.unwrap();
    node.send_term(&both, &Term::Integer(4)).await.unwrap();
    node.send_term(&both, &Term::Integer(5)).await.unwrap();
    assert_eq!(recv_term(&mut process).await, Term::Integer(4));
    let until_down = process.monitor_alias(target.pid(), AliasKind::Demonitor).await.unwrap();
    node.exit(target.pid(), "boom").await;
    // Only this one: the reply has ended the other monitor.
    assert_eq!(recv_down(&mut process).await.reference, until_down);
    node.send_term(&until_down, &Term::Integer(6)).await.unwrap();
    assert_empty(&mut process).await;
}

/// A monitor and an alias of one reference end each by its own rule.
#[tokio::test]
async fn an_alias_and_its_monitor_end_apart() {
    let node = lonely().await;
    let mut process = node.process().unwrap();
    let target = node.process().unwrap();
    let explicit = process.monitor_alias(target.pid(), AliasKind::ExplicitUnalias).await.unwrap();
    let reply = process.monitor_alias(target.pid(), AliasKind::Reply).await.unwrap();
    let demonitored = process.monitor_alias(target.pid(), AliasKind::Demonitor).await.unwrap();
    let answered = process.monitor_alias(target.pid(), AliasKind::ReplyDemonitor).await.unwrap();
    assert!(process.unalias(&explicit));
    assert!(process.demonitor(&demonitored) && process.demonitor(&answered));
    for n in [1, 2] {
        for alias in [&explicit, &reply, &demonitored, &answered] {
            node.send_term(alias, &Term::Integer(n)).await.unwrap();
        }
    }
    // Only the first through the one that ends with a reply.
    assert_eq!(recv_term(&mut process).await, Term::Integer(1));
    assert_empty(&mut process).await;
    // The monitors of the aliases that have ended are still there.
    node.exit(target.pid(), "boom").await;
    assert_eq!(recv_down(&mut process).await.reference, explicit);
    assert_eq!(recv_down(&mut process).await.reference, reply);
    assert_empty(&mut process).await;
}

#[tokio::test]
async fn a_full_mailbox_ends_its_process_visibly() {
    let node = lonely().await;
    let process = node.process_opt(&SpawnOptions::default().mailbox(MailboxLimit::messages(10))).unwrap();
    let mut watcher = node.process().unwrap();
    watcher.monitor(process.pid()).await.unwrap();
    for n in 0..=10 {
        node.send_term(process.pid(), &Term::Integer(n)).await.unwrap();
    }
    let reason = recv_down(&mut watcher).await.reason.to_term(&Limits::default()).unwrap();
    assert_eq!(reason, Term::from((Term::atom("mailbox_overflow"), Term::Integer(10))));
}

#[tokio::test]
async fn senders_wait_for_a_mailbox_that_blocks() {
    let node = lonely().await;
    let limit = MailboxLimit::messages(10).overflow(Overflow::Block);
    let mut process = node.process_opt(&SpawnOptions::default().mailbox(limit)).unwrap();
    let pid = process.pid().clone();
    let sender = node.clone();
    let to = pid.clone();
    let sending = tokio::spawn(async move {
        for n in 0..1000 {
            sender.send_term(&to, &Term::Integer(n)).await.unwrap();
        }
    });
    eventually("a full mailbox", || process.mailbox_len() == 10).await;
    let refused =
        node.try_send_raw(&pid, foundation_proto::etf::RawTerm::from_term(&Term::Integer(0)).unwrap());
    assert!(matches!(refused, Err(Error::Full)), "{refused:?}");
    for n in 0..1000 {
        assert!(process.mailbox_len() <= 10);
        assert_eq!(recv_term(&mut process).await, Term::Integer(n));
    }
    sending.await.unwrap();
}

#[tokio::test]
async fn names_are_unique_and_freed_at_the_end() {
    let node = lonely().await;
    let first = node.mailbox("name").unwrap();
    assert!(matches!(node.mailbox("name"), Err(Error::NameTaken(_))));
    assert!(matches!(first.register(Atom::new_static("second_name")), Err(Error::NameTaken(_))));
    assert_eq!(node.whereis("name").as_ref(), Some(first.pid()));
    drop(first);
    assert_eq!(node.whereis("name"), None);
    let again = node.mailbox("name").unwrap();
    assert!(again.unregister());
    assert!(!again.unregister());
    assert!(!node.registered().contains(&Atom::new_static("name")));
}

#[tokio::test]
async fn a_panic_is_an_exit_reason() {
    let node = lonely().await;
    let mut watcher = node.process().unwrap();
    let (_, _) = watcher
        .spawn_monitor(|mut process: Process| async move {
            let message = process.recv_timeout(Duration::ZERO).await;
            assert!(message.is_ok(), "on purpose");
        })
        .unwrap();
    let reason = recv_down(&mut watcher).await.reason.to_term(&Limits::default()).unwrap();
    assert_eq!(reason, Term::from((Term::atom("panic"), Term::from("on purpose"))));
}

/// Ends as a list of work and not as a stack, and leaves nothing behind.
#[tokio::test]
async fn a_hundred_thousand_linked_processes_end_together() {
    let node = lonely().await;
    let before = node.processes().len();
    let chain: Vec<Process> = (0..100_000).map(|_| node.process().unwrap()).collect();
    for pair in chain.windows(2) {
        pair[0].link(pair[1].pid()).await;
    }
    assert_eq!(node.processes().len(), before + chain.len());
    node.exit(chain[50_000].pid(), "boom").await;
    assert_eq!(node.processes().len(), before);
    assert!(chain.iter().all(|process| process.exit_reason() == Some(Reason::from("boom"))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn crossing_links_and_unlinks_agree_at_the_end() {
    let node = lonely().await;
    for _ in 0..200 {
        let a = node.process().unwrap();
        let b = node.process().unwrap();
        let tasks = [(a.handle(), b.pid().clone()), (b.handle(), a.pid().clone())].map(|(one, other)| {
            tokio::spawn(async move {
                for n in 0..50 {
                    if n % 2 == 0 {
                        one.link(&other).await;
                    } else {
                        one.unlink(&other);
                    }
                }
            })
        });
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(a.links().is_empty(), b.links().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_monitor_fires_once_whoever_is_faster() {
    let node = lonely().await;
    for _ in 0..300 {
        let mut watcher = node.process().unwrap();
        let target = node.process().unwrap();
        let pid = target.pid().clone();
        let ending = tokio::spawn(async move { drop(target) });
        let monitors = [watcher.monitor(&pid).await.unwrap(), watcher.monitor(&pid).await.unwrap()];
        ending.await.unwrap();
        let mut fired = [recv_down(&mut watcher).await.reference, recv_down(&mut watcher).await.reference];
        fired.sort();
        assert_eq!(fired, monitors);
        assert_empty(&mut watcher).await;
    }
}

#[tokio::test]
async fn a_killed_process_stops_running() {
    let node = lonely().await;
    let mut parent = node.process().unwrap();
    let to = parent.pid().clone();
    let child = parent
        .spawn(move |process: Process| async move {
            process.send_term(&to, &Term::atom("started")).await.unwrap();
            std::future::pending::<()>().await;
        })
        .unwrap();
    assert_eq!(recv_term(&mut parent).await, Term::atom("started"));
    node.exit(child.pid(), "kill").await;
    assert_eq!(child.exit_reason(), Some(Reason::KILLED));
    let late = child.send_term(parent.pid(), &Term::atom("late")).await;
    assert!(matches!(late, Err(Error::Exited(_))), "{late:?}");
    assert!(matches!(recv_after(&mut parent).await, Err(Error::Timeout)));
}

async fn recv_after(process: &mut Process) -> Result<Message, Error> {
    process.recv_timeout(Duration::from_millis(5)).await
}

#[tokio::test]
async fn what_is_printed_reaches_the_group_leader() {
    let node = lonely().await;
    let mut leader = node.process().unwrap();
    let process = node.process().unwrap();
    process.set_group_leader(leader.pid(), process.pid()).await;
    let printing = tokio::spawn(async move { process.print("hello å\n").await });
    let request = recv_term(&mut leader).await;
    let Some([label, Term::Pid(from), reply_as, put]) = request.as_tuple() else { panic!("{request:?}") };
    assert!(label.is_atom("io_request"));
    let expected = (Term::atom("put_chars"), Term::atom("unicode"), Term::from("hello å\n"));
    assert_eq!(*put, Term::from(expected));
    let reply = Term::from((Term::atom("io_reply"), reply_as.clone(), Term::atom("ok")));
    leader.send_term(from, &reply).await.unwrap();
    printing.await.unwrap().unwrap();
    // A child inherits it.
    let child = leader.spawn(obedient).unwrap();
    assert_eq!(child.group_leader(), leader.group_leader());
    let _ = (DEADLINE, recv);
}

/// The order in which messages are received, as OTP 29 has it for the same sends.
#[tokio::test]
async fn priority_messages_go_before_others() {
    let node = lonely().await;
    let mut process = node.process().unwrap();
    let me = process.pid().clone();
    async fn received(process: &mut Process) -> Vec<String> {
        let mut texts = Vec::new();
        while let Ok(message) = process.recv_timeout(Duration::from_millis(20)).await {
            texts.push(match message {
                Message::Exit(exit) => format!("EXIT {}", exit.reason),
                Message::Down(down) => format!("DOWN {}", down.reason),
                message => message.to_value::<String>().unwrap(),
            });
        }
        texts
    }

    let alias = process.priority_alias(AliasKind::ExplicitUnalias).unwrap();
    process.send(&me, "n1").await.unwrap();
    process.send(&me, "n2").await.unwrap();
    process.send_priority(&alias, "p1").await.unwrap();
    process.send(&alias, "n3").await.unwrap();
    process.send_priority(&alias, "p2").await.unwrap();
    process.send_priority(&me, "n4").await.unwrap();
    assert_eq!(process.mailbox_len(), 6);
    assert_eq!(received(&mut process).await, ["p1", "p2", "n1", "n2", "n3", "n4"]);

    // An ordinary alias accepts no priority; a reply alias ends with the first message whatever that has.
    let plain = process.alias(AliasKind::ExplicitUnalias).unwrap();
    let reply = process.priority_alias(AliasKind::Reply).unwrap();
    process.send(&me, "n1").await.unwrap();
    process.send_priority(&plain, "n2").await.unwrap();
    process.send_priority(&reply, "p1").await.unwrap();
    process.send_priority(&reply, "late").await.unwrap();
    assert_eq!(received(&mut process).await, ["p1", "n1", "n2"]);

    process.trap_exit(true);
    process.send(&me, "n1").await.unwrap();
    process.exit_alias(&alias, "first", true).await.unwrap();
    process.exit_alias(&alias, "second", false).await.unwrap();
    process.exit_alias(&plain, "third", true).await.unwrap();
    assert_eq!(received(&mut process).await, ["EXIT first", "n1", "EXIT second", "EXIT third"]);

    let worker = node.process().unwrap();
    process.monitor_priority(worker.pid()).await.unwrap();
    process.send(&me, "n1").await.unwrap();
    worker.stop("done");
    assert_eq!(received(&mut process).await, ["DOWN done", "n1"]);

    // A receive that has refused what is there still looks at what comes with priority.
    process.send(&me, "n1").await.unwrap();
    let sender = process.handle();
    let late = async move {
        tokio::task::yield_now().await;
        sender.send_priority(&alias, "p1").await.unwrap();
    };
    let wanted = |message: &Message| message.to_value::<String>().is_ok_and(|text| text == "p1");
    let (found, ()) = tokio::join!(process.recv_match(wanted), late);
    assert_eq!(found.unwrap().to_value::<String>().unwrap(), "p1");
    assert_eq!(received(&mut process).await, ["n1"]);
}

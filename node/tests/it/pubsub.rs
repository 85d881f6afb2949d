//! Topics between Rust nodes. With Phoenix's own PubSub: the interop tests.

use foundation_node::Error;
use foundation_node::service::pubsub::Subscription;
use foundation_proto::Limits;
use foundation_proto::etf::Term;

use crate::support::{DEADLINE, cluster, eventually};

/// The next so many messages.
async fn numbers(subscription: &mut Subscription, count: usize) -> Vec<i64> {
    let mut numbers = Vec::new();
    for _ in 0..count {
        let message = tokio::time::timeout(DEADLINE, subscription.next()).await.unwrap().unwrap();
        numbers.extend(message.to_term(&Limits::default()).unwrap().as_i64());
    }
    numbers
}

#[tokio::test]
async fn broadcast_from_leaves_out_one_and_no_other() {
    let [a, b] = cluster(["a", "b"]).await;
    let (here, there) = (a.pubsub("P").unwrap(), b.pubsub("P").unwrap());
    a.connect("b@127.0.0.1").await.unwrap();
    eventually("both know each other", || here.nodes().len() == 2 && there.nodes().len() == 2).await;
    let mut sender = here.subscribe("room").unwrap();
    let mut near = here.subscribe("room").unwrap();
    let mut elsewhere = here.subscribe("hall").unwrap();
    let mut far = there.subscribe("room").unwrap();
    here.broadcast_from(sender.pid(), "room", &Term::Integer(1)).await.unwrap();
    here.broadcast("room", &Term::Integer(2)).await.unwrap();
    here.broadcast("hall", &Term::Integer(3)).await.unwrap();
    assert_eq!(numbers(&mut sender, 1).await, [2]);
    assert_eq!(numbers(&mut near, 2).await, [1, 2]);
    assert_eq!(numbers(&mut far, 2).await, [1, 2]);
    assert_eq!(numbers(&mut elsewhere, 1).await, [3]);
}

#[tokio::test]
async fn who_sends_from_a_process_of_its_own_waits_for_no_other() {
    let [a, b] = cluster(["a", "b"]).await;
    let (here, there) = (a.pubsub("P").unwrap(), b.pubsub("P").unwrap());
    a.connect("b@127.0.0.1").await.unwrap();
    eventually("both know each other", || here.nodes().len() == 2 && there.nodes().len() == 2).await;
    let mut far = there.subscribe("large").unwrap();
    there.subscribe_pid("small", far.pid());
    let process = a.process().unwrap();
    let mine = here.sending_from(&process.handle());
    // More than sockets hold.
    here.broadcast("large", &Term::from("x".repeat(64 << 20).as_str())).await.unwrap();
    mine.broadcast("small", &Term::Integer(1)).await.unwrap();
    assert_eq!(numbers(&mut far, 2).await, [1], "the small one comes first, the large one is no number");

    drop(process);
    let error = mine.broadcast("small", &Term::Integer(2)).await.unwrap_err();
    assert!(matches!(error, Error::Exited(_)), "{error}");
    here.broadcast("small", &Term::Integer(3)).await.unwrap();
    assert_eq!(numbers(&mut far, 1).await, [3]);
}

use super::*;
use crate::config::{EpmdMode, NodeConfig};

#[tokio::test]
async fn a_name_is_found_at_once_and_goes_with_its_process() {
    let mut config = NodeConfig::new("names@127.0.0.1").cookie("secret").epmd(EpmdMode::None);
    config.dist_listen = false;
    let node = Node::start(config).await.unwrap();
    let registry = node.registry("names").unwrap();
    let mut monitor = registry.monitor();
    let worker = node.process().unwrap();
    let key = Term::from("worker");
    assert_eq!(registry.register(key.clone(), Term::from(1), worker.pid()).await.unwrap(), Registered::Yes);
    assert_eq!(registry.whereis_name(&key).as_ref(), Some(worker.pid()));
    assert_eq!(registry.keys_of(worker.pid()).first(), Some(&key));
    assert!(matches!(monitor.next().await, Ok(Change::Added(entry)) if entry.pid == *worker.pid()));
    let other = node.process().unwrap();
    let taken = registry.register(key.clone(), Term::from(2), other.pid()).await.unwrap();
    assert_eq!(taken, Registered::Already(worker.pid().clone()));
    assert!(registry.update_value(key.clone(), Term::from(3), worker.pid()).await.unwrap());
    assert!(matches!(monitor.next().await, Ok(Change::Updated(entry)) if entry.value == Term::from(3)));
    assert!(!registry.unregister(key.clone(), other.pid()).await.unwrap());
    assert_eq!(registry.wait_until_all(&key, Duration::ZERO).await.unwrap(), Waited::Everywhere);
    drop(worker);
    assert!(matches!(monitor.next().await, Ok(Change::Removed(_))));
    assert_eq!(registry.lookup(&key), None);
    assert!(matches!(registry.wait_until_all(&key, Duration::ZERO).await, Err(Error::NoProc)));
    node.stop().await;
}

/// Run with `--release -- --ignored --nocapture`.
#[tokio::test]
#[ignore = "a measurement"]
async fn what_a_lookup_costs() {
    let table = Table::default();
    let pid = Pid { node: Atom::new_static("a@b"), id: 1, serial: 0, creation: 1 };
    let name = |n: i64| Term::from((Term::atom("worker"), Term::Integer(n)));
    for names in [10_000, 100_000] {
        let changes: Vec<Change> = (0..names)
            .map(|n| {
                let key = Arc::new(foundation_cluster::Key(name(n)));
                let (pid, node) = (pid.clone(), pid.node.clone());
                Change::Added(Arc::new(Entry {
                    key,
                    pid,
                    value: Term::Integer(n),
                    node,
                    claim: 0,
                    version: 1,
                }))
            })
            .collect();
        let table = if names == 10_000 { &table } else { &Table::default() };
        table.apply(&changes);
        let keys: Vec<Term> = (0..names).step_by(7).map(name).collect();
        let begin = std::time::Instant::now();
        let rounds = 20;
        let mut found = 0;
        for _ in 0..rounds {
            found += keys.iter().filter(|key| table.first(key).is_some()).count();
        }
        let each = begin.elapsed().as_nanos() / found as u128;
        assert_eq!(found, keys.len() * rounds);
        println!("{names} names: {each} ns a lookup");
    }
}

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

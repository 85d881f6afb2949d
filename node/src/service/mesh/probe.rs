//! What a check asks, and what counts as being well.

use std::fmt;
use std::future::Future;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use foundation_cluster::mesh::{Check, Sample, Service};
use foundation_proto::etf::Term;
use tokio::task::JoinHandle;

use crate::process::Handle;

/// A check of the program: it is given the service, and says whether it is well. What takes longer than the check may is dropped.
pub trait CheckFn: Send + Sync + 'static {
    /// Looks.
    fn check(&self, service: Arc<Service>) -> Pin<Box<dyn Future<Output = bool> + Send>>;
}

impl<F, R> CheckFn for F
where
    F: Fn(Arc<Service>) -> R + Send + Sync + 'static,
    R: Future<Output = bool> + Send + 'static,
{
    fn check(&self, service: Arc<Service>) -> Pin<Box<dyn Future<Output = bool> + Send>> {
        Box::pin(self(service))
    }
}

impl fmt::Debug for dyn CheckFn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CheckFn")
    }
}

/// A task that ends with whoever waits for it.
struct Ends(JoinHandle<bool>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Carries a check out. Whoever waits for it knows how long.
pub(super) async fn well(
    handle: Handle,
    service: Arc<Service>,
    check: Check,
    custom: Option<Arc<dyn CheckFn>>,
    timeout: Duration,
) -> bool {
    let node = service.node();
    let answer = match check {
        Check::Alive if *node == handle.pid().node => return handle.node().is_process_alive(&service.pid),
        Check::Alive => {
            let pid = vec![Term::from(&service.pid)];
            handle.erpc(node, "erlang", "is_process_alive", pid, timeout).await
        }
        Check::Call(request) => handle.call(&service.pid, request, timeout).await,
        Check::Apply { module, function, args } => {
            let args = std::iter::once(service.info()).chain(args).collect();
            handle.erpc(node, module.as_str(), function.as_str(), args, timeout).await
        }
        Check::Fun(fun) => {
            let args = vec![fun, Term::list([service.info()])];
            handle.erpc(node, "erlang", "apply", args, timeout).await
        }
        Check::Custom(_) => {
            let Some(custom) = custom else { return false };
            // In a task of its own: a function that panics has failed, and takes nothing along.
            let mut task = Ends(tokio::spawn(custom.check(service)));
            return (&mut task.0).await.unwrap_or(false);
        }
        _ => return false,
    };
    answer.is_ok_and(|answer| is_well(&answer))
}

/// `:ok`, `true` and `{:ok, _}`, as for `Foundation.HealthMonitor`.
fn is_well(answer: &Term) -> bool {
    let ok = |term: &Term| term.is_atom("ok");
    ok(answer) || answer.is_atom("true") || matches!(answer.as_tuple(), Some([first, _]) if ok(first))
}

/// Measures the load of this machine. What the system does not tell stays unknown.
pub(super) async fn measure() -> Sample {
    let read = || {
        let text = |name| std::fs::read_to_string(Path::new("/proc").join(name)).unwrap_or_default();
        Sample::parse(&text("stat"), &text("meminfo"), &text("loadavg"))
    };
    // /proc/stat takes milliseconds to make on a machine with many interrupts.
    tokio::task::spawn_blocking(read).await.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_as_well() {
        let pair = |first: &'static str| Term::from((Term::atom(first), Term::from(1)));
        for (answer, well) in [
            (Term::atom("ok"), true),
            (Term::atom("true"), true),
            (pair("ok"), true),
            (pair("error"), false),
            (Term::atom("false"), false),
            (Term::atom("nil"), false),
            (Term::from(1), false),
        ] {
            assert_eq!(is_well(&answer), well, "{answer:?}");
        }
    }

    #[tokio::test]
    #[cfg(target_os = "linux")]
    async fn this_machine_tells_its_load() {
        let sample = measure().await;
        let Sample {
            ticks: Some((busy, all)),
            processors: Some(_),
            memory: Some((free, memory)),
            average: Some(_),
            ..
        } = sample
        else {
            panic!("{sample:?}");
        };
        assert!(busy <= all && all > 0 && free <= memory && memory > 0, "{sample:?}");
    }
}

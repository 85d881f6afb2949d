//! What a child sees of its supervisor, and what the supervisor sees of it.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use foundation_cluster::supervisor::{ChildSpec, Part, StartId};
use foundation_proto::etf::{Atom, Reference, Term};
use tokio::sync::{Notify, mpsc};

use super::Shared;
use crate::process::{Handle, Outcome, Process, Reason};

/// What makes a child of one kind: a function that runs as the child's process.
pub(super) type Factory =
    Arc<dyn Fn(Start, Process) -> Pin<Box<dyn Future<Output = Reason> + Send>> + Send + Sync>;

/// A factory of a function.
pub(super) fn factory<F, R>(make: F) -> Factory
where
    F: Fn(Start, Process) -> R + Send + Sync + 'static,
    R: Future<Output: Outcome> + Send + 'static,
{
    Arc::new(move |start, process| {
        let body = make(start, process);
        Box::pin(async move { body.await.into_reason() })
    })
}

/// What a child is started with.
#[derive(Debug)]
pub struct Start {
    pub(super) id: StartId,
    pub(super) spec: Arc<ChildSpec>,
    pub(super) part: Part,
    pub(super) link: Arc<Link>,
    pub(super) shared: Arc<Shared>,
}

/// What a child and its supervisor tell each other.
#[derive(Debug)]
pub(super) struct Link {
    leaving: AtomicBool,
    told: Notify,
    listens: AtomicBool,
    /// The state that the child was started with, until it takes it.
    given: Mutex<Option<Term>>,
    /// The state that it leaves for its successor.
    left: Mutex<Option<Term>>,
}

impl Link {
    pub(super) fn new(state: Option<Term>) -> Self {
        Self {
            leaving: AtomicBool::new(false),
            told: Notify::new(),
            listens: AtomicBool::new(false),
            given: Mutex::new(state),
            left: Mutex::new(None),
        }
    }

    /// Asks the child for its state; `false` if it does not listen.
    pub(super) fn ask(&self) -> bool {
        self.leaving.store(true, Ordering::SeqCst);
        self.told.notify_waiters();
        self.listens.load(Ordering::SeqCst)
    }

    /// What the next one is to start with. A state that the child has not even taken is passed on.
    pub(super) fn state(&self) -> Option<Term> {
        let left = self.left.lock().unwrap_or_else(PoisonError::into_inner).take();
        left.or_else(|| self.given.lock().unwrap_or_else(PoisonError::into_inner).take())
    }
}

impl Start {
    /// What the child is known by.
    pub fn id(&self) -> &Term {
        &self.spec.id
    }

    /// Which of the processes of the child this is.
    pub fn part(&self) -> &Part {
        &self.part
    }

    /// What the specification says that it is given.
    pub fn argument(&self) -> &Term {
        &self.spec.argument
    }

    /// The whole specification.
    pub fn spec(&self) -> &ChildSpec {
        &self.spec
    }

    /// The state that its predecessor has left; `None` if there was none, it was lost with its node, or it was taken before. A child that
    /// is to move on before it has taken it takes it along.
    pub fn take_state(&self) -> Option<Term> {
        self.link.given.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits until the child is to go to another node. It should then [`hand_off`](Start::hand_off) and end, within
    /// [`ChildSpec::shutdown`]. A child that does not wait for this is told to end by the exit signal `shutdown`, and what it was
    /// doing is lost.
    pub async fn leaving(&self) {
        self.link.listens.store(true, Ordering::SeqCst);
        loop {
            let told = self.link.told.notified();
            if self.link.leaving.load(Ordering::SeqCst) {
                return;
            }
            told.await;
        }
    }

    /// Leaves a state for the next one. The child returns what this returns.
    #[must_use = "the child ends with this reason"]
    pub fn hand_off(&self, state: impl Into<Term>) -> Reason {
        *self.link.left.lock().unwrap_or_else(PoisonError::into_inner) = Some(state.into());
        Reason::SHUTDOWN
    }

    /// Whether the child still has its lease: nobody else runs it at this moment. Always true for a child that needs none. One that is
    /// held up for long asks this before each act that must not be done twice.
    pub fn may_act(&self) -> bool {
        self.shared.may_act(self.id)
    }
}

/// A child of this node.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) handle: Handle,
    pub(super) monitor: Reference,
    pub(super) link: Arc<Link>,
    /// Why it ended, once that is known.
    pub(super) reason: Option<Reason>,
    /// Whether its function is gone, so that nothing of it runs any more.
    pub(super) gone: bool,
}

/// Says that the function of a child is gone, however that came about.
#[derive(Debug)]
pub(super) struct Guard(pub(super) StartId, pub(super) mpsc::UnboundedSender<StartId>);

impl Drop for Guard {
    fn drop(&mut self) {
        // The supervisor may have ended with its node.
        let _ = self.1.send(self.0);
    }
}

/// A factory that the supervisor is told of.
pub(super) struct NewFactory {
    pub(super) name: Atom,
    pub(super) make: Factory,
}

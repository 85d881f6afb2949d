//! What a visible node does about the `Horde.DynamicSupervisor`s that take it for a member (`members: :auto`).
//!
//! A supervisor that counts this node also compares its map with this node's: it sends to `Supervisor.Crdt` here, at once and
//! at each beat of 300 ms. A message to such a name that nobody has is therefore the sign. The sender's map is asked whether
//! the sender says in it how it is, as only a `Horde.DynamicSupervisor` does; if so, this node answers for the supervisor from
//! then on ([`HordeSupervisor`](super::supervisor::HordeSupervisor)). A `Horde.Registry` needs no answer: it asks nothing of its
//! members.
//!
//! At each connection the other node is asked again for all supervisors that are known, before its first message comes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use foundation_cluster::registry::horde::supervisor::record_key;
use foundation_cluster::registry::horde::{Member, map_name};
use foundation_proto::etf::{Atom, Term};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::event::Event;
use crate::net_kernel::NodeType;
use crate::node::{Node, NodeInner};
use crate::process::Process;

/// Names that were addressed and wait to be looked at. What is too much comes again with the next beat.
const ADDRESSED: usize = 64;
/// Supervisors that a node answers for without having been told to.
const SUPERVISORS: usize = 64;
/// Questions that are not answered yet.
const ASKED: usize = 64;
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// How long a node whose map is none of a supervisor is not asked for it again.
const AGAIN: Duration = Duration::from_secs(30);
/// So many such answers are remembered.
const REMEMBERED: usize = 1024;

/// Where messages to maps that are not there are told of.
#[derive(Debug, Default)]
pub(crate) struct Auto(OnceLock<mpsc::Sender<Member>>);

impl Auto {
    /// A message from a node came for a name that nobody has.
    pub(crate) fn addressed(&self, node: &Arc<NodeInner>, from: &Atom, name: &Atom) {
        let Some(supervisor) = name.as_str().strip_suffix(".Crdt") else { return };
        if node.config.hidden || !node.config.horde {
            return;
        }
        let Ok(name) = Atom::new(supervisor) else { return };
        let listener = self.0.get_or_init(|| listen(node));
        // What does not fit comes again.
        let _ = listener.try_send(Member { name, node: from.clone() });
    }
}

/// Starts the task behind it.
fn listen(node: &Arc<NodeInner>) -> mpsc::Sender<Member> {
    let (sender, inbox) = mpsc::channel(ADDRESSED);
    let node = Node::from_inner(Arc::clone(node));
    match node.process() {
        Ok(process) => {
            let asker = Asker {
                node: node.clone(),
                process,
                asked: BTreeSet::new(),
                without: BTreeMap::new(),
                full: false,
            };
            node.inner().runtime.spawn(asker.run(inbox));
        }
        Err(error) => warn!(%error, "supervisors of Horde that count this node are not answered"),
    }
    sender
}

struct Asker {
    node: Node,
    /// Ends with the node.
    process: Process,
    /// Those of which the answer is awaited.
    asked: BTreeSet<Member>,
    /// Those that are not there, and until when that is taken for true.
    without: BTreeMap<Member, Instant>,
    /// Whether it was said that there are too many.
    full: bool,
}

/// Whether it is a supervisor; `None` if that is not known.
type Answer = (Member, Option<bool>);

impl Asker {
    async fn run(mut self, mut inbox: mpsc::Receiver<Member>) {
        let (answer, mut answers) = mpsc::channel(ASKED);
        let mut events = self.node.events();
        loop {
            tokio::select! {
                message = self.process.recv() => if message.is_err() {
                    return;
                },
                Some(member) = inbox.recv() => self.ask(member, &answer),
                Some((member, found)) = answers.recv() => self.answered(member, found).await,
                event = events.next() => match event {
                    Some(Event::NodeUp { node, hidden: false, .. }) => self.ask_for_all(&node, &answer),
                    Some(Event::NodeDown { node, .. }) => self.without.retain(|member, _| member.node != node),
                    Some(Event::Missed(_)) => {
                        for node in self.node.inner().net_kernel.nodes(NodeType::Visible) {
                            self.ask_for_all(&node, &answer);
                        }
                    }
                    Some(_) => {}
                    None => return,
                },
            }
        }
    }

    fn ask_for_all(&mut self, node: &Atom, answer: &mpsc::Sender<Answer>) {
        for name in self.node.horde_supervisors() {
            self.ask(Member { name, node: node.clone() }, answer);
        }
    }

    fn ask(&mut self, member: Member, answer: &mpsc::Sender<Answer>) {
        let now = Instant::now();
        if self.without.get(&member).is_some_and(|until| now < *until)
            || self.asked.len() >= ASKED
            || !self.asked.insert(member.clone())
        {
            return;
        }
        let (node, answer) = (self.node.clone(), answer.clone());
        self.node.inner().runtime.spawn(async move {
            let found = is_supervisor(&node, &member).await;
            // The node may have stopped.
            let _ = answer.send((member, found)).await;
        });
    }

    async fn answered(&mut self, member: Member, found: Option<bool>) {
        self.asked.remove(&member);
        let Some(found) = found else { return };
        if !found {
            if self.without.len() >= REMEMBERED {
                self.without.clear();
            }
            self.without.insert(member, Instant::now() + AGAIN);
            return;
        }
        let name = member.name.as_str();
        let known = self.node.horde_supervisors();
        if !known.contains(&member.name) {
            if known.len() >= SUPERVISORS {
                if !std::mem::replace(&mut self.full, true) {
                    warn!(
                        name,
                        max = SUPERVISORS,
                        "too many supervisors of Horde: this one is not answered, and counts this node"
                    );
                }
                return;
            }
            info!(
                name,
                node = member.node.as_str(),
                "a supervisor of Horde is told that no children run here"
            );
        }
        let met = match self.node.horde_supervisor_of(&member.name) {
            Ok(supervisor) => supervisor.met(member.node.clone()).await,
            Err(error) => Err(error),
        };
        if let Err(error) = met {
            warn!(name, %error, "a supervisor of Horde that counts this node is not answered");
        }
    }
}

/// Whether a node has a supervisor of this name; `None` if it did not say.
async fn is_supervisor(node: &Node, member: &Member) -> Option<bool> {
    let map = map_name(&member.name)?;
    let read = Term::tuple([Term::atom("read"), Term::list([record_key(member).0])]);
    match node.call((map, member.node.clone()), read, ANSWER).await {
        Ok(Term::Map(found)) => Some(!found.is_empty()),
        Ok(_) => Some(false),
        Err(error) => {
            debug!(node = member.node.as_str(), %error, "not asked for a supervisor");
            None
        }
    }
}

//! Which node is connected through which link, and connecting on demand (kernel's `net_kernel`).
//!
//! # The table of peers
//! Readers of [`NetKernel::link`] see a snapshot and take no lock; it changes only when a link comes or goes. Behind it
//! stands one entry per peer:
//!
//! ```text
//!                dial, or a handshake accepted                signal::up
//!   (none) ──────────────────────────────────────► setting up ──────────► up ──┐
//!      ▲                                                │                       │ the reader ends
//!      │             refused, failed, timed out         │      signal::down     ▼
//!      └────────────────────────────────────────────────┴──────────────── going down ──► (redial)
//! ```
//!
//! # Invariants
//! 1. A peer has at most one link; there is no `up` before the `down` of the link before it has been delivered.
//! 2. At most one dial per peer is in flight; whoever wants the peer meanwhile waits for that one.
//! 3. A connection that has not proved the cookie changes nothing here: a spoofed name neither ends a link nor stops a dial.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use foundation_proto::dist::NodeName;
use foundation_proto::dist::handshake::{Decision, PeerState, Verdict, decide};
use foundation_proto::etf::Atom;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::AbortHandle;
use tracing::{Instrument, debug, info, info_span};

use crate::config::{DistAutoConnect, Reconnect};
use crate::net::endpoint::{Identity, ListeningSlot};
use crate::net::{ConnectError, DownReason, Established, Link, dialer};
use crate::node::NodeInner;
use crate::process::AtomHash;
use crate::{random, signal};

/// The first time between the beginnings of two dials of a lost peer, and what it doubles to; each is drawn from the upper half.
/// A connection that was reset while both nodes live is back at once so, and who stays away costs three dials more.
const REDIAL_FIRST: Duration = Duration::from_millis(100);
const REDIAL_MOST: Duration = Duration::from_millis(500);

/// A connection that lasted less long was none: its peer is dialled as one that stays away. So two nodes which end each other's
/// connections do so four times a second at the most.
const REDIAL_STEADY: Duration = REDIAL_MOST;

/// For how long a lost peer is dialled as often as that.
const REDIAL_OFTEN: Duration = Duration::from_secs(600);

/// How long a connection to the port of the EPMD, or of the node, may take to come about in such a dial. Into a partition the
/// system sends again after 1, 3 and 7 s only, so one attempt that waits would be later than the next that does not. Not less than
/// [`REDIAL_MOST`]: the next begins when one is given up, so that at any time one is under way that a heal lets through.
const REDIAL_CONNECT: Duration = REDIAL_MOST;

/// The last part of the time in which somebody waits for a lost peer: one attempt has all of it, for peers whose packets take longer
/// than [`REDIAL_CONNECT`].
const LAST_ATTEMPT: Duration = Duration::from_secs(2);

/// How often one of these dials waits as long as any other, for peers whose packets take longer than that.
const REDIAL_PATIENT: Duration = Duration::from_secs(60);

/// The most that the pause between two dials grows to after that.
const REDIAL_SLOWEST: Duration = Duration::from_secs(30);

/// How long a dial waits for a connection that the peer is setting up already. Two that succeed at once would each end the
/// other. Bounded, because whoever is setting it up has not proved that it is the peer.
const PEER_GOES_FIRST: Duration = Duration::from_secs(2);

/// The first pause for a peer that was never reached, or that refuses this node.
const FIRST_BACK_OFF: Duration = Duration::from_millis(500);

type Outcome = Result<Arc<Link>, ConnectError>;

/// The links of a node, and how it gets them.
pub struct NetKernel {
    identity: Identity,
    links: ArcSwap<HashMap<Atom, Arc<Link>, AtomHash>>,
    peers: Mutex<BTreeMap<Atom, Peer>>,
    /// One link is put in place at a time, because that may have to wait for another one to go.
    installing: tokio::sync::Mutex<()>,
    dials: Semaphore,
    /// Those of lost peers have places of their own: most of them wait for an answer that does not come.
    redials: Semaphore,
    /// An accepted handshake has come to its end.
    accepted: Notify,
    /// With `dist_auto_connect` = `once`: the peers that were connected before.
    met: Mutex<BTreeSet<Atom>>,
    stopping: AtomicBool,
    node: OnceLock<Weak<NodeInner>>,
    pub(crate) listening: ListeningSlot,
}

/// What is known of one peer.
#[derive(Default)]
struct Peer {
    /// Up, or going down and not yet delivered.
    link: Option<Arc<Link>>,
    dial: Option<Dial>,
    /// Accepted handshakes that are under way; each has a number.
    accepting: usize,
    /// One of them will replace the link.
    replacing: bool,
    redial: Option<AbortHandle>,
    /// Since when it is up, or was when it was up last.
    up_since: Option<Instant>,
    /// Nobody wants it back once it is lost.
    released: bool,
    /// A dial has led to it before, or its EPMD knows it. Nobody can dial a command that came and went without a name there.
    can_be_dialled: bool,
}

/// A dial in flight.
struct Dial {
    number: u64,
    stage: Stage,
    task: AbortHandle,
    outcome: watch::Sender<Option<Outcome>>,
}

/// Why a peer is dialled.
#[derive(Clone, Copy)]
enum Urge {
    /// Somebody waits for it.
    Wanted,
    /// The same, but it was lost and is dialled again and again: who joins this dial shall not be later for it.
    WantedBack,
    /// It was lost. Each TCP connection may take so long to come about.
    Lost(Duration),
}

/// How far a dial has come.
enum Stage {
    /// The peer has heard nothing yet.
    LookingUp,
    /// The peer knows of it.
    Dialled,
    /// The peer has refused it with `nok`: its own attempt goes first and is awaited.
    GivesWay,
    /// It has failed, but a connection of the peer is in its handshake and may still be what is waited for.
    Failed(ConnectError),
}

/// Which connected nodes to list (`erlang:nodes/1`).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum NodeType {
    /// Both sides are visible.
    Visible,
    /// At least one side is hidden.
    Hidden,
    /// Both kinds.
    Connected,
}

/// An accepted handshake that has named its peer. Dropped without [`NetKernel::install`], it leaves nothing behind.
pub(crate) struct Accepting<'a> {
    kernel: &'a NetKernel,
    peer: Atom,
    replaces: bool,
}

impl NetKernel {
    pub(crate) fn new(identity: Identity) -> Self {
        let [dials, redials] = [0; 2].map(|_| Semaphore::new(identity.config.limits.dials));
        Self {
            identity,
            links: ArcSwap::default(),
            peers: Mutex::default(),
            installing: tokio::sync::Mutex::default(),
            dials,
            redials,
            accepted: Notify::new(),
            met: Mutex::default(),
            stopping: AtomicBool::new(false),
            node: OnceLock::new(),
            listening: ListeningSlot::default(),
        }
    }

    /// Makes the node known to the tasks that will be started for it.
    pub(crate) fn attach(&self, node: &Arc<NodeInner>) {
        // A node attaches its own kernel once, right after both were made.
        let _already = self.node.set(Arc::downgrade(node));
    }

    /// Who this node is towards its peers.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The link to a connected node.
    pub fn link(&self, node: &Atom) -> Option<Arc<Link>> {
        self.links.load().get(node).cloned()
    }

    /// What `use_it` returns for the link to a connected node: for work that is too short to count a reference for it.
    #[inline]
    pub(crate) fn with_link<R>(&self, node: &Atom, use_it: impl FnOnce(&Link) -> R) -> Option<R> {
        self.links.load().get(node).map(|link| use_it(link))
    }

    /// The link to a connected node, or a new one. Whoever asks while a dial is under way shares its outcome.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn connect(&self, node: &Atom) -> Result<Arc<Link>, ConnectError> {
        match self.link(node) {
            Some(link) if !link.is_closing() => Ok(link),
            _ => self.dial(node, Urge::Wanted)?.await,
        }
    }

    /// As [`NetKernel::connect`], for a signal that is to be sent: kernel's parameter `dist_auto_connect` has a say.
    ///
    /// # Errors
    /// Why there is no connection.
    pub(crate) async fn auto_connect(&self, node: &Atom) -> Result<Arc<Link>, ConnectError> {
        match self.identity.config.dist_auto_connect {
            _ if self.link(node).is_some() => {}
            DistAutoConnect::True => {}
            DistAutoConnect::Once if !self.met_before(node) => {}
            DistAutoConnect::Once | DistAutoConnect::Never => return Err(ConnectError::NoAutoConnect),
        }
        self.connect(node).await
    }

    fn met_before(&self, node: &Atom) -> bool {
        self.met.lock().unwrap_or_else(PoisonError::into_inner).contains(node)
    }

    /// Remembers a peer where that matters. The names are those of peers that have proved the cookie.
    fn meet(&self, node: &Atom) {
        if self.identity.config.dist_auto_connect == DistAutoConnect::Once {
            self.met.lock().unwrap_or_else(PoisonError::into_inner).insert(node.clone());
        }
    }

    /// Joins the dial of this peer, or starts one.
    fn dial(&self, node: &Atom, urge: Urge) -> Result<impl Future<Output = Outcome> + use<>, ConnectError> {
        let name = NodeName::try_from(node)
            .map_err(|why| ConnectError::BadName { name: node.as_str().to_owned(), why })?;
        if name == self.identity.name {
            return Err(ConnectError::Self_);
        }
        let inner = self.node.get().and_then(Weak::upgrade).ok_or(ConnectError::Stopping)?;
        if self.stopping.load(Ordering::Acquire) {
            return Err(ConnectError::Stopping);
        }
        let mut peers = self.peers();
        let peer = peers.entry(node.clone()).or_default();
        let mut outcome = match &peer.dial {
            Some(dial) => dial.outcome.subscribe(),
            None => {
                let number = self.identity.next_number();
                let (sender, outcome) = watch::channel(None);
                let span = info_span!(parent: None, "dial", peer = name.as_str());
                let urge = match urge {
                    Urge::Wanted if peer.redial.is_some() => Urge::WantedBack,
                    urge => urge,
                };
                // It finds this entry, because it has to wait for the lock that is held here.
                let task = tokio::spawn(dial(inner, name, number, urge).instrument(span)).abort_handle();
                peer.dial = Some(Dial { number, stage: Stage::LookingUp, task, outcome: sender });
                outcome
            }
        };
        drop(peers);
        Ok(async move {
            match outcome.wait_for(Option::is_some).await {
                Ok(done) => done.clone().unwrap_or(Err(ConnectError::Stopping)),
                Err(_) => Err(ConnectError::Stopping),
            }
        })
    }

    /// The names of the connected nodes, in order.
    pub fn nodes(&self, which: NodeType) -> Vec<Atom> {
        let links = self.links.load();
        let mut names: Vec<Atom> = links
            .values()
            .filter(|link| match which {
                NodeType::Visible => !link.peer().hidden,
                NodeType::Hidden => link.peer().hidden,
                NodeType::Connected => true,
            })
            .map(|link| link.peer().name.clone())
            .collect();
        names.sort();
        names
    }

    /// The live links, in the order of the names of their peers.
    pub fn links(&self) -> Vec<Arc<Link>> {
        let mut links: Vec<Arc<Link>> = self.links.load().values().cloned().collect();
        links.sort_by(|a, b| a.peer().name.cmp(&b.peer().name));
        links
    }

    /// Ends the connection to a node and does not dial it again unasked (`erlang:disconnect_node/1`). `false` if there was
    /// none. When this returns, `nodedown` and what it causes have been delivered.
    pub async fn disconnect(&self, node: &Atom) -> bool {
        let link = {
            let mut peers = self.peers();
            let Some(peer) = peers.get_mut(node) else { return false };
            if let Some(redial) = peer.redial.take() {
                redial.abort();
            }
            peer.link.clone()
        };
        let Some(link) = link else { return false };
        link.close(DownReason::Disconnect);
        link.wait_down().await;
        true
    }

    /// Whoever wanted this node does not any more: a connection that lives stays, a lost one is not dialled again unasked.
    pub(crate) fn release(&self, node: &Atom) {
        let mut peers = self.peers();
        if let Some(entry) = peers.get_mut(node) {
            entry.released = true;
            if let Some(redial) = entry.redial.take() {
                redial.abort();
            }
        }
        forget_if_idle(&mut peers, node);
    }

    /// Ends all connections and takes no new ones. When this returns, every `nodedown` has been delivered.
    pub(crate) async fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        let links: Vec<Arc<Link>> = {
            let mut peers = self.peers();
            for peer in peers.values_mut() {
                if let Some(redial) = peer.redial.take() {
                    redial.abort();
                }
            }
            peers.values().filter_map(|peer| peer.link.clone()).collect()
        };
        for link in &links {
            link.close(DownReason::Shutdown);
        }
        for link in links {
            link.wait_down().await;
        }
    }

    // -- a peer connects to this node ------------------------------------------------------------------------------------

    /// Waits until a link to `peer` whose end is decided is gone. What is asked of the table then does not depend on how far
    /// the delivery of its `down` has come.
    pub(crate) async fn settled(&self, peer: &Atom) {
        let ending =
            self.peers().get(peer).and_then(|entry| entry.link.clone()).filter(|link| link.is_closing());
        if let Some(link) = ending {
            link.wait_down().await;
        }
    }

    /// Whether this node is about to end all its connections.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// What to answer a peer that has said its name, and if it is to go on, the mark that it does. One look at the table: a dial
    /// that begins meanwhile sees either none or both.
    pub(crate) fn consider(&self, peer: &NodeName) -> (Verdict, Option<Accepting<'_>>) {
        let mut peers = self.peers();
        let verdict =
            decide(&self.identity.name, peer, peers.get(peer.as_atom()).map_or(PeerState::Unknown, state_of));
        let replaces = verdict == Verdict::Decide(Decision::Alive);
        let goes_on = replaces
            || matches!(
                verdict,
                Verdict::GiveUpOwnAttempt | Verdict::Decide(Decision::Ok | Decision::OkSimultaneous)
            );
        let accepting = goes_on.then(|| {
            let entry = peers.entry(peer.as_atom().clone()).or_default();
            entry.accepting += 1;
            entry.replacing |= replaces;
            Accepting { kernel: self, peer: peer.as_atom().clone(), replaces }
        });
        (verdict, accepting)
    }

    /// Takes the link to `peer` down, if there is one: the peer has proved that it is the same node and has lost it.
    pub(crate) async fn replace(&self, peer: &Atom) {
        let old = self.peers().get(peer).and_then(|entry| entry.link.clone());
        if let Some(old) = old {
            old.close(DownReason::Replaced);
            old.wait_down().await;
        }
    }

    /// Whether one more peer may connect.
    pub(crate) fn has_room(&self) -> bool {
        self.links.load().len() < self.identity.config.limits.peers
    }

    // -- links come and go -----------------------------------------------------------------------------------------------

    /// Puts an established connection in place: everybody can find it, then `signal::up`, then it is read.
    ///
    /// `dial` is the number of the dial that led to it, if one did. Another one that is under way is over then: left alone, it
    /// would connect anew after a later disconnect.
    pub(crate) async fn install(
        &self,
        node: &Arc<NodeInner>,
        established: Established,
        dial: Option<u64>,
    ) -> Arc<Link> {
        let _one_at_a_time = self.installing.lock().await;
        let name = established.peer().clone();
        // Both sides may have come to think that theirs is the one that survives. The later proof wins; what matters is
        // that there is no `up` before the `down` of the other.
        self.replace(&name).await;
        let (link, start) = established.into_link(&self.identity);
        {
            let mut peers = self.peers();
            let entry = peers.entry(name.clone()).or_default();
            entry.link = Some(Arc::clone(&link));
            entry.up_since = Some(Instant::now());
            entry.released = false;
            entry.can_be_dialled = dial.is_some();
            if let Some(redial) = entry.redial.take() {
                redial.abort();
            }
        }
        self.meet(&name);
        self.links.rcu(|links| {
            let mut links = HashMap::clone(links);
            links.insert(name.clone(), Arc::clone(&link));
            links
        });
        // Whoever hears of it finds it in `nodes`; a `down` cannot be first, because only the reader tells that.
        signal::up(node, &link);
        let kind = if link.peer().hidden { "hidden" } else { "visible" };
        info!(parent: start.span(), kind, "nodeup");
        start.run(node);
        // Only now: whoever asked for a connection before the link could be found has joined this dial, or begun it.
        let waited_for = self.peers().get_mut(&name).and_then(|entry| entry.dial.take());
        if let Some(waited_for) = waited_for {
            if dial != Some(waited_for.number) {
                waited_for.task.abort();
            }
            waited_for.outcome.send_replace(Some(Ok(Arc::clone(&link))));
        }
        if dial.is_none() && self.identity.config.reconnect != Reconnect::Never {
            tokio::spawn(look_up(Arc::downgrade(node), Arc::clone(&link)));
        }
        if self.stopping.load(Ordering::Acquire) {
            link.close(DownReason::Shutdown);
        }
        link
    }

    /// Nobody finds this link any more. Called by its reader before the `down` is delivered.
    pub(crate) fn withdraw(&self, link: &Arc<Link>) {
        self.links.rcu(|links| {
            let mut links = HashMap::clone(links);
            if links.get(&link.peer().name).is_some_and(|current| Arc::ptr_eq(current, link)) {
                links.remove(&link.peer().name);
            }
            links
        });
    }

    /// The `down` of this link has been delivered: the peer may come back, or is dialled again.
    pub(crate) fn down(&self, link: &Arc<Link>, reason: &DownReason) {
        let name = &link.peer().name;
        let mut peers = self.peers();
        if let Some(entry) = peers.get_mut(name) {
            entry.link = None;
            let lost = !reason.is_deliberate() && *reason != DownReason::Replaced && !entry.released;
            if lost
                && entry.can_be_dialled
                && self.identity.config.reconnect != Reconnect::Never
                && !self.stopping.load(Ordering::Acquire)
            {
                let steady = entry.up_since.is_some_and(|since| since.elapsed() >= REDIAL_STEADY);
                self.redial(name, entry, Some(if steady { REDIAL_FIRST } else { REDIAL_MOST }));
            }
        }
        forget_if_idle(&mut peers, name);
        drop(peers);
        link.set_down();
    }

    /// `first` is the step of the first pause, if the peer was up.
    fn redial(&self, name: &Atom, entry: &mut Peer, first: Option<Duration>) {
        if entry.redial.is_some() {
            return;
        }
        let Some(node) = self.node.get().and_then(Weak::upgrade) else { return };
        let span = info_span!(parent: None, "redial", peer = name.as_str());
        entry.redial = Some(tokio::spawn(redial(node, name.clone(), first).instrument(span)).abort_handle());
    }

    /// The peer is about to hear of this dial. Waits first for a connection that the peer is setting up already, but not for
    /// long; if that succeeds, this dial is over. `false` if it is: the peer must not hear of it then, for it would take
    /// its name for a newer attempt and give up the connection that it has just made.
    pub(crate) async fn dialled(&self, peer: &Atom, number: u64) -> bool {
        let peer_goes_first = async {
            loop {
                let accepted = self.accepted.notified();
                tokio::pin!(accepted);
                accepted.as_mut().enable();
                if let Some(goes_on) = self.dialled_alone(peer, number, false) {
                    return goes_on;
                }
                accepted.await;
            }
        };
        match tokio::time::timeout(PEER_GOES_FIRST, peer_goes_first).await {
            Ok(goes_on) => goes_on,
            Err(_) => self.dialled_alone(peer, number, true).unwrap_or(false),
        }
    }

    /// Marks the dial as known to the peer and says whether it goes on. `None` while the peer is setting up a connection,
    /// unless that is to be ignored.
    ///
    /// A dial that has been ended runs on up to its next wait. So it has to look here, in the table, whether it is still wanted.
    fn dialled_alone(&self, peer: &Atom, number: u64, ignore_accepting: bool) -> Option<bool> {
        match self.peers().get_mut(peer) {
            Some(Peer { link: None, dial: Some(dial), accepting, .. }) if dial.number == number => {
                if *accepting > 0 && !ignore_accepting {
                    return None;
                }
                dial.stage = Stage::Dialled;
                Some(true)
            }
            _ => Some(false),
        }
    }

    /// The peer prefers its own attempt to this dial.
    pub(crate) fn gives_way(&self, peer: &Atom, number: u64) {
        self.set_stage(peer, number, Stage::GivesWay);
    }

    fn set_stage(&self, peer: &Atom, number: u64, stage: Stage) {
        if let Some(dial) = self.peers().get_mut(peer).and_then(|entry| entry.dial.as_mut())
            && dial.number == number
        {
            dial.stage = stage;
        }
    }

    /// Whether a dial should replace a connection that only the peer still believes in. Not if there is a link, or one is
    /// being set up from the other side: then the peer's belief is the newer one.
    pub(crate) fn should_replace(&self, peer: &Atom) -> bool {
        self.peers().get(peer).is_none_or(|entry| entry.link.is_none() && entry.accepting == 0)
    }

    /// A dial has ended without a link.
    fn dial_failed(&self, name: &Atom, number: u64, error: ConnectError) {
        let mut peers = self.peers();
        if let Some(entry) = peers.get_mut(name) {
            match &mut entry.dial {
                Some(dial) if dial.number == number && entry.accepting > 0 => {
                    dial.stage = Stage::Failed(error);
                    return;
                }
                Some(dial) if dial.number == number => {
                    // The peer may have come by itself in the meantime, and what was asked for is there.
                    let link = entry.link.as_ref().filter(|link| !link.is_closing());
                    dial.outcome.send_replace(Some(link.map_or(Err(error), |link| Ok(Arc::clone(link)))));
                    entry.dial = None;
                }
                _ => {}
            }
            self.redial_always(name, entry);
        }
        forget_if_idle(&mut peers, name);
    }

    fn redial_always(&self, name: &Atom, entry: &mut Peer) {
        let always = self.identity.config.reconnect == Reconnect::Always;
        if always && entry.link.is_none() && !self.stopping.load(Ordering::Acquire) {
            let first = entry.up_since.map(|_| REDIAL_MOST);
            self.redial(name, entry, first);
        }
    }

    fn peers(&self) -> MutexGuard<'_, BTreeMap<Atom, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the table says about a peer, in the words of the rule for simultaneous connections.
fn state_of(entry: &Peer) -> PeerState {
    match (&entry.link, &entry.dial) {
        (Some(_), _) if entry.replacing => PeerState::Replacing,
        (Some(_), _) => PeerState::Connected,
        (None, Some(Dial { stage: Stage::Dialled, .. })) => PeerState::Dialled,
        (None, Some(Dial { stage: Stage::LookingUp, .. })) => PeerState::LookingUp,
        // The attempt we wait for since we were told `nok`, or one more beside another.
        (None, _) if entry.accepting > 0 => PeerState::Accepting,
        (None, _) => PeerState::Unknown,
    }
}

/// An entry is kept as long as it says something; otherwise names that were tried would pile up.
fn forget_if_idle(peers: &mut BTreeMap<Atom, Peer>, name: &Atom) {
    if peers.get(name).is_some_and(|peer| {
        peer.link.is_none() && peer.dial.is_none() && peer.accepting == 0 && peer.redial.is_none()
    }) {
        peers.remove(name);
    }
}

impl Accepting<'_> {
    /// The peer's name.
    pub(crate) fn peer(&self) -> &Atom {
        &self.peer
    }
}

impl Drop for Accepting<'_> {
    fn drop(&mut self) {
        let mut peers = self.kernel.peers();
        if let Some(entry) = peers.get_mut(&self.peer) {
            entry.accepting -= 1;
            if self.replaces {
                entry.replacing = false;
            }
            if entry.accepting == 0
                && let Some(dial) = entry.dial.take_if(|dial| matches!(dial.stage, Stage::Failed(_)))
            {
                if let Stage::Failed(error) = dial.stage {
                    dial.outcome.send_replace(Some(Err(error)));
                }
                self.kernel.redial_always(&self.peer, entry);
            }
        }
        forget_if_idle(&mut peers, &self.peer);
        drop(peers);
        self.kernel.accepted.notify_waiters();
    }
}

/// One dial, from the look-up to the link.
async fn dial(node: Arc<NodeInner>, name: NodeName, number: u64, urge: Urge) {
    let kernel = &node.net_kernel;
    let peer = name.as_atom().clone();
    let step_timeout = kernel.identity.step_timeout();
    let slots = match urge {
        Urge::Wanted | Urge::WantedBack => &kernel.dials,
        Urge::Lost(_) => &kernel.redials,
    };
    debug!("dialling");
    let result = async {
        kernel.settled(&peer).await;
        // Fails only if the semaphore is closed, which nobody does.
        let _slot = slots.acquire().await.map_err(|_| ConnectError::Stopping)?;
        let until = Instant::now() + step_timeout;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let connect = match urge {
                Urge::Wanted => step_timeout,
                Urge::WantedBack if left > LAST_ATTEMPT => REDIAL_CONNECT.min(step_timeout),
                Urge::WantedBack => left,
                Urge::Lost(connect) => connect,
            };
            match dialer::dial(kernel, &name, number, connect).await {
                Err(ConnectError::TimedOut { .. })
                    if matches!(urge, Urge::WantedBack) && Instant::now() < until => {}
                outcome => break outcome,
            }
        }
    }
    .await;
    match result {
        Ok(established) => {
            kernel.install(&node, established, Some(number)).await;
        }
        Err(error) => {
            debug!(%error, "not connected");
            if error.is_nok() {
                // The peer's own attempt is on its way; when it is up, this task is ended.
                tokio::time::sleep(kernel.identity.step_timeout()).await;
            }
            kernel.dial_failed(&peer, number, error);
        }
    }
}

/// Finds out, while a peer that has connected to us is up, whether we could dial it should it get lost.
async fn look_up(node: Weak<NodeInner>, link: Arc<Link>) {
    let Some(kernel) = node.upgrade() else { return };
    let Ok(name) = NodeName::try_from(&link.peer().name) else { return };
    let found = dialer::is_registered(&kernel.net_kernel.identity.config, &name).await;
    if found && let Some(entry) = kernel.net_kernel.peers().get_mut(&link.peer().name) {
        entry.can_be_dialled = true;
    }
}

/// When a peer is dialled again, and how long that waits for an answer.
struct Pace {
    since: Instant,
    /// When the latest dial began.
    began: Instant,
    /// The longest that the next pause may be; `None` if it was never up.
    step: Option<Duration>,
    back_off: Duration,
    patient_at: Instant,
    refused: bool,
}

impl Pace {
    fn new(now: Instant, first: Option<Duration>) -> Self {
        let patient_at = now + REDIAL_PATIENT;
        Self { since: now, began: now, step: first, back_off: FIRST_BACK_OFF, patient_at, refused: false }
    }

    /// The step of the next pause, if the peer is dialled often.
    fn often(&mut self, now: Instant) -> Option<&mut Duration> {
        self.step.as_mut().filter(|_| !self.refused && now < self.since + REDIAL_OFTEN)
    }

    /// How long to wait before the next dial.
    fn pause(&mut self, now: Instant) -> Duration {
        let waited = now.saturating_duration_since(self.began);
        if let Some(step) = self.often(now) {
            // A dial that waited in vain for an answer has taken the time of the pause.
            let pause = random::between(*step / 2, *step).saturating_sub(waited);
            *step = (*step * 2).min(REDIAL_MOST);
            return pause;
        }
        self.back_off = (self.back_off * 2).min(REDIAL_SLOWEST);
        random::between(Duration::ZERO, self.back_off)
    }

    /// A dial begins. How long each of its TCP connections may take to come about, at most `most`.
    fn begins(&mut self, now: Instant, most: Duration) -> Duration {
        self.began = now;
        if self.often(now).is_some() && now < self.patient_at {
            return most.min(REDIAL_CONNECT);
        }
        self.patient_at = now + REDIAL_PATIENT;
        most
    }
}

/// Dials a peer until it is up again or nobody wants it any more.
async fn redial(node: Arc<NodeInner>, peer: Atom, first: Option<Duration>) {
    let mut pace = Pace::new(Instant::now(), first);
    // Held weakly in the pauses: a node that is dropped must not be kept alive by what it tries.
    let weak = Arc::downgrade(&node);
    drop(node);
    loop {
        tokio::time::sleep(pace.pause(Instant::now())).await;
        let Some(node) = weak.upgrade() else { return };
        // The dial itself is a task of its own: aborting this one, when the peer comes by itself, must not end it.
        let connect = pace.begins(Instant::now(), node.net_kernel.identity.step_timeout());
        let Ok(outcome) = node.net_kernel.dial(&peer, Urge::Lost(connect)) else { return };
        drop(node);
        match outcome.await {
            Ok(_) => return,
            Err(error) if error.is_final() => {
                info!(%error, "not dialling this peer again");
                break;
            }
            // It is there and does not want us: that will not change within the second.
            Err(error) => pace.refused = error.is_refusal(),
        }
    }
    if let Some(node) = weak.upgrade() {
        let mut peers = node.net_kernel.peers();
        if let Some(entry) = peers.get_mut(&peer) {
            entry.redial = None;
        }
        forget_if_idle(&mut peers, &peer);
    }
}

impl std::fmt::Debug for NetKernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NetKernel")
            .field("connected", &self.nodes(NodeType::Connected))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_secs(7);
    const FAST: Duration = Duration::from_millis(1);

    /// How long after the loss the dials begin, if each comes to nothing after `took`.
    fn begun(pace: &mut Pace, dials: usize, took: Duration) -> Vec<Duration> {
        let mut now = pace.began;
        (0..dials)
            .map(|_| {
                now += pace.pause(now);
                pace.begins(now, MOST);
                let begun = now.duration_since(pace.since);
                now += took;
                begun
            })
            .collect()
    }

    #[test]
    fn a_lost_peer_is_dialled_soon_and_then_less_often() {
        let mut pace = Pace::new(Instant::now(), Some(REDIAL_FIRST));
        let begun = begun(&mut pace, 8, FAST);
        let ms = |ms| Duration::from_millis(ms);
        assert!((ms(50)..=ms(100)).contains(&begun[0]), "{begun:?}");
        let between: Vec<Duration> = begun.windows(2).map(|two| two[1] - two[0]).collect();
        for (pause, most) in between.iter().zip([200, 400, 500, 500, 500, 500, 500]) {
            assert!((ms(most / 2)..=ms(most)).contains(pause), "{between:?}");
        }
        let mut pace = Pace::new(Instant::now(), Some(REDIAL_MOST));
        assert!(pace.pause(pace.began) >= REDIAL_MOST / 2, "a connection that did not last");
    }

    #[test]
    fn whoever_does_not_answer_is_waited_for_all_the_time() {
        let mut pace = Pace::new(Instant::now(), Some(REDIAL_FIRST));
        let begun = begun(&mut pace, 50, REDIAL_CONNECT);
        assert!(begun.windows(2).all(|two| two[1] - two[0] == REDIAL_CONNECT), "{begun:?}");
    }

    #[test]
    fn now_and_then_a_dial_is_patient_and_after_ten_minutes_dials_are_few() {
        let mut pace = Pace::new(Instant::now(), Some(REDIAL_FIRST));
        let since = pace.since;
        assert_eq!(pace.begins(since, MOST), REDIAL_CONNECT);
        assert_eq!(pace.begins(since + REDIAL_PATIENT, MOST), MOST);
        assert_eq!(pace.begins(since + REDIAL_PATIENT + FAST, MOST), REDIAL_CONNECT);
        assert_eq!(pace.begins(since + REDIAL_OFTEN, MOST), MOST);
        let at = since + REDIAL_OFTEN;
        let pauses: Vec<Duration> = (0..1000).map(|_| pace.pause(at)).collect();
        assert!(pauses.iter().all(|pause| *pause <= REDIAL_SLOWEST), "{pauses:?}");
        assert!(pauses.iter().any(|pause| *pause > REDIAL_SLOWEST / 2), "{pauses:?}");
    }

    #[test]
    fn whoever_refuses_or_was_never_up_is_dialled_with_growing_pauses() {
        let mut refused = Pace::new(Instant::now(), Some(REDIAL_FIRST));
        refused.refused = true;
        for mut pace in [refused, Pace::new(Instant::now(), None)] {
            let at = pace.since;
            assert_eq!(pace.begins(at, MOST), MOST);
            assert!(pace.pause(at) <= FIRST_BACK_OFF * 2);
            assert_eq!(pace.back_off, FIRST_BACK_OFF * 2);
        }
    }
}

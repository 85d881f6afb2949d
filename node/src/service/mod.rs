//! Hosts of the cluster machines: each runs one machine of `foundation-cluster` in a process of this node.
//!
//! A service is started when it is first asked for, once per name, and lives as long as the node.
//!
//! | module | what |
//! |---|---|
//! | [`changes`] | what services tell whoever listens |
//! | [`channels`] | classes of traffic over topics, with delivery promises between our own nodes |
//! | [`global`] | names and locks, shared with OTP's `global` |
//! | [`delta_crdt`] | replicated maps, shared with `DeltaCrdt` |
//! | [`horde`] | names, shared with `Horde.Registry`; what this node is to a `Horde.DynamicSupervisor` |
//! | [`lease`] | names that never have two holders, by a majority of configured members |
//! | [`mesh`] | services of our own nodes: found, checked, chosen |
//! | [`monitors`] | the monitors of a machine, by its numbers |
//! | [`pg`] | process groups, shared with OTP's `pg` scopes |
//! | [`pubsub`] | topics, shared with Phoenix.PubSub |
//! | [`registry`] | names between our own nodes, with values, unique or duplicate |
//! | [`supervisor`] | children that run once in the cluster, once a node, or in parts |
//! | [`table`] | what is found under the keys of a registry, read without a lock |
//! | [`tracker`] | presences, shared with Phoenix.Tracker and Phoenix.Presence |

pub mod changes;
pub mod channels;
pub mod delta_crdt;
pub mod global;
pub mod horde;
pub mod lease;
pub mod mesh;
mod monitors;
pub mod pg;
pub mod pubsub;
pub mod registry;
pub mod supervisor;
mod table;
pub mod tracker;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use foundation_cluster::names::To;
use foundation_proto::etf::{Atom, RawTerm, Term};
use tracing::{debug, warn};

use channels::Channels;
use delta_crdt::DeltaCrdt;
use horde::HordeRegistry;
use horde::client::HordeClient;
use horde::supervisor::HordeSupervisor;
use lease::Leases;
use mesh::Mesh;
use pg::Groups;
use pubsub::PubSub;
use registry::{Config, Keys, Registry};
use supervisor::Supervisor;
use tracker::{Options, Tracker};

use crate::error::{Error, Result};
use crate::gen_server::CallFrom;
use crate::node::Node;
use crate::process::{Dest, Handle};

/// The services that a node has started.
#[derive(Debug, Default)]
pub(crate) struct Services {
    groups: Mutex<BTreeMap<Atom, Groups>>,
    pub(crate) global: global::Slot,
    pubsubs: Mutex<BTreeMap<Atom, PubSub>>,
    channels: Mutex<Option<Channels>>,
    maps: Mutex<BTreeMap<Atom, DeltaCrdt>>,
    registries: Mutex<BTreeMap<Atom, HordeRegistry>>,
    supervisors: Mutex<BTreeMap<Atom, HordeSupervisor>>,
    pub(crate) auto: horde::auto::Auto,
    leases: Mutex<BTreeMap<Atom, Leases>>,
    meshes: Mutex<BTreeMap<Atom, Mesh>>,
    names: Mutex<BTreeMap<Atom, Registry>>,
    spread: Mutex<BTreeMap<Atom, Supervisor>>,
    trackers: Mutex<BTreeMap<Atom, Tracker>>,
}

impl Node {
    /// The process groups of a scope, shared with the `pg` scopes of the same name on all connected nodes. `"pg"` is OTP's
    /// default scope.
    ///
    /// # Errors
    /// [`Error::NameTaken`] if another process of this node has the name of the scope;
    /// [`Error::SystemLimit`].
    pub fn groups(&self, scope: &str) -> Result<Groups> {
        let scope = crate::node::atom(scope)?;
        let mut groups = self.inner().services.groups.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = groups.get(&scope).filter(|known| known.is_running()) {
            return Ok(known.clone());
        }
        let started = Groups::start(self, &scope)?;
        groups.insert(scope, started.clone());
        Ok(started)
    }

    /// The topics of a Phoenix.PubSub, shared with the PubSubs of the same name on all connected nodes. `"MyApp.PubSub"` and
    /// `"Elixir.MyApp.PubSub"` are the same name.
    ///
    /// # Errors
    /// As [`Node::groups`].
    pub fn pubsub(&self, name: &str) -> Result<PubSub> {
        let name = elixir_name(name)?;
        let mut pubsubs = self.inner().services.pubsubs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = pubsubs.get(&name).filter(|known| known.is_running()) {
            return Ok(known.clone());
        }
        let started = PubSub::start(self, &name)?;
        pubsubs.insert(name, started.clone());
        Ok(started)
    }

    /// The channels `control`, `events`, `telemetry` and `data`: topics of the PubSub `Foundation.PubSub`.
    ///
    /// # Errors
    /// As [`Node::groups`].
    pub fn channels(&self) -> Result<Channels> {
        let mut channels = self.inner().services.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = channels.as_ref().filter(|known| known.is_running()) {
            return Ok(known.clone());
        }
        let started = Channels::start(self)?;
        *channels = Some(started.clone());
        Ok(started)
    }

    /// A replicated map, which exchanges its writes with maps of this kind and with `DeltaCrdt` processes on BEAM nodes.
    /// `"MyApp.Map"` and `"Elixir.MyApp.Map"` are the same name.
    ///
    /// # Errors
    /// As [`Node::groups`].
    pub fn delta_crdt(&self, name: &str) -> Result<DeltaCrdt> {
        self.delta_crdt_of(elixir_name(name)?)
    }

    /// Leaves all registries of Horde, so that no member shows the names of a node that is not there.
    pub(crate) async fn leave_registries(&self) {
        let registries: Vec<HordeRegistry> = {
            let registries = self.inner().services.registries.lock().unwrap_or_else(PoisonError::into_inner);
            registries.values().cloned().collect()
        };
        let leaving = registries
            .into_iter()
            .map(|registry| self.inner().runtime.spawn(async move { registry.leave().await }));
        for left in leaving.collect::<Vec<_>>() {
            // One that has ended has nothing to take along.
            let _ = left.await;
        }
    }

    fn delta_crdt_of(&self, name: Atom) -> Result<DeltaCrdt> {
        let mut maps = self.inner().services.maps.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = maps.get(&name).filter(|known| known.is_running()) {
            return Ok(known.clone());
        }
        let started = DeltaCrdt::start(self, &name)?;
        maps.insert(name, started.clone());
        Ok(started)
    }

    /// A member of the `Horde.Registry` of this name. `"MyApp.Registry"` and `"Elixir.MyApp.Registry"` are the same name.
    ///
    /// # Errors
    /// As [`Node::groups`].
    pub fn horde_registry(&self, name: &str) -> Result<HordeRegistry> {
        let name = elixir_name(name)?;
        let mut registries = self.inner().services.registries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = registries.get(&name).filter(|known| known.is_running()) {
            return Ok(known.clone());
        }
        let started = HordeRegistry::start(self, &name)?;
        registries.insert(name, started.clone());
        Ok(started)
    }

    /// The `Horde.Registry` of this name as this BEAM node has it: its names are asked for there, and none is kept here.
    ///
    /// # Errors
    /// A name is too long, or is none of a node. Nothing is asked yet.
    pub fn horde_client(&self, name: &str, through: &str) -> Result<HordeClient> {
        HordeClient::new(self, elixir_name(name)?, crate::node::atom(through)?)
    }

    /// What this node is to the `Horde.DynamicSupervisor` of this name: a member that runs no children. `"MyApp.Supervisor"` and
    /// `"Elixir.MyApp.Supervisor"` are the same name.
    ///
    /// # Errors
    /// As [`Node::groups`].
    pub fn horde_supervisor(&self, name: &str) -> Result<HordeSupervisor> {
        self.horde_supervisor_of(&elixir_name(name)?)
    }

    fn horde_supervisor_of(&self, name: &Atom) -> Result<HordeSupervisor> {
        let mut supervisors =
            self.inner().services.supervisors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = supervisors.get(name).filter(|known| known.is_running()) {
            return Ok(known.clone());
        }
        let started = HordeSupervisor::start(self, name)?;
        supervisors.insert(name.clone(), started.clone());
        Ok(started)
    }

    /// The names of the supervisors that this node answers for.
    fn horde_supervisors(&self) -> Vec<Atom> {
        let supervisors = self.inner().services.supervisors.lock().unwrap_or_else(PoisonError::into_inner);
        supervisors.keys().cloned().collect()
    }

    /// A registry of unique names, shared with the registries of the same name on all connected nodes of this kind.
    /// `"MyApp.Names"` and `"Elixir.MyApp.Names"` are the same name.
    ///
    /// # Errors
    /// As [`Node::groups`].
    pub fn registry(&self, name: &str) -> Result<Registry> {
        self.registry_with(name, Config::new(Keys::Unique))
    }

    /// The same with other parameters. They count when it is first asked for, and members that differ in [`Config::keys`] do not
    /// share names.
    ///
    /// # Errors
    /// As [`Node::groups`].
    pub fn registry_with(&self, name: &str, config: Config) -> Result<Registry> {
        let name = elixir_name(name)?;
        let mut registries = self.inner().services.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = registries.get(&name).filter(|known| known.is_running()) {
            return Ok(known.clone());
        }
        let started = Registry::start(self, &name, config)?;
        registries.insert(name, started.clone());
        Ok(started)
    }

    /// The leases of a service that the configured members run under this name. The configuration counts when it is first asked for,
    /// and has to be the same on all of them.
    ///
    /// # Errors
    /// As [`Node::groups`].
    pub fn leases(&self, name: &str, config: lease::Config) -> Result<Leases> {
        let name = elixir_name(name)?;
        let mut leases = self.inner().services.leases.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = leases.get(&name).filter(|known| known.is_running()) {
            return Ok(known.clone());
        }
        let started = Leases::start(self, &name, config)?;
        leases.insert(name, started.clone());
        Ok(started)
    }

    /// A supervisor of children that run somewhere in the cluster, shared with the supervisors of the same name on all connected nodes of
    /// this kind. `"MyApp.Jobs"` and `"Elixir.MyApp.Jobs"` are the same name. The configuration counts when it is first asked for.
    ///
    /// # Errors
    /// As [`Node::groups`].
    pub fn supervisor(&self, name: &str, config: supervisor::Config) -> Result<Supervisor> {
        let name = elixir_name(name)?;
        let mut supervisors = self.inner().services.spread.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = supervisors.get(&name).filter(|known| known.is_running()) {
            return Ok(known.clone());
        }
        let started = Supervisor::start(self, &name, config)?;
        supervisors.insert(name, started.clone());
        Ok(started)
    }

    /// The service mesh `foundation_services`, shared with the meshes of that name on all connected nodes of this kind.
    ///
    /// # Errors
    /// As [`Node::groups`].
    pub fn services(&self) -> Result<Mesh> {
        self.mesh(mesh::NAME)
    }

    /// The service mesh of this name.
    ///
    /// # Errors
    /// As [`Node::groups`].
    pub fn mesh(&self, name: &str) -> Result<Mesh> {
        self.mesh_with(name, mesh::Config::new())
    }

    /// The same with other parameters. They count when it is first asked for.
    ///
    /// # Errors
    /// As [`Node::groups`].
    pub fn mesh_with(&self, name: &str, config: mesh::Config) -> Result<Mesh> {
        let name = elixir_name(name)?;
        let mut meshes = self.inner().services.meshes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = meshes.get(&name).filter(|known| known.is_running()) {
            return Ok(known.clone());
        }
        let started = Mesh::start(self, &name, config)?;
        meshes.insert(name, started.clone());
        Ok(started)
    }

    /// A tracker, shared with the trackers of the same name on all connected nodes: with those of `Phoenix.Tracker` and of
    /// `Phoenix.Presence` modules. It talks over the PubSub of that name. The options count when it is first asked for.
    ///
    /// # Errors
    /// As [`Node::groups`].
    pub fn tracker(&self, pubsub: &str, name: &str, options: Options) -> Result<Tracker> {
        let pubsub = self.pubsub(pubsub)?;
        let name = elixir_name(name)?;
        let mut trackers = self.inner().services.trackers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = trackers.get(&name).filter(|known| known.is_running()) {
            return Ok(known.clone());
        }
        let started = Tracker::start(self, &pubsub, &name, &options)?;
        trackers.insert(name, started.clone());
        Ok(started)
    }
}

/// A name as Elixir means it: one that starts with a capital letter is a module's.
fn elixir_name(name: &str) -> Result<Atom> {
    let elixir = name.starts_with(|first: char| first.is_ascii_uppercase()) && !name.starts_with("Elixir.");
    crate::node::atom(&if elixir { format!("Elixir.{name}") } else { name.to_owned() })
}

/// Answers a `gen_server` call of which the caller was read as a term, `{Pid, Tag}`.
fn reply(process: &Handle, from: &Term, reply: &Term) {
    let answered = RawTerm::from_term(from)
        .map_err(Error::from)
        .and_then(|from| CallFrom::from_raw(&from).map_or(Ok(()), |caller| caller.reply_now(process, reply)));
    if let Err(error) = answered {
        debug!(%error, "a caller was not answered");
    }
}

/// Says what a machine of names, or one around it, has to say: to processes, or to those of its name on other nodes.
fn send(process: &Handle, name: &Atom, to: Vec<To>, message: &Term) {
    let raw = match RawTerm::from_term(message) {
        Ok(raw) => raw,
        Err(error) => return warn!(name = name.as_str(), %error, "a message of this service cannot be sent"),
    };
    for to in to {
        let dest = match to {
            To::Pid(pid) => Dest::from(pid),
            To::Server(node) => Dest::from((name.clone(), node)),
        };
        // A lost connection says so through the monitors.
        if let Err(error) = process.send_now(dest, raw.clone()) {
            debug!(name = name.as_str(), %error, "not sent");
        }
    }
}

/// Milliseconds since 1970, by the wall clock: what claims of names are compared by.
fn wall() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

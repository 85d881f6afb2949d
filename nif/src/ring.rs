//! Placement on a hash ring. Keys are hashed by the VM, which is faster at it than anything that has to encode them first.

use foundation_cluster::ring::Ring as Points;
use foundation_proto::Limits;
use foundation_proto::etf::{Term, decode};
use rustler::{Binary, Encoder, Env, NifResult, Resource, ResourceArc, Term as Argument};

use crate::timeslice;

mod atoms {
    rustler::atoms! { badarg, system_limit }
}

/// Points of all nodes together: 8 bytes each. 8,192 nodes of the default weight.
const MAX_POINTS: u64 = 1 << 20;

struct Ring(Points);

#[rustler::resource_impl]
impl Resource for Ring {}

/// From a list of `{Node, Weight}`, each node once. On a dirty scheduler: it is done once for a set of nodes.
#[rustler::nif(schedule = "DirtyCpu")]
fn ring_new(nodes: Binary<'_>) -> Result<ResourceArc<Ring>, rustler::Atom> {
    let nodes = decode(nodes.as_slice(), &Limits::default()).map_err(|_| atoms::badarg())?;
    let pair = |term: &Term| match term.as_tuple()? {
        [node, weight] => Some((node.clone(), u32::try_from(weight.as_i64()?).ok()?)),
        _ => None,
    };
    let nodes: Vec<(Term, u32)> = nodes
        .as_list()
        .ok_or_else(atoms::badarg)?
        .iter()
        .map(pair)
        .collect::<Option<_>>()
        .ok_or_else(atoms::badarg)?;
    if nodes.iter().map(|(_, weight)| u64::from(*weight)).sum::<u64>() > MAX_POINTS {
        return Err(atoms::system_limit());
    }
    Ok(ResourceArc::new(Ring(Points::new(nodes.iter().map(|(node, weight)| (node, *weight))))))
}

/// The number of the node to which a place belongs, the first being 0; `nil` if the ring is empty.
#[rustler::nif]
fn ring_owner(ring: ResourceArc<Ring>, place: u32) -> Option<usize> {
    ring.0.owner(place)
}

/// The same of many places. Taking the lists apart and making them is half of the work, so it is charged as well.
#[rustler::nif]
fn ring_owners<'a>(env: Env<'a>, ring: ResourceArc<Ring>, places: Argument<'a>) -> NifResult<Argument<'a>> {
    timeslice::charged(env, || {
        let places: Vec<u32> = places.decode()?;
        let owners: Vec<Option<usize>> = places.iter().map(|place| ring.0.owner(*place)).collect();
        Ok(owners.encode(env))
    })
}

/// The same on a dirty scheduler.
#[rustler::nif(schedule = "DirtyCpu")]
fn ring_owners_dirty(ring: ResourceArc<Ring>, places: Vec<u32>) -> Vec<Option<usize>> {
    places.iter().map(|place| ring.0.owner(*place)).collect()
}

//! The messages between members, as `DeltaCrdt.CausalCrdt` writes them.

use std::collections::BTreeMap;

use foundation_proto::etf::{Atom, Map, Pid, Term};

use super::merkle::BITS;
use super::{Context, Delta, Dot, Element, Location, MapSetShape, Subtree, elements_term};
use crate::Key;
use crate::message::{atom, list, list_of, tuple, tuple_of};

const DIFF: &str = "Elixir.DeltaCrdt.CausalCrdt.Diff";
const TREES: &str = "Elixir.MerkleMap.MerkleTree.Diff";
const TREE: &str = "Elixir.MerkleMap.MerkleTree";
const MAP: &str = "Elixir.DeltaCrdt.AWLWWMap";
const MAP_SET: &str = "Elixir.MapSet";

/// Where a member is reached.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Address {
    /// A process.
    Pid(Pid),
    /// A registered name on a node.
    Name {
        /// The name.
        name: Atom,
        /// The node.
        node: Atom,
    },
}

impl Address {
    /// The node of the member.
    pub fn node(&self) -> &Atom {
        match self {
            Self::Pid(pid) => &pid.node,
            Self::Name { node, .. } => node,
        }
    }

    /// A pid, or `{Name, Node}`.
    pub fn to_term(&self) -> Term {
        match self {
            Self::Pid(pid) => Term::Pid(pid.clone()),
            Self::Name { name, node } => tuple_of([Term::Atom(name.clone()), Term::Atom(node.clone())]),
        }
    }

    /// Reads a pid, `{Name, Node}`, or a name on `here`.
    pub fn from_term(term: Term, here: &Atom) -> Option<Self> {
        match term {
            Term::Pid(pid) => Some(Self::Pid(pid)),
            Term::Atom(name) => Some(Self::Name { name, node: here.clone() }),
            other => match tuple::<2>(other)? {
                [Term::Atom(name), Term::Atom(node)] => Some(Self::Name { name, node }),
                _ => None,
            },
        }
    }
}

/// A comparison under way: `%DeltaCrdt.CausalCrdt.Diff{}`.
#[derive(Clone, Debug)]
pub(super) struct Diff {
    /// Parts of the sender's tree, to compare with the receiver's at the same places.
    pub(super) trees: Vec<(Location, Subtree)>,
    /// The keys already known to differ.
    pub(super) keys: Vec<Key>,
    /// What the originator had seen when it began.
    pub(super) dots: BTreeMap<i64, i64>,
    /// Who began: data flows from it.
    pub(super) originator: Pid,
    pub(super) from: Address,
    pub(super) to: Address,
    /// Whether the originator is a member of this kind: it has the field `beyond`, which DeltaCrdt passes on.
    pub(super) exact: bool,
}

/// What a member is told or asked.
#[derive(Clone, Debug)]
pub(super) enum Message {
    Diff(Diff),
    /// The receiver of a comparison asks its originator for these keys.
    GetDiff {
        dots: BTreeMap<i64, i64>,
        from: Address,
        keys: Vec<Key>,
    },
    /// The state of some keys. With `beyond`, it is complete: nothing else differed.
    Delta {
        delta: Delta,
        beyond: Option<Vec<Dot>>,
    },
    /// The comparison with this neighbour, as its originator named it, is over.
    AckDiff(Address),
    SetNeighbours(Vec<Address>),
    Call {
        from: Term,
        request: Request,
    },
    Cast(Operation),
}

/// What callers ask for, with `GenServer.call/3`.
#[derive(Clone, Debug)]
pub(super) enum Request {
    Read(Option<Vec<Key>>),
    Operations(Vec<Operation>),
}

/// A write that a caller asks for.
#[derive(Clone, Debug)]
pub(super) enum Operation {
    Add(Key, Term),
    Remove(Key),
}

/// A message with the shape of the sets in it, if there was one.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) message: Message,
    pub(super) shape: Option<MapSetShape>,
}

/// Reads a message; `None` if it is none of the protocol's.
pub(super) fn read(term: Term, here: &Atom) -> Option<Read> {
    let mut shape = None;
    let Term::Tuple(elements) = term else { return None };
    let elements = elements.into_vec();
    let Some(Term::Atom(tag)) = elements.first() else { return None };
    let message = match (tag.as_str(), elements.len()) {
        ("diff", 2) => {
            let [_, diff] = elements.try_into().ok()?;
            Message::Diff(diff_of(diff, here, &mut shape)?)
        }
        ("get_diff", 3) => {
            let [_, diff, keys] = elements.try_into().ok()?;
            let mut diff = fields(diff, DIFF)?;
            Message::GetDiff {
                dots: context_of(diff.remove("dots")?)?.0.compact().collect(),
                from: Address::from_term(diff.remove("from")?, here)?,
                keys: list(keys)?.into_iter().map(Key).collect(),
            }
        }
        ("diff", 3) => {
            let [_, map, keys] = elements.try_into().ok()?;
            delta_of(map, list(keys)?, &mut shape)?
        }
        ("ack_diff", 2) => {
            let [_, neighbour] = elements.try_into().ok()?;
            Message::AckDiff(Address::from_term(neighbour, here)?)
        }
        ("set_neighbours", 2) => {
            let [_, neighbours] = elements.try_into().ok()?;
            let neighbours = list(neighbours)?.into_iter().map(|term| Address::from_term(term, here));
            Message::SetNeighbours(neighbours.collect::<Option<_>>()?)
        }
        ("$gen_call", 3) => {
            let [_, from, request] = elements.try_into().ok()?;
            Message::Call { from, request: request_of(request)? }
        }
        ("$gen_cast", 2) => {
            let [_, request] = elements.try_into().ok()?;
            let [_, operation] = tuple::<2>(request).filter(|[tag, _]| tag.is_atom("operation"))?;
            Message::Cast(operation_of(operation)?)
        }
        _ => return None,
    };
    Some(Read { message, shape })
}

fn request_of(request: Term) -> Option<Request> {
    if request.is_atom("read") {
        return Some(Request::Read(None));
    }
    let [tag, argument] = tuple::<2>(request)?;
    Some(match tag.as_atom()?.as_str() {
        "read" => Request::Read(Some(list(argument)?.into_iter().map(Key).collect())),
        "operation" => Request::Operations(vec![operation_of(argument)?]),
        "bulk_operation" => {
            let operations = list(argument)?.into_iter().map(operation_of);
            Request::Operations(operations.collect::<Option<_>>()?)
        }
        _ => return None,
    })
}

fn operation_of(term: Term) -> Option<Operation> {
    let [function, arguments] = tuple::<2>(term)?;
    let arguments = list(arguments)?;
    match function.as_atom()?.as_str() {
        "add" => {
            let [key, value] = arguments.try_into().ok()?;
            Some(Operation::Add(Key(key), value))
        }
        "remove" => {
            let [key] = arguments.try_into().ok()?;
            Some(Operation::Remove(Key(key)))
        }
        _ => None,
    }
}

/// The fields of an Elixir struct.
fn fields(term: Term, name: &str) -> Option<BTreeMap<String, Term>> {
    let Term::Map(map) = term else { return None };
    if !map.get_atom("__struct__")?.is_atom(name) {
        return None;
    }
    let named = |(key, value): (Term, Term)| Some((key.as_atom()?.as_str().to_owned(), value));
    Some(map.into_vec().into_iter().filter_map(named).collect())
}

fn diff_of(term: Term, here: &Atom, shape: &mut Option<MapSetShape>) -> Option<Diff> {
    let mut diff = fields(term, DIFF)?;
    let mut continuation = fields(diff.remove("continuation")?, TREES)?;
    let trees = list(continuation.remove("trees")?)?.into_iter().map(|pair| {
        let [at, tree] = tuple::<2>(pair)?;
        let at = Location::from_term(&at)?;
        let tree = fields(tree, TREE)?.remove("tree")?;
        Some((at, subtree_of(tree, BITS, shape)?))
    });
    let trees = trees.collect::<Option<Vec<_>>>()?;
    let Term::Pid(originator) = diff.remove("originator")? else { return None };
    Some(Diff {
        trees,
        keys: list(continuation.remove("keys")?)?.into_iter().map(Key).collect(),
        dots: context_of(diff.remove("dots")?)?.0.compact().collect(),
        originator,
        from: Address::from_term(diff.remove("from")?, here)?,
        to: Address::from_term(diff.remove("to")?, here)?,
        exact: diff.contains_key("beyond"),
    })
}

/// Reads a tree of at most `levels`; the recursion goes no deeper than that.
fn subtree_of(term: Term, levels: u32, shape: &mut Option<MapSetShape>) -> Option<Subtree> {
    match term {
        Term::List(empty) if empty.is_empty() => Some(Subtree::Empty),
        Term::Tuple(node) => match node.len() {
            2 => {
                let [hash, content] = node.into_vec().try_into().ok()?;
                if hash.is_atom("partial") {
                    return Some(Subtree::Partial(Location::from_term(&content)?));
                }
                let [key_hash, contents] = tuple::<2>(content)?;
                let Term::Map(contents) = contents else { return None };
                let contents: Vec<(Key, Term)> =
                    contents.into_vec().into_iter().map(|(key, elements)| (Key(key), elements)).collect();
                if shape.is_none() {
                    *shape = contents.first().and_then(|(_, elements)| shape_of(elements));
                }
                Some(Subtree::Leaf { hash: hash_of(&hash)?, key_hash: hash_of(&key_hash)?, contents })
            }
            3 => {
                let [hash, left, right] = node.into_vec().try_into().ok()?;
                let levels = levels.checked_sub(1)?;
                Some(Subtree::Inner {
                    hash: hash_of(&hash)?,
                    left: Box::new(subtree_of(left, levels, shape)?),
                    right: Box::new(subtree_of(right, levels, shape)?),
                })
            }
            _ => None,
        },
        _ => None,
    }
}

fn hash_of(term: &Term) -> Option<u32> {
    let bytes = term.as_binary()?.as_ref();
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// The shape of the first set of some elements.
fn shape_of(elements: &Term) -> Option<MapSetShape> {
    let (_, set) = elements.as_map()?.first()?;
    Some(match set.as_map()?.get_atom("version") {
        Some(_) => MapSetShape::Versioned,
        None => MapSetShape::Plain,
    })
}

/// Dots as a map of numbers, which claims all up to each, or as a set, which names each.
fn context_of(term: Term) -> Option<(Context, bool)> {
    let Term::Map(map) = term else { return None };
    let mut context = Context::default();
    if map.get_atom("__struct__").is_some() {
        for dot in set_of(&map)? {
            context.insert(dot);
        }
        return Some((context, true));
    }
    for (replica, number) in map.into_vec() {
        let dot = dot_of(&replica, &number)?;
        context.insert_upto(dot.replica, dot.number);
    }
    Some((context, false))
}

fn dot_of(replica: &Term, number: &Term) -> Option<Dot> {
    let dot = Dot { replica: replica.as_i64()?, number: number.as_i64()? };
    (dot.number > 0).then_some(dot)
}

fn set_of(set: &Map) -> Option<Vec<Dot>> {
    if !set.get_atom("__struct__")?.is_atom(MAP_SET) {
        return None;
    }
    let dots = set.get_atom("map")?.as_map()?.iter().map(|(dot, _)| match dot.as_tuple()? {
        [replica, number] => dot_of(replica, number),
        _ => None,
    });
    dots.collect()
}

fn delta_of(term: Term, keys: Vec<Term>, shape: &mut Option<MapSetShape>) -> Option<Message> {
    let mut map = fields(term, MAP)?;
    let (context, exact) = context_of(map.remove("dots")?)?;
    let Term::Map(value) = map.remove("value")? else { return None };
    let beyond = match map.remove("beyond") {
        Some(set) => Some(set_of(set.as_map()?)?),
        None => None,
    };
    let mut entries: BTreeMap<Key, Vec<Element>> = BTreeMap::new();
    for (key, elements) in value.into_vec() {
        if shape.is_none() {
            *shape = shape_of(&elements);
        }
        entries.insert(Key(key), elements_of(elements)?);
    }
    for key in keys {
        entries.entry(Key(key)).or_default();
    }
    Some(Message::Delta { delta: Delta { context, exact, entries }, beyond: beyond.filter(|_| !exact) })
}

fn elements_of(term: Term) -> Option<Vec<Element>> {
    let Term::Map(elements) = term else { return None };
    let elements = elements.into_vec().into_iter().map(|(written, dots)| {
        let [value, timestamp] = tuple::<2>(written)?;
        let mut dots = set_of(dots.as_map()?)?;
        dots.sort_unstable();
        Some(Element { value, timestamp: timestamp.as_i64()?, dots })
    });
    let mut elements = elements.collect::<Option<Vec<_>>>()?;
    elements.retain(|element| !element.dots.is_empty());
    Some(elements)
}

fn structure<const N: usize>(name: &'static str, fields: [(&'static str, Term); N]) -> Term {
    let all = fields.into_iter().map(|(key, value)| (atom(key), value));
    Term::Map([(atom("__struct__"), atom(name))].into_iter().chain(all).collect())
}

fn diff_term(diff: &Diff, continuation: Term) -> Term {
    let fields = [
        ("continuation", continuation),
        ("dots", numbers_term(&diff.dots)),
        ("from", diff.from.to_term()),
        ("originator", Term::Pid(diff.originator.clone())),
        ("to", diff.to.to_term()),
    ];
    let mut term = structure(DIFF, fields);
    if diff.exact
        && let Term::Map(fields) = &mut term
    {
        fields.insert(atom("beyond"), atom("true"));
    }
    term
}

/// `{:diff, %Diff{}}`: the next step of a comparison.
pub(super) fn diff(diff: &Diff) -> Term {
    let trees = diff
        .trees
        .iter()
        .map(|(at, tree)| tuple_of([at.to_term(), structure(TREE, [("tree", subtree_term(tree))])]));
    let keys = diff.keys.iter().map(|key| key.0.clone());
    let continuation = structure(TREES, [("keys", list_of(keys)), ("trees", list_of(trees))]);
    tuple_of([atom("diff"), diff_term(diff, continuation)])
}

/// `{:get_diff, %Diff{}, Keys}`. The originator needs no trees to answer.
pub(super) fn get_diff(diff: &Diff, keys: impl IntoIterator<Item = Key>) -> Term {
    let continuation = structure(TREES, [("keys", list_of([])), ("trees", list_of([]))]);
    let keys = list_of(keys.into_iter().map(|key| key.0));
    tuple_of([atom("get_diff"), diff_term(diff, continuation), keys])
}

/// `{:ack_diff, Neighbour}`.
pub(super) fn ack_diff(neighbour: &Address) -> Term {
    tuple_of([atom("ack_diff"), neighbour.to_term()])
}

/// `{:diff, %AWLWWMap{}, Keys}`: the elements of some keys, with dots as [`numbers_term`] or [`dots_term`]. If it is `complete`,
/// with what the sender has seen beyond its gapless numbers.
pub(super) fn delta<'a>(
    dots: Term,
    entries: impl IntoIterator<Item = (&'a Key, &'a [Element])>,
    shape: MapSetShape,
    complete: Option<&Context>,
) -> Term {
    let (mut keys, mut value) = (Vec::new(), Vec::new());
    for (key, elements) in entries {
        keys.push(key.0.clone());
        if !elements.is_empty() {
            value.push((key.0.clone(), elements_term(elements, shape)));
        }
    }
    // The keys come from a map or a set, so none is there twice.
    let value = Map::from_pairs(value).unwrap_or_default();
    let value = Term::Map(value);
    let map = match complete {
        Some(context) => {
            let beyond = dots_term(&context.beyond().collect::<Vec<_>>(), shape);
            structure(MAP, [("beyond", beyond), ("dots", dots), ("value", value)])
        }
        None => structure(MAP, [("dots", dots), ("value", value)]),
    };
    tuple_of([atom("diff"), map, list_of(keys)])
}

/// Dots as a map of numbers.
pub(super) fn numbers_term(dots: &BTreeMap<i64, i64>) -> Term {
    let pairs = dots.iter().map(|(replica, number)| (Term::Integer(*replica), Term::Integer(*number)));
    Term::Map(Map::from_pairs(pairs.collect()).unwrap_or_default())
}

/// Dots as a set.
pub(super) fn dots_term(dots: &[Dot], shape: MapSetShape) -> Term {
    let dots = dots.iter().map(|dot| {
        let dot = tuple_of([Term::Integer(dot.replica), Term::Integer(dot.number)]);
        (dot, list_of([]))
    });
    let map = Term::Map(dots.collect());
    match shape {
        MapSetShape::Plain => structure(MAP_SET, [("map", map)]),
        MapSetShape::Versioned => structure(MAP_SET, [("map", map), ("version", Term::Integer(2))]),
    }
}

fn subtree_term(tree: &Subtree) -> Term {
    let hash = |hash: u32| Term::binary(&hash.to_be_bytes());
    match tree {
        Subtree::Empty => list_of([]),
        Subtree::Leaf { hash: of, key_hash, contents } => {
            let contents = contents.iter().map(|(key, elements)| (key.0.clone(), elements.clone()));
            let contents = Term::Map(contents.collect());
            tuple_of([hash(*of), tuple_of([hash(*key_hash), contents])])
        }
        Subtree::Inner { hash: of, left, right } => {
            tuple_of([hash(*of), subtree_term(left), subtree_term(right)])
        }
        Subtree::Partial(at) => tuple_of([atom("partial"), at.to_term()]),
    }
}

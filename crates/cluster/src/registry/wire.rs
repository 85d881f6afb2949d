//! The messages between members, as `DeltaCrdt.CausalCrdt` writes them.

use std::collections::{BTreeMap, BTreeSet};

use foundation_proto::etf::{Atom, Elements, Kind, Map, Pairs, Pid, Term, View};

use super::merkle::BITS;
use super::{Context, Dot, Element, Location, MapSetShape, OwnSubtree, Subtree, elements_term};
use crate::Key;
use crate::message::{atom, list_of, tuple, tuple_of};

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
#[derive(Debug)]
pub(super) enum Message<'a> {
    /// With parts of the sender's tree, to compare with the receiver's at the same places.
    Diff(Diff, Vec<(Location, Subtree)>),
    /// The receiver of a comparison asks its originator for these keys.
    GetDiff {
        dots: BTreeMap<i64, i64>,
        from: Address,
        keys: Vec<Key>,
    },
    Delta(State<'a>),
    /// The comparison with this neighbour, as its originator named it, is over.
    AckDiff(Address),
    SetNeighbours(Vec<Address>),
    Call {
        from: Term,
        request: Request,
    },
    Cast(Operation),
}

/// The state of some keys, which is read a part at a time: a long one takes six times as much memory as a term.
#[derive(Debug)]
pub(super) struct State<'a> {
    pub(super) context: Context,
    /// Whether the context speaks of these keys alone.
    pub(super) exact: bool,
    /// What the sender has seen beyond its gapless numbers. With it, this is complete: nothing else differed.
    pub(super) beyond: Option<Vec<Dot>>,
    here: Pairs<'a>,
    /// The keys without elements.
    gone: BTreeSet<Key>,
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
pub(super) struct Read<'a> {
    pub(super) message: Message<'a>,
    pub(super) shape: Option<MapSetShape>,
}

/// Reads a message; `None` if it is none of the protocol's.
pub(super) fn read<'a>(message: View<'a>, here: &Atom) -> Option<Read<'a>> {
    let mut shape = None;
    if message.kind() != Kind::Tuple {
        return None;
    }
    let tag = message.elements().next()?.to_atom()?;
    let message = match (tag.as_str(), message.len()) {
        ("diff", 2) => {
            let [_, diff] = message.tuple()?;
            let (diff, trees) = diff_of(diff, here, &mut shape)?;
            Message::Diff(diff, trees)
        }
        ("get_diff", 3) => {
            let [_, diff, keys] = message.tuple()?;
            let diff = of_struct(diff, DIFF)?;
            Message::GetDiff {
                dots: context_of(diff.get("dots")?)?.0.compact().collect(),
                from: Address::from_term(diff.get("from")?.to_term(), here)?,
                keys: keys_of(keys)?,
            }
        }
        ("diff", 3) => {
            let [_, map, keys] = message.tuple()?;
            Message::Delta(state_of(map, keys, &mut shape)?)
        }
        ("ack_diff", 2) => {
            let [_, neighbour] = message.tuple()?;
            Message::AckDiff(Address::from_term(neighbour.to_term(), here)?)
        }
        ("set_neighbours", 2) => {
            let [_, neighbours] = message.tuple()?;
            let neighbours = list(neighbours)?.map(|address| Address::from_term(address.to_term(), here));
            Message::SetNeighbours(neighbours.collect::<Option<_>>()?)
        }
        ("$gen_call", 3) => {
            let [_, from, request] = message.tuple()?;
            Message::Call { from: from.to_term(), request: request_of(request)? }
        }
        ("$gen_cast", 2) => {
            let [_, request] = message.tuple()?;
            let [_, operation] = request.tuple::<2>().filter(|[tag, _]| tag.is_atom("operation"))?;
            Message::Cast(operation_of(operation)?)
        }
        _ => return None,
    };
    Some(Read { message, shape })
}

/// The elements of a proper list.
fn list(term: View<'_>) -> Option<Elements<'_>> {
    (term.kind() == Kind::List).then(|| term.elements())
}

/// The pairs of a map.
fn map(term: View<'_>) -> Option<Pairs<'_>> {
    (term.kind() == Kind::Map).then(|| term.pairs())
}

fn keys_of(term: View<'_>) -> Option<Vec<Key>> {
    Some(list(term)?.map(|key| Key(key.to_term())).collect())
}

fn request_of(request: View<'_>) -> Option<Request> {
    if request.is_atom("read") {
        return Some(Request::Read(None));
    }
    let [tag, argument] = request.tuple()?;
    Some(match tag.to_atom()?.as_str() {
        "read" => Request::Read(Some(keys_of(argument)?)),
        "operation" => Request::Operations(vec![operation_of(argument)?]),
        "bulk_operation" => Request::Operations(list(argument)?.map(operation_of).collect::<Option<_>>()?),
        _ => return None,
    })
}

fn operation_of(term: View<'_>) -> Option<Operation> {
    let [function, arguments] = term.tuple()?;
    let arguments: Vec<Term> = list(arguments)?.map(View::to_term).collect();
    match function.to_atom()?.as_str() {
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

/// An Elixir struct of this name.
fn of_struct<'a>(term: View<'a>, name: &str) -> Option<View<'a>> {
    term.get("__struct__")?.is_atom(name).then_some(term)
}

fn diff_of(
    term: View<'_>,
    here: &Atom,
    shape: &mut Option<MapSetShape>,
) -> Option<(Diff, Vec<(Location, Subtree)>)> {
    let diff = of_struct(term, DIFF)?;
    let continuation = of_struct(diff.get("continuation")?, TREES)?;
    let trees = list(continuation.get("trees")?)?.map(|pair| {
        let [at, tree] = pair.tuple()?;
        let at = Location::from_term(&at.to_term())?;
        let tree = of_struct(tree, TREE)?.get("tree")?;
        Some((at, subtree_of(tree, BITS, shape)?))
    });
    let trees = trees.collect::<Option<Vec<_>>>()?;
    let diff = Diff {
        keys: keys_of(continuation.get("keys")?)?,
        dots: context_of(diff.get("dots")?)?.0.compact().collect(),
        originator: diff.get("originator")?.as_pid()?,
        from: Address::from_term(diff.get("from")?.to_term(), here)?,
        to: Address::from_term(diff.get("to")?.to_term(), here)?,
        exact: diff.get("beyond").is_some(),
    };
    Some((diff, trees))
}

/// Reads a tree of at most `levels`; the recursion goes no deeper than that.
fn subtree_of(term: View<'_>, levels: u32, shape: &mut Option<MapSetShape>) -> Option<Subtree> {
    if term.kind() == Kind::List && term.is_empty() {
        return Some(Subtree::Empty);
    }
    if let Some([hash, left, right]) = term.tuple() {
        let levels = levels.checked_sub(1)?;
        return Some(Subtree::Inner {
            hash: hash_of(hash)?,
            left: Box::new(subtree_of(left, levels, shape)?),
            right: Box::new(subtree_of(right, levels, shape)?),
        });
    }
    let [hash, content] = term.tuple()?;
    if hash.is_atom("partial") {
        return Some(Subtree::Partial(Location::from_term(&content.to_term())?));
    }
    let [key_hash, contents] = content.tuple()?;
    if shape.is_none() {
        *shape = map(contents)?.next().and_then(|(_, elements)| shape_of(elements));
    }
    let contents = map(contents)?.map(|(key, _)| Key(key.to_term())).collect();
    Some(Subtree::Leaf { hash: hash_of(hash)?, key_hash: hash_of(key_hash)?, contents })
}

fn hash_of(term: View<'_>) -> Option<u32> {
    Some(u32::from_be_bytes(term.as_binary()?.try_into().ok()?))
}

/// The shape of the first set of some elements.
fn shape_of(elements: View<'_>) -> Option<MapSetShape> {
    let (_, set) = map(elements)?.next()?;
    map(set)?;
    Some(match set.get("version") {
        Some(_) => MapSetShape::Versioned,
        None => MapSetShape::Plain,
    })
}

/// Dots as a map of numbers, which claims all up to each, or as a set, which names each.
fn context_of(term: View<'_>) -> Option<(Context, bool)> {
    let mut context = Context::default();
    let numbers = map(term)?;
    if term.get("__struct__").is_some() {
        for dot in set_of(term)? {
            context.insert(dot);
        }
        return Some((context, true));
    }
    for (replica, number) in numbers {
        let dot = dot_of(replica, number)?;
        context.insert_upto(dot.replica, dot.number);
    }
    Some((context, false))
}

fn dot_of(replica: View<'_>, number: View<'_>) -> Option<Dot> {
    let dot = Dot { replica: replica.as_i64()?, number: number.as_i64()? };
    (dot.number > 0).then_some(dot)
}

fn set_of(set: View<'_>) -> Option<Vec<Dot>> {
    let dots = map(of_struct(set, MAP_SET)?.get("map")?)?.map(|(dot, _)| {
        let [replica, number] = dot.tuple()?;
        dot_of(replica, number)
    });
    dots.collect()
}

fn state_of<'a>(term: View<'a>, keys: View<'a>, shape: &mut Option<MapSetShape>) -> Option<State<'a>> {
    let told = of_struct(term, MAP)?;
    let (context, exact) = context_of(told.get("dots")?)?;
    let here = map(told.get("value")?)?;
    let beyond = match told.get("beyond") {
        Some(set) => Some(set_of(set)?),
        None => None,
    };
    *shape = here.clone().find_map(|(_, elements)| shape_of(elements));
    // Of one sender a term looks the same everywhere in a message, nearly always; what does not is taken out as it is read.
    let encoded: BTreeSet<&[u8]> = here.clone().map(|(key, _)| key.encoded()).collect();
    let gone = list(keys)?.filter(|key| !encoded.contains(key.encoded()));
    let gone = gone.map(|key| Key(key.to_term())).collect();
    Some(State { context, exact, beyond: beyond.filter(|_| !exact), here, gone })
}

impl State<'_> {
    /// The elements of the next `most` keys, and in the end the keys that have none; `None` if they cannot be understood. And whether
    /// these are the last.
    pub(super) fn next(&mut self, most: usize) -> Option<(BTreeMap<Key, Vec<Element>>, bool)> {
        let mut entries = BTreeMap::new();
        for (key, elements) in self.here.by_ref().take(most) {
            let key = Key(key.to_term());
            self.gone.remove(&key);
            entries.insert(key, elements_of(elements)?);
        }
        let last = self.here.clone().next().is_none();
        if last {
            entries.extend(std::mem::take(&mut self.gone).into_iter().map(|key| (key, Vec::new())));
        }
        Some((entries, last))
    }
}

fn elements_of(term: View<'_>) -> Option<Vec<Element>> {
    let elements = map(term)?.map(|(written, dots)| {
        let [value, timestamp] = written.tuple()?;
        let mut dots = set_of(dots)?;
        dots.sort_unstable();
        Some(Element { value: value.to_term(), timestamp: timestamp.as_i64()?, dots: dots.into() })
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

/// `{:diff, %Diff{}}`: the next step of a comparison, with parts of the own tree.
pub(super) fn diff(diff: &Diff, trees: &[(Location, OwnSubtree)], shape: MapSetShape) -> Term {
    let trees = trees
        .iter()
        .map(|(at, tree)| tuple_of([at.to_term(), structure(TREE, [("tree", subtree_term(tree, shape))])]));
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

fn subtree_term(tree: &OwnSubtree, shape: MapSetShape) -> Term {
    let hash = |hash: u32| Term::binary(&hash.to_be_bytes());
    match tree {
        Subtree::Empty => list_of([]),
        Subtree::Leaf { hash: of, key_hash, contents } => {
            let contents =
                contents.iter().map(|entry| (entry.key().0.clone(), elements_term(entry.elements(), shape)));
            let contents = Term::Map(contents.collect());
            tuple_of([hash(*of), tuple_of([hash(*key_hash), contents])])
        }
        Subtree::Inner { hash: of, left, right } => {
            tuple_of([hash(*of), subtree_term(left, shape), subtree_term(right, shape)])
        }
        Subtree::Partial(at) => tuple_of([atom("partial"), at.to_term()]),
    }
}

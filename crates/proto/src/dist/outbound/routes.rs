use crate::dist::ControlMessage;
use crate::etf::{Atom, Pid};

/// Who a message is for, borrowed: what [`Outbound::send_again`](super::Outbound::send_again) needs to know of it.
#[derive(Clone, Copy, Debug)]
pub enum Addressee<'a> {
    /// A process.
    Pid(&'a Pid),
    /// A registered name of the node at the other end.
    Name(&'a Atom),
}

/// How many pairs of sender and receiver are remembered, a power of two; about 200 bytes each, once used.
const ROUTES: usize = 32;

/// The longest front that is worth its memory.
const LONGEST: usize = 96;

/// What stands in front of the payload of recent messages: header and control tuple, encoded.
///
/// Most messages go the same way as one shortly before, and then nothing in front of the payload differs.
#[derive(Debug, Default)]
pub(super) struct Routes {
    /// By [`place`]; empty before the first.
    routes: Vec<Option<Route>>,
}

#[derive(Debug)]
struct Route {
    control: ControlMessage,
    /// [`HeaderWriter::changes`](crate::dist::header::HeaderWriter::changes) when it was encoded.
    changes: u64,
    front: Vec<u8>,
}

impl Routes {
    /// The front of a message between these two, unless slots of the atom cache have changed since.
    #[inline]
    pub(super) fn recall(&self, from: &Pid, to: Addressee<'_>, changes: u64) -> Option<&[u8]> {
        let route = self.routes.get(place(from, to))?.as_ref()?;
        (route.changes == changes && route.is_between(from, to)).then_some(&route.front)
    }

    /// Remembers the front of a message that has a payload, and a header that can be sent again.
    pub(super) fn remember(&mut self, control: &ControlMessage, changes: u64, front: &[u8]) {
        let Some((from, to)) = ends(control).filter(|_| front.len() <= LONGEST) else { return };
        let place = place(from, to);
        if self.routes.is_empty() {
            self.routes.resize_with(ROUTES, || None);
        }
        let Some(slot) = self.routes.get_mut(place) else { return };
        let mut memory = slot.take().map(|route| route.front).unwrap_or_default();
        memory.clear();
        memory.extend_from_slice(front);
        *slot = Some(Route { control: control.clone(), changes, front: memory });
    }
}

impl Route {
    /// Whether the control message is one between these two.
    #[inline]
    fn is_between(&self, from: &Pid, to: Addressee<'_>) -> bool {
        match (&self.control, to) {
            (ControlMessage::Send { from: Some(own_from), to: own_to }, Addressee::Pid(to)) => {
                same(own_from, from) && same(own_to, to)
            }
            (ControlMessage::RegSend { from: own_from, to: own_to }, Addressee::Name(to)) => {
                same(own_from, from) && own_to == to
            }
            _ => false,
        }
    }
}

/// The two ends of a message to a process or a name, which are the messages that repeat; `None` for everything else.
#[inline]
pub(super) fn ends(control: &ControlMessage) -> Option<(&Pid, Addressee<'_>)> {
    match control {
        ControlMessage::Send { from: Some(from), to } => Some((from, Addressee::Pid(to))),
        ControlMessage::RegSend { from, to } => Some((from, Addressee::Name(to))),
        _ => None,
    }
}

/// Where the front of messages between these two is kept.
#[inline]
fn place(from: &Pid, to: Addressee<'_>) -> usize {
    let number = match to {
        Addressee::Pid(to) => from.id ^ to.id.rotate_left(2),
        Addressee::Name(_) => !from.id,
    };
    number as usize % ROUTES
}

/// Whether both are encoded alike. Numbers first: they differ most often, and comparing them is cheap.
#[inline]
fn same(one: &Pid, other: &Pid) -> bool {
    one.id == other.id
        && one.serial == other.serial
        && one.creation == other.creation
        && one.node == other.node
}

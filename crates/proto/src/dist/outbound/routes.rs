use crate::dist::ControlMessage;
use crate::etf::Pid;

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
    /// The front of a message with this control message, unless slots of the atom cache have changed since.
    #[inline]
    pub(super) fn recall(&self, control: &ControlMessage, changes: u64) -> Option<&[u8]> {
        let route = self.routes.get(place(control)?)?.as_ref()?;
        (route.changes == changes && same(&route.control, control)).then_some(&route.front)
    }

    /// Remembers the front of a message that has a payload, and a header that can be sent again.
    pub(super) fn remember(&mut self, control: &ControlMessage, changes: u64, front: &[u8]) {
        let Some(place) = place(control).filter(|_| front.len() <= LONGEST) else { return };
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

/// Where the front of this control message is kept; `None` for all but messages to processes and names, which are the ones
/// that repeat.
#[inline]
fn place(control: &ControlMessage) -> Option<usize> {
    let number = match control {
        ControlMessage::Send { from: Some(from), to } => from.id ^ to.id.rotate_left(2),
        ControlMessage::RegSend { from, .. } => !from.id,
        _ => return None,
    };
    Some(number as usize % ROUTES)
}

/// Whether both are encoded alike. Numbers first: they differ most often, and comparing them is cheap.
#[inline]
fn same(one: &ControlMessage, other: &ControlMessage) -> bool {
    let pids = |a: &Pid, b: &Pid| {
        a.id == b.id && a.serial == b.serial && a.creation == b.creation && a.node == b.node
    };
    match (one, other) {
        (
            ControlMessage::Send { from: Some(from), to },
            ControlMessage::Send { from: Some(other_from), to: other_to },
        ) => pids(from, other_from) && pids(to, other_to),
        (
            ControlMessage::RegSend { from, to },
            ControlMessage::RegSend { from: other_from, to: other_to },
        ) => pids(from, other_from) && to == other_to,
        _ => false,
    }
}

use foundation_proto::etf::{Map, Term};

use crate::message::atom;

const STRUCT: &str = "Elixir.Phoenix.Socket.Broadcast";

/// `%Phoenix.Socket.Broadcast{}`: what Phoenix's channels and endpoints send each other, and what their subscribers receive.
#[derive(Clone, Debug, PartialEq)]
pub struct Broadcast {
    /// The topic, as in `socket.topic`.
    pub topic: String,
    /// The event.
    pub event: String,
    /// What is pushed to the clients: a map whose keys and values the serializer of the application can write.
    pub payload: Term,
}

impl Broadcast {
    /// Reads a message; `None` if it is none of these.
    pub fn from_term(message: &Term) -> Option<Self> {
        let fields = message.as_map()?;
        let text = |key| String::from_utf8(fields.get_atom(key)?.as_binary()?.to_vec()).ok();
        if !fields.get_atom("__struct__")?.is_atom(STRUCT) {
            return None;
        }
        Some(Self {
            topic: text("topic")?,
            event: text("event")?,
            payload: fields.get_atom("payload")?.clone(),
        })
    }

    /// The message.
    pub fn to_term(&self) -> Term {
        let fields = [
            ("__struct__", atom(STRUCT)),
            ("event", Term::from(self.event.as_str())),
            ("payload", self.payload.clone()),
            ("topic", Term::from(self.topic.as_str())),
        ];
        Term::Map(fields.into_iter().map(|(key, value)| (atom(key), value)).collect::<Map>())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broadcast_is_the_struct_and_nothing_else() {
        let broadcast =
            Broadcast { topic: "room:1".into(), event: "said".into(), payload: Term::Map(Map::default()) };
        let term = broadcast.to_term();
        assert_eq!(Broadcast::from_term(&term), Some(broadcast));
        let Term::Map(fields) = term else { panic!("{term:?}") };
        for (key, other) in
            [("__struct__", atom("Elixir.Other")), ("topic", Term::from(1)), ("event", Term::binary(&[0xFF]))]
        {
            let mut fields = fields.clone();
            fields.insert(atom(key), other);
            assert_eq!(Broadcast::from_term(&Term::Map(fields)), None, "{key}");
        }
        assert_eq!(Broadcast::from_term(&atom("x")), None);
    }
}

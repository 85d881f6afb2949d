use super::acceptor::Decision;
use crate::dist::name::NodeName;

/// What a node's table says about a peer at the moment that this peer says hello.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PeerState {
    /// Nothing.
    Unknown,
    /// This node is about to dial it, but has not sent its name.
    LookingUp,
    /// This node has dialled it and sent its name.
    Dialled,
    /// Another connection from it is in its handshake, not proved yet.
    Accepting,
    /// It is connected.
    Connected,
    /// It is connected, and another connection that is to replace that one is in its handshake.
    Replacing,
}

/// What to do with the hello of a peer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Tell the handshake.
    Decide(Decision),
    /// Give up this node's own attempt, then tell the handshake [`Decision::OkSimultaneous`].
    GiveUpOwnAttempt,
    /// Close without a word.
    Close,
}

/// Decides between simultaneous connections, as OTP's `net_kernel` does (`accept_pending`), so that both sides keep the same
/// one: of two attempts in opposite directions that of the greater name survives.
///
/// A second connection of a peer whose first is not proved yet goes on beside it, and the first to prove itself wins; an
/// unproved connection must not be able to keep its namesake out.
pub fn decide(own: &NodeName, peer: &NodeName, state: PeerState) -> Verdict {
    if own == peer {
        return Verdict::Decide(Decision::Nok);
    }
    match state {
        PeerState::Unknown | PeerState::Accepting => Verdict::Decide(Decision::Ok),
        PeerState::LookingUp => Verdict::GiveUpOwnAttempt,
        PeerState::Dialled if own > peer => Verdict::Decide(Decision::Nok),
        PeerState::Dialled => Verdict::GiveUpOwnAttempt,
        PeerState::Connected => Verdict::Decide(Decision::Alive),
        PeerState::Replacing => Verdict::Close,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        NodeName::parse(text).unwrap()
    }

    #[test]
    fn the_table_of_otp() {
        let own = name("m@h");
        for (state, smaller, greater) in [
            (PeerState::Unknown, Verdict::Decide(Decision::Ok), Verdict::Decide(Decision::Ok)),
            (PeerState::LookingUp, Verdict::GiveUpOwnAttempt, Verdict::GiveUpOwnAttempt),
            (PeerState::Dialled, Verdict::Decide(Decision::Nok), Verdict::GiveUpOwnAttempt),
            (PeerState::Accepting, Verdict::Decide(Decision::Ok), Verdict::Decide(Decision::Ok)),
            (PeerState::Connected, Verdict::Decide(Decision::Alive), Verdict::Decide(Decision::Alive)),
            (PeerState::Replacing, Verdict::Close, Verdict::Close),
        ] {
            assert_eq!(decide(&own, &name("a@h"), state), smaller, "{state:?}");
            assert_eq!(decide(&own, &name("z@h"), state), greater, "{state:?}");
            assert_eq!(decide(&own, &own, state), Verdict::Decide(Decision::Nok), "{state:?}");
        }
    }

    /// Whatever the names are, exactly one of two crossing attempts survives, the same one on both sides.
    #[test]
    fn both_sides_keep_the_same_connection() {
        let names = ["a@h", "b@h", "B@h", "aa@h", "a@hh", "a-b@h", "zz@10.0.0.1", "n@fdaa::1", "n@h\u{f6}st"];
        for one in names.map(name) {
            for other in names.map(name) {
                if one == other {
                    continue;
                }
                let keeps_own = |own: &NodeName, peer: &NodeName| {
                    decide(own, peer, PeerState::Dialled) == Verdict::Decide(Decision::Nok)
                };
                assert_ne!(keeps_own(&one, &other), keeps_own(&other, &one), "{one} {other}");
            }
        }
    }
}

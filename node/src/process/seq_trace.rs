//! Sequential trace tokens (OTP's `seq_trace`, kernel reference manual): what ties a message to those that caused it.
//!
//! A BEAM process whose token is set sends it with every message, and has the token of the message that it received last. Here the
//! second half is the same, [`Process::seq_trace_token`](super::Process::seq_trace_token); the first is explicit, because a
//! Rust process does not know which of its messages answers which: [`Handle::send_traced`](super::Handle::send_traced). This
//! node has no system tracer of its own: the tracers of the BEAM nodes see what is sent to and received from it.

use foundation_proto::etf::{Pid, RawTerm, Term};
use foundation_proto::{Error, Limits};

/// The longest token in bytes that is kept: labels are any term since OTP 21, and a token is held as long as its message, beside
/// what a mailbox counts. Small integers are usual.
const TOKEN_MAX: usize = 256;

/// The token of a message: `{Flags, Label, Serial, Sender, LastCnt}`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct SeqTraceToken {
    /// Which events the tracer wants to hear of: send 1, receive 2, print 4, timestamps 8, 16 and 32.
    pub flags: i64,
    /// What `seq_trace:set_token(label, Label)` was called with, encoded.
    pub label: RawTerm,
    /// The number of the message, greater than those of all that came before it in this trace.
    pub serial: u64,
    /// Who has sent it.
    pub sender: Pid,
    /// The number of the message that the sender had received last.
    pub last: u64,
}

impl SeqTraceToken {
    /// Reads what came with a message. `None` if it is no token, or one that is too long: the message is an ordinary one then.
    pub(crate) fn from_raw(raw: &RawTerm) -> Option<Box<Self>> {
        if raw.as_bytes().len() > TOKEN_MAX {
            return None;
        }
        let Ok(Term::Tuple(elements)) = raw.to_term(&Limits::default()) else { return None };
        let [flags, label, serial, Term::Pid(sender), last] =
            <[Term; 5]>::try_from(elements.into_vec()).ok()?
        else {
            return None;
        };
        let number = |term: &Term| term.as_i64().and_then(|number| u64::try_from(number).ok());
        let (flags, serial, last) = (flags.as_i64()?, number(&serial)?, number(&last)?);
        // Encoded anew: small, and without the frame that it came in.
        let label = RawTerm::from_term(&label).ok()?;
        Some(Box::new(Self { flags, label, serial, sender, last }))
    }

    /// The token of a message that `sender` sends because of the one that had this token.
    pub(crate) fn next(&self, sender: &Pid, serial: u64) -> Self {
        Self {
            flags: self.flags,
            label: self.label.clone(),
            serial,
            sender: sender.clone(),
            last: self.serial,
        }
    }

    pub(crate) fn to_raw(&self) -> Result<RawTerm, Error> {
        RawTerm::from_term(&Term::Tuple(
            [
                Term::Integer(self.flags),
                self.label.to_term(&Limits::default())?,
                Term::from(self.serial),
                Term::Pid(self.sender.clone()),
                Term::from(self.last),
            ]
            .into_iter()
            .collect(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use foundation_proto::etf::Atom;
    use foundation_proto::etf::text::parse_erlang;

    use super::*;

    fn pid(id: u32) -> Pid {
        Pid { node: Atom::new_static("n@h"), id, serial: 0, creation: 7 }
    }

    fn token(elements: Vec<Term>) -> Option<Box<SeqTraceToken>> {
        SeqTraceToken::from_raw(&RawTerm::from_term(&Term::Tuple(elements.into_iter().collect())).unwrap())
    }

    #[test]
    fn an_answer_has_the_next_number_and_knows_what_it_answers() {
        let label = parse_erlang("{label, [1]}", &Limits::default()).unwrap();
        let asked =
            token(vec![1.into(), label.clone(), 4.into(), Term::Pid(pid(1)), 2.into()]).expect("a token");
        let answer = asked.next(&pid(2), 5);
        assert_eq!(SeqTraceToken::from_raw(&answer.to_raw().unwrap()).unwrap().as_ref(), &answer);
        assert_eq!((answer.flags, answer.serial, answer.last), (1, 5, 4));
        assert_eq!((answer.label.to_term(&Limits::default()).unwrap(), answer.sender), (label, pid(2)));
    }

    #[test]
    fn what_is_no_token_is_none() {
        let good = || vec![1.into(), 17.into(), 4.into(), Term::Pid(pid(1)), 2.into()];
        assert!(token(good()).is_some());
        for (place, wrong) in
            [(0, "a"), (2, "-1"), (2, "1.0"), (3, "x"), (4, "-7"), (4, "16#ffffffffffffffff")]
        {
            let mut elements = good();
            elements[place] = parse_erlang(wrong, &Limits::default()).unwrap();
            assert!(token(elements).is_none(), "{place}: {wrong}");
        }
        assert!(token(good()[..4].to_vec()).is_none());
        let mut long = good();
        long[1] = Term::binary(&[0; TOKEN_MAX]);
        assert!(token(long).is_none());
    }
}

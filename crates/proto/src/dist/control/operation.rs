//! The table of operations.

use crate::dist::DistributionFlags;

/// What follows the control tuple of an operation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum PayloadKind {
    /// Nothing.
    None,
    /// The message.
    Message,
    /// The exit reason.
    Reason,
    /// The list of arguments.
    Arguments,
    /// The exit reason, but as the last element of the tuple and not behind it.
    InlineReason,
}

/// One row of the table of operations.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Operation {
    /// The first element of the control tuple.
    pub opcode: u8,
    /// The name in OTP, without the prefix `DOP_`.
    pub name: &'static str,
    /// How many elements the tuple has, the opcode included. For ALTACT_SIG_SEND the least it can have.
    pub arity: u32,
    /// Whether the tuple carries a trace token: its last element, or the last before an inline reason.
    pub token: bool,
    /// What follows the tuple.
    pub payload: PayloadKind,
    /// A BEAM sends it only if this was negotiated; before that it uses other operations or none.
    pub requires: DistributionFlags,
    /// The first OTP release that sends it; 0 if it is older than OTP 17.
    pub since: u8,
    /// The last OTP release that takes it, if there is one.
    pub until: Option<u8>,
}

macro_rules! operations {
    (@payload) => { PayloadKind::None };
    (@payload $payload:ident) => { PayloadKind::$payload };
    (@until) => { None };
    (@until $until:literal) => { Some($until) };
    ($($opcode:literal $name:ident / $arity:literal $(, payload $payload:ident)? $(, token $token:literal)?
        $(, requires $flag:ident $(| $more:ident)?)? $(, since $since:literal)? $(, until $until:literal)?;)+) => {
        $(pub(crate) const $name: u8 = $opcode;)+

        /// Every operation that OTP 23 to 29 can send, by ascending opcode.
        pub const OPERATIONS: &[Operation] = &[$(Operation {
            opcode: $opcode,
            name: stringify!($name),
            arity: $arity,
            token: false $(|| $token)?,
            payload: operations!(@payload $($payload)?),
            requires: DistributionFlags::NONE
                $(.union(DistributionFlags::$flag)$(.union(DistributionFlags::$more))?)?,
            since: 0 $(+ $since)?,
            until: operations!(@until $($until)?),
        },)+];
    };
}

operations! {
    1 LINK / 3;
    2 SEND / 3, payload Message;
    3 EXIT / 4, payload InlineReason;
    4 UNLINK / 3, until 25;
    6 REG_SEND / 4, payload Message;
    7 GROUP_LEADER / 3;
    8 EXIT2 / 4, payload InlineReason;
    12 SEND_TT / 4, payload Message, token true;
    13 EXIT_TT / 5, payload InlineReason, token true;
    16 REG_SEND_TT / 5, payload Message, token true;
    18 EXIT2_TT / 5, payload InlineReason, token true;
    19 MONITOR_P / 4, requires DIST_MONITOR | DIST_MONITOR_NAME;
    20 DEMONITOR_P / 4, requires DIST_MONITOR | DIST_MONITOR_NAME;
    21 MONITOR_P_EXIT / 5, payload InlineReason, requires DIST_MONITOR | DIST_MONITOR_NAME;
    22 SEND_SENDER / 3, payload Message, requires SEND_SENDER, since 21;
    23 SEND_SENDER_TT / 4, payload Message, token true, requires SEND_SENDER, since 21;
    24 PAYLOAD_EXIT / 3, payload Reason, requires EXIT_PAYLOAD, since 22;
    25 PAYLOAD_EXIT_TT / 4, payload Reason, token true, requires EXIT_PAYLOAD, since 22;
    26 PAYLOAD_EXIT2 / 3, payload Reason, requires EXIT_PAYLOAD, since 22;
    27 PAYLOAD_EXIT2_TT / 4, payload Reason, token true, requires EXIT_PAYLOAD, since 22;
    28 PAYLOAD_MONITOR_P_EXIT / 4, payload Reason, requires EXIT_PAYLOAD, since 22;
    29 SPAWN_REQUEST / 6, payload Arguments, requires SPAWN, since 23;
    30 SPAWN_REQUEST_TT / 7, payload Arguments, token true, requires SPAWN, since 23;
    31 SPAWN_REPLY / 5, requires SPAWN, since 23;
    32 SPAWN_REPLY_TT / 6, token true, requires SPAWN, since 23;
    33 ALIAS_SEND / 3, payload Message, requires ALIAS, since 24;
    34 ALIAS_SEND_TT / 4, payload Message, token true, requires ALIAS, since 24;
    35 UNLINK_ID / 4, requires UNLINK_ID, since 23;
    36 UNLINK_ID_ACK / 4, requires UNLINK_ID, since 23;
    37 ALTACT_SIG_SEND / 4, payload Message, requires ALTACT_SIG, since 28;
}

impl Operation {
    /// The row of an opcode.
    pub fn of(opcode: u8) -> Option<&'static Self> {
        const ROWS: [u8; 38] = {
            let mut rows = [u8::MAX; 38];
            let mut at = 0;
            while at < OPERATIONS.len() {
                rows[OPERATIONS[at].opcode as usize] = at as u8;
                at += 1;
            }
            rows
        };
        OPERATIONS.get(usize::from(*ROWS.get(usize::from(opcode))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_opcode_finds_its_row_and_no_other_does() {
        for opcode in 0..=u8::MAX {
            let row = OPERATIONS.iter().find(|row| row.opcode == opcode);
            assert_eq!(Operation::of(opcode).map(|row| row.name), row.map(|row| row.name));
        }
        assert_eq!(OPERATIONS.len(), 30);
        assert!(OPERATIONS.is_sorted_by_key(|row| row.opcode));
    }

    #[test]
    fn a_trace_token_is_one_more_element() {
        for row in OPERATIONS.iter().filter(|row| row.token) {
            let plain = row.name.strip_suffix("_TT").unwrap();
            let plain = OPERATIONS.iter().find(|row| row.name == plain).unwrap();
            assert_eq!((plain.arity + 1, plain.payload, plain.token), (row.arity, row.payload, false));
        }
    }
}

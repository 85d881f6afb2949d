//! `proc_lib`: what a process was started with.

use foundation_proto::etf::Term;

use super::{Answer, Call, Entry, Fault, mfa, process_info, tells};

pub(super) const FUNCTIONS: &[Entry] = &[tells("translate_initial_call", 1, translate_initial_call)];

/// As for a process that is gone, the answer is `{proc_lib, init_p, 5}` if nothing better is known.
fn translate_initial_call(call: &Call<'_>) -> Answer {
    let [Term::Pid(pid)] = call.args else { return Err(Fault::NoClause) };
    let unknown = || Term::from((Term::atom("proc_lib"), Term::atom("init_p"), 5));
    Ok(call.node.process(pid).map_or_else(unknown, |proc| mfa(&process_info::initial_call(&proc))))
}

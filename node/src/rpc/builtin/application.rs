//! `application`: there is one on a native node, and it is this.

use foundation_proto::etf::Term;

use super::{Answer, Call, Entry, Fault, VERSION, tells};

/// The name of the application that a native node runs.
pub(super) const NAME: &str = "foundation";
pub(super) const DESCRIPTION: &str = env!("CARGO_PKG_DESCRIPTION");

pub(super) const FUNCTIONS: &[Entry] = &[
    tells("which_applications", 0, |_| Ok(applications())),
    tells("which_applications", 1, |_| Ok(applications())),
    tells("loaded_applications", 0, |_| Ok(applications())),
    tells("get_key", 2, get_key),
];

/// `[{Application, Description, Vsn}]`.
pub(super) fn applications() -> Term {
    let this = (Term::atom(NAME), Term::charlist(DESCRIPTION), Term::charlist(VERSION));
    Term::list([Term::from(this)])
}

fn get_key(call: &Call<'_>) -> Answer {
    let [Term::Atom(application), Term::Atom(key)] = call.args else { return Err(Fault::NoClause) };
    let value = match key.as_str() {
        "vsn" => Term::charlist(VERSION),
        "description" => Term::charlist(DESCRIPTION),
        _ => return Ok(Term::atom("undefined")),
    };
    if application != NAME {
        return Ok(Term::atom("undefined"));
    }
    Ok(Term::from((Term::atom("ok"), value)))
}

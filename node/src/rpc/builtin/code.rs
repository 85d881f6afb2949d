//! `code`: which modules are there. Tools ask before they call, and some send their own code when the answer is no.

use foundation_proto::etf::{Atom, Term};

use super::{Answer, Call, Entry, Fault, has_module, live_dashboard, tells};

pub(super) const FUNCTIONS: &[Entry] = &[
    tells("is_loaded", 1, is_loaded),
    tells("ensure_loaded", 1, ensure_loaded),
    tells("load_binary", 3, load_binary),
];

/// Modules that this node has are part of it, as `erlang` is part of a BEAM: `{file, preloaded}`.
fn is_loaded(call: &Call<'_>) -> Answer {
    let [Term::Atom(module)] = call.args else { return Err(Fault::NoClause) };
    // LiveDashboard compares what it finds loaded with its own build. Told that nothing is, it sends its code, goes on
    // whatever the answer, and calls the functions that are here.
    if has_module(module) && module != live_dashboard::MODULE {
        return Ok(Term::from((Term::atom("file"), Term::atom("preloaded"))));
    }
    Ok(Term::from(Atom::from(false)))
}

fn ensure_loaded(call: &Call<'_>) -> Answer {
    let [Term::Atom(module)] = call.args else { return Err(Fault::NoClause) };
    if has_module(module) {
        return Ok(Term::from((Term::atom("module"), module)));
    }
    Ok(Term::from((Term::atom("error"), Term::atom("nofile"))))
}

/// BEAM code cannot be loaded here, and what was sent is dropped: a module that this node has is there already, natively, and
/// for others it is a `badfile`.
fn load_binary(call: &Call<'_>) -> Answer {
    let [Term::Atom(module), _, Term::Binary(_)] = call.args else {
        return Ok(Term::from((Term::atom("error"), Term::atom("badarg"))));
    };
    if has_module(module) {
        return Ok(Term::from((Term::atom("module"), module)));
    }
    Ok(Term::from((Term::atom("error"), Term::atom("badfile"))))
}

//! `os`: the operating-system process that this node lives in.

use foundation_proto::etf::Term;

use super::{Entry, tells};

pub(super) const FUNCTIONS: &[Entry] = &[
    tells("getpid", 0, |_| Ok(Term::charlist(&std::process::id().to_string()))),
    tells("type", 0, |_| {
        let name = match std::env::consts::OS {
            "macos" => "darwin",
            "linux" => "linux",
            "freebsd" => "freebsd",
            _ => "unknown",
        };
        Ok(Term::from((Term::atom("unix"), Term::atom(name))))
    }),
];

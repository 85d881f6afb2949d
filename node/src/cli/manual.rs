//! `foundation completions` and `foundation man`: the command line as shells and `man` take it, made from its definition.

use std::io::Write as _;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use super::args::Cli;
use super::exit::{self, Failure};

/// What the definition of the arguments does not say.
const SECTIONS: &str = r#".SH "EXIT STATUS"
0 done; 1 the other side raised an error or said no; 64 usage; 69 the node cannot be reached; 75 timed out; 77 the cookie is
another one; 78 configuration. `names` exits with 1 where no port mapper runs, as `epmd \-names` does.
.SH ENVIRONMENT
.TP
\fBFOUNDATION_CONFIG\fR
The configuration file.
.TP
\fBFOUNDATION_COOKIE\fR, \fBRELEASE_COOKIE\fR
The cookie, where no \fB\-\-setcookie\fR is given.
.TP
\fBFOUNDATION_\fIKEY\fR
Any key of the configuration: FOUNDATION_NET_TICKTIME, FOUNDATION_LIMITS__PEERS.
.TP
\fBFOUNDATION_NODE\fR, \fBRELEASE_NODE\fR
The node that commands speak to where none is named.
.TP
\fBERL_EPMD_PORT\fR
The port of the port mapper.
.SH FILES
\fI~/.erlang.cookie\fR: the cookie, made with mode 0400 if there is none.
.SH "SEE ALSO"
\fBerl\fR(1), \fBepmd\fR(1)
"#;

/// Prints the completions of one shell.
pub(crate) fn completions(shell: Shell) -> Result<u8, Failure> {
    let mut out = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "foundation", &mut out);
    print(&out)
}

/// Prints the page of `foundation`, or of one of its commands.
pub(crate) fn man(command: Option<&str>) -> Result<u8, Failure> {
    let mut all = Cli::command();
    // Only then the commands know their whole name and the options that all have.
    all.build();
    let (page, sections) = match command {
        None => (Man::new(all), SECTIONS),
        Some(name) => {
            let found = all.find_subcommand(name).cloned();
            let found =
                found.ok_or_else(|| Failure::Usage(format!("there is no command {name:?}; see --help")))?;
            let title = format!("foundation-{name}");
            (Man::new(found).title(title), "")
        }
    };
    let mut out = Vec::new();
    // Writing into memory does not fail.
    let _ = page.manual("Foundation").render(&mut out);
    out.extend_from_slice(sections.as_bytes());
    print(&out)
}

fn print(text: &[u8]) -> Result<u8, Failure> {
    let mut out = std::io::stdout().lock();
    // A reader that has gone away is its own business.
    let _closed = out.write_all(text).and_then(|()| out.flush());
    Ok(exit::OK)
}

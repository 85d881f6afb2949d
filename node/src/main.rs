//! The command `foundation`: runs a node, and speaks to the nodes of a cluster from the shell.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}

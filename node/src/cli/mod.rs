//! The command line of `foundation`.
//!
//! | module | what |
//! |---|---|
//! | [`args`] | the arguments, among them the ones that BEAM people know by heart |
//! | [`args_file`] | further arguments from a file, as `vm.args` of a release |
//! | [`exit`] | why a command failed, and its exit code |
//! | [`horde`] | names and children of Horde: `horde` |
//! | [`logs`] | where diagnostics go, and in which form |
//! | [`start`] | run a node |
//! | [`reload`] | what SIGHUP changes in a running node |
//! | [`ports`] | the port mapper: `epmd`, `names` |
//! | [`companion`] | the discovery of an Elixir node |
//! | [`config`] | `config check`, `config show` |
//! | [`discover`] | what the configured sources find |
//! | [`doctor`] | what is wrong between here and a node |
//! | [`json`] | reports as JSON |
//! | [`session`] | a short-lived hidden node that speaks to another one |
//! | [`remote`] | what is asked of the other one: `ping`, `rpc`, `call`, … |
//! | [`registry`] | what is found in a registry |
//! | [`singleton`] | the children of a supervisor |
//! | [`manual`] | completions for shells, and the man page |
//! | [`services`] | what is found in a service mesh |
//! | [`traffic`] | groups, topics and channels: `groups`, `subscribe`, `broadcast`, `channels` |
//! | [`terms`] | terms on the command line and on the standard output |
//!
//! Results go to the standard output, everything else to the standard error.

mod args;
mod args_file;
mod companion;
mod config;
mod discover;
mod doctor;
mod exit;
mod horde;
mod json;
mod logs;
mod manual;
mod ports;
mod registry;
mod reload;
mod remote;
mod services;
mod session;
mod singleton;
mod start;
mod terms;
mod traffic;

use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;

use args::{Cli, Command};
use exit::Failure;

/// Runs the command that the arguments ask for.
pub(crate) fn main() -> ExitCode {
    let arguments = match args_file::expand(std::env::args_os()) {
        Ok(arguments) => args::normalise(arguments.into_iter()),
        Err(failure) => {
            failure.print();
            return ExitCode::from(failure.code());
        }
    };
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers; anything else is misuse (EX_USAGE of sysexits.h).
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            let _closed = error.print();
            return if asked { ExitCode::SUCCESS } else { ExitCode::from(exit::USAGE) };
        }
    };
    let logs = logs::start(&cli.options, matches!(cli.command, Command::Start | Command::Epmd(_)));
    match run(&cli, &logs) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            failure.print();
            ExitCode::from(failure.code())
        }
    }
}

fn run(cli: &Cli, logs: &logs::Logs) -> Result<u8, Failure> {
    let serves = matches!(cli.command, Command::Start);
    let mut builder = if serves {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        // A client command does one thing; further threads would cost more than they give.
        tokio::runtime::Builder::new_current_thread()
    };
    let runtime =
        builder.enable_all().build().map_err(|error| Failure::Config(format!("cannot start: {error}")))?;
    runtime.block_on(async {
        match &cli.command {
            Command::Start => start::run(&cli.options, logs).await,
            Command::Epmd(command) => ports::epmd(command, &cli.options).await,
            Command::Names { host } => ports::names(host.as_deref(), &cli.options).await,
            Command::Completions { shell } => manual::completions(*shell),
            Command::Man { command } => manual::man(command.as_deref()),
            Command::Version => {
                terms::line(&format!("foundation {}", env!("CARGO_PKG_VERSION")));
                Ok(exit::OK)
            }
            Command::Subscribe { topic, count } => traffic::subscribe(topic, *count, &cli.options).await,
            Command::Broadcast { topic, term } => traffic::broadcast(topic, term, &cli.options).await,
            Command::Horde { node, name } => horde::horde(node, name, &cli.options).await,
            Command::Groups { node, scope } => traffic::groups(node, scope, &cli.options).await,
            Command::Singleton { node, name, id, to } => {
                singleton::run(node, name, id.as_deref(), to.as_deref(), &cli.options).await
            }
            Command::Registry { node, name } => registry::list(node, name, &cli.options).await,
            Command::Services { node, criteria, mesh, loads } => {
                services::list(node, mesh, criteria.as_deref(), *loads, &cli.options).await
            }
            Command::Channels { node, one, interval, count } => {
                traffic::channels(node, *one, *interval, *count, &cli.options).await
            }
            Command::Companion => companion::run().await,
            Command::Discover(command) => discover::run(command, &cli.options).await,
            Command::Doctor { target, json } => doctor::run(target.name(), *json, &cli.options).await,
            Command::Config { command } => config::run(command, &cli.options).await,
            command => remote::run(command, &cli.options).await,
        }
    })
}

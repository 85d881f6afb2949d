//! `foundation companion`: the discovery of an Elixir node, which starts it as a port.

use std::io::{self, IsTerminal};

use foundation_node::discovery::companion::{self, Ended};

use super::exit::{self, Failure};

/// Runs until the owner closes the standard input.
pub(crate) async fn run() -> Result<u8, Failure> {
    if io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "companion is started by an Elixir node (Foundation.Cluster.Companion) and speaks to it in terms; `discover` is for \
             people"
                .to_owned(),
        ));
    }
    match companion::run(io::stdin(), io::stdout()).await {
        Ended::Refused(why) => Err(Failure::Config(why)),
        _ => Ok(exit::OK),
    }
}

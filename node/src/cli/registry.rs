//! What is found in a registry: `registry`.

use foundation_proto::etf::{Atom, Term};

use super::args::Options;
use super::exit::Failure;
use super::remote::{failure, leave};
use super::session::Session;
use super::terms;

/// Names in one answer of the registry.
const PAGE: i64 = 500;

/// `foundation registry NODE NAME`: key, process and value of each name, a line each.
pub(crate) async fn list(node: &str, name: &str, options: &Options) -> Result<u8, Failure> {
    let module = name.starts_with(|first: char| first.is_ascii_uppercase()) && !name.starts_with("Elixir.");
    let name = terms::name(&if module { format!("Elixir.{name}") } else { name.to_owned() })?;
    let session = Session::open(Some(node), options).await?;
    let result = pages(&session, &name, options).await;
    leave(session, result).await
}

async fn pages(session: &Session, name: &Atom, options: &Options) -> Result<(), Failure> {
    let mut after = Term::atom("first");
    while !after.is_atom("end") {
        let request = Term::from((Term::atom("select"), after, PAGE));
        let answer = session
            .node
            .call((name.clone(), session.target.clone()), request, session.timeout)
            .await
            .map_err(|error| failure(&error, session, &format!("asking the registry {}", name.as_str())))?;
        let (names, next) = match answer.as_tuple() {
            Some([ok, Term::List(names), next]) if ok.is_atom("ok") => (names, next),
            _ => {
                return Err(Failure::Remote(format!(
                    "{} on {} is no registry of this kind",
                    name.as_str(),
                    session.target.as_str()
                )));
            }
        };
        for name in names.iter() {
            if let Some([key, pid, value]) = name.as_tuple() {
                let shown = |term| terms::show_line(term, options.format, session.node.name());
                terms::line(&format!("{}\t{}\t{}", shown(key), shown(pid), shown(value)));
            }
        }
        after = next.clone();
    }
    Ok(())
}

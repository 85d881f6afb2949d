//! What the children of a supervisor are doing, and moving one: `singleton`.

use foundation_proto::etf::{Atom, Term};

use super::args::Options;
use super::exit::Failure;
use super::remote::{failure, leave};
use super::session::Session;
use super::terms;

/// `foundation singleton NODE NAME [ID [--to NODE]]`: a line for each process of each child, or of one; or moves one.
pub(crate) async fn run(
    node: &str,
    name: &str,
    id: Option<&str>,
    to: Option<&str>,
    options: &Options,
) -> Result<u8, Failure> {
    let module = name.starts_with(|first: char| first.is_ascii_uppercase()) && !name.starts_with("Elixir.");
    let name = terms::name(&if module { format!("Elixir.{name}") } else { name.to_owned() })?;
    let id = id.map(|id| terms::parse(id, options.format)).transpose()?;
    let to = to.map(terms::name).transpose()?;
    let session = Session::open(Some(node), options).await?;
    let result = match (id, to) {
        (Some(id), Some(to)) => migrate(&session, &name, id, &to, options).await,
        (Some(id), None) => show(&session, &name, id, options).await,
        (None, _) => list(&session, &name, options).await,
    };
    leave(session, result).await
}

async fn ask(session: &Session, name: &Atom, request: Term) -> Result<Term, Failure> {
    session
        .node
        .call((name.clone(), session.target.clone()), request, session.timeout)
        .await
        .map_err(|error| failure(&error, session, &format!("asking the supervisor {}", name.as_str())))
}

fn no_supervisor(session: &Session, name: &Atom) -> Failure {
    Failure::Remote(format!("{} on {} is no supervisor of this kind", name.as_str(), session.target.as_str()))
}

/// Id, part, node, status and process of each.
async fn list(session: &Session, name: &Atom, options: &Options) -> Result<(), Failure> {
    let children = ask(session, name, Term::atom("places")).await?;
    let children = children.as_list().ok_or_else(|| no_supervisor(session, name))?;
    for child in children {
        if let Some(parts) = child.as_tuple() {
            line(parts, session, options);
        }
    }
    Ok(())
}

async fn show(session: &Session, name: &Atom, id: Term, options: &Options) -> Result<(), Failure> {
    let found = ask(session, name, Term::from((Term::atom("lookup"), id.clone()))).await?;
    let found = found.as_list().ok_or_else(|| no_supervisor(session, name))?;
    if found.is_empty() {
        return Err(Failure::Remote("there is no such child".to_owned()));
    }
    for place in found {
        if let Some(place) = place.as_tuple() {
            let parts: Vec<Term> = std::iter::once(&id).chain(place).cloned().collect();
            line(&parts, session, options);
        }
    }
    Ok(())
}

fn line(parts: &[Term], session: &Session, options: &Options) {
    let shown: Vec<String> =
        parts.iter().map(|part| terms::show_line(part, options.format, session.node.name())).collect();
    terms::line(&shown.join("\t"));
}

async fn migrate(
    session: &Session,
    name: &Atom,
    id: Term,
    to: &Atom,
    options: &Options,
) -> Result<(), Failure> {
    let request = Term::from((Term::atom("migrate"), id, Term::from(to)));
    let answer = ask(session, name, request).await?;
    if answer.is_atom("ok") {
        return Ok(());
    }
    let why = match answer.as_tuple() {
        Some([error, why]) if error.is_atom("error") => why,
        _ => return Err(no_supervisor(session, name)),
    };
    let why = terms::show_line(why, options.format, session.node.name());
    Err(Failure::Remote(format!("it was not moved to {}: {why}", to.as_str())))
}

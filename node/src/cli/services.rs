//! What is found in a service mesh: `services`.

use foundation_proto::etf::{Atom, Map, Term};

use super::args::Options;
use super::exit::Failure;
use super::remote::{failure, leave};
use super::session::Session;
use super::terms;

/// Services in one answer of the mesh.
const PAGE: i64 = 500;

/// `foundation services NODE [CRITERIA]`: name, process, health, capabilities and metadata of each instance, a line each; or the
/// loads of the nodes.
pub(crate) async fn list(
    node: &str,
    mesh: &str,
    criteria: Option<&str>,
    loads: bool,
    options: &Options,
) -> Result<u8, Failure> {
    let mesh = terms::name(mesh)?;
    let criteria = criteria.map_or(Ok(Term::nil()), |criteria| terms::parse(criteria, options.format))?;
    let session = Session::open(Some(node), options).await?;
    let result = if loads {
        figures(&session, &mesh, options).await
    } else {
        pages(&session, &mesh, &criteria, options).await
    };
    leave(session, result).await
}

async fn ask(session: &Session, mesh: &Atom, request: Term) -> Result<Term, Failure> {
    let doing = || format!("asking the mesh {}", mesh.as_str());
    let answer = session.node.call((mesh.clone(), session.target.clone()), request, session.timeout).await;
    answer.map_err(|error| failure(&error, session, &doing()))
}

fn no_mesh(session: &Session, mesh: &Atom) -> Failure {
    Failure::Remote(format!("{} on {} is no mesh of services", mesh.as_str(), session.target.as_str()))
}

async fn pages(session: &Session, mesh: &Atom, criteria: &Term, options: &Options) -> Result<(), Failure> {
    let mut after = Term::atom("first");
    while !after.is_atom("end") {
        let request = Term::from((Term::atom("select_services"), criteria.clone(), after, PAGE));
        let answer = ask(session, mesh, request).await?;
        let (found, next) = match answer.as_tuple() {
            Some([ok, Term::List(found), next]) if ok.is_atom("ok") => (found, next),
            Some([error, why])
                if error.is_atom("error") && !criteria.as_list().is_some_and(<[Term]>::is_empty) =>
            {
                let why = terms::show_line(why, options.format, session.node.name());
                return Err(Failure::Remote(format!("the mesh does not take these criteria: {why}")));
            }
            _ => return Err(no_mesh(session, mesh)),
        };
        for info in found.iter().filter_map(Term::as_map) {
            terms::line(&line(info, options, session.node.name()));
        }
        after = next.clone();
    }
    Ok(())
}

fn line(info: &Map, options: &Options, own: &Atom) -> String {
    let shown =
        |key| info.get_atom(key).map_or_else(String::new, |term| terms::show_line(term, options.format, own));
    ["name", "pid", "health", "capabilities", "metadata"].map(shown).join("\t")
}

async fn figures(session: &Session, mesh: &Atom, options: &Options) -> Result<(), Failure> {
    match ask(session, mesh, Term::atom("loads")).await? {
        Term::Map(loads) => {
            for (node, load) in loads.iter() {
                let shown = |term| terms::show_line(term, options.format, session.node.name());
                terms::line(&format!("{}\t{}", shown(node), shown(load)));
            }
            Ok(())
        }
        _ => Err(no_mesh(session, mesh)),
    }
}

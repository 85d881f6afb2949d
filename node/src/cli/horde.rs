//! What stands in the map of a Horde registry or supervisor, as one node has it.
//!
//! Any node that has the map can be asked, a BEAM node or one of ours. Nothing is joined and nothing changed.

use foundation_cluster::registry::horde::map_name;
use foundation_node::service::horde::supervisor::Child;
use foundation_proto::etf::{Atom, Map, Term};

use super::args::Options;
use super::exit::Failure;
use super::remote::{failure, leave};
use super::session::Session;
use super::terms;

/// `foundation horde NODE NAME`.
pub(crate) async fn horde(node: &str, name: &str, options: &Options) -> Result<u8, Failure> {
    let name = terms::name(name)?;
    let map = map_name(&name).ok_or_else(|| Failure::Usage("the name is too long".to_owned()))?;
    let session = Session::open(Some(node), options).await?;
    let result = read(&session, map).await.map(|map| {
        lines(map, options, session.node.name()).iter().for_each(|line| terms::line(line));
    });
    leave(session, result).await
}

async fn read(session: &Session, map: Atom) -> Result<Map, Failure> {
    let doing = format!("reading {}", map.as_str());
    let to = (map, session.target.clone());
    match session.node.call(to, Term::atom("read"), session.timeout).await {
        Ok(Term::Map(map)) => Ok(map),
        Ok(_) => Err(Failure::Remote(format!("{doing}: it is no map of Horde"))),
        Err(error) => Err(failure(&error, session, &doing)),
    }
}

/// A line for each name, or for each child, by name or specification.
fn lines(map: Map, options: &Options, own: &Atom) -> Vec<String> {
    let show = |term: &Term| terms::show_line(term, options.format, own);
    let mut entries = map.into_vec();
    entries.sort_by(|(a, _), (b, _)| a.cmp_erlang(b));
    let line = |(key, value): &(Term, Term)| {
        if let Some(Child { spec, running, .. }) = Child::read(key, value) {
            let start =
                spec.as_map().and_then(|spec| spec.get_atom("start")).map_or_else(|| show(&spec), show);
            let place = running.map_or_else(
                || "-\t-".to_owned(),
                |(member, pid)| format!("{}\t{}", show(&Term::Pid(pid)), member.node.as_str()),
            );
            return Some(format!("{start}\t{place}"));
        }
        let ([tag, name], [_, Term::Pid(pid), value]) = (key.as_tuple()?, value.as_tuple()?) else {
            return None;
        };
        let pid_shown = show(&Term::Pid(pid.clone()));
        tag.is_atom("key")
            .then(|| format!("{}\t{pid_shown}\t{}\t{}", show(name), pid.node.as_str(), show(value)))
    };
    entries.iter().filter_map(line).collect()
}
